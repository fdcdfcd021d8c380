"""How much work a solve may take, and what it tells meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_NANO = 10**9


def never() -> bool:
    """Say that nobody is in a hurry."""
    return False


@dataclass(frozen=True, slots=True)
class Effort:
    """The solver's name, and when to stop: after the time limit, or once (value - bound) / value is small enough."""

    solver: str = "HIGHS"
    time_limit_seconds: float = 60.0
    target_gap: float = 0.0005


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a solve stands; the best value and bound so far in nanodollars per hour, None where there is none yet."""

    stage: str
    elapsed_seconds: float
    value_nanousd_per_hour: int | None = None
    lower_bound_nanousd_per_hour: int | None = None

    @property
    def text(self) -> str:
        """What is known so far, in words."""
        value, bound = self.value_nanousd_per_hour, self.lower_bound_nanousd_per_hour
        if value is None:
            return "no plan yet"
        if bound is None:
            return f"best plan {value / _NANO:.4f} $/h, no bound yet"
        gap = (value - bound) / value if value else 0.0
        return f"best plan {value / _NANO:.4f} $/h, bound {bound / _NANO:.4f} $/h, gap {gap:.2%}"


@dataclass(frozen=True, slots=True)
class Watch:
    """The outside of a solve: `now` returns seconds of a clock that never goes back, `report` takes progress.

    `hurried` says whether the best plan so far is wanted at once, as if the time limit had come.
    """

    now: Callable[[], float]
    report: Callable[[Progress], None]
    hurried: Callable[[], bool] = never
