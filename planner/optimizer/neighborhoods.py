"""Some nodes of a plan at a time: their pods are placed anew as a small problem of its own, the other nodes stay.

A search over the whole problem leaves the last percent of a plan to rounding. A problem of a few nodes is solved
nearly exactly in a fraction of a second, and what it saves, the plan saves. Which nodes are taken is drawn by what
they waste, their cost less what their pods are worth at the prices of the whole, so that most of the time goes to
nodes where something can be had. The draws come from a generator with a fixed seed and are the same in every run.

Source: P. Shaw, "Using constraint programming and local search methods to solve vehicle routing problems", CP 1998.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from planner.optimizer.certificate import Bound
from planner.optimizer.constraints import IntArray
from planner.optimizer.master import Solver
from planner.optimizer.packing import Packing
from planner.optimizer.problem import BoolArray, Problem
from planner.optimizer.search import Search

# Nodes and pods of one neighborhood, in turn: small ones are solved often and fast, large ones see more.
_SIZES = ((10, 150), (6, 100), (14, 300))
# Nodes that are not in the plan and may come back into it, those first of whose pods most are placed anew.
_COMING_BACK = 3
# Of the pods without a place so many are placed beside those of the nodes.
_MOST_MISSING = 100
# Every node has a chance: this share of the mean waste is added to its own.
_CHANCE = 0.2
# A node that admits nothing of what the first one holds can still take part, for what it may give.
_LEAST_ALIKE = 0.05
# The continuous optimum of a neighborhood need not be proven: its contents are what is wanted.
_ROUNDS = 10
# After so many neighborhoods in vain the plan is taken for as good as it gets, or once each node was in so many of
# them. One that saves less than this share of what its nodes cost, a preference or a move, is as good as in vain.
_MOST_IN_VAIN, _EACH_IN_VAIN = 40, 3
_LEAST_SAVING = 5e-4


@dataclass(frozen=True, slots=True)
class Neighborhood:
    """The problem of some nodes: `classes` and `groups` of the whole that it has, and what these nodes hold now."""

    problem: Problem
    classes: IntArray
    groups: IntArray
    now: Packing

    def in_whole(self, rest: Packing, packing: Packing) -> Packing:
        """Return the packing of these nodes with the rest as one of the whole."""
        contents = np.zeros((packing.classes.size, rest.contents.shape[1]), dtype=np.int64)
        contents[:, self.groups] = packing.contents
        return Packing(np.append(rest.classes, self.classes[packing.classes]), np.vstack([rest.contents, contents]))


def neighborhood(problem: Problem, packing: Packing, chosen: BoolArray, leaders: IntArray) -> Neighborhood:
    """Return the problem of placing the pods of the `chosen` nodes (nodes) anew, beside all other nodes as they are.

    Pods without a place are placed too. New nodes come from the classes of `leaders`, and some existing ones come back
    that are not in the plan.
    """
    rest = Packing(packing.classes[~chosen], packing.contents[~chosen])
    missing = packing.unplaced(problem)
    missing = np.clip(_MOST_MISSING - (np.cumsum(missing) - missing), 0, missing)
    counts = packing.contents[chosen].sum(axis=0) + missing
    groups = np.flatnonzero(counts)
    limits = problem.limits - np.bincount(rest.classes, minlength=problem.limits.size)
    offered = np.array([c.role == "offering" for c in problem.classes], dtype=np.bool_)
    back = np.flatnonzero(~offered & (limits > 0) & ~np.isin(np.arange(limits.size), packing.classes[chosen]))
    stays = np.minimum(problem.present[back], counts).sum(axis=1)
    back = back[np.argsort(-stays, kind="stable")][:_COMING_BACK]
    classes = np.unique(np.concatenate([packing.classes[chosen], leaders[limits[leaders] > 0], back]))
    rows = []
    for row in problem.rows:
        rhs = row.rhs - int(row.coefficients[rest.classes].sum())
        if rhs > 0 or (row.coefficients[classes] < 0).any():
            rows.append(replace(row, coefficients=row.coefficients[classes], rhs=rhs))
    pending = np.minimum(problem.pending, counts)
    part = replace(
        problem,
        groups=tuple(replace(problem.groups[g], count=int(counts[g]), pending=int(pending[g])) for g in groups),
        classes=tuple(replace(problem.classes[k], limit=int(limits[k])) for k in classes),
        requests=problem.requests[groups],
        counts=counts[groups],
        pending=pending[groups],
        room=problem.room[classes],
        admissible=problem.admissible[np.ix_(classes, groups)],
        present=problem.present[np.ix_(classes, groups)],
        displeasure=problem.displeasure[np.ix_(classes, groups)],
        sides=problem.sides[groups],
        move_prices=problem.move_prices[groups],
        costs=problem.costs[classes],
        limits=limits[classes],
        rows=tuple(rows),
        constant=0,
    )
    now = Packing(np.searchsorted(classes, packing.classes[chosen]), packing.contents[chosen][:, groups])
    return Neighborhood(part, classes, groups, now)


def improved(
    problem: Problem, packing: Packing, prices: IntArray, solver: Solver, left: Callable[[], float]
) -> Iterator[Packing]:
    """Yield better and better packings, until the time is over or many neighborhoods in a row had nothing better.

    `prices` (groups) are what a pod is worth in the whole problem, in nanodollars per hour.
    """
    draw = np.random.default_rng(0)
    leaders = np.unique(problem.dominators())
    leaders = leaders[[problem.classes[k].role == "offering" for k in leaders]]
    tried: set[tuple[bytes, ...]] = set()
    vain, seen, turn = 0, 0, 0
    while left() > 0 and vain < _MOST_IN_VAIN and seen < _EACH_IN_VAIN * packing.classes.size:
        nodes, pods = _SIZES[turn % len(_SIZES)]
        turn += 1
        chosen = _drawn(problem, packing, prices, draw, nodes, pods)
        key = tuple(
            sorted(np.append(packing.classes[n], packing.contents[n]).tobytes() for n in np.flatnonzero(chosen))
        )
        better = None
        if key not in tried:
            tried.add(key)
            part = neighborhood(problem, packing, chosen, leaders)
            rest = Packing(packing.classes[~chosen], packing.contents[~chosen])
            for placed in _solved(part, prices, solver, left):
                whole = part.in_whole(rest, placed)
                if _less(problem, whole, packing if better is None else better):
                    better = whole
        if better is None or _hardly_less(problem, part, packing, better):
            vain, seen = vain + 1, seen + int(chosen.sum())
        else:
            vain, seen = 0, 0
        if better is not None:
            packing = better
            yield packing


def _less(problem: Problem, one: Packing, other: Packing) -> bool:
    if one.faults(problem):
        return False
    ranks = [(int(p.unplaced(problem).sum()), p.displaced_value(problem)) for p in (one, other)]
    return ranks[0] < ranks[1]


def _hardly_less(problem: Problem, part: Neighborhood, before: Packing, after: Packing) -> bool:
    """Say whether a packing places no more pods and saves hardly anything of what the nodes of the part cost."""
    if after.unplaced(problem).sum() < before.unplaced(problem).sum():
        return False
    saved = before.displaced_value(problem) - after.displaced_value(problem)
    return saved < _LEAST_SAVING * part.now.displaced_value(part.problem)


def _drawn(
    problem: Problem, packing: Packing, prices: IntArray, draw: np.random.Generator, nodes: int, pods: int
) -> BoolArray:
    """Draw at most so many nodes that hold at most so many pods, by what they waste and how alike they are, (nodes)."""
    waste = problem.column_costs(packing.classes, packing.contents) - packing.contents @ prices
    weights = np.maximum(waste.astype(np.float64), 0.0)
    weights += _CHANCE * weights.mean() + 1.0
    holds = packing.contents.sum(axis=1)
    first = int(draw.choice(weights.size, p=weights / weights.sum()))
    admitted = problem.admissible[packing.classes].astype(np.float64) @ packing.contents[first]
    weights *= _LEAST_ALIKE + admitted / max(1, holds[first])
    weights[first] = 0.0
    order = (
        draw.choice(weights.size, min(nodes, weights.size) - 1, replace=False, p=weights / weights.sum())
        if weights.size > 1
        else np.zeros(0, dtype=np.int64)
    )
    chosen = np.zeros(weights.size, dtype=np.bool_)
    chosen[first], room = True, pods - int(holds[first])
    for n in order.tolist():
        if holds[n] <= room:
            chosen[n], room = True, room - int(holds[n])
    return chosen


def _solved(part: Neighborhood, prices: IntArray, solver: Solver, left: Callable[[], float]) -> Iterator[Packing]:
    """Yield packings of the neighborhood, none where its bound shows that there is nothing better."""
    problem = part.problem
    search = Search(problem, solver, left, thorough=False)
    value = part.now.displaced_value(problem) if not part.now.unplaced(problem).any() else inf
    search.start_from(part.now)
    search.propose(prices[part.groups])
    rounds = iter(range(_ROUNDS))

    def enough(proof: Bound, _relaxed: float) -> bool:
        return proof.value >= value or next(rounds, None) is None

    search.generate(enough)
    if search.proof.value >= value:
        return
    yield search.dive(0)
    picked = search.pick(value, left())
    if picked is not None:
        yield picked
