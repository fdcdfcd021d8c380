"""Plans that need no solver: the present state, first fit and best fit decreasing, and small repairs."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from planner.optimizer import constraints
from planner.optimizer.constraints import IntArray
from planner.optimizer.packing import Packing
from planner.optimizer.problem import Problem

Fit = Literal["first", "best"]
# How many of the emptiest nodes are tried for removal; each trial looks at all the others.
_TRIED = 100
# So many offerings are tried as the one that is opened for everything.
_MOST_OPENINGS = 30


def present_state(problem: Problem) -> Packing:
    """Every existing node with what it holds now and may hold; pending pods stay without a place."""
    existing = [k for k, c in enumerate(problem.classes) if c.role != "offering"]
    classes = np.repeat(np.array(existing, dtype=np.int64), problem.limits[existing])
    return Packing(classes, np.where(problem.admissible, problem.present, 0)[classes])


def empty_cluster(problem: Problem) -> Packing:
    """Only the nodes that must stay, without their movable pods."""
    kept = [k for k, c in enumerate(problem.classes) if c.role == "kept"]
    classes = np.repeat(np.array(kept, dtype=np.int64), problem.limits[kept])
    return Packing(classes, np.zeros((classes.size, len(problem.groups)), dtype=np.int64))


def fill(problem: Problem, start: Packing, fit: Fit, opening: int | None = None) -> Packing:
    """Place what has no place yet, the largest pods first, into open nodes and then into fresh ones.

    "first" takes the open nodes in order, "best" those with the least room left first. The next node is of the class
    (an existing node that is not open yet, or an offering) that holds the rest of the group for the least money, or of
    the class `opening` where that can hold any.
    Pool limits hold; what they leave no room for stays without a place.
    """
    classes, contents = start.classes.copy(), start.contents.copy()
    left = start.unplaced(problem)
    rem = problem.room[classes] - contents @ problem.requests
    typical = _typical_room(problem)
    size = (problem.requests[:, : problem.whole] / typical).max(axis=1, initial=0.0)
    caps = problem.caps
    for g in np.argsort(-size, kind="stable"):
        if not left[g]:
            continue
        asks = problem.requests[g]
        order = np.arange(classes.size)
        if fit == "best":
            order = np.argsort((rem[:, : problem.whole] / typical).sum(axis=1), kind="stable")
        open_ = problem.admissible[classes, g] & ~_repelled(problem, contents, g)
        holds = np.where(open_, _fitting(rem, asks), 0)[order]
        taken = np.clip(left[g] - (np.cumsum(holds) - holds), 0, holds)
        contents[order, g] += taken
        rem[order] -= taken[:, None] * asks
        left[g] -= taken.sum()
        while left[g] > 0:
            budget = budget_of(problem, classes)
            holds = caps[:, g]
            able = (holds > 0) & (budget > 0)
            if not able.any():
                break
            need = -(-left[g] // np.maximum(holds, 1))
            price = np.where(able, need * problem.costs.astype(np.float64), np.inf)
            k = int(np.argmin(price)) if opening is None or not able[opening] else opening
            fresh, each = int(min(need[k], budget[k])), int(holds[k])
            block = np.zeros((fresh, left.size), dtype=np.int64)
            block[:, g] = np.clip(left[g] - each * np.arange(fresh), 0, each)
            left[g] -= block[:, g].sum()
            classes = np.append(classes, np.full(fresh, k, dtype=np.int64))
            contents = np.vstack([contents, block])
            rem = np.vstack([rem, problem.room[k] - block @ problem.requests])
    return _with_minimums(problem, Packing(classes, contents))


def fitting_content(problem: Problem, k: int, wanted: IntArray) -> IntArray:
    """Return as many of the wanted pods (groups,) as one node of the class holds, the largest first."""
    content, room = np.zeros_like(wanted), problem.room[k].copy()
    size = (problem.requests[:, : problem.whole] / _typical_room(problem)).max(axis=1, initial=0.0)
    for g in np.argsort(-size, kind="stable"):
        if wanted[g] and problem.admissible[k, g] and not _repelled(problem, content[None, :], g)[0]:
            content[g] = min(int(wanted[g]), int(_fitting(room[None, :], problem.requests[g])[0]))
            room -= content[g] * problem.requests[g]
    return content


def openings(problem: Problem) -> IntArray:
    """Return the offerings worth opening for everything: not dominated, those with most room for their price first."""
    offers = [k for k in np.unique(problem.dominators()).tolist() if problem.classes[k].role == "offering"]
    asked = problem.counts @ problem.requests[:, : problem.whole]
    # How many of such nodes everything would take, by the resource that takes most of them.
    nodes = [(asked / np.maximum(problem.room[k, : problem.whole], 1)).max(initial=0.0) for k in offers]
    order = sorted(zip((n * int(problem.costs[k]) for n, k in zip(nodes, offers, strict=True)), offers, strict=True))
    return np.array([k for _, k in order[:_MOST_OPENINGS]], dtype=np.int64)


def cheapen(problem: Problem, packing: Packing) -> Packing:
    """Give every booted node the cheapest offering that holds its content, then drop nodes whose pods fit elsewhere."""
    packing = with_cheapest_offerings(problem, packing)
    classes, contents = packing.classes, packing.contents.copy()
    alive = np.ones(classes.size, dtype=np.bool_)
    costs = problem.costs[classes]
    for n in np.lexsort((np.arange(classes.size), -costs, contents.sum(axis=1)))[:_TRIED]:
        if problem.classes[int(classes[n])].role == "kept":
            continue
        others = np.flatnonzero(alive & (np.arange(classes.size) != n))
        trial = Packing(classes[others], contents[others])
        if any(int(row.coefficients[trial.classes].sum()) < row.rhs for row in problem.rows):
            continue
        moved = _absorb(problem, trial, contents[n])
        if moved is None:
            continue
        before = Packing(classes[alive], contents[alive]).displaced_value(problem)
        if moved.displaced_value(problem) < before:
            contents[others] = moved.contents
            contents[n] = 0
            alive[n] = False
    return with_cheapest_offerings(problem, Packing(classes[alive], contents[alive]))


def _absorb(problem: Problem, packing: Packing, pods: IntArray) -> Packing | None:
    """Put the pods into the rest of the nodes' room, the fullest nodes first; None where they do not fit."""
    contents = packing.contents.copy()
    rem = problem.room[packing.classes] - contents @ problem.requests
    typical = _typical_room(problem)
    size = (problem.requests[:, : problem.whole] / typical).max(axis=1, initial=0.0)
    for g in np.argsort(-size, kind="stable"):
        left = int(pods[g])
        if not left:
            continue
        order = np.argsort((rem[:, : problem.whole] / typical).sum(axis=1), kind="stable")
        open_ = problem.admissible[packing.classes, g] & ~_repelled(problem, contents, g)
        holds = np.where(open_, _fitting(rem, problem.requests[g]), 0)[order]
        taken = np.clip(left - (np.cumsum(holds) - holds), 0, holds)
        if taken.sum() < left:
            return None
        contents[order, g] += taken
        rem[order] -= taken[:, None] * problem.requests[g]
    return Packing(packing.classes, contents)


