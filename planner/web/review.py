"""The node-pool webhook without HTTP: what is asked, and the size that the plan answers with.

An answer below the size that the caller sees, or below the nodes that exist, would let the caller choose which
node goes. Only Kinema chooses that: it deletes machines by name, and the pool's size follows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from planner.errors import BadInput
from planner.model.plan import PlanRecord
from planner.rescheduler import CARRIED_OUT
from planner.settings import Settings

Outcome = Literal["planned", "held", "advised", "no_plan", "unknown_pool", "unreadable"]


@dataclass(frozen=True, slots=True)
class PoolRequest:
    """One question: the pool's size in this zone as the caller sees it (`present`), and the caller's bounds."""

    uid: str
    pool: str
    zone: str
    present: int
    least: int
    greatest: int


@dataclass(frozen=True, slots=True)
class Review:
    """One answer: the size to have, why, by which iteration, and what the plan alone would say (`advice`)."""

    outcome: Outcome
    size: int
    reason: str
    iteration: str | None = None
    advice: int | None = None


def parse_request(body: bytes) -> PoolRequest:
    """Read the envelope `{"request": {"uid", "pool", "zone", "present", "least", "greatest"}}`.

    Raises:
        BadInput: the body is no JSON, or a field is missing or wrong; names field, value and what would be right.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the body must be JSON: {error}") from None
    asked = document.get("request") if isinstance(document, dict) else None
    if not isinstance(asked, dict):
        raise BadInput('the body must be an object such as {"request": {"uid": "…", "pool": "…"}}: request is missing')
    parsed = PoolRequest(
        uid=_text(asked, "uid"),
        pool=_text(asked, "pool"),
        zone=_text(asked, "zone"),
        present=_size(asked, "present"),
        least=_size(asked, "least"),
        greatest=_size(asked, "greatest"),
    )
    if parsed.least > parsed.greatest:
        raise BadInput(f"request.least must be at most request.greatest ({parsed.greatest}), not {parsed.least}")
    return parsed


def review(asked: PoolRequest, record: PlanRecord | None, existing: int, settings: Settings, now: float) -> Review:
    """Answer with the size that the current plan wants, or with the present size where no plan applies.

    size = max(min(max(wanted, least), greatest), present, existing), where `wanted` counts the plan's nodes that
    stay or boot in this pool and zone, and `existing` the Node objects that are there. `now` is in seconds since
    the epoch.
    """
    if reason := _no_plan_reason(record, settings, now):
        return Review("no_plan", asked.present, reason)
    assert record is not None  # _no_plan_reason has a reason for None
    iteration = record.plan.iteration
    planned = [n for n in record.plan.nodes if n.pool == asked.pool and n.zone == asked.zone]
    if not planned:
        where = f"pool {asked.pool!r} in zone {asked.zone!r}"
        return Review("unknown_pool", asked.present, f"the plan knows no {where}: its size stays", iteration)
    wanted = sum(node.state != "remove" for node in planned)
    advice = min(max(wanted, asked.least), asked.greatest)
    wish = f"the plan wants {wanted}" if wanted == advice else f"the plan wants {wanted}, the bounds allow {advice}"
    if "recommend" in (record.mode, settings.mode):
        return Review("advised", asked.present, f"{wish}; in recommend mode the size stays", iteration, advice)
    size = max(advice, asked.present, existing)
    if size == advice:
        return Review("planned", size, wish, iteration, advice)
    reason = f"{wish}; {asked.present} are present and {existing} nodes exist, and only Kinema removes nodes, by name"
    return Review("held", size, reason, iteration, advice)


def _no_plan_reason(record: PlanRecord | None, settings: Settings, now: float) -> str:
    if record is None:
        return "there is no plan"
    if record.phase == "abandoning":
        return f"plan {record.plan.iteration} is being abandoned: {record.reason}"
    if record.phase == "done" and record.mode == "apply" and record.reason != CARRIED_OUT:
        return f"plan {record.plan.iteration} was abandoned: {record.reason}"
    if record.accepted_at + settings.move.plan_ttl_seconds < now:
        return (
            f"plan {record.plan.iteration} is older than {settings.move.plan_ttl_seconds:g} s (move.plan_ttl_seconds)"
        )
    return ""


def _text(asked: dict[str, Any], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not value:
        raise BadInput(f"request.{name} must be a text that is not empty, not {_shown(asked, name)}")
    return value


def _size(asked: dict[str, Any], name: str) -> int:
    value = asked.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadInput(f"request.{name} must be a whole number of nodes, 0 or more, not {_shown(asked, name)}")
    return value


def _shown(asked: dict[str, Any], name: str) -> str:
    """Return the wrong value as JSON, short, or "missing"."""
    return json.dumps(asked[name])[:80] if name in asked else "missing"
