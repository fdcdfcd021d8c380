"""Which pods can move now: roll-outs and evictions for which there is room at this moment."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from planner import labels as keys
from planner.model.cluster import Pod, Snapshot, Workload
from planner.model.disruption import DisruptionRules, Mobility, mobilities, planned_pods, pod_key
from planner.model.plan import EvictPod, Plan, PlannedWorkload, PlanRecord, RollOut, Step
from planner.model.resources import Resources
from planner.settings import MoveSettings


def rules_of(settings: MoveSettings) -> DisruptionRules:
    """Return the rules of disruption that the settings ask for."""
    return DisruptionRules(settings.unavailability_ceiling, settings.pin_local_storage)


@dataclass(frozen=True, slots=True)
class Moves:
    """Which moves can start now, what is under way, and what cannot move yet.

    `stuck` has the reason of each workload that finds no room, `behind` of each whose room those before it want; the
    moves are `over` when nothing is left to start or to wait for.
    """

    rollouts: tuple[str, ...]
    evictions: tuple[tuple[Pod, str], ...]
    waiting: tuple[str, ...]
    stuck: tuple[tuple[str, str], ...]
    behind: tuple[tuple[str, str], ...]

    @property
    def over(self) -> bool:
        return not (self.rollouts or self.evictions or self.waiting)


class Room:
    """What is free on each node of the plan, less what is promised to pods that are on their way.

    What is `claimed` is free, and kept for a workload of an earlier stage that does not find all its room yet.
    """

    def __init__(self, plan: Plan, snapshot: Snapshot) -> None:
        pods = snapshot.pods_on()
        ready = {node.name: node for node in snapshot.nodes if node.ready and not node.unschedulable}
        self.free: dict[str, Resources] = {}
        for planned in plan.nodes:
            if planned.state == "remove" or planned.frozen or planned.name not in ready:
                continue
            free = ready[planned.name].allocatable
            for pod in pods.get(planned.name, []):
                free = free - pod.requests
            self.free[planned.name] = free
        self._nodes = ready
        self.claimed = {name: Resources() for name in self.free}

    def holds(self, node: str, requests: Resources) -> bool:
        return node in self.free and requests.fits_in(self.free[node] - self.claimed[node])

    def place(self, pod: Pod) -> str | None:
        """Return a node that has room for the pod and that its own constraints admit; None where there is none."""
        for name in self.free:
            node = self._nodes[name]
            if self.holds(name, pod.requests) and pod.constraints.admit(node.labels, name, node.taints):
                return name
        return None

    def would_hold(self, node: str, requests: Resources) -> bool:
        """Say whether the node had room if nobody before had claimed any."""
        return node in self.free and requests.fits_in(self.free[node])

    def promise(self, node: str, requests: Resources) -> None:
        if node in self.free:
            self.free[node] = self.free[node] - requests

    def claim(self, node: str, requests: Resources) -> None:
        if node in self.claimed:
            self.claimed[node] = self.claimed[node] + requests


def find_moves(record: PlanRecord, snapshot: Snapshot, settings: MoveSettings) -> Moves:
    """Find every move that has room now, after room was set aside for those that are under way.

    Workloads come in the order of their stages. One that still waits keeps its room reserved against those behind
    it, so that a slow pod here or a fast one there cannot lead into a state that the rehearsal never saw: in the
    rehearsal's order the first move that has not begun always finds its room, since only those before it, and those
    that left it its room, have taken any.
    """
    plan = record.plan
    room = Room(plan, snapshot)
    allowed = mobilities(snapshot, rules_of(settings))
    workloads = {w.key: w for w in snapshot.workloads if w.replicas > 0}
    moving = [
        (key, planned, workloads[key])
        for key, planned in sorted(plan.workloads.items(), key=lambda item: (item[1].stage, item[0]))
        if planned.moves and key in workloads and workloads[key].uid == planned.uid
    ]
    pods: dict[str, list[Pod]] = {key: [] for key, _, _ in moving}
    for pod in planned_pods(snapshot):
        if pod.workload in pods:
            pods[pod.workload].append(pod)
    waiting: list[str] = []
    for key, planned, workload in moving:
        if reason := _under_way(record, planned, workload, pods[key]):
            waiting.append(reason)
            for node, count in _still_to_come(record, key, pods[key], workload.replicas).items():
                room.promise(node, planned.requests * count)
    rollouts: list[str] = []
    evictions: list[tuple[Pod, str]] = []
    stuck: list[tuple[str, str]] = []
    behind: list[tuple[str, str]] = []
    for key, planned, workload in moving:
        wanted = {n.name: n.pods[key] for n in plan.nodes if n.state != "remove" and n.pods.get(key)}
        if planned.strategy == "rollout":
            if workload.template_annotations.get(keys.ITERATION) == plan.iteration:
                continue
            asked = {node: planned.requests * count for node, count in sorted(wanted.items())}
            tight = [node for node, requests in asked.items() if not room.would_hold(node, requests)]
            claimed = [node for node, requests in asked.items() if not room.holds(node, requests)]
            for node, requests in asked.items():
                (room.claim if claimed else room.promise)(node, requests)
            if tight:
                stuck.append((key, f"its new pods do not fit beside the old ones on {', '.join(tight)}"))
            elif claimed:
                behind.append((key, f"others go first on {', '.join(claimed)}"))
            else:
                rollouts.append(key)
            continue
        misplaced = _misplaced(record, key, pods[key])
        started = _evict(misplaced, pods[key], _Eviction(record, planned, workload, allowed.get(key)), room)
        evictions.extend(started)
        if len(started) < len(misplaced):
            here = Counter(pod.node for pod in pods[key]) + Counter(target for _, target in started)
            for node, count in wanted.items():
                room.claim(node, planned.requests * max(0, count - here[node]))
        if misplaced and not started:
            free = [n for n, count in wanted.items() if here[n] < count and room.would_hold(n, planned.requests)]
            reason = f"no planned node has room for its pod {misplaced[0].name}"
            (behind if free else stuck).append((key, reason))
    waiting += [f"{key}: {reason}" for key, reason in (*stuck, *behind)]
    return Moves(tuple(rollouts), tuple(evictions), tuple(waiting), tuple(stuck), tuple(behind))


def _under_way(record: PlanRecord, planned: PlannedWorkload, workload: Workload, pods: list[Pod]) -> str:
    """Return what the workload is waited for; "" where it stands still."""
    ready = sum(pod.ready for pod in pods)
    if planned.strategy == "rollout":
        if workload.template_annotations.get(keys.ITERATION) != record.plan.iteration:
            return ""
        new = sum(pod.ready and pod.iteration == record.plan.iteration for pod in pods)
        old = sum(pod.iteration != record.plan.iteration for pod in pods)
        if workload.observed and new >= workload.replicas and not old:
            return ""
        return f"{workload.key}: {new} of {workload.replicas} pods rolled out"
    if ready < workload.replicas:
        return f"{workload.key}: {ready} of {workload.replicas} pods ready"
    return ""


def _still_to_come(record: PlanRecord, key: str, pods: list[Pod], replicas: int) -> dict[str, int]:
    """Return how many pods of a moving workload are on their way to each node, at most as many as are not there."""
    rolled = record.plan.workloads[key].strategy == "rollout"
    here: dict[str, int] = {}
    for pod in pods:
        if pod.node is not None and (not rolled or pod.iteration == record.plan.iteration):
            here[pod.node] = here.get(pod.node, 0) + 1
    left = replicas - sum(here.values())
    coming: dict[str, int] = {}
    for node in record.plan.nodes:
        count = min(left, node.pods.get(key, 0) - here.get(node.name, 0))
        if node.state != "remove" and count > 0:
            coming[node.name] = count
            left -= count
    return coming


def _misplaced(record: PlanRecord, key: str, pods: list[Pod]) -> list[Pod]:
    """Return the pods to evict: on each node those beyond what the plan wants there, never one moved already.

    Pods made after the plan was accepted stay, unless their node expires: without an exact steering they would
    be evicted for ever.
    """
    wanted = {n.name: n.pods.get(key, 0) for n in record.plan.nodes if n.state != "remove"}
    expiring = {n.name for n in record.plan.nodes if n.state == "remove"}
    pinned = {name for n in record.plan.nodes for name in n.pod_names}
    found: list[Pod] = []
    by_node: dict[str, list[Pod]] = {}
    for pod in sorted(pods, key=lambda p: p.name):
        if pod.node is not None:
            by_node.setdefault(pod.node, []).append(pod)
    for node, here in sorted(by_node.items()):
        excess = len(here) - wanted.get(node, 0)
        movable = [
            p for p in here if pod_key(p) not in pinned and (node in expiring or p.created_at <= record.accepted_at)
        ]
        if excess > 0 and (node in expiring or node in wanted):
            found.extend(movable[-excess:])
    return found


@dataclass(frozen=True, slots=True)
class _Eviction:
    """What bounds the evictions of one workload."""

    record: PlanRecord
    planned: PlannedWorkload
    workload: Workload
    mobility: Mobility | None


def _evict(misplaced: list[Pod], pods: list[Pod], eviction: _Eviction, room: Room) -> list[tuple[Pod, str]]:
    """Choose as many misplaced pods as may be unavailable now, each with a planned node that has room for it."""
    workload, plan = eviction.workload, eviction.record.plan
    unavailable = workload.replicas - sum(pod.ready for pod in pods)
    quota = (eviction.mobility.evictable if eviction.mobility else 0) - max(0, unavailable)
    here: dict[str, int] = {}
    for pod in pods:
        if pod.node is not None:
            here[pod.node] = here.get(pod.node, 0) + 1
    chosen: list[tuple[Pod, str]] = []
    for pod in misplaced:
        if len(chosen) >= quota:
            break
        for node in plan.nodes:
            target = node.pods.get(workload.key, 0)
            if (
                node.state != "remove"
                and here.get(node.name, 0) < target
                and room.holds(node.name, eviction.planned.requests)
            ):
                room.promise(node.name, eviction.planned.requests)
                here[node.name] = here.get(node.name, 0) + 1
                chosen.append((pod, node.name))
                break
    return chosen


def starts(plan: Plan, moves: Moves) -> tuple[Step, ...]:
    rollouts = [
        RollOut(key, plan.workloads[key].uid, plan.iteration, plan.workloads[key].containers) for key in moves.rollouts
    ]
    evictions = [
        EvictPod(p.namespace, p.name, p.uid, p.workload, p.node or "", f"the plan puts it on {target}")
        for p, target in moves.evictions
    ]
    return (*rollouts, *evictions)
