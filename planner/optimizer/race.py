"""The race of candidates against the bound and the clock: the best plan so far, and whether it is good enough."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from planner.errors import SolverError
from planner.model.effort import Effort, Progress, Watch
from planner.model.preferences import Company
from planner.optimizer.assembly import Draft, assemble
from planner.optimizer.certificate import Bound
from planner.optimizer.contentment import contented
from planner.optimizer.master import Solver
from planner.optimizer.movement import GroupKey
from planner.optimizer.neighborhoods import improved
from planner.optimizer.packing import Packing
from planner.optimizer.search import Search
from planner.optimizer.seats import seated_together
from planner.optimizer.settling import Settled
from planner.optimizer.tightening import tightened

# Column generation ends when its own optimum is proven to this share (more cannot be seen in any plan), or when what is
# not proven is this small beside what the best plan is above that optimum.
_PROVEN = 1e-6
_BESIDE_THE_PLAN = 0.05
# So much of the gap of an earlier plan is as good as that, as long as it is small enough. Of a changed cluster another
# gap can be proven; without the ceiling it might grow from plan to plan.
_NEARLY, _WELL_ENOUGH = 1.1, 0.02
# What is left of the time for the proof of the whole problem, where the plan is made for a part of what is possible.
_WHOLE_SHARE = 0.3


class Race:
    """The best candidate so far and the bound beside it; every candidate is checked before it counts."""

    def __init__(
        self,
        settled: Settled,
        effort: Effort,
        watch: Watch,
        start: float,
    ) -> None:
        movement, problem = settled.census.movement, settled.problem
        # Where the plan is made for a part of what is possible, the proof of the whole takes its time too.
        self.narrow = movement.chosen
        self.best: Draft | None = None
        self._packing: Packing | None = None
        self._tightened: Packing | None = None
        self._improved: Packing | None = None
        self._census, self._problem, self._unplaceable = settled.census, problem, settled.unplaceable
        # Where others may be rests on where these are, so that without a place for all of them a plan is none. Who
        # leads a party has a place alone.
        self._counted_on = np.array(
            [bool(g.pending and (g.key.home or g.key.members)) for g in problem.groups], dtype=np.bool_
        )
        self._effort, self._watch, self._start = effort, watch, start
        # A plan that goes on from another one is done when it is proven as well as that, or nearly and well enough.
        earlier = movement.inputs.start
        before = earlier.objective.relative_gap if earlier is not None else 0.0
        self._target = max(effort.target_gap, before, min(_NEARLY * before, _WELL_ENOUGH))
        self._share = 1.0 - _WHOLE_SHARE if self.narrow else 1.0
        self._proven: int | None = None
        self._faults: list[str] = []
        self._least = math.inf

    def left(self, share: float = 1.0) -> float:
        """Return the seconds that remain of this share of the time for the plan; none once it is wanted at once."""
        if self._watch.hurried():
            return 0.0
        return self._effort.time_limit_seconds * share * self._share - (self._watch.now() - self._start)

    def hurried(self) -> bool:
        """Say whether the plan is wanted at once."""
        return self._watch.hurried()

    def all_left(self) -> float:
        """Return the seconds that remain of the time limit; none once the plan is wanted at once."""
        if self._watch.hurried():
            return 0.0
        return self._effort.time_limit_seconds - (self._watch.now() - self._start)

    def rank(self, packing: Packing) -> tuple[int, int]:
        """Return how many pods the candidate leaves out, and the least value that it can have."""
        left_out = int(packing.unplaced(self._problem).sum()) + self._expected()
        return left_out, packing.displaced_value(self._problem)

    def enter(self, packing: Packing) -> None:
        """Take the candidate if it is right and better: fewer pods without a place, then the lower value."""
        if self._packing is not None and packing.equals(self._packing):
            return
        faults = packing.faults(self._problem)
        if packing.unplaced(self._problem)[self._counted_on].any():
            faults.append("a pod on which others rest has no place")
        if faults:
            self._faults += faults
            return
        # Moves beyond the displaced pods (a roll-out replaces all) are no matter of the packing.
        if not packing.unplaced(self._problem).any():
            self._least = min(self._least, packing.displaced_value(self._problem))
        if self.best is not None and self.rank(packing) >= (self.best.missing, self.best.value):
            return
        draft = assemble(self._census, self._problem, packing, self._unplaceable)
        if self.best is None or (draft.missing, draft.value) < (self.best.missing, self.best.value):
            self.best, self._packing = draft, packing
            self._tell("plan")

    def tighten(self) -> None:
        """Empty nodes of the best candidate into what its others have left, unless that was tried already."""
        if self._packing is not None and self._packing is not self._tightened:
            self.enter(tightened(self._problem, self._packing, lambda: self.left() <= 0))
            self._tightened = self._packing

    def please(self) -> None:
        """Let pods of the best candidate change places where that pleases them, or lets them come at once."""
        for settled in (True, False):
            if (before := self._packing) is not None:
                pleased = contented(self._problem, before, settled=settled)
                # What a draft is worth beyond its packing would let the same one win against itself.
                if pleased.displaced_value(self._problem) < before.displaced_value(self._problem):
                    self.enter(pleased)
        if (packing := self._packing) is None:
            return
        together = seated_together(self._problem, packing)
        if together is not packing and not together.faults(self._problem):
            packing, self._packing, self.best = together, together, None
        in_company = any(pod.company != Company() for pod in self._census.movement.inputs.snapshot.planned)
        if self.best is None or in_company:
            self.best = assemble(self._census, self._problem, packing, self._unplaceable, in_company=in_company)

    def improve(self, search: Search, solver: Solver, share: float = 1.0) -> None:
        """Place the pods of a few nodes of the best candidate anew, again and again, while that makes it better.

        A candidate of which that came to an end is not tried again.
        """
        if self._packing is None or self._packing is self._improved or search.relaxed is None or self.won():
            return
        prices = search.relaxed.pod_prices.astype(np.int64)
        for packing in improved(self._problem, self._packing, prices, solver, lambda: self.left(share)):
            self.enter(packing)
            if self.won():
                return
        if self.left(share) > 0:
            self._improved = self._packing

    def bound(self, proof: Bound) -> None:
        """Take note of a bound."""
        if self._proven is None or proof.value > self._proven:
            self._proven = proof.value
            self._tell("bound")

    def won(self) -> bool:
        """Say whether the best candidate is as close to the bound as was asked, and nothing is left out."""
        if self.best is None or self._proven is None or self.best.missing > self._expected():
            return False
        return self._least - self._proven <= self._target * abs(self._least)

    def found(self) -> Draft:
        """Return the best candidate.

        Raises:
            SolverError: none was right.
        """
        if self.best is None:
            raise SolverError(self.why_none())
        return self.best

    def leaves_more_out(self) -> bool:
        """Say whether the best candidate has no place for more pods than those for which there is none."""
        return self.best is not None and self.best.missing > self._expected()

    def settled_by(self, proof: Bound) -> bool:
        """Say whether a bound of the whole problem is as close to the best candidate as was asked."""
        return self.best is not None and self.best.value - proof.value <= self._target * abs(self.best.value)

    def to_beat(self) -> float:
        """Return the value below which a plan is better; while a pod lacks a place that it could have, any value is."""
        if self.best is None or self.best.missing > self._expected():
            return math.inf
        return self.best.value

    def above(self, optimum: float) -> float:
        """Return how far the best candidate is above the continuous optimum, in nanodollars per hour."""
        return self._least - optimum

    def worth_proving(self, relaxed: float) -> float:
        """Return how far the bound may stay below the relaxed optimum, in nanodollars per hour."""
        above = self._least - relaxed if self._least < math.inf else 0.0
        return max(_PROVEN * abs(relaxed), _BESIDE_THE_PLAN * above)

    def left_out(self, before: Mapping[GroupKey, int]) -> dict[GroupKey, int]:
        """Return the pods without a place by group: those left out `before`, and by the best candidate."""
        total = Counter(before)
        if self._packing is not None:
            missing = self._packing.unplaced(self._problem)
            total.update({g.key: int(n) for g, n in zip(self._problem.groups, missing, strict=True)})
        return +total

    def why_none(self) -> str:
        """Say why no candidate was right."""
        faults = ", ".join(sorted(set(self._faults)))
        return f"no plan: every placement that was tried breaks a constraint ({faults})"

    def _expected(self) -> int:
        return sum(u.count for u in self._unplaceable.values())

    def _tell(self, stage: str) -> None:
        value = self.best.value if self.best else None
        self._watch.report(Progress(stage, self._watch.now() - self._start, value, self._proven))