def with_cheapest_offerings(problem: Problem, packing: Packing) -> Packing:
    """Give every booted node the cheapest offering that holds its content and that the rows allow.

    What that frees of a limit goes to pods that have no place yet.
    """
    classes = packing.classes.copy()
    offers = np.array([k for k, c in enumerate(problem.classes) if c.role == "offering"], dtype=np.int64)
    if not offers.size:
        return packing
    rows = [row for row in problem.rows if row.kind != "kept"]
    adds = np.array([row.coefficients for row in rows], dtype=np.int64).reshape(len(rows), len(problem.classes))
    spare = adds[:, classes].sum(axis=1) - np.array([row.rhs for row in rows], dtype=np.int64)
    for n, k in enumerate(classes.tolist()):
        if problem.classes[k].role != "offering":
            continue
        content = packing.contents[n]
        repeated = np.broadcast_to(content, (offers.size, content.size))
        holds = constraints.within_capacity(problem.requests, problem.room[offers], repeated)
        holds &= (problem.admissible[offers] | (content == 0)).all(axis=1)
        # A row that does not hold yet must not come to be further from it.
        left = spare[:, None] + adds[:, offers] - adds[:, [k]]
        holds &= (left >= np.minimum(spare, 0)[:, None]).all(axis=0)
        able = offers[holds]
        if able.size:
            best = int(able[np.argmin(problem.costs[able])])
            if problem.costs[best] < problem.costs[k]:
                spare += adds[:, best] - adds[:, k]
                classes[n] = best
    cheaper = Packing(classes, packing.contents)
    return fill(problem, cheaper, "best") if cheaper.unplaced(problem).any() else cheaper


