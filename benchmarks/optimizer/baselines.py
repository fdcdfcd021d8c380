"""What else one could do: first-fit and best-fit decreasing and the best single machine type, written for comparison.

They share no code with the planner. All of them work on shapes (so many identical pods): pods of one shape are placed
one after the other, and a node that took one of them takes the next as well while there is room, in first fit because
it still is the first, in best fit because its rest became smaller. So many at once give the same as one by one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.optimizer.machines import Machine, undominated
from benchmarks.optimizer.shapes import Shape

Fit = Literal["first", "best"]
Whole = NDArray[np.int64]

ORDERS = ("dominant", "sum", "cpu", "memory")
"""By which share of the average machine pods decrease."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Nodes, by index into the machines, and what each holds, of shape (nodes, shapes); USD per hour."""

    machines: tuple[Machine, ...]
    kinds: Whole
    contents: Whole
    how: str

    @property
    def price_nanousd_per_hour(self) -> int:
        return int(sum(self.machines[kind].price_nanousd_per_hour for kind in self.kinds))


@dataclass(frozen=True, slots=True)
class Baseline:
    """The best variant of a heuristic: its price, how it was made, and how long all variants took."""

    name: str
    packed: Packed | None
    seconds: float


def baselines(shapes: Sequence[Shape], machines: Sequence[Machine]) -> tuple[Baseline, ...]:
    """Return FFD, BFD and the best single machine type for pods on an empty cluster.

    FFD and BFD are tried in every order of `ORDERS` with each machine type as the one that is opened (a pod that it
    cannot hold opens the cheapest type that can) and with the type that is cheapest for what remains; afterwards
    every node becomes the cheapest machine that holds its pods. The best variant counts. The best single type is the
    better of both fits on one type alone, as it is. Each pod must fit on some machine.
    """
    return (_best("ffd", shapes, machines, "first"), _best("bfd", shapes, machines, "best"), _single(shapes, machines))


def _best(name: str, shapes: Sequence[Shape], machines: Sequence[Machine], fit: Fit) -> Baseline:
    began = time.perf_counter()
    useful = undominated(machines)
    found = [
        packer.downsized(packer.pack(opening))
        for order in ORDERS
        for packer in (_Packer(shapes, useful, fit, order),)
        for opening in (*range(len(useful)), None)
    ]
    return Baseline(name, min(found, key=_price), time.perf_counter() - began)


def _single(shapes: Sequence[Shape], machines: Sequence[Machine]) -> Baseline:
    began = time.perf_counter()
    found: list[Packed] = []
    for machine in undominated(machines):
        if all(a <= b for shape in shapes for a, b in zip(shape.amounts, machine.amounts, strict=True)):
            for order in ORDERS:
                found.extend(_Packer(shapes, (machine,), fit, order).pack(0) for fit in _FITS)
    return Baseline("single", min(found, key=_price, default=None), time.perf_counter() - began)


_FITS: tuple[Fit, ...] = ("first", "best")


def _price(packed: Packed) -> int:
    return packed.price_nanousd_per_hour


