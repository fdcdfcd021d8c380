"""What is to be done next, from plan and snapshot alone.

`next_steps` is asked again after every round until it has no more steps, so a crash, a failed boot or a user's
hand in the middle is just another snapshot. `rehearse` runs the same moves on paper before a plan is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner import labels as keys
from planner.model.cluster import NODE_POOL, Instance, Node, Pod, Snapshot, Workload
from planner.model.disruption import DisruptionRules, Mobility, mobilities, pin_reason, planned_pods, pod_key
from planner.model.machines import Catalogue, Offering
from planner.model.plan import (
    BootNodes,
    DeleteInstances,
    DeleteNode,
    EvictPod,
    MarkNode,
    Plan,
    PlannedNode,
    PlannedWorkload,
    PlanRecord,
    RollOut,
    SavePlan,
    Step,
    Wait,
)
from planner.model.resources import Resources
from planner.settings import MoveSettings

CARRIED_OUT = "carried out"
"""The reason of a record whose plan was carried out to its end."""

_NOT_YET_USABLE = (
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "startup-taint.cluster-autoscaler.kubernetes.io/",
    "ignore-taint.cluster-autoscaler.kubernetes.io/",
)


def rules_of(settings: MoveSettings) -> DisruptionRules:
    """Return the rules of disruption that the settings ask for."""
    return DisruptionRules(settings.unavailability_ceiling, settings.pin_local_storage)


def next_steps(record: PlanRecord, snapshot: Snapshot, now: float, settings: MoveSettings) -> tuple[Step, ...]:
    """Return what can be done now, a `Wait` with its reasons while something is under way, () when all is done.

    `now` is in seconds since the epoch. Boots come before marks, marks before moves; a node is removed as soon
    as nothing that the plan moves is left on it.
    """
    if record.phase == "done":
        return ()
    if record.phase == "abandoning":
        return _take_back(record, snapshot)
    if reason := _given_up(record, snapshot, now, settings):
        return (SavePlan(replace(record, phase="abandoning", reason=reason)),)
    for stage in (_boot(record.plan, snapshot), _mark(record, snapshot, settings)):
        if stage:
            return stage
    moves = _moves(record, snapshot, settings)
    steps = (*_start(record.plan, moves), *_remove(record.plan, snapshot, settings, drained=moves.over))
    working = tuple(step for step in steps if not isinstance(step, Wait))
    if working:
        return working
    waiting = (*moves.waiting, *(reason for step in steps if isinstance(step, Wait) for reason in step.reasons))
    if waiting:
        return (Wait(waiting),)
    return (SavePlan(replace(record, phase="done", reason=CARRIED_OUT)),)


def rehearse(plan: Plan, snapshot: Snapshot, catalogue: Catalogue, settings: MoveSettings) -> dict[str, str]:
    """Carry out the plan's moves on paper; return the workloads that no order of stages can move, with a reason.

    A stage is possible where every new pod of a roll-out fits beside all pods that still stand, and every
    evicted pod finds its planned node with room at that moment.
    """
    record = PlanRecord(plan, "carrying-out", accepted_at=snapshot.taken_at)
    standing = _with_booted(plan, snapshot, catalogue)
    while True:
        moves = _moves(record, standing, settings)
        if not moves.rollouts and not moves.evictions:
            return {} if moves.over else dict(moves.stuck)
        standing = _moved(record, standing, moves)


def unsteered(plan: Plan, snapshot: Snapshot, settings: MoveSettings) -> tuple[str, ...]:
    """Name the workloads that the plan moves although the chosen steering does not reach their pods."""
    if settings.steering != "scheduler":
        return ()
    return tuple(
        f"{w.key} names the scheduler {w.scheduler_name!r}, not {settings.scheduler_name!r}"
        for w in snapshot.workloads
        if (planned := plan.workloads.get(w.key)) and planned.moves and w.scheduler_name != settings.scheduler_name
    )


def divergence(plan: Plan, snapshot: Snapshot) -> dict[str, int]:
    """Count the pods that are not where the plan wants them, by reason.

    `elsewhere`: on a node beyond what the plan wants there; `pending`: on no node.
    """
    wanted = {node.name: node.pods for node in plan.nodes if node.state != "remove"}
    counts: dict[tuple[str, str], int] = {}
    pending = 0
    for pod in planned_pods(snapshot):
        if pod.workload not in plan.workloads:
            continue
        if pod.node is None:
            pending += 1
        else:
            counts[pod.node, pod.workload] = counts.get((pod.node, pod.workload), 0) + 1
    elsewhere = sum(max(0, n - wanted.get(node, {}).get(key, 0)) for (node, key), n in counts.items())
    return {"elsewhere": elsewhere, "pending": pending}


# Boot ------------------------------------------------------------------------------------------------------------


def _boot(plan: Plan, snapshot: Snapshot) -> tuple[Step, ...]:
    """Create what is missing, at once in every pool and zone; wait until every machine is a usable node."""
    nodes = {node.name: node for node in snapshot.nodes}
    instances = {instance.name for instance in snapshot.instances or ()}
    boots = [node for node in plan.nodes if node.state == "boot"]
    missing: dict[tuple[str, str], list[str]] = {}
    waiting = 0
    for planned in boots:
        node = nodes.get(planned.name)
        if node is None and planned.name not in instances:
            missing.setdefault((planned.pool, planned.zone), []).append(planned.name)
        elif node is None or not _usable(node, planned.pool):
            waiting += 1
    if missing:
        return tuple(
            BootNodes(pool, zone, tuple(names), plan.iteration) for (pool, zone), names in sorted(missing.items())
        )
    if waiting:
        return (Wait((f"{waiting} of {len(boots)} new nodes are still booting",)),)
    return ()


def _usable(node: Node, pool: str) -> bool:
    """Say whether the node is Ready, in its pool, and free of the taints that it carries while it starts."""
    starting = any(t.effect != "PreferNoSchedule" and t.key.startswith(_NOT_YET_USABLE) for t in node.taints)
    return node.ready and not node.deleting and node.labels.get(NODE_POOL) == pool and not starting


def _given_up(record: PlanRecord, snapshot: Snapshot, now: float, settings: MoveSettings) -> str:
    """Return why the plan can no longer be carried out; "" while it can."""
    planned = {node.name for node in record.plan.nodes if node.state == "boot"}
    for instance in snapshot.instances or ():
        if instance.state == "failed" and instance.name in planned:
            return f"the cloud could not boot {instance.name} in {instance.zone}: {instance.error}"
    age = now - record.accepted_at
    if age > settings.boot_timeout_seconds:
        ready = {n.name for n in snapshot.nodes if n.ready}
        if late := sorted(planned - ready):
            return f"{', '.join(late)} not Ready after {settings.boot_timeout_seconds:g} s"
    if age > settings.iteration_timeout_seconds:
        return f"not ended after {settings.iteration_timeout_seconds:g} s"
    return ""


# Marks -----------------------------------------------------------------------------------------------------------


def _mark(record: PlanRecord, snapshot: Snapshot, settings: MoveSettings) -> tuple[Step, ...]:
    """Label the plan's nodes and those that expire, publish the placement, clear what older iterations left."""
    plan = record.plan
    planned = {node.name: node for node in plan.nodes}
    spared = _spared(plan, snapshot, settings)
    steps = []
    for node in snapshot.nodes:
        target = planned.get(node.name)
        if target is None or target.frozen:
            step = _marks(node) if _iteration_of(node) not in (None, plan.iteration) else None
        elif target.state == "remove" and node.name not in spared:
            draining = any(t.key == keys.EXPIRING and t.effect == "NoSchedule" for t in node.taints)
            effect = "NoSchedule" if draining else "PreferNoSchedule"
            step = _marks(node, expiring=plan.iteration, effect=effect)
        else:
            placement = _placement(record, target, node, snapshot, settings) if settings.publish_placement else None
            step = _marks(node, optimal=plan.iteration, placement=placement)
        if step is not None:
            steps.append(step)
    return tuple(steps)


