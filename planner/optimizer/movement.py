"""Who may move how: the rules of disruption, and what follows from them for requests that change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

from planner.model.cluster import Pod, Workload, free_room, pod_key
from planner.model.companions import Parties, find_parties
from planner.model.displeasure import Preferences
from planner.model.disruption import Assessment, foreign_taints, planned_pods
from planner.model.domains import Crowding, Home, Homes, find_homes
from planner.model.inputs import PlanningInputs, offering_room
from planner.model.machines import Offering
from planner.model.preferences import Wishes
from planner.model.resources import Resources
from planner.model.scheduling import NodeConstraints, Taint


class GroupKey(NamedTuple):
    """What makes pods identical: planned requests, constraints, home, and whether only new nodes may hold them.

    A pod that is `barred` may come to no spot node. `wishes` are those that tell nodes apart. `beside` names the node
    where the pod joins others. What comes to one node as a party counts as one pod, with its `members` by group. A pod
    that comes `at_once` waits for nobody to make room.
    """

    requests: Resources
    constraints: NodeConstraints
    home: Home
    fresh: bool
    barred: bool = False
    wishes: Wishes = ()
    beside: str = ""
    members: tuple[tuple[GroupKey, int], ...] = ()
    at_once: bool = False

    @property
    def pods(self) -> int:
        """How many pods one of the group is."""
        return sum(count for _, count in self.members) or 1

    def anywhere(self) -> GroupKey:
        """Return the same without what the planner chose for it: home, node, new nodes only."""
        return self._replace(home=(), fresh=False, beside="", at_once=False)


def party_of(members: Counter[GroupKey]) -> GroupKey:
    """Return what makes parties of such pods identical."""
    keys = sorted(members.elements(), key=repr)
    requests, constraints = keys[0].requests, keys[0].constraints
    for key in keys[1:]:
        requests, constraints = requests + key.requests, constraints & key.constraints
    home = tuple(sorted({pair for key in keys for pair in key.home}))
    each = tuple(sorted(members.items(), key=repr))
    return GroupKey(requests, constraints, home, any(k.fresh for k in keys), any(k.barred for k in keys), members=each)


NOWHERE: Home = (("", ""),)
"""The home of a pod to which no domain is open."""


@dataclass(frozen=True, slots=True)
class Movement:
    """The rules of disruption as the plan keeps them.

    `inputs` count the predicted CPU where the objective caps it. `assessment` has every pin of the plan, those of
    `held` included. `rollable` names the workloads that a roll-out
    may replace as a whole; only their requests change. `homes` says which pods keep to which domain, `parties` which
    waiting ones come to one node together. Not `accompanied`, pods go without those that they need on their node. Of
    waiting pods that come `at_once` the `seats` say whether some node has room for them now.
    """

    inputs: PlanningInputs
    assessment: Assessment
    rollable: frozenset[str]
    workloads: Mapping[str, Workload]
    homes: Homes
    preferences: Preferences
    parties: Parties = field(default_factory=Parties)
    accompanied: bool = True
    seats: Mapping[str, bool] = field(default_factory=dict)

    @property
    def chosen(self) -> bool:
        """Whether it rests on choices of the planner, so that a bound of it is none of what is possible."""
        company = self.accompanied and any(pod.beside or pod.party for pod in self.inputs.snapshot.planned)
        own = self.inputs.held or self.inputs.fresh or self.homes.homes or self.parties.of or self.seats
        return company or bool(own)

    def requests(self, pod: Pod) -> Resources:
        """Return what the pod will request under the plan: the forecast's change needs a roll-out."""
        if pod.workload not in self.rollable:
            return pod.requests
        return self.inputs.planned_requests(pod, self.workloads.get(pod.workload))

    def group(self, pod: Pod) -> GroupKey:
        """Return the group of identical pods that the pod belongs to."""
        name = pod_key(pod)
        refused = name in self.homes.refused or name in self.parties.refused
        home = NOWHERE if refused else self.homes.homes.get(name, ())
        return self.alike(pod)._replace(home=home, beside=pod.beside if self.accompanied else "")

    def party(self, pod: Pod) -> str:
        """Return the party in which the pod stays, moves or comes; "" where it is in none."""
        if not self.accompanied:
            return ""
        return self.parties.of.get(pod_key(pod), "") if not pod.party else pod.party

    def alike(self, pod: Pod) -> GroupKey:
        """Return what makes the pod identical to others, wherever they are at home."""
        barred = self.inputs.catalogue.spot.bars(pod)
        fresh = pod.workload in self.inputs.fresh or not self.seats.get(pod_key(pod), True)
        wishes, at_once = self.preferences.wishes(pod), pod_key(pod) in self.seats
        return GroupKey(self.requests(pod), pod.constraints, (), fresh, barred, wishes, at_once=at_once)

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
        """Return the same without homes and parties: what a lower bound is about, since others might do as well."""
        return replace(self, homes=Homes(), parties=Parties(), accompanied=False, seats={})

    def thinned(self, parties: Collection[str], why: str) -> Movement:
        """Return the same with half of those that follow in these parties; the last to join are left out.

        Whom they follow joined before them, so that who is left still finds company.
        """
        following: dict[str, list[str]] = {party: [] for party in parties}
        for name, party in self.parties.of.items():
            if party in following and name != party:
                following[party].append(name)
        gone = {name: why for names in following.values() for name in names[len(names) // 2 :]}
        alone = {party for party, names in following.items() if len(names) < 2}
        left = {name: party for name, party in self.parties.of.items() if name not in gone and party not in alone}
        return replace(self, parties=Parties(left, {**self.parties.refused, **gone}))

    def shut(self, offering: Offering) -> str:
        """Say why nothing may be booted in a domain of the offering; "" where it may."""
        return next((str(c) for c in self.homes.closed if c.bars(offering.labels, offering.taints)), "")


def movement_of(inputs: PlanningInputs) -> Movement:
    """Apply the rules of disruption, and `held`."""
    assessment = inputs.assessment
    names = {node.name for node in inputs.snapshot.nodes}
    running = {p.workload for p in planned_pods(inputs.snapshot) if p.node in names}
    pinned = {p.workload for p in planned_pods(inputs.snapshot) if pod_key(p) in assessment.pins}
    movement = Movement(
        inputs=inputs.under_cap(),
        assessment=assessment,
        rollable=frozenset(k for k, m in assessment.mobility.items() if m.rollout and k in running - pinned),
        workloads={w.key: w for w in inputs.snapshot.workloads},
        homes=find_homes(inputs.snapshot.nodes, inputs.catalogue.due(inputs.snapshot.nodes), inputs.snapshot.pods),
        preferences=Preferences.of(inputs),
    )
    return replace(movement, parties=find_parties(movement.inputs.snapshot.pods, movement.requests, _holding(movement)))


def _holding(movement: Movement) -> Callable[[Resources, NodeConstraints], bool]:
    """Return what says whether a node may hold pods of these requests together: a new one, or one as it is now."""
    inputs = movement.inputs

    @cache
    def places() -> list[tuple[Resources, Mapping[str, str], str, tuple[Taint, ...]]]:
        free = free_room(inputs.snapshot.nodes, inputs.snapshot.pods)
        found = [(offering_room(inputs, o), o.labels, "", o.taints) for o in inputs.catalogue.offerings]
        for node in inputs.snapshot.nodes:
            if movement.assessment.roles[node.name] != "frozen":
                found.append((free[node.name], node.labels, node.name, foreign_taints(node)))
        return found

    return lambda requests, constraints: any(
        requests.fits_in(room) and constraints.admit(labels, name, taints) for room, labels, name, taints in places()
    )
