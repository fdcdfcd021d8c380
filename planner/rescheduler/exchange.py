"""New nodes of one kind change places in the plan, where pods that waited came to the wrong one of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from planner import labels as keys
from planner.model.cluster import Snapshot
from planner.model.disruption import planned_pods
from planner.model.plan import PlannedNode, PlanRecord
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
