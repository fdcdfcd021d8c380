"""Which pods can move now: roll-outs and evictions for which there is room at this moment."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from planner import labels as keys
from planner.model.cluster import Pod, Snapshot, Workload
from planner.model.disruption import DisruptionRules, Mobility, planned_pods, pod_key
from planner.model.plan import EvictPod, Plan, PlannedWorkload, PlanRecord, RollOut, Step
from planner.model.resources import Resources
from planner.rescheduler.placement import opened, opening
from planner.settings import MoveSettings


def rules_of(settings: MoveSettings) -> DisruptionRules:
    """Return the rules of disruption that the settings ask for."""
    ceiling = settings.max_nodes_changed or None
    return DisruptionRules(settings.unavailability_ceiling, settings.pin_local_storage, ceiling)


@dataclass(frozen=True, slots=True)
class Moves:
    """Which moves can start now, what is under way (a reason each), and what cannot move yet.

    `evictions` have their target nodes; `openings` are (node, workload) of targets that pods follow to in the next
    round. `stuck` has the reason of each workload that finds no room, `behind` of each whose room those before it
    want.
    """

    rollouts: tuple[str, ...]
    evictions: tuple[tuple[Pod, str], ...]
    openings: tuple[tuple[str, str], ...]
    under_way: tuple[str, ...]
    stuck: tuple[tuple[str, str], ...]
    behind: tuple[tuple[str, str], ...]

    @property
    def waiting(self) -> tuple[str, ...]:
        """What is waited for, in words."""
        return (*self.under_way, *(f"{key}: {reason}" for key, reason in (*self.stuck, *self.behind)))

    @property
    def at_rest(self) -> bool:
        """Whether nothing can start and nothing is under way."""
        return not (self.rollouts or self.evictions or self.openings or self.under_way)

    @property
    def over(self) -> bool:
        """Whether nothing is left to start or to wait for."""
        return self.at_rest and not (self.stuck or self.behind)


class Room:
    """What is free on each node of the plan, less what is promised to pods that are on their way.

    What is `claimed` is free, and kept for a workload of an earlier stage that does not find all its room yet.
    `opened` is what each node's placement asks for by workload; a node without a placement of this iteration is not in.
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
        self._labels = {node.name: node.labels for node in snapshot.nodes}
        asked = {name: opened(ready[name], plan.iteration) for name in self.free}
        self.opened = {name: targets for name, targets in asked.items() if targets is not None}
        self.claimed = {name: Resources() for name in self.free}

    def holds(self, node: str, requests: Resources) -> bool:
        return node in self.free and requests.fits_in(self.free[node] - self.claimed[node])

    def place(self, pod: Pod, *, claimed_too: bool = False) -> str | None:
        """Return a node with room for the pod that its constraints admit, in the domains that it keeps; or None.

        Room that others have claimed counts only with `claimed_too`.
        """
        holds = self.would_hold if claimed_too else self.holds
        for name in self.free:
            if not holds(name, pod.requests):
                continue
            if pod.constraints.tolerate(self._nodes[name].taints) and self.suits(pod, name):
                return name
        return None

    def suits(self, pod: Pod, node: str) -> bool:
        """Say whether the pod may move to the node: its constraints select it, in the domains that the pod keeps."""
        home, labels = self._labels.get(pod.node or "", {}), self._labels.get(node, {})
        return all(labels.get(key) == home.get(key) for key in pod.keeps) and pod.constraints.select(labels, node)

    def kind_of(self, pod: Pod) -> tuple[object, ...]:
        """Return what decides which nodes suit the pod; pods of one reading share equal constraints."""
        home = self._labels.get(pod.node or "", {})
        return (id(pod.constraints), *(home.get(key) for key in pod.keeps))

    def would_hold(self, node: str, requests: Resources) -> bool:
        """Say whether the node had room if nobody before had claimed any."""
        return node in self.free and requests.fits_in(self.free[node])

    def promise(self, node: str, requests: Resources) -> None:
        if node in self.free:
            self.free[node] = self.free[node] - requests

    def claim(self, node: str, requests: Resources) -> None:
        if node in self.claimed:
            self.claimed[node] = self.claimed[node] + requests

    def release(self, pod: Pod) -> None:
        """Give back what a pod took that has left its node."""
        if pod.node in self.free:
            self.free[pod.node] = self.free[pod.node] + pod.requests

    def copy(self) -> Room:
        """Return the same room, without claims, to be changed on its own."""
        other = copy.copy(self)
        other.free, other.claimed = dict(self.free), dict.fromkeys(self.free, Resources())
        return other


