"""The control plane of the tests behaves as a cluster: pods run, roll, and are evicted under a budget."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane.admin import ApiError
from tests.controlplane.build import Binaries
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.kwok import RUNS_ON, FakeNode
from tests.controlplane.processes import ControlPlaneError, Process
from tests.controlplane.readiness import is_ready

pytestmark = pytest.mark.controlplane

ROOT = Path(__file__).parents[2]
NODES = tuple(FakeNode(name=f"node-{number}") for number in range(3))


def deployment(name: str, replicas: int) -> dict[str, Any]:
    labels = {"app": name}
    container = {
        "name": "main",
        "image": "registry.example/app:1",
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def running_pods(control_plane: ControlPlane, namespace: str) -> list[dict[str, Any]]:
    pods = control_plane.items(f"/api/v1/namespaces/{namespace}/pods")
    return [
        pod for pod in pods if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]


@pytest.fixture
def namespace(control_plane: ControlPlane, default_scheduler: Process, request: pytest.FixtureRequest) -> str:
    """A namespace on a cluster with three nodes and the default scheduler, with ten running pods."""
    control_plane.add_node(*NODES)
    # A name of its own: a deleted namespace keeps its name for another five seconds.
    digest = hashlib.sha256(request.node.name.encode()).hexdigest()
    name = control_plane.create_namespace(f"shop-{digest[:8]}")
    control_plane.request("POST", f"/apis/apps/v1/namespaces/{name}/deployments", deployment("web", 10))
    control_plane.eventually(lambda: len(running_pods(control_plane, name)) == 10, "ten pods to run")
    return name


def test_pods_of_a_deployment_run_on_the_fake_nodes(control_plane: ControlPlane, namespace: str) -> None:
    hosts = {pod["spec"]["nodeName"] for pod in running_pods(control_plane, namespace)}
    assert hosts == {node.name for node in NODES}


def test_a_fake_node_looks_like_one_of_gke(control_plane: ControlPlane) -> None:
    control_plane.add_node(FakeNode(name="node-x", labels={"kinema.io/optimal": "i-1"}, pool="spot-pool"))
    node = control_plane.request("GET", "/api/v1/nodes/node-x")
    assert node["spec"]["providerID"] == "gce://kinema-test/europe-west3-a/node-x"
    assert node["status"]["allocatable"] == {"cpu": "3920m", "memory": "13256Mi", "pods": "110"}
    assert "taints" not in node["spec"]
    labels = node["metadata"]["labels"]
    assert labels["topology.kubernetes.io/region"] == "europe-west3"
    assert labels["cloud.google.com/gke-nodepool"] == "spot-pool"
    assert labels["kinema.io/optimal"] == "i-1"


def test_a_rolling_update_replaces_every_pod(control_plane: ControlPlane, namespace: str) -> None:
    before = {pod["metadata"]["uid"] for pod in running_pods(control_plane, namespace)}
    mark = {"kinema.io/iteration": "i-1"}
    control_plane.request(
        "PATCH",
        f"/apis/apps/v1/namespaces/{namespace}/deployments/web",
        {"spec": {"template": {"metadata": {"annotations": mark}}}},
    )

    def rolled() -> bool:
        pods = running_pods(control_plane, namespace)
        marked = [pod for pod in pods if mark.items() <= pod["metadata"].get("annotations", {}).items()]
        return len(pods) == len(marked) == 10

    control_plane.eventually(rolled, "ten pods with the mark and no other")
    assert not before & {pod["metadata"]["uid"] for pod in running_pods(control_plane, namespace)}


def test_the_second_eviction_is_refused_where_the_budget_allows_one(
    control_plane: ControlPlane, default_scheduler: Process, namespace: str
) -> None:
    budget = {
        "metadata": {"name": "web"},
        # 10 replicas - 9 that must stay available = 1 that may be evicted.
        "spec": {"minAvailable": 9, "selector": {"matchLabels": {"app": "web"}}},
    }
    path = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
    control_plane.request("POST", path, budget)
    control_plane.eventually(
        lambda: control_plane.request("GET", f"{path}/web")["status"].get("disruptionsAllowed") == 1,
        "the budget to allow one disruption",
    )
    first, second = (pod["metadata"]["name"] for pod in running_pods(control_plane, namespace)[:2])
    # Without a scheduler the replacement stays Pending, so that the budget stays used up.
    default_scheduler.stop()
    evict(control_plane, namespace, first)
    with pytest.raises(ApiError) as refusal:
        evict(control_plane, namespace, second)
    assert refusal.value.status == 429


def test_a_completed_pod_is_not_ready_and_an_annotated_one_runs_on(control_plane: ControlPlane, namespace: str) -> None:
    for name, notes in (("short", {}), ("long", {RUNS_ON: "true"})):
        template = deployment(name, 1)["spec"]["template"]
        template["spec"]["restartPolicy"] = "Never"
        template["metadata"]["annotations"] = notes
        body = {"metadata": {"name": name}, "spec": {"template": template}}
        control_plane.request("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs", body)

    def pod_of(job: str) -> dict[str, Any]:
        found = control_plane.items(f"/api/v1/namespaces/{namespace}/pods?labelSelector=job-name%3D{job}")
        return found[0] if found else {"status": {}}

    control_plane.eventually(lambda: pod_of("short")["status"].get("phase") == "Succeeded", "the Job to complete")
    assert not is_ready(pod_of("short"))
    control_plane.eventually(lambda: is_ready(pod_of("long")), "the other Job's pod to run")
    assert pod_of("long")["status"]["phase"] == "Running"


def evict(control_plane: ControlPlane, namespace: str, pod: str) -> None:
    answer = control_plane.request(
        "POST",
        f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction",
        {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}},
    )
    assert (answer["status"], answer["code"]) == ("Success", 201)


def test_a_pod_is_left_to_the_scheduler_that_it_names(control_plane: ControlPlane, namespace: str) -> None:
    body = deployment("steered", 2)
    body["spec"]["template"]["spec"]["schedulerName"] = "kinema-scheduler"
    control_plane.request("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", body)
    pods = f"/api/v1/namespaces/{namespace}/pods?labelSelector=app%3Dsteered"
    control_plane.eventually(lambda: len(control_plane.items(pods)) == 2, "two pods")
    assert not [pod for pod in control_plane.items(pods) if "nodeName" in pod["spec"]]
    second = control_plane.start_scheduler({"profiles": [{"schedulerName": "kinema-scheduler"}]})
    control_plane.eventually(lambda: len(running_pods(control_plane, namespace)) == 12, "10 + 2 pods to run")
    second.stop()


def test_a_service_account_gets_its_own_rights_and_no_more(control_plane: ControlPlane, namespace: str) -> None:
    kubeconfig = control_plane.kubeconfig_for(namespace, "default")
    whoami = control_plane.kubectl("auth", "whoami", "-o", "json", kubeconfig=kubeconfig)
    assert f'"system:serviceaccount:{namespace}:default"' in whoami
    with pytest.raises(ControlPlaneError, match="Forbidden"):
        control_plane.kubectl("get", "nodes", kubeconfig=kubeconfig)


def test_a_cleared_control_plane_holds_no_pods_and_no_nodes(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.clear()
    assert control_plane.items("/api/v1/pods") == []
    assert control_plane.items("/apis/apps/v1/deployments") == []
    assert control_plane.items("/api/v1/nodes") == []
    # The same name is usable again, and without what it held.
    assert control_plane.create_namespace(namespace) == namespace
    assert control_plane.items(f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets") == []


def test_nothing_runs_after_the_control_plane_is_stopped(new_control_plane: ControlPlane) -> None:
    scheduler = new_control_plane.start_scheduler()
    assert scheduler.running()
    new_control_plane.stop()
    assert not scheduler.running()
    with pytest.raises(ConnectionRefusedError):
        new_control_plane.request("GET", "/api/v1/nodes")


PROGRAM = """
import sys
from pathlib import Path
from tests.controlplane.build import Binaries
from tests.controlplane.cluster import ControlPlane

with ControlPlane(Binaries(Path(sys.argv[1])), Path(sys.argv[2])) as running:
    running.start_scheduler()
    print(*running.process_ids(), flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
def test_a_killed_test_run_leaves_no_program_behind(control_plane_binaries: Binaries, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", PROGRAM, str(control_plane_binaries.folder), str(tmp_path)]
    run = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert run.stdin is not None
    assert run.stdout is not None
    with run.stdin, run.stdout:
        process_ids = run.stdout.readline().split()
        # etcd, apiserver, controller manager, kwok, scheduler
        assert len(process_ids) == 5
        run.kill()
        run.wait()
    deadline = time.monotonic() + 30
    while [pid for pid in process_ids if _is_alive(pid)]:
        assert time.monotonic() < deadline, "programs of the control plane outlived the test run"
        time.sleep(0.05)


def _is_alive(process_id: str) -> bool:
    """Tell whether a process runs; one that ended but was not waited for yet (state Z) does not."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
