"""How nodes go: close, empty, delete the machine by name, then the Node; and how an abandoned plan is taken back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from planner.model.cluster import Instance, Pod, Snapshot
from planner.model.disruption import Mobility, planned_pods
from planner.model.plan import DeleteInstances, DeleteNode, EvictPod, Plan, PlanRecord, SavePlan, Step, Wait
from planner.rescheduler.marks import closing, is_closed, iteration_of, mark_of, spared
from planner.rescheduler.room import Room
from planner.settings import MoveSettings


def remove(
    plan: Plan, snapshot: Snapshot, settings: MoveSettings, allowed: Mapping[str, Mobility] | None
) -> tuple[Step, ...]:
    """Close, empty and delete the nodes that expire: machine first, then the Node object.

    A node that is empty already is closed at once; one that holds strays only when all moves are over: then `allowed`
    says how they may be moved, until then it is None.
    """
    nodes = {node.name: node for node in snapshot.nodes}
    instances = {instance.name: instance for instance in snapshot.instances or ()}
    pods = snapshot.pods_on()
    spares = spared(plan, snapshot, settings)
    room = Room(plan, snapshot)
    steps: list[Step] = []
    waiting: list[str] = []
    doomed: dict[tuple[str, str], list[str]] = {}
    for planned in plan.nodes:
        if planned.state != "remove" or planned.name in spares:
            continue
        node, instance = nodes.get(planned.name), instances.get(planned.name)
        here = [pod for pod in pods.get(planned.name, []) if not pod.stays_with_node]
        if node is None and instance is None:
            continue
        if node is not None and here and allowed is None:
            continue
        if node is not None and not is_closed(node):
            steps.append(closing(node, plan.iteration))
        elif node is not None and here and allowed is not None:
            strays = _strays(here, snapshot, allowed, room)
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


def _strays(here: list[Pod], snapshot: Snapshot, allowed: Mapping[str, Mobility], room: Room) -> list[Step]:
    """Evict what landed on an expiring node meanwhile, where a planned node has room for it.

    At most as many of a workload at once as may be unavailable.
    """
    workloads = {w.key: w for w in snapshot.workloads}
    ready: dict[str, int] = {}
    for pod in planned_pods(snapshot):
        ready[pod.workload] = ready.get(pod.workload, 0) + pod.ready
    steps: list[Step] = []
    for pod in here:
        workload, mobility = workloads.get(pod.workload), allowed.get(pod.workload)
        if not pod.live or workload is None or mobility is None:
            continue
        if mobility.evictable - (workload.replicas - ready[pod.workload]) > 0 and (place := room.place(pod)):
            room.promise(place, pod.requests)
            ready[pod.workload] -= 1
            reason = "its node expires"
            steps.append(EvictPod(pod.namespace, pod.name, pod.uid, pod.workload, pod.node or "", reason))
    return steps


def take_back(record: PlanRecord, snapshot: Snapshot) -> tuple[Step, ...]:
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
            if iteration_of(node) is not None and (step := mark_of(node)) is not None:
                steps.append(step)
        elif not is_closed(node):
            steps.append(closing(node, plan.iteration))
        elif node.name not in instances:
            steps.append(DeleteNode(node.name, node.uid))
    closed = {n.name for n in snapshot.nodes if is_closed(n)}
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
