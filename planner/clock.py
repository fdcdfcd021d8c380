"""Real time, for the loop outside of a simulation."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SystemClock:
    """Real time; `stop` ends a sleep early and says that the process was asked to end."""

    stop: threading.Event = field(default_factory=threading.Event)

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as the process is asked to end."""
        self.stop.wait(seconds)