def _with_minimums(problem: Problem, packing: Packing) -> Packing:
    """Add empty nodes where a pool has fewer than its minimum, existing ones and the cheapest first."""
    classes, contents = packing.classes, packing.contents
    for row in problem.rows:
        while int(row.coefficients[classes].sum()) < row.rhs and row.kind == "pool-minimum":
            budget = budget_of(problem, classes)
            able = np.flatnonzero((row.coefficients > 0) & (budget > 0))
            if not able.size:
                break
            best = able[np.argmin(problem.costs[able])]
            classes = np.append(classes, best)
            contents = np.vstack([contents, np.zeros((1, contents.shape[1]), dtype=np.int64)])
    return Packing(classes, contents)


def _typical_room(problem: Problem) -> npt.NDArray[np.float64]:
    """Return the mean room of the classes, (whole resources,): that of the largest would hide all but one resource."""
    room = np.maximum(problem.room[:, : problem.whole], 0)
    typical: npt.NDArray[np.float64] = np.maximum(room.sum(axis=0) / np.maximum((room > 0).sum(axis=0), 1), 1.0)
    return typical


def _repelled(problem: Problem, contents: IntArray, g: int) -> npt.NDArray[np.bool_]:
    """Say which nodes hold pods beside which a pod of the group may not stand, (nodes)."""
    if not problem.sides[g]:
        return np.zeros(contents.shape[0], dtype=np.bool_)
    opposed = constraints.opposed(problem.sides | problem.sides[g])
    repelled: npt.NDArray[np.bool_] = np.any(contents[:, opposed] > 0, axis=1)
    return repelled


def _fitting(rem: IntArray, asks: IntArray) -> IntArray:
    """Return how many pods of these requests fit each room, (nodes)."""
    wanted = asks > 0
    fits: IntArray = np.maximum(rem[:, wanted] // asks[wanted], 0).min(axis=1, initial=np.iinfo(np.int64).max)
    return fits


def budget_of(problem: Problem, classes: IntArray) -> IntArray:
    """Return how many more nodes of each class its own limit and the rows allow, (classes).

    A row allows floor(what it can spare / -coefficient) of a class with a negative one. What pools still lack of their
    minimums is set aside for them.
    """
    budget: IntArray = np.maximum(problem.limits - np.bincount(classes, minlength=problem.limits.size), 0)
    lacking = []
    for row in problem.rows:
        if row.kind == "pool-minimum" and (lack := row.rhs - int(row.coefficients[classes].sum())) > 0:
            members = (row.coefficients > 0) & (budget > 0)
            if members.any():
                lacking.append((members, lack))
    for row in problem.rows:
        if row.kind in ("kept", "pool-minimum"):
            continue
        uses = np.maximum(-row.coefficients, 0)
        spare = np.full(uses.size, int(row.coefficients[classes].sum()) - row.rhs, dtype=np.int64)
        # A pool's maximum is about the nodes of that pool alone, which need not make way for themselves.
        for members, lack in lacking if row.kind != "pool-maximum" else ():
            spare -= np.where(members, 0, lack * int(uses[members].min()))
        most = np.maximum(spare, 0) // np.maximum(uses, 1)
        budget = np.where(uses > 0, np.minimum(budget, most), budget)
    return budget
