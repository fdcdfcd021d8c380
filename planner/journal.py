"""What the loop does, in the log of `kinema run`: one line each, in words."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from planner.labels import EXPIRING, OPTIMAL, PLACEMENT
from planner.loop import Failed, Report, Waiting
from planner.model.effort import Progress
from planner.model.plan import (
    BootNodes,
    Decision,
    DeleteInstances,
    DeleteNode,
    EvictPod,
    MarkNode,
    Plan,
    PlanRecord,
    RollOut,
    SavePlan,
    Wait,
)
from planner.model.plan_json import usd

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Journal:
    """A watcher of the loop that logs; what is waited for is said once, not at every look.

    Where a solve stands is said when something changes, not more often than every `pause_seconds`.
    """

    pause_seconds: float = 10.0
    _waiting: tuple[str, ...] = ()
    _told_at_seconds: float = 0.0

    def __call__(self, report: Report) -> None:
        """Log what is reported, but for details and repetitions."""
        if isinstance(report, Progress):
            self._tell(report)
            return
        reasons = report.reasons if isinstance(report, Waiting | Wait) else ()
        if reasons and reasons == self._waiting:
            return
        self._waiting = reasons
        if text := line_of(report):
            _log.info("%s", text)

    def _tell(self, progress: Progress) -> None:
        if progress.elapsed_seconds < self._told_at_seconds:
            # Each solve counts its own seconds.
            self._told_at_seconds = 0.0
        if progress.elapsed_seconds - self._told_at_seconds >= self.pause_seconds:
            self._told_at_seconds = progress.elapsed_seconds
            _log.info("solving for %.0f s: %s", progress.elapsed_seconds, progress.text)


def line_of(report: Report) -> str:
    """Return the report in one line; "" for what is logged elsewhere or by nobody."""
    match report:
        case Progress() | Failed():  # the loop itself logs why an iteration failed
            return ""
        case Plan():
            before, after = usd(report.current_cost_nanousd_per_hour), usd(report.cost_nanousd_per_hour)
            gap, cap = report.objective.relative_gap, report.objective.cap
            under = "" if cap is None else f" ({cap.name}, window {cap.window})"
            return (
                f"plan {report.iteration}{under}: {before} -> {after} $/h, gap {gap:.2%}, {report.moves} pods to move"
            )
        case Decision():
            return f"decision: {report.verdict} ({report.reason})"
        case Waiting() | Wait():
            return f"waiting: {'; '.join(report.reasons)}"
        case SavePlan():
            return _of_record(report.record)
        case BootNodes():
            return f"booting in pool {report.pool}, zone {report.zone}: {', '.join(report.names)}"
        case MarkNode():
            return _of_mark(report)
        case RollOut():
            requests = f" with new requests of {', '.join(sorted(report.containers))}" if report.containers else ""
            return f"rolling out {report.workload}{requests}"
        case EvictPod():
            return f"evicting {report.namespace}/{report.name} from {report.node}: {report.reason}"
        case DeleteInstances():
            return f"deleting machines of pool {report.pool}, zone {report.zone}: {', '.join(report.names)}"
        case DeleteNode():
            return f"deleting the node {report.node}, whose machine is gone"


def _of_record(record: PlanRecord) -> str:
    reason = f": {record.reason}" if record.reason else ""
    return f"plan {record.plan.iteration} is {record.phase}{reason}"


def _of_mark(step: MarkNode) -> str:
    """Say what the mark means, not which keys it writes."""
    if step.taint_effect == "NoSchedule":
        return f"closing {step.node}: nothing may be scheduled there any more"
    if step.taint_value is not None:
        return f"marking {step.node}: it expires"
    if step.labels.get(OPTIMAL):
        return f"marking {step.node}: it is in the plan"
    if OPTIMAL in step.labels or EXPIRING in step.labels:
        return f"taking marks back from {step.node}"
    return f"opening targets on {step.node}" if PLACEMENT in step.annotations else f"marking {step.node}"
