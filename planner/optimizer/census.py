"""The pods of a snapshot, counted by what makes them identical, and the room that they have where they are.

Each pod is looked at once, however often it is asked where the pods of a group are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.model.cluster import Node, Pod, pod_key
from planner.model.disruption import foreign_taints
from planner.model.inputs import PlanningInputs
from planner.model.resources import Resources
from planner.optimizer.movement import GroupKey, Movement, party_of


@dataclass(frozen=True, slots=True)
class Members:
    """The pods of one workload: the first by name, how many there are, run, and may be moved.

    `pinned_by` is why the first of those stays that run and do.
    """

    sample: Pod
    pods: int
    running: int
    free: int
    pinned_by: str


@dataclass(frozen=True, slots=True)
class Census:
    """The planned pods by group and workload under the rules of disruption.

    `running` counts by node those that may be moved, `waiting` those that need a place, unmodelled ones left out. A
    party counts there as one, under a name for all parties of such pods; `parties` has the pods of one by workload,
    and `party_groups` the group of each party by the name of the pod that leads it.
    `pinned` counts by node and workload those that stay, `pinned_names` names them. `room` is what each existing node
    that is not frozen has left beside DaemonSets and pinned pods. `members` has the pods of each workload.
    """

    movement: Movement
    running: Mapping[str, Mapping[GroupKey, Mapping[str, int]]]
    waiting: Mapping[GroupKey, Mapping[str, int]]
    pinned: Mapping[str, Mapping[str, int]]
    pinned_names: Mapping[str, Sequence[str]]
    room: Mapping[str, Resources]
    members: Mapping[str, Members]
    parties: Mapping[str, Mapping[str, int]]
    party_groups: Mapping[str, GroupKey]

    def by_workload(self, name: str, count: int) -> dict[str, int]:
        """Return how many pods of which workloads so many of a workload's pods, or parties of this name, are."""
        return {workload: n * count for workload, n in self.parties.get(name, {name: 1}).items()}

    def group_of(self, pod: Pod) -> GroupKey:
        """Return the group that the pod is in, be it with its party."""
        party = self.movement.party(pod)
        return self.party_groups[party] if party else self.movement.group(pod)


def census_of(movement: Movement, before: Census | None = None) -> Census:
    """Count the pods of the movement's snapshot; the one `before` differs from it in who comes where alone."""
    names = frozenset(node.name for node in movement.inputs.snapshot.nodes)
    pins, group = movement.assessment.pins, _Grouping(movement)
    counted: Counter[tuple[str | None, int, str]] = Counter()
    parties: dict[tuple[str | None, str], list[tuple[GroupKey, str]]] = defaultdict(list)
    pinned: dict[str, Counter[str]] = defaultdict(Counter)
    pinned_names: dict[str, list[str]] = defaultdict(list)
    for pod in movement.inputs.snapshot.planned:
        node = pod.node if pod.node in names else None
        if pod_key(pod) in pins:
            if node is not None:
                pinned[node][pod.workload] += 1
                pinned_names[node].append(pod_key(pod))
        elif party := movement.party(pod) if node is not None or not pod.unmodelled else "":
            parties[node, party].append((group.keys[group.number(pod)], pod.workload))
        elif node is not None or not pod.unmodelled:
            counted[node, group.number(pod), pod.workload] += 1
    running: dict[str, dict[GroupKey, dict[str, int]]] = {}
    waiting: dict[GroupKey, dict[str, int]] = {}
    for (node, number, workload), count in counted.items():
        key = group.keys[number]
        by_workload = (waiting if node is None else running.setdefault(node, {})).setdefault(key, {})
        by_workload[workload] = by_workload.get(workload, 0) + count
    composed: dict[str, dict[str, int]] = {}
    groups: dict[str, GroupKey] = {}
    for (node, party), members in parties.items():
        key = groups[party] = party_of(Counter(group for group, _ in members))
        own = dict(sorted(Counter(workload for _, workload in members).items()))
        name = " + ".join(f"{count} {workload}" for workload, count in own.items())
        composed[name] = own
        by_workload = (waiting if node is None else running.setdefault(node, {})).setdefault(key, {})
        by_workload[name] = by_workload.get(name, 0) + 1
    rooms, members_of = (before.room, before.members) if before else (_rooms(movement), _members(movement, names))
    return Census(movement, running, waiting, pinned, pinned_names, rooms, members_of, composed, groups)


def _members(movement: Movement, names: frozenset[str]) -> dict[str, Members]:
    pins = movement.assessment.pins
    pods: dict[str, list[Pod]] = defaultdict(list)
    for pod in movement.inputs.snapshot.planned:
        pods[pod.workload].append(pod)
    found = {}
    for key, own in pods.items():
        running = [pod for pod in own if pod.node in names]
        stay = [pod for pod in running if pod_key(pod) in pins]
        pinned_by = pins[pod_key(min(stay, key=lambda pod: pod.name))] if stay else ""
        sample = min(own, key=lambda pod: pod.name)
        found[key] = Members(sample, len(own), len(running), len(running) - len(stay), pinned_by)
    return found


class _Grouping:
    """Numbers the groups of pods; pods of one reading share what makes them alike, so that few are really compared."""

    def __init__(self, movement: Movement) -> None:
        self.keys: list[GroupKey] = []
        self._movement = movement
        self._numbers: dict[GroupKey, int] = {}
        self._known: dict[tuple[object, ...], int] = {}

    def number(self, pod: Pod) -> int:
        movement, name = self._movement, pod_key(pod)
        barred = movement.inputs.catalogue.spot.bars(pod)
        refused = name in movement.homes.refused or name in movement.parties.refused
        where = (movement.homes.homes.get(name), refused, pod.beside, movement.seats.get(name))
        like = (pod.workload, id(pod.requests), id(pod.constraints), id(pod.wishes), barred, where)
        found = self._known.get(like)
        if found is None:
            key = movement.group(pod)
            found = self._known[like] = self._numbers.setdefault(key, len(self.keys))
            if found == len(self.keys):
                self.keys.append(key)
        return found


def _rooms(movement: Movement) -> dict[str, Resources]:
    inputs, pins = movement.inputs, movement.assessment.pins
    pods_on = inputs.snapshot.pods_on()
    rooms = {}
    for node in inputs.snapshot.nodes:
        if movement.assessment.roles[node.name] == "frozen":
            continue
        room = node.allocatable
        for pod in pods_on[node.name]:
            if pod.stays_with_node:
                room = room - pod.requests
            elif pod.live and pod_key(pod) in pins:
                room = room - movement.requests(pod)
        rooms[node.name] = room - missing_daemons(inputs, node, pods_on[node.name])
    return rooms


def missing_daemons(inputs: PlanningInputs, node: Node, pods: Sequence[Pod]) -> Resources:
    """Return what DaemonSets will take that select the node and have no pod there yet.

    One for which the running pods leave no room is left out: the present state must stay possible.
    """
    served = {pod.workload for pod in pods if pod.stays_with_node}
    absent = [
        daemon
        for daemon in inputs.snapshot.daemonsets
        if daemon.key not in served and daemon.constraints.admit(node.labels, node.name, foreign_taints(node))
    ]
    missing = Resources()
    if absent:
        used = sum((pod.requests for pod in pods if pod.live or pod.stays_with_node), Resources())
        for daemon in sorted(absent, key=lambda d: d.key):
            if daemon.requests.scheduled.fits_in(node.allocatable - used - missing):
                missing = missing + daemon.requests
    return missing