def _iteration_of(node: Node) -> str | None:
    """Return the iteration whose marks the node carries, "" for marks that name none, None for no marks."""
    for key in (keys.OPTIMAL, keys.EXPIRING):
        if key in node.labels:
            return node.labels[key]
    for taint in node.taints:
        if taint.key == keys.EXPIRING:
            return taint.value
    return "" if keys.PLACEMENT in node.annotations else None


def _marks(
    node: Node,
    optimal: str | None = None,
    expiring: str | None = None,
    effect: str = "",
    placement: str | None = None,
) -> MarkNode | None:
    """Return the step that gives the node exactly these marks, None where it has them."""
    labels = {
        key: value
        for key, value in ((keys.OPTIMAL, optimal), (keys.EXPIRING, expiring))
        if node.labels.get(key) != value
    }
    annotations = {keys.PLACEMENT: placement} if node.annotations.get(keys.PLACEMENT) != placement else {}
    present = {(t.value, t.effect) for t in node.taints if t.key == keys.EXPIRING}
    wanted = {(expiring, effect)} if expiring is not None else set()
    if not labels and not annotations and present == wanted:
        return None
    return MarkNode(node.name, node.uid, labels, annotations, expiring, effect)


def _placement(record: PlanRecord, planned: PlannedNode, node: Node, snapshot: Snapshot, settings: MoveSettings) -> str:
    """Return the placement annotation; it follows from the plan, so that it is written once."""
    plan = record.plan
    free = node.allocatable
    for daemonset in snapshot.daemonsets:
        if daemonset.constraints.admit(node.labels, node.name, node.taints):
            free = free - daemonset.requests
    targets = []
    for key, count in sorted(planned.pods.items()):
        workload = plan.workloads[key]
        free = free - workload.requests * count
        counted = "iteration" if workload.strategy == "rollout" else "all"
        targets.append(keys.Target(key, workload.uid, count, "iteration" if counted == "iteration" else "all"))
    headroom = {name: max(0, amount) for name, amount in free.amounts().items()}
    expires = record.accepted_at + settings.plan_ttl_seconds
    return keys.encode_placement(keys.Placement(plan.iteration, expires, tuple(targets), headroom))