def _times(room: Whole, need: Whole) -> Whole:
    """Return how often the need fits into each room; some pods of the trace need no CPU at all."""
    asked = need > 0
    found: Whole = (room[..., asked] // need[asked]).min(axis=-1)
    return found


class _Packer:
    """Packs the shapes in one order by one fit; rows are nodes, machines or shapes, columns CPU, memory and pods."""

    def __init__(self, shapes: Sequence[Shape], machines: tuple[Machine, ...], fit: Fit, order: str) -> None:
        self._machines = machines
        self._fit = fit
        self._order = order
        self._room: Whole = np.array([machine.amounts for machine in machines], dtype=np.int64)
        self._prices = np.array([machine.price_nanousd_per_hour for machine in machines], dtype=np.float64)
        self._needs: Whole = np.array([shape.amounts for shape in shapes], dtype=np.int64)
        self._counts: Whole = np.array([shape.count for shape in shapes], dtype=np.int64)
        holds = np.all(self._needs[:, None, :] <= self._room[None, :, :], axis=2)
        if not np.all(np.any(holds, axis=1)):
            raise ValueError("a pod fits on no machine")
        shares = self._needs / self._room.mean(axis=0)
        size = {
            "dominant": shares[:, :2].max(axis=1),
            "sum": shares[:, :2].sum(axis=1),
            "cpu": shares[:, 0],
            "memory": shares[:, 1],
        }[order]
        self._sequence = np.lexsort((-self._needs[:, 1], -self._needs[:, 0], -size))
        # What a pod alone is worth: its part of the machine on which this part is cheapest.
        parts = (self._needs[:, None, :] / self._room[None, :, :]).max(axis=2)
        self._worth = np.where(parts <= 1, parts * self._prices, np.inf).min(axis=1)
        cheapest = self._prices[:, None] / self._room[:, :2]
        self._value_of_rest = cheapest.min(axis=0)

    def pack(self, opening: int | None) -> Packed:
        """Pack everything; nodes are opened of this machine type, or of the one that is cheapest for what remains."""
        rest, contents = np.zeros((0, 3), dtype=np.int64), np.zeros((0, len(self._counts)), dtype=np.int64)
        kinds: list[int] = []
        left = self._counts.copy()
        for place, shape in enumerate(self._sequence):
            need = self._needs[shape]
            if kinds:
                left[shape] -= self._fill(rest, contents, shape, int(left[shape]))
            while left[shape]:
                kind, nodes = self._open(opening, self._sequence[place:], left)
                each = int(_times(self._room[kind], need))
                nodes = min(nodes, -(-int(left[shape]) // each))
                taken = np.full(nodes, each)
                taken[-1] = min(each, int(left[shape]) - each * (nodes - 1))
                fresh = np.zeros((nodes, len(self._counts)), dtype=np.int64)
                fresh[:, shape] = taken
                contents = np.vstack((contents, fresh))
                rest = np.vstack((rest, self._room[kind] - taken[:, None] * need))
                kinds += [kind] * nodes
                left[shape] -= taken.sum()
        opened = "the cheapest for what remains" if opening is None else self._machines[opening].name
        how = f"{self._fit} fit, decreasing by {self._order}, opening {opened}"
        return Packed(self._machines, np.array(kinds, dtype=np.int64), contents, how)

    def downsized(self, packed: Packed) -> Packed:
        """Return the packing with each node as the cheapest machine that holds its pods."""
        load = packed.contents @ self._needs
        kinds = packed.kinds.copy()
        for kind in np.argsort(-self._prices, kind="stable"):
            fits = (load <= self._room[kind]).all(axis=1) & (self._prices[kind] < self._prices[kinds])
            kinds[fits] = kind
        return Packed(packed.machines, kinds, packed.contents, packed.how)

    def _fill(self, rest: Whole, contents: Whole, shape: int, count: int) -> int:
        """Put as many pods of the shape as fit, at most so many, on the open nodes; return how many."""
        need = self._needs[shape]
        fits = _times(rest, need)
        candidates = np.flatnonzero(fits)
        if self._fit == "best":
            order = np.argsort(rest[candidates, :2] @ self._value_of_rest, kind="stable")
            candidates = candidates[order]
        before = np.cumsum(fits[candidates]) - fits[candidates]
        taken = np.clip(count - before, 0, fits[candidates])
        contents[candidates, shape] += taken
        rest[candidates] -= taken[:, None] * need
        return int(taken.sum())

    def _open(self, opening: int | None, remaining: Whole, left: Whole) -> tuple[int, int]:
        """Return the machine type to open for the first remaining shape, and how many of it at least at once."""
        need = self._needs[remaining[0]]
        if opening is not None:
            if (self._room[opening] >= need).all():
                return opening, int(left[remaining[0]])
            holding = np.flatnonzero((self._room >= need).all(axis=1))
            return int(holding[np.argmin(self._prices[holding])]), int(left[remaining[0]])
        free, worth = self._room.copy(), np.zeros(len(self._machines))
        repeats = np.full(len(self._machines), np.iinfo(np.int64).max)
        first = np.zeros(len(self._machines), dtype=bool)
        for shape in remaining:
            if left[shape]:
                taken = np.minimum(_times(free, self._needs[shape]), left[shape])
                free -= taken[:, None] * self._needs[shape]
                worth += taken * self._worth[shape]
                repeats = np.where(taken > 0, np.minimum(repeats, left[shape] // np.maximum(taken, 1)), repeats)
                if shape == remaining[0]:
                    first = taken > 0
        kind = int(np.argmin(np.where(first, self._prices / np.maximum(worth, 1e-9), np.inf)))
        return kind, max(1, int(repeats[kind]))


def faults(packed: Packed, shapes: Sequence[Shape]) -> Iterator[str]:
    """Say what is wrong with a packing: pods without a place or with two, nodes that hold more than they can."""
    for index, shape in enumerate(shapes):
        if (placed := int(packed.contents[:, index].sum())) != shape.count:
            yield f"shape {index}: {placed} of {shape.count} pods have a place"
    needs = np.array([shape.amounts for shape in shapes], dtype=np.int64)
    for number, kind in enumerate(packed.kinds):
        if (packed.contents[number] @ needs > np.array(packed.machines[kind].amounts)).any():
            yield f"node {number} holds more than a {packed.machines[kind].name} can"
