"""Draws how the time of a plan grows with the pods: an SVG of a few lines, so that no library is needed for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 56, 56
_INK, _SOFT, _LINE = "#24292f", "#d0d7de", "#0969da"


def growth_plot(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the SVG: seconds over pods, both logarithmic, with the proven gap at each point."""
    points = sorted(
        (row["pods"], row["plan"]["seconds"], row["figures"]["relative_gap"])
        for row in rows
        if "growth" in row["groups"] and row["figures"]
    )
    if not points:
        raise SystemExit("nothing to draw: no row of the growth series has a plan (--only growth)")
    pods = _Axis(min(p[0] for p in points), max(p[0] for p in points), _LEFT, _WIDTH - _RIGHT)
    seconds = _Axis(min(p[1] for p in points), max(p[1] for p in points), _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="13" fill="{_INK}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">Wall time of kinema plan, in seconds, by the number of pods</text>',
        f'<text x="{_LEFT}" y="42">100 shapes, all machine families, 2 cores; at each point the proven gap</text>',
    ]
    for value, at in pods.ticks(1):
        parts.append(_line(at, _TOP, at, _HEIGHT - _BOTTOM))
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{value:,.0f}</text>')
    for value, at in seconds.ticks(1, 2, 5):
        parts.append(_line(_LEFT, at, _WIDTH - _RIGHT, at))
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 12}" text-anchor="middle">pods</text>')
    path = " ".join(f"{pods.at(p):.1f},{seconds.at(s):.1f}" for p, s, _ in points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{_LINE}" stroke-width="2"/>')
    for count, took, gap in points:
        x, y = pods.at(count), seconds.at(took)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_LINE}"/>')
        # No label may reach the numbers of the axis.
        beside = max(x - 6, _LEFT + 28)
        parts.append(f'<text x="{beside:.1f}" y="{y - 10:.1f}" text-anchor="middle">{gap:.2%}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Axis:
    """A logarithmic axis between two places of the picture, from a power of ten to a little more than the most."""

    def __init__(self, least: float, most: float, start: float, end: float) -> None:
        self._low = math.floor(math.log10(least))
        self._high = max(math.log10(1.6 * most), self._low + 1)
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        """Return where the value stands."""
        part = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + part * (self._end - self._start)

    def ticks(self, *steps: float) -> list[tuple[float, float]]:
        """Return these multiples of each power of ten, and where each stands."""
        values = [step * 10.0**power for power in range(self._low, math.floor(self._high) + 1) for step in steps]
        return [(value, self.at(value)) for value in values if math.log10(value) <= self._high]


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{_SOFT}"/>'
