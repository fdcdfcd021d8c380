"""What it costs, in a plan, that pods are on nodes that they would rather avoid.

    s_gk = displeasure of a pod of g on k - the least displeasure of such a pod on any node or offering

so that what no place can give costs nothing, and a problem in which nobody prefers anything is as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from planner.model.cluster import Node, Pod
from planner.model.disruption import foreign_taints
from planner.model.inputs import PlanningInputs
from planner.model.machines import Offering
from planner.model.preferences import Surroundings, Wishes, displeasure, unmet
from planner.model.scheduling import NodeConstraints
from planner.optimizer.constraints import IntArray

Taste = tuple[Wishes, NodeConstraints]
"""All that decides how much a pod likes a node; of the constraints only the tolerations count."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """The price of a wholly displeased pod in nanodollars per hour, and every node and offering there is.

    `discouraging` says that some have a taint of the effect PreferNoSchedule.
    """

    price: int
    kinds: tuple[Surroundings, ...]
    discouraging: bool
    _telling: dict[Wishes, bool] = field(default_factory=dict)
    _least: dict[Taste, int] = field(default_factory=dict)

    @classmethod
    def of(cls, inputs: PlanningInputs) -> Preferences:
        """Return the preferences among all nodes and offerings of the inputs."""
        nodes = [surroundings(node) for node in inputs.snapshot.nodes]
        kinds = (*nodes, *(surroundings(offering) for offering in inputs.catalogue.offerings))
        taints = any(taint.effect == "PreferNoSchedule" for kind in kinds for taint in kind.taints)
        return cls(inputs.displeasure_nanousd_per_hour(), kinds, taints)

    def wishes(self, pod: Pod) -> Wishes:
        """Return what the pod wishes if it tells any two nodes or offerings apart, else nothing."""
        wishes = pod.wishes
        if not wishes or not self.price:
            return ()
        if wishes not in self._telling:
            self._telling[wishes] = len({unmet(wishes, kind) for kind in self.kinds}) > 1
        return wishes if self._telling[wishes] else ()

    def cost(self, taste: Taste, at: Surroundings) -> int:
        """Return s of one pod there, in nanodollars per hour."""
        wishes, constraints = taste
        if not self.price or not (wishes or self.discouraging):
            return 0
        if taste not in self._least:
            self._least[taste] = min(displeasure(wishes, constraints, kind, self.price) for kind in self.kinds)
        return displeasure(wishes, constraints, at, self.price) - self._least[taste]

    def costs(self, tastes: Sequence[Taste], at: Surroundings) -> IntArray:
        """Return s of one pod of each taste there, (tastes,)."""
        if not self.price or not (self.discouraging or any(wishes for wishes, _ in tastes)):
            return np.zeros(len(tastes), dtype=np.int64)
        return np.array([self.cost(taste, at) for taste in tastes], dtype=np.int64)


def surroundings(place: Node | Offering) -> Surroundings:
    """Return what pods may prefer of a node that exists, or of one that an offering boots."""
    if isinstance(place, Offering):
        return Surroundings(place.labels, "", place.taints)
    return Surroundings(place.labels, place.name, foreign_taints(place))
