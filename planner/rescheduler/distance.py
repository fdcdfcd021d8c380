"""How far the cluster is from where the plan wants it."""

from __future__ import annotations

from planner.model.cluster import Snapshot
from planner.model.disruption import planned_pods
from planner.model.plan import Plan
from planner.settings import MoveSettings


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
