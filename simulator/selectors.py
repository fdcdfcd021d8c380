"""Label selectors, field selectors and percentages as Kubernetes reads them in raw JSON."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from planner.kube.objects import Selector
from planner.kube.specs import label_selector
from planner.model.scheduling import LabelSelector

Json = dict[str, Any]


def selects(selector: Json | None, body: Json) -> bool:
    """Tell whether a label selector selects an object; none selects nothing, an empty one everything."""
    if selector is None:
        return False
    return _read(msgspec.json.encode(selector)).matches(body["metadata"].get("labels") or {})


def fields_match(selector: str, body: Json) -> bool:
    """Tell whether an object satisfies a field selector such as `spec.nodeName=n1,status.phase!=Failed`."""
    for part in filter(None, selector.split(",")):
        path, equal, wanted = part.replace("!=", "=!").replace("==", "=").partition("=")
        value: Any = body
        for name in path.strip().split("."):
            value = value.get(name, "") if isinstance(value, dict) else ""
        if not equal or (str(value) == wanted.lstrip("!")) == wanted.startswith("!"):
            return False
    return True


def scaled(value: int | str, total: int, *, round_up: bool) -> int:
    """Return a count, or a percentage such as "25%" of the total. Source: intstr.GetScaledValueFromIntOrPercent."""
    if isinstance(value, int):
        return value
    percent = int(value.removesuffix("%")) * total
    return -(-percent // 100) if round_up else percent // 100


@functools.lru_cache(maxsize=1024)
def _read(encoded: bytes) -> LabelSelector:
    return label_selector(msgspec.json.decode(encoded, type=Selector))
