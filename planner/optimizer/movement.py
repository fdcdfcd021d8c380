"""Who may move how: the rules of disruption, and what follows from them for requests that change."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from planner.model.cluster import Pod, Workload
from planner.model.displeasure import Preferences
from planner.model.disruption import Assessment, planned_pods, pod_key
from planner.model.domains import Crowding, Home, Homes, find_homes
from planner.model.inputs import PlanningInputs
from planner.model.machines import Offering
from planner.model.preferences import Wishes
from planner.model.resources import Resources
from planner.model.scheduling import NodeConstraints


class GroupKey(NamedTuple):
    """What makes pods identical: planned requests, constraints, home, and whether only new nodes may hold them.

    A pod that is `barred` may come to no spot node. `wishes` are those that tell nodes apart.
    """

    requests: Resources
    constraints: NodeConstraints
    home: Home
    fresh: bool
    barred: bool = False
    wishes: Wishes = ()

    def admits(self, labels: Mapping[str, str]) -> bool:
        """Say whether a node of these labels is at home."""
        return all(labels.get(key) == domain for key, domain in self.home)


NOWHERE: Home = (("", ""),)
"""The home of a pod to which no domain is open."""


@dataclass(frozen=True, slots=True)
class Movement:
    """The rules of disruption as the plan keeps them.

    `inputs` count the predicted CPU where the objective caps it. `assessment` has every pin of the plan, those of
    `held` included. `rollable` names the workloads that a roll-out
    may replace as a whole; only their requests change. `homes` says which pods keep to which domain.
    """

    inputs: PlanningInputs
    assessment: Assessment
    rollable: frozenset[str]
    workloads: Mapping[str, Workload]
    homes: Homes
    preferences: Preferences

    def requests(self, pod: Pod) -> Resources:
        """Return what the pod will request under the plan: the forecast's change needs a roll-out."""
        if pod.workload not in self.rollable:
            return pod.requests
        return self.inputs.planned_requests(pod, self.workloads.get(pod.workload))

    def group(self, pod: Pod) -> GroupKey:
        """Return the group of identical pods that the pod belongs to."""
        name = pod_key(pod)
        home = NOWHERE if name in self.homes.refused else self.homes.homes.get(name, ())
        return self.alike(pod)._replace(home=home)

    def alike(self, pod: Pod) -> GroupKey:
        """Return what makes the pod identical to others, wherever they are at home."""
        barred = self.inputs.catalogue.spot.bars(pod)
        fresh = pod.workload in self.inputs.fresh
        return GroupKey(self.requests(pod), pod.constraints, (), fresh, barred, self.preferences.wishes(pod))

    def crowded(self, most: Mapping[GroupKey, tuple[int, str]]) -> Movement:
        """Return the same with homes for at most so many pending pods of each group, and why not for more."""
        snapshot = self.inputs.snapshot
        by_home: dict[tuple[Hashable, Home], tuple[int, str]] = {
            (key._replace(home=()), key.home): limit for key, limit in most.items()
        }
        crowding = Crowding(self.alike, by_home)
        return replace(
            self, homes=find_homes(snapshot.nodes, self.inputs.catalogue.due(snapshot.nodes), snapshot.pods, crowding)
        )

    def anywhere(self) -> Movement:
        """Return the same without homes: what a lower bound is about, since other homes might do as well."""
        return replace(self, homes=Homes())

    def open_inputs(self) -> PlanningInputs:
        """Return the inputs without what is on offer in closed domains, unless a pool must have nodes there."""
        catalogue = self.inputs.catalogue
        offerings = tuple(o for o in catalogue.offerings if o.minimum or not self.shut(o))
        return replace(self.inputs, catalogue=replace(catalogue, offerings=offerings))

    def shut(self, offering: Offering) -> str:
        """Say why nothing may be booted in a domain of the offering; "" where it may."""
        return next((str(c) for c in self.homes.closed if c.bars(offering.labels, offering.taints)), "")


def movement_of(inputs: PlanningInputs) -> Movement:
    """Apply the rules of disruption, and `held`."""
    assessment = inputs.assessment
    names = {node.name for node in inputs.snapshot.nodes}
    running = {p.workload for p in planned_pods(inputs.snapshot) if p.node in names}
    pinned = {p.workload for p in planned_pods(inputs.snapshot) if pod_key(p) in assessment.pins}
    return Movement(
        inputs=inputs.under_cap(),
        assessment=assessment,
        rollable=frozenset(k for k, m in assessment.mobility.items() if m.rollout and k in running - pinned),
        workloads={w.key: w for w in inputs.snapshot.workloads},
        homes=find_homes(inputs.snapshot.nodes, inputs.catalogue.due(inputs.snapshot.nodes), inputs.snapshot.pods),
        preferences=Preferences.of(inputs),
    )
