"""Label selectors, quantities and percentages as Kubernetes reads them in raw JSON."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, Final

from planner.model.resources import Resources

Json = dict[str, Any]

_UNITS: Final = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
}
_FIELDS: Final = {"cpu": "cpu_millicores", "memory": "memory_bytes", "ephemeral-storage": "ephemeral_storage_bytes"}


def selects(selector: Json | None, body: Json) -> bool:
    """Tell whether a label selector selects an object; none selects nothing, an empty one everything."""
    if selector is None:
        return False
    labels = body["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(item, labels) for item in selector.get("matchExpressions") or ())


def _expression(item: Json, labels: Json) -> bool:
    value, values = labels.get(item["key"]), item.get("values") or ()
    match item["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case other:
            raise ValueError(f"a label selector's operator must be In, NotIn, Exists or DoesNotExist, not {other!r}")


def scaled(value: int | str, total: int, *, round_up: bool) -> int:
    """Return a count, or a percentage such as "25%" of the total. Source: intstr.GetScaledValueFromIntOrPercent."""
    if isinstance(value, int):
        return value
    percent = int(value.removesuffix("%")) * total
    return -(-percent // 100) if round_up else percent // 100


def amounts(quantities: Json | None) -> Resources:
    """Return resource quantities in whole units, rounded up as the scheduler does."""
    found = {}
    for name, text in (quantities or {}).items():
        number = str(text).rstrip("mkKMGTi")
        value = Decimal(number) * _UNITS[str(text)[len(number) :]]
        found[_FIELDS.get(name, name)] = math.ceil(value * 1000 if name == "cpu" else value)
    return Resources.from_amounts(found)
