"""The cluster as one consistent reading: nodes, pods, workloads, budgets, autoscalers, the cloud's instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from planner import labels as keys
from planner.model.plan import PlanRecord
from planner.model.preferences import Company, Wishes
from planner.model.resources import Resources
from planner.model.scheduling import LabelSelector, NodeConstraints, PodRules, Taint

INSTANCE_TYPE = "node.kubernetes.io/instance-type"
ZONE = "topology.kubernetes.io/zone"
REGION = "topology.kubernetes.io/region"
HOSTNAME = "kubernetes.io/hostname"
ARCH = "kubernetes.io/arch"
NODE_POOL = "cloud.google.com/gke-nodepool"
SPOT_MARKS = ("cloud.google.com/gke-spot", "cloud.google.com/gke-preemptible")

CapacityType = Literal["on-demand", "spot"]


@dataclass(frozen=True, slots=True)
class Node:
    """A Kubernetes node; `ready` is its Ready condition, `deleting` a set deletionTimestamp."""

    name: str
    uid: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    taints: tuple[Taint, ...]
    allocatable: Resources
    ready: bool = True
    unschedulable: bool = False
    deleting: bool = False
    provider_id: str = ""
    created_at: float = 0.0

    @property
    def machine_type(self) -> str:
        return self.labels.get(INSTANCE_TYPE, "")

    @property
    def zone(self) -> str:
        return self.labels.get(ZONE, "")

    @property
    def pool(self) -> str:
        return self.labels.get(NODE_POOL, "")

    @property
    def capacity_type(self) -> CapacityType:
        return "spot" if any(self.labels.get(mark) == "true" for mark in SPOT_MARKS) else "on-demand"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod; `workload` is the key "namespace/Kind/name" of what would recreate it.

    A ReplicaSet's pod belongs to its Deployment where that is known; a pod without a controller is its own
    workload of kind Pod. `requests` is what the scheduler counts (init containers, sidecars, overhead), with
    `pods` 1, and its shares of a node. `rules` is what it demands of the pods around it, and `keeps` names the topology
    keys (beyond the host name) of which it must keep its domain so that every such rule goes on to hold
    (`planner.model.coexistence`). `beside` names the node where a waiting pod joins others that it must stand with, and
    `party` the pod with which a running one stays or moves (`planner.model.companions`). `wishes` is what it prefers of
    its node, `company` of the pods around it.
    `unmodelled` names each hard constraint of the pod that the optimizer does not know.
    """

    namespace: str
    name: str
    uid: str
    workload: str
    workload_uid: str
    requests: Resources
    constraints: NodeConstraints
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    node: str | None = None
    phase: str = "Pending"
    ready: bool = False
    deleting: bool = False
    unschedulable: bool = False
    mirror: bool = False
    local_storage: bool = False
    rules: PodRules = field(default_factory=PodRules)
    keeps: tuple[str, ...] = ()
    beside: str = ""
    party: str = ""
    wishes: Wishes = ()
    company: Company = field(default_factory=Company)
    unmodelled: tuple[str, ...] = ()
    created_at: float = 0.0
    scheduler_name: str = "default-scheduler"
    priority: int = 0

    @property
    def kind(self) -> str:
        """The kind of the workload: Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, Pod, …"""
        return self.workload.split("/")[1]

    @property
    def finished(self) -> bool:
        """Whether the pod has ended; a finished pod takes no room and holds no node."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def live(self) -> bool:
        """Whether the pod runs or will run: neither finished nor being deleted."""
        return not self.finished and not self.deleting

    @property
    def iteration(self) -> str | None:
        """The iteration whose roll-out made the pod."""
        return self.annotations.get(keys.ITERATION)

    @property
    def stays_with_node(self) -> bool:
        """Whether the pod lives and dies with its node: a DaemonSet's or a mirror pod."""
        return self.mirror or self.kind == "DaemonSet"