def _spared(plan: Plan, snapshot: Snapshot, settings: MoveSettings) -> frozenset[str]:
    """Name the nodes that were to be removed but hold, by now, a pod that nobody may move."""
    rules = rules_of(settings)
    workloads = {w.key: w for w in snapshot.workloads}
    expiring = {node.name for node in plan.nodes if node.state == "remove"}
    return frozenset(
        pod.node
        for pod in planned_pods(snapshot)
        if pod.node in expiring and pod.node is not None and pin_reason(pod, workloads.get(pod.workload), rules)
    )


# Moves -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Moves:
    """Which moves can start now, what is under way, and what cannot move yet.

    `stuck` has the reason by workload; the moves are `over` when nothing is left to start or to wait for.
    """

    rollouts: tuple[str, ...]
    evictions: tuple[tuple[Pod, str], ...]
    waiting: tuple[str, ...]
    stuck: tuple[tuple[str, str], ...]

    @property
    def over(self) -> bool:
        return not (self.rollouts or self.evictions or self.waiting)


class _Room:
    """What is free on each node of the plan, less what is promised to pods that are on their way."""

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

    def holds(self, node: str, requests: Resources) -> bool:
        return node in self.free and requests.fits_in(self.free[node])

    def promise(self, node: str, requests: Resources) -> None:
        if node in self.free:
            self.free[node] = self.free[node] - requests


