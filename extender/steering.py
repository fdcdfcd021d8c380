"""Where a pod may go: pure rules over what the extender knows, no input or output and no clock.

The rules, most exact first (a list of nodes is answered by the first rule that leaves any):

| pod | 1 | 2 | 3 | 4 |
|---|---|---|---|---|
| of a workload with open targets | the one node that suits best | - | - | - |
| of a workload in the plan, without such a node | optimal with room | not expiring | all | - |
| any, where only labels are left (no annotation counts) | optimal | not expiring | all | - |
| without a plan | no open targets | published headroom holds it | not expiring | all |

A workload is without such a node when its targets are filled, not among the candidates, or expired.
No rule but the last ever names an expiring node, and the last one keeps every pod schedulable.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import msgspec

from planner.labels import Placement, Target

HIGHEST_SCORE: Final = 10
"""Greatest score that the extender protocol knows (extender/v1 MaxExtenderPriority)."""


class Pod(msgspec.Struct, frozen=True, gc=False):
    """A pod as steering sees it: whose it is, which iteration marked it, and what it asks for.

    `workload` is "namespace/Kind/name" of the controlling owner, with a Deployment in place of its
    ReplicaSet; `workload_uid` is empty where it is not known. `requests` holds (resource, amount) sorted by
    resource, named as in `Placement.headroom`. A struct, since a start makes one of each of 30,000 pods: a frozen
    dataclass takes ten times as long, and the garbage collector would visit them all.
    """

    uid: str
    workload: str
    workload_uid: str
    iteration: str
    requests: tuple[tuple[str, int], ...]


class Candidates(Protocol):
    """The nodes that a request offers, possibly still undecoded."""

    def __contains__(self, name: str, /) -> bool:
        """Tell whether the node is offered, without decoding the others where that is possible."""

    def names(self) -> Sequence[str]:
        """Return every offered node in the order of the request."""


class Knowledge(Protocol):
    """What steering asks about the cluster; every answer comes from an index, none scans all pods."""

    @property
    def optimal(self) -> Set[str]:
        """Nodes that carry the label of a plan."""

    @property
    def expiring(self) -> Set[str]:
        """Nodes that will be removed, whichever iteration says so."""

    @property
    def published(self) -> Set[str]:
        """Nodes whose placement annotation counts: readable and not expired."""

    @property
    def unfilled(self) -> Set[str]:
        """Nodes with at least one open target, expiring ones excluded."""

    def in_plan(self, pod: Pod) -> bool:
        """Tell whether any node names the pod's workload in a target, filled, expired or not."""

    def open_places(self, pod: Pod) -> Collection[str]:
        """Return the nodes with places for this pod that are still open, the most first, equals by name."""

    def holding(self, pod: Pod) -> Set[str]:
        """Return the published nodes whose headroom, less what was taken since then, holds the pod."""


