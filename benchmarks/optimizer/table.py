"""The rows as one Markdown table for people; the same rows are written as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.optimizer.runs import Judged, Row

_COLUMNS = (
    "instance",
    "pods",
    "now $/h",
    "$/h",
    "gap",
    "s",
    "MiB",
    "moved",
    "goals",
    "verify",
    "FFD",
    "BFD",
    "one type",
    "Karpenter",
    "its best pool",
    "naive MIP",
)

LEGEND = """\
$/h: the plan's nodes. gap: (value - proven bound) / value. s and MiB: the whole `kinema plan`, wall time and peak
resident memory with its child. moved: running pods that change their node. FFD, BFD, one type, naive MIP: how much
dearer they are than the plan; they know no constraints, so not for clusters. Karpenter: how much dearer the nodes are
that its scheduler opens for all pods, and with the best narrower NodePool; only in the group karpenter. What was not
run or failed is below."""

_RIVALS = {
    "FFD": "ffd",
    "BFD": "bfd",
    "one type": "single",
    "Karpenter": "karpenter",
    "its best pool": "karpenter-best",
    "naive MIP": "naive",
}

_UNITS = {
    "gap": ("gap", 100.0, " %"),
    "seconds": ("time", 1.0, " s"),
    "memory_gib": ("memory", 1.0, " GiB"),
    "moved_share": ("moved", 100.0, " %"),
}


def table(rows: Sequence[Row]) -> str:
    """Return the table, what it means, and the notes."""
    cells = [list(_COLUMNS), *([_cell(row, column) for column in _COLUMNS] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(_COLUMNS))]
    lines = ["| " + " | ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = [f"{row.instance}: {row.note}" for row in rows if row.note]
    notes += [
        f"{row.instance}: kinema verify: {row.verify.message}"
        for row in rows
        if row.verify and row.verdict not in ("", "right")
    ]
    notes += [
        f"{row.instance}: {rival.name}: {rival.how}"
        for row in rows
        for rival in row.rivals
        if rival.name.startswith("karpenter") and rival.cost is None
    ]
    notes += [
        f"{row.instance}: {rival.name} leaves {rival.unplaced} pods without a place"
        for row in rows
        for rival in row.rivals
        if rival.unplaced
    ]
    notes += [
        f"{row.instance}: {rival.name} is cheaper than the plan: {rival.cost:.6f} $/h against {row.figures.cost:.6f}"
        for row in rows
        for rival in row.rivals
        if row.figures and rival.cost is not None and rival.cost < row.figures.cost - 1e-9 and not rival.unplaced
    ]
    return "\n".join([*lines, "", LEGEND, *([""] if notes else []), *notes]) + "\n"


def progress(row: Row) -> str:
    """Return one line about a row that was just finished."""
    return ", ".join(f"{column} {text}" for column in _COLUMNS if (text := _cell(row, column)) not in ("", "-"))


def _cell(row: Row, column: str) -> str:
    figures, planned = row.figures, row.plan
    rivals = {rival.name: rival for rival in row.rivals}
    match column:
        case "instance":
            return row.instance
        case "pods":
            return f"{row.pods:,}" if row.pods else "-"
        case "goals":
            return "; ".join(map(_goal, row.goals)) or "-"
        case "s" if planned:
            return f"{planned.seconds:.1f}"
        case "MiB" if planned:
            return f"{planned.peak_bytes / 2**20:.0f}"
        case "verify" if row.verify:
            return f"{row.verdict}, {row.verify.seconds:.1f} s"
        case "now $/h" if figures and figures.present_cost:
            return _dollars(figures.present_cost)
        case "$/h" if figures:
            return _dollars(figures.cost) + (f" ({figures.unplaced} unplaced)" if figures.unplaced else "")
        case "gap" if figures:
            return "optimal" if figures.status == "optimal" else f"{figures.relative_gap:.3%}"
        case "moved" if figures and figures.present_cost:
            return f"{figures.moved_share:.1%}"
    name = _RIVALS.get(column)
    if name is None or (rival := rivals.get(name)) is None:
        return "-"
    if rival.cost is None:
        return {"naive": f"none in {rival.seconds:.0f} s", "karpenter": "no answer"}.get(name, "none")
    above = f"{rival.above_plan:+.1%}" if rival.above_plan is not None else f"{_dollars(rival.cost)} $/h"
    if rival.unplaced:
        return f"{above} ({rival.unplaced} unplaced)"
    match name:
        case "naive":
            return f"{above} ({rival.how}, {rival.seconds:.0f} s)"
        case "karpenter":
            return f"{above} ({rival.seconds:.1f} s)"
        case "karpenter-best":
            return f"{above} ({rival.how})"
    return above


def _dollars(cost: float) -> str:
    return f"{cost:.2f}" if cost >= 10 else f"{cost:.4f}"


def _goal(goal: Judged) -> str:
    name, factor, unit = _UNITS[goal.goal]
    said = {True: "met", False: "MISSED", None: "not run"}[goal.met]
    return f"{name} ≤ {goal.limit * factor:.3g}{unit} {said}"
