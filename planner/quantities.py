"""Kubernetes quantities such as 250m, 1.5Gi or 12e3, read exactly."""

from __future__ import annotations

import re
from functools import lru_cache

_SHAPE = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>\d*)(?:\.(?P<part>\d*))?(?P<suffix>[a-zA-Z]*)(?P<exponent>[+-]?\d+)?", re.ASCII
)
_DECIMAL_POWERS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_POWERS = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_LARGEST = 2**63 - 1

MILLI = 1000
"""The scale that reads CPU as millicores."""


@lru_cache(maxsize=65536)
def parse_quantity(value: str | int | float, scale: int = 1) -> int:
    """Return value x scale as a whole number, rounded up and capped at 2^63 - 1, as Kubernetes does.

    Source: k8s.io/apimachinery/pkg/api/resource/quantity.go.

    Raises:
        ValueError: the value is no quantity, or it is negative.
    """
    text = value if isinstance(value, str) else repr(value)
    found = _SHAPE.fullmatch(text)
    if not found or not (found["whole"] or found["part"]):
        raise _refusal(text)
    suffix, exponent = found["suffix"], found["exponent"]
    power, shift = 0, 0
    if exponent is not None:
        if suffix not in ("e", "E"):
            raise _refusal(text)
        # The cap keeps 1e999999999 from filling the memory; both ends of it are far outside what is representable.
        power = max(-400, min(400, int(exponent[:12])))
    elif suffix in _BINARY_POWERS:
        shift = _BINARY_POWERS[suffix]
    elif suffix in _DECIMAL_POWERS:
        power = _DECIMAL_POWERS[suffix]
    else:
        raise _refusal(text)
    part = found["part"] or ""
    digits = int((found["whole"] or "") + part or "0") * scale << shift
    if found["sign"] == "-" and digits:
        raise ValueError(f"must not be negative, but is {text!r}")
    power -= len(part)
    ten: int = 10 ** abs(power)
    return min(digits * ten if power >= 0 else -(-digits // ten), _LARGEST)


def _refusal(text: str) -> ValueError:
    return ValueError(f'must be a quantity such as "250m", "2", "1.5Gi" or "12e3", not {text!r}')
