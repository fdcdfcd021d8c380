"""What an object's status and times say."""

from __future__ import annotations

from datetime import UTC, datetime

from simulator.store import Json


def stamp(seconds: float) -> str:
    """Return the time as Kubernetes writes it, in whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> float:
    """Return the seconds since the epoch of a time that `stamp` wrote."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def condition(body: Json, kind: str) -> Json | None:
    """Return a condition of an object's status."""
    found = (body.get("status") or {}).get("conditions") or ()
    return next((item for item in found if item["type"] == kind), None)


def is_true(body: Json, kind: str) -> bool:
    """Tell whether a condition of an object's status is True."""
    found = condition(body, kind)
    return found is not None and found["status"] == "True"


def is_ready(body: Json) -> bool:
    """Tell whether a pod or node is Ready."""
    return is_true(body, "Ready")


def is_deleting(body: Json) -> bool:
    """Tell whether an object's deletion has begun."""
    return "deletionTimestamp" in body["metadata"]


def is_active(pod: Json) -> bool:
    """Tell whether a pod counts for its controller: neither finished nor being deleted."""
    return pod["status"].get("phase") not in ("Succeeded", "Failed") and not is_deleting(pod)


def set_condition(body: Json, kind: str, status: str, now: float, **more: str) -> None:
    """Set a condition of an object that is being changed; its transition time moves with its status."""
    conditions = body.setdefault("status", {}).setdefault("conditions", [])
    found = next((item for item in conditions if item["type"] == kind), None)
    if found is None:
        found = {"type": kind, "status": ""}
        conditions.append(found)
    if found["status"] != status:
        found["lastTransitionTime"] = stamp(now)
    for name in ("reason", "message"):
        found.pop(name, None)
    found |= {"status": status, **more}
