"""What is under way: the roll-outs that began, and the pods that have yet to come to their nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

from planner import labels as keys
from planner.model.cluster import Pod
from planner.model.plan import PlanRecord
from planner.rescheduler.movers import Mover
from planner.rescheduler.room import Room


def rolls(record: PlanRecord, mover: Mover) -> bool:
    """Say whether the workload's roll-out has begun, or ended."""
    begun = mover.workload.template_annotations.get(keys.ITERATION) == record.plan.iteration
    return mover.planned.strategy == "rollout" and begun


def awaited(record: PlanRecord, mover: Mover) -> str:
    """Return what the workload is waited for; "" where it stands still."""
    workload, iteration = mover.workload, record.plan.iteration
    if not mover.planned.moves:
        return ""  # whether its pods are ready is no matter of the plan
    if mover.planned.strategy != "rollout":
        ready = sum(pod.ready for pod in mover.pods)
        return f"{mover.key}: {ready} of {workload.replicas} pods ready" if ready < workload.replicas else ""
    if not rolls(record, mover):
        return ""
    new = sum(pod.ready and pod.iteration == iteration for pod in mover.pods)
    old = sum(pod.iteration != iteration for pod in mover.pods)
    if workload.observed and new >= workload.replicas and not old:
        return ""
    return f"{mover.key}: {new} of {workload.replicas} pods rolled out"


def promise_what_comes(record: PlanRecord, mover: Mover, room: Room) -> Mapping[str, int]:
    """Set room aside for the workload's pods that are on their way, and return how many come to each node."""
    coming = _on_their_way(record, mover, room)
    for node, count in coming.items():
        room.promise(node, mover.planned.requests * count)
    return coming


def _on_their_way(record: PlanRecord, mover: Mover, room: Room) -> dict[str, int]:
    """Return for how many pods of the workload each node's room is spoken for, though they are not there yet."""
    if mover.planned.strategy != "rollout":
        return evicted_and_open(mover, room)
    if not rolls(record, mover):
        return {}
    here = Counter(p.node for p in mover.pods if p.node is not None and p.iteration == record.plan.iteration)
    return _shared_out(mover.workload.replicas - here.total(), mover.wanted, here)


def evicted_and_open(mover: Mover, room: Room) -> dict[str, int]:
    """Return the targets of evicted pods that are not there yet, and those that are open for pods to be evicted.

    Where no placement is published nothing is open, and pods that come are taken to fill the plan's nodes in order,
    those first that have room for them now.
    """
    if not any(node in room.opened for node in mover.wanted):
        return _filling(mover, room)
    asked = {node: min(count, room.opened.get(node, {}).get(mover.key, 0)) for node, count in mover.wanted.items()}
    # No more than will ever come: without an exact steering a pod may have taken another node's room.
    return _shared_out(mover.coming + len(mover.misplaced), asked, mover.here)


def _filling(mover: Mover, room: Room) -> dict[str, int]:
    """Fill the nodes that lack pods with those that come, each where its volumes let it be.

    Pods that fewer nodes suit go first. What volumes bind pods to lies apart or within one another (nodes, zones), so
    that none is left over then that has a place in any other order.
    """
    if not (coming := mover.coming):
        return {}
    here, requests = Counter(mover.here), mover.planned.requests
    lacking = {node: count for node, count in mover.wanted.items() if count > here[node]}
    fitting = {
        node: here[node] + room.many(node, requests, min(coming, count - here[node])) for node, count in lacking.items()
    }
    left = _by_suiting_nodes(mover, lacking, room)
    shares: Counter[str] = Counter()
    for places in (fitting, lacking):
        for suiting in sorted(left, key=len):
            more = _shared_out(left[suiting], {node: places[node] for node in suiting}, here)
            left[suiting] -= sum(more.values())
            shares.update(more)
            here.update(more)
    return dict(shares)


def _by_suiting_nodes(mover: Mover, nodes: Collection[str], room: Room) -> Counter[tuple[str, ...]]:
    """Count the pods that come by those of the nodes that suit them; all suit those that are not made yet."""
    waiting = [pod for pod in mover.pods if pod.node is None][: mover.coming]
    kinds: dict[tuple[object, ...], list[Pod]] = {}
    for pod in waiting:
        # In which domain it comes to be was decided when it was given one.
        anywhere = replace(pod, keeps=()) if pod.keeps else pod
        kinds.setdefault(room.kind_of(anywhere), []).append(anywhere)
    found: Counter[tuple[str, ...]] = Counter()
    for kind, pods in kinds.items():
        found[tuple(node for node in nodes if room.suit(kind, pods[0], node))] += len(pods)
    found[tuple(nodes)] += mover.coming - len(waiting)
    return found


def _shared_out(pods: int, wanted: Mapping[str, int], here: Mapping[str, int]) -> dict[str, int]:
    """Share the pods out over the nodes in order, on each what is wanted and not here yet."""
    shares: dict[str, int] = {}
    for node, count in wanted.items():
        share = min(pods, count - here.get(node, 0))
        if share > 0:
            shares[node] = share
            pods -= share
    return shares
