"""The calls of one iteration, read top to bottom, and the loop around them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from planner.errors import KinemaError
from planner.execution import Executor
from planner.kube.reader import read_snapshot
from planner.leadership import Leadership
from planner.metrics import Metrics
from planner.model.cluster import Snapshot
from planner.model.effort import Progress, never
from planner.model.inputs import ChangePrices, PlanningInputs
from planner.model.machines import Catalogue
from planner.model.plan import Decision, EvictPod, Plan, PlanRecord, RollOut, SavePlan, Step, Wait
from planner.model.preferences import PreferencePrices
from planner.model.utilization import cap_on
from planner.observer import instabilities
from planner.planning import make_plan
from planner.ports import Clock, Cloud, Kubernetes, Usage
from planner.predictor import predict, predict_cpu
from planner.processor import decide
from planner.rescheduler import (
    CARRIED_OUT,
    divergence,
    next_steps,
    rules_of,
    unsteered,
)
from planner.settings import Settings

_log = logging.getLogger(__name__)

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
    executor, acted_at = _executor(edges, settings), edges.clock.now()
    while True:
        if edges.stopping():
            return "interrupted"
        if not edges.leadership.ensure():
            return "not-leader"
        snapshot = edges.snapshot()
        # The cluster's memory is the truth; another planner may have ended or abandoned the plan meanwhile.
        record = snapshot.record or record
        _measure_divergence(edges.metrics, record, snapshot)
        steps = next_steps(record, snapshot, edges.clock.now(), settings.move, acted_at)
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
        if all(isinstance(step, Wait) for step in done):
            edges.clock.sleep(settings.move.poll_seconds)
        else:
            acted_at = edges.clock.now()


def _while_steered(edges: Edges, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the steps without those that make pods anew while nothing would put these on their planned nodes."""
    others = tuple(step for step in steps if not isinstance(step, RollOut | EvictPod))
    if len(others) == len(steps) or not (problem := edges.steering_problem()):
        return steps
    return (*others, Wait((f"{problem}: no pod is moved until it does",)))


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
