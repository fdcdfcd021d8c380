"""The plan's moves on paper: whether an order of stages exists in which everything fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner.model.cluster import Node, Snapshot
from planner.model.disruption import Mobility
from planner.model.inputs import PlanningInputs
from planner.model.machines import Catalogue, Offering
from planner.model.plan import Plan, PlanRecord
from planner.model.resources import Resources
from planner.rescheduler.arrivals import promise_what_comes
from planner.rescheduler.movers import MisplacedPods, Mover, by_stage, movers_of
from planner.rescheduler.moves import Moves, choose_moves
from planner.rescheduler.room import Room

_AT_ONCE = 10**9
"""More pods than any disruption budget covers."""

_SHUT_OUT = "no free place of the plan suits a pod of it that waits for a node"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The cluster in which a plan's moves are played, before the first of them.

    Plans that differ only in stages and strategies share one; one that wants other nodes of some is `wanting`. On the
    `tight` nodes others must leave before the pods have room that wait for any node and are to come there. Of the
    workloads that are `shut_out` a pod waits for a place that another one of them would have to leave first.
    """

    movers: tuple[Mover, ...]
    room: Room
    allowed: dict[str, Mobility]
    find_misplaced: MisplacedPods
    tight: frozenset[str]
    shut_out: frozenset[str]

    @classmethod
    def of(cls, plan: Plan, inputs: PlanningInputs) -> Rehearsal:
        """Set the stage: every new node is Ready and runs its DaemonSets."""
        record = PlanRecord(plan, "carrying-out", accepted_at=inputs.snapshot.taken_at)
        booted = with_booted(plan, inputs.snapshot, inputs.catalogue)
        # Where pods are changes nothing about how many of them may be unavailable.
        allowed = dict(inputs.mobility)
        room, movers = Room(plan, booted), movers_of(record, booted, inputs.sought)
        free, arriving = dict(room.free), {name: Resources() for name in room.free}
        arrived, shut_out = [], set()
        for mover in movers:
            coming = promise_what_comes(record, mover, room)
            arrived.append(_arrived(mover, coming))
            if _waits(arrived[-1]):
                shut_out.add(mover.key)
            for node in coming.keys() & arriving.keys():
                arriving[node] = arriving[node] + mover.planned.requests * coming[node]
        tight = frozenset(node for node, requests in arriving.items() if not requests.fits_in(free[node]))
        disrupted = _disrupted_for_good(plan, allowed)
        unpaced = {m.key: _unpaced(allowed[m.key], m, disrupted) for m in arrived if m.key in allowed}
        return cls(tuple(arrived), room, allowed | unpaced, MisplacedPods(record), tight, frozenset(shut_out))

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

    def play(self, plan: Plan) -> Ending:
        """Play the plan's moves in the order of its stages, until nothing moves any more.

        A move is possible where every new pod of a roll-out fits beside all pods that still stand, and every evicted
        pod finds its planned node with room at that moment. Nothing moves of which the plan leaves pods without a
        place: they would take the places of those that move, and are unavailable already. Nor does that of which a
        pod waits for a place that no other has left: by their numbers none of those is to leave it, and while it waits
        none may. Nor does what would have to leave a node before pods can come there that wait for any: those take
        what they find, whoever it is meant for.
        """
        planned = plan.workloads
        movers = by_stage(m.as_planned(planned[m.key]) for m in self.movers if planned[m.key].moves)
        left_out = {m.key: _SHUT_OUT for m in movers if m.key in self.shut_out}
        left_out |= {m.key: "the plan has no place for some of its pods" for m in movers if m.key in plan.unplaced}
        room = self.room.copy()
        for mover in movers:
            leaving = mover.pods if mover.planned.strategy == "rollout" else mover.misplaced
            if nodes := sorted(self.tight & {pod.node for pod in leaving if pod.node}):
                left_out.setdefault(mover.key, f"pods that wait for a node have no room on {nodes[0]} before it moves")
        movers = [mover for mover in movers if mover.key not in left_out]
        disrupted = _disrupted_for_good(plan, self.allowed)
        while True:
            moves = choose_moves(movers, room, self.allowed, disrupted, left_out)
            if not moves.rollouts and not moves.evictions:
                return Ending(left_out | dict(moves.stuck or moves.behind), tuple(movers), room)
            movers = _after(moves, movers, room)
            room = room.copy()


@dataclass(frozen=True, slots=True)
class Ending:
    """Where the moves end: the workloads that cannot move, with a reason, all that still want to, and what is free."""

    stuck: dict[str, str]
    movers: tuple[Mover, ...]
    room: Room


def _disrupted_for_good(plan: Plan, allowed: Mapping[str, Mobility]) -> Counter[str]:
    """Count by disruption budget the pods without a place: they stay unavailable, and others share their budgets."""
    disrupted: Counter[str] = Counter()
    for key, unplaced in plan.unplaced.items():
        for budget, _ in allowed[key].budgets if key in allowed else ():
            disrupted[budget] += unplaced.count
    return disrupted


def _unpaced(mobility: Mobility, mover: Mover, disrupted: Mapping[str, int]) -> Mobility:
    """Let all go at once that may go one after the other.

    Pace decides how long it takes, and not whether there is room for each in its turn.
    """
    many = mover.workload.replicas + len(mover.pods)
    evictable = mobility.evictable + (many if mobility.evictable > mover.unavailable else 0)
    least = max(1, mover.workload.max_unavailable) if mobility.rollout else 1
    budgets = tuple(
        (name, _AT_ONCE if spare - disrupted.get(name, 0) >= least else spare) for name, spare in mobility.budgets
    )
    return replace(mobility, evictable=evictable, budgets=budgets)


def _arrived(mover: Mover, coming: Mapping[str, int]) -> Mover:
    """Return the mover once so many of its pods that wait for a node have come to each, and run there.

    Of a workload that has none elsewhere and moves none, nothing is asked after that.
    """
    if not mover.planned.moves and not mover.here:
        return mover
    places = [node for node, count in coming.items() for _ in range(count)]
    pods = []
    for pod in mover.pods:
        pods.append(replace(pod, node=places.pop(), ready=True) if pod.node is None and places else pod)
    return replace(mover, pods=tuple(pods))


def _waits(mover: Mover) -> bool:
    """Say whether a pod of the workload waits for a node that is not replaced by a roll-out before."""
    return mover.planned.strategy != "rollout" and mover.coming > 0 and any(pod.node is None for pod in mover.pods)


def _after(moves: Moves, movers: list[Mover], room: Room) -> list[Mover]:
    """Let the moves end: roll-outs are over, evicted pods stand on their targets, and both left their old nodes."""
    targets = {pod.uid: target for pod, target in moves.evictions}
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


def _without_evicted(mover: Mover, targets: Mapping[str, str]) -> Mover:
    here, staying = Counter(mover.here), []
    for pod in mover.misplaced:
        if (target := targets.get(pod.uid)) is None:
            staying.append(pod)
        else:
            here[pod.node or ""] -= 1
            here[target] += 1
    return replace(mover, rearranged=here, misplaced=tuple(staying))


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
