"""Pods that came to another node of the plan than theirs, as while the extender was away, are moved once more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from planner.model.cluster import Pod, Snapshot
from planner.model.disruption import Mobility
from planner.model.plan import EvictPod, Plan, PlanRecord
from planner.rescheduler.disruption import SharedBudgets, disrupted_by_budget
from planner.rescheduler.distance import divergence, unsteered
from planner.rescheduler.movers import MisplacedPods, Mover, movers_of
from planner.rescheduler.room import Room
from planner.settings import MoveSettings

MOST_ASTRAY = 0.25
"""The largest share of the moved pods that may be astray. Where it is more, nothing steers, and pods that are moved
again come to no better place."""


def is_mendable(plan: Plan, snapshot: Snapshot, settings: MoveSettings) -> bool:
    """Say whether pods are astray, and so few that something must have steered the others."""
    exact = settings.publish_placement and settings.steering != "affinity"
    if not exact or unsteered(plan, snapshot, settings):
        return False
    return 0 < divergence(plan, snapshot)["elsewhere"] <= MOST_ASTRAY * plan.moves


def mends(
    record: PlanRecord, snapshot: Snapshot, allowed: Mapping[str, Mobility], made_until: float
) -> tuple[EvictPod, ...]:
    """Return the evictions that can begin now, each towards an open target that has room for the pod.

    Pods that were made after `made_until` (`Mending`) stay wherever they came to, so that it ends.
    """
    room = Room(record.plan, snapshot)
    budgets = SharedBudgets(disrupted_by_budget(snapshot, allowed, ()))
    found: list[EvictPod] = []
    for mover in movers_of(record, snapshot):
        mobility = allowed.get(mover.key)
        if mobility is None or not mover.planned.moves or mover.unavailable:
            continue
        quota = budgets.spare(mobility, mobility.evictable)
        begun = _evictions(mover, _astray(record, made_until, mover), room, min(quota, mobility.evictable))
        budgets.disrupt(mobility, len(begun))
        found += begun
    return tuple(found)


def _astray(record: PlanRecord, made_until: float, mover: Mover) -> list[Pod]:
    """Return the pods beyond what the plan wants on a node, each that was made later in the place of one of them."""
    fresh = Counter(pod.node for pod in mover.pods if pod.created_at > made_until)
    found = []
    for pod in MisplacedPods(record, made_until)(mover.pods, mover.wanted):
        if fresh[pod.node]:
            fresh[pod.node] -= 1
        else:
            found.append(pod)
    return found


def _evictions(mover: Mover, astray: Iterable[Pod], room: Room, quota: int) -> list[EvictPod]:
    here, requests = Counter(mover.here), mover.planned.requests
    # A target that is not open to its full count lets no pod in; nobody opens any more at the end.
    open_ = {n: count for n, count in mover.wanted.items() if room.opened.get(n, {}).get(mover.key, 0) >= count}
    found: list[EvictPod] = []
    for pod in astray:
        if len(found) >= quota:
            break
        free_for_it = (n for n, count in open_.items() if here[n] < count and room.suits(pod, n))
        if (target := next((n for n in free_for_it if room.holds(n, requests)), None)) is None:
            continue
        room.promise(target, requests)
        here[target] += 1
        reason = f"it came astray: the plan puts it on {target}"
        found.append(EvictPod(pod.namespace, pod.name, pod.uid, pod.workload, pod.node or "", reason))
    return found
