"""What becomes of planned pods when a pod of higher priority takes their room: kube-scheduler asks no extender then."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from planner.labels import OPTIMAL, PLACEMENT, Placement, Target, encode_placement
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.fidelity.beside import BASE, Extender, running
from tests.controlplane.kwok import FakeNode

pytestmark = pytest.mark.controlplane

ITERATION = "i-1"
PRIORITY = "tests-kinema-vip"
PRIORITIES = "/apis/scheduling.k8s.io/v1/priorityclasses"
ROOM = {"cpu": "1000m", "memory": "4Gi", "pods": "110"}


@pytest.fixture
def extender(control_plane: ControlPlane) -> Iterator[Extender]:
    """Two nodes of the plan with 1000m each, "spare" with 900m outside of it, and a priority class."""
    control_plane.apply(BASE / "rbac.yaml", namespace="kube-system")
    beside = Extender(control_plane.kubeconfig_for("kube-system", "kinema-extender"))
    control_plane.add_node(
        FakeNode(name="planned-a", allocatable=ROOM),
        FakeNode(name="planned-b", allocatable=ROOM),
        FakeNode(name="spare", allocatable={**ROOM, "cpu": "900m"}),
    )
    body = {"metadata": {"name": PRIORITY}, "value": 1000, "preemptionPolicy": "PreemptLowerPriority"}
    control_plane.request("POST", PRIORITIES, body)
    with running(control_plane, "default-scheduler", beside):
        yield beside
    control_plane.request("DELETE", f"{PRIORITIES}/{PRIORITY}")


def create(cluster: ControlPlane, namespace: str, name: str, replicas: int, cpu: str, priority: str = "") -> str:
    """Create a Deployment and return its uid."""
    labels = {"app": name}
    containers = [{"name": "main", "image": "registry.example/app:1", "resources": {"requests": {"cpu": cpu}}}]
    spec: dict[str, Any] = {"containers": containers, "terminationGracePeriodSeconds": 1}
    if priority:
        spec["priorityClassName"] = priority
    template = {"metadata": {"labels": labels}, "spec": spec}
    body = {
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }
    uid: str = cluster.request("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", body)["metadata"]["uid"]
    return uid


def want(cluster: ControlPlane, node: str, wanted: Mapping[tuple[str, str], int], cpu_millicores: int) -> None:
    """Put a node into the plan, with these targets by workload and uid, and with so much headroom."""
    targets = tuple(Target(workload, uid, count, "all") for (workload, uid), count in wanted.items())
    headroom = {"cpu_millicores": cpu_millicores, "pods": 100}
    placement = encode_placement(Placement(ITERATION, time.time() + 600, targets, headroom))
    patch = {"metadata": {"labels": {OPTIMAL: ITERATION}, "annotations": {PLACEMENT: placement}}}
    cluster.request("PATCH", f"/api/v1/nodes/{node}", patch)


def running_on(cluster: ControlPlane, namespace: str) -> Counter[tuple[str, str]]:
    """Count the pods by application and node; what does not run yet, or no more, is on ""."""
    found: Counter[tuple[str, str]] = Counter()
    for pod in cluster.items(f"/api/v1/namespaces/{namespace}/pods"):
        stands = pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        found[pod["metadata"]["labels"]["app"], pod["spec"]["nodeName"] if stands else ""] += 1
    return found


def packed(cluster: ControlPlane, extender: Extender, namespace: str) -> str:
    """Fill both planned nodes with two pods of 400m each, as their targets say; returns the workload's uid."""
    uid = create(cluster, namespace, "web", 0, "400m")
    web = (f"{namespace}/Deployment/web", uid)
    for node in ("planned-a", "planned-b"):
        want(cluster, node, {web: 2}, 200)
    cluster.eventually(lambda: extender.metrics()["kinema_extender_open_targets"] == 4, "the plan to be seen")
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/web"
    cluster.request("PATCH", path, {"spec": {"replicas": 4}})
    full = Counter({("web", "planned-a"): 2, ("web", "planned-b"): 2})
    cluster.eventually(lambda: running_on(cluster, namespace) == full, f"pods on {full}")
    return uid


def test_planned_pods_that_a_pod_without_a_plan_preempts_find_a_node_outside_of_it(
    control_plane: ControlPlane, extender: Extender
) -> None:
    namespace = control_plane.create_namespace("preempted")
    packed(control_plane, extender, namespace)
    # 1000m fit on no node but an empty planned one; 2 x 400m fit on the spare node of 900m.
    create(control_plane, namespace, "vip", 1, "1000m", PRIORITY)

    def settled() -> str:
        found = running_on(control_plane, namespace)
        (victim, other) = ("planned-a", "planned-b")
        if found["vip", "planned-b"]:
            victim, other = other, victim
        end = Counter({("vip", victim): 1, ("web", other): 2, ("web", "spare"): 2})
        return victim if found == end else ""

    victim = control_plane.eventually(settled, "the pod of high priority on one planned node, its victims on the spare")
    # Their targets stay open, where nobody else is put, until there is room again.
    assert extender.metrics()["kinema_extender_open_targets"] == 2
    control_plane.request("DELETE", f"/apis/apps/v1/namespaces/{namespace}/deployments/vip")
    for pod in control_plane.items(f"/api/v1/namespaces/{namespace}/pods?labelSelector=app%3Dvip"):
        control_plane.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}")
    control_plane.eventually(lambda: not running_on(control_plane, namespace)["vip", victim], "the pod to be gone")
    for pod in control_plane.items(f"/api/v1/namespaces/{namespace}/pods?labelSelector=app%3Dweb"):
        if pod["spec"].get("nodeName") == "spare":
            control_plane.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}")
    full = Counter({("web", "planned-a"): 2, ("web", "planned-b"): 2})
    control_plane.eventually(lambda: running_on(control_plane, namespace) == full, "the victims back in their places")


def test_a_planned_pod_that_has_to_preempt_takes_the_node_that_the_scheduler_frees(
    control_plane: ControlPlane, extender: Extender
) -> None:
    namespace = control_plane.create_namespace("preempting")
    uid = packed(control_plane, extender, namespace)
    vip_uid = create(control_plane, namespace, "vip", 0, "1000m", PRIORITY)
    web, vip = (f"{namespace}/Deployment/web", uid), (f"{namespace}/Deployment/vip", vip_uid)
    # The plan wants it on b, where there is no room; kube-scheduler may choose its victims on either node.
    want(control_plane, "planned-b", {web: 2, vip: 1}, 0)
    control_plane.eventually(lambda: extender.metrics()["kinema_extender_open_targets"] == 1, "the target to be seen")
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/vip"
    control_plane.request("PATCH", path, {"spec": {"replicas": 1}})

    def settled() -> bool:
        found = running_on(control_plane, namespace)
        ends = [
            Counter({("vip", victim): 1, ("web", other): 2, ("web", "spare"): 2})
            for victim, other in (("planned-a", "planned-b"), ("planned-b", "planned-a"))
        ]
        return found in ends

    control_plane.eventually(settled, "the pod of high priority on a planned node, its victims on the spare one")
