"""What happens in the middle of a roll-out, and what must hold of it all the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from planner.rescheduler import CARRIED_OUT
from tests.controlplane.fidelity.field import FIRST, SECOND, Arm, Field, Figures, RollOut
from tests.controlplane.fidelity.history import Life
from tests.controlplane.fidelity.rollout import NAMESPACE, Size, key_of, wanted

BY_THE_PLAN = 0.999
"""The least share of moved pods on planned nodes where the extender was there all the time."""

AFTER_A_RESTART = 0.99
"""The least share after the extender came back."""

LONGER_SECONDS = 5.0
"""By how much a pod may wait longer than in the same roll-out without an extender."""

IN_FLIGHT_SECONDS = 1.0
"""How long after its return a binding may still stem from before: it was asked for, and not yet written."""

EXPIRY_TTL_SECONDS = 600.0
GROWTH = 1.2
LOOPS = 40


@dataclass
class Report:
    """What came of a scenario: its figures by part, and everything that is not as it should be."""

    name: str
    figures: dict[str, Figures] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    longer_seconds: float = 0.0
    skipped: int = 0

    def require(self, holds: bool, text: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.problems.append(text)

    def __str__(self) -> str:
        head = f"{self.name}: {'; '.join(self.problems) or 'as it should be'}"
        parts = (f"  {part}: {figures}" for part, figures in self.figures.items())
        last = f"{self.skipped} calls without an answer; at the most {self.longer_seconds:.2f} s longer than without"
        return "\n".join([head, *parts, f"  {last} an extender"])


@dataclass(frozen=True)
class Scenario:
    """A disturbance: `play` starts the planner, disturbs, and notes what it found when the roll-out has ended."""

    name: str
    play: Callable[[RollOut, Report], None]
    arm: Arm = field(default_factory=Arm)


def without_extender(ground: Field, size: Size) -> Figures:
    """Return the figures of the roll-out in which the scheduler places pods as it likes."""
    with ground.populated(size, Arm(extended=False)) as rollout:
        rollout.accept()
        rollout.start_planner()
        rollout.wait_for_end()
        return Figures.of(rollout)


def played(scenario: Scenario, ground: Field, size: Size, baseline: Figures) -> Report:
    """Play a scenario on a fresh cluster, and judge what holds of every one."""
    report = Report(scenario.name)
    with ground.populated(size, scenario.arm) as rollout:
        scenario.play(rollout, report)
        whole = report.figures["all"] = Figures.of(rollout)
        report.longer_seconds, report.skipped = whole.longer_than(baseline), rollout.skipped()
        kept = {node.name for node in rollout.plans[-1].nodes if node.state == "keep"}
        outside = [life.name for life in rollout.history.standing() if life.node not in kept]
        report.require(not rollout.history.failures, f"the history is broken: {rollout.history.failures}")
        report.require(not whole.pending, f"{whole.pending} pods wait in the end")
        report.require(not outside, f"{len(outside)} pods are outside of the plan: {outside[:3]}")
        report.require(
            report.longer_seconds <= LONGER_SECONDS,
            f"a pod waited {report.longer_seconds:.1f} s longer than without an extender",
        )
        record = ground.record()
        report.require(
            record is not None and (record.phase, record.reason) == ("done", CARRIED_OUT),
            f"the plan ended as {record and (record.phase, record.reason)}",
        )
    return report


def _begin(rollout: RollOut, share: float) -> None:
    """Start the roll-outs and return when so many pods are bound."""
    rollout.accept()
    rollout.start_planner()
    rollout.wait_for_share(share)


def _require_exact(report: Report, figures: Figures) -> None:
    report.require(figures.share_placed >= BY_THE_PLAN, f"only {figures.share_placed:.2%} on planned nodes")
    report.require(not figures.overfilled, f"{figures.overfilled} pods came beyond their targets")
    report.require(
        not figures.surplus and not figures.missing,
        f"{figures.surplus} pods too many and {figures.missing} missing by node",
    )


def _require_calm(report: Report, rollout: RollOut) -> None:
    """Require that every call was answered, no pod passed for a doubt, and no place is kept for a pod that is bound."""
    skipped = rollout.skipped()
    report.require(not skipped, f"{skipped} calls were not answered in time")
    for extender in rollout.extenders:
        seen = extender.metrics()
        doubts = {name: value for name, value in seen.items() if "fail_open_total" in name and value}
        report.require(not doubts, f"the extender failed open: {doubts}")
        reserved = seen["kinema_extender_reservations"]
        report.require(not reserved, f"{reserved:g} places are still reserved")


def _undisturbed(rollout: RollOut, report: Report) -> None:
    _begin(rollout, 0.0)
    rollout.finish_planner()
    _require_exact(report, Figures.of(rollout))
    _require_calm(report, rollout)


def _short_of_room(rollout: RollOut, report: Report) -> None:
    """Room is there for some of the roll-outs at a time: each begins when every one of its pods has a candidate."""
    _undisturbed(rollout, report)
    report.require("others go first" in rollout.output or "do not fit" in rollout.output, "room was not short")
    unschedulable = Figures.of(rollout).unschedulable
    report.require(not unschedulable, f"{unschedulable} pods came before there was room for them")


def _planner_killed(rollout: RollOut, report: Report) -> None:
    _begin(rollout, 0.3)
    rollout.kill_planner()
    rollout.wait_for_end()
    report.figures["while no planner ran"] = figures = Figures.of(rollout)
    _require_exact(report, figures)
    rollout.start_planner()
    rollout.finish_planner()
    _require_exact(report, Figures.of(rollout))
    _require_calm(report, rollout)


def _extender_killed(rollout: RollOut, report: Report) -> None:
    _begin(rollout, 0.2)
    victim, killed_at = rollout.extenders[-1], time.monotonic()
    victim.kill()
    rollout.wait_for_share(0.35)
    victim.start()
    _judge_absence(rollout, report, killed_at, time.monotonic())


def _worker_killed(rollout: RollOut, report: Report) -> None:
    _begin(rollout, 0.2)
    victim, killed_at = rollout.extenders[-1], time.monotonic()
    victim.kill_worker()
    victim.wait_until_ready()
    _judge_absence(rollout, report, killed_at, time.monotonic())


def _judge_absence(rollout: RollOut, report: Report, killed_at: float, back_at: float) -> None:
    """Judge the pods by the time of their binding: before, while the extender was away, and after it came back."""
    rollout.finish_planner()
    bound = rollout.history.bound()
    in_flight = back_at + IN_FLIGHT_SECONDS
    before = [life for life in bound if (life.bound_at or 0.0) < killed_at]
    meanwhile = [life for life in bound if killed_at <= (life.bound_at or 0.0) < in_flight]
    after = [life for life in bound if (life.bound_at or 0.0) >= in_flight]
    for part, lives in (("before", before), ("away and in flight", meanwhile), ("after its restart", after)):
        report.figures[part] = Figures.of(rollout, lives)
    report.require(bool(meanwhile), "no pod came while it was away: nothing is shown")
    report.require(bool(after), "no pod came after its restart: nothing is shown")
    report.require(report.figures["before"].share_placed >= BY_THE_PLAN, "pods were astray before")
    restarted = report.figures["after its restart"]
    share = restarted.share_placed
    report.require(share >= AFTER_A_RESTART, f"{share:.2%} on planned nodes after its restart")
    # What was in flight is counted with its absence: from then on it knows of every pod.
    report.require(not restarted.overfilled, f"{restarted.overfilled} pods beyond their targets after its restart")
    # At the end of the plan those that came astray are moved once more.
    whole = Figures.of(rollout)
    report.require(
        not whole.surplus and not whole.missing,
        f"{whole.surplus} pods too many and {whole.missing} missing by node in the end",
    )
    others = [life for life in bound if _scheduler_of(rollout, life) != rollout.arm.schedulers[-1]]
    if others:
        report.figures["of the other scheduler"] = figures = Figures.of(rollout, others)
        report.require(figures.share_placed >= BY_THE_PLAN, "pods of the other scheduler were astray")


def _two_plans(rollout: RollOut, report: Report) -> None:
    _begin(rollout, 0.4)
    rollout.accept(SECOND, seed=1)
    rollout.wait_for_share(0.01, SECOND)
    rollout.finish_planner()
    for iteration in (FIRST, SECOND):
        report.figures[iteration] = Figures.of(rollout, rollout.history.bound(iteration))
    _require_exact(report, report.figures[SECOND])
    _require_calm(report, rollout)


def _plan_expires(rollout: RollOut, report: Report) -> None:
    _begin(rollout, 0.3)
    # Of the same plan the cluster now remembers that it is nearly as old as plans get.
    rollout.accept(expires_in_seconds=1.0)
    expired_at = time.monotonic() + 1.0
    rollout.finish_planner()
    bound = rollout.history.bound()
    late = [life for life in bound if (life.bound_at or 0.0) > expired_at + 1.0]
    report.figures["before"] = Figures.of(rollout, [life for life in bound if (life.bound_at or 0.0) < expired_at])
    report.figures["after it expired"] = Figures.of(rollout, late)
    report.require(bool(late), "no pod came after it expired: nothing is shown")
    report.require(report.figures["before"].share_placed >= BY_THE_PLAN, "pods were astray before")
    removed = {node.name for node in rollout.plans[-1].nodes if node.state == "remove"}
    astray = [life.name for life in bound if life.node in removed]
    report.require(not astray, f"{len(astray)} pods came to nodes that expire: {astray[:3]}")
    _require_calm(report, rollout)


def _node_deleted(rollout: RollOut, report: Report) -> None:
    _begin(rollout, 0.4)
    want = wanted(rollout.plans[0])
    victim = max((node for node in rollout.plans[0].nodes if node.pods), key=lambda node: sum(node.pods.values()))
    rollout.delete_node(victim.name)
    deleted_at = time.monotonic()
    rollout.finish_planner()
    lost = sum(victim.pods.values())
    late = [life for life in rollout.history.bound() if (life.bound_at or 0.0) > deleted_at + 0.5]
    report.figures["after the node was gone"] = after = Figures.of(rollout, late)
    report.require(bool(late), "no pod came after the node was gone: nothing is shown")
    report.require(not [life for life in late if life.node == victim.name], "a pod was put on the deleted node")
    counts = rollout.history.counts()
    short = [place for place in want if place[0] != victim.name and counts[place] < want[place]]
    report.require(not short, f"pods are missing on nodes that stand: {short[:3]}")
    report.require(after.surplus <= lost, f"{after.surplus} pods too many, though the node was to hold {lost}")
    _require_calm(report, rollout)


def _divergence(rollout: RollOut, report: Report) -> None:
    """Compare the metric with our count where pods are astray, unknown to the plan, and waiting, all at once."""
    _node_deleted(rollout, report)
    grown, waiting = rollout.size.apps[:2]
    rollout.scale_one(grown, rollout.size.replicas + 2)
    rollout.wait_for(lambda: _live(rollout, grown) == rollout.size.replicas + 2, "two pods more than planned")
    rollout.cordon()
    rollout.scale_one(waiting, rollout.size.replicas + 1)
    rollout.wait_for(lambda: rollout.history.counts()["", key_of(waiting)] == 1, "a pod that waits")
    told, counted = rollout.told_divergence(), _counted_divergence(rollout)
    report.require(told == counted, f"the planner tells {told}, we count {counted}")
    report.require(all(counted.values()), f"not every reason occurs: {counted}")
    rollout.scale_one(waiting, rollout.size.replicas)
    rollout.wait_for(lambda: not rollout.history.counts()["", key_of(waiting)], "no pod to wait any more")


def _counted_divergence(rollout: RollOut) -> dict[str, int]:
    """Seat every live pod where the plan has a place for it, and say what is left over."""
    free = Counter(wanted(rollout.plans[-1]))
    astray = []
    for life in rollout.history.standing():
        if free[life.node, life.workload]:
            free[life.node, life.workload] -= 1
        else:
            astray.append(life)
    vacant = Counter(workload for (_, workload), places in free.items() for _ in range(places))
    found = {"pending": 0, "elsewhere": 0, "unplanned": 0}
    for life in astray:
        if not life.node:
            found["pending"] += 1
        elif vacant[life.workload]:
            vacant[life.workload] -= 1
            found["elsewhere"] += 1
        else:
            found["unplanned"] += 1
    return found


def _live(rollout: RollOut, app: str) -> int:
    return sum(life.workload == key_of(app) and bool(life.node) for life in rollout.history.standing())


def _scaled(rollout: RollOut, report: Report) -> None:
    _begin(rollout, 0.2)
    rollout.scale(GROWTH)
    rollout.wait_for_share(0.8)
    rollout.scale(1.0)
    rollout.finish_planner()
    whole = Figures.of(rollout)
    grown = round(rollout.size.replicas * GROWTH) * rollout.size.workloads - rollout.size.pods
    least = BY_THE_PLAN - grown / whole.moved
    report.require(whole.share_placed >= least, f"only {whole.share_placed:.2%} on planned nodes")
    report.require(whole.surplus <= grown, f"{whole.surplus} pods too many, though only {grown} came beyond the plan")
    _require_calm(report, rollout)


def _pod_in_a_loop(rollout: RollOut, report: Report) -> None:
    _begin(rollout, 0.2)
    app = rollout.size.apps[0]
    for _ in range(LOOPS):
        ours = [life for life in rollout.history.standing() if life.iteration and life.node and _app(life) == app]
        if ours:
            rollout.delete_pod(ours[-1])
        time.sleep(0.05)
    rollout.finish_planner()
    rollout.wait_for_end()
    _require_exact(report, Figures.of(rollout))
    _require_calm(report, rollout)


def _app(life: Life) -> str:
    return life.workload.removeprefix(f"{NAMESPACE}/Deployment/")


def _scheduler_of(rollout: RollOut, life: Life) -> str:
    schedulers = rollout.arm.schedulers
    return schedulers[rollout.size.apps.index(_app(life)) % len(schedulers)]


SCENARIOS: Sequence[Scenario] = (
    Scenario("undisturbed", _undisturbed),
    Scenario("short-of-room", _short_of_room, Arm(room=4 / 3)),
    Scenario("extender-killed", _extender_killed),
    Scenario("worker-killed", _worker_killed),
    Scenario("extender-killed-beside-two", _extender_killed, Arm(("default-scheduler", "kinema-scheduler"))),
    Scenario("planner-killed", _planner_killed),
    Scenario("two-plans", _two_plans),
    Scenario("plan-expires", _plan_expires, Arm(ttl_seconds=EXPIRY_TTL_SECONDS)),
    Scenario("node-deleted", _divergence),
    Scenario("scaled-up-and-down", _scaled),
    Scenario("pod-in-a-loop", _pod_in_a_loop),
    Scenario("clock-ahead", _undisturbed, Arm(skew_seconds=300)),
    Scenario("clock-behind", _undisturbed, Arm(skew_seconds=-300)),
)
