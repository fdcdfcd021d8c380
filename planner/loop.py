"""The calls of one iteration, read top to bottom, and the loop around them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from planner.errors import KinemaError, SolverError, WrongPlan
from planner.execution import Executor
from planner.kube.reader import read_snapshot
from planner.leadership import Leadership
from planner.metrics import Metrics
from planner.model.cluster import Snapshot
from planner.model.disruption import planned_pods
from planner.model.domains import upset_by_minimums
from planner.model.effort import Progress, never
from planner.model.inputs import ChangePrices, PlanningInputs
from planner.model.machines import Catalogue
from planner.model.plan import Decision, EvictPod, Plan, PlanRecord, RollOut, SavePlan, Step, Wait
from planner.model.preferences import PreferencePrices
from planner.model.resources import Resources
from planner.model.utilization import cap_on, excess_millicores
from planner.observer import instabilities
from planner.ports import Clock, Cloud, Kubernetes, Usage
from planner.predictor import predict, predict_cpu
from planner.processor import decide
from planner.rescheduler import (
    CARRIED_OUT,
    divergence,
    left_standing,
    next_steps,
    rules_of,
    staged,
    unsteered,
)
from planner.settings import Settings
from planner.solving import solve
from planner.verifier import check_placement

_log = logging.getLogger(__name__)

MOST_REHEARSALS = 8
"""How often a plan is made with new nodes for what was stuck, or with it held; at last with everything held."""

FIRST_SHARE = 0.6
"""Share of the time limit for the first solve, where pods run that would have to move."""

LATER_SHARE = 0.35
"""Share of the time that is left for each solve after the first."""

REHEARSAL_SHARE = 0.1
"""Share of the time limit that each search for an order of stages gets in any case: all else is worth less."""

LEAST_SECONDS = 1.0
"""What each solve gets in any case."""

MOST_OVERDUE = 2
"""How often what is stuck is held after the time is over, before everything is."""

LATE_GAP = 0.01
"""What it may cost, as a share of the value, to leave what is stuck where it is once the time is over."""

MOST_RETREATS = 3
"""How often more of a plan is left where it is, before it is made again."""

NANO = 10**9


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why no iteration began."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Why an iteration ended in an error."""

    reason: str


Report = Waiting | Plan | Decision | Step | Progress | Failed
"""Everything that a watcher of the loop is told: progress of the solve, the plan, the decision, each step done."""

Outcome = Literal["not-leader", "waiting", "recommended", "dropped", "carried-out", "abandoned", "interrupted"]


@dataclass(frozen=True, slots=True)
class Edges:
    """The doors to everything outside, and who is told.

    `catalogue` says what can be bought; without a `cloud` the loop can only recommend. `steering_problem` returns
    why the chosen steering is not there, "" where it is; `stopping` says whether the process was asked to end.
    """

    kubernetes: Kubernetes
    cloud: Cloud | None
    catalogue: Callable[[Snapshot], Catalogue]
    usage: Usage
    clock: Clock
    leadership: Leadership
    metrics: Metrics
    report: Callable[[Report], None]
    steering_problem: Callable[[], str] = lambda: ""
    stopping: Callable[[], bool] = never

    def snapshot(self) -> Snapshot:
        """Read the whole cluster and the cloud's machines, or raise."""
        return read_snapshot(self.kubernetes, self.cloud, self.clock, self.leadership.settings.namespace)