@dataclass(frozen=True, slots=True)
class Mover:
    """A workload that the plan moves: its live pods, those to evict where it does not roll, and what the plan wants of
    it on each node that stays.
    """

    key: str
    planned: PlannedWorkload
    workload: Workload
    pods: tuple[Pod, ...]
    misplaced: tuple[Pod, ...]
    wanted: Mapping[str, int]

    def as_planned(self, planned: PlannedWorkload) -> Mover:
        """Return the mover under this plan, with the shares of a node that its pods take and no plan's format has."""
        shares = next((pod.requests.shares for pod in self.pods), ())
        return replace(self, planned=replace(planned, requests=planned.requests.with_shares(shares)))

    @property
    def here(self) -> Counter[str]:
        """Its pods by node, those that are on none left out."""
        return Counter(pod.node for pod in self.pods if pod.node is not None)

    @property
    def unavailable(self) -> int:
        """How many of its pods are missing or not ready."""
        return max(0, self.workload.replicas - sum(pod.ready for pod in self.pods))

    @property
    def coming(self) -> int:
        """How many of its pods are on no node yet."""
        return max(0, self.workload.replicas - self.here.total())


def find_moves(record: PlanRecord, snapshot: Snapshot, allowed: Mapping[str, Mobility]) -> Moves:
    """Find every move that has room now, after room was set aside for those that are under way.

    `allowed` says how each workload may be moved (`mobilities`).
    """
    room = Room(record.plan, snapshot)
    movers = movers_of(record, snapshot)
    under_way = []
    for mover in movers:
        if reason := _under_way(record, mover):
            under_way.append(reason)
        promise_what_comes(record, mover, room)
    waiting = [mover for mover in movers if not _rolls(record, mover)]
    return replace(choose_moves(waiting, room, allowed), under_way=tuple(under_way))


def choose_moves(movers: Iterable[Mover], room: Room, allowed: Mapping[str, Mobility]) -> Moves:
    """Choose the moves that start now, and set their room aside.

    The workloads come in the order of their stages. One that still waits keeps its room claimed against those behind
    it, so that a slow pod here or a fast one there cannot lead into a state that the rehearsal never saw
    (docs/designs/stages.md).
    """
    found = _Found()
    for mover in movers:
        if mover.planned.strategy == "rollout":
            _choose_rollout(mover, room, found)
        else:
            mobility = allowed.get(mover.key)
            _choose_evictions(mover, mobility.evictable if mobility else 0, room, found)
    return Moves(
        rollouts=tuple(found.rollouts),
        evictions=tuple(found.evictions),
        openings=tuple(found.openings),
        under_way=(),
        stuck=tuple(found.stuck),
        behind=tuple(found.behind),
    )


def starts(plan: Plan, snapshot: Snapshot, moves: Moves) -> tuple[Step, ...]:
    """Return the steps that begin these moves: roll-outs, targets that open, evictions towards open ones."""
    rollouts = [
        RollOut(key, plan.workloads[key].uid, plan.iteration, plan.workloads[key].containers) for key in moves.rollouts
    ]
    more: dict[str, Counter[str]] = {}
    for node, key in moves.openings:
        more.setdefault(node, Counter())[key] += 1
    openings = [opening(node, more[node.name]) for node in snapshot.nodes if node.name in more]
    evictions = [
        EvictPod(p.namespace, p.name, p.uid, p.workload, p.node or "", f"the plan puts it on {target}")
        for p, target in moves.evictions
    ]
    return (*rollouts, *openings, *evictions)


@dataclass(slots=True)
class _Found:
    rollouts: list[str] = field(default_factory=list)
    evictions: list[tuple[Pod, str]] = field(default_factory=list)
    openings: list[tuple[str, str]] = field(default_factory=list)
    stuck: list[tuple[str, str]] = field(default_factory=list)
    behind: list[tuple[str, str]] = field(default_factory=list)


def movers_of(record: PlanRecord, snapshot: Snapshot) -> list[Mover]:
    """Return the workloads that the plan moves and that are still the ones that it was made for, by stage."""
    plan = record.plan
    pods: dict[str, list[Pod]] = {key: [] for key, planned in plan.workloads.items() if planned.moves}
    for pod in planned_pods(snapshot):
        if pod.workload in pods:
            pods[pod.workload].append(pod)
    wanted: dict[str, dict[str, int]] = {key: {} for key in pods}
    for node in plan.nodes:
        for key, count in node.pods.items():
            if node.state != "remove" and key in wanted and count:
                wanted[key][node.name] = count
    find_misplaced = MisplacedPods(record)
    movers = [
        Mover(
            key=w.key,
            planned=plan.workloads[w.key],
            workload=w,
            pods=tuple(pods[w.key]),
            misplaced=find_misplaced(pods[w.key], wanted[w.key]),
            wanted=wanted[w.key],
        ).as_planned(plan.workloads[w.key])
        for w in snapshot.workloads
        if w.key in pods and w.replicas > 0 and w.uid == plan.workloads[w.key].uid
    ]
    return by_stage(movers)


