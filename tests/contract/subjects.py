"""What the contract is checked on: the simulator, and a real control plane with Google's fake cloud."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any, Protocol

from planner.cloud.gcp.controller import GoogleCloud
from planner.cloud.gcp.machines import builtin_machines
from planner.kube.client import KubernetesClient
from planner.ports import NODES, PODS, Cloud, Kubernetes, Resource
from simulator.workloads import Workload
from simulator.world import ExistingNode, Scenario, World, catalogue, pool
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.kwok import FakeNode
from tests.googlecloud.fake import FakeGoogleCloud

Json = dict[str, Any]

REGION = "us-central1"
ZONES = ("us-central1-a", "us-central1-b")
POOLS = {"blue": "e2-standard-4", "green": "e2-standard-8"}
TIMEOUT_SECONDS = 90.0


class Cluster(Protocol):
    """A cluster with a scheduler and controllers, reached through the port."""

    @property
    def kubernetes(self) -> Kubernetes: ...

    @property
    def namespace(self) -> str:
        """An empty namespace of the test's own."""

    def add_nodes(self, *names: str) -> None:
        """Add Ready nodes of 3920m CPU and about 13 GiB each."""

    def eventually(self, check: Callable[[], object], what: str) -> None:
        """Let time pass until the check holds."""


class SimulatedCluster:
    """A simulated world without nodes."""

    namespace = "contract"

    def __init__(self) -> None:
        machines = builtin_machines(REGION)
        offerings = tuple(pool(machines[kind], name, zone) for name, kind in POOLS.items() for zone in ZONES)
        sold = catalogue(machines[kind] for kind in POOLS.values())
        self.world = World(Scenario(type(sold)(sold.machines, offerings, frozenset(POOLS))))
        self.kubernetes: Kubernetes = self.world.kubernetes
        self.cloud: Cloud = self.world.cloud

    def add_nodes(self, *names: str) -> None:
        for name in names:
            node = ExistingNode(name, "blue", ZONES[0])
            self.world.cloud.add_running(node.name, node.pool, node.zone)

    def eventually(self, check: Callable[[], object], what: str) -> None:
        # A check reads through the port, which takes simulated time, so it cannot be asked at every event.
        deadline = self.world.clock.now() + TIMEOUT_SECONDS
        while not check():
            assert self.world.clock.now() < deadline, f"waited for {what}"
            self.world.run(0.2)

    def stock_out(self, pool_name: str, zone: str) -> None:
        self.world.cloud.stockouts[pool_name, zone] = "ZONE_RESOURCE_POOL_EXHAUSTED"

    def begin_operation(self, pool_name: str) -> None:
        self.world.cloud.other_operations = (f"node pool {pool_name}: UPGRADE_NODES",)


class RealCluster:
    """The control plane of the tests, its default scheduler running."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane
        # A namespace of the name of one that was just deleted would take five seconds to come.
        self.namespace = control_plane.create_namespace(f"contract-{secrets.token_hex(4)}")
        self.kubernetes: Kubernetes = KubernetesClient.connect(str(control_plane.admin_kubeconfig))

    def add_nodes(self, *names: str) -> None:
        self._control_plane.add_node(*(FakeNode(name=name) for name in names))

    def eventually(self, check: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not check():
            assert time.monotonic() < deadline, f"waited for {what}"
            time.sleep(0.05)


class RealClusterWithCloud(RealCluster):
    """The control plane, and Google's clients on a fake cloud whose machines become its nodes."""

    def __init__(self, control_plane: ControlPlane, fake: FakeGoogleCloud) -> None:
        super().__init__(control_plane)
        self._fake = fake
        fake.on_instance_created = self._register
        self.google = GoogleCloud(fake.settings())
        self.cloud: Cloud = self.google

    def stock_out(self, pool_name: str, zone: str) -> None:
        self._fake.stock_out(zone, POOLS[pool_name])

    def begin_operation(self, pool_name: str) -> None:
        self._fake.start_operation("UPGRADE_NODES", pool_name)

    def _register(self, name: str, pool_name: str, zone: str, machine_type: str) -> None:
        node = FakeNode(name=name, pool=pool_name, zone=zone, machine_type=machine_type)
        self.kubernetes.create(NODES, "", node.manifest())


class CloudSubject(Cluster, Protocol):
    """A cluster whose nodes come from a cloud."""

    @property
    def cloud(self) -> Cloud: ...

    def stock_out(self, pool_name: str, zone: str) -> None:
        """From now on no machine of the pool boots in the zone."""

    def begin_operation(self, pool_name: str) -> None:
        """Begin an upgrade of the pool."""


def apply(cluster: Cluster, *workloads: Workload) -> None:
    """Create workloads and wait until all their pods are Ready and their budgets counted."""
    for workload in workloads:
        for resource, body in workload.objects():
            cluster.kubernetes.create(resource, workload.namespace, body)
    for workload in workloads:
        count = workload.replicas
        cluster.eventually(lambda w=workload, n=count: len(ready_pods(cluster, w)) >= n, f"pods of {workload.key}")


def workload(cluster: Cluster, name: str, **more: Any) -> Workload:
    """Return a small workload in the test's namespace."""
    return Workload(**{"name": name, "namespace": cluster.namespace, "cpu": "100m", "memory": "64Mi"} | more)


def find(cluster: Cluster, resource: Resource, name: str) -> Json:
    """Read one object."""
    namespace = cluster.namespace if resource.namespaced else ""
    found: Json = json.loads(cluster.kubernetes.get(resource, namespace, name))
    return found


def everything(cluster: Cluster, resource: Resource) -> list[Json]:
    """Read every object of a kind that belongs to the test's namespace or to none."""
    items = [json.loads(item) for item in cluster.kubernetes.list(resource).items]
    return [item for item in items if item["metadata"].get("namespace", cluster.namespace) == cluster.namespace]


def pods(cluster: Cluster, of: Workload) -> list[Json]:
    """Read a workload's pods, those on their way out included, by name."""
    found = [p for p in everything(cluster, PODS) if (p["metadata"].get("labels") or {}).get("app") == of.name]
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def ready_pods(cluster: Cluster, of: Workload) -> list[Json]:
    """Read a workload's pods that are Ready and stay."""
    return [p for p in pods(cluster, of) if is_true(p, "Ready") and "deletionTimestamp" not in p["metadata"]]


def is_true(body: Json, kind: str) -> bool:
    """Tell whether a condition of an object is True."""
    conditions = body["status"].get("conditions") or ()
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)


def evict(cluster: Cluster, pod: Json) -> None:
    """Evict a pod."""
    metadata = pod["metadata"]
    cluster.kubernetes.evict(metadata["namespace"], metadata["name"], metadata["uid"])
