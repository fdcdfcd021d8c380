"""New nodes of one kind, or single pods, change places in the plan, where pods that waited came to the wrong node."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from planner import labels as keys
from planner.model.cluster import Snapshot
from planner.model.disruption import planned_pods
from planner.model.plan import PlannedNode, PlanRecord
from planner.model.utilization import excess_millicores, holding
from planner.rescheduler.movers import movers_of
from planner.rescheduler.placement import opened


def exchanged(record: PlanRecord, snapshot: Snapshot) -> PlanRecord | None:
    """Return the record with new nodes exchanged so that more pods are where it wants them; None where that gains none.

    The first node that boots takes the pods that wait, whichever it was meant for. Nodes of one offering that carry
    nothing else are alike, so that to exchange them moves nobody. Once a roll-out has begun none is exchanged any more,
    and none that was opened to more evicted pods than it would have then.
    """
    if any(w.template_annotations.get(keys.ITERATION) == record.plan.iteration for w in snapshot.workloads):
        return None
    here: dict[str, Counter[str]] = defaultdict(Counter)
    for pod in planned_pods(snapshot):
        if pod.node is not None and pod.workload in record.plan.workloads:
            here[pod.node][pod.workload] += 1
    asked = {node.name: opened(node, record.plan.iteration) or {} for node in snapshot.nodes}
    alike: dict[tuple[str, ...], dict[str, PlannedNode]] = defaultdict(dict)
    for node in record.plan.nodes:
        if node.state == "boot":
            alike[node.pool, node.zone, node.machine_type, node.capacity_type][node.name] = node
    changed: dict[str, PlannedNode] = {}
    for nodes in alike.values():
        for name in sorted(nodes.keys() & here.keys()):
            gains = _gains(record, name, nodes, here, asked)
            _, other = min(gains, default=(0, name))
            if other != name:
                nodes[name], nodes[other] = replace(nodes[other], name=name), replace(nodes[name], name=other)
                changed |= {name: nodes[name], other: nodes[other]}
    if not changed:
        return None
    plan = replace(record.plan, nodes=tuple(changed.get(node.name, node) for node in record.plan.nodes))
    return replace(record, plan=plan)


def left_where_they_came(record: PlanRecord, snapshot: Snapshot, waiting: Collection[str]) -> PlanRecord | None:
    """Return the record in which pods that waited for a node, and came to each other's, are wanted where they are.

    Nothing moves any more but for these workloads, which are `waiting` for room. None where some of them move for the
    sake of the plan, where pods have yet to come or to be ready or are on a node that goes, or where a node would be
    above the cap.
    """
    plan = record.plan
    staying = {node.name for node in plan.nodes if node.state != "remove" and not node.frozen}
    contents = {node.name: Counter(node.pods) for node in plan.nodes}
    for mover in movers_of(record, snapshot):
        if mover.key not in waiting:
            continue
        if not mover.open_from_the_start or mover.unavailable or not mover.misplaced:
            return None
        if not staying.issuperset(pod.node for pod in mover.misplaced):
            return None
        missing = (Counter(mover.wanted) - Counter(mover.here)).elements()
        for pod, given_up in zip(mover.misplaced, missing, strict=False):
            contents[pod.node or ""][mover.key] += 1
            contents[given_up][mover.key] -= 1
    nodes = (holding(node, dict(sorted((+contents[node.name]).items())), plan.objective.cap) for node in plan.nodes)
    found = replace(plan, nodes=tuple(nodes))
    if found == plan or excess_millicores(found, allowed=True):
        return None
    return replace(record, plan=found)


def _gains(
    record: PlanRecord,
    name: str,
    nodes: Mapping[str, PlannedNode],
    here: Mapping[str, Counter[str]],
    asked: Mapping[str, Mapping[str, int]],
) -> Iterator[tuple[int, str]]:
    """Yield each node with which an exchange puts more pods in their place, after how many more, negated."""
    evicted = {key for key, workload in record.plan.workloads.items() if workload.strategy == "evict"}

    def in_place(at: str, planned: PlannedNode) -> int:
        return (here.get(at, Counter()) & Counter(planned.pods)).total()

    def may_be(at: str, planned: PlannedNode) -> bool:
        return all(count <= planned.pods.get(key, 0) for key, count in asked.get(at, {}).items() if key in evicted)

    for other, planned in nodes.items():
        if other == name or not (may_be(name, planned) and may_be(other, nodes[name])):
            continue
        now = in_place(name, nodes[name]) + in_place(other, planned)
        if (then := in_place(name, planned) + in_place(other, nodes[name])) > now:
            yield now - then, other
