"""Pods of a plan change places where that pleases them: the nodes stay, and so does what is paid for them.

A solve ends when its plan is proven nearly the cheapest; what pods prefer is mostly less than what is left unproven. So
the best plan is gone over once more: every new node is bought where its pods like it best, and a displeased pod goes to
a node with room for it, or changes places with another pod. Every step lowers the value, moves included.
"""

from __future__ import annotations

import numpy as np

from planner.optimizer import constraints
from planner.optimizer.constraints import IntArray, use_of
from planner.optimizer.heuristics import with_cheapest_offerings
from planner.optimizer.packing import Packing
from planner.optimizer.problem import BoolArray, Problem

# So often pods of one group on one node are looked at for another pod to change places with; each look is at every
# pair of a node and a group, some milliseconds at 1,000 nodes with 100 groups.
_MOST_LOOKS = 500
# So often all displeased pods are gone through; mostly the second time finds nothing.
_MOST_ROUNDS = 20
# Of the exchanges that please most, so many are tried; the others fail by pods that stand apart.
_TRIED = 20


def contented(problem: Problem, packing: Packing, *, settled: bool) -> Packing:
    """Return the packing with its pods where they are displeased least, as far as single steps lead.

    Where `settled`, no pod that stays where it runs leaves its node: a roll-out for its sake would move others too.
    """
    if not problem.displeasure.any():
        return packing
    looks = _MOST_LOOKS
    for _ in range(_MOST_ROUNDS):
        arrangement = _Arrangement(problem, with_cheapest_offerings(problem, packing), settled)
        changed = False
        for n, g in arrangement.displeased():
            changed |= arrangement.relocate(n, g)
            while arrangement.contents[n, g] and looks:
                looks -= 1
                if not arrangement.exchange(n, g):
                    break
                changed = True
        packing = Packing(arrangement.classes, arrangement.contents)
        if not changed:
            break
    return packing


class _Arrangement:
    """A packing that is being changed: its contents, and the room that is left, (nodes, resources)."""

    def __init__(self, problem: Problem, packing: Packing, settled: bool) -> None:
        self.problem, self.settled = problem, settled
        self.classes, self.contents = packing.classes, packing.contents.copy()
        self._left: IntArray = problem.room[self.classes] - use_of(problem.requests, self.contents)
        self._displeasure: IntArray = problem.displeasure[self.classes]
        self._present: IntArray = problem.present[self.classes]
        self._admits: BoolArray = problem.admissible[self.classes]

    def displeased(self) -> list[tuple[int, int]]:
        """Return nodes and groups whose pods would like another node of the packing better, the worst first."""
        liked = np.where(self._admits, self._displeasure, np.iinfo(np.int64).max).min(axis=0, initial=2**62)
        worse = np.where(self.contents > 0, self._displeasure - liked, 0)
        found = np.argwhere(worse > 0)
        order = np.argsort(-worse[tuple(found.T)], kind="stable")
        return [(int(n), int(g)) for n, g in found[order]]

    def relocate(self, n: int, g: int) -> bool:
        """Send pods of the group from the node to where there is room and they are pleased more; say if any went."""
        went = False
        while (count := self._may_leave(n, g)) > 0:
            gain = np.where(self._open_to(g), self._gain(n, g), 0)
            if gain.max() <= 0:
                break
            to = int(gain.argmax())
            asks = self.problem.requests[g]
            wanted = asks > 0
            fits = int((self._left[to, wanted] // asks[wanted]).min(initial=count))
            # A further pod may be one that arrives, where this one was there already.
            back = int(self._present[to, g] - self.contents[to, g])
            self._send(g, n, to, min(count, fits, back if back > 0 else count))
            went = True
        return went

    def exchange(self, n: int, g: int) -> bool:
        """Let one pod of the group on the node change places with another pod, where both together gain by it."""
        problem = self.problem
        if self._may_leave(n, g) <= 0:
            return False
        leaves = np.where(self.contents > self._present, problem.move_prices, 0)
        comes = np.where(self.contents[n] < self._present[n], 0, problem.move_prices[g])
        gain = self._gain(n, g)[:, None] + self._displeasure - self._displeasure[n] + leaves - comes
        possible = (self.contents > 0) & self._admits[n] & self._admits[:, [g]]
        if self.settled:
            possible &= self.contents > self._present
        possible[n] = False
        possible[:, g] = False
        where, others = np.nonzero(possible & (gain > 0))
        asks = problem.requests
        here = self._left[n] + asks[g] - asks[others]
        there = self._left[where] + asks[others] - asks[g]
        fits = ((here >= 0) | (asks[others] == 0)).all(axis=1) & ((there >= 0) | (asks[g] == 0)).all(axis=1)
        where, others = where[fits], others[fits]
        for i in np.argsort(-gain[where, others], kind="stable")[:_TRIED]:
            to, other = int(where[i]), int(others[i])
            self._send(g, n, to, 1)
            self._send(other, to, n, 1)
            if constraints.one_side_of_each(problem.sides, self.contents[[n, to]]).all():
                return True
            self._send(other, n, to, 1)
            self._send(g, to, n, 1)
        return False

    def _may_leave(self, n: int, g: int) -> int:
        """Return how many pods of the group may leave the node at the same price of moves."""
        arrived = int(self.contents[n, g] - self._present[n, g])
        if arrived > 0 or self.settled:
            return max(arrived, 0)
        return int(self.contents[n, g])

    def _gain(self, n: int, g: int) -> IntArray:
        """Return what it gains that one pod of the group leaves the node for each other one, (nodes,)."""
        move = int(self.problem.move_prices[g])
        saved = move if self.contents[n, g] > self._present[n, g] else 0
        paid = np.where(self.contents[:, g] < self._present[:, g], 0, move)
        gain: IntArray = self._displeasure[n, g] - self._displeasure[:, g] + saved - paid
        gain[n] = 0
        return gain

    def _open_to(self, g: int) -> BoolArray:
        """Say which nodes admit and hold one more pod of the group, (nodes,)."""
        problem, asks = self.problem, self.problem.requests[g]
        open_: BoolArray = self._admits[:, g] & ((self._left >= asks) | (asks == 0)).all(axis=1)
        if problem.sides[g]:
            more = self.contents.copy()
            more[:, g] += 1
            open_ &= constraints.one_side_of_each(problem.sides, more)
        return open_

    def _send(self, g: int, n: int, to: int, count: int) -> None:
        self.contents[n, g] -= count
        self.contents[to, g] += count
        self._left[n] += count * self.problem.requests[g]
        self._left[to] -= count * self.problem.requests[g]
