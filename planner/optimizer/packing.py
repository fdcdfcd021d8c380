"""A packing: which nodes are in the plan and how many pods of each group every one holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.optimizer import constraints
from planner.optimizer.constraints import IntArray
from planner.optimizer.problem import Problem


@dataclass(frozen=True, slots=True)
class Packing:
    """Nodes by class with their contents: `classes` (nodes), `contents` (nodes, groups)."""

    classes: IntArray
    contents: IntArray

    def equals(self, other: Packing) -> bool:
        """Say whether the other has the same nodes with the same contents, in the same order."""
        return np.array_equal(self.classes, other.classes) and np.array_equal(self.contents, other.contents)

    def unplaced(self, problem: Problem) -> IntArray:
        """Return how many pods of each group have no place here, (groups)."""
        missing: IntArray = np.maximum(problem.counts - self.contents.sum(axis=0), 0)
        return missing

    def faults(self, problem: Problem) -> list[str]:
        """Name what is wrong with the packing, in integer arithmetic and without any solver's word."""
        classes, contents = self.classes, self.contents
        found = []
        placed = contents.sum(axis=0)
        if (contents < 0).any() or (placed > problem.counts).any():
            found.append("a group has more pods placed than it has")
        if (problem.counts - placed > problem.pending).any():
            found.append("a running pod has no place")
        if ((contents > 0) & ~problem.admissible[classes]).any():
            found.append("a node holds a pod that it does not admit")
        if not constraints.within_capacity(problem.requests, problem.room[classes], contents).all():
            found.append("a node holds more than its room")
        if not constraints.one_side_of_each(problem.sides, contents).all():
            found.append("a node holds pods that stand apart")
        used = np.bincount(classes, minlength=len(problem.classes))
        existing = np.array([c.role != "offering" for c in problem.classes], dtype=np.bool_)
        if (used > problem.limits)[existing].any():
            found.append("a node is used more often than it exists")
        found += [
            f"{row.kind} {', '.join(row.scopes)} does not hold"
            for row in problem.rows
            if int(row.coefficients[classes].sum()) < row.rhs
        ]
        return found

    def displaced_value(self, problem: Problem) -> int:
        """Return the value with each displaced pod as one move: what the real value is at least."""
        costs = int(problem.column_costs(self.classes, self.contents).sum())
        placed = problem.pending - self.unplaced(problem)
        return problem.constant + costs - int((problem.move_prices * placed).sum())


def packing_of(problem: Problem, classes: IntArray, contents: IntArray, amounts: IntArray) -> Packing:
    """Return the packing that takes each content so often, without the pods that it places twice."""
    repeat = np.repeat(np.arange(classes.size), amounts)
    return trim(problem, Packing(classes[repeat], contents[repeat].copy()))


def trim(problem: Problem, packing: Packing) -> Packing:
    """Take out pods placed beyond their group's count, arriving ones first; contents only shrink."""
    contents = packing.contents.copy()
    present = problem.present[packing.classes]
    for g in np.flatnonzero(contents.sum(axis=0) > problem.counts):
        excess = int(contents[:, g].sum() - problem.counts[g])
        for arriving in (True, False):
            spare = np.maximum(contents[:, g] - present[:, g], 0) if arriving else contents[:, g].copy()
            # The emptiest nodes give first: they come nearest to a smaller machine.
            for n in np.argsort(contents.sum(axis=1), kind="stable"):
                taken = min(excess, int(spare[n]))
                contents[n, g] -= taken
                excess -= taken
    return Packing(packing.classes, contents)
