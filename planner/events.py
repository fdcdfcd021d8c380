"""Kubernetes Events: what the loop decided and why, for a person who asks `kubectl get events`.

They stand beside the ConfigMap of the plan and name it as the object that they are about.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from planner.errors import KubernetesError, NotFound
from planner.kube import record as records
from planner.loop import Failed, Report, Waiting
from planner.model.effort import Progress
from planner.model.plan import Decision, Plan, PlanRecord, SavePlan, Wait
from planner.model.plan_json import usd
from planner.ports import EVENTS, Clock, Kubernetes
from planner.rescheduler import CARRIED_OUT

COMPONENT: Final = "kinema-planner"

PATIENCE_SECONDS: Final = 120.0
"""How long a carry-out waits for the same thing before an Event says for what, and again after as long. Within
2 min a machine boots and most roll-outs take a step; what takes longer is what a person would ask about."""

_LONGEST_MESSAGE: Final = 1024
"""Characters of a message; the newer API of Events allows no more, and kubectl shows it in one line."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Notice:
    """What an Event says; `reason` is one word for machines, `message` a sentence for people."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def notice_of(report: Report) -> Notice | None:
    """Return what a person is told of this report, None where it is a detail."""
    match report:
        case Waiting() | Wait():
            return Notice("Normal", "Waiting", "; ".join(report.reasons))
        case Decision(verdict="nothing-to-do"):
            return Notice("Normal", "NothingToDo", report.reason)
        case Decision(accepted=False):
            return Notice("Normal", "PlanDropped", f"{report.verdict}: {report.reason}")
        case SavePlan():
            return _notice_of_record(report.record)
        case Failed():
            return Notice("Warning", "IterationFailed", report.reason)
        case _:
            # An accepted plan is told when it is saved: until then nothing came of it.
            return None


def _notice_of_record(record: PlanRecord) -> Notice:
    plan = record.plan
    called = f"plan {plan.iteration}"
    if record.phase == "carrying-out":
        return Notice("Normal", "PlanAccepted", f"{called}: {_summary(plan)}")
    if record.phase == "abandoning":
        return Notice(
            "Warning", "PlanAbandoned", f"{called}: {record.reason}; its marks and unused machines are taken back"
        )
    if record.mode == "recommend":
        return Notice("Normal", "PlanRecommended", f"{called}: {_summary(plan)}; nothing is changed")
    if record.reason == CARRIED_OUT:
        return Notice("Normal", "PlanCarriedOut", f"{called}: {_summary(plan)}")
    return Notice(
        "Normal", "PlanRolledBack", f"{called}: its marks and unused machines are taken back; {record.reason}"
    )


def _summary(plan: Plan) -> str:
    """Return cost, nodes and moves in one line."""
    before, after = usd(plan.current_cost_nanousd_per_hour), usd(plan.cost_nanousd_per_hour)
    states = [node.state for node in plan.nodes]
    return (
        f"{before} -> {after} $/h, {states.count('boot')} nodes to boot, {states.count('remove')} to remove, "
        f"{plan.moves} pods to move"
    )


@dataclass(slots=True)
class Recorder:
    """A watcher of the loop that writes Events to `namespace`; `instance` is the planner that reports.

    A repeated notice raises the count of its Event instead of making another one. An Event that cannot be
    written is only logged: it must not stop what it tells of.
    """

    kubernetes: Kubernetes
    clock: Clock
    namespace: str
    instance: str
    _posted: dict[str, _Posted] = field(default_factory=dict)
    _waiting: tuple[str, ...] = ()
    _waiting_since: float = 0.0
    _last_stamp: int = 0

    def __call__(self, report: Report) -> None:
        """Write an Event where a person should know of what is reported."""
        if isinstance(report, Progress) or not self._is_due(report):
            return
        if (notice := notice_of(report)) is None:
            return
        if len(notice.message) > _LONGEST_MESSAGE:
            notice = Notice(notice.type, notice.reason, f"{notice.message[: _LONGEST_MESSAGE - 2]} …")
        try:
            self._write(notice)
        except KubernetesError as error:
            _log.warning("no Event could be written of %s (%s): %s", notice.reason, notice.message, error)

    def _is_due(self, report: Report) -> bool:
        """Say whether to tell of it now: of a carry-out that waits, only once the same has lasted."""
        if not isinstance(report, Wait):
            self._waiting = ()
            return True
        now = self.clock.now()
        if report.reasons != self._waiting:
            self._waiting, self._waiting_since = report.reasons, now
        if now - self._waiting_since < PATIENCE_SECONDS:
            return False
        self._waiting_since = now
        return True

    def _write(self, notice: Notice) -> None:
        now = self.clock.now()
        posted = self._posted.get(notice.reason)
        if posted is not None and posted.notice == notice:
            again = {"count": posted.count + 1, "lastTimestamp": _time(now)}
            try:
                self.kubernetes.patch(EVENTS, self.namespace, posted.name, again)
            except NotFound:
                pass  # the API server forgets Events, by default after an hour: this one is told anew
            else:
                posted.count += 1
                return
        # As client-go names them: the object and the time, here never the same twice.
        self._last_stamp = max(int(now * 10**9), self._last_stamp + 1)
        name = f"{records.NAME}.{self._last_stamp:x}"
        self.kubernetes.create(EVENTS, self.namespace, self._body(name, notice, _time(now)))
        self._posted[notice.reason] = _Posted(notice, name)

    def _body(self, name: str, notice: Notice, time: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": self.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "namespace": self.namespace,
                "name": records.NAME,
            },
            "type": notice.type,
            "reason": notice.reason,
            "message": notice.message,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self.instance,
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        }


@dataclass(slots=True)
class _Posted:
    """An Event that stands, and how often it was told."""

    notice: Notice
    name: str
    count: int = 1


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
