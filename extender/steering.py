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
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final, Protocol

from planner.labels import Placement, Target

HIGHEST_SCORE: Final = 10
"""Greatest score that the extender protocol knows (extender/v1 MaxExtenderPriority)."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as steering sees it: whose it is, which iteration marked it, and what it asks for.

    `workload` is "namespace/Kind/name" of the controlling owner, with a Deployment in place of its
    ReplicaSet; `workload_uid` is empty where it is not known. `requests` is keyed as `Placement.headroom`.
    """

    uid: str
    workload: str
    workload_uid: str
    iteration: str
    requests: Mapping[str, int]


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

    def holds(self, node: str, pod: Pod) -> bool:
        """Tell whether the node's headroom, less what was taken since it was published, holds the pod."""


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
    own = known.open_places(pod) if planned else {}
    return [_score(pod, name, planned, name in own, known) for name in names]


def _score(pod: Pod, name: str, planned: bool, own: bool, known: Knowledge) -> int:
    if name in known.expiring:
        return 0
    if own:
        return HIGHEST_SCORE
    holds = name not in known.published or known.holds(name, pod)
    if name in known.unfilled:
        if not holds:
            return 1
        return 7 if planned else 4
    if name not in known.optimal:
        return 5 if planned else 7
    if holds:
        return 8 if planned else 9
    return 3 if planned else 6


def _rules(pod: Pod, planned: bool, known: Knowledge) -> list[tuple[Rule, Callable[[str], bool]]]:
    """Return the rules for a pod without an open target among the candidates, most exact first."""
    optimal, expiring, published, unfilled = known.optimal, known.expiring, known.published, known.unfilled

    def is_optimal(name: str) -> bool:
        return name in optimal and name not in expiring

    def has_room(name: str) -> bool:
        return is_optimal(name) and (name not in published or known.holds(name, pod))

    def is_free(name: str) -> bool:
        return name not in unfilled and name not in expiring

    def has_headroom(name: str) -> bool:
        return name in published and name not in expiring and known.holds(name, pod)

    def stays(name: str) -> bool:
        return name not in expiring

    if planned:
        first = [(Rule.HEADROOM, has_room)]
    elif not published:
        first = [(Rule.OPTIMAL, is_optimal)]
    else:
        first = [(Rule.FREE, is_free), (Rule.HEADROOM, has_headroom)]
    return [*first, (Rule.NOT_EXPIRING, stays)]
