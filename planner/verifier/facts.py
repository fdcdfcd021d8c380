"""What the inputs say about a plan before one looks at it: rooms, groups, kinds of nodes, limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner.model.cluster import Node, Pod, Snapshot, Workload, pod_key
from planner.model.disruption import Assessment, foreign_taints, planned_pods
from planner.model.forecast import Forecast
from planner.model.inputs import PlanningInputs
from planner.model.machines import Offering, SpotRule
from planner.model.plan import CertificateClass, Plan, PlannedNode
from planner.model.preferences import Wishes
from planner.model.resources import Resources
from planner.model.scheduling import NodeConstraints, Taint
from planner.verifier.preferences import Tastes, tastes_of

OfferingKey = tuple[str, str, str, str]
"""Pool, zone, machine type and capacity type."""


@dataclass(frozen=True, slots=True)
class GroupKey:
    """What makes pods identical for a plan; `barred` ones may come to no spot node.

    `wishes` are those that tell nodes and offerings apart.
    """

    requests: Resources
    constraints: NodeConstraints
    barred: bool = False
    wishes: Wishes = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Identical pods that are not pinned.

    `running` counts them by workload and node, `here` by node, `pending` by workload those without a node.
    """

    key: GroupKey
    workloads: frozenset[str]
    running: Mapping[str, Mapping[str, int]]
    here: Mapping[str, int]
    pending: Mapping[str, int]

    @property
    def running_count(self) -> int:
        return sum(self.here.values())

    @property
    def pending_count(self) -> int:
        return sum(self.pending.values())


@dataclass(frozen=True, slots=True)
class Spot:
    """What decides whether a pod may go to a node or to a kind of node: its room, labels, name and taints.

    The room is what is left beside DaemonSets, mirror pods and pinned pods. `preemptible` says that it is a spot node.
    """

    room: Resources
    labels: Mapping[str, str]
    name: str
    taints: tuple[Taint, ...]
    preemptible: bool = False

    def takes(self, key: GroupKey) -> bool:
        """Say whether one more pod of the group may come here and fits."""
        return self.holds(key) and not (key.barred and self.preemptible)

    def holds(self, key: GroupKey) -> bool:
        """Say whether one pod of the group may run here, and be it because it does already, and fits."""
        return key.requests.fits_in(self.room) and key.constraints.admit(self.labels, self.name, self.taints)


@dataclass(frozen=True, slots=True)
class Facts:
    """The inputs, seen from one assessment of what may be moved.

    `pods` are the planned pods by workload, `pinned` counts the pinned ones by node and workload, `unmodelled` by
    workload the pending ones whose constraints the model does not know, which cannot be placed. A pod whose node
    the snapshot does not have counts as pending: it has to be placed anew. `occupied` names the nodes that hold
    movable pods; `offers` are the offerings by pool, zone, machine type and capacity type, with their spots.
    `overheads` is what DaemonSets and mirror pods take of each node. Requests and rooms of groups, spots and overheads
    count the predicted CPU where the objective caps it; `inputs`, `nodes` and `pods` are without.
    """

    inputs: PlanningInputs
    assessment: Assessment
    nodes: Mapping[str, Node]
    workloads: Mapping[str, Workload]
    pods: Mapping[str, tuple[Pod, ...]]
    pinned: Mapping[str, Mapping[str, int]]
    unmodelled: Mapping[str, int]
    spots: Mapping[str, Spot]
    groups: tuple[Group, ...]
    occupied: frozenset[str]
    offers: Mapping[OfferingKey, tuple[Offering, Spot]]
    overheads: Mapping[str, Resources]
    tastes: Tastes

    def running(self, pod: Pod) -> bool:
        """Say whether the pod is on a node of the snapshot."""
        return pod.node in self.nodes

    def role(self, node: str) -> str:
        """Return removable, kept or frozen."""
        return self.assessment.roles[node]

    def price_nanousd_per_hour(self, node: str) -> int:
        """Return what an existing node costs; one without a price counts nothing."""
        return self.inputs.catalogue.price(self.nodes[node]) or 0

    def exit_cost_nanousd_per_hour(self, node: str) -> int:
        """Return what removing the node costs: its overlap with a replacement, where it holds movable pods."""
        if node not in self.occupied:
            return 0
        return self.inputs.prices.overlap_nanousd_per_hour(self.price_nanousd_per_hour(node))

    def existing(self, pool: str, zone: str) -> list[str]:
        """Name the nodes of the snapshot in this pool and zone."""
        pool_of = self.inputs.catalogue.pool_of
        return [node.name for node in self.nodes.values() if (pool_of(node), node.zone) == (pool, zone)]

    def unplaced_of_groups(self, workload: str, plan: Plan) -> int:
        """Return how many pods of the workload's groups the plan leaves out; pending unmodelled ones are in none."""
        if workload not in plan.unplaced:
            return 0
        grouped = sum(group.pending.get(workload, 0) for group in self.groups)
        return min(grouped, max(0, plan.unplaced[workload].count - self.unmodelled.get(workload, 0)))

    def least(self, pool: str, zone: str) -> int:
        """Return how many nodes the pool must have in the zone: its minimum, or what the maximum allows if less.

        Nodes can be booted empty, so nothing but the maximum, and what must stay beyond it, stands between a pool and
        its minimum.
        """
        minimum, maximum = self.inputs.catalogue.limits()[(pool, zone)]
        if maximum is None:
            return minimum
        return min(minimum, max(maximum, sum(self.role(name) != "removable" for name in self.existing(pool, zone))))

    def most(self, pool: str, zone: str, maximum: int) -> int:
        """Return how many nodes the pool may have in the zone: its maximum, or what it has now if that is more."""
        return max(maximum, len(self.existing(pool, zone)))


