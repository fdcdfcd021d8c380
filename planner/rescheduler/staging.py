"""Puts a plan into an order of stages in which everything fits, and mends it where there is none.

A rolling update needs room for every new pod beside the old ones, which a tightly packed node that stays does not
have. Going first helps, while others have not come yet; an eviction needs no such room; and where nothing moves any
more, another node of the plan may have some (`diversion`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from planner.model.cluster import Pod
from planner.model.displeasure import preferences_nanousd_per_hour
from planner.model.disruption import planned_pods
from planner.model.inputs import ChangePrices, PlanningInputs
from planner.model.plan import Plan, PlannedWorkload
from planner.model.utilization import excess_millicores
from planner.rescheduler.diversion import diversions, diverted
from planner.rescheduler.rehearsal import Ending, Rehearsal

MOST_ORDERS = 40
"""How many orders are rehearsed at the most; on the demo's clusters (60 nodes) up to 11 led to one that fits."""

MOST_MOVES = 40_000
"""How many moves are rehearsed at the most in all orders together; one order of 13,600 took half a second of CPU."""

MOST_DIVERSIONS, LATE_DIVERSIONS = 10, 4
"""How often pods that are stuck are given other nodes, and how often of that once the time is over; on clusters of
1,000 nodes it takes three to five."""

VAIN_ORDERS = 10
"""After how many orders without an improvement the search ends: on the demo's clusters 40 found no more than 10."""


def staged(
    plan: Plan, inputs: PlanningInputs, left: Callable[[], float], diverting: bool = True
) -> tuple[Plan, Ending]:
    """Return the plan with its stages, and where its moves end: nothing is stuck there, or no order found moves it.

    A quarter of the workloads that are stuck go before all others in the next trial. A roll-out that is stuck even so
    becomes evictions, where its strategy and its budgets allow them, and goes last: they need no room beside old pods.
    Where no order is enough, pods that are stuck stay or go to other nodes of the plan (`diverting`). `left` returns
    the seconds that may still be spent on orders; one is tried in any case.
    """
    rehearsal = Rehearsal.of(plan, inputs)
    here: dict[str, Counter[str]] = {key: Counter() for key in plan.workloads}
    for pod in planned_pods(inputs.snapshot):
        if pod.node is not None and pod.workload in here:
            here[pod.workload][pod.node] += 1
    lands: dict[str, set[str]] = {key: set() for key in plan.workloads}
    for node in plan.nodes:
        for key, count in node.pods.items() if node.state == "keep" else ():
            if count and key in lands:
                lands[key].add(node.name)
    turns = {key: _turn(planned, lands[key], here[key]) for key, planned in plan.workloads.items()}
    following = {mover.key for mover in rehearsal.movers if mover.follows}
    order = sorted(plan.workloads, key=lambda key: (key in following, turns[key], -plan.workloads[key].moves, key))
    tries: Counter[str] = Counter()
    best: tuple[Plan, Ending] | None = None
    vain = 0
    for _ in range(max(1, min(MOST_ORDERS, MOST_MOVES // max(1, plan.moves)))):
        trial = _in_order(plan, order)
        ending = rehearsal.play(trial)
        vain += 1
        if best is None or _stuck_pods(trial, ending) < _stuck_pods(*best):
            best, vain = (trial, ending), 0
        if not ending.stuck or vain == VAIN_ORDERS or left() <= 0:
            break
        rank = {key: position for position, key in enumerate(order)}
        urgent = sorted(ending.stuck, key=lambda key: (tries[key], rank[key]))[: max(1, len(ending.stuck) // 4)]
        for key in reversed(urgent):
            tries[key] += 1
            order.remove(key)
            evicted = plan
            if tries[key] > 1 and rehearsal.evictable(key):
                evicted = _evicting(plan, key, here[key], inputs.prices)
            order.insert(0 if evicted is plan else len(order), key)
            plan = evicted
    assert best is not None
    found, ending = _with_diversions(*best, rehearsal, here, inputs, left) if diverting else best
    preferences = preferences_nanousd_per_hour(found, inputs)
    return replace(found, objective=replace(found.objective, preferences_nanousd_per_hour=preferences)), ending


def _with_diversions(
    plan: Plan,
    ending: Ending,
    rehearsal: Rehearsal,
    here: Mapping[str, Counter[str]],
    inputs: PlanningInputs,
    left: Callable[[], float],
) -> tuple[Plan, Ending]:
    """Let pods that are stuck stay, or go to other nodes of the plan, until all that still move can."""
    best, trial = (plan, ending), plan
    on_spot = {node.name for node in plan.nodes if node.capacity_type == "spot"}

    def admits(pod: Pod, node: str) -> bool:
        return node not in on_spot or not inputs.catalogue.spot.bars(pod)

    for turn in range(MOST_DIVERSIONS):
        if not best[1].stuck or (turn >= LATE_DIVERSIONS and left() <= 0):
            break
        evicted = trial
        for key in ending.stuck:
            if rehearsal.evictable(key):
                evicted = _evicting(evicted, key, here[key], inputs.prices)
        if evicted is not trial:
            trial, ending = evicted, rehearsal.play(evicted)
        if ending.stuck:
            room = ending.room.copy(with_claims=True)
            wanted = diversions((mover for mover in ending.movers if mover.key in ending.stuck), room, admits)
            if not wanted:
                break
            trial, rehearsal = diverted(trial, wanted, here, inputs.prices), rehearsal.wanting(wanted)
            ending = rehearsal.play(trial)
        # Where pods go elsewhere for the sake of their order, no node may come to be above the cap.
        within_cap = not excess_millicores(trial, allowed=True)
        if within_cap and _stuck_pods(trial, ending) < _stuck_pods(*best):
            best = (trial, ending)
    return best


def _stuck_pods(plan: Plan, ending: Ending) -> int:
    return sum(plan.workloads[key].moves for key in ending.stuck)


def _turn(planned: PlannedWorkload, lands: Collection[str], here: Counter[str]) -> int:
    """Say how early a workload goes: what lands on new nodes, roll-outs beside their old pods, others, evictions.

    `lands` are the nodes that stay and are to hold its pods, `here` counts its pods by node.
    """
    if not lands:
        return 0
    if planned.strategy != "rollout":
        return 3
    return 2 if here.keys().isdisjoint(lands) else 1


def _in_order(plan: Plan, order: Collection[str]) -> Plan:
    stages = {key: replace(plan.workloads[key], stage=stage) for stage, key in enumerate(order)}
    return replace(plan, workloads={key: stages[key] for key in plan.workloads})


def _evicting(plan: Plan, key: str, here: Counter[str], prices: ChangePrices) -> Plan:
    """Return the plan with the workload evicted instead of rolled out; the same plan where it changes requests.

    Only the misplaced pods move then, one after the other; `here` counts its pods by node.
    """
    planned = plan.workloads[key]
    if planned.strategy != "rollout" or planned.requests != planned.requests_before:
        return plan
    wanted = Counter({node.name: node.pods.get(key, 0) for node in plan.nodes if node.state != "remove"})
    changed = {**plan.workloads, key: replace(planned, strategy="evict", moves=(here - wanted).total())}
    moves = sum(workload.moves for workload in changed.values())
    objective = replace(plan.objective, moves_nanousd_per_hour=prices.moves_nanousd_per_hour(moves))
    return replace(plan, workloads=changed, objective=objective)
