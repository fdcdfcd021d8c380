"""Time windows by the clock of their zone: days, midnight, and the nights on which clocks change."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from planner.windows import parse_window

BERLIN = ZoneInfo("Europe/Berlin")


def covers(window: str, moment: str) -> bool:
    """Ask for a moment in ISO 8601 with its offset."""
    return parse_window(window).covers(datetime.fromisoformat(moment).timestamp())


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        ("2026-11-23T06:29:59+01:00", False),  # a Monday
        ("2026-11-23T06:30:00+01:00", True),
        ("2026-11-27T20:29:59+01:00", True),  # the Friday
        ("2026-11-27T20:30:00+01:00", False),
        ("2026-11-28T12:00:00+01:00", False),  # the Saturday
        ("2026-11-23T05:30:00+00:00", True),  # 06:30 in Berlin
        ("2026-07-20T04:30:00+00:00", True),  # 06:30 in Berlin's summer
        ("2026-07-20T04:29:00+00:00", False),
    ],
)
def test_a_window_counts_by_the_clock_of_its_zone(moment: str, inside: bool) -> None:
    assert covers("Mon-Fri 06:30-20:30 Europe/Berlin", moment) is inside


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        ("2026-11-27T21:59:00+00:00", False),  # Friday evening
        ("2026-11-27T22:00:00+00:00", True),
        ("2026-11-28T05:59:00+00:00", True),  # Saturday morning, still Friday's window
        ("2026-11-28T06:00:00+00:00", False),
        ("2026-11-28T23:00:00+00:00", False),  # no window begins on Saturday
        ("2026-11-23T03:00:00+00:00", False),  # nor did one on Sunday
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins(moment: str, inside: bool) -> None:
    assert covers("Mon-Fri 22:00-06:00 UTC", moment) is inside


def test_days_may_go_over_the_end_of_the_week_and_one_day_is_enough() -> None:
    days = [f"2026-11-{day}T12:00+00:00" for day in range(23, 30)]  # Monday to Sunday
    assert [covers("Sat-Mon 00:00-24:00 UTC", day) for day in days] == [True, False, False, False, False, True, True]
    assert [covers("Wed 9:00-13:00 UTC", day) for day in days].index(True) == 2


def test_an_hour_that_spring_leaves_out_is_in_no_window() -> None:
    # On 29 March 2026 Berlin's clocks go from 01:59 to 03:00: 02:00 to 03:00 does not exist.
    night = [f"2026-03-29T{hour:02}:{minute:02}+00:00" for hour in (0, 1, 2) for minute in (0, 30)]
    assert not any(covers("Sun 02:00-03:00 Europe/Berlin", moment) for moment in night)
    assert covers("Sun 02:00-03:30 Europe/Berlin", "2026-03-29T01:00+00:00")  # 03:00 by the clock


def test_an_hour_that_autumn_repeats_is_in_its_window_twice() -> None:
    # On 25 October 2026 Berlin's clocks go from 02:59 back to 02:00: 00:30 and 01:30 UTC are both 02:30.
    for moment in ("2026-10-25T00:30+00:00", "2026-10-25T01:30+00:00"):
        assert datetime.fromisoformat(moment).astimezone(BERLIN).strftime("%H:%M") == "02:30"
        assert covers("Sun 02:00-03:00 Europe/Berlin", moment)
    assert not covers("Sun 02:00-03:00 Europe/Berlin", "2026-10-25T02:00+00:00")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not of this shape"),
        ("Mon-Fri 06:30-20:30", "not of this shape"),
        ("Mon-Fri 06:30 Europe/Berlin", "not of this shape"),
        ("Mon-Fri 6-20 Europe/Berlin", "not of this shape"),
        ("mon-Fri 06:30-20:30 UTC", "'mon' is no day; days are Mon, Tue, Wed, Thu, Fri, Sat, Sun"),
        ("Mon-Fry 06:30-20:30 UTC", "'Fry' is no day"),
        ("Mon 06:60-20:30 UTC", "06:60 is no time of day; times are 00:00 to 24:00"),
        ("Mon 06:30-24:01 UTC", "24:01 is no time of day"),
        ("Mon 24:00-06:00 UTC", "24:00 can only be its end"),
        ("Mon 06:30-06:30 UTC", "it is empty; a whole day is 00:00-24:00"),
        ("Mon 06:30-20:30 Europe/Berln", "'Europe/Berln' is no time zone such as Europe/Berlin or UTC"),
        ("Mon 06:30-20:30 Europe", "'Europe' is no time zone"),
        ("Mon 06:30-20:30 ../../etc/passwd", "'../../etc/passwd' is no time zone"),
    ],
)
def test_text_that_is_no_window_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("(", r"\(")):
        parse_window(text)
