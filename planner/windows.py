"""Time windows such as "Mon-Fri 06:30-20:30 Europe/Berlin": on which days, from when to when, by whose clock."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SHAPE = re.compile(
    r"(?P<first>\w+)(-(?P<last>\w+))?\s+(?P<start>\d{1,2}:\d{2})-(?P<end>\d{1,2}:\d{2})\s+(?P<zone>\S+)", re.ASCII
)
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """From `start_minutes` to before `end_minutes` after midnight on each of the `days` (0 is Monday).

    Where the end is not after the start it is on the next day. The zone's own clock counts: what it leaves out in
    spring is in no window, what it repeats in autumn is in one twice.
    """

    days: frozenset[int]
    start_minutes: int
    end_minutes: int
    zone: ZoneInfo

    def covers(self, seconds: float) -> bool:
        """Say whether this moment, in seconds since the epoch, is in the window."""
        local = datetime.fromtimestamp(seconds, self.zone)
        minutes = local.hour * 60 + local.minute
        today, yesterday = local.weekday() in self.days, (local.weekday() - 1) % len(_DAYS) in self.days
        if self.start_minutes < self.end_minutes:
            return today and self.start_minutes <= minutes < self.end_minutes
        return (today and minutes >= self.start_minutes) or (yesterday and minutes < self.end_minutes)


def parse_window(text: str) -> Window:
    """Read one day or a range of days (which may go over Sunday), two times of day, and an IANA time zone.

    Raises:
        ValueError: the text is no window; says why.
    """
    found = _SHAPE.fullmatch(text.strip())
    if found is None:
        raise ValueError("it is not of this shape")
    first, last = _day(found["first"]), _day(found["last"] or found["first"])
    days = frozenset((first + i) % len(_DAYS) for i in range((last - first) % len(_DAYS) + 1))
    start, end = _minutes(found["start"]), _minutes(found["end"])
    if start == _DAY_MINUTES:
        raise ValueError("24:00 can only be its end")
    if start == end:
        raise ValueError("it is empty; a whole day is 00:00-24:00")
    return Window(days, start, end, _zone(found["zone"]))


def _day(name: str) -> int:
    if name not in _DAYS:
        raise ValueError(f"{name!r} is no day; days are {', '.join(_DAYS)}")
    return _DAYS.index(name)


def _minutes(text: str) -> int:
    hours, minutes = map(int, text.split(":"))
    if minutes > 59 or (found := hours * 60 + minutes) > _DAY_MINUTES:
        raise ValueError(f"{text} is no time of day; times are 00:00 to 24:00")
    return found


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        # Unknown names, those of folders such as Europe, and paths are refused each in another way.
        raise ValueError(f"{name!r} is no time zone such as Europe/Berlin or UTC") from None
