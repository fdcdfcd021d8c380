"""The plan's moves on paper: whether an order of stages exists in which everything fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner.model.cluster import Node, Snapshot
from planner.model.disruption import Mobility, mobilities
from planner.model.inputs import PlanningInputs
from planner.model.machines import Catalogue, Offering
from planner.model.plan import Plan, PlanRecord
from planner.rescheduler.moves import (
    MisplacedPods,
    Mover,
    Moves,
    Room,
    by_stage,
    choose_moves,
    movers_of,
    promise_what_comes,
)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The cluster in which a plan's moves are played, before the first of them.

    Plans that differ only in stages and strategies share one; one that wants other nodes of some is `wanting`.
    """

    movers: tuple[Mover, ...]
    room: Room
    allowed: dict[str, Mobility]
    find_misplaced: MisplacedPods

    @classmethod
    def of(cls, plan: Plan, inputs: PlanningInputs) -> Rehearsal:
        """Set the stage: every new node is Ready and runs its DaemonSets."""
        record = PlanRecord(plan, "carrying-out", accepted_at=inputs.snapshot.taken_at)
        booted = with_booted(plan, inputs.snapshot, inputs.catalogue)
        # Where pods are changes nothing about how many of them may be unavailable.
        allowed = mobilities(inputs.snapshot, inputs.rules)
        room, movers = Room(plan, booted), movers_of(record, booted)
        for mover in movers:
            promise_what_comes(record, mover, room)
            if (mobility := allowed.get(mover.key)) is not None and mobility.evictable > mover.unavailable:
                # How many go at once decides how long it takes, and not whether there is room for each in its turn.
                allowed[mover.key] = replace(mobility, evictable=mobility.evictable + len(mover.pods))
        return cls(tuple(movers), room, allowed, MisplacedPods(record))

    def wanting(self, wanted: Mapping[str, dict[str, int]]) -> Rehearsal:
        """Return the rehearsal of a plan that wants these workloads' pods on other nodes."""
        movers = tuple(
            replace(m, wanted=wanted[m.key], misplaced=self.find_misplaced(m.pods, wanted[m.key]))
            if m.key in wanted
            else m
            for m in self.movers
        )
        return replace(self, movers=movers)

    def evictable(self, key: str) -> bool:
        """Say whether the workload's strategy and budgets allow evictions."""
        return key in self.allowed and self.allowed[key].evictable > 0

    def stuck(self, plan: Plan) -> dict[str, str]:
        """Return the workloads that cannot move when the plan's moves are played, with a reason."""
        return self.play(plan).stuck

    def play(self, plan: Plan) -> Ending:
        """Play the plan's moves in the order of its stages, until nothing moves any more.

        A move is possible where every new pod of a roll-out fits beside all pods that still stand, and every evicted
        pod finds its planned node with room at that moment.
        """
        planned = plan.workloads
        movers = by_stage(m.as_planned(planned[m.key]) for m in self.movers if planned[m.key].moves)
        room = self.room.copy()
        while True:
            moves = choose_moves(movers, room, self.allowed)
            if not moves.rollouts and not moves.evictions:
                return Ending(dict(moves.stuck or moves.behind), tuple(movers), room)
            movers = _after(moves, movers, room)
            room = room.copy()


@dataclass(frozen=True, slots=True)
class Ending:
    """Where the moves end: the workloads that cannot move, with a reason, all that still want to, and what is free."""

    stuck: dict[str, str]
    movers: tuple[Mover, ...]
    room: Room


def _after(moves: Moves, movers: list[Mover], room: Room) -> list[Mover]:
    """Let the moves end: roll-outs are over, evicted pods stand on their targets, and both left their old nodes."""
    targets = {(pod.namespace, pod.name): target for pod, target in moves.evictions}
    for pod, _ in moves.evictions:
        room.release(pod)
    rolled = set(moves.rollouts)
    for mover in movers:
        if mover.key in rolled:
            for pod in mover.pods:
                room.release(pod)
    evicted = {pod.workload for pod, _ in moves.evictions}
    return [
        _without_evicted(mover, targets) if mover.key in evicted else mover
        for mover in movers
        if mover.key not in rolled
    ]


def _without_evicted(mover: Mover, targets: Mapping[tuple[str, str], str]) -> Mover:
    pods = []
    for pod in mover.pods:
        target = targets.get((pod.namespace, pod.name))
        pods.append(pod if target is None else replace(pod, node=target, ready=True))
    misplaced = (pod for pod in mover.misplaced if (pod.namespace, pod.name) not in targets)
    return replace(mover, pods=tuple(pods), misplaced=tuple(misplaced))


def with_booted(plan: Plan, snapshot: Snapshot, catalogue: Catalogue) -> Snapshot:
    """Return the snapshot as it will be when every new node is Ready and runs its DaemonSets."""
    present = {node.name for node in snapshot.nodes}
    offerings: dict[tuple[str, ...], Offering] = {
        (o.pool, o.zone, o.machine_type, o.capacity_type): o for o in catalogue.offerings
    }
    fresh = []
    for node in plan.nodes:
        if node.state != "boot" or node.name in present:
            continue
        offering = offerings[node.pool, node.zone, node.machine_type, node.capacity_type]
        room = node.allocatable
        for daemonset in snapshot.daemonsets:
            if daemonset.constraints.admit(offering.labels, node.name, offering.taints):
                room = room - daemonset.requests
        fresh.append(Node(node.name, "", offering.labels, {}, offering.taints, room))
    return replace(snapshot, nodes=(*snapshot.nodes, *fresh))
