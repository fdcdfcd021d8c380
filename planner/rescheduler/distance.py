"""How far the cluster is from where the plan wants it."""

from __future__ import annotations

from collections import Counter

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
    """Count the pods of the plan's workloads that are not where the plan wants them, by reason.

    `pending`: on no node, beyond those for which the plan has no place; `elsewhere`: on a node beyond what the plan
    wants of their workload there, and missing where it wants them; `unplanned`: the same, but missing nowhere, since
    the workload has more pods than the plan knew.
    """
    wanted: dict[str, Counter[str]] = {key: Counter() for key in plan.workloads}
    for node in plan.nodes:
        if node.state != "remove":
            for key, count in node.pods.items():
                wanted[key][node.name] += count
    here: dict[str, Counter[str]] = {key: Counter() for key in plan.workloads}
    waiting: Counter[str] = Counter()
    for pod in planned_pods(snapshot):
        if pod.workload not in here:
            continue
        if pod.node is None:
            waiting[pod.workload] += 1
        else:
            here[pod.workload][pod.node] += 1
    found = dict.fromkeys(("elsewhere", "pending", "unplanned"), 0)
    for key, places in wanted.items():
        unplaced = plan.unplaced[key].count if key in plan.unplaced else 0
        astray = (here[key] - places).total()
        missing = (places - here[key]).total()
        found["pending"] += max(0, waiting[key] - unplaced)
        found["elsewhere"] += min(astray, missing)
        found["unplanned"] += max(0, astray - missing)
    return found
