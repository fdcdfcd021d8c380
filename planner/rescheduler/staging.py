"""Puts a plan into an order of stages in which everything fits, and mends it where there is none.

A rolling update needs room for every new pod beside the old ones, which a tightly packed node that stays does not
have. Going first helps, while others have not come yet; an eviction needs no such room; a new node has enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from planner.model.cluster import Pod
from planner.model.disruption import mobilities, planned_pods
from planner.model.inputs import PlanningInputs
from planner.model.machines import Offering
from planner.model.plan import Plan, PlannedNode
from planner.model.resources import Resources
from planner.rescheduler.rehearsal import rehearse
from planner.settings import MoveSettings

MOST_ORDERS = 40
"""How many orders are rehearsed. On random clusters of 60 nodes up to 25 led to one in which everything fits."""


def staged(plan: Plan, inputs: PlanningInputs, settings: MoveSettings) -> tuple[Plan, dict[str, str]]:
    """Return the plan with its stages, and the workloads that no order found can move, each with a reason.

    A workload that is stuck goes before all others in the next trial. A roll-out that is stuck even so becomes
    evictions, where its strategy and its budgets allow them, and goes last: they need no room beside old pods.
    """
    order = sorted(plan.workloads, key=lambda key: (_turn(plan, inputs, key), -plan.workloads[key].moves, key))
    tries: Counter[str] = Counter()
    best, least = (plan, dict[str, str]()), -1
    for _ in range(MOST_ORDERS):
        trial = _in_order(plan, order)
        stuck = rehearse(trial, inputs.snapshot, inputs.catalogue, settings)
        pods = sum(trial.workloads[key].moves for key in stuck)
        if least < 0 or pods < least:
            best, least = (trial, stuck), pods
        if not stuck:
            break
        key = min(stuck, key=lambda key: (tries[key], order.index(key)))
        tries[key] += 1
        order.remove(key)
        evicted = _evicting(plan, inputs, key) if tries[key] > 1 else plan
        order.insert(0 if evicted is plan else len(order), key)
        plan = evicted
    return best


def _turn(plan: Plan, inputs: PlanningInputs, key: str) -> int:
    """Say how early a workload goes: what lands on new nodes, roll-outs beside their old pods, others, evictions."""
    lands = {node.name for node in plan.nodes if node.state == "keep" and node.pods.get(key)}
    if not lands:
        return 0
    if plan.workloads[key].strategy != "rollout":
        return 3
    return 1 if any(pod.workload == key and pod.node in lands for pod in inputs.snapshot.pods) else 2


def _in_order(plan: Plan, order: Collection[str]) -> Plan:
    stages = {key: replace(plan.workloads[key], stage=stage) for stage, key in enumerate(order)}
    return replace(plan, workloads={key: stages[key] for key in plan.workloads})


def _evicting(plan: Plan, inputs: PlanningInputs, key: str) -> Plan:
    """Return the plan with the workload evicted instead of rolled out; the same plan where that is not allowed.

    Only the misplaced pods move then, one after the other.
    """
    planned = plan.workloads[key]
    mobility = mobilities(inputs.snapshot, inputs.rules).get(key)
    if (
        planned.strategy != "rollout"
        or planned.requests != planned.requests_before
        or not (mobility and mobility.evictable)
    ):
        return plan
    changed = dict(plan.workloads)
    changed[key] = replace(planned, strategy="evict", moves=_displaced(plan, inputs, key))
    moves = sum(workload.moves for workload in changed.values())
    objective = replace(plan.objective, moves_nanousd_per_hour=inputs.prices.moves_nanousd_per_hour(moves))
    return replace(plan, workloads=changed, objective=objective)


def relocated(plan: Plan, inputs: PlanningInputs, workloads: Collection[str]) -> Plan:
    """Return the plan with these workloads' pods on new nodes only, more of them where the planned ones are full.

    A workload that no new node can take stays as planned; the plan becomes dearer by the nodes that are added.
    """
    samples = {pod.workload: pod for pod in planned_pods(inputs.snapshot)}
    for key in sorted(workloads):
        if plan.workloads[key].strategy == "rollout" and key in samples:
            plan = _on_new_nodes(plan, inputs, samples[key])
    return plan


def _displaced(plan: Plan, inputs: PlanningInputs, key: str) -> int:
    wanted = {node.name: node.pods.get(key, 0) for node in plan.nodes if node.state != "remove"}
    here = Counter(p.node for p in planned_pods(inputs.snapshot) if p.workload == key and p.node is not None)
    return sum(max(0, count - wanted.get(node, 0)) for node, count in here.items())


def _on_new_nodes(plan: Plan, inputs: PlanningInputs, sample: Pod) -> Plan:
    """Take one workload's pods off the nodes that stay and put them on new ones, first fit, then the cheapest kind."""
    key, requests = sample.workload, plan.workloads[sample.workload].requests
    offers = {_kind(o): (o, _room(o, inputs)) for o in inputs.catalogue.offerings}
    nodes = {node.name: node for node in plan.nodes}
    left = 0
    for node in plan.nodes:
        if node.state == "keep" and node.pods.get(key):
            left += node.pods[key]
            nodes[node.name] = replace(node, pods={k: n for k, n in node.pods.items() if k != key})
    added = 0
    for node in plan.nodes:
        if node.state == "boot":
            offer, room = offers[node.pool, node.zone, node.machine_type, node.capacity_type]
            for other, count in node.pods.items():
                room = room - plan.workloads[other].requests * count
            count = min(left, _fitting(requests, room)) if _admits(sample, offer) else 0
            if count:
                nodes[node.name] = replace(node, pods={**node.pods, key: node.pods.get(key, 0) + count})
                left -= count
    while left:
        staying = Counter((n.pool, n.zone) for n in nodes.values() if n.state != "remove")
        choices = [
            (o.price_nanousd_per_hour / min(left, _fitting(requests, room)), _kind(o), o)
            for o, room in offers.values()
            if _admits(sample, o) and _fitting(requests, room) and not _full(o, staying)
        ]
        if not choices:
            return plan
        _, kind, offer = min(choices, key=lambda choice: choice[:2])
        count = min(left, _fitting(requests, offers[kind][1]))
        name = _unused(f"{offer.pool[:40].rstrip('-')}-{plan.iteration}", nodes)
        nodes[name] = PlannedNode(
            name,
            "boot",
            offer.pool,
            offer.machine_type,
            offer.zone,
            offer.capacity_type,
            offer.price_nanousd_per_hour,
            offer.allocatable,
            {key: count},
        )
        added += offer.price_nanousd_per_hour
        left -= count
    objective = replace(
        plan.objective, nodes_nanousd_per_hour=plan.objective.nodes_nanousd_per_hour + added, status="feasible"
    )
    return replace(
        plan,
        nodes=tuple(nodes[name] for name in sorted(nodes)),
        objective=objective,
        cost_nanousd_per_hour=plan.cost_nanousd_per_hour + added,
    )


def _kind(offer: Offering) -> tuple[str, str, str, str]:
    return offer.pool, offer.zone, offer.machine_type, offer.capacity_type


def _admits(sample: Pod, offer: Offering) -> bool:
    return sample.constraints.admit(offer.labels, "", offer.taints)


def _full(offer: Offering, staying: Counter[tuple[str, str]]) -> bool:
    return offer.maximum is not None and staying[offer.pool, offer.zone] >= offer.maximum


def _room(offer: Offering, inputs: PlanningInputs) -> Resources:
    room = offer.allocatable
    for daemonset in inputs.snapshot.daemonsets:
        if daemonset.constraints.admit(offer.labels, "", offer.taints):
            room = room - daemonset.requests
    return room


def _fitting(requests: Resources, room: Resources) -> int:
    """Return how many such pods fit; every pod takes one of the node's pods, so it ends."""
    count = 0
    while (requests * (count + 1)).fits_in(room):
        count += 1
    return count


def _unused(stem: str, nodes: Collection[str]) -> str:
    return next(name for i in range(len(nodes) + 1) if (name := f"{stem}-more-{i}") not in nodes)
