"""The instances with their goals, in the order in which they run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.optimizer import cluster, dumps
from benchmarks.optimizer.changes import carried_out, with_changes
from benchmarks.optimizer.cluster import Cluster, crowded
from benchmarks.optimizer.machines import Machine, table
from benchmarks.optimizer.shapes import Shape, all_different, find_trace, of_shapes, read_trace

CHANGED_SHARE = 0.05
KARPENTER = "karpenter"
"""The group of the instances that Karpenter is asked as well: those that it answers within some minutes."""

_KARPENTER_PODS = 10_000
GROWTH = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
_SHAPES_SEED, _E2_SEED, _DIFFERENT_SEED, _CLUSTER_SEED, _CHANGES_SEED = 4, 1, 3, 1, 2


@dataclass(frozen=True, slots=True)
class Goals:
    """What is to be beaten; `part_of_before` replaces the seconds by a part of those of the instance before it."""

    gap: float
    seconds: float
    memory_gib: float = 1.0
    moved_share: float | None = None
    part_of_before: float | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """What is planned: pods of shapes on an empty cluster, which the baselines can pack as well, or a cluster."""

    machines: tuple[Machine, ...]
    shapes: tuple[Shape, ...] = ()
    cluster: Cluster | None = None

    @property
    def pods(self) -> int:
        return len(self.cluster.pods) if self.cluster else sum(shape.count for shape in self.shapes)

    def objects(self) -> Iterator[dumps.Object]:
        """Return what the planner reads."""
        return self.cluster.objects() if self.cluster else dumps.pending(self.shapes)

    def pools_yaml(self) -> str | None:
        """Return the pools; an empty cluster may have every machine type."""
        return cluster.pools_yaml() if self.cluster else None


@dataclass(frozen=True, slots=True)
class Before:
    """The instance that came before: what it was, and where its plan stands."""

    problem: Problem
    plan: Path


@dataclass(frozen=True, slots=True)
class Instance:
    """One row of the table. `after` names the instance whose plan it continues; `start` says to start from it."""

    name: str
    says: str
    groups: tuple[str, ...]
    make: Callable[[Before | None], Problem]
    goals: Goals | None = None
    solver: str | None = None
    naive: bool = False
    after: str | None = None
    start: bool = False


def instances(trace: str | None) -> tuple[Instance, ...]:
    """Return all instances; those of the trace look for it when they are made."""
    return (*_goals(trace), *_further(trace), *_solvers(), *_growth(), *_short())


def _goals(trace: str | None) -> Iterator[Instance]:
    sizes = {8152: Goals(0.001, 15), 1000: Goals(0.005, 4), 100: Goals(0.005, 2)}
    for pods, goals in sizes.items():
        yield _trace_instance(trace, pods, (), goals)
    yield Instance(
        "shapes-5000-e2",
        "5,000 pods of 30 shapes, e2",
        ("goals", KARPENTER),
        _e2_shapes(5_000, 30),
        Goals(0.002, 10),
    )
    yield _shapes_instance(150_000, Goals(0.003, 60, memory_gib=2), ("goals", "growth"))
    yield Instance(
        "different-300",
        "300 pods, all of different size",
        ("goals", KARPENTER),
        lambda _: Problem(table(), all_different(300, _DIFFERENT_SEED)),
        Goals(0.02, 60),
    )
    yield from _clusters("goals", (1_000, 30_000, 300), Goals(0.02, 15, moved_share=0.3))


def _further(trace: str | None) -> Iterator[Instance]:
    for pods in (8152, 1000, 100):
        yield _trace_instance(trace, pods, ("e2",), None)
    yield from _clusters("large", (5_000, 150_000, 1_000), None)


def _clusters(group: str, size: tuple[int, int, int], goals: Goals | None) -> Iterator[Instance]:
    nodes, pods, workloads = size
    name = f"cluster-{nodes}"

    def first(_: Before | None) -> Problem:
        return Problem(cluster.machines(), cluster=crowded(nodes, pods, workloads, _CLUSTER_SEED))

    def again(before: Before | None) -> Problem:
        assert before is not None
        assert before.problem.cluster is not None
        settled = carried_out(before.problem.cluster, json.loads(before.plan.read_bytes()))
        return replace(before.problem, cluster=with_changes(settled, CHANGED_SHARE, _CHANGES_SEED))

    says = f"{nodes:,} nodes, {pods:,} pods, {workloads} workloads"
    changed = f"{says}: the plan carried out, then 5 % of the pods changed"
    quicker = replace(goals, moved_share=0.1, part_of_before=1 / 3) if goals else None
    yield Instance(name, says, (group, KARPENTER) if group == "goals" else (group,), first, goals)
    yield Instance(f"{name}-start", f"{changed}; --start", (group,), again, quicker, after=name, start=True)
    yield Instance(f"{name}-cold", f"{changed}; no --start", (group,), again, after=name)


def _solvers() -> Iterator[Instance]:
    for pods in (30, 60, 100):
        for solver in ("HIGHS", "GLPK_MI"):
            yield Instance(
                f"solver-{pods}-{solver}",
                f"{pods} pods of 10 shapes, e2, {solver}",
                ("solvers",),
                _e2_shapes(pods, 10),
                solver=solver,
                naive=solver == "HIGHS",
            )


def _e2_shapes(pods: int, shapes: int) -> Callable[[Before | None], Problem]:
    return lambda _: Problem(table("e2"), of_shapes(pods, shapes, _E2_SEED))


def _growth() -> Iterator[Instance]:
    for pods in GROWTH:
        yield _shapes_instance(pods, None, ("growth", KARPENTER) if pods <= _KARPENTER_PODS else ("growth",))


def _short() -> Iterator[Instance]:
    """Yield what takes a minute or two in all and needs no file: for a quick look after a change."""
    yield Instance(
        "short-1000-e2",
        "1,000 pods of 30 shapes, e2",
        ("short",),
        _e2_shapes(1_000, 30),
    )
    for solver in ("HIGHS", "GLPK_MI"):
        yield Instance(
            f"short-20-{solver}",
            f"20 pods of 10 shapes, e2, {solver}",
            ("short",),
            _e2_shapes(20, 10),
            solver=solver,
            naive=solver == "HIGHS",
        )
    yield from _clusters("short", (50, 1_000, 60), None)


def _trace_instance(trace: str | None, pods: int, families: tuple[str, ...], goals: Goals | None) -> Instance:
    def make(_: Before | None) -> Problem:
        machines = table(*families)
        return Problem(machines, read_trace(find_trace(trace), pods, machines))

    name = "-".join((f"trace-{pods}", *families))
    says = f"trace, first {pods:,} pods, {' and '.join(families) or 'all families'}"
    return Instance(name, says, ("goals" if goals else "further", KARPENTER), make, goals, naive=pods <= 100)


def _shapes_instance(pods: int, goals: Goals | None, groups: tuple[str, ...]) -> Instance:
    # With this seed 150,000 pods ask for the CPU of 4,774 e2-standard-8 and for the memory of 4,335.
    says = f"{pods:,} pods of 100 shapes, all families"

    def make(_: Before | None) -> Problem:
        return Problem(table(), of_shapes(pods, 100, _SHAPES_SEED))

    return Instance(f"shapes-{pods}", says, groups, make, goals)
