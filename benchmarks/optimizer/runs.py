"""Runs one instance: the whole `kinema plan` as a process of its own, `kinema verify`, and the baselines."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.optimizer import gauge
from benchmarks.optimizer.baselines import baselines, faults
from benchmarks.optimizer.changes import arrived
from benchmarks.optimizer.dumps import write_dump
from benchmarks.optimizer.instances import KARPENTER, Before, Goals, Instance, Problem
from benchmarks.optimizer.karpenter.program import NoKarpenter, ask, best_narrowed
from benchmarks.optimizer.karpenter.request import request_of
from benchmarks.optimizer.machines import machines_csv
from benchmarks.optimizer.shapes import NoTrace

ROOT = Path(__file__).parents[2]
CORES = 2
_KINEMA = (sys.executable, "-m", "planner")
_DEFAULT_LIMIT_SECONDS = 60.0
_PATIENCE_SECONDS = 120.0
"""How long after its own limit a command is ended: a limit that is not kept shall be seen as such."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take: the plan ("goal": as long as the goal says; None: as the planner's default is)."""

    plan: float | str | None = None
    verify_seconds: float = 60.0
    naive_seconds: float = 60.0
    karpenter_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One process: wall time, peak of the resident memory of it and its children, and how it ended."""

    seconds: float
    peak_bytes: int
    exit_code: int
    ended: bool
    message: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What a plan says of itself, in USD per hour, and how many running pods it moves, counted from its placement."""

    cost: float
    value: float
    lower_bound: float
    relative_gap: float
    status: str
    present_cost: float
    nodes: int
    unplaced: int
    moved: int
    moved_share: float
    timings_seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Rival:
    """A baseline's cost in USD per hour, by which share it is above the plan's, how it came about, and pods left out.

    Without a cost `how` says why.
    """

    name: str
    cost: float | None
    above_plan: float | None
    seconds: float
    how: str
    unplaced: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """One goal, what was measured, and whether that is within it; None: not known yet."""

    goal: str
    limit: float
    measured: float | None
    met: bool | None


@dataclass(frozen=True, slots=True)
class Row:
    """Everything about one instance; `note` says why something is missing."""

    instance: str
    says: str
    groups: tuple[str, ...]
    pods: int = 0
    machine_types: int = 0
    solver: str = "HIGHS"
    note: str = ""
    plan: Measured | None = None
    figures: Figures | None = None
    verify: Measured | None = None
    verdict: str = ""
    rivals: tuple[Rival, ...] = ()
    goals: tuple[Judged, ...] = ()


