"""Simulated time."""

from __future__ import annotations

import pytest

from simulator.clock import SimulatedClock


def test_sleeping_runs_what_is_due_in_the_order_of_time_and_then_of_arrival() -> None:
    clock, seen = SimulatedClock(100.0), []
    clock.call_after(2, lambda: seen.append(("late", clock.now())))
    clock.call_after(1, lambda: seen.append(("first", clock.now())))
    clock.call_after(1, lambda: seen.append(("second", clock.now())))
    clock.call_after(9, lambda: seen.append(("never", clock.now())))

    clock.sleep(5)

    assert seen == [("first", 101.0), ("second", 101.0), ("late", 102.0)]
    assert clock.now() == 105.0


def test_a_callback_may_schedule_more_within_the_same_sleep() -> None:
    clock, seen = SimulatedClock(0.0), []
    clock.call_after(1, lambda: clock.call_after(1, lambda: seen.append(clock.now())))

    clock.sleep(2)

    assert seen == [2.0]


def test_a_step_stands_at_the_next_event_or_at_the_deadline() -> None:
    clock = SimulatedClock(0.0)
    clock.call_after(3, lambda: None)

    clock.step(10)
    assert clock.now() == 3.0
    clock.step(10)
    assert clock.now() == 10.0


def test_a_callback_that_sleeps_is_refused_since_it_would_wait_for_itself() -> None:
    clock = SimulatedClock(0.0)
    clock.call_after(1, lambda: clock.sleep(1))

    with pytest.raises(RuntimeError, match="a callback of the simulated clock sleeps"):
        clock.sleep(2)
