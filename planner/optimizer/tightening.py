"""A plan's nodes filled to the brim: what they have left is brought together until whole nodes can go.

A node that a scheduler filled, or that pods were dealt to, is full of one resource and has some left of another. So
nodes that have different resources left exchange pods, until each has some of both (`balanced`). Then nodes are emptied
one after the other (`emptied`): their pods go to where they fit, the largest first, and one that fits nowhere takes the
place of a smaller one, which is placed in its turn.

Source: F. Glover, "Ejection chains, reference structures and alternating path methods for traveling salesman problems",
Discrete Applied Mathematics 65 (1996).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from planner.optimizer.constraints import FloatArray, IntArray, use_of
from planner.optimizer.heuristics import repelled, with_cheapest_offerings
from planner.optimizer.packing import Packing
from planner.optimizer.problem import BoolArray, Problem

# A node whose free shares of the two scarcest resources differ by less is balanced, and an exchange that makes less of
# the difference between two nodes, or as little for each pod more that moves, is none.
_BALANCED, _LEAST_GAIN, _GAIN_EACH_MOVE = 0.01, 0.004, 0.001
# After as many partners in vain a node stays as it is.
_VAIN_PARTNERS = 6
# A pod that fits nowhere looks for its place on so many nodes, those first that lack least for it; the pod that makes
# room must be smaller than so much of it; and after so many pods placed a node is given up.
_NEAREST, _SMALLER, _MOST_PLACED = 48, 0.97, 4_000
# After as many nodes of one kind in vain, in a row, no more of the kind are tried.
_VAIN_NODES = 5


def tightened(problem: Problem, packing: Packing, over: Callable[[], bool]) -> Packing:
    """Return the packing with as few nodes as can be, until it is `over`; where none can go it may be worse."""
    return emptied(problem, balanced(problem, packing, over), over)


def balanced(problem: Problem, packing: Packing, over: Callable[[], bool]) -> Packing:
    """Let nodes with different resources left exchange pods, one for one.

    Of the two scarcest resources the shares left of a node's room shall be alike. The most tilted nodes begin, each
    with those that are tilted most to the other side.
    """
    if problem.whole < 2:
        return packing
    state = _State.of(problem, packing)
    room = np.maximum(problem.room[packing.classes, : problem.whole], 1)
    used = use_of(problem.requests[:, : problem.whole], packing.contents)
    scarce = np.argsort(-used.sum(axis=0) / np.maximum(room.sum(axis=0), 1), kind="stable")[:2]
    exchange = _Exchange(state, scarce, room[:, scarce].astype(np.float64))
    for one in np.argsort(-exchange.tilts, kind="stable").tolist():
        if exchange.tilts[one] < _BALANCED:
            continue
        vain = 0
        for other in np.argsort(exchange.tilts, kind="stable").tolist():
            if (
                over()
                or vain == _VAIN_PARTNERS
                or exchange.tilts[one] < _BALANCED
                or exchange.tilts[other] > -_BALANCED
            ):
                break
            found = False
            while exchange.tilts[one] > _BALANCED and exchange.between(one, other):
                found = True
            vain = 0 if found else vain + 1
    return Packing(state.classes, state.contents)


def emptied(problem: Problem, packing: Packing, over: Callable[[], bool]) -> Packing:
    """Remove nodes whose pods find places on the others, where that makes the packing cheaper.

    Those go first that hold least for what they cost. Every booted node that is left gets its cheapest offering.
    """
    state = _State.of(problem, packing)
    size = (problem.requests[:, : problem.whole] / problem.typical_room).sum(axis=1)
    adds = np.array([row.coefficients for row in problem.rows], dtype=np.int64)
    adds = adds.reshape(len(problem.rows), len(problem.classes))
    met, least = adds[:, packing.classes].sum(axis=1), np.array([row.rhs for row in problem.rows], dtype=np.int64)
    load = (packing.contents @ size) / np.maximum(problem.costs[packing.classes], 1)
    vain = Counter[tuple[str, str, str]]()
    for n in np.argsort(load, kind="stable").tolist():
        k = int(packing.classes[n])
        c = problem.classes[k]
        kind = (c.pool, c.zone, c.machine_type)
        after: IntArray = met - adds[:, k]
        if over():
            break
        if c.role == "kept" or vain[kind] == _VAIN_NODES or (after < least).any():
            continue
        trial = state.without(n, size)
        if trial is None or trial.cost(trial.changed) >= state.cost(trial.changed):
            vain[kind] += 1
            continue
        state, met, vain[kind] = trial, after, 0
    return with_cheapest_offerings(problem, Packing(state.classes[state.alive], state.contents[state.alive]))


@dataclass(slots=True)
class _State:
    """A packing that is being changed: `rem` (nodes, resources) is what is left, `alive` (nodes) which are in it.

    `changed` are the nodes that hold something else than in the state that it was made from, or are gone.
    """

    problem: Problem
    classes: IntArray
    contents: IntArray
    rem: IntArray
    alive: BoolArray
    changed: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, problem: Problem, packing: Packing) -> _State:
        rem = problem.room[packing.classes] - use_of(problem.requests, packing.contents)
        alive = np.ones(packing.classes.size, dtype=np.bool_)
        return cls(problem, packing.classes, packing.contents.copy(), rem, alive)

    def cost(self, nodes: set[int]) -> int:
        """Return what these of the nodes cost with their contents, as far as they are in it."""
        some = np.array(sorted(nodes), dtype=np.int64)
        some = some[self.alive[some]]
        return int(self.problem.column_costs(self.classes[some], self.contents[some]).sum())

    def without(self, n: int, size: FloatArray) -> _State | None:
        """Return the state in which the node's pods are on the others; None where they do not find a place.

        `size` (groups) orders pods: one that is placed makes way for none that is larger, so that there is an end.
        """
        trial = _State(self.problem, self.classes, self.contents.copy(), self.rem.copy(), self.alive.copy())
        trial.alive[n] = False
        trial.changed.add(n)
        homeless = trial.contents[n].copy()
        trial.contents[n] = 0
        for _ in range(_MOST_PLACED):
            waiting = np.flatnonzero(homeless)
            if not waiting.size:
                return trial
            g = int(waiting[np.argmax(size[waiting])])
            ejected = trial._place(g, size)
            if ejected is None:
                return None
            homeless[g] -= 1
            homeless[ejected] += 1
        return None

    def _place(self, g: int, size: FloatArray) -> IntArray | None:
        """Place one pod of the group; return the groups of the pods that made way for it, none or one.

        None where there is no place. Where it fits, it goes to where it is now or else to where least is left.
        """
        problem, asks, whole = self.problem, self.problem.requests[g], self.problem.whole
        able = np.flatnonzero(self.alive & problem.admissible[self.classes, g])
        if problem.sides[g]:
            able = able[~repelled(problem, self.contents[able], g)]
        asked, typical = np.flatnonzero(asks), problem.typical_room
        slack = self.rem[np.ix_(able, asked)] - asks[asked]
        fits = (slack >= 0).all(axis=1)
        if fits.any():
            able = able[fits]
            left = ((self.rem[able, :whole] - asks[:whole]) / typical).sum(axis=1)
            away = self.contents[able, g] >= problem.present[self.classes[able], g]
            m = int(able[np.lexsort((left, away))[0]])
            self._put(m, g, 1)
            return np.zeros(0, dtype=np.int64)
        first = asked[asked < whole]
        lack = np.maximum(-slack[:, : first.size], 0) / typical[first]
        nearest = np.argsort(lack.sum(axis=1), kind="stable")[:_NEAREST]
        able, slack = able[nearest], slack[nearest]
        smaller = np.flatnonzero(size < _SMALLER * size[g])
        there = self.contents[np.ix_(able, smaller)] > 0
        after = slack[:, None, :] + problem.requests[np.ix_(smaller, asked)][None]
        makes_way = there & (after >= 0).all(axis=2)
        if not makes_way.any():
            return None
        i, j = np.unravel_index(np.argmin(np.where(makes_way, size[smaller], np.inf)), makes_way.shape)
        self._put(int(able[i]), int(smaller[j]), -1)
        self._put(int(able[i]), g, 1)
        return smaller[[j]]

    def _put(self, n: int, g: int, count: int) -> None:
        self.changed.add(n)
        self.contents[n, g] += count
        self.rem[n] -= count * self.problem.requests[g]


class _Exchange:
    """Exchanges between nodes; `tilts` (nodes) is by how much more is left of the first of two resources, in shares."""

    def __init__(self, state: _State, scarce: IntArray, room: FloatArray) -> None:
        self._state, self._scarce, self._room = state, scarce, room
        self._admits = state.problem.admissible[state.classes]
        # Whoever stands apart from others is left alone.
        self._free = state.problem.sides == 0
        self.tilts = self._tilt(slice(None), state.rem[:, scarce])

    def between(self, one: int, other: int) -> bool:
        """Exchange the two pods of these nodes that balance them most; say whether there are any."""
        state, requests = self._state, self._state.problem.requests
        here, there = state.contents[one], state.contents[other]
        go = np.flatnonzero((here > 0) & self._admits[other] & self._free)
        come = np.flatnonzero((there > 0) & self._admits[one] & self._free)
        if not go.size or not come.size:
            return False
        # Of some 200 resources and shares few are asked for by any of them.
        asked = np.flatnonzero(requests[go].any(axis=0) | requests[come].any(axis=0))
        change = requests[np.ix_(go, asked)][:, None, :] - requests[np.ix_(come, asked)][None]
        has, has_there = state.rem[one, asked], state.rem[other, asked]
        left, left_there = has + change, has_there - change
        possible = (left >= np.minimum(has, 0)).all(axis=2)
        possible &= (left_there >= np.minimum(has_there, 0)).all(axis=2)
        shift = requests[np.ix_(go, self._scarce)][:, None, :] - requests[np.ix_(come, self._scarce)][None]
        tilts = self._tilt(one, state.rem[one, self._scarce] + shift)
        tilts_there = self._tilt(other, state.rem[other, self._scarce] - shift)
        gain = abs(self.tilts[one]) + abs(self.tilts[other]) - np.abs(tilts) - np.abs(tilts_there)
        gain -= _GAIN_EACH_MOVE * self._moves(one, other, go, come)
        gain = np.where(possible, gain, -np.inf)
        i, j = np.unravel_index(np.argmax(gain), gain.shape)
        if gain[i, j] < _LEAST_GAIN:
            return False
        here[[go[i], come[j]]] += (-1, 1)
        there[[go[i], come[j]]] += (1, -1)
        state.rem[one, asked], state.rem[other, asked] = left[i, j], left_there[i, j]
        self.tilts[one], self.tilts[other] = tilts[i, j], tilts_there[i, j]
        return True

    def _tilt(self, n: int | slice, left: IntArray) -> FloatArray:
        """Return by how much more is left of the first of the two, (...), of these amounts of both, (..., 2)."""
        shares: FloatArray = left / self._room[n]
        tilt: FloatArray = shares[..., 0] - shares[..., 1]
        return tilt

    def _moves(self, one: int, other: int, go: IntArray, come: IntArray) -> IntArray:
        """Return how many pods more move where these two are exchanged, (go, come)."""
        state, present = self._state, self._state.problem.present
        arriving = state.contents[[one, other]] - present[state.classes[[one, other]]]
        gone = (arriving[1, go] >= 0).astype(np.int64) - (arriving[0, go] > 0)
        come_ = (arriving[0, come] >= 0).astype(np.int64) - (arriving[1, come] > 0)
        moves: IntArray = gone[:, None] + come_[None]
        return moves
