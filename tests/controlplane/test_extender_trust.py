"""What the real kube-scheduler does with an extender that is away, goes, asks for certificates, or is not its own."""

from __future__ import annotations

import http.client
import re
import signal
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner.labels import OPTIMAL, PLACEMENT, Placement, Target, encode_placement
from tests.controlplane.build import Binaries
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.kwok import FakeNode
from tests.controlplane.processes import Process
from tests.extender.building import pod
from tests.extender.certificates import Authority
from tests.extender.serving import launch, listening, listening_port, serve

pytestmark = pytest.mark.controlplane

MANIFESTS = Path(__file__).parents[2] / "manifests" / "base"
NODES = ("node-0", "node-1", "node-2")
NOTHING = {"cpu_millicores": 0, "memory_bytes": 0, "pods": 0}
SKIPPED = re.compile(r'Skipping extender.*err="(.*)"$', re.MULTILINE)


def configuration(scheduler: str = "default-scheduler", **changes: Any) -> dict[str, Any]:
    """Return the configuration of the manifests for another scheduler name, with changes of its extender."""
    found: dict[str, Any] = yaml.safe_load((MANIFESTS / "scheduler-configuration.yaml").read_text())
    del found["leaderElection"]
    found["profiles"] = [{"schedulerName": scheduler}]
    found["extenders"][0] |= {"httpTimeout": "5s", **changes}
    return found


def identity(control_plane: ControlPlane) -> dict[str, str]:
    control_plane.kubectl("apply", "--server-side", "-n", "kube-system", "-f", str(MANIFESTS / "rbac.yaml"))
    return {"EXTENDER_KUBECONFIG": str(control_plane.kubeconfig_for("kube-system", "kinema-extender"))}


def create(
    control_plane: ControlPlane, namespace: str, name: str, replicas: int, scheduler: str = "default-scheduler"
) -> str:
    """Create a StatefulSet that makes its pods at once, and return its uid."""
    requests = {"cpu": "10m", "memory": "16Mi"}
    containers = [{"name": "main", "image": "registry.example/app:1", "resources": {"requests": requests}}]
    body = {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"schedulerName": scheduler, "containers": containers},
            },
        },
    }
    made = control_plane.request("POST", f"/apis/apps/v1/namespaces/{namespace}/statefulsets", body)
    uid: str = made["metadata"]["uid"]
    return uid


