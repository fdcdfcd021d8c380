"""The plan's moves on paper: whether an order of stages exists in which everything fits."""

from __future__ import annotations

from dataclasses import replace

from planner import labels as keys
from planner.model.cluster import Node, Snapshot
from planner.model.disruption import mobilities
from planner.model.machines import Catalogue, Offering
from planner.model.plan import Plan, PlanRecord
from planner.rescheduler.moves import Moves, find_moves, rules_of
from planner.settings import MoveSettings


def rehearse(plan: Plan, snapshot: Snapshot, catalogue: Catalogue, settings: MoveSettings) -> dict[str, str]:
    """Carry out the plan's moves on paper; return the workloads that no order of stages can move, with a reason.

    A stage is possible where every new pod of a roll-out fits beside all pods that still stand, and every
    evicted pod finds its planned node with room at that moment.
    """
    record = PlanRecord(plan, "carrying-out", accepted_at=snapshot.taken_at)
    standing = with_booted(plan, snapshot, catalogue)
    # Where pods are changes nothing about how many of them may be unavailable.
    allowed = mobilities(snapshot, rules_of(settings))
    while True:
        moves = find_moves(record, standing, allowed)
        if not moves.rollouts and not moves.evictions:
            return {} if moves.over else dict(moves.stuck or moves.behind)
        standing = after(record, standing, moves)


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


def after(record: PlanRecord, snapshot: Snapshot, moves: Moves) -> Snapshot:
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
