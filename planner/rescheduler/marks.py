"""What a plan writes on nodes: labels, the placement annotation, the expiring taint."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from planner import labels as keys
from planner.model.cluster import Node, Snapshot
from planner.model.disruption import pin_reason, planned_pods
from planner.model.plan import MarkNode, Plan, PlanRecord, Step
from planner.model.resources import Resources
from planner.rescheduler.disruption import rules_of
from planner.rescheduler.placement import Standing, placement_of
from planner.settings import MoveSettings


def mark(
    record: PlanRecord, snapshot: Snapshot, settings: MoveSettings, only: Collection[str] | None = None
) -> tuple[Step, ...]:
    """Label the plan's nodes and those that expire, publish the placement, clear what older iterations left.

    `only` names the nodes that are marked; without it all are.
    """
    plan = record.plan
    planned = {node.name: node for node in plan.nodes}
    spares = spared(plan, snapshot, settings)
    live: dict[str, Counter[str]] = defaultdict(Counter)
    for pod in planned_pods(snapshot):
        if pod.node is not None:
            live[pod.node][pod.workload] += 1
    steps = []
    for node in snapshot.nodes:
        if only is not None and node.name not in only:
            continue
        target = planned.get(node.name)
        if target is None or target.frozen:
            step = mark_of(node) if iteration_of(node) not in (None, plan.iteration) else None
        elif target.state == "remove" and node.name not in spares:
            draining = any(t.key == keys.EXPIRING and t.effect == "NoSchedule" for t in node.taints)
            effect = "NoSchedule" if draining else "PreferNoSchedule"
            step = mark_of(node, expiring=plan.iteration, effect=effect)
        else:
            standing = Standing(node, live.get(node.name, {}), _beside_daemons(node, snapshot))
            text = placement_of(record, target, standing, record.accepted_at + settings.plan_ttl_seconds)
            step = mark_of(node, optimal=plan.iteration, placement=text if settings.publish_placement else None)
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


def _beside_daemons(node: Node, snapshot: Snapshot) -> Resources:
    free = node.allocatable
    for daemonset in snapshot.daemonsets:
        if daemonset.constraints.admit(node.labels, node.name, node.taints):
            free = free - daemonset.requests
    return free


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
