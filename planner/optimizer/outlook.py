"""What the groups make of a node: which of them it admits, and which would rather be elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from planner.model.displeasure import Preferences
from planner.model.preferences import Surroundings
from planner.model.resources import Resources, is_share, other_side
from planner.model.scheduling import NodeSelectorTerm
from planner.optimizer.constraints import IntArray
from planner.optimizer.movement import GroupKey

BoolArray: TypeAlias = npt.NDArray[np.bool_]
_LARGEST = 2**63 - 1


class Outlook:
    """Answers for all groups at once; nodes that differ in nothing that any of them looks at are looked at once."""

    def __init__(self, groups: Sequence[GroupKey], preferences: Preferences) -> None:
        self._groups, self._preferences = groups, preferences
        terms = [term for group in groups for term in _terms(group)]
        labels = {key for group in groups for key, _ in (*group.home, *_selected(group))}
        self._labels = sorted(labels | {e.key for term in terms for e in term.expressions})
        self._by_name = any(term.fields for term in terms)
        self._known: dict[object, tuple[BoolArray, IntArray]] = {}
        self._beside = np.array([group.beside for group in groups], dtype=np.str_)
        self._requests = [group.requests for group in groups]
        self.resources = counted(self._requests)
        asked = [requests.requested() for requests in self._requests]
        self.asks = amounts(([found.get(name, 0) for name in self.resources] for found in asked), self.resources)
        # What is not requested may be overdrawn, but for the number of pods.
        self._free = (self.asks == 0) & (np.array(self.resources) != "pods")
        # Two quantities at their cap are beyond 64 bits, and a side is no amount: there one pod is asked about exactly.
        sided = [any(other_side(name) for name, _ in requests.shares) for requests in self._requests]
        self._exactly = np.flatnonzero((self.asks == _LARGEST).any(axis=1) | np.array(sided, dtype=np.bool_))

    def admission(self, at: Surroundings, room: Resources) -> BoolArray:
        """x_gn = 0 unless nodeSelector, required affinity, tolerations and home admit the node and one pod fits.

        Returns one truth for each group, (groups,).
        """
        left = amounts([room.left(self.resources)], self.resources)
        fits = ((self.asks <= left) | self._free).all(axis=1)
        for g in self._exactly.tolist():
            fits[g] = self._requests[g].fits_in(room)
        beside = (self._beside == "") | (self._beside == at.name)
        admitted: BoolArray = fits & beside & self._view(at)[0]
        return admitted

    def displeasures(self, at: Surroundings) -> IntArray:
        """Return what one pod, or party, of each group costs there because it would rather be elsewhere, (groups,)."""
        return self._view(at)[1]

    def _view(self, at: Surroundings) -> tuple[BoolArray, IntArray]:
        seen = (tuple(map(at.labels.get, self._labels)), at.taints, at.name if self._by_name else "")
        if seen not in self._known:
            self._known[seen] = self._admitted(at), self._displeased(at)
        return self._known[seen]

    def _admitted(self, at: Surroundings) -> BoolArray:
        # Pods of one reading share equal constraints, so few of them are different objects.
        rules = {id(group.constraints): group.constraints for group in self._groups}
        admits = {key: rule.admit(at.labels, at.name, at.taints) for key, rule in rules.items()}
        found = [admits[id(g.constraints)] and all(at.labels.get(k) == v for k, v in g.home) for g in self._groups]
        return np.array(found, dtype=np.bool_)

    def _displeased(self, at: Surroundings) -> IntArray:
        costs = self._preferences.costs([(group.wishes, group.constraints) for group in self._groups], at)
        for g, group in enumerate(self._groups):
            if group.members:
                each = self._preferences.costs([(key.wishes, key.constraints) for key, _ in group.members], at)
                costs[g] = sum(cost * count for cost, (_, count) in zip(each, group.members, strict=True))
        return np.array(costs, dtype=np.int64)


def counted(requests: Sequence[Resources]) -> tuple[str, ...]:
    """Name the resources that any of these requests, pods always; shares of a node come last."""
    asked = {name for wanted in requests for name, amount in wanted.requested().items() if amount}
    found = {name for name in asked if other_side(name) is None} | {"pods"}
    return tuple(sorted(found, key=lambda name: (is_share(name), name)))


def amounts(rows: Iterable[Sequence[int]], resources: Sequence[str]) -> IntArray:
    """Return the rows, each of amounts of these resources, as an array; beyond 64 bits is the largest that is not."""
    table = [[max(-_LARGEST, min(amount, _LARGEST)) for amount in row] for row in rows]
    return np.array(table, dtype=np.int64).reshape(len(table), len(resources))


def _alone(group: GroupKey) -> tuple[GroupKey, ...]:
    return (group, *(member for member, _ in group.members))


def _selected(group: GroupKey) -> Iterator[tuple[str, str]]:
    for member in _alone(group):
        yield from member.constraints.node_selector


def _terms(group: GroupKey) -> Iterator[NodeSelectorTerm]:
    for member in _alone(group):
        yield from member.constraints.required_terms or ()
        yield from (wish.term for wish in member.wishes)
