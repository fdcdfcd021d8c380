"""New nodes for pods that no order of stages can bring to where the plan wants them, without another solve.

That costs a few nodes, where leaving whole workloads as they are (`planner.rescheduler.standing`) keeps every node that
holds one of their pods. Whether what comes of it is right is for the check to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count

from planner.model.cluster import Node, Pod
from planner.model.companions import in_company, needs_company
from planner.model.inputs import PlanningInputs, offering_room
from planner.model.machines import Offering
from planner.model.naming import node_name
from planner.model.plan import Plan, PlannedNode
from planner.model.resources import Resources
from planner.model.scheduling import PodRules
from planner.rescheduler.rehearsal import Ending, with_booted

Domains = tuple[tuple[str, str | None], ...]


def with_spare_nodes(plan: Plan, stuck: Collection[str], inputs: PlanningInputs, ending: Ending) -> Plan | None:
    """Return the plan in which those pods of these workloads that cannot move in any order come to new nodes.

    Its moves come to this `ending`.
    None where that cannot be said so simply: one of them is rolled out or needs others beside it, or waits for a node
    and takes no part in the rehearsal, the objective caps what nodes use, or nothing is on offer that holds its pods.
    """
    if inputs.cap is not None or any(plan.workloads[key].strategy != "evict" for key in stuck):
        return None
    pods: dict[str, list[Pod]] = {key: [] for key in stuck}
    for pod in inputs.snapshot.planned:
        if pod.workload in pods:
            pods[pod.workload].append(pod)
    if any(needs_company(pod.rules) for own in pods.values() for pod in own):
        return None
    here: dict[str, Mapping[str, int]] = {m.key: m.here for m in ending.movers if m.key in pods}
    for key in pods.keys() - here.keys():
        if any(pod.node is None for pod in pods[key]):
            return None
        # What takes no part has all its places to reach yet.
        here[key] = Counter(pod.node or "" for pod in pods[key])
    yard = Yard(plan, inputs)
    for key, own in sorted(pods.items()):
        for homeless, many in yard.take_back(key, own[0], here[key]).items():
            if not yard.seat(key, own[0], homeless, many):
                return None
    return yard.plan()


def with_room_for(plan: Plan, inputs: PlanningInputs, ending: Ending) -> Plan | None:
    """Return the plan in which new nodes take what else was to come where those find no room that are stuck in the end.

    It is for pods that cannot come to new nodes themselves: roll-outs, which replace all of them, and those that need
    others beside them. None where the objective caps what nodes use, nothing else is to come there that could as well
    come elsewhere, or nothing is on offer that holds it.
    """
    if inputs.cap is not None:
        return None
    samples: dict[str, Pod] = {}
    here: dict[str, Counter[str]] = {}
    for pod in inputs.snapshot.planned:
        samples.setdefault(pod.workload, pod)
        if pod.node is not None:
            here.setdefault(pod.workload, Counter())[pod.node] += 1
    bound = {*ending.stuck, *in_company(inputs.sought)}
    room, yard, homeless = ending.room.copy(), Yard(plan, inputs), Counter[tuple[str, Domains]]()
    for mover in (m for m in ending.movers if m.key in ending.stuck):
        for node, wanted in sorted(mover.wanted.items()):
            need = mover.planned.requests * max(0, wanted - mover.standing.get(node, 0))
            arrived = Counter(
                {
                    key: pods - here.get(key, Counter())[node]
                    for key, pods in yard.contents(node).items()
                    if key not in bound and plan.workloads[key].moves
                }
            )
            # The largest first, so that few go elsewhere.
            others = sorted(arrived.elements(), key=lambda key: (-samples[key].requests.cpu_millicores, key))
            free, leaving = room.free.get(node, Resources()), list[str]()
            while others and not need.fits_in(free):
                leaving.append(others.pop(0))
                free = free + yard.each(leaving[-1], samples[leaving[-1]])
            if need.fits_in(free):
                room.free[node] = free - need
                for key in leaving:
                    homeless[key, yard.take(key, samples[key], node)] += 1
    if not homeless:
        return None
    seated = (yard.seat(key, samples[key], domains, many) for (key, domains), many in sorted(homeless.items()))
    return yard.plan() if all(seated) else None


def domains_kept(sample: Pod, node: Node) -> Domains:
    """Return the domains in which such a pod stays that is wanted on this node."""
    return tuple((domain, node.labels.get(domain)) for domain in sample.keeps)


@dataclass(slots=True)
class _Spare:
    """A new node that is to be: what it holds, what is left on it, and whether none of its pods has rules of its own.

    Pods without rules stand beside each other wherever there is room.
    """

    offering: Offering
    pods: dict[str, int]
    room: Resources
    plain: bool


class Yard:
    """A plan whose contents are being changed, with the new nodes so far."""

    def __init__(self, plan: Plan, inputs: PlanningInputs) -> None:
        self._plan, self._inputs = plan, inputs
        self._nodes: dict[str, Node] = {n.name: n for n in with_booted(plan, inputs.snapshot, inputs.catalogue).nodes}
        self._contents = {node.name: dict(node.pods) for node in plan.nodes}
        self._sizes = Counter((node.pool, node.zone) for node in plan.nodes if node.state != "remove")
        self._spares: list[_Spare] = []

    def take_back(self, key: str, sample: Pod, here: Mapping[str, int]) -> dict[Domains, int]:
        """Take the workload's pods from where they are wanted and are not `here`; count them by the domains they keep.

        `sample` is one of them.
        """
        found: Counter[Domains] = Counter()
        for name, content in self._contents.items():
            if (more := content.get(key, 0) - here.get(name, 0)) > 0:
                content[key] -= more
                found[domains_kept(sample, self._nodes[name])] += more
        return dict(found)

    def contents(self, node: str) -> Mapping[str, int]:
        """Return what the node holds in the plan by now."""
        return self._contents[node]

    def each(self, key: str, sample: Pod) -> Resources:
        """Return what one pod of the workload takes as the plan has it."""
        return self._plan.workloads[key].requests.with_shares(sample.requests.shares)

    def take(self, key: str, sample: Pod, node: str) -> Domains:
        """Take one pod of the workload from the node; return the domains that it keeps."""
        self._contents[node][key] -= 1
        return domains_kept(sample, self._nodes[node])

    def seat(self, key: str, sample: Pod, domains: Domains, many: int) -> bool:
        """Boot the cheapest nodes of one kind that hold so many of these pods, or what new nodes leave of them.

        Returns whether there are any.
        """
        requests = self.each(key, sample)
        admitting = tuple(self._admitting(sample, domains))
        plain = sample.rules == PodRules()
        for spare in self._spares:
            if plain and spare.plain and spare.offering in admitting:
                more = requests.many_in(spare.room, many)
                spare.pods[key] = spare.pods.get(key, 0) + more
                spare.room = spare.room - requests * more
                many -= more
        if not many:
            return True
        ways: list[tuple[int, str, str, int, Offering]] = []
        for offering in admitting:
            each = requests.many_in(offering_room(self._inputs, offering), many)
            need = -(-many // each) if each else 0
            allowed = offering.maximum is None or self._sizes[offering.pool, offering.zone] + need <= offering.maximum
            if each and allowed:
                price = need * offering.price_nanousd_per_hour
                ways.append((price, offering.machine_type, offering.zone, each, offering))
        if not ways:
            return False
        *_, each, offering = min(ways, key=lambda way: way[:4])
        for start in range(0, many, each):
            count = min(each, many - start)
            left = offering_room(self._inputs, offering) - requests * count
            self._spares.append(_Spare(offering, {key: count}, left, plain))
            self._sizes[offering.pool, offering.zone] += 1
        return True

    def _admitting(self, sample: Pod, domains: Domains) -> Iterator[Offering]:
        for offering in self._inputs.catalogue.offerings:
            barred = offering.capacity_type == "spot" and self._inputs.catalogue.spot.bars(sample)
            at_home = all(offering.labels.get(key) == domain for key, domain in domains)
            if at_home and not barred and sample.constraints.admit(offering.labels, "", offering.taints):
                yield offering

    def _booted(self) -> Iterator[PlannedNode]:
        taken = {node.name for node in self._plan.nodes}
        numbers = count(len(taken))
        for spare in self._spares:
            offering = spare.offering
            names = (node_name(offering.pool, self._plan.iteration, number) for number in numbers)
            yield PlannedNode(
                next(name for name in names if name not in taken),
                "boot",
                offering.pool,
                offering.machine_type,
                offering.zone,
                offering.capacity_type,
                offering.price_nanousd_per_hour,
                offering.allocatable.plain,
                {key: count for key, count in sorted(spare.pods.items()) if count},
            )

    def plan(self) -> Plan:
        """Return the plan that this is; a node to boot of which nothing is left is not booted."""
        nodes = list(self._booted())
        for node in self._plan.nodes:
            pods = {key: count for key, count in self._contents[node.name].items() if count}
            if node.state != "boot" or pods or not node.pods:
                nodes.append(replace(node, pods=pods))
        nodes.sort(key=lambda node: node.name)
        cost = sum(node.price_nanousd_per_hour or 0 for node in nodes if node.state != "remove")
        objective = replace(self._plan.objective, nodes_nanousd_per_hour=cost, status="feasible")
        return replace(self._plan, nodes=tuple(nodes), objective=objective, cost_nanousd_per_hour=cost)
