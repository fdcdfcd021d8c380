"""Label selectors as Kubernetes writes them in one line, such as "tier in (batch, web), !critical"."""

from __future__ import annotations

import re
from typing import Literal

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
Expression = tuple[str, Operator, tuple[str, ...]]
"""Key, operator and values of one requirement."""

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_KEY = rf"(?P<key>(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?{_NAME})"
_ONE = re.compile(_NAME)
_BARE = re.compile(rf"(?P<not>!?)\s*{_KEY}", re.ASCII)
_EQUAL = re.compile(rf"{_KEY}\s*(?P<sign>==?|!=)\s*(?P<value>{_NAME}|)", re.ASCII)
_ORDER = re.compile(rf"{_KEY}\s*(?P<sign>[<>])\s*(?P<value>\d+)", re.ASCII)
_SET = re.compile(rf"{_KEY}\s+(?P<sign>in|notin)\s*\((?P<values>[^()]*)\)", re.ASCII)
_COMMA = re.compile(r",(?![^(]*\))")


def parse_selector(text: str) -> tuple[Expression, ...]:
    """Return the requirements, all of which must hold; an empty text has none and selects everything.

    Source: k8s.io/apimachinery/pkg/labels/selector.go.

    Raises:
        ValueError: the text is no label selector.
    """
    if not text.strip():
        return ()
    return tuple(_expression(part.strip(), text) for part in _COMMA.split(text))


def _expression(part: str, text: str) -> Expression:
    if found := _SET.fullmatch(part):
        values = tuple(value.strip() for value in found["values"].split(","))
        if all(not value or _ONE.fullmatch(value) for value in values) and any(values):
            return found["key"], "In" if found["sign"] == "in" else "NotIn", values
    elif found := _EQUAL.fullmatch(part):
        return found["key"], "NotIn" if found["sign"] == "!=" else "In", (found["value"],)
    elif found := _ORDER.fullmatch(part):
        return found["key"], "Gt" if found["sign"] == ">" else "Lt", (found["value"],)
    elif found := _BARE.fullmatch(part):
        return found["key"], "DoesNotExist" if found["not"] else "Exists", ()
    raise ValueError(f'must be a label selector such as "tier in (batch), !critical", not {text!r}')
