"""The contract between planner and extender: every key that Kinema writes on a Kubernetes object.

Standard library only: it is the one module that the extender imports from the planner.
The keys never change; the value is the id of an iteration unless it says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

GROUP: Final = "kinema.io"

OPTIMAL: Final = f"{GROUP}/optimal"
"""Node label: the node is in the plan of this iteration."""

EXPIRING: Final = f"{GROUP}/expiring"
"""Node label, and key of the node taint: this iteration will remove the node."""

PLACEMENT: Final = f"{GROUP}/placement"
"""Node annotation: a `Placement` as JSON, how many pods of which workload the plan wants on the node."""

ITERATION: Final = f"{GROUP}/iteration"
"""Pod template annotation: starts the rolling update of an iteration and marks its pods."""

DO_NOT_DISRUPT: Final = f"{GROUP}/do-not-disrupt"
"""Annotation on a pod, a workload or a node, value "true": Kinema never moves or removes it."""

_T = TypeVar("_T")

Count = Literal["all", "iteration"]


@dataclass(frozen=True, slots=True)
class Target:
    """How many live pods of one workload the plan wants on one node.

    `count` "all" counts every live pod of the workload on the node; "iteration" only the pods that carry
    the mark of the placement's iteration (a roll-out, where old pods still stand).
    """

    workload: str
    uid: str
    want: int
    count: Count


@dataclass(frozen=True, slots=True)
class Placement:
    """What the plan of one iteration wants on one node: the value of the annotation `kinema.io/placement`.

    `expires` is in seconds since the epoch; `headroom` is what the plan leaves free on the node, keyed by
    resource with its unit (`cpu_millicores`, `memory_bytes`, `pods`, extended resources by their own name).
    """

    iteration: str
    expires: float
    targets: tuple[Target, ...]
    headroom: Mapping[str, int]


def encode_placement(placement: Placement) -> str:
    """Return the annotation's value: compact JSON with sorted keys, equal placements give equal text."""
    body = {
        "iteration": placement.iteration,
        "expires": placement.expires,
        "targets": [
            {"workload": t.workload, "uid": t.uid, "want": t.want, "count": t.count} for t in placement.targets
        ],
        "headroom": dict(placement.headroom),
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def decode_placement(text: str) -> Placement:
    """Read the annotation's value.

    Raises:
        ValueError: the text is no JSON, or a field is missing or of the wrong type (the message names it).
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{PLACEMENT} is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise ValueError(f"{PLACEMENT} must be a JSON object, not {type(body).__name__}")
    targets = []
    for index, item in enumerate(_field(body, "targets", list)):
        if not isinstance(item, dict):
            raise ValueError(f"{PLACEMENT}: targets[{index}] must be an object")
        count: Count
        match item.get("count"):
            case "all":
                count = "all"
            case "iteration":
                count = "iteration"
            case other:
                raise ValueError(f'{PLACEMENT}: targets[{index}].count must be "all" or "iteration", not {other!r}')
        want = _field(item, "want", int)
        if want < 0:
            raise ValueError(f"{PLACEMENT}: targets[{index}].want must not be negative, not {want}")
        targets.append(Target(_field(item, "workload", str), _field(item, "uid", str), want, count))
    headroom = _field(body, "headroom", dict)
    for key, amount in headroom.items():
        if not isinstance(amount, int) or isinstance(amount, bool):
            raise ValueError(f"{PLACEMENT}: headroom[{key!r}] must be an integer, not {amount!r}")
    expires = body.get("expires")
    if not isinstance(expires, int | float) or isinstance(expires, bool) or expires != expires:
        raise ValueError(f"{PLACEMENT}: expires must be seconds since the epoch, not {expires!r}")
    return Placement(_field(body, "iteration", str), float(expires), tuple(targets), headroom)


def _field(body: dict[str, object], name: str, kind: type[_T]) -> _T:
    value = body.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{PLACEMENT}: {name} must be of type {kind.__name__}, not {value!r}")
    return value
