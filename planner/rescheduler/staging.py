"""Puts a plan into an order of stages in which everything fits, and mends it where there is none.

A rolling update needs room for every new pod beside the old ones, which a tightly packed node that stays does not
have. Going first helps, while others have not come yet; an eviction needs no such room; a new node has enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from planner.model.disruption import mobilities, planned_pods
from planner.model.inputs import PlanningInputs
from planner.model.plan import Plan
from planner.rescheduler.rehearsal import rehearse
from planner.settings import MoveSettings

MOST_ORDERS = 40
"""How many orders are rehearsed at the most; on the demo's clusters (60 nodes) up to 11 led to one that fits."""

VAIN_ORDERS = 10
"""After how many orders without an improvement the search ends: on the demo's clusters 40 found no more than 10."""


def staged(plan: Plan, inputs: PlanningInputs, settings: MoveSettings) -> tuple[Plan, dict[str, str]]:
    """Return the plan with its stages, and the workloads that no order found can move, each with a reason.

    A quarter of the workloads that are stuck go before all others in the next trial. A roll-out that is stuck even so
    becomes evictions, where its strategy and its budgets allow them, and goes last: they need no room beside old pods.
    """
    allowed = mobilities(inputs.snapshot, inputs.rules)
    where: dict[str, set[str | None]] = {}
    for pod in planned_pods(inputs.snapshot):
        where.setdefault(pod.workload, set()).add(pod.node)
    turns = {key: _turn(plan, key, where.get(key, set())) for key in plan.workloads}
    order = sorted(plan.workloads, key=lambda key: (turns[key], -plan.workloads[key].moves, key))
    tries: Counter[str] = Counter()
    best, least, vain = (plan, dict[str, str]()), -1, 0
    for _ in range(MOST_ORDERS):
        trial = _in_order(plan, order)
        stuck = rehearse(trial, inputs.snapshot, inputs.catalogue, settings)
        pods = sum(trial.workloads[key].moves for key in stuck)
        vain += 1
        if least < 0 or pods < least:
            best, least, vain = (trial, stuck), pods, 0
        if not stuck or vain == VAIN_ORDERS:
            break
        rank = {key: position for position, key in enumerate(order)}
        urgent = sorted(stuck, key=lambda key: (tries[key], rank[key]))[: max(1, len(stuck) // 4)]
        for key in reversed(urgent):
            tries[key] += 1
            order.remove(key)
            evicted = plan
            if tries[key] > 1 and key in allowed and allowed[key].evictable:
                evicted = _evicting(plan, inputs, key)
            order.insert(0 if evicted is plan else len(order), key)
            plan = evicted
    return best


def _turn(plan: Plan, key: str, where: Collection[str | None]) -> int:
    """Say how early a workload goes: what lands on new nodes, roll-outs beside their old pods, others, evictions.

    `where` names the nodes that have its pods now.
    """
    lands = {node.name for node in plan.nodes if node.state == "keep" and node.pods.get(key)}
    if not lands:
        return 0
    if plan.workloads[key].strategy != "rollout":
        return 3
    return 2 if lands.isdisjoint(where) else 1


def _in_order(plan: Plan, order: Collection[str]) -> Plan:
    stages = {key: replace(plan.workloads[key], stage=stage) for stage, key in enumerate(order)}
    return replace(plan, workloads={key: stages[key] for key in plan.workloads})


def _evicting(plan: Plan, inputs: PlanningInputs, key: str) -> Plan:
    """Return the plan with the workload evicted instead of rolled out; the same plan where it changes requests.

    Only the misplaced pods move then, one after the other.
    """
    planned = plan.workloads[key]
    if planned.strategy != "rollout" or planned.requests != planned.requests_before:
        return plan
    changed = {**plan.workloads, key: replace(planned, strategy="evict", moves=_displaced(plan, inputs, key))}
    moves = sum(workload.moves for workload in changed.values())
    objective = replace(plan.objective, moves_nanousd_per_hour=inputs.prices.moves_nanousd_per_hour(moves))
    return replace(plan, workloads=changed, objective=objective)


def _displaced(plan: Plan, inputs: PlanningInputs, key: str) -> int:
    wanted = {node.name: node.pods.get(key, 0) for node in plan.nodes if node.state != "remove"}
    here = Counter(p.node for p in planned_pods(inputs.snapshot) if p.workload == key and p.node is not None)
    return sum(max(0, count - wanted.get(node, 0)) for node, count in here.items())
