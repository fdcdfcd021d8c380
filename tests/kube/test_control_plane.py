"""Reader and client on a real API server; tests/contract tries every verb."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from planner.errors import Conflict, Forbidden
from planner.kube.client import KubernetesClient
from planner.kube.reader import read_dump, read_snapshot
from planner.kube.record import NAME, decode_record, encode_record, read_record
from planner.model.plan import Objective, Plan, PlanRecord
from planner.ports import CONFIGMAPS, PODS, SNAPSHOT_RESOURCES
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.kwok import FakeNode
from tests.controlplane.processes import Process
from tests.kube.documents import budget, container, controller, pod

pytestmark = pytest.mark.controlplane

KINDS = "nodes,pods,deployments,replicasets,statefulsets,daemonsets,jobs,hpa,pdb"


class WallClock:
    def now(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError("reading does not wait")


@pytest.fixture
def namespace(control_plane: ControlPlane, default_scheduler: Process) -> str:
    """Two nodes with a Deployment of three under a budget, a DaemonSet and a bare pod, all running."""
    control_plane.add_node(FakeNode(name="node-a"), FakeNode(name="node-b"))
    name = control_plane.create_namespace("reading")
    labels = {"app": "web"}
    selector = {"selector": {"matchLabels": labels}}
    template = {"containers": [{**container("main", "100m", "64Mi"), "image": "example/web:1"}]}
    for path, body in (
        ("apps/v1/namespaces/{}/deployments", controller("Deployment", "web", 3, template, **selector)),
        ("apps/v1/namespaces/{}/daemonsets", controller("DaemonSet", "agent", 1, template, **selector)),
    ):
        app = body["metadata"]["name"]
        body["metadata"] = {"name": app}
        body["spec"]["selector"] = {"matchLabels": {"app": app}}
        body["spec"]["template"]["metadata"] = {"labels": {"app": app}}
        control_plane.request("POST", f"/apis/{path.format(name)}", body)
    allowing_none = budget("web", "web", minAvailable=3)
    allowing_none["metadata"] = {"name": "web"}
    budgets = f"/apis/policy/v1/namespaces/{name}/poddisruptionbudgets"
    control_plane.request("POST", budgets, allowing_none)
    bare = pod("bare", {**container("main", "50m"), "image": "example/bare:1"})
    bare["metadata"] = {"name": "bare"}
    control_plane.request("POST", f"/api/v1/namespaces/{name}/pods", bare)

    def running() -> bool:
        pods = control_plane.items(f"/api/v1/namespaces/{name}/pods")
        ready = [p for p in pods if {"type": "Ready", "status": "True"}.items() <= _conditions(p).items()]
        status = control_plane.request("GET", f"{budgets}/web").get("status", {})
        return len(ready) == 3 + 2 + 1 and status.get("currentHealthy") == 3

    control_plane.eventually(running, "3 + 2 + 1 pods to be ready and counted")
    return name


def _conditions(item: dict[str, Any]) -> dict[str, str]:
    ready = [c for c in item["status"].get("conditions", []) if c["type"] == "Ready"]
    return {"type": "Ready", "status": ready[0]["status"]} if ready else {}


@pytest.fixture
def client(control_plane: ControlPlane, namespace: str) -> KubernetesClient:
    return KubernetesClient.connect(str(control_plane.admin_kubeconfig))


def test_a_live_cluster_reads_as_what_kubectl_dumps(
    control_plane: ControlPlane, client: KubernetesClient, namespace: str
) -> None:
    def equal() -> bool:
        # A status may move between the two readings; a quiet cluster ends equal.
        live = read_snapshot(client, None, WallClock())
        dumped = read_dump(control_plane.kubectl("get", KINDS, "-A", "-o", "json").encode(), "dump")
        return {p.uid: p for p in live.pods} == {p.uid: p for p in dumped.pods} and replace(
            live, pods=(), nodes=(), record=None
        ) == replace(dumped, pods=(), nodes=())

    control_plane.eventually(equal, "both readings to be equal")
    found = read_snapshot(client, None, WallClock())
    own = [p for p in found.pods if p.namespace == namespace]
    assert sorted({p.workload for p in own}) == [
        f"{namespace}/DaemonSet/agent",
        f"{namespace}/Deployment/web",
        f"{namespace}/Pod/bare",
    ]
    assert len(own) == 3 + 2 + 1
    (web,) = [w for w in found.workloads if w.name == "web"]
    assert (web.replicas, web.ready_replicas, web.max_surge, web.max_unavailable, web.observed) == (3, 3, 1, 0, True)
    (held,) = [b for b in found.budgets if b.namespace == namespace]
    assert (held.desired_healthy, held.disruptions_allowed) == (3, 0)
    assert {n.name: n.allocatable.cpu_millicores for n in found.nodes} == {"node-a": 3920, "node-b": 3920}


def test_lists_are_whole_beyond_one_page_and_watches_go_on_from_them(
    client: KubernetesClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planner.kube.client.PAGE_SIZE", 2)
    listing = client.list(PODS)
    names = {json.loads(item)["metadata"]["name"] for item in listing.items}
    assert {"bare"} < names
    assert len(names) >= 3 + 2 + 1
    client.patch(PODS, namespace, "bare", {"metadata": {"labels": {"seen": "yes"}}})
    for event in client.watch(PODS, listing.resource_version, 20):
        item = json.loads(event.object)
        if item["metadata"]["name"] == "bare" and item["metadata"].get("labels", {}).get("seen") == "yes":
            assert event.type == "MODIFIED"
            return
    pytest.fail("the watch ended without the change")


def test_the_plan_survives_in_its_configmap(client: KubernetesClient, namespace: str) -> None:
    assert read_record(client, namespace) is None
    record = PlanRecord(Plan("i1", Objective("cost", 5, 0, 0, 5, "optimal", 24, 0, 15), 9, 5, (), {}), "done", 1.5)
    body = encode_record(record, namespace)
    assert decode_record(client.create(CONFIGMAPS, namespace, body)) == record
    with pytest.raises(Conflict):
        client.create(CONFIGMAPS, namespace, body)
    abandoned = replace(record, phase="abandoning", reason="no room")
    client.replace(CONFIGMAPS, namespace, NAME, encode_record(abandoned, namespace))
    assert read_record(client, namespace) == abandoned


def test_an_account_without_rights_is_refused_by_name(control_plane: ControlPlane, namespace: str) -> None:
    client = KubernetesClient.connect(str(control_plane.kubeconfig_for(namespace, "default")))
    for resource in SNAPSHOT_RESOURCES:
        with pytest.raises(Forbidden, match=rf"^cannot list {resource.plural}: .* \(grant the right by RBAC\)$"):
            client.list(resource)
