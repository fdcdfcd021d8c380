"""The best content of one node of each class at given prices of pods: a bounded knapsack of several resources.

    V_k = max  sum_g profit_kg(x_g)   over integers 0 <= x_g <= cap_kg with sum_g requests_g x_g <= room_k,
    profit_kg(x) = (price_g - displeasure_kg) x - move_price_g max(0, x - present_kg).

All classes are searched at once. Multipliers of the resources (`knapsacks`) give every group a reduced profit and every
partial content an upper bound. Groups whose reduced profit exceeds the distance to the floor are fixed; the
others (the core) are decided one after the other, the largest first, for all surviving partial contents in one step
of array arithmetic. A surrogate knapsack (all resources added up at their multipliers) bounds what a partial content
can still gain by whole pods, where fractional ones are too hopeful. Values are exact integers; a bound is a float with
half a nanodollar of margin, far above its rounding error. Where more partial contents survive than `width`, the most
promising are kept and the best bound of those dropped remains part of the answer, so that `upper` is always true, and
exact where nothing was dropped.

Source of the reduction to a core: E. Balas, E. Zemel, "An algorithm for large zero-one knapsack problems",
Operations Research 28 (1980); of the surrogate: F. Glover, "Surrogate constraints", Operations Research 16 (1968).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from planner.model.effort import never
from planner.optimizer import constraints
from planner.optimizer.constraints import FloatArray, IntArray
from planner.optimizer.knapsacks import MARGIN, Knapsacks, multipliers_of, outbid

# Of all classes together, so many partial contents are kept and so many made from them in one step: bounds the memory
# (about 100 bytes each) as well as the time.
_MOST_KEPT = 8_000
_MOST_MADE = 60_000
# Cells of the surrogate knapsacks' tables that stand at once, 8 bytes each.
_MOST_CELLS = 20_000_000
# Width x classes x groups of one search, in a hurry and with sharp bounds; every thousand take about a millisecond.
_MOST_STEPS, _MOST_STEPS_SHARP = 600_000, 4_000_000
_LEAST_WIDTH = 3
# With fewer buckets the surrogate knapsack is no sharper than fractional pods.
_FEWEST_BUCKETS = 100
# So many times as many partial contents as are kept are thinned before equal ones are looked for among them.
_CROWD = 4
# More than one content of a class at once saves rounds of the master program.
_CONTENTS_EACH = 30


@dataclass(frozen=True, slots=True)
class Priced:
    """What was found: `upper` >= V of each class, and contents better than the floor, with their classes.

    `multipliers` are what resources are worth here, the next pricing's guess.

    Shapes: `upper` (classes), `classes` (found), `contents` (found, groups), `multipliers` (classes, whole resources).
    """

    upper: IntArray
    classes: IntArray
    contents: IntArray
    multipliers: FloatArray


@dataclass(frozen=True, slots=True)
class Depth:
    """How hard a knapsack is searched: at most `width` partial contents are kept for each class, and with `buckets`
    their bounds are sharpened by the surrogate knapsack. Once `over` says so, only a few go on to the end.
    """

    width: int
    buckets: int
    over: Callable[[], bool] = never

    def within(self, size: int) -> Depth:
        """Return the depth that so many classes x groups can afford."""
        buckets = min(self.buckets, _MOST_CELLS // max(1, size))
        most = _MOST_STEPS_SHARP if self.buckets else _MOST_STEPS
        width = max(_LEAST_WIDTH, min(self.width, most // max(1, size)))
        return replace(self, width=width, buckets=buckets if buckets >= _FEWEST_BUCKETS else 0)


def price_contents(
    sacks: Knapsacks, prices: IntArray, floor: IntArray, depth: Depth, guess: FloatArray | None = None
) -> Priced:
    """Look for a content of each class worth more than its floor.

    `prices` (groups) and `floor` (classes) in nanodollars per hour. Where nothing better exists and nothing had to
    be dropped, `upper` is the floor; where the best content was found and nothing dropped, its value. Classes that
    the multipliers `guess` show to be out of reach (most, from one pricing to the next) cost next to nothing.
    """
    count, groups = sacks.caps.shape
    multipliers = np.zeros((count, sacks.whole)) if guess is None else guess.copy()
    none = np.zeros(0, dtype=np.int64)
    nothing = Priced(floor, none, np.zeros((0, groups), dtype=np.int64), multipliers)
    if groups == 0 or count == 0:
        return nothing
    doubtful = np.arange(count)
    if guess is not None:
        doubtful = np.flatnonzero(outbid(sacks, prices, floor, guess)[1].root > floor + MARGIN)
    multipliers[doubtful] = multipliers_of(sacks.only(doubtful), prices)
    _, roots = outbid(sacks, prices, floor, multipliers)
    active = np.flatnonzero(roots.root > floor + MARGIN)
    if not active.size:
        return nothing
    upper = floor.copy()
    parts = []
    for some in np.array_split(active, -(-active.size * groups * depth.buckets // _MOST_CELLS) or 1):
        tree = _Tree(
            sacks.only(some), prices, roots.multipliers[some], roots.stay[some], roots.arrive[some], roots.best[some]
        )
        found = tree.search(roots.root[some], floor[some], replace(depth, buckets=0) if depth.over() else depth)
        upper[some] = found.upper
        parts.append((some[found.classes], found.contents))
    classes, contents = np.concatenate([k for k, _ in parts]), np.vstack([found for _, found in parts])
    return Priced(upper, classes, contents, multipliers)


class _Tree:
    """One search over the cores of some classes; `order` (classes, stages) says which group is decided when."""

    def __init__(
        self, sacks: Knapsacks, prices: IntArray, multipliers: FloatArray, stay: FloatArray, arrive: FloatArray,
        best: FloatArray,
    ) -> None:  # fmt: skip
        self.sacks, self.prices, self.multipliers = sacks, prices, multipliers
        self.net: IntArray = prices[None, :] - sacks.displeasure
        self.stay, self.arrive, self.best = stay, arrive, best

    def search(self, root: FloatArray, floor: IntArray, depth: Depth) -> Priced:
        """Return the answer for the classes of the tree."""
        sacks, count = self.sacks, self.sacks.caps.shape[0]
        width = max(1, min(depth.width, _MOST_KEPT // count))
        usual: IntArray = np.where(self.arrive > 0, sacks.caps, np.where(self.stay > 0, sacks.present, 0))
        low = np.where(self.arrive > 0, self.arrive, np.where(self.stay > 0, self.stay, np.inf))
        high = np.where(usual >= sacks.present, -self.arrive, -self.stay)
        slack = (root - floor - MARGIN)[:, None]
        fixed = ((usual == 0) | (low > slack)) & ((usual == sacks.caps) | (high > slack))
        contents: IntArray = np.where(fixed, usual, 0)
        share = (sacks.requests[None] / np.maximum(sacks.room[:, None], 1)).max(axis=2)
        order = np.argsort(np.where(fixed, np.inf, -share), axis=1, kind="stable")
        stages = int((~fixed).sum(axis=1).max())
        order = order[:, :stages]
        suffix = np.zeros((count, stages + 1))
        core = np.take_along_axis(np.where(fixed, 0.0, self.best), order, axis=1)
        suffix[:, :stages] = np.cumsum(core[:, ::-1], axis=1)[:, ::-1]
        grain = self._grains(order, fixed)
        surrogate = _Surrogate(self, order, fixed, depth.buckets) if depth.buckets else None
        owner: IntArray = np.arange(count)
        worth = sacks.worth(owner, contents, self.prices)
        rem: IntArray = np.subtract(sacks.room, contents @ sacks.requests)
        # Which sides are on the node already: bounds do not see them, but a content that has both of a pair is dropped.
        marks: IntArray = np.bitwise_or.reduce(np.where(contents > 0, sacks.sides, 0), axis=1)
        alive = (rem >= 0).all(axis=1) & ~constraints.opposed(marks)
        owner, worth, rem, marks = owner[alive], worth[alive], rem[alive], marks[alive]
        lost = np.full(count, -np.inf)
        trail: list[tuple[IntArray, IntArray]] = [(np.flatnonzero(alive), np.zeros(int(alive.sum()), dtype=np.int64))]
        for stage in range(stages):
            if depth.over():
                width = min(width, _LEAST_WIDTH)
            g = order[owner, stage]
            open_ = ~fixed[owner, g]
            # What a pod more or less than usual costs is known of the fractional bound only.
            fractional, bound = self._bounds(owner, worth, rem, suffix[:, stage], grain[:, stage], surrogate, stage)
            spare = np.maximum(fractional - floor[owner] - MARGIN, 0.0)
            asks = sacks.requests[g]
            fits = np.where(asks > 0, rem // np.maximum(asks, 1), np.iinfo(np.int64).max).min(axis=1)
            top = np.minimum(sacks.caps[owner, g], fits)
            mid = usual[owner, g]
            up = np.floor(spare / np.maximum(high[owner, g], 1e-3))
            down = np.floor(spare / np.maximum(low[owner, g], 1e-3))
            last = np.minimum(top, mid + np.minimum(up, 1e6).astype(np.int64))
            first = np.maximum(0, mid - np.minimum(down, 1e6).astype(np.int64))
            last, first = np.where(open_, last, 0), np.where(open_, first, 0)
            many = np.maximum(last - first + 1, 0)
            base = np.arange(owner.size)
            if (made := int(many.sum())) > _MOST_MADE:
                base = _narrow(base, owner, worth, _state(rem, marks), bound, lost, max(1, width * _MOST_MADE // made))
                owner, worth, rem, first, many = owner[base], worth[base], rem[base], first[base], many[base]
                g, marks = g[base], marks[base]
            parent = np.repeat(np.arange(owner.size), many)
            take = np.arange(parent.size) - np.repeat(np.cumsum(many) - many, many) + first[parent]
            g, owner_next = g[parent], owner[parent]
            profit = take * self.net[owner_next, g] - sacks.move_prices[g] * np.maximum(
                take - sacks.present[owner_next, g], 0
            )
            worth_next = worth[parent] + profit
            rem_next = rem[parent] - take[:, None] * sacks.requests[g]
            after = stage + 1
            _, bound = self._bounds(
                owner_next, worth_next, rem_next, suffix[:, after], grain[:, after], surrogate, after
            )
            marks_next = marks[parent] | np.where(take > 0, sacks.sides[g], 0)
            keep = np.flatnonzero((bound > floor[owner_next] + MARGIN) & ~constraints.opposed(marks_next))
            keep = _narrow(keep, owner_next, worth_next, _state(rem_next, marks_next), bound, lost, width)
            trail.append((base[parent[keep]], take[keep]))
            owner, worth, rem, marks = owner_next[keep], worth_next[keep], rem_next[keep], marks_next[keep]
        better = np.flatnonzero(worth > floor[owner])
        winners = better[np.lexsort((better, -worth[better], owner[better]))]
        starts = np.unique(owner[winners], return_index=True)[1]
        rank = np.arange(winners.size) - np.repeat(starts, np.diff(np.append(starts, winners.size)))
        winners = winners[rank < _CONTENTS_EACH]
        rows, at = owner[winners], winners
        found = contents[rows]
        for stage in range(stages, 0, -1):
            parents, takes = trail[stage]
            g = order[rows, stage - 1]
            found[np.arange(rows.size), g] += np.where(fixed[rows, g], 0, takes[at])
            at = parents[at]
        upper = np.maximum(floor, np.where(np.isfinite(lost), np.floor(lost + MARGIN), -1).astype(np.int64))
        np.maximum.at(upper, rows, worth[winners])
        return Priced(upper, rows, found, self.multipliers)

    def _bounds(
        self, owner: IntArray, worth: IntArray, rem: IntArray, suffix: FloatArray, grain: IntArray,
        surrogate: _Surrogate | None, stage: int,
    ) -> tuple[FloatArray, FloatArray]:  # fmt: skip
        """Return the bound of each partial content by fractional pods, and the best that is known."""
        usable = rem - rem % grain[owner]
        left = (self.multipliers[owner] * usable).sum(axis=1)
        fractional: FloatArray = worth + left + suffix[owner]
        if surrogate is None:
            return fractional, fractional
        return fractional, np.minimum(fractional, worth + surrogate.most(owner, left, stage))

    def _grains(self, order: IntArray, fixed: npt.NDArray[np.bool_]) -> IntArray:
        """Return the greatest common divisor of what the groups still to come request.

        Shape (classes, stages + 1, resources). Room below one grain can no longer be used; where nothing more is
        requested, the grain is beyond all room.
        """
        count, stages = order.shape
        asks = np.where(np.take_along_axis(fixed, order, axis=1)[:, :, None], 0, self.sacks.requests[order])
        grains = np.zeros((count, stages + 1, self.sacks.requests.shape[1]), dtype=np.int64)
        for stage in range(stages - 1, -1, -1):
            grains[:, stage] = np.gcd(grains[:, stage + 1], asks[:, stage])
        return np.where(grains == 0, np.iinfo(np.int64).max, grains)


class _Surrogate:
    """The most that the groups still to come can add, with the resources added up at their multipliers.

    One knapsack of one resource for each class: room sum_r multiplier_r rem_r, in whole buckets, and each pod takes
    its share rounded down. Every content that fits the resources fits this knapsack, so its optimum is a bound, and
    one that sees that pods are whole. `table` (classes, stages + 1, buckets + 1).
    """

    def __init__(self, tree: _Tree, order: IntArray, fixed: npt.NDArray[np.bool_], buckets: int) -> None:
        sacks, rows = tree.sacks, np.arange(order.shape[0])
        room = np.maximum((tree.multipliers * sacks.room).sum(axis=1), 1e-9)
        self._scale = buckets / room
        shares = (tree.multipliers @ sacks.requests.T) * self._scale[:, None]
        size = np.floor(shares * (1 - 1e-9)).astype(np.int64)
        stages = order.shape[1]
        self._buckets = buckets
        self._table = np.zeros((rows.size, stages + 1, buckets + 1))
        for stage in range(stages - 1, -1, -1):
            g = order[:, stage]
            open_ = ~fixed[rows, g]
            best = self._table[:, stage + 1].copy()
            there = np.where(open_, sacks.present[rows, g], 0)
            coming = np.where(open_, sacks.caps[rows, g], 0) - there
            _add_pods(best, there, tree.net[rows, g], size[rows, g])
            _add_pods(best, coming, tree.net[rows, g] - sacks.move_prices[g], size[rows, g])
            self._table[:, stage] = best

    def most(self, owner: IntArray, left: FloatArray, stage: int) -> FloatArray:
        """Return the bound on what is added from this stage on, for partial contents with so much room left."""
        bucket = np.floor(left * self._scale[owner] * (1 + 1e-9) + 1e-6).astype(np.int64)
        found: FloatArray = self._table[owner, stage, np.clip(bucket, 0, self._buckets)]
        return found


def _add_pods(best: FloatArray, pods: IntArray, profit: IntArray, size: IntArray) -> None:
    """Let each class (row of `best`, by buckets of room) take up to so many pods more of this profit and size."""
    here = np.arange(best.shape[1])[None, :]
    left: IntArray = np.where(profit > 0, pods, 0)
    unit = 1
    # In portions of 1, 2, 4, … pods, which add up to every number of pods.
    while left.any():
        take = np.minimum(unit, left)
        left, unit = left - take, unit * 2
        some = np.flatnonzero(take)
        source = here - (size[some] * take[some])[:, None]
        more = np.take_along_axis(best[some], np.maximum(source, 0), axis=1) + (profit[some] * take[some])[:, None]
        best[some] = np.maximum(best[some], np.where(source >= 0, more, 0.0))


def _state(rem: IntArray, marks: IntArray) -> IntArray:
    """Return what two partial contents must have in common so that the one of less worth can go."""
    return np.column_stack([rem, marks]) if marks.any() else rem


def _narrow(
    keep: IntArray, owner: IntArray, worth: IntArray, rem: IntArray, bound: FloatArray, lost: FloatArray, width: int
) -> IntArray:
    """Keep one content of several with equal `rem` (`_state`), and the `width` of best bound of each class.

    `lost` takes the best bound of what is dropped for its number.
    """
    if keep.size <= width:
        return keep
    if keep.size > _CROWD * width:
        # Equal room is looked for among the promising ones only: what that drops is bounded like everything dropped.
        keep = _best_of_each(keep, owner, bound, lost, 2 * width)
    held, whose = rem[keep], owner[keep]
    mixed = held @ _MIX[: rem.shape[1]] + whose * _MIX[rem.shape[1]]
    ranked = np.lexsort((-worth[keep], mixed))
    held, whose = held[ranked], whose[ranked]
    same = np.zeros(ranked.size, dtype=np.bool_)
    same[1:] = (whose[1:] == whose[:-1]) & (held[1:] == held[:-1]).all(axis=1)
    return _best_of_each(keep[np.sort(ranked[~same])], owner, bound, lost, width)


def _best_of_each(keep: IntArray, owner: IntArray, bound: FloatArray, lost: FloatArray, width: int) -> IntArray:
    """Keep the best of each class; `keep` is in order, and so are the owners."""
    best = keep[np.argsort(-bound[keep], kind="stable")]
    # Numbers of 16 bits are sorted in linear time.
    small = owner[best].astype(np.uint16) if lost.size <= _MOST_NUMBERED else owner[best]
    best = best[np.argsort(small, kind="stable")]
    counts = np.bincount(owner[keep], minlength=lost.size)
    rank = np.arange(best.size) - np.repeat(np.cumsum(counts) - counts, counts)
    beyond = best[rank == width]
    lost[owner[beyond]] = np.maximum(lost[owner[beyond]], bound[beyond])
    return np.sort(best[rank < width])


_MOST_NUMBERED = 1 << 16
# Odd multipliers that tell vectors of room apart when they are added up; equality is compared in full afterwards.
_MIX = np.array([(0x9E3779B97F4A7C15 * (2 * i + 1)) % (1 << 61) | 1 for i in range(64)], dtype=np.int64)