def _moves(record: PlanRecord, snapshot: Snapshot, settings: MoveSettings) -> _Moves:
    """Find every move that has room now, after room was set aside for those that are under way."""
    plan = record.plan
    room = _Room(plan, snapshot)
    allowed = mobilities(snapshot, rules_of(settings))
    workloads = {w.key: w for w in snapshot.workloads if w.replicas > 0}
    moving = [
        (key, planned, workloads[key])
        for key, planned in sorted(plan.workloads.items())
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
    for key, planned, workload in moving:
        if planned.strategy == "rollout":
            if workload.template_annotations.get(keys.ITERATION) == plan.iteration:
                continue
            wanted = {n.name: n.pods[key] for n in plan.nodes if n.state != "remove" and n.pods.get(key)}
            tight = [n for n, count in sorted(wanted.items()) if not room.holds(n, planned.requests * count)]
            if tight:
                stuck.append((key, f"its new pods do not fit beside the old ones on {', '.join(tight)}"))
                continue
            for node, count in wanted.items():
                room.promise(node, planned.requests * count)
            rollouts.append(key)
        else:
            misplaced = _misplaced(record, key, pods[key])
            started = _evict(misplaced, pods[key], _Eviction(record, planned, workload, allowed.get(key)), room)
            evictions.extend(started)
            if misplaced and not started:
                stuck.append((key, f"no planned node has room for its pod {misplaced[0].name}"))
    waiting += [f"{key}: {reason}" for key, reason in stuck]
    return _Moves(tuple(rollouts), tuple(evictions), tuple(waiting), tuple(stuck))


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


def _evict(misplaced: list[Pod], pods: list[Pod], eviction: _Eviction, room: _Room) -> list[tuple[Pod, str]]:
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


def _start(plan: Plan, moves: _Moves) -> tuple[Step, ...]:
    rollouts = [
        RollOut(key, plan.workloads[key].uid, plan.iteration, plan.workloads[key].containers) for key in moves.rollouts
    ]
    evictions = [
        EvictPod(p.namespace, p.name, p.uid, p.workload, p.node or "", f"the plan puts it on {target}")
        for p, target in moves.evictions
    ]
    return (*rollouts, *evictions)


# Removal ---------------------------------------------------------------------------------------------------------


def _remove(plan: Plan, snapshot: Snapshot, settings: MoveSettings, *, drained: bool) -> tuple[Step, ...]:
    """Close, empty and delete the nodes that expire: machine first, then the Node object.

    A node that is empty already is closed at once; one that holds strays only when all moves are over (`drained`).
    """
    nodes = {node.name: node for node in snapshot.nodes}
    instances = {instance.name: instance for instance in snapshot.instances or ()}
    pods = snapshot.pods_on()
    spared = _spared(plan, snapshot, settings)
    allowed = mobilities(snapshot, rules_of(settings))
    steps: list[Step] = []
    waiting: list[str] = []
    doomed: dict[tuple[str, str], list[str]] = {}
    for planned in plan.nodes:
        if planned.state != "remove" or planned.name in spared:
            continue
        node, instance = nodes.get(planned.name), instances.get(planned.name)
        here = [pod for pod in pods.get(planned.name, []) if not pod.stays_with_node]
        if node is None and instance is None:
            continue
        if node is not None and here and not drained:
            continue
        if node is not None and not _closed(node):
            steps.append(_closing(node, plan.iteration))
        elif node is not None and here:
            strays = _strays(here, snapshot, allowed)
            steps.extend(strays)
            if not strays:
                waiting.append(f"{planned.name} is being drained: {len(here)} pods left")
        elif snapshot.instances is None:
            waiting.append(f"{planned.name} is drained; without a cloud its machine cannot be deleted")
        elif instance is not None and instance.state != "deleting":
            doomed.setdefault((instance.pool, instance.zone), []).append(planned.name)
        elif instance is not None:
            waiting.append(f"the machine {planned.name} is being deleted")
        elif node is not None and not node.deleting:
            steps.append(DeleteNode(node.name, node.uid))
        else:
            waiting.append(f"the node {planned.name} is being deleted")
    steps += [DeleteInstances(p, z, tuple(names), plan.iteration) for (p, z), names in sorted(doomed.items())]
    return (*steps, Wait(tuple(waiting))) if waiting else tuple(steps)


def _closed(node: Node) -> bool:
    return any(t.key == keys.EXPIRING and t.effect == "NoSchedule" for t in node.taints)


def _closing(node: Node, iteration: str) -> MarkNode:
    labels: Mapping[str, str | None] = {keys.EXPIRING: iteration, keys.OPTIMAL: None}
    return MarkNode(node.name, node.uid, labels, {keys.PLACEMENT: None}, iteration, "NoSchedule")


def _strays(here: list[Pod], snapshot: Snapshot, allowed: Mapping[str, Mobility]) -> list[Step]:
    """Evict what landed on an expiring node meanwhile, at most as many of a workload as may be unavailable."""
    workloads = {w.key: w for w in snapshot.workloads}
    ready: dict[str, int] = {}
    for pod in planned_pods(snapshot):
        ready[pod.workload] = ready.get(pod.workload, 0) + pod.ready
    steps: list[Step] = []
    for pod in here:
        workload, mobility = workloads.get(pod.workload), allowed.get(pod.workload)
        if not pod.live or workload is None or mobility is None:
            continue
        if mobility.evictable - (workload.replicas - ready[pod.workload]) > 0:
            ready[pod.workload] -= 1
            reason = "its node expires"
            steps.append(EvictPod(pod.namespace, pod.name, pod.uid, pod.workload, pod.node or "", reason))
    return steps


def _take_back(record: PlanRecord, snapshot: Snapshot) -> tuple[Step, ...]:
    """Undo what can be undone: take every mark back, delete the new machines that hold no pod."""
    plan = record.plan
    booted = {node.name for node in plan.nodes if node.state == "boot"}
    pods = snapshot.pods_on()
    instances: dict[str, Instance] = {i.name: i for i in snapshot.instances or () if i.name in booted}
    steps: list[Step] = []
    waiting: list[str] = []
    doomed: dict[tuple[str, str], list[str]] = {}
    for node in snapshot.nodes:
        unused = node.name in booted and all(pod.stays_with_node for pod in pods.get(node.name, []))
        if not unused:
            if _iteration_of(node) is not None and (step := _marks(node)) is not None:
                steps.append(step)
        elif not _closed(node):
            steps.append(_closing(node, plan.iteration))
        elif node.name not in instances:
            steps.append(DeleteNode(node.name, node.uid))
    closed = {n.name for n in snapshot.nodes if _closed(n)}
    present = {n.name for n in snapshot.nodes}
    for name, instance in sorted(instances.items()):
        if instance.state == "deleting":
            waiting.append(f"the machine {name} is being deleted")
        elif name not in present or name in closed:
            doomed.setdefault((instance.pool, instance.zone), []).append(name)
    steps += [DeleteInstances(p, z, tuple(names), plan.iteration) for (p, z), names in sorted(doomed.items())]
    if steps:
        return tuple(steps)
    if waiting:
        return (Wait(tuple(waiting)),)
    return (SavePlan(replace(record, phase="done")),)


# Rehearsal -------------------------------------------------------------------------------------------------------


def _with_booted(plan: Plan, snapshot: Snapshot, catalogue: Catalogue) -> Snapshot:
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


def _moved(record: PlanRecord, snapshot: Snapshot, moves: _Moves) -> Snapshot:
    """Return the snapshot after these moves, every new pod Ready on its planned node."""
    plan = record.plan
    evicted = {(pod.namespace, pod.name): target for pod, target in moves.evictions}
    places = {
        key: [n.name for n in plan.nodes if n.state != "remove" for _ in range(n.pods.get(key, 0))]
        for key in moves.rollouts
    }
    pods = []
    for pod in snapshot.pods:
        if pod.workload in places and pod.live and places[pod.workload]:
            marks = {**pod.annotations, keys.ITERATION: plan.iteration}
            node, requests = places[pod.workload].pop(0), plan.workloads[pod.workload].requests
            pods.append(replace(pod, node=node, annotations=marks, requests=requests, ready=True))
        elif (pod.namespace, pod.name) in evicted:
            node = evicted[pod.namespace, pod.name]
            requests = plan.workloads[pod.workload].requests
            pods.append(replace(pod, node=node, requests=requests, ready=True, created_at=record.accepted_at + 1))
        else:
            pods.append(pod)
    workloads = tuple(
        replace(w, template_annotations={**w.template_annotations, keys.ITERATION: plan.iteration})
        if w.key in places
        else w
        for w in snapshot.workloads
    )
    return replace(snapshot, pods=tuple(pods), workloads=workloads)
