"""Simulated time: sleeping runs what is due meanwhile, in a fixed order, at once."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Final

Callback = Callable[[], None]


class SimulatedClock:
    """Implements `planner.ports.Clock`; everything that happens in a simulated world is a callback of it.

    Callbacks that are due at the same time run in the order in which they were scheduled, so that a run
    follows from its seed alone.
    """

    def __init__(self, start_seconds: float) -> None:
        """Start at so many seconds since the epoch."""
        self._now = start_seconds
        self._due: list[tuple[float, int, Callback]] = []
        self._order: Final = itertools.count()
        self._lock: Final = threading.RLock()
        self._running = False

    def now(self) -> float:
        """Return the simulated seconds since the epoch."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Run everything that is due within so many seconds, and stand at their end.

        Raises:
            RuntimeError: a callback of the clock sleeps; it would have to wait for itself.
        """
        with self._lock:
            deadline = self._now + max(0.0, seconds)
            while self._run_next(deadline):
                pass
            self._now = deadline

    def step(self, deadline: float) -> None:
        """Run the next callback that is due by the deadline; without one stand at the deadline."""
        with self._lock:
            if not self._run_next(deadline):
                self._now = max(self._now, deadline)

    def call_after(self, seconds: float, callback: Callback) -> None:
        """Run the callback when so many seconds have passed."""
        with self._lock:
            heapq.heappush(self._due, (self._now + max(0.0, seconds), next(self._order), callback))

    def _run_next(self, deadline: float) -> bool:
        if self._running:
            raise RuntimeError("a callback of the simulated clock sleeps on it")
        if not self._due or self._due[0][0] > deadline:
            return False
        due, _, callback = heapq.heappop(self._due)
        self._now = max(self._now, due)
        self._running = True
        try:
            callback()
        finally:
            self._running = False
        return True
