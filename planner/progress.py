"""Where a solve stands, on standard error: one live line on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from planner.model.effort import Progress

_REDRAWS_PER_SECOND = 4


class ProgressDisplay:
    """Shows incumbent, bound, gap and elapsed time while it is open; the live line is gone when it closes.

    Elsewhere than on a terminal the first state is a line, then one every `pause_seconds`, and the last state. `now`
    returns seconds of a clock that never goes back; elapsed time counts from the opening, over all solves.
    """

    def __init__(self, stream: TextIO, now: Callable[[], float], pause_seconds: float = 5.0) -> None:
        self._stream, self._now, self._pause_seconds = stream, now, pause_seconds
        self._opened = now()
        self._seen: Progress | None = None
        self._stopping = self._unsaid = False
        self._closed = threading.Event()
        self._writer = threading.Thread(target=self._write_now_and_then, daemon=True)
        console = Console(file=stream, highlight=False)
        self._live: Live | None = None
        if stream.isatty() and not console.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._live_line,
                console=console,
                refresh_per_second=_REDRAWS_PER_SECOND,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def __enter__(self) -> ProgressDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._live is not None:
            self._live.stop()
        if self._writer.ident is not None:
            self._writer.join()
        if self._unsaid and self._live is None and kind is None:
            self._write()

    def show(self, what: object) -> None:
        """Take note of progress; nothing else that a loop reports is any."""
        if not isinstance(what, Progress):
            return
        first, self._seen, self._unsaid = self._seen is None, what, True
        if first and self._live is None:
            self._write()
            self._writer.start()

    def stopping(self) -> None:
        """Say that the solve was asked for the best plan so far."""
        self._stopping = True

    def _write_now_and_then(self) -> None:
        while not self._closed.wait(self._pause_seconds):
            self._write()

    def _write(self) -> None:
        self._unsaid = False
        self._stream.write(f"kinema: {self._state()}\n")
        self._stream.flush()

    def _live_line(self) -> Text:
        wish = "stopping with the best plan so far, Ctrl-C again ends at once; " if self._stopping else ""
        return Text(wish + self._state(), no_wrap=True, overflow="ellipsis")

    def _state(self) -> str:
        seen = self._seen or Progress("", 0.0)
        return f"{self._now() - self._opened:.1f} s: {seen.text}"