def by_stage(movers: Iterable[Mover]) -> list[Mover]:
    """Return the workloads in the order in which they may claim room."""
    return sorted(movers, key=lambda mover: (mover.planned.stage, mover.key))


def _rolls(record: PlanRecord, mover: Mover) -> bool:
    """Say whether the workload's roll-out has begun, or ended."""
    begun = mover.workload.template_annotations.get(keys.ITERATION) == record.plan.iteration
    return mover.planned.strategy == "rollout" and begun


def _under_way(record: PlanRecord, mover: Mover) -> str:
    """Return what the workload is waited for; "" where it stands still."""
    workload, iteration = mover.workload, record.plan.iteration
    if mover.planned.strategy != "rollout":
        ready = sum(pod.ready for pod in mover.pods)
        return f"{mover.key}: {ready} of {workload.replicas} pods ready" if ready < workload.replicas else ""
    if not _rolls(record, mover):
        return ""
    new = sum(pod.ready and pod.iteration == iteration for pod in mover.pods)
    old = sum(pod.iteration != iteration for pod in mover.pods)
    if workload.observed and new >= workload.replicas and not old:
        return ""
    return f"{mover.key}: {new} of {workload.replicas} pods rolled out"


def promise_what_comes(record: PlanRecord, mover: Mover, room: Room) -> None:
    """Set room aside for the workload's pods that are on their way."""
    for node, count in _on_their_way(record, mover, room).items():
        room.promise(node, mover.planned.requests * count)


def _on_their_way(record: PlanRecord, mover: Mover, room: Room) -> dict[str, int]:
    """Return for how many pods of the workload each node's room is spoken for, though they are not there yet."""
    if mover.planned.strategy != "rollout":
        return _evicted_and_open(mover, room)
    if not _rolls(record, mover):
        return {}
    here = Counter(p.node for p in mover.pods if p.node is not None and p.iteration == record.plan.iteration)
    return _shared_out(mover.workload.replicas - here.total(), mover.wanted, here)


def _evicted_and_open(mover: Mover, room: Room) -> dict[str, int]:
    """Return the targets of evicted pods that are not there yet, and those that are open for pods to be evicted.

    Where no placement is published nothing is open, and evicted pods are taken to fill the plan's nodes in order.
    """
    if not any(node in room.opened for node in mover.wanted):
        return _shared_out(mover.coming, mover.wanted, mover.here)
    asked = {node: min(count, room.opened.get(node, {}).get(mover.key, 0)) for node, count in mover.wanted.items()}
    # No more than will ever come: without an exact steering a pod may have taken another node's room.
    return _shared_out(mover.coming + len(mover.misplaced), asked, mover.here)


def _shared_out(pods: int, wanted: Mapping[str, int], here: Mapping[str, int]) -> dict[str, int]:
    """Share the pods out over the nodes in order, on each what is wanted and not here yet."""
    shares: dict[str, int] = {}
    for node, count in wanted.items():
        share = min(pods, count - here.get(node, 0))
        if share > 0:
            shares[node] = share
            pods -= share
    return shares


def _choose_rollout(mover: Mover, room: Room, found: _Found) -> None:
    """Start the roll-out if every new pod has room beside all pods that still stand; else claim the room."""
    asked = {node: mover.planned.requests * count for node, count in sorted(mover.wanted.items())}
    tight = [node for node, requests in asked.items() if not room.would_hold(node, requests)]
    claimed = [node for node, requests in asked.items() if not room.holds(node, requests)]
    for node, requests in asked.items():
        (room.claim if claimed else room.promise)(node, requests)
    if tight:
        found.stuck.append((mover.key, f"its new pods do not fit beside the old ones on {', '.join(tight)}"))
    elif claimed:
        found.behind.append((mover.key, f"others go first on {', '.join(claimed)}"))
    else:
        found.rollouts.append(mover.key)


