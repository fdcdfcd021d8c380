"""What one pod counts on a node that it would rather avoid, from the inputs alone.

It counts by how much more it is displeased where it is than on the node or offering of the cluster that it likes best.
What all nodes and offerings have or lack alike is no wish that tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from planner.model.disruption import foreign_taints
from planner.model.inputs import PlanningInputs
from planner.model.preferences import Surroundings, Wishes, displeasure, unmet
from planner.model.scheduling import NodeConstraints


@dataclass(frozen=True, slots=True)
class Tastes:
    """All nodes and offerings, and what a wholly displeased pod costs in nanodollars per hour.

    `indifferent` says that no place has a taint of the effect PreferNoSchedule, so that wishes alone count.
    """

    price: int
    places: tuple[Surroundings, ...]
    indifferent: bool
    _best: dict[tuple[Wishes, NodeConstraints], int] = field(default_factory=dict)
    _alike: dict[Wishes, bool] = field(default_factory=dict)

    def telling(self, wishes: Wishes) -> Wishes:
        """Return the wishes, or none where every place meets as much of them or they are worth nothing."""
        if not wishes or self.price == 0:
            return ()
        if wishes not in self._alike:
            first = unmet(wishes, self.places[0]) if self.places else 0
            self._alike[wishes] = all(unmet(wishes, place) == first for place in self.places)
        return () if self._alike[wishes] else wishes

    def minds(self, wishes: Wishes) -> bool:
        """Say whether a pod of these (telling) wishes may cost something anywhere."""
        return self.price != 0 and (not self.indifferent or bool(wishes))

    def cost_nanousd_per_hour(self, wishes: Wishes, constraints: NodeConstraints, place: Surroundings) -> int:
        """Return what one pod of these (telling) wishes costs in this place."""
        if not self.minds(wishes):
            return 0
        best = self._best.get((wishes, constraints))
        if best is None:
            best = min(displeasure(wishes, constraints, other, self.price) for other in self.places)
            self._best[wishes, constraints] = best
        return displeasure(wishes, constraints, place, self.price) - best


def tastes_of(inputs: PlanningInputs) -> Tastes:
    """Look at every node and every offering of the inputs."""
    places = [Surroundings(node.labels, node.name, foreign_taints(node)) for node in inputs.snapshot.nodes]
    places += [Surroundings(offering.labels, "", offering.taints) for offering in inputs.catalogue.offerings]
    effects = {taint.effect for place in places for taint in place.taints}
    return Tastes(inputs.displeasure_nanousd_per_hour(), tuple(places), "PreferNoSchedule" not in effects)
