"""One plan that can be carried out, within one time limit: solved, put into stages, made again where it is stuck."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

from planner.errors import SolverError, WrongPlan
from planner.model.disruption import planned_pods
from planner.model.domains import upset_by_minimums
from planner.model.effort import Progress, Watch, never
from planner.model.inputs import PlanningInputs
from planner.model.plan import Plan
from planner.model.resources import Resources
from planner.model.utilization import excess_millicores
from planner.rescheduler import Ending, left_standing, mended, staged
from planner.settings import Settings
from planner.solving import Child, solve
from planner.verifier import Examination

_log = logging.getLogger(__name__)

MOST_REHEARSALS = 8
"""How often a plan is made with new nodes for what was stuck, or with it held; at last with everything held."""

FIRST_SHARE = 0.66
"""Share of the time limit for the first solve, where pods run that would have to move."""

LATER_SHARE = 0.35
"""Share of the time that is left for each solve after the first."""

REHEARSAL_SHARE = 0.1
"""Share of the time limit that each search for an order of stages gets in any case: all else is worth less."""

ORDERS_SHARE = 0.4
"""Share of the time that is left which the search for an order of stages gets at most: where it finds none, remedies
for what is stuck take about as long."""

LEAST_SECONDS = 1.0
"""What each solve gets in any case."""

LAST_SECONDS, LAST_SECONDS_PER_POD, LATE_SHARE = 0.1, 0.00001, 0.005
"""What the check and the search for an order of stages take of the time limit after the last solve, and the share of
the limit by which that ends late: the steps of a long one are longer."""

LAST_SHARE = 0.2
"""Share of the time limit that they take at most."""

MOST_OVERDUE = 2
"""How often what is stuck is held after the time is over, before everything is."""

UNLIMITED_SHARE = 0.5
"""Share of the time limit for the plan without the ceiling on pods moved, where there is one."""

MOST_PRICES, MOST_CEILINGS = 3, 3
"""How many prices of a move, and ceilings on the nodes that change, are tried until as many pods move as may."""

MOST_RETREATS = 5
"""How often more of a plan is left where it is, or comes to more new nodes, before it is made again."""

_Remedy = Callable[[Plan, PlanningInputs, Ending], Plan | None]
"""Changes a plan for workloads that are stuck where its moves end."""


def make_plan(
    inputs: PlanningInputs,
    settings: Settings,
    report: Callable[[Progress], None],
    hurried: Callable[[], bool] = never,
    now: Callable[[], float] = time.monotonic,
    child: Child | None = None,
) -> Plan:
    """Return the cheapest plan that can be carried out stage by stage; the best so far once `hurried` says so.

    It moves no more pods than it may (`_with_fewer_moves`). The time limit is for all of it, by `now` in seconds. A
    `child` that was started before does the first solve; it is gone at the end.

    Raises:
        SolverError: the solver failed, or not even the present state passed the check.
    """
    watch, most = Watch(now, report, hurried), inputs.rules.max_pods_moved
    if most is None:
        return _possible_plan(inputs, settings, watch, child)
    free = replace(inputs, rules=replace(inputs.rules, max_pods_moved=None))
    end = now() + settings.optimizer.time_limit_seconds

    def planned(given: PlanningInputs, share: float, child: Child | None = None) -> Plan:
        seconds = max(LEAST_SECONDS, share * (end - now()))
        timed = replace(settings, optimizer=replace(settings.optimizer, time_limit_seconds=seconds))
        return _possible_plan(given, timed, watch, child)

    plan = planned(free, UNLIMITED_SHARE, child)
    if plan.moves <= most:
        return plan
    return _with_fewer_moves(plan, most, free, planned, lambda: hurried() or now() >= end)


def _with_fewer_moves(
    plan: Plan,
    most: int,
    inputs: PlanningInputs,
    planned: Callable[[PlanningInputs, float], Plan],
    over: Callable[[], bool],
) -> Plan:
    """Return the best plan found that moves at most so many pods, proven by the bound of the plan that moves more.

    First a move is made dearer until few enough pay: at (present cost - cost of the plan) / most no more do, since
    together they would cost what all of them save. Moves that save alike all pay or none does, so then fewer and fewer
    nodes may change, at the highest price at which too many pods moved. A plan without any move stands in for none.
    Once it is `over` nothing more is tried.
    """
    found: list[Plan] = []

    def tried(turn: int, price: int, nodes: int | None) -> Plan:
        prices, rules = replace(inputs.prices, move_cost_nanousd=price), replace(inputs.rules, max_nodes_changed=nodes)
        given = replace(inputs, prices=prices, rules=rules, start=plan)
        trial = _with_bound_of(_repriced(planned(given, 1 / (MOST_PRICES + MOST_CEILINGS + 1 - turn)), inputs), plan)
        if trial.moves <= most and trial.certificate is plan.certificate:
            # At the true price of a move it has to be right as well, with what the planner held to make it.
            held = {key: workload.reason for key, workload in trial.workloads.items() if workload.strategy == "pinned"}
            if problems := Examination(replace(inputs, held=held)).problems(trial):
                _log.debug("a plan with fewer moves is wrong: %s", problems[0])
            else:
                found.append(trial)
        return trial

    saving = max(0, plan.current_cost_nanousd_per_hour - plan.cost_nanousd_per_hour)
    above, low = plan, max(1, inputs.prices.move_cost_nanousd)
    price = high = saving * inputs.prices.payback_hours // most + 1
    try:
        for turn in range(MOST_PRICES):
            if over() or not low < price <= high:
                break
            trial = tried(turn, price, inputs.rules.max_nodes_changed)
            if trial.moves <= most:
                high = price
            else:
                above, low = trial, price
            price = math.isqrt(low * high)
        least, beyond = 0, _changed(above)
        nodes = beyond * most // above.moves
        for turn in range(MOST_CEILINGS):
            if over() or not least < nodes < beyond:
                break
            trial = tried(MOST_PRICES + turn, low, nodes)
            if trial.moves <= most:
                least = nodes
            else:
                beyond = nodes
            nodes = (least + beyond) // 2
    except SolverError as error:
        _log.debug("no plan with fewer moves: %s", error)
    if found:
        return min(found, key=_merit)
    movable = {workload.key for workload in inputs.snapshot.workloads} - inputs.held.keys()
    why = f"the plan would move more than {most} pods"
    return planned(replace(inputs, held={**inputs.held, **dict.fromkeys(movable, why)}), 1.0)


def _changed(plan: Plan) -> int:
    """Return how many nodes the plan boots and removes."""
    return sum(node.state != "keep" for node in plan.nodes)


def _repriced(plan: Plan, inputs: PlanningInputs) -> Plan:
    """Return the plan with its moves at the prices of the inputs; its bound is for other prices."""
    prices = inputs.prices
    objective = replace(
        plan.objective,
        moves_nanousd_per_hour=prices.moves_nanousd_per_hour(plan.moves),
        move_cost_nanousd=prices.move_cost_nanousd,
    )
    return replace(plan, objective=objective)


def _possible_plan(inputs: PlanningInputs, settings: Settings, watch: Watch, child: Child | None) -> Plan:
    """Return the cheapest plan that can be carried out, whatever number of pods it moves; raises as `make_plan`.

    In the place of one that fails its check comes one without moves, at last one without the pending pods: to stand
    still is better than nothing.
    """
    narrowed, end = _with_upset_held(inputs), watch.now() + settings.optimizer.time_limit_seconds
    while True:
        left = max(LEAST_SECONDS, end - watch.now())
        timed = replace(settings, optimizer=replace(settings.optimizer, time_limit_seconds=left))
        try:
            return _staged_plan(narrowed, timed, watch, child)
        except WrongPlan as error:
            narrowed, child = _with_less(narrowed, error), None


def _staged_plan(inputs: PlanningInputs, settings: Settings, watch: Watch, child: Child | None) -> Plan:
    """Return the cheapest plan for which there is an order of stages.

    Workloads that no order of stages can move are left where they are. Where that costs more than the target gap, and
    there is time, the plan is made again, with them on new nodes only or held where they are; at last every one that
    still moves is held. The bound of the first solve stays: what we choose to do without is no part of the problem. The
    time limit is for all of it.

    Raises:
        SolverError: the solver failed.
        WrongPlan: the plan fails its check, or no plan passed the rehearsal.
    """
    limit, now = settings.optimizer.time_limit_seconds, watch.now
    last = LAST_SECONDS + LATE_SHARE * limit + LAST_SECONDS_PER_POD * len(inputs.snapshot.pods)
    limit -= min(LAST_SHARE * limit, last)
    end = now() + limit

    def solved(given: Examination, seconds: float, child: Child | None = None) -> Plan:
        effort = replace(settings.optimizer, time_limit_seconds=max(LEAST_SECONDS, seconds))
        return solve(given, effort, watch.report, watch.hurried, child)

    def left_until(then: float) -> Callable[[], float]:
        return lambda: then - now()

    moving = any(pod.node is not None for pod in planned_pods(inputs.snapshot))
    if moving and any(pod.node is None for pod in planned_pods(inputs.snapshot)):
        inputs = replace(inputs, seated=True)
    began = now()
    examined, overdue = Examination(inputs), 0
    first = plan = solved(examined, limit * (FIRST_SHARE if moving else 1.0), child)
    # What comes before the search takes as long in every solve, and its proof half of that again.
    shortest = min(now() - began, 1.5 * first.timings_seconds.get("prepare", 0.0))
    fallback: list[Plan] = []
    for attempt in range(MOST_REHEARSALS):
        least = now() + REHEARSAL_SHARE * limit
        left = left_until(max(end, least))
        orders = left_until(max(now() + ORDERS_SHARE * (end - now()), least))
        plan, ending, problems = _in_stages(_with_bound_of(plan, first), examined, orders)
        if problems:
            raise WrongPlan(f"the plan is wrong after it was put into stages: {'; '.join(problems[:3])}")
        if not (stuck := ending.stuck):
            return min([plan, *fallback], key=_merit)
        over = watch.hurried() or now() + shortest >= end
        still = dict.fromkeys((k for k, w in plan.workloads.items() if w.moves), "others stood in its way") | stuck
        accepted = _worth(plan) * (1.0 + settings.optimizer.target_gap)
        for remedy, what in ((mended, stuck), (_standing, stuck), (_standing, still)):
            if what is still and (fallback or not over):
                break
            asked = now()
            if (retreat := _remedied(remedy, plan, replace(ending, stuck=what), examined, left)) is not None:
                fallback.append(retreat)
            # Which of them costs less nobody knows before, and another one takes about as long.
            late = watch.hurried() or (over and now() + (now() - asked) >= end)
            if fallback and (late or _worth(fallback[-1]) <= accepted):
                return min(fallback, key=_merit)
        if fallback and over:
            return min(fallback, key=_merit)
        trials: list[tuple[Plan, Examination]] = []
        overdue += over
        if attempt < MOST_REHEARSALS - 2 and overdue <= MOST_OVERDUE:
            narrower_ones = _narrower(replace(examined.inputs, start=plan), stuck)
            for narrower in map(Examination, islice(narrower_ones, 1) if over else narrower_ones):
                if trials and now() + shortest >= end:
                    break
                try:
                    trials.append((solved(narrower, (end - now()) * LATER_SHARE), narrower))
                except SolverError as error:
                    # New nodes for what was stuck may not be had, or cost more than standing still.
                    _log.debug("no plan without %s: %s", ", ".join(sorted(stuck)), error)
        if not trials:
            narrower = Examination(_holding(examined.inputs, still))
            trials.append((solved(narrower, end - now()), narrower))
        plan, examined = min(trials, key=lambda trial: _merit(trial[0]))
    if fallback:
        return min(fallback, key=_merit)
    raise WrongPlan(f"no plan could be carried out in stages: {', '.join(sorted(examined.inputs.held))}")


def _merit(plan: Plan) -> tuple[int, int, int]:
    """Return what plans are compared by: pods without a place, millicores above the cap, then the value."""
    left_out = sum(left_out.count for left_out in plan.unplaced.values())
    return left_out, excess_millicores(plan, allowed=False), plan.objective.value_nanousd_per_hour


def _narrower(inputs: PlanningInputs, stuck: Mapping[str, str]) -> Iterator[PlanningInputs]:
    """Yield the inputs with what is stuck held, and with new nodes for it where it had none yet."""
    yield _holding(inputs, stuck)
    if fresh := stuck.keys() - inputs.fresh:
        held = {key: why for key, why in stuck.items() if key not in fresh}
        yield _holding(replace(inputs, fresh=inputs.fresh | fresh), held)


def _worth(plan: Plan) -> int:
    return plan.objective.value_nanousd_per_hour


def _standing(plan: Plan, inputs: PlanningInputs, ending: Ending) -> Plan | None:
    return left_standing(plan, ending.stuck, inputs)


def _remedied(
    remedy: _Remedy, plan: Plan, ending: Ending, examined: Examination, left: Callable[[], float]
) -> Plan | None:
    """Return the plan in which nothing is stuck any more, checked and with its stages; None where that is no plan."""
    for _ in range(MOST_RETREATS):
        changed = remedy(plan, examined.inputs, ending)
        if changed is None:
            return None
        plan, ending, problems = _in_stages(changed, examined, left, checked=False)
        if problems:
            _log.debug("a plan changed for others that were stuck is wrong: %s", problems[0])
            return None
        if not ending.stuck:
            return plan
    return None


def _in_stages(
    plan: Plan, examined: Examination, left: Callable[[], float], *, checked: bool = True
) -> tuple[Plan, Ending, tuple[str, ...]]:
    """Return the plan with its stages, where its moves end, and what is wrong with it where nothing is stuck there.

    What was `checked` before is not checked again where only its stages changed.
    A pod that goes elsewhere because it is stuck may meet what stages know nothing of; then it is stuck after all.
    """
    found, ending = staged(plan, examined.inputs, left)
    problems = () if ending.stuck or (checked and _only_ordered(found, plan)) else examined.problems(found)
    if problems and found.nodes != plan.nodes:
        _log.debug("a plan with diversions is wrong: %s", problems[0])
        found, ending = staged(plan, examined.inputs, left, diverting=False)
        problems = () if ending.stuck else examined.problems(found)
    return found, ending, problems


def _only_ordered(found: Plan, plan: Plan) -> bool:
    """Say whether nothing but stages tells the plans apart, so that what was checked of one holds for the other."""
    stages = {key: workload.stage for key, workload in plan.workloads.items()}
    as_before = {key: replace(workload, stage=stages[key]) for key, workload in found.workloads.items()}
    return replace(found, workloads=as_before) == plan


def _with_upset_held(inputs: PlanningInputs) -> PlanningInputs:
    """Hold the workloads whose pods would not be let in again beside the nodes that pools need for their minimums."""
    snapshot = inputs.snapshot
    upset = upset_by_minimums(snapshot.nodes, inputs.catalogue.due(snapshot.nodes), snapshot.pods)
    return replace(inputs, held={**upset, **inputs.held}) if upset else inputs


def _with_less(inputs: PlanningInputs, error: WrongPlan) -> PlanningInputs:
    """Return the inputs with less to plan after a plan was wrong: without any move, and then without pending pods.

    Raises:
        WrongPlan: the error itself, where nothing is left to do without.
    """
    if movable := {workload.key for workload in inputs.snapshot.workloads} - inputs.held.keys():
        _log.warning("the plan is made again without any move: %s", error)
        return _holding(inputs, dict.fromkeys(movable, str(error)))
    names = {node.name for node in inputs.snapshot.nodes}
    arriving = {id(pod) for pod in inputs.snapshot.pods if pod.node not in names and not pod.unmodelled}
    if not arriving:
        raise error
    _log.warning("the plan is made again without any pending pod: %s", error)
    why = (f"the plan with all pending pods is wrong: {error}",)
    pods = tuple(replace(p, unmodelled=why) if id(p) in arriving else p for p in inputs.snapshot.pods)
    return replace(inputs, snapshot=replace(inputs.snapshot, pods=pods))


def _holding(inputs: PlanningInputs, stuck: Mapping[str, str]) -> PlanningInputs:
    held = {key: f"no order of stages could move it: {why}" for key, why in stuck.items()}
    return replace(inputs, held={**inputs.held, **held}, fresh=inputs.fresh - held.keys())


def _changed_requests(plan: Plan) -> dict[str, Mapping[str, Resources]]:
    return {key: workload.containers for key, workload in plan.workloads.items() if workload.containers}


def _with_bound_of(plan: Plan, first: Plan) -> Plan:
    """Return the plan with the better proof of the first; one about other pods, requests or caps needs its own."""
    if plan.objective.cap != first.objective.cap:
        return plan
    if plan.unplaced != first.unplaced or _changed_requests(plan) != _changed_requests(first):
        return plan
    bound = first.objective.lower_bound_nanousd_per_hour
    objective = replace(
        plan.objective,
        lower_bound_nanousd_per_hour=bound,
        status="optimal" if plan is first and plan.objective.status == "optimal" else "feasible",
    )
    return replace(plan, objective=objective, certificate=first.certificate)
