"""Plans that need no solver: the present state, first fit and best fit decreasing, and small repairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from planner.optimizer import constraints
from planner.optimizer.constraints import FloatArray, IntArray
from planner.optimizer.packing import Packing
from planner.optimizer.problem import Problem

Fit = Literal["first", "best"]
Largest = Literal["most", "all"]
# So many nodes are looked at by all trials to remove one of the emptiest, each of which looks at all the others; and so
# many trials are made in any case.
_LOOKED_AT, _TRIED = 500_000, 100
# So many offerings are tried as the one that is opened for everything.
_MOST_OPENINGS = 30
# The shares of the removable nodes that are tried as those that stay, and how many of these plans are cheapened.
_STAYING = (0.0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
_MOST_CHEAPENED = 3


def present_state(problem: Problem) -> Packing:
    """Every existing node with what it holds now and may hold, the largest pods first; others have no place."""
    existing = np.flatnonzero([c.role != "offering" for c in problem.classes])
    held = np.where(problem.admissible, problem.present, 0)
    holds = constraints.within_capacity(problem.requests, problem.room[existing], held[existing])
    # More than the room may stand where the objective caps what pods use, or where their requests grow.
    for k in existing[~holds].tolist():
        held[k] = fitting_content(problem, k, held[k])
    classes = np.repeat(existing, problem.limits[existing])
    return Packing(classes, held[classes])


def empty_cluster(problem: Problem) -> Packing:
    """Only the nodes that must stay, without their movable pods."""
    kept = [k for k, c in enumerate(problem.classes) if c.role == "kept"]
    classes = np.repeat(np.array(kept, dtype=np.int64), problem.limits[kept])
    return Packing(classes, np.zeros((classes.size, len(problem.groups)), dtype=np.int64))


def topped_up(problem: Problem, over: Callable[[], bool]) -> Iterator[Packing]:
    """Let nodes stay as they are and fill them up with the pods of the others, which go; the best of several shares.

    The fullest nodes stay. What they hold need not move, so these plans move few pods; and nodes that a scheduler
    filled over time are packed as well as any that are filled anew. Fewer are tried, and at least one is yielded, once
    it is `over`.
    """
    now = present_state(problem)
    room = np.maximum(problem.room[now.classes, : problem.whole], 1)
    fullness = (constraints.use_of(problem.requests[:, : problem.whole], now.contents) / room).max(axis=1, initial=0.0)
    kept = np.array([problem.classes[k].role == "kept" for k in now.classes], dtype=np.bool_)
    others = np.flatnonzero(~kept)
    others = others[np.argsort(-fullness[others], kind="stable")]
    if not others.size:
        return
    found: list[Packing] = []
    # Where most stay there is least to place.
    for many in sorted({int(share * others.size) for share in _STAYING}, reverse=True):
        if found and over():
            break
        stay = np.sort(np.append(np.flatnonzero(kept), others[:many]))
        found.append(fill(problem, Packing(now.classes[stay], now.contents[stay]), "best"))
    found.sort(key=lambda packing: (int(packing.unplaced(problem).sum()), packing.displaced_value(problem)))
    yield found[0] if over() else cheapen(problem, found[0])
    for packing in found[1:_MOST_CHEAPENED]:
        if over():
            break
        yield cheapen(problem, packing)


def fill(
    problem: Problem, start: Packing, fit: Fit, opening: int | None = None, largest_by: Largest = "most"
) -> Packing:
    """Place what has no place yet, the largest pods first, into open nodes and then into fresh ones.

    Pods are large by the share that they take of a typical node: "most" of any resource, or "all" together. "first"
    takes the open nodes in order, "best" those with the least room left first. The next node is of the class (an
    existing node that is not open yet, or an offering) that holds the rest of the group for the least money, or of the
    class `opening` where that can hold any.
    Pods that join others on a node come before all. Pool limits hold; what they leave no room for stays without a
    place.
    """
    nodes = _Nodes(problem, start)
    left = start.unplaced(problem)
    typical = problem.typical_room
    shares = problem.requests[:, : problem.whole] / typical
    size = shares.max(axis=1, initial=0.0) if largest_by == "most" else shares.sum(axis=1)
    # Who joins others can be nowhere else.
    size[[bool(group.key.beside) for group in problem.groups]] = np.inf
    caps = problem.caps
    for g in np.argsort(-size, kind="stable"):
        if not left[g]:
            continue
        able, holds = nodes.able(g)
        if fit == "best":
            order = np.argsort(nodes.spare[able], kind="stable")
            able, holds = able[order], holds[order]
        taken = np.clip(left[g] - (np.cumsum(holds) - holds), 0, holds)
        nodes.give(g, able[taken > 0], taken[taken > 0])
        left[g] -= taken.sum()
        while left[g] > 0:
            budget = budget_of(problem, nodes.classes)
            holds = caps[:, g]
            candidates = (holds > 0) & (budget > 0)
            if not candidates.any():
                break
            need = -(-left[g] // np.maximum(holds, 1))
            costs = need * problem.costs.astype(np.float64) + left[g] * problem.displeasure[:, g]
            price = np.where(candidates, costs, np.inf)
            k = int(np.argmin(price)) if opening is None or not candidates[opening] else opening
            fresh, each = int(min(need[k], budget[k])), int(holds[k])
            gets = np.clip(left[g] - each * np.arange(fresh), 0, each)
            nodes.give(g, nodes.open(k, fresh), gets)
            left[g] -= gets.sum()
    return _with_minimums(problem, nodes.packing())


class _Nodes:
    """Open nodes that are filled: `classes` (nodes), and of each what it has to spare, as the sum of the shares that
    are left of typical nodes, `spare` (nodes).

    Contents stand by group, since groups come one after the other, and the arrays are longer than there are nodes.
    """

    def __init__(self, problem: Problem, start: Packing) -> None:
        self._problem, self._count = problem, start.classes.size
        self._typical = problem.typical_room
        self._classes = start.classes.copy()
        self._held = start.contents.T.copy(order="C")
        self._rem = problem.room[start.classes] - constraints.use_of(problem.requests, start.contents)
        self._spare = self._shares(self._rem)

    @property
    def classes(self) -> IntArray:
        return self._classes[: self._count]

    @property
    def spare(self) -> FloatArray:
        return self._spare[: self._count]

    def able(self, g: int) -> tuple[IntArray, IntArray]:
        """Return the nodes that can take pods of the group, in order, and how many each."""
        able = np.flatnonzero(self._problem.admissible[self.classes, g])
        holds = _fitting(self._rem[able], self._problem.requests[g])
        able, holds = able[holds > 0], holds[holds > 0]
        if self._problem.sides[g]:
            free = ~self._held[_repelling(self._problem, g)][:, able].any(axis=0)
            able, holds = able[free], holds[free]
        return able, holds

    def give(self, g: int, nodes: IntArray, pods: IntArray) -> None:
        """Put so many pods of the group on each of these nodes."""
        self._held[g, nodes] += pods
        self._rem[nodes] -= pods[:, None] * self._problem.requests[g]
        self._spare[nodes] = self._shares(self._rem[nodes])

    def open(self, k: int, count: int) -> IntArray:
        """Add so many empty nodes of the class, and return which they are."""
        before, self._count = self._count, self._count + count
        if self._count > self._classes.size:
            more = self._count
            self._classes = np.append(self._classes, np.zeros(more, dtype=np.int64))
            self._held = np.hstack([self._held, np.zeros((self._held.shape[0], more), dtype=np.int64)])
            self._rem = np.vstack([self._rem, np.zeros((more, self._rem.shape[1]), dtype=np.int64)])
            self._spare = np.append(self._spare, np.zeros(more))
        fresh = np.arange(before, self._count)
        self._classes[fresh], self._rem[fresh] = k, self._problem.room[k]
        self._spare[fresh] = self._shares(self._rem[fresh])
        return fresh

    def packing(self) -> Packing:
        return Packing(self.classes.copy(), np.ascontiguousarray(self._held[:, : self._count].T))

    def _shares(self, rem: IntArray) -> FloatArray:
        shares: FloatArray = (rem[:, : self._problem.whole] / self._typical).sum(axis=1)
        return shares


def fitting_content(problem: Problem, k: int, wanted: IntArray) -> IntArray:
    """Return as many of the wanted pods (groups,) as one node of the class holds, the largest first."""
    asked = np.flatnonzero(wanted)
    whole = wanted[None, :]
    if (
        problem.admissible[k, asked].all()
        and constraints.within_capacity(problem.requests, problem.room[[k]], whole)[0]
        and constraints.one_side_of_each(problem.sides, whole)[0]
    ):
        return wanted.copy()
    content, room = np.zeros_like(wanted), problem.room[k].copy()
    size = (problem.requests[asked, : problem.whole] / problem.typical_room).max(axis=1, initial=0.0)
    for g in asked[np.argsort(-size, kind="stable")]:
        if problem.admissible[k, g] and not repelled(problem, content[None, :], g)[0]:
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


def deal(problem: Problem, kinds: Sequence[IntArray], nodes: FloatArray, shares: FloatArray) -> Packing:
    """Open the nodes of a relaxation, and deal its pods evenly.

    `kinds` names the classes of each kind of nodes, `nodes` (kinds) says how many of it are open, `shares` (kinds,
    groups) which pods they hold. Of existing nodes those stay that hold most of what their kind shall hold, and that
    stays with them. Of each kind all nodes are open from the start. The largest pods go first, each to where most is
    left of what it needs, weighted by how scarce that is; so nodes end alike, each about as full as the relaxation has
    them.
    """
    classes, contents = [np.zeros(0, dtype=np.int64)], [np.zeros((0, len(problem.groups)), dtype=np.int64)]
    carried, left = np.zeros(len(problem.groups)), problem.counts.copy()
    for members, amount, share in zip(kinds, nodes, shares, strict=True):
        carried = carried + share
        slots = np.repeat(members, np.minimum(problem.limits[members], max(1, math.ceil(amount))))
        kept = sum(int(problem.limits[k]) for k in members if problem.classes[k].role == "kept")
        opened = max(min(int(amount + 1e-6), slots.size), kept)
        if not opened:
            continue
        pods = np.clip(np.floor(carried + 0.5).astype(np.int64), 0, left)
        here = np.minimum(np.where(problem.admissible[slots], problem.present[slots], 0), pods)
        worth = (here @ problem.requests[:, : problem.whole] / problem.typical_room).max(axis=1, initial=0.0)
        stays = np.sort(np.argsort(-worth, kind="stable")[:opened])
        here = here[stays]
        here = np.minimum(here, np.maximum(pods - (np.cumsum(here, axis=0) - here), 0))
        content = _dealt(problem, slots[stays], here, pods - here.sum(axis=0))
        carried -= content.sum(axis=0)
        left -= content.sum(axis=0)
        classes.append(slots[stays])
        contents.append(content)
    return Packing(np.concatenate(classes), np.vstack(contents))


def _dealt(problem: Problem, classes: IntArray, here: IntArray, pods: IntArray) -> IntArray:
    """Return what these nodes hold, (nodes, groups), when the pods have come to what is here."""
    room, content = np.maximum(problem.room[classes], 1), here.copy()
    rem = problem.room[classes] - constraints.use_of(problem.requests, content)
    asked = (pods + here.sum(axis=0)) @ problem.requests
    scarce = (asked / room.sum(axis=0)) ** 4 / room.mean(axis=0)
    size = problem.requests @ scarce
    for g in np.argsort(-size, kind="stable"):
        left, asks = int(pods[g]), problem.requests[g]
        able = np.flatnonzero(problem.admissible[classes, g]) if left else np.zeros(0, dtype=np.int64)
        while left > 0:
            able = able[_fitting(rem[able], asks) > 0]
            holds = able[~repelled(problem, content[able], g)]
            if not holds.size:
                break
            score = (rem[holds] / room[holds]) @ (scarce * asks)
            chosen = holds[np.argsort(-score, kind="stable")[: min(left, -(-holds.size // 2))]]
            content[chosen, g] += 1
            rem[chosen] -= asks
            left -= chosen.size
    return content


def cheapen(problem: Problem, packing: Packing) -> Packing:
    """Give every booted node the cheapest offering that holds its content, then drop nodes whose pods fit elsewhere."""
    packing = with_cheapest_offerings(problem, packing)
    classes, contents = packing.classes, packing.contents.copy()
    alive = np.ones(classes.size, dtype=np.bool_)
    rem = problem.room[classes] - constraints.use_of(problem.requests, contents)
    typical = problem.typical_room
    adds: IntArray = np.array([row.coefficients for row in problem.rows], dtype=np.int64)
    adds = adds.reshape(len(problem.rows), len(problem.classes))
    met, least = adds[:, classes].sum(axis=1), np.array([row.rhs for row in problem.rows], dtype=np.int64)
    tried = max(_TRIED, _LOOKED_AT // max(1, classes.size))
    for n in np.lexsort((np.arange(classes.size), -problem.costs[classes], contents.sum(axis=1)))[:tried]:
        k = int(classes[n])
        after: IntArray = met - adds[:, k]
        if problem.classes[k].role == "kept" or (after < least).any():
            continue
        others = np.flatnonzero(alive & (np.arange(classes.size) != n))
        others = others[np.argsort((rem[others, : problem.whole] / typical).sum(axis=1), kind="stable")]
        taken = _absorbed(problem, Packing(classes, contents), rem, others, contents[n])
        if taken is None:
            continue
        where, content = taken
        before = problem.column_costs(classes[where], contents[where]).sum()
        before += problem.column_costs(classes[[n]], contents[[n]]).sum()
        if problem.column_costs(classes[where], content).sum() < before:
            contents[where] = content
            rem[where] = problem.room[classes[where]] - content @ problem.requests
            alive[n] = False
            met = after
    return with_cheapest_offerings(problem, Packing(classes[alive], contents[alive]))


def _absorbed(
    problem: Problem, packing: Packing, rem: IntArray, others: IntArray, pods: IntArray
) -> tuple[IntArray, IntArray] | None:
    """Put the pods into what the `others` of the nodes have left, the first first; None where they do not fit.

    `rem` (nodes, resources) is that room. Returns the nodes that take any, and their contents then.
    """
    asked = np.flatnonzero(pods)
    size = (problem.requests[asked, : problem.whole] / problem.typical_room).max(axis=1, initial=0.0)
    rem, contents = rem[others], dict[int, IntArray]()
    for g in asked[np.argsort(-size, kind="stable")]:
        able = np.flatnonzero(problem.admissible[packing.classes[others], g])
        if problem.sides[g]:
            able = able[~repelled(problem, packing.contents[others[able]], g)]
            beside = [i in contents and bool(repelled(problem, contents[i][None, :], g)[0]) for i in able.tolist()]
            able = able[~np.array(beside, dtype=np.bool_)]
        holds = _fitting(rem[able], problem.requests[g])
        gets = np.clip(int(pods[g]) - (np.cumsum(holds) - holds), 0, holds)
        if gets.sum() < pods[g]:
            return None
        rem[able] -= gets[:, None] * problem.requests[g]
        for i, some in zip(able[gets > 0].tolist(), gets[gets > 0].tolist(), strict=True):
            contents.setdefault(i, packing.contents[others[i]].copy())[g] += some
    takes = sorted(contents)
    return others[takes], np.array([contents[i] for i in takes], dtype=np.int64).reshape(len(takes), pods.size)


def repaired(problem: Problem, packing: Packing) -> Packing:
    """Place what has no place yet, on nodes that must stay and are left out as well, and cheapen the outcome."""
    used = np.bincount(packing.classes, minlength=len(problem.classes))
    short = [
        (k, c.limit - int(used[k])) for k, c in enumerate(problem.classes) if c.role == "kept" and used[k] < c.limit
    ]
    missing = np.repeat(
        np.array([k for k, _ in short], dtype=np.int64), np.array([count for _, count in short], dtype=np.int64)
    )
    contents = np.vstack([packing.contents, np.zeros((missing.size, packing.contents.shape[1]), dtype=np.int64)])
    return cheapen(problem, fill(problem, Packing(np.append(packing.classes, missing), contents), "best"))


def with_cheapest_offerings(problem: Problem, packing: Packing) -> Packing:
    """Give every booted node the cheapest offering that holds its content and that the rows allow.

    Of two that cost the same its pods have the one that they prefer. What is freed of a limit goes to pods that have no
    place yet.
    """
    offers = np.flatnonzero([c.role == "offering" for c in problem.classes])
    offers = offers[np.argsort(problem.costs[offers], kind="stable")]
    booted = np.flatnonzero(np.isin(packing.classes, offers))
    if not booted.size:
        return packing
    kinds, of = np.unique(packing.contents[booted], axis=0, return_inverse=True)
    holds = np.zeros((kinds.shape[0], offers.size), dtype=np.bool_)
    used = constraints.use_of(problem.requests, kinds)
    for i, k in enumerate(offers.tolist()):
        fits = constraints.within_room(used, problem.room[[k]])
        holds[:, i] = fits & ~(kinds[:, ~problem.admissible[k]] > 0).any(axis=1)
    classes = packing.classes.copy()
    rows = [row for row in problem.rows if row.kind != "kept"]
    adds = np.array([row.coefficients for row in rows], dtype=np.int64).reshape(len(rows), len(problem.classes))
    spare = adds[:, classes].sum(axis=1) - np.array([row.rhs for row in rows], dtype=np.int64)
    charges = np.broadcast_to(problem.costs[offers], holds.shape)
    if problem.displeasure.any():
        charges = charges + kinds @ problem.displeasure[offers].T
    place = {k: i for i, k in enumerate(offers.tolist())}
    cheapest = np.where(holds, charges, np.iinfo(np.int64).max).argmin(axis=1)
    for n, kind in zip(booted.tolist(), of.ravel().tolist(), strict=True):
        k, best = int(classes[n]), int(cheapest[kind]) if holds[kind].any() else -1
        if rows:
            # A row that does not hold yet must not come to be further from it.
            left = spare[:, None] + adds[:, offers] - adds[:, [k]]
            able = np.flatnonzero(holds[kind] & (left >= np.minimum(spare, 0)[:, None]).all(axis=0))
            best = int(able[charges[kind, able].argmin()]) if able.size else -1
        if best >= 0 and charges[kind, best] < charges[kind, place[k]]:
            classes[n] = offers[best]
            spare += adds[:, classes[n]] - adds[:, k]
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


def repelled(problem: Problem, contents: IntArray, g: int) -> npt.NDArray[np.bool_]:
    """Say which nodes hold pods beside which a pod of the group may not stand, (nodes)."""
    if not problem.sides[g]:
        return np.zeros(contents.shape[0], dtype=np.bool_)
    found: npt.NDArray[np.bool_] = np.any(contents[:, _repelling(problem, g)] > 0, axis=1)
    return found


def _repelling(problem: Problem, g: int) -> npt.NDArray[np.bool_]:
    """Say beside which groups a pod of this one may not stand, (groups)."""
    return constraints.opposed(problem.sides | problem.sides[g])


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
