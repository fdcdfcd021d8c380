"""One whole site on loopback: a cluster that is badly packed, a fake Google Cloud under it, Kinema's parts beside it.

Every part of Kinema runs as a process of its own with the ServiceAccount and the rights of manifests/.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planner import labels as keys
from planner.cloud.gcp.machines import builtin_machines
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.installation import Installation, Steering
from tests.controlplane.kwok import FakeNode
from tests.googlecloud.fake import FakeGoogleCloud, FakePool

Json = dict[str, Any]
ZONE = "us-central1-a"
OLD_POOL, NEW_POOL = "old-n2", "new-e2"
OLD_TYPE, NEW_TYPE = "n2-standard-4", "e2-standard-4"
OLD_NODES = tuple(f"old-n2-{number}" for number in range(8))
NAMESPACE = "shop"
PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Shape:
    """A workload of the site; `floor` is how many pods its strategy and its budget let be ready at the least."""

    kind: str
    replicas: int
    cpu: str
    floor: int
    strategy: Mapping[str, Any] = field(default_factory=dict)
    budget: Mapping[str, Any] = field(default_factory=dict)


WORKLOADS: Mapping[str, Shape] = {
    # 25 % of 6 and of 8 rounded down: 1 and 2 may be unavailable.
    "web": Shape("Deployment", 6, "300m", 5, budget={"maxUnavailable": 1}),
    "worker": Shape("Deployment", 8, "200m", 6),
    "api": Shape(
        "Deployment",
        4,
        "500m",
        4,
        {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        {"minAvailable": 3},
    ),
    "single": Shape("Deployment", 1, "400m", 1),
    "store": Shape("StatefulSet", 3, "300m", 2, budget={"maxUnavailable": 1}),
}


def machine_node(name: str, pool: str, machine_type: str) -> FakeNode:
    """Return a node as GKE would make it of this machine type."""
    room = builtin_machines("us-central1")[machine_type].allocatable
    allocatable = {
        "cpu": f"{room.cpu_millicores}m",
        "memory": str(room.memory_bytes),
        "ephemeral-storage": str(room.ephemeral_storage_bytes),
        "pods": str(room.pods),
    }
    return FakeNode(name=name, machine_type=machine_type, pool=pool, zone=ZONE, allocatable=allocatable)


def google_cloud(boot_seconds: float) -> FakeGoogleCloud:
    """Return a cloud whose old pool holds the eight nodes and whose new pool is empty and cheaper."""
    pools = [
        FakePool(OLD_POOL, OLD_TYPE, [ZONE], {ZONE: OLD_NODES}, minimum=0, maximum=10),
        FakePool(NEW_POOL, NEW_TYPE, [ZONE], minimum=0, maximum=10),
    ]
    return FakeGoogleCloud(pools, boot_seconds=boot_seconds, delete_seconds=0.2)


class Site(Installation):
    """A running site on a cloud of its own."""

    def __init__(self, cluster: ControlPlane, cloud: FakeGoogleCloud, folder: Path, steering: Steering) -> None:
        super().__init__(cluster, folder, steering)
        self.cloud = cloud

    def start(self) -> None:
        """Install Kinema's parts, register the nodes, spread the workloads."""
        self.cloud.on_instance_created = lambda name, pool, _zone, machine_type: self.cluster.add_node(
            machine_node(name, pool, machine_type)
        )
        self.install()
        self.cluster.add_node(*(machine_node(name, OLD_POOL, OLD_TYPE) for name in OLD_NODES))
        self.cluster.create_namespace(NAMESPACE)
        for body in manifests(self.scheduler_name):
            path = f"/apis/apps/v1/namespaces/{NAMESPACE}/{body['kind'].lower()}s"
            if body["kind"] == "Pod":
                path = f"/api/v1/namespaces/{NAMESPACE}/pods"
            elif body["kind"] == "PodDisruptionBudget":
                path = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets"
            self.cluster.request("POST", path, body)
        self.cluster.eventually(self.settled, "every pod to run and every budget to be counted")

    def run_planner(self, *arguments: str, stdout: int | None = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start `kinema run --once` as a process with the planner's ServiceAccount."""
        return self.launch(self.settings(self.cloud), *arguments, stdout=stdout)

    # Looking from outside

    def pods(self) -> list[Json]:
        """Return the namespace's pods that are neither finished nor being deleted."""
        found = self.cluster.items(f"/api/v1/namespaces/{NAMESPACE}/pods")
        return [p for p in found if "deletionTimestamp" not in p["metadata"]]

    def settled(self) -> bool:
        """Say whether every pod is ready where it should be and every budget has counted its pods."""
        ready = Counter(p["metadata"]["labels"]["app"] for p in self.pods() if is_ready(p))
        wanted = {name: shape.replicas for name, shape in WORKLOADS.items()}
        nodes = len(self.cluster.items("/api/v1/nodes"))
        budgets = self.cluster.items(f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets")
        counted = all(
            b.get("status", {}).get("expectedPods") == WORKLOADS[b["metadata"]["name"]].replicas for b in budgets
        )
        return counted and ready == {**wanted, "agent": nodes, "pinned": 1}

    def leave_old_marks(self) -> None:
        """Put marks of an iteration that never ended on two nodes."""
        for name in OLD_NODES[:2]:
            patch = {
                "metadata": {
                    "labels": {keys.EXPIRING: "older", keys.OPTIMAL: "oldest"},
                    "annotations": {keys.PLACEMENT: "left over"},
                },
                "spec": {"taints": [{"key": keys.EXPIRING, "value": "older", "effect": "PreferNoSchedule"}]},
            }
            self.cluster.request("PATCH", f"/api/v1/nodes/{name}", patch)

    def bindings(self) -> dict[str, Counter[str]]:
        """Count the running pods by node and workload, as the API server says."""
        found: dict[str, Counter[str]] = {}
        for pod in self.pods():
            app = pod["metadata"]["labels"]["app"]
            if app != "agent" and pod["spec"].get("nodeName"):
                kind = WORKLOADS[app].kind if app in WORKLOADS else "Pod"
                key = f"{NAMESPACE}/{kind}/{app}"
                found.setdefault(pod["spec"]["nodeName"], Counter())[key] += 1
        return found


class Watcher:
    """Samples ready pods and waits for room from outside, in a thread, until it is left."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.samples = 0
        self.lowest = {name: shape.replicas for name, shape in WORKLOADS.items()}
        self.without_room: set[str] = set()
        self.failures: list[str] = []

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _watch(self) -> None:
        while not self._ended.wait(PAUSE_SECONDS):
            try:
                pods = self._site.pods()
            except OSError as error:
                self.failures.append(str(error))
                continue
            self.samples += 1
            ready = Counter(p["metadata"]["labels"]["app"] for p in pods if is_ready(p))
            for name in self.lowest:
                self.lowest[name] = min(self.lowest[name], ready[name])
            for pod in pods:
                for condition in pod.get("status", {}).get("conditions", []):
                    if condition.get("reason") == "Unschedulable":
                        self.without_room.add(f"{pod['metadata']['name']}: {condition.get('message')}")


def is_ready(pod: Json) -> bool:
    """Say whether the pod's Ready condition is true."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))


def manifests(scheduler_name: str) -> Iterator[Json]:
    """Yield the objects of the site's namespace, agents first so that every node has its own before the others."""

    def template(name: str, cpu: str) -> Json:
        container = {
            "name": "main",
            "image": "registry.example/app:1",
            "resources": {"requests": {"cpu": cpu, "memory": "256Mi"}},
        }
        spec: Json = {"containers": [container], "schedulerName": scheduler_name, "terminationGracePeriodSeconds": 1}
        return {"metadata": {"labels": {"app": name}}, "spec": spec}

    yield {
        "kind": "DaemonSet",
        "metadata": {"name": "agent"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": template("agent", "100m")},
    }
    for name, shape in WORKLOADS.items():
        selector = {"matchLabels": {"app": name}}
        spec: Json = {"replicas": shape.replicas, "selector": selector, "template": template(name, shape.cpu)}
        if shape.strategy:
            spec["strategy"] = dict(shape.strategy)
        if shape.kind == "StatefulSet":
            spec["serviceName"] = name
        yield {"kind": shape.kind, "metadata": {"name": name}, "spec": spec}
        if shape.budget:
            yield {
                "kind": "PodDisruptionBudget",
                "metadata": {"name": name},
                "spec": {"selector": selector, **shape.budget},
            }
    pinned = template("pinned", "200m")
    yield {"kind": "Pod", "metadata": {"name": "pinned", **pinned["metadata"]}, "spec": pinned["spec"]}


@contextmanager
def open_site(cluster: ControlPlane, folder: Path, steering: Steering, boot_seconds: float = 1.0) -> Iterator[Site]:
    """Start a site on a running control plane; everything that was started ends with it."""
    with google_cloud(boot_seconds) as cloud:
        site = Site(cluster, cloud, folder, steering)
        try:
            site.start()
            yield site
        finally:
            site.stop()


def wait_for(check: Any, what: str, timeout_seconds: float = 120) -> None:
    """Ask until the check is true."""
    deadline = time.monotonic() + timeout_seconds
    pause = threading.Event()
    while not check():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_seconds:g} s in vain for {what}")
        pause.wait(PAUSE_SECONDS)
