"""Other nodes for pods that stand in each other's way: those where they are, or any of the plan's that has room.

Two workloads that would have to swap places on full nodes can do so in no order. Most often it does not matter which
of them is where, and a pod that stays is no move at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

from planner.model.cluster import Pod
from planner.model.inputs import ChangePrices
from planner.model.plan import Plan
from planner.model.utilization import holding
from planner.rescheduler.movers import Mover
from planner.rescheduler.room import Room

Wanted = dict[str, int]
"""How many pods of a workload the plan wants on each node."""


Admits = Callable[[Pod, str], bool]
"""Whether a pod may come to a node of the plan as far as neither room nor its own constraints decide."""


def diversions(stuck: Iterable[Mover], room: Room, admits: Admits) -> dict[str, Wanted]:
    """Return what to want of each of these workloads instead, for those that something else is possible for.

    `room` is what is free where nothing moves any more; it is set aside for what is diverted.
    """
    found = {}
    for mover in stuck:
        if mover.coming or mover.follows:
            # Where its pods without a node are expected was decided before, and so was beside whom others stand.
            continue
        find = _for_rollout if mover.planned.strategy == "rollout" else _for_evictions
        wanted = find(mover, room, admits)
        if wanted != mover.wanted:
            found[mover.key] = wanted
    return found


def diverted(plan: Plan, wanted: Mapping[str, Wanted], here: Mapping[str, Counter[str]], prices: ChangePrices) -> Plan:
    """Return the plan that wants this; `here` counts the pods of each workload by node before any move."""
    nodes = []
    for node in plan.nodes:
        pods = dict(node.pods)
        for key, by_node in wanted.items():
            pods[key] = by_node.get(node.name, 0)
            if not pods[key] or node.state == "remove":
                del pods[key]
        nodes.append(node if pods == node.pods else holding(node, dict(sorted(pods.items())), plan.objective.cap))
    workloads = dict(plan.workloads)
    for key, by_node in wanted.items():
        if workloads[key].strategy != "rollout":
            moves = (here[key] - Counter(by_node)).total()
            workloads[key] = replace(workloads[key], moves=moves, strategy="evict" if moves else "stay")
    total = sum(workload.moves for workload in workloads.values())
    objective = replace(plan.objective, moves_nanousd_per_hour=prices.moves_nanousd_per_hour(total))
    return replace(plan, nodes=tuple(nodes), workloads=workloads, objective=objective)


def _for_evictions(mover: Mover, room: Room, admits: Admits) -> Wanted:
    """Let each pod that cannot go stay where its node stays, or go where there is room."""
    wanted, here = dict(mover.wanted), Counter(mover.here)
    for pod in mover.misplaced:
        missing = [node for node, count in wanted.items() if here[node] < count]
        # What keeps to a domain gives up a place there, so that each has as many as planned.
        given_up = next((node for node in missing if room.suits(pod, node)), None)
        if given_up is None:
            continue
        target = pod.node if pod.node in room.free else _elsewhere(pod, room, admits)
        if target is not None and target != pod.node:
            room.promise(target, mover.planned.requests)
            here[target] += 1
            here[pod.node or ""] -= 1
        if target is not None:
            wanted[given_up] -= 1
            wanted[target] = wanted.get(target, 0) + 1
    return {node: count for node, count in wanted.items() if count}


def _for_rollout(mover: Mover, room: Room, admits: Admits) -> Wanted:
    """Let the new pods that do not fit beside the old ones go where there is room."""
    wanted, requests = dict(mover.wanted), mover.planned.requests
    surplus: list[Pod] = []
    sample = replace(mover.pods[0], requests=requests)
    for node, count in mover.wanted.items():
        while wanted[node] and not room.would_hold(node, requests * wanted[node]):
            wanted[node] -= 1
        room.promise(node, requests * wanted[node])
        # What keeps to a domain keeps to that of the node for which it was meant.
        surplus += [replace(sample, node=node)] * (count - wanted[node])
    for pod in surplus:
        target = _elsewhere(pod, room, admits)
        if target is None:
            return dict(mover.wanted)
        room.promise(target, requests)
        wanted[target] = wanted.get(target, 0) + 1
    return {node: count for node, count in wanted.items() if count}


def _elsewhere(pod: Pod, room: Room, admits: Admits) -> str | None:
    """Return a node with room for the pod, if possible room that nobody waits for."""
    fits = partial(admits, pod)
    return room.place(pod, fits) or room.place(pod, fits, claimed_too=True)