def adopted(plan: Plan, inputs: PlanningInputs) -> PlanningInputs:
    """Return the inputs as the plan took them.

    Those are the forecast of the workloads whose requests it changes, and the nodes that it leaves above a cap.
    """
    taken = {
        key: changes
        for key, changes in inputs.forecast.requests.items()
        if key in plan.workloads and plan.workloads[key].containers
    }
    cap = inputs.cap
    if cap is not None and plan.objective.cap is not None:
        cap = replace(cap, allowed_millicores=plan.objective.cap.allowed_millicores)
    return replace(inputs, forecast=Forecast(taken, inputs.forecast.reasons), cap=cap)


def gather(inputs: PlanningInputs) -> Facts:
    """Apply the rules of disruption and derive rooms and groups."""
    snapshot = inputs.snapshot
    assessment = inputs.assessment
    counted = inputs.under_cap()
    nodes = {node.name: node for node in snapshot.nodes}
    workloads = {workload.key: workload for workload in snapshot.workloads}
    pods: dict[str, list[Pod]] = {}
    pinned: dict[str, dict[str, int]] = {}
    fixed: dict[str, Resources] = {}
    movable: list[tuple[Pod, Resources]] = []
    unmodelled: Counter[str] = Counter()
    for pod in planned_pods(snapshot):
        pods.setdefault(pod.workload, []).append(pod)
    for pod in planned_pods(counted.snapshot):
        requests = inputs.planned_requests(pod, workloads.get(pod.workload))
        if pod.node is not None and pod_key(pod) in assessment.pins:
            fixed[pod.node] = fixed.get(pod.node, Resources()) + requests
            by_workload = pinned.setdefault(pod.node, {})
            by_workload[pod.workload] = by_workload.get(pod.workload, 0) + 1
        elif pod.node not in nodes and pod.unmodelled:
            unmodelled[pod.workload] += 1
        else:
            movable.append((pod, requests))
    overhead = _overheads(counted.snapshot)
    tastes = tastes_of(inputs)
    groups = _groups(movable, nodes, inputs.catalogue.spot, tastes)
    return Facts(
        inputs=inputs,
        assessment=assessment,
        nodes=nodes,
        workloads=workloads,
        pods={key: tuple(found) for key, found in pods.items()},
        pinned=pinned,
        unmodelled=unmodelled,
        spots={
            name: Spot(
                node.allocatable - overhead[name] - fixed.get(name, Resources()),
                node.labels,
                name,
                foreign_taints(node),
                node.capacity_type == "spot",
            )
            for name, node in ((node.name, node) for node in counted.snapshot.nodes)
        },
        groups=groups,
        occupied=frozenset(name for group in groups for name in group.here),
        offers={
            offering_key(o): (o, _offering_spot(priced, counted.snapshot))
            for o, priced in zip(inputs.catalogue.offerings, counted.catalogue.offerings, strict=True)
        },
        overheads=overhead,
        tastes=tastes,
    )


def offering_key(kind: Offering | PlannedNode | CertificateClass) -> OfferingKey:
    """Return what tells kinds of nodes apart."""
    return (kind.pool, kind.zone, kind.machine_type, kind.capacity_type)


def _offering_spot(offering: Offering, snapshot: Snapshot) -> Spot:
    """Return the room of a fresh node: its allocatable without the DaemonSets that select it."""
    room = offering.allocatable
    for daemonset in snapshot.daemonsets:
        if daemonset.constraints.admit(offering.labels, "", offering.taints):
            room = room - daemonset.requests
    return Spot(room, offering.labels, "", offering.taints, offering.capacity_type == "spot")


def _overheads(snapshot: Snapshot) -> dict[str, Resources]:
    """Return what DaemonSets and mirror pods take on each node.

    A DaemonSet that selects the node and has no pod there yet counts too, unless what runs there leaves it no
    room: the present state must stay possible.
    """
    found: dict[str, Resources] = {}
    on_nodes = snapshot.pods_on()
    for node in snapshot.nodes:
        bound = [pod for pod in on_nodes[node.name] if pod.stays_with_node]
        overhead = sum((pod.requests for pod in bound), Resources())
        used = sum((pod.requests for pod in on_nodes[node.name] if pod.live and not pod.stays_with_node), overhead)
        present = {pod.workload for pod in bound}
        for daemonset in sorted(snapshot.daemonsets, key=lambda d: d.key):
            missing = daemonset.key not in present
            if missing and daemonset.constraints.admit(node.labels, node.name, foreign_taints(node)):
                if not daemonset.requests.scheduled.fits_in(node.allocatable - used):
                    continue
                used = used + daemonset.requests
                overhead = overhead + daemonset.requests
        found[node.name] = overhead
    return found


def _groups(
    movable: list[tuple[Pod, Resources]], nodes: Mapping[str, Node], spot: SpotRule, tastes: Tastes
) -> tuple[Group, ...]:
    """Group the pods that the plan places: same planned requests, same constraints, same wishes that tell."""
    running: dict[GroupKey, dict[str, Counter[str]]] = {}
    pending: dict[GroupKey, Counter[str]] = {}
    for pod, requests in movable:
        key = GroupKey(requests, pod.constraints, spot.bars(pod), tastes.telling(pod.wishes))
        waiting = pending.setdefault(key, Counter())
        settled = running.setdefault(key, {})
        if pod.node is not None and pod.node in nodes:
            settled.setdefault(pod.workload, Counter())[pod.node] += 1
        else:
            waiting[pod.workload] += 1
    return tuple(
        Group(
            key,
            frozenset(running[key].keys() | pending[key].keys()),
            running[key],
            sum(running[key].values(), Counter()),
            pending[key],
        )
        for key in running
    )
