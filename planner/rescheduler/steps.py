"""What is to be done next, from plan and snapshot alone.

`next_steps` is asked again after every round until it has no more steps, so a crash, a failed boot or a user's
hand in the middle is just another snapshot.
"""

from __future__ import annotations

from dataclasses import replace

from planner.model.cluster import NODE_POOL, Node, Snapshot
from planner.model.disruption import mobilities, planned_pods
from planner.model.plan import BootNodes, EvictPod, Mending, Plan, PlanRecord, SavePlan, Step, Wait
from planner.rescheduler.disruption import rules_of
from planner.rescheduler.exchange import exchanged
from planner.rescheduler.marks import mark
from planner.rescheduler.mending import is_mendable, mends
from planner.rescheduler.moves import Moves, find_moves, starts
from planner.rescheduler.removal import remove, take_back
from planner.settings import MoveSettings

CARRIED_OUT = "carried out"
"""The reason of a record whose plan was carried out to its end."""

_PATIENCE_SECONDS = 60.0
"""How long nothing may move before no room is kept any more for those that go first, and before pods that find no room
where the plan wants them leave expiring nodes for any other node of the plan: a node that was away for a moment is back
by then."""

_MOST_REASONS = 5
"""How many of the reasons for a standstill the record keeps."""

_NOT_YET_USABLE = (
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "startup-taint.cluster-autoscaler.kubernetes.io/",
    "ignore-taint.cluster-autoscaler.kubernetes.io/",
)


def next_steps(
    record: PlanRecord, snapshot: Snapshot, now: float, settings: MoveSettings, acted_at: float = 0.0
) -> tuple[Step, ...]:
    """Return what can be done now, a `Wait` with its reasons while something is under way, () when all is done.

    `now` is in seconds since the epoch, and so is `acted_at`: since when no step succeeded that was tried. Boots come
    before marks, marks before moves; a node is removed as soon as nothing that the plan moves is left on it. A new node
    is marked while it starts: pods that wait for any node take the first that is usable, whoever it is meant for; new
    nodes of one kind are then exchanged in the plan.
    """
    if record.phase == "done":
        return ()
    if record.phase == "abandoning":
        return take_back(record, snapshot)
    if reason := _given_up(record, snapshot, now, settings):
        return (SavePlan(replace(record, phase="abandoning", reason=reason)),)
    if (better := exchanged(record, snapshot)) is not None:
        return (SavePlan(better),)
    for stage in (_boot(record, snapshot, settings), mark(record, snapshot, settings)):
        if stage:
            return stage
    allowed = mobilities(snapshot, rules_of(settings))
    moves = find_moves(record, snapshot, allowed)
    idle_seconds = now - _last_moved(record, snapshot)
    if moves.at_rest and moves.behind and idle_seconds > _PATIENCE_SECONDS:
        # The cluster is not what was rehearsed: those ahead may wait for room that only those behind them can make.
        moves = find_moves(record, snapshot, allowed, in_order=False)
    patient = _exact(settings) and idle_seconds <= _PATIENCE_SECONDS
    settled = moves.over or (moves.at_rest and not patient and not _wait_to_roll(record.plan, moves))
    removal = remove(record.plan, snapshot, settings, allowed if settled else None)
    steps = (*starts(record.plan, snapshot, moves), *removal)
    working = tuple(step for step in steps if not isinstance(step, Wait))
    # Evictions that are refused again and again are tried again and again, and move nothing.
    vain = all(isinstance(step, EvictPod) for step in working) and now - acted_at > settings.standstill_timeout_seconds
    overdue = idle_seconds > settings.standstill_timeout_seconds
    if working and not (vain and overdue):
        return working
    if settled and not removal and not working:
        # Every node is as planned. Where pods find no room to change places on them, that costs nothing.
        done = SavePlan(replace(record, phase="done", reason=CARRIED_OUT))
        return _mend(record, snapshot, now, settings) or (done,)
    waiting = (*moves.waiting, *(reason for step in steps if isinstance(step, Wait) for reason in step.reasons))
    waiting = (*(f"{s.namespace}/{s.name} could not be evicted" for s in working if isinstance(s, EvictPod)), *waiting)
    if overdue:
        reason = f"nothing has moved for {idle_seconds:.0f} s: {'; '.join(waiting[:_MOST_REASONS])}"
        return (SavePlan(replace(record, phase="abandoning", reason=reason)),)
    return (Wait(waiting),)


def _mend(record: PlanRecord, snapshot: Snapshot, now: float, settings: MoveSettings) -> tuple[Step, ...]:
    """Move pods that came astray once more, while their targets steer and each round still moves some."""
    last_moved, allowed = _last_moved(record, snapshot), mobilities(snapshot, rules_of(settings))
    if now - record.accepted_at > settings.plan_ttl_seconds:
        return ()
    if (begun := record.mending) is not None:
        stands_still = now - max(last_moved, begun.began_at) > _PATIENCE_SECONDS
        return () if stands_still else mends(record, snapshot, allowed, begun.made_until)
    if not is_mendable(record.plan, snapshot, settings) or not mends(record, snapshot, allowed, last_moved):
        return ()
    return (SavePlan(replace(record, mending=Mending(began_at=now, made_until=last_moved))),)


def _exact(settings: MoveSettings) -> bool:
    """Say whether something puts each pod on its own planned node; labels and affinity only say which nodes will do."""
    return settings.publish_placement and settings.steering != "affinity"


def _wait_to_roll(plan: Plan, moves: Moves) -> bool:
    return any(plan.workloads[key].strategy == "rollout" for key, _ in (*moves.stuck, *moves.behind))


def _last_moved(record: PlanRecord, snapshot: Snapshot) -> float:
    """Return when something last happened: a pod of the plan was made, a node joined, or the plan was accepted."""
    pods = (pod.created_at for pod in planned_pods(snapshot) if pod.workload in record.plan.workloads)
    return max((record.accepted_at, *pods, *(node.created_at for node in snapshot.nodes)))


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


def _boot(record: PlanRecord, snapshot: Snapshot, settings: MoveSettings) -> tuple[Step, ...]:
    """Create what is missing, at once in every pool and zone; mark what joins, until every machine is a usable node."""
    plan = record.plan
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
        joined = {p.name for p in boots if p.name in nodes and nodes[p.name].labels.get(NODE_POOL) == p.pool}
        marks = mark(record, snapshot, settings, joined)
        return (*marks, Wait((f"{waiting} of {len(boots)} new nodes are still booting",)))
    return ()


def _usable(node: Node, pool: str) -> bool:
    """Say whether the node is Ready, in its pool, and free of the taints that it carries while it starts."""
    starting = any(t.effect != "PreferNoSchedule" and t.key.startswith(_NOT_YET_USABLE) for t in node.taints)
    return node.ready and not node.deleting and node.labels.get(NODE_POOL) == pool and not starting