def iterate(edges: Edges, settings: Settings) -> Outcome:
    """Run one iteration: observe, predict, optimize, decide, carry out.

    Raises:
        Outside: an outside system failed; nothing half-done is lost, the next call carries on.
    """
    if not edges.leadership.ensure():
        return "not-leader"
    snapshot = edges.snapshot()
    record = snapshot.record
    _measure_divergence(edges.metrics, record, snapshot)
    if record is not None and record.phase != "done":
        if settings.mode == "apply":
            return carry_on(edges, record, settings)
        reason = f"plan {record.plan.iteration} is unfinished, and recommend mode changes nothing"
        return _wait(edges, (reason,))
    if reasons := instabilities(snapshot, settings.stability):
        return _wait(edges, reasons)
    with edges.metrics.stage_seconds.labels("predict").time():
        usage = edges.usage.read(snapshot)
        forecast = predict(snapshot, usage, settings.predictor)
        window = settings.objective.window_at(snapshot.taken_at)
        measured = {} if window is None else predict_cpu(snapshot, usage, settings.predictor)
    inputs = PlanningInputs(
        snapshot=snapshot,
        catalogue=edges.catalogue(snapshot),
        iteration=_iteration_at(snapshot.taken_at),
        forecast=forecast,
        rules=rules_of(settings.move),
        prices=change_prices(settings),
        preferences=preference_prices(settings),
        start=record.plan if record is not None else None,
        cap=None if window is None else cap_on(snapshot, window.cap_permille, window.name, measured),
    )
    with edges.metrics.stage_seconds.labels("optimize").time():
        plan = make_plan(inputs, settings, edges.report, edges.stopping)
    if edges.stopping():
        # The plan was made in a hurry, and nobody is left to carry it out.
        return "interrupted"
    _measure_plan(edges.metrics, plan)
    edges.report(plan)
    current = edges.snapshot()
    decision = decide(plan, snapshot, current, settings.processor)
    edges.report(decision)
    if not decision.accepted:
        return "dropped"
    if settings.mode == "recommend":
        seen = PlanRecord(plan, "done", edges.clock.now(), mode="recommend", reason="recommended")
        _save(edges, settings, seen)
        return "recommended"
    if problem := edges.steering_problem():
        return _wait(edges, (problem,))
    for name in unsteered(plan, current, settings.move):
        _log.warning("its pods are not steered: %s", name)
    accepted = PlanRecord(plan, "carrying-out", edges.clock.now())
    if not _save(edges, settings, accepted):
        return "not-leader"
    return carry_on(edges, accepted, settings)


def carry_on(edges: Edges, record: PlanRecord, settings: Settings) -> Outcome:
    """Do what is next until nothing is left; resumes anywhere, since what is next follows from the snapshot."""
    executor = _executor(edges, settings)
    while True:
        if edges.stopping():
            return "interrupted"
        if not edges.leadership.ensure():
            return "not-leader"
        snapshot = edges.snapshot()
        # The cluster's memory is the truth; another planner may have ended or abandoned the plan meanwhile.
        record = snapshot.record or record
        _measure_divergence(edges.metrics, record, snapshot)
        steps = next_steps(record, snapshot, edges.clock.now(), settings.move)
        if not steps:
            if record.reason != CARRIED_OUT:
                return "abandoned"
            for workload in record.plan.workloads.values():
                edges.metrics.pods_moved.labels(workload.strategy).inc(workload.moves)
            return "carried-out"
        steps = _while_steered(edges, steps)
        _measure_waiting(edges.metrics, [r for step in steps if isinstance(step, Wait) for r in step.reasons])
        done = executor.execute(steps)
        for step in done:
            edges.report(step)
            edges.metrics.steps.labels(type(step).__name__).inc()
        if not done or all(isinstance(step, Wait) for step in done):
            edges.clock.sleep(settings.move.poll_seconds)