def _choose_evictions(mover: Mover, evictable: int, room: Room, found: _Found) -> None:
    """Evict as many misplaced pods as may be unavailable now, each towards a planned node that suits it and has room.

    A target that is published but not open yet is opened first; the pod follows in the next round.
    """
    misplaced, requests = mover.misplaced, mover.planned.requests
    if not misplaced:
        return
    here = mover.here
    taken = _evicted_and_open(mover, room)
    open_ = _open_targets(mover, taken, room)
    for node, count in taken.items():
        here[node] += count
    quota = max(0, evictable - mover.unavailable)
    begun = 0
    # Pods of one kind find room or none: room only becomes less here.
    vain: set[object] = set()
    for pod in misplaced:
        if begun == quota:
            break
        if (kind := room.kind_of(pod)) in vain:
            continue
        suits = _suiting(mover, pod, room)
        if (target := next((n for n in open_ if suits(n)), None)) is not None:
            open_.remove(target)
            found.evictions.append((pod, target))
            begun += 1
            continue
        free_for_it = (n for n, count in mover.wanted.items() if here[n] < count and suits(n))
        target = next((n for n in free_for_it if room.holds(n, requests)), None)
        if target is None:
            vain.add(kind)
            continue
        room.promise(target, requests)
        here[target] += 1
        if target in room.opened:
            found.openings.append((target, mover.key))
        else:
            found.evictions.append((pod, target))
        begun += 1
    if begun == len(misplaced):
        return
    for node, count in mover.wanted.items():
        if count > here[node]:
            room.claim(node, requests * (count - here[node]))
    if not quota and not mover.unavailable:
        found.stuck.append((mover.key, "its disruption budgets allow no eviction now"))
    elif quota and not begun:
        free = any(here[n] < count and room.would_hold(n, requests) for n, count in mover.wanted.items())
        reason = f"no planned node has room for its pod {misplaced[0].name}"
        (found.behind if free else found.stuck).append((mover.key, reason))


def _suiting(mover: Mover, pod: Pod, room: Room) -> Callable[[str], bool]:
    """Return what says whether a target suits the pod.

    Where pods of another domain took all targets of its own, as a spread may let them, it goes where they belonged:
    each domain then has as many as planned.
    """
    if not pod.keeps:
        return lambda node: room.suits(pod, node)
    here = mover.here
    if any(here[n] < count and room.suits(pod, n) for n, count in mover.wanted.items()):
        return lambda node: room.suits(pod, node)
    return lambda node: room.suits(replace(pod, keeps=()), node)


def _open_targets(mover: Mover, taken: Mapping[str, int], room: Room) -> list[str]:
    """Return the open targets to which pods can be evicted now: not those of pods that were evicted before.

    Those are on no node yet, so that only what the pods that still stand leave over says where they belong.
    """
    open_ = [node for node, count in taken.items() for _ in range(count)]
    if not (mover.coming and open_):
        return open_
    closed = ([node] * (count - mover.here[node] - taken.get(node, 0)) for node, count in mover.wanted.items())
    left = open_ + [node for nodes in closed for node in nodes]
    for pod in reversed(mover.misplaced):
        last = next((i for i in reversed(range(len(left))) if room.suits(pod, left[i])), None)
        if last is not None:
            del left[last]
    for node in left[: mover.coming]:
        if node in open_:
            open_.remove(node)
    # More pods come than the plan knows of, and any of them may take an open target.
    return open_[max(0, mover.coming - len(left)) :]


class MisplacedPods:
    """Finds the pods to evict: on each node those beyond what the plan wants there, never one moved already.

    Pods made after the plan was accepted stay, unless their node expires: without an exact steering they would
    be evicted for ever.
    """

    def __init__(self, record: PlanRecord) -> None:
        self._accepted_at = record.accepted_at
        self._expiring = {node.name: node.state == "remove" for node in record.plan.nodes}
        self._pinned = {name for node in record.plan.nodes for name in node.pod_names}

    def __call__(self, pods: Iterable[Pod], wanted: Mapping[str, int]) -> tuple[Pod, ...]:
        by_node: dict[str, list[Pod]] = {}
        for pod in sorted(pods, key=lambda p: p.name):
            if pod.node in self._expiring:
                by_node.setdefault(pod.node, []).append(pod)
        found: list[Pod] = []
        for node, here in sorted(by_node.items()):
            excess = len(here) - wanted.get(node, 0)
            fresh_stays = not self._expiring[node]
            movable = [
                pod
                for pod in here
                if pod_key(pod) not in self._pinned and not (fresh_stays and pod.created_at > self._accepted_at)
            ]
            if excess > 0:
                found.extend(movable[-excess:])
        return tuple(found)
