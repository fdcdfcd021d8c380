"""Progress on standard error: one live line on a terminal that is gone afterwards, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import io
import os
import time
import tty

from planner.model.effort import Progress
from planner.progress import ProgressDisplay

FIRST = Progress("plan", 0.5, 250_000_000, None)
BETTER = Progress("bound", 2.0, 200_000_000, 190_000_000)
"""A plan of 0.2 $/h and a bound of 0.19: a gap of 0.01 / 0.2 = 5 %."""


def test_elsewhere_than_on_a_terminal_the_first_and_the_last_state_are_lines() -> None:
    out, seconds = io.StringIO(), iter((0.0, 0.5, 2.0))
    with ProgressDisplay(out, lambda: next(seconds)) as display:
        for progress in (FIRST, Progress("plan", 1.0, 210_000_000, None), BETTER):
            display.show(progress)
        display.show("a step of the loop")
    assert out.getvalue().splitlines() == [
        "kinema: 0.5 s: best plan 0.2500 $/h, no bound yet",
        "kinema: 2.0 s: best plan 0.2000 $/h, bound 0.1900 $/h, gap 5.00%",
    ]


def test_a_state_that_was_told_is_not_told_again() -> None:
    out = io.StringIO()
    with ProgressDisplay(out, lambda: 0.0) as display:
        display.show(BETTER)
    assert len(out.getvalue().splitlines()) == 1


def test_a_solve_of_which_nothing_is_heard_says_nothing() -> None:
    out = io.StringIO()
    with ProgressDisplay(out, lambda: 0.0):
        pass
    assert out.getvalue() == ""


def test_in_a_long_solve_a_line_comes_now_and_then_whether_or_not_it_gets_on() -> None:
    out = io.StringIO()
    with ProgressDisplay(out, time.monotonic, pause_seconds=0.01) as display:
        display.show(FIRST)
        deadline = time.monotonic() + 10
        while len(out.getvalue().splitlines()) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(out.getvalue().splitlines()) >= 3


def shown_on_a_terminal(display_it: list[Progress], *, stopping: bool = False) -> str:
    """Return all that a terminal gets while these states are shown, each for the time of some redraws."""
    leader, follower = os.openpty()
    tty.setraw(follower)
    os.set_blocking(leader, False)
    with os.fdopen(follower, "w", encoding="utf-8") as stream:
        with ProgressDisplay(stream, lambda: 7.0) as display:
            for progress in display_it:
                display.show(progress)
                if stopping:
                    display.stopping()
                time.sleep(0.6)
        received = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(leader, 1 << 16):
                received += part
    os.close(leader)
    return received.decode()


def test_on_a_terminal_one_line_is_written_over_and_erased_in_the_end() -> None:
    received = shown_on_a_terminal([FIRST, BETTER])
    assert "best plan 0.2500 $/h, no bound yet" in received
    assert "bound 0.1900 $/h, gap 5.00%" in received
    # Each state goes over the one before: return, erase the line. No line but the last begins a new one.
    assert received.count("\n") == 1
    assert received.endswith("\x1b[1A\x1b[2K")


def test_on_a_terminal_the_line_says_that_a_second_interrupt_ends_at_once() -> None:
    assert "Ctrl-C again ends at once" in shown_on_a_terminal([BETTER], stopping=True)
