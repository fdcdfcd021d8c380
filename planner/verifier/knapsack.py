"""The exact bounded knapsack with several resources, in whole numbers, by dynamic programming over contents.

States that another one dominates are dropped, and so are those whose upper bound does not beat what is known. The
bound is Dantzig's on one surrogate constraint, a non-negative combination of all resources: every solution
of the knapsack satisfies it, so its fractional optimum is never too low (Glover 1975,
https://doi.org/10.1287/opre.23.3.434; Pisinger 1997, https://doi.org/10.1287/opre.45.5.758).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.verifier.fractional import best_multipliers

_SURROGATE_SCALE = 1 << 40
_STATES_LIMIT = 100_000
"""More contents at once are not kept, """
_GROWN_LIMIT = 3 * _STATES_LIMIT
"""nor more than these made from them before the least promising go: some hundred megabytes."""
_NARROW = 300
"""Width of the first search, which seldom proves anything but nearly always finds the best content."""
_CHECK_EVERY = 4096
"""So many steps, some milliseconds, are made between two looks at the clock."""
_SHARES_SCALE = 1 << 30


@dataclass(frozen=True, slots=True)
class Item:
    """At most `count` equal things: what one is worth, and what it takes of each resource (>= 0)."""

    price: int
    weights: tuple[int, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Range:
    """lower <= max(floor, greatest value) <= upper; equal where the search was finished."""

    lower: int
    upper: int

    @property
    def exact(self) -> bool:
        return self.lower == self.upper


def greatest_value(items: Sequence[Item], capacity: Sequence[int], floor: int, expired: Callable[[], bool]) -> Range:
    """Return max(floor, max Σ price·x over whole x, 0 <= x <= count, Σ weights·x <= capacity where weights are).

    A resource of which the chosen items take nothing may be overdrawn (as `Resources.fits_in` says).
    `expired` is asked now and then; once it says so, the range found so far is returned.
    """
    least = max(floor, 0)
    useful = _fitting(items, capacity)
    limiting = _limiting(useful, capacity)
    if not limiting:
        value = max(least, sum(item.price * item.count for item in useful))
        return Range(value, value)
    # Cheap bounds first: at good prices most kinds of nodes are decided by one of them.
    small, room = _scaled(useful, capacity, limiting)
    if _root_bound(small, room, [1] * len(room)) <= least:
        return Range(least, least)
    shares = _best_shares(small, room)
    if _root_bound(small, room, shares) <= least:
        return Range(least, least)
    small = _without_dominated(small, room)
    ordered = _Ordered(small, room, _multipliers(shares, room))
    known = _search(ordered, max(least, _greedy(small, room)), _NARROW, expired).lower
    return _search(ordered, known, _STATES_LIMIT, expired)


def _fitting(items: Sequence[Item], capacity: Sequence[int]) -> list[Item]:
    """Drop what is worth nothing or does not fit, and lower the counts to what fits."""
    found: list[Item] = []
    for item in items:
        if item.price <= 0:
            continue
        fits = min((c // w for w, c in zip(item.weights, capacity, strict=True) if w), default=item.count)
        if (count := min(item.count, fits)) > 0:
            found.append(Item(item.price, item.weights, count))
    return found


def _scaled(items: list[Item], capacity: Sequence[int], limiting: list[int]) -> tuple[list[Item], list[int]]:
    """Keep the limiting resources alone, in units of the greatest common divisor of what the items take.

    Sums of multiples of the divisor never use the rest of the capacity.
    """
    divisors = [math.gcd(*(item.weights[r] for item in items)) for r in limiting]
    # Finest first: `_undominated` tells the first two apart best.
    units = sorted(zip(limiting, divisors, strict=True), key=lambda unit: -(capacity[unit[0]] // unit[1]))
    small = [Item(item.price, tuple(item.weights[r] // d for r, d in units), item.count) for item in items]
    return small, [capacity[r] // d for r, d in units]


def _without_dominated(items: list[Item], capacity: Sequence[int]) -> list[Item]:
    """Drop an item where there is always an unused one that is worth as much and takes no more.

    If a solution uses the item beside n dominating ones, n + 1 things that take at least the dominating items'
    least weight fit, so n < fits; with `fits` dominating things in stock one of them is unused.
    """
    ordered = sorted(items, key=lambda item: (-item.price, item.weights))
    kept: list[Item] = []
    for item in ordered:
        better = [k for k in kept if all(a <= b for a, b in zip(k.weights, item.weights, strict=True))]
        stock = sum(k.count for k in better)
        fits = min(
            (
                c // least
                for r, c in enumerate(capacity)
                if (least := min((k.weights[r] for k in better), default=0)) > 0
            ),
            default=stock + 1,
        )
        if stock < fits:
            kept.append(item)
    return kept


def _limiting(items: list[Item], capacity: Sequence[int]) -> list[int]:
    """Name the resources that can limit: not all items together fit, and no other resource implies the limit."""
    totals = [sum(item.weights[r] * item.count for item in items) for r in range(len(capacity))]
    candidates = [r for r, total in enumerate(totals) if 0 < total > capacity[r]]
    kept: list[int] = []
    for r in candidates:
        implied = any(
            all(item.weights[r] * capacity[s] <= item.weights[s] * capacity[r] for item in items)
            for s in kept + [s for s in candidates if s > r]
        )
        if not implied:
            kept.append(r)
    return kept


def _greedy(items: list[Item], room: list[int]) -> int:
    """Return the value of a good content: the worthiest for its share of the room first."""

    def share(item: Item) -> int:
        return sum(w * _SURROGATE_SCALE // c for w, c in zip(item.weights, room, strict=True)) or 1

    left, value = list(room), 0
    for item in sorted(items, key=lambda item: -item.price * _SURROGATE_SCALE // share(item)):
        copies = min((c // w for w, c in zip(item.weights, left, strict=True) if w), default=item.count)
        copies = min(copies, item.count)
        left = [c - copies * w for w, c in zip(item.weights, left, strict=True)]
        value += copies * item.price
    return value


def _multipliers(shares: Sequence[int], room: list[int]) -> list[int]:
    """Return whole multipliers of the resources, in proportion to share / capacity."""
    return [share * _SURROGATE_SCALE // capacity for share, capacity in zip(shares, room, strict=True)]


def _root_bound(items: list[Item], room: list[int], shares: Sequence[int]) -> int:
    """Return the surrogate bound of the whole knapsack with these shares."""
    ordered = _Ordered(items, room, _multipliers(shares, room))
    return ordered.bound(0, ordered.surrogate_room)


def _best_shares(items: list[Item], room: list[int]) -> list[int]:
    """Return shares of the resources whose surrogate bound is lowest: their worth in the fractional knapsack."""
    parts = [[w / c for w, c in zip(item.weights, room, strict=True)] for item in items]
    worth = best_multipliers([item.price for item in items], parts, [item.count for item in items])
    shares = [round(value * _SHARES_SCALE) for value in worth]
    return shares if any(shares) else [1] * len(room)


class _Ordered:
    """Items by falling price per surrogate weight, with running sums, so that a bound is one bisection."""

    def __init__(self, items: list[Item], room: list[int], multipliers: list[int]) -> None:
        def weight(item: Item) -> int:
            return sum(m * w for m, w in zip(multipliers, item.weights, strict=True))

        weighed = [(weight(item), item) for item in items]
        # The bound holds only for the exact order. Two different ratios price / weight differ by at least
        # 1 / (weight · weight), so that with twice the bits of the largest weight their floors differ too.
        bits = 2 * max(w for w, _ in weighed).bit_length() + 1
        weighed.sort(key=lambda pair: -((pair[1].price << bits) // pair[0]) if pair[0] else -math.inf)
        self.items = [item for _, item in weighed]
        self.weights = [w for w, _ in weighed]
        self.room = room
        self.surrogate_room = sum(m * c for m, c in zip(multipliers, room, strict=True))
        self.sum_weights, self.sum_prices = [0], [0]
        for w, item in weighed:
            self.sum_weights.append(self.sum_weights[-1] + w * item.count)
            self.sum_prices.append(self.sum_prices[-1] + item.price * item.count)

    def bound(self, first: int, left: int) -> int:
        """Return the fractional optimum, rounded down, of the items from `first` on in the surrogate room left."""
        reach = self.sum_weights[first] + left
        last = bisect_right(self.sum_weights, reach) - 1
        value = self.sum_prices[last] - self.sum_prices[first]
        if last < len(self.items):
            value += (reach - self.sum_weights[last]) * self.items[last].price // self.weights[last]
        return value


def _search(ordered: _Ordered, known: int, width: int, expired: Callable[[], bool]) -> Range:
    """Go through the items in order, keeping each content that may still become better than the best known.

    With more than `width` contents only the most promising go on, and the answer is no longer exact.

    A content is its room left, packed in one whole number: a field for each resource with a guard bit above it
    that a negative field would clear, and the surrogate room left on top.
    """
    fields = [capacity.bit_length() for capacity in ordered.room]
    offsets = [sum(fields[:r]) + r for r in range(len(fields) + 1)]
    guards = sum(1 << (offsets[r] + fields[r]) for r in range(len(fields)))
    top = offsets[-1]

    def pack(amounts: Sequence[int], surrogate: int) -> int:
        return sum(amount << offset for amount, offset in zip(amounts, offsets, strict=False)) + (surrogate << top)

    def most_promising(contents: dict[int, int], following: int) -> tuple[dict[int, int], int]:
        """Return the contents of greatest upper bound, `width` of them, and the greatest bound of the others."""
        bounds = ((value + ordered.bound(following, left >> top), left) for left, value in contents.items())
        ranked = sorted(bounds, reverse=True)
        return {left: contents[left] for _, left in ranked[:width]}, ranked[width][0]

    start = pack(ordered.room, ordered.surrogate_room) + guards
    states = {start: 0}
    best = upper = known
    ticks = 0
    for index, item in enumerate(ordered.items):
        packed, price, count = pack(item.weights, ordered.weights[index]), item.price, item.count
        bound, following = ordered.bound, index + 1
        grown: dict[int, int] = {}
        for state, worth in states.items():
            left, value = state, worth
            for _ in range(count + 1):
                ticks += 1
                if ticks % _CHECK_EVERY == 0 and expired():
                    return _open(ordered, index, states, Range(best, upper))
                if value > best:
                    best = value
                if value + bound(following, left >> top) > best and grown.get(left, -1) < value:
                    grown[left] = value
                left -= packed
                if left & guards != guards:
                    break
                value += price
            if len(grown) > _GROWN_LIMIT:
                grown, dropped = most_promising(grown, following)
                upper = max(upper, dropped)
        states = _undominated(grown, fields, offsets, expired)
        if not states:
            break
        if len(states) > width:
            states, dropped = most_promising(states, following)
            upper = max(upper, dropped)
    return Range(best, max(best, upper))


def _open(ordered: _Ordered, index: int, states: dict[int, int], known: Range) -> Range:
    """Return what is proven when the search ends early: every content descends from a state, or is known not to."""
    fields = [capacity.bit_length() for capacity in ordered.room]
    top = sum(fields) + len(fields)
    upper = max(value + ordered.bound(index, left >> top) for left, value in states.items())
    return Range(known.lower, max(known.lower, known.upper, upper))


def _undominated(
    states: dict[int, int], fields: list[int], offsets: list[int], expired: Callable[[], bool]
) -> dict[int, int]:
    """Drop each content beside which another one is worth as much and leaves as much of every resource.

    Contents come by falling value, so an earlier one dominates a later one that leaves at most as much. For each
    amount of the third resource the first two form a staircase (`_Stairs`); a Fenwick tree over the third finds all
    earlier contents that leave at least as much of it in a few staircases. Of further resources, contents are
    compared only where they leave the same. Once the time is over, all are returned.
    """
    if len(states) < 32:
        return states
    padded = [*fields, 0, 0, 0]
    starts = [*offsets, offsets[-1], offsets[-1]]
    first_mask, second_mask, third_mask = ((1 << bits) - 1 for bits in padded[:3])
    second_offset, third_offset = starts[1], starts[2]
    rest_offset = starts[3]
    rest_mask = (1 << (offsets[-1] - rest_offset)) - 1 if len(fields) > 3 else 0
    levels = third_mask + 1
    trees: dict[tuple[int, int], _Stairs] = {}
    kept: dict[int, int] = {}
    ordered = sorted(states.items(), key=lambda state: (-state[1], -state[0]))
    for tick, (left, value) in enumerate(ordered):
        if tick % _CHECK_EVERY == 0 and expired():
            return states
        first, second = left & first_mask, (left >> second_offset) & second_mask
        third, rest = (left >> third_offset) & third_mask, (left >> rest_offset) & rest_mask
        index = place = levels - third
        while index:
            stairs = trees.get((rest, index))
            if stairs is not None and stairs.covers(first, second):
                break
            index -= index & -index
        else:
            kept[left] = value
            while place <= levels:
                if (rest, place) not in trees:
                    trees[(rest, place)] = _Stairs()
                trees[(rest, place)].add(first, second)
                place += place & -place
    return kept


class _Stairs:
    """Pairs of which none is at least another one in both parts: the first ones fall while the second ones rise."""

    __slots__ = ("firsts", "seconds")

    def __init__(self) -> None:
        # Negated, so that the list rises as bisect needs it.
        self.firsts: list[int] = []
        self.seconds: list[int] = []

    def covers(self, first: int, second: int) -> bool:
        """Say whether some pair is at least this one in both parts."""
        position = bisect_right(self.firsts, -first)
        return position > 0 and self.seconds[position - 1] >= second

    def add(self, first: int, second: int) -> None:
        """Add a pair, and drop those that it covers."""
        start = bisect_left(self.firsts, -first)
        position = bisect_right(self.firsts, -first)
        if position and self.seconds[position - 1] >= second:
            return
        end = position
        while end < len(self.firsts) and self.seconds[end] <= second:
            end += 1
        self.firsts[start:end] = [-first]
        self.seconds[start:end] = [second]