class Rule(enum.StrEnum):
    """The rule that gave an answer; also the outcome in the metrics."""

    PLANNED = "planned"
    HEADROOM = "headroom"
    OPTIMAL = "optimal"
    FREE = "free"
    NOT_EXPIRING = "not_expiring"
    EVERYTHING = "everything"
    NO_PLAN = "no_plan"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a filter request: `allowed` None lets every candidate pass.

    `refusal` says why the other nodes were refused, in words for `kubectl describe pod`.
    """

    rule: Rule
    allowed: tuple[str, ...] | None = None
    refusal: str = ""


_FEW: Final = 4
"""Up to so many nodes are searched for among the undecoded candidates; decoding all costs as much as five searches."""

EXPIRING_REFUSAL: Final = "kinema: the node will be removed soon"

_REFUSALS: Final = {
    Rule.HEADROOM: "kinema: the plan leaves no room for this pod on the node",
    Rule.OPTIMAL: "kinema: the node is not in the plan",
    Rule.FREE: "kinema: the plan keeps the node's room for other pods",
    Rule.NOT_EXPIRING: EXPIRING_REFUSAL,
}


class _Scores(NamedTuple):
    """The scores of a node that neither expires nor has a place for the pod, by what else is known of it."""

    open_with_room: int
    open_full: int
    optimal_with_room: int
    optimal_full: int
    outside: int


_PLANNED_SCORES: Final = _Scores(open_with_room=7, open_full=1, optimal_with_room=8, optimal_full=3, outside=5)
_OTHER_SCORES: Final = _Scores(open_with_room=4, open_full=1, optimal_with_room=9, optimal_full=6, outside=7)


def matches(target: Target, placement: Placement, pod: Pod) -> bool:
    """Tell whether a target counts (and admits) the pod.

    A uid that is unknown on either side does not exclude: the name decides then.
    """
    if target.workload != pod.workload:
        return False
    if target.uid and pod.workload_uid and target.uid != pod.workload_uid:
        return False
    return target.count == "all" or pod.iteration == placement.iteration


def allow(pod: Pod, candidates: Candidates, known: Knowledge, reserved: str | None = None) -> Verdict:
    """Answer a filter request by the table of this module; never an empty list unless nothing was offered.

    `reserved` is the node that an earlier request of the same pod got, no longer counted in `known`: a
    scheduler that tries again finds its place kept.
    """
    planned = known.in_plan(pod)
    if planned and (node := _best_node(pod, candidates, known, reserved)) is not None:
        return Verdict(Rule.PLANNED, (node,), f"kinema: the plan puts this pod on node {node}")
    if not (known.published or known.optimal or known.expiring):
        return Verdict(Rule.NO_PLAN)
    for rule in _rules(planned, known):
        verdict = rule(pod, candidates, known)
        if verdict is not None:
            return verdict
    return Verdict(Rule.EVERYTHING)


def _best_node(pod: Pod, candidates: Candidates, known: Knowledge, reserved: str | None) -> str | None:
    """Return the candidate with the most open places for the pod, the first by name among equals."""
    places = known.open_places(pod)
    if reserved is not None and reserved in places and reserved in candidates:
        return reserved
    return next((node for node in places if node in candidates), None)


def score(pod: Pod, candidates: Candidates, known: Knowledge) -> list[int] | int:
    """Answer a prioritize request: one integer from 0 to 10 for every node, in order, or one for all of them.

    | node | pod of the plan | pod without a plan |
    |---|---|---|
    | has an open target for this pod | 10 | - |
    | in the plan, no open targets, headroom holds the pod or none is published | 8 | 9 |
    | in the plan or published, open targets of others, headroom holds the pod | 7 | 4 |
    | outside the plan, no open targets | 5 | 7 |
    | in the plan, no open targets, headroom does not hold the pod | 3 | 6 |
    | open targets of others, headroom does not hold the pod | 1 | 1 |
    | expiring | 0 | 0 |
    """
    if not (known.published or known.optimal or known.expiring):
        return _OTHER_SCORES.outside
    planned, names = known.in_plan(pod), candidates.names()
    own: Collection[str] = known.open_places(pod) if planned else ()
    expiring, unfilled, optimal = known.expiring, known.unfilled, known.optimal
    published, holding = known.published, known.holding(pod)
    open_with_room, open_full, optimal_with_room, optimal_full, outside = _PLANNED_SCORES if planned else _OTHER_SCORES
    # One expression, with as few lookups for each of 5,000 names as can be. A node with open targets is published.
    return [
        0
        if name in expiring
        else HIGHEST_SCORE
        if name in own
        else (open_with_room if name in holding else open_full)
        if name in unfilled
        else outside
        if name not in optimal
        else optimal_with_room
        if name in holding or name not in published
        else optimal_full
        for name in names
    ]


_Step = Callable[[Pod, Candidates, Knowledge], Verdict | None]
"""One rule: its verdict, or None where it leaves no candidate."""


def _rules(planned: bool, known: Knowledge) -> tuple[_Step, ...]:
    """Return the rules for a pod without an open target among the candidates, most exact first."""
    if planned:
        return _optimal_with_room, _not_expiring
    if not known.published:
        return _optimal, _not_expiring
    return _free, _headroom, _not_expiring


# Each rule looks at all names in one comprehension: 5,000 calls of a predicate would take a millisecond.


def _optimal_with_room(pod: Pod, candidates: Candidates, known: Knowledge) -> Verdict | None:
    names, optimal, expiring = candidates.names(), known.optimal, known.expiring
    published, holding = known.published, known.holding(pod)
    left = [
        name
        for name in names
        if name in optimal and name not in expiring and (name in holding or name not in published)
    ]
    return _verdict(Rule.HEADROOM, left, names)


def _optimal(_: Pod, candidates: Candidates, known: Knowledge) -> Verdict | None:
    names, optimal, expiring = candidates.names(), known.optimal, known.expiring
    return _verdict(Rule.OPTIMAL, [name for name in names if name in optimal and name not in expiring], names)


def _free(_: Pod, candidates: Candidates, known: Knowledge) -> Verdict | None:
    return _without(Rule.FREE, candidates, (known.unfilled, known.expiring))


def _headroom(pod: Pod, candidates: Candidates, known: Knowledge) -> Verdict | None:
    # Expiring nodes have no placement that counts, so none of them holds anything.
    names, holding = candidates.names(), known.holding(pod)
    return _verdict(Rule.HEADROOM, [name for name in names if name in holding], names)


def _not_expiring(_: Pod, candidates: Candidates, known: Knowledge) -> Verdict | None:
    return _without(Rule.NOT_EXPIRING, candidates, (known.expiring,))


def _without(rule: Rule, candidates: Candidates, refused: Sequence[Set[str]]) -> Verdict | None:
    """Return the verdict that leaves all but the refused nodes; few refused ones are searched for instead."""
    if sum(map(len, refused)) <= _FEW and not any(name in candidates for part in refused for name in part):
        return Verdict(rule)
    names = candidates.names()
    parts = [part for part in refused if part]
    all_refused = parts[0] if len(parts) == 1 else set().union(*parts)
    return _verdict(rule, [name for name in names if name not in all_refused], names)


def _verdict(rule: Rule, left: list[str], names: Sequence[str]) -> Verdict | None:
    if len(left) == len(names):
        return Verdict(rule)
    return Verdict(rule, tuple(left), _REFUSALS[rule]) if left else None
