"""What a whole plan counts for pods that are on nodes which they would rather avoid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from planner.model.cluster import Pod, pod_key
from planner.model.plan import Plan
from planner.model.preferences import Surroundings
from planner.verifier.facts import Facts, GroupKey, Spot, offering_key


def displeasure_range(plan: Plan, facts: Facts) -> tuple[int, int]:
    """Return the least and the most that the plan's pods can count, in nanodollars per hour.

    A plan counts pods by workload: where those of one workload differ in what they prefer, it is not said which of
    them are where. Everything else is exact, and so are pinned pods.
    """
    least = most = pinned_displeasure(facts)
    kinds: dict[str, list[GroupKey]] = defaultdict(list)
    for group in facts.groups:
        for workload in group.workloads:
            kinds[workload].append(group.key)
    minding = {key: own for key, own in kinds.items() if any(facts.tastes.minds(kind.wishes) for kind in own)}
    for node in plan.nodes:
        if node.state == "remove":
            continue
        spot = facts.offers[offering_key(node)][1] if node.state == "boot" else facts.spots[node.name]
        pinned = facts.pinned.get(node.name, {})
        for workload, count in node.pods.items():
            free = count - pinned.get(workload, 0)
            if free > 0 and workload in minding:
                costs = _costs(minding[workload], spot, facts)
                least += free * min(costs)
                most += free * max(costs)
    return least, most


def present_displeasure(facts: Facts) -> int:
    """Return what the pods count where they run now, in nanodollars per hour."""
    return _of_running((pod for pods in facts.pods.values() for pod in pods), facts)


def pinned_displeasure(facts: Facts) -> int:
    """Return what the pinned pods count where they are, in nanodollars per hour."""
    pins = facts.assessment.pins
    return _of_running((pod for pods in facts.pods.values() for pod in pods if pod_key(pod) in pins), facts)


def surroundings(spot: Spot) -> Surroundings:
    """Return what pods may prefer of this place."""
    return Surroundings(spot.labels, spot.name, spot.taints)


def _of_running(pods: Iterable[Pod], facts: Facts) -> int:
    tastes = facts.tastes
    return sum(
        tastes.cost_nanousd_per_hour(wishes, pod.constraints, surroundings(facts.spots[str(pod.node)]))
        for pod in pods
        if tastes.minds(wishes := tastes.telling(pod.wishes)) and facts.running(pod)
    )


def _costs(kinds: Iterable[GroupKey], spot: Spot, facts: Facts) -> set[int]:
    """Return what a pod of a workload may cost here: one amount for each of the groups that its pods are in."""
    return {facts.tastes.cost_nanousd_per_hour(kind.wishes, kind.constraints, surroundings(spot)) for kind in kinds}
