"""The real kube-scheduler puts pods where the nodes' placements want them, by way of the extender."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner.labels import EXPIRING, ITERATION, OPTIMAL, PLACEMENT, Count, Placement, Target, encode_placement
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.kwok import FakeNode
from tests.extender.serving import Served, serve

pytestmark = pytest.mark.controlplane

MANIFESTS = Path(__file__).parents[2] / "manifests" / "base"
NODES = tuple(f"node-{number}" for number in range(6))
NOTHING = {"cpu_millicores": 0, "memory_bytes": 0, "pods": 0}


@pytest.fixture(params=[True, False], ids=["names only", "whole nodes"])
def steered(control_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[Served]:
    """Six nodes and a scheduler with the extender beside it, as the manifests configure and authorize them."""
    control_plane.kubectl("apply", "--server-side", "-n", "kube-system", "-f", str(MANIFESTS / "rbac.yaml"))
    identity = control_plane.kubeconfig_for("kube-system", "kinema-extender")
    with serve({"EXTENDER_KUBECONFIG": str(identity)}) as running:
        configuration = yaml.safe_load((MANIFESTS / "scheduler-configuration.yaml").read_text())
        del configuration["leaderElection"]
        configuration["profiles"] = [{"schedulerName": "default-scheduler"}]
        (extender,) = configuration["extenders"]
        extender["urlPrefix"] = f"http://127.0.0.1:{running.port}"
        extender["nodeCacheCapable"] = request.param
        # On a busy test machine a slow answer must not look like a lost one.
        extender["httpTimeout"] = "5s"
        scheduler = control_plane.start_scheduler(configuration)
        control_plane.add_node(*(FakeNode(name=name) for name in NODES))
        yield running
        scheduler.stop()


def create(control_plane: ControlPlane, namespace: str, name: str, replicas: int) -> str:
    """Create a Deployment and return its uid."""
    labels = {"app": name}
    requests = {"cpu": "100m", "memory": "64Mi"}
    containers = [{"name": "main", "image": "registry.example/app:1", "resources": {"requests": requests}}]
    body = {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }
    made = control_plane.request("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", body)
    uid: str = made["metadata"]["uid"]
    return uid


def plan(control_plane: ControlPlane, targets: dict[str, Target], iteration: str) -> None:
    """Label all nodes: those with a target are in the plan without any headroom, the others expire."""
    for name in NODES:
        labels: dict[str, Any] = {OPTIMAL: None, EXPIRING: iteration}
        annotations: dict[str, Any] = {PLACEMENT: None}
        if name in targets:
            labels = {OPTIMAL: iteration, EXPIRING: None}
            placement = Placement(iteration, time.time() + 600, (targets[name],), NOTHING)
            annotations = {PLACEMENT: encode_placement(placement)}
        patch = {"metadata": {"labels": labels, "annotations": annotations}}
        control_plane.request("PATCH", f"/api/v1/nodes/{name}", patch)


def patch_deployment(control_plane: ControlPlane, namespace: str, name: str, spec: dict[str, Any]) -> None:
    control_plane.request("PATCH", f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}", {"spec": spec})


def spread(control_plane: ControlPlane, namespace: str, app: str, mark: str | None = None) -> Counter[str]:
    """Count the Deployment's running pods by node; any pod that is not settled yet counts as "unsettled"."""
    found: Counter[str] = Counter()
    for pod in control_plane.items(f"/api/v1/namespaces/{namespace}/pods?labelSelector=app%3D{app}"):
        marked = pod["metadata"].get("annotations", {}).get(ITERATION) == mark
        settled = pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"] and marked
        found[pod["spec"]["nodeName"] if settled else "unsettled"] += 1
    return found


def test_a_deployment_lands_and_rolls_as_its_targets_say(
    control_plane: ControlPlane, steered: Served, request: pytest.FixtureRequest
) -> None:
    namespace = control_plane.create_namespace(f"shop-{request.node.callspec.id.replace(' ', '-')}")
    uid = create(control_plane, namespace, "web", 0)

    def targets(wants: dict[str, int], count: Count) -> dict[str, Target]:
        return {name: Target(f"{namespace}/Deployment/web", uid, want, count) for name, want in wants.items()}

    first = {"node-1": 5, "node-3": 1, "node-4": 2}
    plan(control_plane, targets(first, "all"), "i-1")
    control_plane.eventually(lambda: steered.metric("kinema_extender_open_targets") == 5 + 1 + 2, "the plan to be seen")
    patch_deployment(control_plane, namespace, "web", {"replicas": 8})
    control_plane.eventually(lambda: spread(control_plane, namespace, "web") == Counter(first), f"pods on {first}")

    # The next iteration rolls the same pods over to the other nodes, while the old ones still stand.
    second = {"node-0": 3, "node-2": 4, "node-5": 1}
    plan(control_plane, targets(second, "iteration"), "i-2")
    control_plane.eventually(lambda: steered.metric("kinema_extender_open_targets") == 8, "the next plan to be seen")
    mark = {"template": {"metadata": {"annotations": {ITERATION: "i-2"}}}}
    patch_deployment(control_plane, namespace, "web", mark)
    control_plane.eventually(
        lambda: spread(control_plane, namespace, "web", "i-2") == Counter(second), f"pods on {second}"
    )

    # Every pod was put by a target, 8 first and 8 rolled; no call had any other outcome.
    planned = steered.metric('kinema_extender_requests_total{outcome="planned",verb="filter"}')
    assert planned >= 16
    assert steered.metric('kinema_extender_request_duration_seconds_count{verb="filter"}') == planned
    assert steered.metric("kinema_extender_reservations") == 0


def test_a_pod_without_a_plan_leaves_the_planned_room(
    control_plane: ControlPlane, steered: Served, request: pytest.FixtureRequest
) -> None:
    namespace = control_plane.create_namespace(f"guest-{request.node.callspec.id.replace(' ', '-')}")
    uid = create(control_plane, namespace, "web", 0)
    web = f"{namespace}/Deployment/web"
    # Places are kept open on node-1; node-2 is in the plan and full; the others expire.
    plan(control_plane, {"node-1": Target(web, uid, 3, "all"), "node-2": Target(web, uid, 0, "all")}, "i-1")
    control_plane.eventually(lambda: steered.metric("kinema_extender_open_targets") == 3, "the plan to be seen")
    create(control_plane, namespace, "guest", 4)
    control_plane.eventually(
        lambda: spread(control_plane, namespace, "guest") == Counter({"node-2": 4}), "four guests on node-2"
    )
    patch_deployment(control_plane, namespace, "web", {"replicas": 3})
    control_plane.eventually(
        lambda: spread(control_plane, namespace, "web") == Counter({"node-1": 3}), "three planned pods on node-1"
    )
