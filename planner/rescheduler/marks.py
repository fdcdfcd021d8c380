"""What a plan writes on nodes: labels, the placement annotation, the expiring taint."""

from __future__ import annotations

from collections.abc import Mapping

from planner import labels as keys
from planner.model.cluster import Node, Snapshot
from planner.model.disruption import pin_reason, planned_pods
from planner.model.plan import MarkNode, Plan, PlannedNode, PlanRecord, Step
from planner.rescheduler.moves import rules_of
from planner.settings import MoveSettings


def mark(record: PlanRecord, snapshot: Snapshot, settings: MoveSettings) -> tuple[Step, ...]:
    """Label the plan's nodes and those that expire, publish the placement, clear what older iterations left."""
    plan = record.plan
    planned = {node.name: node for node in plan.nodes}
    spares = spared(plan, snapshot, settings)
    steps = []
    for node in snapshot.nodes:
        target = planned.get(node.name)
        if target is None or target.frozen:
            step = mark_of(node) if iteration_of(node) not in (None, plan.iteration) else None
        elif target.state == "remove" and node.name not in spares:
            draining = any(t.key == keys.EXPIRING and t.effect == "NoSchedule" for t in node.taints)
            effect = "NoSchedule" if draining else "PreferNoSchedule"
            step = mark_of(node, expiring=plan.iteration, effect=effect)
        else:
            placement = _placement(record, target, node, snapshot, settings) if settings.publish_placement else None
            step = mark_of(node, optimal=plan.iteration, placement=placement)
        if step is not None:
            steps.append(step)
    return tuple(steps)


def iteration_of(node: Node) -> str | None:
    """Return the iteration whose marks the node carries, "" for marks that name none, None for no marks."""
    for key in (keys.OPTIMAL, keys.EXPIRING):
        if key in node.labels:
            return node.labels[key]
    for taint in node.taints:
        if taint.key == keys.EXPIRING:
            return taint.value
    return "" if keys.PLACEMENT in node.annotations else None


def mark_of(
    node: Node,
    optimal: str | None = None,
    expiring: str | None = None,
    effect: str = "",
    placement: str | None = None,
) -> MarkNode | None:
    """Return the step that gives the node exactly these marks, None where it has them."""
    labels = {
        key: value
        for key, value in ((keys.OPTIMAL, optimal), (keys.EXPIRING, expiring))
        if node.labels.get(key) != value
    }
    annotations = {keys.PLACEMENT: placement} if node.annotations.get(keys.PLACEMENT) != placement else {}
    present = {(t.value, t.effect) for t in node.taints if t.key == keys.EXPIRING}
    wanted = {(expiring, effect)} if expiring is not None else set()
    if not labels and not annotations and present == wanted:
        return None
    return MarkNode(node.name, node.uid, labels, annotations, expiring, effect)


def _placement(record: PlanRecord, planned: PlannedNode, node: Node, snapshot: Snapshot, settings: MoveSettings) -> str:
    """Return the placement annotation; it follows from the plan, so that it is written once."""
    plan = record.plan
    free = node.allocatable
    for daemonset in snapshot.daemonsets:
        if daemonset.constraints.admit(node.labels, node.name, node.taints):
            free = free - daemonset.requests
    targets = []
    for key, count in sorted(planned.pods.items()):
        workload = plan.workloads[key]
        free = free - workload.requests * count
        counted = "iteration" if workload.strategy == "rollout" else "all"
        targets.append(keys.Target(key, workload.uid, count, "iteration" if counted == "iteration" else "all"))
    headroom = {name: max(0, amount) for name, amount in free.amounts().items()}
    expires = record.accepted_at + settings.plan_ttl_seconds
    return keys.encode_placement(keys.Placement(plan.iteration, expires, tuple(targets), headroom))


def spared(plan: Plan, snapshot: Snapshot, settings: MoveSettings) -> frozenset[str]:
    """Name the nodes that were to be removed but hold, by now, a pod that nobody may move."""
    rules = rules_of(settings)
    workloads = {w.key: w for w in snapshot.workloads}
    expiring = {node.name for node in plan.nodes if node.state == "remove"}
    return frozenset(
        pod.node
        for pod in planned_pods(snapshot)
        if pod.node in expiring and pod.node is not None and pin_reason(pod, workloads.get(pod.workload), rules)
    )


def is_closed(node: Node) -> bool:
    return any(t.key == keys.EXPIRING and t.effect == "NoSchedule" for t in node.taints)


def closing(node: Node, iteration: str) -> MarkNode:
    labels: Mapping[str, str | None] = {keys.EXPIRING: iteration, keys.OPTIMAL: None}
    return MarkNode(node.name, node.uid, labels, {keys.PLACEMENT: None}, iteration, "NoSchedule")
