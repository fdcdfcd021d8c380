"""Ctrl-C as a wish for the best plan so far."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def first_interrupt(notice: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Take the first Ctrl-C for a wish, which the yielded function tells; a second one ends the process at once."""
    asked = threading.Event()

    def note(*signalled: Any) -> None:
        if asked.is_set():
            signal.default_int_handler(*signalled)
        asked.set()
        notice()

    before = signal.getsignal(signal.SIGINT)
    # A job in the background of a shell ignores interrupts, and goes on doing so.
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