def pod_key(pod: Pod) -> str:
    """Return "namespace/name", which names a pod within one snapshot."""
    return f"{pod.namespace}/{pod.name}"


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a pod template with the CPU and memory that it requests."""

    name: str
    requests: Resources


@dataclass(frozen=True, slots=True)
class Workload:
    """A controller of identical pods: Deployment, StatefulSet, ReplicaSet, Job or a bare Pod.

    `max_surge` and `max_unavailable` are resolved against `replicas`, as the Deployment controller does
    (surge up, unavailable down, both 0 becomes 1 unavailable). `update` is RollingUpdate, Recreate or OnDelete.
    `known` is False where the controller's own object was not in the dump and only its pods were seen.
    """

    key: str
    uid: str
    replicas: int
    ready_replicas: int = 0
    updated_replicas: int = 0
    update: str = "RollingUpdate"
    max_surge: int = 0
    max_unavailable: int = 0
    requests: Resources = field(default_factory=Resources)
    constraints: NodeConstraints = field(default_factory=NodeConstraints)
    containers: tuple[Container, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    template_annotations: Mapping[str, str] = field(default_factory=dict)
    template_labels: Mapping[str, str] = field(default_factory=dict)
    scheduler_name: str = "default-scheduler"
    owner: str | None = None
    paused: bool = False
    observed: bool = True
    known: bool = True

    @property
    def namespace(self) -> str:
        return self.key.split("/")[0]

    @property
    def kind(self) -> str:
        return self.key.split("/")[1]

    @property
    def name(self) -> str:
        return self.key.split("/")[2]


@dataclass(frozen=True, slots=True)
class DaemonSet:
    """A DaemonSet: what it takes on every node that it selects; `constraints` include its own tolerations."""

    key: str
    uid: str
    requests: Resources
    constraints: NodeConstraints


@dataclass(frozen=True, slots=True)
class DisruptionBudget:
    """A PodDisruptionBudget: at least `desired_healthy` of the selected pods stay healthy.

    `disruptions_allowed` is what the API server would grant now.
    """

    namespace: str
    name: str
    selector: LabelSelector
    desired_healthy: int
    disruptions_allowed: int

    def covers(self, pod: Pod) -> bool:
        """Say whether the budget protects the pod."""
        return pod.namespace == self.namespace and self.selector.matches(pod.labels)


class LabelTally:
    """Pods counted by namespace and by those of their labels that any of the selectors asks for.

    Selectors are then tried on kinds of pods, of which there are few, and not on each pod.
    """

    def __init__(self, pods: Iterable[Pod], selectors: Iterable[LabelSelector]) -> None:
        asked = sorted({requirement.key for selector in selectors for requirement in selector.requirements})
        counted = Counter((pod.namespace, *map(pod.labels.get, asked)) for pod in pods)
        self._kinds: dict[str, list[tuple[dict[str, str], int]]] = {}
        for (namespace, *values), count in counted.items():
            labels = {key: value for key, value in zip(asked, values, strict=True) if value is not None}
            self._kinds.setdefault(str(namespace), []).append((labels, count))

    def count(self, namespace: str, selector: LabelSelector) -> int:
        """Return how many of the pods the selector, one of those given, matches."""
        return sum(count for labels, count in self._kinds.get(namespace, ()) if selector.matches(labels))


@dataclass(frozen=True, slots=True)
class Utilization:
    """One metric of an autoscaler: current and target in percent of the request."""

    metric: str
    current_percent: float
    target_percent: float


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """A HorizontalPodAutoscaler and the workload that it scales."""

    key: str
    workload: str
    current_replicas: int
    desired_replicas: int
    max_replicas: int
    utilizations: tuple[Utilization, ...] = ()


InstanceState = Literal["creating", "running", "deleting", "failed"]


@dataclass(frozen=True, slots=True)
class Instance:
    """A virtual machine of a node pool as the cloud sees it; `error` is the cloud's code where it failed."""

    name: str
    pool: str
    zone: str
    state: InstanceState
    error: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that was read, whole or not at all; `instances` is None where no cloud was asked.

    `operations` names what else is under way, such as a node pool's upgrade. `planned` are the pods that a plan is
    about: live, and not bound to their node's life (DaemonSet, mirror).
    """

    nodes: tuple[Node, ...] = ()
    pods: tuple[Pod, ...] = ()
    workloads: tuple[Workload, ...] = ()
    daemonsets: tuple[DaemonSet, ...] = ()
    budgets: tuple[DisruptionBudget, ...] = ()
    autoscalers: tuple[Autoscaler, ...] = ()
    instances: tuple[Instance, ...] | None = None
    operations: tuple[str, ...] = ()
    record: PlanRecord | None = None
    taken_at: float = 0.0
    planned: tuple[Pod, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Asked for some dozens of times in one plan; that many passes over 150,000 pods take seconds.
        planned = tuple(pod for pod in self.pods if pod.live and not pod.stays_with_node)
        object.__setattr__(self, "planned", planned)

    def pods_on(self) -> dict[str, list[Pod]]:
        """Return the pods that take room on each node (not finished; being deleted still counts), by node name."""
        found: dict[str, list[Pod]] = {node.name: [] for node in self.nodes}
        for pod in self.pods:
            if pod.node is not None and not pod.finished:
                found.setdefault(pod.node, []).append(pod)
        return found


def free_room(nodes: Iterable[Node], pods: Iterable[Pod]) -> dict[str, Resources]:
    """Return what each node has left now beside all of these pods on it, those that are being deleted included."""
    found = {node.name: node.allocatable for node in nodes}
    for pod in pods:
        if pod.node in found and not pod.finished:
            found[pod.node] = found[pod.node] - pod.requests
    return found
