"""What pods prefer of nodes without demanding it, and what it is worth.

kube-scheduler scores nodes by the preferred terms of node affinity and by taints of the effect PreferNoSchedule. A pod
on a node that has none of what it prefers is wholly displeased; what that costs is small unless the user raises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.model.scheduling import NodeConstraints, NodeSelectorTerm, PodTerm, Spread, Taint

AFFINITY_PARTS, TAINT_PARTS = 2, 3
"""How the two kinds of preferences are weighed against each other: as kube-scheduler weighs its plugins NodeAffinity
and TaintToleration. Source: pkg/scheduler/apis/config/v1/default_plugins.go."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One preferred term of a pod's node affinity, with its weight of 1 to 100."""

    weight: int
    term: NodeSelectorTerm


Wishes = tuple[Wish, ...]


@dataclass(frozen=True, slots=True)
class Company:
    """What a pod would like of the pods around it, without demanding it; hashable, so that equal ones are one value.

    `near` and `apart` are preferred terms of (anti-)affinity with their weights of 1 to 100, `spreads` are those with
    whenUnsatisfiable ScheduleAnyway.
    """

    near: tuple[tuple[int, PodTerm], ...] = ()
    apart: tuple[tuple[int, PodTerm], ...] = ()
    spreads: tuple[Spread, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pod may prefer of a node: labels, name ("" of one that does not exist yet) and taints."""

    labels: Mapping[str, str]
    name: str
    taints: tuple[Taint, ...]


@dataclass(frozen=True, slots=True)
class PreferencePrices:
    """What preferences are worth in a plan, in nanodollars per hour.

    A pod that is wholly displeased costs `pod_nanousd_per_hour`, and all pods of the cluster together never more than
    `ceiling_nanousd_per_hour`: a plan that is dearer by more than the ceiling never wins by what pods prefer.
    """

    pod_nanousd_per_hour: int = 10_000
    ceiling_nanousd_per_hour: int = 1_000_000

    def each_nanousd_per_hour(self, pods: int) -> int:
        """Return what one wholly displeased pod of so many costs: min(price, ceiling / pods), rounded down."""
        return min(self.pod_nanousd_per_hour, self.ceiling_nanousd_per_hour // max(1, pods))


def unmet(wishes: Wishes, node: Surroundings) -> int:
    """Return the sum of the weights of the terms that the node does not match."""
    return sum(wish.weight for wish in wishes if not wish.term.matches(node.labels, node.name))


def unwelcome(constraints: NodeConstraints, node: Surroundings) -> bool:
    """Say whether the node has a taint of the effect PreferNoSchedule that the pod does not tolerate."""
    return any(
        taint.effect == "PreferNoSchedule" and not any(t.tolerates(taint) for t in constraints.tolerations)
        for taint in node.taints
    )


def displeasure(wishes: Wishes, constraints: NodeConstraints, node: Surroundings, price: int) -> int:
    """Return what it costs that a pod is on this node, of the `price` of a wholly displeased one, rounded down.

    price x (3 x [a taint that it does not tolerate] + 2 x unmet weight / all weight) / 5.
    """
    whole = sum(wish.weight for wish in wishes) or 1
    parts = TAINT_PARTS * whole * unwelcome(constraints, node) + AFFINITY_PARTS * unmet(wishes, node)
    return price * parts // ((TAINT_PARTS + AFFINITY_PARTS) * whole)