@dataclass(slots=True)
class Bench:
    """Runs instances in a folder, and remembers those that others continue."""

    folder: Path
    limits: Limits
    _done: dict[str, tuple[Before, Row]] = field(default_factory=dict)

    def run(self, instance: Instance) -> Row:
        """Plan, verify and compare one instance."""
        row = Row(instance.name, instance.says, instance.groups, solver=instance.solver or "HIGHS")
        before, first = self._done.get(instance.after or "", (None, None))
        if instance.start and not offers_start():
            return replace(row, note="kinema plan has no --start", goals=judged(instance.goals, None, None, first))
        if instance.after and (first is None or first.figures is None):
            return replace(row, note=f"{instance.after} has no plan to continue")
        try:
            problem = instance.make(before)
        except NoTrace as error:
            return replace(row, note=str(error), goals=judged(instance.goals, None, None, first))
        row = replace(row, pods=problem.pods, machine_types=len(problem.machines))
        files = _Files(self.folder / instance.name, problem)
        planned = self._plan(instance, files, before)
        figures = _figures(files.plan, problem) if planned.exit_code == 0 else None
        note = "" if figures else f"kinema plan: {planned.message or f'exit code {planned.exit_code}'}"
        row = replace(row, plan=planned, figures=figures, note=note)
        if figures:
            seconds = self.limits.verify_seconds
            checked = files.measure("verify", (str(files.plan),), seconds, ("--time-limit", f"{seconds:g}"))
            row = replace(row, verify=checked, verdict=_verdict(checked))
        given = instance, problem, figures
        row = replace(row, rivals=(*_rivals(problem, figures), *self._karpenter(*given), *self._naive(*given)))
        row = replace(row, goals=judged(instance.goals, planned, figures, first))
        self._done[instance.name] = (Before(problem, files.plan), row)
        return row

    def _plan(self, instance: Instance, files: _Files, before: Before | None) -> Measured:
        limit = self.limits.plan
        if limit == "goal":
            limit = instance.goals.seconds if instance.goals else None
        options: list[str] = []
        if limit is not None:
            options += ["--time-limit", f"{float(limit):g}"]
        if instance.solver:
            options += ["--solver", instance.solver]
        if instance.start and before:
            options += ["--start", str(before.plan)]
        return files.measure("plan", (), float(limit or _DEFAULT_LIMIT_SECONDS), (*options, "--output", "json"))

    def _karpenter(self, instance: Instance, problem: Problem, figures: Figures | None) -> tuple[Rival, ...]:
        """Return Karpenter with everything that is sold, and on empty clusters with its best narrower NodePool."""
        if KARPENTER not in instance.groups:
            return ()
        asked, seconds = request_of(problem), self.limits.karpenter_seconds
        try:
            found = ask(asked, seconds, CORES)
            if not found.ended:
                how = f"{found.never_tried:,} of {len(asked.pods):,} pods were not reached within {seconds:g} s"
                return (Rival("karpenter", None, None, found.seconds, how),)
            how = "everything that is sold" if problem.cluster is None else "from nothing, what is not managed stays"
            price, unplaced = found.price_nanousd_per_hour, len(found.unplaced)
            rival = replace(_rival("karpenter", price, figures, found.seconds, how), unplaced=unplaced)
            if problem.cluster is not None:
                return (rival,)
            best = best_narrowed(asked, seconds, CORES)
        except NoKarpenter as error:
            return (Rival("karpenter", None, None, 0.0, str(error)),)
        if best is None:
            return rival, Rival(
                "karpenter-best", None, None, seconds, f"no NodePool for every pod within {seconds:g} s"
            )
        name, found = best
        return rival, _rival("karpenter-best", found.price_nanousd_per_hour, figures, found.seconds, name)

    def _naive(self, instance: Instance, problem: Problem, figures: Figures | None) -> tuple[Rival, ...]:
        if not instance.naive:
            return ()
        seconds = self.limits.naive_seconds
        request = {
            "shapes": [asdict(shape) for shape in problem.shapes],
            "machines": [asdict(machine) for machine in problem.machines],
            "limit_seconds": seconds,
        }
        try:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.optimizer.naive"],
                input=json.dumps(request).encode(),
                capture_output=True,
                cwd=ROOT,
                timeout=seconds + _PATIENCE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return (Rival("naive", None, None, seconds + _PATIENCE_SECONDS, "ended by force"),)
        if done.returncode:
            return (Rival("naive", None, None, 0.0, _last_line(done.stderr)),)
        answer = json.loads(_last_line(done.stdout))  # solvers print where they like
        return (_rival("naive", answer["price_nanousd_per_hour"], figures, answer["seconds"], answer["status"]),)


class _Files:
    """The files of one instance, and commands that read them."""

    def __init__(self, folder: Path, problem: Problem) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.plan = folder / "plan.json"
        self._folder = folder
        write_dump(folder / "cluster.json", problem.objects())
        (folder / "machines.csv").write_text(machines_csv(problem.machines), encoding="utf-8")
        self._inputs = ["--cluster", str(folder / "cluster.json"), "--machines", str(folder / "machines.csv")]
        if (pools := problem.pools_yaml()) is not None:
            (folder / "pools.yaml").write_text(pools, encoding="utf-8")
            self._inputs += ["--pools", str(folder / "pools.yaml")]

    def measure(self, command: str, given: tuple[str, ...], limit: float, options: tuple[str, ...]) -> Measured:
        """Run `kinema COMMAND` on the files; what it prints goes to COMMAND.json, its errors to COMMAND.err."""
        report, errors = self._folder / f"{command}.measured", self._folder / f"{command}.err"
        line = [*_KINEMA, command, *given, *self._inputs, *options]
        measuring = [sys.executable, "-S", "-E", str(Path(gauge.__file__))]
        # The defaults are measured, whatever the environment of the shell says.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("KINEMA_")}
        with (self._folder / f"{command}.json").open("wb") as out, errors.open("wb") as wrong:
            subprocess.run(
                [*measuring, str(report), f"{limit + _PATIENCE_SECONDS}", str(CORES), *line],
                stdout=out,
                stderr=wrong,
                cwd=ROOT,
                env=clean,
                check=True,
            )
        said = _last_line(errors.read_bytes())
        if command == "verify":
            said = said or (self._folder / "verify.json").read_text(encoding="utf-8").partition("\n")[0]
        return Measured(**json.loads(report.read_text()), message=said)


