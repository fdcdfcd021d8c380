"""Column generation for the bound, diving and a restricted integer program for the plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.optimizer import constraints, heuristics
from planner.optimizer.certificate import Bound, bound
from planner.optimizer.constraints import FloatArray, IntArray
from planner.optimizer.fluid import Fluid
from planner.optimizer.knapsacks import Knapsacks, outbid
from planner.optimizer.master import Columns, Master, Relaxed, Remainder, Solver
from planner.optimizer.packing import Packing, packing_of
from planner.optimizer.pricing import Depth, Priced, price_contents
from planner.optimizer.problem import BoolArray, Problem
from planner.optimizer.sequential import corrected, sequence

# How hard the knapsacks are searched: in a hurry while the bound is far from the relaxed optimum, then with sharp
# bounds, and harder where nothing is found. The first thorough depth is exact for most of Google's machine types.
_HURRIED = Depth(24, 0)
_THOROUGH = (Depth(400, 500), Depth(6000, 2000), Depth(8000, 4000))
_FAR, _FAR_IF_LARGE = 0.1, 0.02
# Classes x groups; beyond it a thorough look takes seconds.
_LARGE = 30_000
# How far prices are drawn back to those of the best bound before pods are priced. Undamped they swing from one round to
# the next: the 8,152 pods of a production trace then take several times as many rounds.
_PULL = 0.8
_IN_USE = 1e-6
# So many exchanges of a pod for a smaller one after the other are made into contents.
_LONGEST_CHAIN = 4
# A plan of fewer nodes is bettered by looking at some of them at a time, which are soon all of them.
_FEW_NODES = 25
# With fewer pods on a node there are few contents, which column generation finds sooner by itself.
_MANY_PODS = 4
_DIVE_ROUNDS = 2
# The mixed relaxation is given up after so many in a row that prove no more than one before.
_VAIN_BLENDS = 3
# Another one is solved only where so many times as much is left as the last one took.
_BLEND_SHARE = 3
# A dive solves a master program for each step; it starts with so many columns, or so many for each group.
_DIVE_COLUMNS, _DIVE_COLUMNS_EACH = 3_000, 10
# Contents x groups that stay known after a dive, 8 bytes each and some more while they are solved for.
_MOST_CELLS = 12_000_000
# A content must improve by this share of its node's price; what is left out is part of the proof.
_TOLERANCE = 2e-7
_NEARLY_ONE = (0.8, 0.95, 0.6, 0.4)
# The integer program over the known contents pays only where they are few (many left gaps of 5 % and more); up to so
# many possible contents are simply all listed. It takes so many of them, and its limit is in nodes of the solver's
# search, which every run repeats. Six hundred contents take seconds, two hundred a tenth of one.
_ALL_CONTENTS = 600
_PICK_NODES_OF_PLAN = 60
_PICK, _QUICK_PICK = (600, 300), (200, 10)


@dataclass(frozen=True, slots=True)
class _Prices:
    """Prices of pods (groups), rows (rows) and limits (classes), in nanodollars per hour."""

    pods: FloatArray
    rows: FloatArray
    limits: FloatArray

    def toward(self, center: _Prices, pull: float) -> _Prices:
        """Return the prices that lie so far on the way to the center."""
        return _Prices(
            (1 - pull) * self.pods + pull * center.pods,
            (1 - pull) * self.rows + pull * center.rows,
            (1 - pull) * self.limits + pull * center.limits,
        )


class Search:
    """One problem being solved: the columns and the best bound so far.

    `left` returns the seconds that remain; every loop asks it. Unless it is `thorough`, contents are looked for in a
    hurry as long as any are found, so that they come sooner and prove less.
    """

    def __init__(self, problem: Problem, solver: Solver, left: Callable[[], float], thorough: bool = True) -> None:
        self.problem = problem
        self.columns = Columns(problem)
        self.relaxed: Relaxed | None = None
        # What a pod that waits pays to come somewhere is sure, and no content is worth anything at that price.
        certain = np.where(problem.pending == problem.counts, problem.move_prices, 0)
        # A dominated offering is in no best plan: it is not priced, and its proof is its dominator's.
        self._leaders = problem.dominators()
        self.asked = np.unique(self._leaders)
        self._position = np.searchsorted(self.asked, self._leaders)
        self._sacks = Knapsacks.of(problem).only(self.asked)
        self._master = Master(problem, self.columns, solver, left)
        self._solver, self._left = solver, left
        self._guess = np.zeros((self.asked.size, problem.whole))
        self._center: _Prices | None = None
        # How many nodes the relaxation has in which all may be cut.
        self._nodes = math.inf
        self._reached = -math.inf
        self._small = self.asked.size * len(problem.groups) <= _LARGE
        self._far = _FAR if self._small else _FAR_IF_LARGE
        if not thorough:
            self._far = 0.0
        self._thorough = thorough
        self.proof = bound(
            problem,
            certain,
            np.zeros(len(problem.rows), dtype=np.int64),
            np.zeros(len(problem.classes), dtype=np.int64),
        )
        every = np.arange(len(problem.classes))
        self.columns.add(every, np.zeros((every.size, len(problem.groups)), dtype=np.int64))

    def start_at(self, relaxation: Callable[[IntArray, Columns], Fluid | None]) -> None:
        """Start from the prices of the relaxation in which pods and nodes may be cut, where there are any.

        `relaxation(cut, whole)` solves it with these classes cut, and contents beside them that are not. At first all
        classes are cut. An offering that the relaxation uses, and whose best content is known for sure at its prices,
        has whole contents from then on, until none is found that would be new, or none of `_VAIN_BLENDS` proves more.
        """
        cut, whole, vain = self.asked, Columns(self.problem), 0
        offered = np.array([c.role == "offering" for c in self.problem.classes], dtype=np.bool_)
        unsure = ~offered
        depths = _THOROUGH[:1] if self._small else ()
        while vain <= _VAIN_BLENDS:
            before = self._left()
            found = relaxation(cut, whole)
            if found is None:
                break
            if whole.classes.size == 0:
                self._nodes = float(found.nodes.sum())
            pods, rows = np.floor(found.pods).astype(np.int64), np.floor(found.rows).astype(np.int64)
            priced = self._price(pods, rows, found.limits, depths, enough=len(depths))
            proof = bound(self.problem, pods, rows, priced.upper)
            vain += 1
            if proof.value > self._reached:
                self._center, self._reached = _Prices(found.pods, found.rows, found.limits), proof.value
                vain = 0
            self._learn(proof)
            best = self._floor(rows, found.limits)
            worth = self._sacks.worth(np.searchsorted(self.asked, priced.classes), priced.contents, pods)
            np.maximum.at(best, priced.classes, worth)
            unsure |= priced.upper > best
            used = np.array([kind[0] for kind, nodes in zip(found.kinds, found.nodes, strict=True) if nodes > _IN_USE])
            uncut = np.zeros(offered.size, dtype=np.bool_)
            uncut[used.astype(np.int64)] = True
            uncut[np.setdiff1d(self.asked, cut)] = True
            now = self.asked[unsure[self.asked] | ~uncut[self.asked]]
            some = offered[priced.classes]
            added = whole.add(priced.classes[some], priced.contents[some])
            left = self._left()
            if left <= _BLEND_SHARE * (before - left) or not (added or now.size < cut.size):
                break
            cut = now
        self.columns.add(whole.classes, whole.contents)

    def start_from(self, packing: Packing) -> None:
        """Add a packing's contents as columns."""
        self.columns.add(packing.classes, packing.contents)

    def sequences(self, most: int, over: Callable[[], bool]) -> Iterator[Packing]:
        """Yield plans made node by node (`sequential`), at most so many; their contents become columns."""
        problem = self.problem
        if self._center is None or problem.counts.sum() < _MANY_PODS * self._nodes:
            return
        prices = self._center.pods
        floor = self._floor(np.floor(self._center.rows).astype(np.int64), self._center.limits)[self.asked]
        for _ in range(most):
            if over():
                return
            made = sequence(self._sacks, prices, floor, problem.limits[self.asked], problem.counts, over)
            self.columns.add(self.asked[made.found_classes], made.found)
            yield heuristics.repaired(
                problem, packing_of(problem, self.asked[made.classes], made.contents, made.amounts)
            )
            prices = corrected(prices, made.paid)

    def generate(self, enough: Callable[[Bound, float], bool]) -> None:
        """Add columns until none improves, `enough(bound, relaxed value)` holds, or the time is over.

        Once the duals of the master no longer better the bound, prices are smoothed: (1 - pull) x duals + pull x the
        prices of the best bound; where nothing that improves the master is found there, its own duals are asked.
        Source of the smoothing: P. Wentges, "Weighted Dantzig-Wolfe decomposition for linear mixed-integer
        programming", International Transactions in Operational Research 4 (1997).
        """
        remainder = Remainder.of(self.problem)
        # The center is the best of the prices met here, not those of the best bound: those of an earlier plan
        # (`propose`) may be far from the duals of these columns, and drawn toward them they would not move.
        center, reached = self._center, self._reached
        damped = center is not None
        exchanging = True
        while self._left() > 0:
            relaxed = self._master.relax(remainder, np.arange(self.columns.classes.size), exchanging)
            if relaxed is None:
                return
            self.relaxed = relaxed
            value = self._offset() + relaxed.value
            own = _Prices(relaxed.pod_prices, relaxed.row_prices, relaxed.limit_prices)
            for pull in (_PULL, 0.0) if damped else (0.0,):
                prices = own if center is None else own.toward(center, pull)
                pods = np.floor(prices.pods).astype(np.int64)
                rows = np.floor(prices.rows).astype(np.int64)
                depths = _THOROUGH if pull == 0.0 else _THOROUGH[:1]
                # While the bound is far from the relaxed optimum any content that improves is welcome.
                far = value - self.proof.value > self._far * abs(value)
                priced = self._price(pods, rows, prices.limits, depths, enough=0 if far else 1)
                proof = bound(self.problem, pods, rows, priced.upper)
                if pull == 0.0:
                    damped = center is not None and proof.value <= reached
                if proof.value > reached:
                    reached = proof.value
                    center = _Prices(proof.pod_prices.astype(float), proof.row_prices.astype(float), prices.limits)
                self._learn(proof)
                if enough(self.proof, value):
                    if not exchanging or not (relaxed.swapped > _IN_USE).any():
                        return
                    exchanging = False
                    self._carry_out_exchanges(relaxed)
                    break
                added = self.columns.add(priced.classes, priced.contents)
                if added and (pull == 0.0 or self._improves(priced, own)):
                    break
            else:
                if not exchanging or not (relaxed.swapped > _IN_USE).any():
                    return
                exchanging = False
                self._carry_out_exchanges(relaxed)

    def _carry_out_exchanges(self, relaxed: Relaxed) -> None:
        """Add the contents that come of the exchanges in use, so that the master can do without."""
        groups = len(self.problem.groups)
        follows = np.zeros((groups, groups), dtype=np.float32)
        follows[tuple(self._master.swaps[relaxed.swapped > _IN_USE].T)] = 1.0
        reach = follows
        for _ in range(_LONGEST_CHAIN):
            reach = np.minimum(reach + reach @ follows, 1.0)
        used = np.flatnonzero(relaxed.amounts > _IN_USE)
        for before, after in np.argwhere(reach > 0):
            some = used[self.columns.contents[used, before] > 0]
            contents = self.columns.contents[some]
            for pods in (np.ones(some.size, dtype=np.int64), contents[:, before].copy()):
                changed = contents.copy()
                changed[:, before] -= pods
                changed[:, after] += pods
                fits = changed[:, after] <= self.problem.counts[after]
                self.columns.add(self.columns.classes[some][fits], changed[fits])

    def propose(self, pods: IntArray) -> None:
        """Prove what these prices of pods prove, beside the row prices so far, and add the best contents at them."""
        rows, limits = self.proof.row_prices, np.zeros(len(self.problem.classes))
        depths = _THOROUGH[:1] if self._small else ()
        priced = self._price(pods, rows, limits, depths, enough=1 if self._thorough else 0)
        self._learn(bound(self.problem, pods, rows, priced.upper))
        self.columns.add(priced.classes, priced.contents)

    def _learn(self, proof: Bound) -> None:
        if proof.value > self.proof.value:
            self.proof = proof

    def optimum(self) -> float:
        """Return the continuous optimum over the contents known so far, in nanodollars per hour; at first infinite."""
        return math.inf if self.relaxed is None else self._offset() + self.relaxed.value

    def unproven(self) -> float:
        """Return how far the bound is below the continuous optimum, in nanodollars per hour."""
        return self.optimum() - self.proof.value

    def mostly_cut(self) -> bool:
        """Say whether there are few nodes, or less than half of those of the optimum are whole: rounding decides."""
        if self.relaxed is None or self._nodes < _FEW_NODES:
            return self._nodes < _FEW_NODES
        return float(np.floor(self.relaxed.amounts + 1e-6).sum()) < 0.5 * float(self.relaxed.amounts.sum())

    def dive(self, turn: int, share: float = 1.0) -> Packing:
        """Round the continuous optimum node by node, pricing contents for what remains; then repair.

        At the latest after this share of the time that is left what remains is placed by the repair alone. Each `turn`
        rounds in another way: how near to one is near enough, and which fraction goes first.
        """
        problem, remainder = self.problem, Remainder.of(self.problem)
        promising, end = self._promising(), (1.0 - share) * self._left()
        classes, contents = np.zeros(0, dtype=np.int64), np.zeros((0, len(problem.groups)), dtype=np.int64)
        while self._left() > end and not _done(remainder):
            relaxed = self._price_remainder(remainder, promising)
            if relaxed is None or relaxed.amounts.sum() < 1e-6:
                break
            chosen = self._round(relaxed, remainder, turn)
            turn = 0 if turn >= len(_NEARLY_ONE) and relaxed.amounts.max() < 1.0 else turn
            classes = np.append(classes, self.columns.classes[chosen])
            contents = np.vstack([contents, self.columns.contents[chosen]])
            remainder = remainder.after(problem, self.columns.classes[chosen], self.columns.contents[chosen])
        self._forget()
        packing = packing_of(problem, classes, contents, np.ones(classes.size, dtype=np.int64))
        return heuristics.repaired(problem, packing)

    def _forget(self) -> None:
        """Drop the contents that lose most at the duals of the continuous optimum, where there are very many."""
        most = max(_DIVE_COLUMNS, _MOST_CELLS // max(1, len(self.problem.groups)))
        known = self.columns.classes.size
        if self.relaxed is None or known <= most:
            return
        amounts = np.zeros(known)
        amounts[: self.relaxed.amounts.size] = self.relaxed.amounts
        # Many others lose nothing either, but the optimum is made of those in use.
        loss = np.where(amounts > _IN_USE, -math.inf, self._reduced(self.relaxed))
        kept = np.sort(np.argsort(loss, kind="stable")[:most])
        self.columns.keep(kept)
        self.relaxed = replace(self.relaxed, amounts=amounts[kept])

    def pick(self, value: float, seconds: float, *, among_all: bool = False) -> Packing | None:
        """Solve the integer program over the columns that a plan better than `value` could use, where they are few.

        Of a plan of few nodes over the most promising ones, too, unless it is to be `among_all`.
        """
        if self.relaxed is None:
            return None
        self._list_all()
        problem, relaxed = self.problem, self.relaxed
        reduced = self._reduced(relaxed)
        usable = np.flatnonzero(reduced <= value - (self._offset() + relaxed.value) + 1.0)
        columns, nodes = _PICK if self._thorough else _QUICK_PICK
        if usable.size > columns and (among_all or relaxed.amounts.sum() > _PICK_NODES_OF_PLAN):
            return None
        usable = np.sort(usable[np.argsort(reduced[usable], kind="stable")[:columns]])
        amounts = self._master.pick(Remainder.of(problem), usable, seconds, nodes)
        if amounts is None:
            return None
        return heuristics.repaired(problem, packing_of(problem, self.columns.classes, self.columns.contents, amounts))

    def _list_all(self) -> None:
        """Add every content that is possible at all, where there are few."""
        few = (self._sacks.caps.astype(np.float64) + 1).prod(axis=1).sum() <= _ALL_CONTENTS
        if not few or not self.problem.groups:
            return
        for k, caps in zip(self.asked.tolist(), self._sacks.caps, strict=True):
            contents = np.indices(tuple((caps + 1).tolist())).reshape(caps.size, -1).T.astype(np.int64)
            room = np.broadcast_to(self.problem.room[k], (contents.shape[0], self.problem.room.shape[1]))
            holds = constraints.within_capacity(self.problem.requests, room, contents)
            contents = contents[holds & constraints.one_side_of_each(self.problem.sides, contents)]
            self.columns.add(np.full(contents.shape[0], k, dtype=np.int64), contents)

    def _offset(self) -> int:
        return self.problem.constant - self.problem.placement_cost

    def _floor(self, rows: IntArray, limit_prices: np.typing.NDArray[np.float64]) -> IntArray:
        """Return what a content must be worth to improve: cost - rows + limit price, and a little more."""
        problem = self.problem
        floor = problem.costs.astype(np.float64) + limit_prices + _TOLERANCE * problem.costs
        for row, price in zip(problem.rows, rows, strict=True):
            floor = floor - row.coefficients * float(price)
        return np.ceil(floor).astype(np.int64)

    def _improves(self, priced: Priced, prices: _Prices) -> bool:
        """Say whether any of the contents would improve the master at its own duals."""
        problem = self.problem
        reduced = problem.column_costs(priced.classes, priced.contents) - priced.contents @ prices.pods
        reduced = reduced + prices.limits[priced.classes]
        for row, price in zip(problem.rows, prices.rows, strict=True):
            reduced = reduced - row.coefficients[priced.classes] * price
        return bool((reduced < -_TOLERANCE * problem.costs[priced.classes]).any())

    def _price(
        self, pods: IntArray, rows: IntArray, limits: FloatArray, depths: Sequence[Depth], enough: int
    ) -> Priced:
        """Price every class in a hurry, then those that are not exact yet with more and more effort.

        The first `enough` depths are gone through in any case, further ones only while nothing is found. The prices of
        the `limits` say what a content must be worth to improve; what the best one is worth at most may be less.
        """
        floor = self._floor(rows, limits)
        upper = floor[self.asked]
        open_ = np.arange(self.asked.size)
        found, contents = [np.zeros(0, dtype=np.int64)], [np.zeros((0, pods.size), dtype=np.int64)]
        for turn, depth in enumerate((_HURRIED, *depths)):
            over = (turn > enough and any(part.size for part in found)) or self._left() <= 0
            # Every class is priced once, whatever the time: a bound over classes that were not looked at is none.
            if not open_.size or (turn and over):
                break
            sacks = self._sacks.only(open_)
            affordable = replace(depth.within(open_.size * pods.size), over=lambda: self._left() <= 0)
            priced = price_contents(sacks, pods, floor[self.asked[open_]], affordable, self._guess[open_])
            self._guess[open_] = priced.multipliers
            upper[open_] = priced.upper
            found.append(self.asked[open_[priced.classes]])
            contents.append(priced.contents)
            best = floor[self.asked[open_]]
            np.maximum.at(best, priced.classes, sacks.worth(priced.classes, priced.contents, pods))
            open_ = open_[priced.upper > best]
        if limits.any():
            least = self._floor(rows, np.zeros(limits.size))[self.asked]
            upper = np.minimum(upper, outbid(self._sacks, pods, least, self._guess)[0])
        upper = upper[self._position]
        return Priced(upper, np.concatenate(found), np.vstack(contents), self._guess)

    def _promising(self) -> BoolArray:
        """Say which columns a dive starts with: those that lose least at the duals of the continuous optimum."""
        known = self.columns.classes.size
        promising = np.ones(known, dtype=np.bool_)
        most = max(_DIVE_COLUMNS, _DIVE_COLUMNS_EACH * len(self.problem.groups))
        if self.relaxed is not None and known > most:
            promising[np.argsort(self._reduced(self.relaxed), kind="stable")[most:]] = False
        return promising

    def _reduced(self, relaxed: Relaxed) -> FloatArray:
        """Return what each column costs beyond what it is worth at these duals, (columns)."""
        reduced = self.columns.costs - self.columns.contents @ relaxed.pod_prices
        reduced = reduced + relaxed.limit_prices[self.columns.classes]
        for row, price in zip(self.problem.rows, relaxed.row_prices, strict=True):
            reduced = reduced - row.coefficients[self.columns.classes] * price
        return reduced

    def _usable(self, remainder: Remainder, promising: BoolArray) -> IntArray:
        """Return the promising columns, and those that came later, that still fit what remains."""
        existing = np.array([c.role != "offering" for c in self.problem.classes], dtype=np.bool_)
        open_ = ~existing[self.columns.classes] | (remainder.limits[self.columns.classes] > 0)
        open_[: promising.size] &= promising
        return np.flatnonzero(open_ & (self.columns.contents <= remainder.counts).all(axis=1))

    def _price_remainder(self, remainder: Remainder, promising: BoolArray) -> Relaxed | None:
        sacks = self._sacks.capped(remainder.counts)
        relaxed = None
        for _ in range(_DIVE_ROUNDS + 1):
            relaxed = self._master.relax(remainder, self._usable(remainder, promising))
            if relaxed is None:
                return None
            pods = np.floor(relaxed.pod_prices).astype(np.int64)
            rows = np.floor(relaxed.row_prices).astype(np.int64)
            floor = self._floor(rows, relaxed.limit_prices)
            floor = np.where(remainder.limits > 0, floor, np.iinfo(np.int64).max // 4)
            priced = price_contents(sacks, pods, floor[self.asked], _HURRIED)
            if not self.columns.add(self.asked[priced.classes], priced.contents) or self._left() <= 0:
                break
        return relaxed

    def _round(self, relaxed: Relaxed, remainder: Remainder, turn: int) -> IntArray:
        """Return the columns to fix now: whole ones all at once, else the largest fractions that go together."""
        whole = np.floor(relaxed.amounts + 1e-6).astype(np.int64)
        if whole.any():
            return np.repeat(np.arange(whole.size), whole)
        chosen: list[int] = []
        left = remainder
        order = list(_largest_first(relaxed.amounts))
        skipped = min(turn // len(_NEARLY_ONE), len(order) - 1)
        for column in order[skipped:] + order[:skipped]:
            if chosen and relaxed.amounts[column] < _NEARLY_ONE[turn % len(_NEARLY_ONE)]:
                break
            content, k = self.columns.contents[column], self.columns.classes[column]
            if (content <= left.counts).all() and left.limits[k] > 0:
                chosen.append(column)
                left = left.after(self.problem, self.columns.classes[[column]], self.columns.contents[[column]])
        return np.array(chosen, dtype=np.int64)


def _largest_first(amounts: np.typing.NDArray[np.float64]) -> Iterator[int]:
    # Rounded, so that noise of the solver in the last digits does not decide.
    for column in np.argsort(-np.round(amounts, 6), kind="stable"):
        if amounts[column] > 1e-6:
            yield int(column)


def _done(remainder: Remainder) -> bool:
    return not remainder.counts.any() and not (remainder.rhs > 0).any()
