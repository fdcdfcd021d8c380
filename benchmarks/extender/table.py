"""Ratios with their intervals, and the rows as Markdown; the same rows are written as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Final

from scipy.stats import t

from benchmarks.extender.calls import Calls
from benchmarks.extender.population import Size
from benchmarks.extender.throughput import ARMS, Run

BASE: Final = "none"
ECHO: Final = "Go echo"
CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """An arm's throughput beside another's: the geometric mean over the repeats and its 95 % interval."""

    value: float
    low: float
    high: float


def ratio(runs: Sequence[Run], arm: str, beside: Sequence[str]) -> Ratio | None:
    """Compare arms repeat by repeat: exp(mean ± t·s/√n) of ln(arm / mean of the others in the same repeat)."""
    rates = {(run.arm, run.repeat): run.pods_per_second for run in runs}
    repeats = sorted({run.repeat for run in runs})
    logs = [
        math.log(rates[arm, repeat] / fmean(rates[other, repeat] for other in beside))
        for repeat in repeats
        if (arm, repeat) in rates and all((other, repeat) in rates for other in beside)
    ]
    if not logs:
        return None
    middle = fmean(logs)
    if len(logs) < 2:
        return Ratio(math.exp(middle), 0.0, math.inf)
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(logs) - 1)) * stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def throughput_table(size: Size, runs: Sequence[Run]) -> str:
    """Return one row for each arm: pods a second and the ratios."""
    rows = [("arm", "pods/s (median)", "beside none", "beside Go echo", "CPU ms a pod", "as planned")]
    nothing = [arm.name for arm in ARMS if not arm.extender]
    for arm in ARMS:
        own = [run for run in runs if run.arm == arm.name]
        if not own:
            continue
        others = [name for name in nothing if name != arm.name and any(run.arm == name for run in runs)]
        planned = [run.as_planned for run in own if run.as_planned is not None]
        rows.append(
            (
                arm.name,
                f"{median(run.pods_per_second for run in own):.1f}",
                _shown(ratio(runs, arm.name, others) if others else None),
                _shown(ratio(runs, arm.name, [ECHO]) if arm.name != ECHO else None),
                f"{median(run.cpu_milliseconds_per_pod for run in own):.2f}",
                f"{min(planned):.1%}" if planned else "-",
            )
        )
    repeats = len({run.repeat for run in runs})
    head = f"{size.nodes:,} nodes, {size.bound:,} bound pods, {size.pods:,} more, {repeats} repeats"
    return f"{head}\n\n{_markdown(rows)}"


def calls_table(size: Size, ready_seconds: Sequence[float], calls: Sequence[Calls]) -> str:
    """Return one row for each kind of call, and the time from start to ready."""
    rows = [("filter call", "CPU ms", "p50 ms", "p99 ms", "body KB", "worker MB")]
    rows += [
        (
            one.kind,
            f"{one.cpu_milliseconds:.2f}",
            f"{one.p50_milliseconds:.2f}",
            f"{one.p99_milliseconds:.2f}",
            f"{one.body_bytes / 1000:.0f}",
            f"{one.memory_bytes / 1e6:.0f}",
        )
        for one in calls
    ]
    starts = f"start to ready: {min(ready_seconds):.2f} to {max(ready_seconds):.2f} s" if ready_seconds else ""
    return f"{size.nodes:,} nodes, one caller over loopback; {starts}\n\n{_markdown(rows)}"


def _shown(found: Ratio | None) -> str:
    if found is None:
        return "-"
    interval = "" if math.isinf(found.high) else f" ({found.low:.2f} to {found.high:.2f})"
    return f"{found.value:.2f}{interval}"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ["| " + " | ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"