@functools.cache
def offers_start() -> bool:
    """Say whether `kinema plan` can start from an earlier plan."""
    said = subprocess.run([*_KINEMA, "plan", "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
    return "--start" in said.stdout.split()


def judged(
    goals: Goals | None, planned: Measured | None, figures: Figures | None, before: Row | None
) -> tuple[Judged, ...]:
    """Hold what was measured against the goals; a plan that did not come meets none."""
    if goals is None:
        return ()
    seconds: float | None = goals.seconds
    if goals.part_of_before is not None:
        seconds = goals.part_of_before * before.plan.seconds if before and before.plan else None
    wanted: dict[str, tuple[float | None, float | None]] = {
        "gap": (goals.gap, figures.relative_gap if figures else None),
        "seconds": (seconds, planned.seconds if planned else None),
        "memory_gib": (goals.memory_gib, planned.peak_bytes / 2**30 if planned else None),
    }
    if goals.moved_share is not None:
        wanted["moved_share"] = (goals.moved_share, figures.moved_share if figures else None)
    return tuple(
        # "Fewer than 30 %" and "at most 10 %" differ by one pod; both are held as at most.
        Judged(goal, limit, measured, None if planned is None else figures is not None and (measured or 0) <= limit)
        for goal, (limit, measured) in wanted.items()
        if limit is not None
    )


def _figures(path: Path, problem: Problem) -> Figures:
    plan: dict[str, Any] = json.loads(path.read_bytes())
    objective = plan["objective"]
    moved = arrived(problem.cluster, plan) if problem.cluster else 0
    return Figures(
        cost=float(plan["cost_usd_per_hour"]),
        value=float(objective["value"]),
        lower_bound=float(objective["lower_bound"]),
        relative_gap=float(objective["relative_gap"]),
        status=objective["status"],
        present_cost=float(plan["current_cost_usd_per_hour"]),
        nodes=sum(node["state"] != "remove" for node in plan["nodes"]),
        unplaced=sum(entry["count"] for entry in plan["unplaced"].values()),
        moved=moved,
        moved_share=moved / problem.pods,
        timings_seconds=plan["timings_seconds"],
    )


def _verdict(checked: Measured) -> str:
    if checked.ended:
        return "ended by force"
    return {0: "right", 1: "WRONG", 3: "undecided"}.get(checked.exit_code, f"exit code {checked.exit_code}")


def _rivals(problem: Problem, figures: Figures | None) -> tuple[Rival, ...]:
    """Return FFD, BFD and the best single type; they know no constraints, so not for a cluster that has some."""
    found = []
    for baseline in baselines(problem.shapes, problem.machines) if problem.shapes else ():
        packed = baseline.packed
        if packed is not None and (wrong := next(faults(packed, problem.shapes), None)):
            raise AssertionError(f"{baseline.name}: {wrong}")
        price = packed.price_nanousd_per_hour if packed else None
        how = packed.how if packed else "no machine type holds every pod"
        found.append(_rival(baseline.name, price, figures, baseline.seconds, how))
    return tuple(found)


def _rival(name: str, price: int | None, figures: Figures | None, seconds: float, how: str) -> Rival:
    if price is None:
        return Rival(name, None, None, seconds, how)
    cost = price / 1e9
    return Rival(name, cost, cost / figures.cost - 1 if figures and figures.cost else None, seconds, how)


def _last_line(data: bytes) -> str:
    lines = data.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