def nodes_of(control_plane: ControlPlane, namespace: str, app: str) -> list[str]:
    """Return the node of each bound pod."""
    pods = control_plane.items(f"/api/v1/namespaces/{namespace}/pods?labelSelector=app%3D{app}")
    return [pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")]


def want(control_plane: ControlPlane, node: str, target: Target) -> None:
    placement = Placement("i-1", time.time() + 600, (target,), NOTHING)
    metadata = {"labels": {OPTIMAL: "i-1"}, "annotations": {PLACEMENT: encode_placement(placement)}}
    control_plane.request("PATCH", f"/api/v1/nodes/{node}", {"metadata": metadata})


class Growing:
    """A StatefulSet that gets more replicas all the time: a load without an end."""

    def __init__(self, control_plane: ControlPlane, path: str) -> None:
        self._control_plane = control_plane
        self._path = path
        self.replicas = 0

    def until(self, check: Callable[[], bool]) -> None:
        """Add two replicas every 50 ms until the check is true; the nodes have room for 330."""
        while not check():
            assert self.replicas < 320, "the load ran out of room"
            self.replicas += 2
            self._control_plane.request("PATCH", self._path, {"spec": {"replicas": self.replicas}})
            time.sleep(0.05)


def log_of(process: Process) -> str:
    return process.log.read_text(errors="replace")


@pytest.fixture
def nodes(control_plane: ControlPlane) -> tuple[str, ...]:
    control_plane.add_node(*(FakeNode(name=name) for name in NODES))
    return NODES


def test_without_ignorable_a_missing_extender_stops_every_pod(
    control_plane: ControlPlane, nodes: tuple[str, ...]
) -> None:
    namespace = control_plane.create_namespace("away")
    # Nobody listens on the discard port.
    away = {"urlPrefix": "http://127.0.0.1:9"}
    open_one = control_plane.start_scheduler(configuration("open", **away))
    strict = control_plane.start_scheduler(configuration("strict", **away, ignorable=False))
    try:
        create(control_plane, namespace, "strict", 3, "strict")
        create(control_plane, namespace, "open", 3, "open")
        control_plane.eventually(
            lambda: len(nodes_of(control_plane, namespace, "open")) == 3, "the pods of the configuration as it is"
        )
        control_plane.eventually(lambda: "connection refused" in log_of(strict), "the other to have tried")
        assert nodes_of(control_plane, namespace, "strict") == []
    finally:
        open_one.stop()
        strict.stop()


def test_pods_of_another_scheduler_send_no_request(control_plane: ControlPlane, nodes: tuple[str, ...]) -> None:
    namespace = control_plane.create_namespace("beside")
    with serve(identity(control_plane)) as served:
        url = f"http://127.0.0.1:{served.port}"
        default = control_plane.start_scheduler()
        second = control_plane.start_scheduler(configuration("kinema-scheduler"), extender_url=url)
        try:
            create(control_plane, namespace, "others", 20)
            control_plane.eventually(lambda: len(nodes_of(control_plane, namespace, "others")) == 20, "their pods")
            counted = 'kinema_extender_request_duration_seconds_count{verb="filter"}'
            assert served.metric(counted) == 0
            create(control_plane, namespace, "ours", 2, "kinema-scheduler")
            control_plane.eventually(lambda: len(nodes_of(control_plane, namespace, "ours")) == 2, "our pods")
            assert served.metric(counted) == 2
        finally:
            default.stop()
            second.stop()


def test_a_scheduler_with_a_certificate_is_served_over_tls(
    control_plane: ControlPlane, nodes: tuple[str, ...], tmp_path: Path
) -> None:
    namespace = control_plane.create_namespace("secret")
    authority = Authority(tmp_path, "cluster-ca")
    certificate, key = authority.issue("extender")
    client_certificate, client_key = authority.issue("system:kube-scheduler", file="client")
    uid = create(control_plane, namespace, "db", 0)
    want(control_plane, "node-1", Target(f"{namespace}/StatefulSet/db", uid, 3, "all"))
    environment = {
        **identity(control_plane),
        "EXTENDER_TLS_CERTIFICATE": str(certificate),
        "EXTENDER_TLS_KEY": str(key),
        "EXTENDER_TLS_CLIENT_CA": str(authority.path),
        "EXTENDER_ALLOWED_CLIENTS": "system:kube-scheduler",
    }
    context = ssl.create_default_context(cafile=str(authority.path))
    context.load_cert_chain(client_certificate, client_key)
    with listening(environment) as port:

        def ready() -> bool:
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
            connection.request("GET", "/readyz")
            status = connection.getresponse().status
            connection.close()
            return status == 200

        control_plane.eventually(ready, "the extender to be ready")
        tls = {"caFile": str(authority.path), "certFile": str(client_certificate), "keyFile": str(client_key)}
        changes = {"enableHTTPS": True, "tlsConfig": tls, "ignorable": False}
        scheduler = control_plane.start_scheduler(configuration(**changes), extender_url=f"https://127.0.0.1:{port}")
        try:
            scale = f"/apis/apps/v1/namespaces/{namespace}/statefulsets/db"
            control_plane.request("PATCH", scale, {"spec": {"replicas": 3}})
            control_plane.eventually(
                lambda: nodes_of(control_plane, namespace, "db") == ["node-1"] * 3, "all on the planned node"
            )
        finally:
            scheduler.stop()


def test_an_extender_that_is_restarted_under_load_fails_no_call_that_reached_it(
    control_plane: ControlPlane, nodes: tuple[str, ...]
) -> None:
    namespace = control_plane.create_namespace("restart")
    environment = identity(control_plane)
    first = launch(environment)
    port = listening_port(first)
    threading.Thread(target=first.communicate, daemon=True).start()
    scheduler = control_plane.start_scheduler(configuration(), extender_url=f"http://127.0.0.1:{port}")
    second = None
    try:
        uid = create(control_plane, namespace, "web", 0)
        want(control_plane, "node-1", Target(f"{namespace}/StatefulSet/web", uid, 100, "all"))
        grown = Growing(control_plane, f"/apis/apps/v1/namespaces/{namespace}/statefulsets/web")
        grown.until(lambda: len(nodes_of(control_plane, namespace, "web")) > 10)
        first.send_signal(signal.SIGTERM)
        asked_at = time.monotonic()
        grown.until(lambda: first.poll() is not None)
        assert time.monotonic() - asked_at < 5
        grown.until(lambda: "connection refused" in log_of(scheduler))
        second = launch({**environment, "EXTENDER_BIND": f"127.0.0.1:{port}"})
        assert listening_port(second) == port
        threading.Thread(target=second.communicate, daemon=True).start()
        grown.until(lambda: grown.replicas >= 150)
        bound = grown.replicas
        control_plane.eventually(lambda: len(nodes_of(control_plane, namespace, "web")) == bound, "every pod")
        # Whoever calls while nobody listens is refused at once; no call was cut off, reset or kept waiting.
        errors = SKIPPED.findall(log_of(scheduler))
        assert errors
        assert [text for text in errors if "connection refused" not in text] == []
    finally:
        scheduler.stop()
        for process in (first, second):
            if process is not None:
                process.terminate()
                process.wait(20)


@pytest.mark.soak
def test_while_the_api_server_is_away_for_a_minute_what_is_known_counts_up_to_the_limit(
    control_plane_binaries: Binaries, tmp_path: Path
) -> None:
    with ControlPlane(control_plane_binaries, tmp_path) as cluster:
        cluster.add_node(*(FakeNode(name=name) for name in NODES))
        namespace = cluster.create_namespace("away")
        uid = create(cluster, namespace, "web", 0)
        want(cluster, "node-1", Target(f"{namespace}/StatefulSet/web", uid, 3, "all"))
        owner = {"kind": "StatefulSet", "name": "web", "uid": uid, "controller": True}
        waiting = pod("waiting", owner="", namespace=namespace)
        waiting["metadata"]["ownerReferences"] = [owner]
        environment = identity(cluster)
        with serve(environment) as patient, serve({**environment, "EXTENDER_STALE_SECONDS": "5"}) as strict:
            for extender in (patient, strict):
                cluster.eventually(lambda e=extender: e.metric("kinema_extender_open_targets") == 3, "the plan")
                assert extender.filter(waiting, *NODES) == ["node-1"]
            with cluster.without_apiserver():
                gone_at = time.monotonic()
                while time.monotonic() < gone_at + 60:
                    # A limit of two minutes is not reached, whatever the age was when it went.
                    assert patient.ask("GET", "/readyz")[0] == 200
                    assert patient.filter(waiting, *NODES) == ["node-1"]
                    late = time.monotonic() > gone_at + 10
                    assert strict.ask("GET", "/readyz")[0] == 503 or not late
                    assert strict.filter(waiting, *NODES) == list(NODES) or not late
                    time.sleep(0.5)
                assert strict.metric('kinema_extender_fail_open_total{reason="stale_cache"}') > 50
                assert patient.metric('kinema_extender_fail_open_total{reason="stale_cache"}') == 0
            back_at = time.monotonic()
            # The feeds try again every five seconds.
            cluster.eventually(lambda: strict.ask("GET", "/readyz")[0] == 200, "the watches to be resumed")
            assert time.monotonic() - back_at < 10
            assert strict.filter(waiting, *NODES) == ["node-1"]
            # What happens from then on is seen by both.
            want(cluster, "node-2", Target(f"{namespace}/StatefulSet/web", uid, 4, "all"))
            for extender in (patient, strict):
                # Seven, less the place that is reserved.
                cluster.eventually(lambda e=extender: e.metric("kinema_extender_open_targets") >= 6, "the second plan")


def test_preemption_finds_a_node_without_asking_and_the_planned_pod_is_bound_there(
    control_plane: ControlPlane,
) -> None:
    namespace = control_plane.create_namespace("urgent")
    control_plane.add_node(
        *(FakeNode(name=name, allocatable={"cpu": "1", "memory": "4Gi", "pods": "9"}) for name in NODES)
    )
    for name, value in (("low", 1), ("high", 1000)):
        control_plane.request(
            "POST", "/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": name}, "value": value}
        )

    def pod(name: str, priority: str) -> dict[str, Any]:
        containers = [{"name": "m", "image": "registry.example/app:1", "resources": {"requests": {"cpu": "800m"}}}]
        return {
            "metadata": {"name": name, "labels": {"app": priority}},
            "spec": {"priorityClassName": priority, "containers": containers, "terminationGracePeriodSeconds": 0},
        }

    with serve(identity(control_plane)) as served:
        url = f"http://127.0.0.1:{served.port}"
        scheduler = control_plane.start_scheduler(configuration(), extender_url=url)
        try:
            pods = f"/api/v1/namespaces/{namespace}/pods"
            for number in range(len(NODES)):
                control_plane.request("POST", pods, pod(f"low-{number}", "low"))
            control_plane.eventually(lambda: len(nodes_of(control_plane, namespace, "low")) == 3, "full nodes")
            want(control_plane, "node-1", Target(f"{namespace}/Pod/high", "", 1, "all"))
            control_plane.eventually(lambda: served.metric("kinema_extender_open_targets") == 1, "the plan to be seen")
            control_plane.request("POST", pods, pod("high", "high"))
            control_plane.eventually(lambda: nodes_of(control_plane, namespace, "high"), "the urgent pod")
            # One victim, on whatever node the scheduler chose: no verb tells it of the plan there.
            assert len(nodes_of(control_plane, namespace, "low")) == 2
        finally:
            scheduler.stop()
            for name in ("low", "high"):
                control_plane.request("DELETE", f"/apis/scheduling.k8s.io/v1/priorityclasses/{name}")