def _while_steered(edges: Edges, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the steps without those that make pods anew while nothing would put these on their planned nodes."""
    others = tuple(step for step in steps if not isinstance(step, RollOut | EvictPod))
    if len(others) == len(steps) or not (problem := edges.steering_problem()):
        return steps
    return (*others, Wait((f"{problem}: no pod is moved until it does",)))


def make_plan(
    inputs: PlanningInputs,
    settings: Settings,
    report: Callable[[Report], None],
    hurried: Callable[[], bool] = never,
    now: Callable[[], float] = time.monotonic,
) -> Plan:
    """Return the cheapest plan that can be carried out stage by stage; the best so far once `hurried` says so.

    In the place of one that fails its check comes one without moves, at last one without the pending pods: to stand
    still is better than nothing. The time limit is for all of it, by `now` in seconds.

    Raises:
        SolverError: the solver failed, or not even the present state passed the check.
    """
    narrowed, end = _with_upset_held(inputs), now() + settings.optimizer.time_limit_seconds
    while True:
        left = max(LEAST_SECONDS, end - now())
        timed = replace(settings, optimizer=replace(settings.optimizer, time_limit_seconds=left))
        try:
            return _staged_plan(narrowed, timed, report, hurried, now)
        except WrongPlan as error:
            narrowed = _with_less(narrowed, error)


def _staged_plan(
    inputs: PlanningInputs,
    settings: Settings,
    report: Callable[[Report], None],
    hurried: Callable[[], bool],
    now: Callable[[], float],
) -> Plan:
    """Return the cheapest plan for which there is an order of stages.

    Workloads that no order of stages can move are left where they are. Where that costs more than the target gap, and
    there is time, the plan is made again, with them on new nodes only or held where they are; at last every one that
    still moves is held. The bound of the first solve stays: what we choose to do without is no part of the problem. The
    time limit is for all of it, by `now` in seconds.

    Raises:
        SolverError: the solver failed.
        WrongPlan: the plan fails its check, or no plan passed the rehearsal.
    """
    limit = settings.optimizer.time_limit_seconds
    end = now() + limit

    def solved(given: PlanningInputs, seconds: float) -> Plan:
        effort = replace(settings.optimizer, time_limit_seconds=max(LEAST_SECONDS, seconds))
        return solve(given, effort, report, hurried)

    def left_until(then: float) -> Callable[[], float]:
        return lambda: then - now()

    moving = any(pod.node is not None for pod in planned_pods(inputs.snapshot))
    first = plan = solved(inputs, limit * (FIRST_SHARE if moving else 1.0))
    narrowed, overdue = inputs, 0
    fallback: list[Plan] = []
    for attempt in range(MOST_REHEARSALS):
        left = left_until(max(end, now() + REHEARSAL_SHARE * limit))
        plan, stuck, problems = _in_stages(_with_bound_of(plan, first), narrowed, left)
        if problems:
            raise WrongPlan(f"the plan is wrong after it was put into stages: {'; '.join(problems[:3])}")
        if not stuck:
            return min([plan, *fallback], key=_merit)
        over = hurried() or now() >= end
        if (retreat := _with_stuck_left(plan, stuck, narrowed, left)) is not None:
            fallback.append(retreat)
            accepted = max(LATE_GAP, settings.optimizer.target_gap) if over else settings.optimizer.target_gap
            if _worth(retreat) <= _worth(plan) * (1.0 + accepted):
                return min(fallback, key=_merit)
        trials: list[tuple[Plan, PlanningInputs]] = []
        overdue += over
        if attempt < MOST_REHEARSALS - 2 and overdue <= MOST_OVERDUE:
            narrower_ones = _narrower(replace(narrowed, start=plan), stuck)
            for narrower in islice(narrower_ones, 1) if over else narrower_ones:
                try:
                    trials.append((solved(narrower, (end - now()) * LATER_SHARE), narrower))
                except SolverError as error:
                    # New nodes for what was stuck may not be had, or cost more than standing still.
                    _log.debug("no plan without %s: %s", ", ".join(sorted(stuck)), error)
        if not trials:
            still = (key for key, workload in plan.workloads.items() if workload.moves)
            narrower = _holding(narrowed, dict.fromkeys(still, "others stood in its way") | stuck)
            trials.append((solved(narrower, end - now()), narrower))
        plan, narrowed = min(trials, key=lambda trial: _merit(trial[0]))
    if fallback:
        return min(fallback, key=_merit)
    raise WrongPlan(f"no plan could be carried out in stages: {', '.join(sorted(narrowed.held))}")


def run(edges: Edges, settings: Settings, *, once: bool) -> Outcome:
    """Iterate until asked to stop; after a failure outside wait for the next turn, and say so.

    With `once` a Lease that another planner holds is watched for a while, since a dead planner's runs out.

    Raises:
        Outside: with `once`, what failed.
    """
    patience = edges.clock.now() + 2 * settings.leader.duration_seconds
    while True:
        try:
            outcome: Outcome = iterate(edges, settings)
            edges.metrics.iterations.labels(outcome).inc()
            edges.metrics.leader.set(outcome != "not-leader")
            edges.metrics.last_success.set(edges.clock.now())
            idle_note = "another planner leads; this one stays idle"
            _log.info("%s", idle_note if outcome == "not-leader" else f"iteration ended: {outcome}")
        except KinemaError as error:
            edges.metrics.iterations.labels("failed").inc()
            edges.report(Failed(str(error)))
            if once:
                raise
            _log.error("iteration failed: %s", error)
            outcome = "interrupted"
        dead_leader = outcome == "not-leader" and edges.clock.now() < patience
        if edges.stopping() or (once and not dead_leader):
            return outcome
        idle = settings.leader.duration_seconds / 3 if outcome == "not-leader" else settings.interval_seconds
        edges.clock.sleep(idle)


def _iteration_at(seconds: float) -> str:
    """Return the id of the iteration that looked at the cluster at this time, in seconds since the epoch.

    Machines are named after it, and for an hour Compute Engine takes a request for machines of names that were
    deleted for a repetition of the first one. In microseconds, and not in seconds, no two iterations are of the same
    time: not after a quick rollback or a restart, and not where the clocks of two planners disagree.
    """
    return f"i{int(seconds * 10**6):x}"


def change_prices(settings: Settings) -> ChangePrices:
    """Return what change costs by the settings."""
    effort = settings.optimizer
    return ChangePrices(effort.payback_hours, effort.move_cost_nanousd, effort.boot_overlap_minutes)


def preference_prices(settings: Settings) -> PreferencePrices:
    """Return what preferences are worth by the settings."""
    effort = settings.optimizer
    return PreferencePrices(effort.preference_nanousd_per_hour, effort.preference_ceiling_nanousd_per_hour)


def _wait(edges: Edges, reasons: tuple[str, ...]) -> Outcome:
    edges.report(Waiting(reasons))
    _measure_waiting(edges.metrics, reasons)
    return "waiting"


def _measure_waiting(metrics: Metrics, reasons: Iterable[str]) -> None:
    metrics.waiting.clear()
    for reason in reasons:
        metrics.waiting.labels(reason).set(1)


def _measure_divergence(metrics: Metrics, record: PlanRecord | None, snapshot: Snapshot) -> None:
    """Count by the plan that is carried out or was the last to be; no other plan asks anything of the cluster."""
    if record is None or not (record.phase == "carrying-out" or record.reason == CARRIED_OUT):
        metrics.divergence.clear()
        return
    for reason, count in divergence(record.plan, snapshot).items():
        metrics.divergence.labels(reason).set(count)


def _save(edges: Edges, settings: Settings, record: PlanRecord) -> bool:
    """Let the cluster remember the plan; return False where leadership was lost before."""
    done = _executor(edges, settings).execute((SavePlan(record),))
    for step in done:
        edges.report(step)
    return bool(done)


def _measure_plan(metrics: Metrics, plan: Plan) -> None:
    metrics.waiting.clear()
    metrics.plan_value.set(plan.objective.value_nanousd_per_hour / NANO)
    metrics.plan_bound.set(plan.objective.lower_bound_nanousd_per_hour / NANO)
    metrics.plan_gap.set(plan.objective.relative_gap)
    metrics.cost.labels("before").set(plan.current_cost_nanousd_per_hour / NANO)
    metrics.cost.labels("after").set(plan.cost_nanousd_per_hour / NANO)


def _executor(edges: Edges, settings: Settings) -> Executor:
    return Executor(
        edges.kubernetes,
        edges.cloud,
        edges.leadership.confirm,
        settings.leader.namespace,
        affinity=settings.move.steering == "affinity",
    )


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


def _with_stuck_left(
    plan: Plan, stuck: Mapping[str, str], inputs: PlanningInputs, left: Callable[[], float]
) -> Plan | None:
    """Return the plan with what is stuck left where it is, checked and with its stages; None where that is no plan."""
    for _ in range(MOST_RETREATS):
        standing = left_standing(plan, stuck, inputs)
        if standing is None:
            return None
        plan, stuck, problems = _in_stages(standing, inputs, left, checked=False)
        if problems:
            _log.debug("a plan without %s is wrong: %s", ", ".join(sorted(stuck)), problems[0])
            return None
        if not stuck:
            return plan
    return None


def _in_stages(
    plan: Plan, inputs: PlanningInputs, left: Callable[[], float], *, checked: bool = True
) -> tuple[Plan, dict[str, str], tuple[str, ...]]:
    """Return the plan with its stages, what is stuck, and what is wrong with it where nothing is stuck.

    What was `checked` before is not checked again where only its stages changed.
    A pod that goes elsewhere because it is stuck may meet what stages know nothing of; then it is stuck after all.
    """
    found, stuck = staged(plan, inputs, left)
    problems = () if stuck or (checked and _only_ordered(found, plan)) else check_placement(found, inputs)
    if problems and found.nodes != plan.nodes:
        _log.debug("a plan with diversions is wrong: %s", problems[0])
        found, stuck = staged(plan, inputs, left, diverting=False)
        problems = () if stuck else check_placement(found, inputs)
    return found, stuck, problems


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
