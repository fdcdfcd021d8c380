"""The placement annotation of a node: how many pods of which workload it is to have, opened where there is room.

A roll-out's targets are open from the start, since none of its new pods exists before it begins. Pods that are
evicted one by one take any open target of their workload, so each is opened only when its room has been set aside:
the annotation is the memory of what was opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner import labels as keys
from planner.model.cluster import Node
from planner.model.plan import MarkNode, PlannedNode, PlanRecord
from planner.model.resources import Resources


@dataclass(frozen=True, slots=True)
class Standing:
    """A node as it stands: `pods` counts its live pods by workload, `room` is what its DaemonSets leave."""

    node: Node
    pods: Mapping[str, int]
    room: Resources


def opened(node: Node, iteration: str) -> dict[str, int] | None:
    """Return how many pods of each workload the node's annotation asks for; None without one of this iteration."""
    found = _read(node)
    if found is None or found.iteration != iteration:
        return None
    return {target.workload: target.want for target in found.targets}


def placement_of(record: PlanRecord, planned: PlannedNode, standing: Standing, expires: float) -> str:
    """Return the annotation that the node is to have now; what was opened before stays open.

    `expires` is in seconds since the epoch. The headroom is what the plan leaves free in the end.
    """
    plan = record.plan
    before = opened(standing.node, plan.iteration) or {}
    free = standing.room
    targets = []
    for key, count in sorted(planned.pods.items()):
        workload = plan.workloads[key]
        free = free - workload.requests * count
        match workload.strategy:
            case "rollout":
                targets.append(keys.Target(key, workload.uid, count, "iteration"))
            case "evict":
                want = max(before.get(key, 0), min(count, standing.pods.get(key, 0)))
                targets.append(keys.Target(key, workload.uid, want, "all"))
            case _:
                targets.append(keys.Target(key, workload.uid, count, "all"))
    headroom = {name: max(0, amount) for name, amount in free.amounts().items()}
    return keys.encode_placement(keys.Placement(plan.iteration, expires, tuple(targets), headroom))


def opening(node: Node, more: Mapping[str, int]) -> MarkNode:
    """Return the step that opens so many more targets of each workload on a node that has a placement and stays."""
    found = _read(node)
    assert found is not None
    targets = tuple(replace(target, want=target.want + more.get(target.workload, 0)) for target in found.targets)
    text = keys.encode_placement(replace(found, targets=targets))
    return MarkNode(node.name, node.uid, {}, {keys.PLACEMENT: text})


def _read(node: Node) -> keys.Placement | None:
    text = node.annotations.get(keys.PLACEMENT)
    try:
        return None if text is None else keys.decode_placement(text)
    except ValueError:
        return None
