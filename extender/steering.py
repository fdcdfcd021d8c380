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
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final, Protocol

from planner.labels import Placement, Target

HIGHEST_SCORE: Final = 10
"""Greatest score that the extender protocol knows (extender/v1 MaxExtenderPriority)."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as steering sees it: whose it is, which iteration marked it, and what it asks for.

    `workload` is "namespace/Kind/name" of the controlling owner, with a Deployment in place of its
    ReplicaSet; `workload_uid` is empty where it is not known. `requests` holds (resource, amount) sorted by
    resource, named as in `Placement.headroom`.
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

    def open_places(self, pod: Pod) -> Mapping[str, int]:
        """Return the places of this pod's workload that are still open, by node, all above zero."""

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


EXPIRING_REFUSAL: Final = "kinema: the node will be removed soon"

_REFUSALS: Final = {
    Rule.HEADROOM: "kinema: the plan leaves no room for this pod on the node",
    Rule.OPTIMAL: "kinema: the node is not in the plan",
    Rule.FREE: "kinema: the plan keeps the node's room for other pods",
    Rule.NOT_EXPIRING: EXPIRING_REFUSAL,
}


_PLANNED_SCORES: Final = {
    # (optimal, open targets of others, headroom holds the pod or is not published)
    (True, False, True): 8,
    (True, True, True): 7,
    (False, True, True): 7,
    (False, False, True): 5,
    (False, False, False): 5,
    (True, False, False): 3,
    (True, True, False): 1,
    (False, True, False): 1,
}

_OTHER_SCORES: Final = {
    (True, False, True): 9,
    (False, False, True): 7,
    (False, False, False): 7,
    (True, False, False): 6,
    (True, True, True): 4,
    (False, True, True): 4,
    (True, True, False): 1,
    (False, True, False): 1,
}


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
    names = candidates.names()
    for rule, passes in _rules(pod, planned, known):
        allowed = tuple(name for name in names if passes(name))
        if len(allowed) == len(names):
            return Verdict(rule)
        if allowed:
            return Verdict(rule, allowed, _REFUSALS[rule])
    return Verdict(Rule.EVERYTHING)


def _best_node(pod: Pod, candidates: Candidates, known: Knowledge, reserved: str | None) -> str | None:
    """Return the candidate with the most open places for the pod, the first by name among equals."""
    places = known.open_places(pod)
    if reserved is not None and reserved in places and reserved in candidates:
        return reserved
    ranked = sorted(places, key=lambda node: (-places[node], node))
    return next((node for node in ranked if node in candidates), None)


def score(pod: Pod, names: Sequence[str], known: Knowledge) -> list[int]:
    """Answer a prioritize request: one integer from 0 to 10 for every name, in order.

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
    planned = known.in_plan(pod)
    own: Collection[str] = known.open_places(pod) if planned else ()
    expiring, unfilled, optimal = known.expiring, known.unfilled, known.optimal
    published, holding = known.published, known.holding(pod)
    table = _PLANNED_SCORES if planned else _OTHER_SCORES
    return [
        0
        if name in expiring
        else HIGHEST_SCORE
        if name in own
        else table[name in optimal, name in unfilled, name in holding or name not in published]
        for name in names
    ]


def _rules(pod: Pod, planned: bool, known: Knowledge) -> list[tuple[Rule, Callable[[str], bool]]]:
    """Return the rules for a pod without an open target among the candidates, most exact first."""
    optimal, expiring, published, unfilled = known.optimal, known.expiring, known.published, known.unfilled

    def stays(name: str) -> bool:
        return name not in expiring

    if not planned and not published:
        return [(Rule.OPTIMAL, lambda name: name in optimal and name not in expiring), (Rule.NOT_EXPIRING, stays)]
    holding = known.holding(pod)
    if planned:
        first: list[tuple[Rule, Callable[[str], bool]]] = [
            (
                Rule.HEADROOM,
                lambda name: name in optimal and name not in expiring and (name in holding or name not in published),
            )
        ]
    else:
        first = [
            (Rule.FREE, lambda name: name not in unfilled and name not in expiring),
            # Expiring nodes have no placement that counts, so none of them holds anything.
            (Rule.HEADROOM, lambda name: name in holding),
        ]
    return [*first, (Rule.NOT_EXPIRING, stays)]
