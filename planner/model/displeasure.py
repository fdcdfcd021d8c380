"""What it costs, in a plan, that pods are on nodes that they would rather avoid.

    s = displeasure of the pod on the node - the least displeasure of such a pod on any node or offering

so that what no place can give costs nothing, and a problem in which nobody prefers anything is as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from planner.model.cluster import Node, Pod, pod_key
from planner.model.disruption import foreign_taints, planned_pods
from planner.model.inputs import PlanningInputs
from planner.model.machines import Offering
from planner.model.plan import Plan
from planner.model.preferences import Surroundings, Wishes, displeasure, unmet
from planner.model.scheduling import NodeConstraints

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

    def costs(self, tastes: Sequence[Taste], at: Surroundings) -> list[int]:
        """Return s of one pod of each taste there, in nanodollars per hour."""
        if not self.price or not (self.discouraging or any(wishes for wishes, _ in tastes)):
            return [0] * len(tastes)
        return [self._cost(taste, at) for taste in tastes]

    def cost(self, pod: Pod, at: Surroundings) -> int:
        """Return s of the pod there, in nanodollars per hour."""
        return self.costs([(self.wishes(pod), pod.constraints)], at)[0]

    def _cost(self, taste: Taste, at: Surroundings) -> int:
        wishes, constraints = taste
        if not (wishes or self.discouraging):
            return 0
        if taste not in self._least:
            self._least[taste] = min(displeasure(wishes, constraints, kind, self.price) for kind in self.kinds)
        return displeasure(wishes, constraints, at, self.price) - self._least[taste]


def surroundings(place: Node | Offering) -> Surroundings:
    """Return what pods may prefer of a node that exists, or of one that an offering boots."""
    if isinstance(place, Offering):
        return Surroundings(place.labels, "", place.taints)
    return Surroundings(place.labels, place.name, foreign_taints(place))


def preferences_nanousd_per_hour(plan: Plan, inputs: PlanningInputs) -> int:
    """Return what all pods of the plan count where it wants them.

    Where pods of one workload differ in what they prefer, those that are not named count like the first of them.
    """
    preferences = Preferences.of(inputs)
    pods = {pod_key(pod): pod for pod in planned_pods(inputs.snapshot)}
    if not preferences.price or not (preferences.discouraging or any(pod.wishes for pod in pods.values())):
        return 0
    offers: dict[tuple[str, ...], Surroundings] = {
        (o.pool, o.zone, o.machine_type, o.capacity_type): surroundings(o) for o in inputs.catalogue.offerings
    }
    nodes = {node.name: surroundings(node) for node in inputs.snapshot.nodes}
    named = {key for node in plan.nodes for key in node.pod_names}
    samples: dict[str, Pod] = {}
    for key in sorted(pods.keys() - named):
        samples.setdefault(pods[key].workload, pods[key])
    total = 0
    for node in plan.nodes:
        if node.state == "remove":
            continue
        boot = node.state == "boot"
        at = offers[node.pool, node.zone, node.machine_type, node.capacity_type] if boot else nodes[node.name]
        pinned = [pods[key] for key in node.pod_names]
        free = Counter(node.pods) - Counter(pod.workload for pod in pinned)
        total += sum(preferences.cost(pod, at) for pod in pinned)
        total += sum(count * preferences.cost(samples[workload], at) for workload, count in free.items())
    return total
