"""PodDisruptionBudgets, counted from the pods where no status says how many may go."""

from __future__ import annotations

from dataclasses import replace

from planner.kube import specs
from planner.kube.collection import Objects
from planner.kube.objects import BudgetObject
from planner.model.cluster import DisruptionBudget, LabelTally, Pod
from planner.model.scheduling import LabelSelector

# The controller cannot count, such as where maxUnavailable covers pods of a Job, which has no scale. Then the Eviction
# API refuses every pod. Source: pkg/controller/disruption/disruption.go, failSafe.
_NOT_COUNTED = "SyncFailed"


def budgets(objects: Objects, pods: list[Pod]) -> list[DisruptionBudget]:
    """Return the budgets that have a selector, an empty one included.

    Raises:
        BadInput: a bound is neither a count nor a percentage.
    """
    # A budget without a selector covers no pod; an empty one covers all of its namespace.
    items = [item for item in objects.of("PodDisruptionBudget", BudgetObject).values() if item.spec.selector]
    selectors = [specs.label_selector(item.spec.selector) for item in items if item.spec.selector]
    live = [pod for pod in pods if pod.live]
    away = LabelTally([pod for pod in live if not pod.ready], selectors)
    covered = LabelTally(live, selectors)
    found = []
    for item, selector in zip(items, selectors, strict=True):
        namespace = item.metadata.namespace
        with objects.naming("PodDisruptionBudget", item.metadata):
            count = covered.count(namespace, selector)
            found.append(_budget(item, selector, count, count - away.count(namespace, selector)))
    return found


def _budget(item: BudgetObject, selector: LabelSelector, covered: int, healthy: int) -> DisruptionBudget:
    meta, spec, status = item.metadata, item.spec, item.status
    budget = DisruptionBudget(meta.namespace, meta.name, selector, desired_healthy=0, disruptions_allowed=0)
    if status is not None and any(condition.reason == _NOT_COUNTED for condition in status.conditions or ()):
        return replace(budget, desired_healthy=covered)
    if status is not None and status.desired_healthy is not None:
        return replace(
            budget, desired_healthy=status.desired_healthy, disruptions_allowed=status.disruptions_allowed or 0
        )
    # Percentages round up, of both kinds. Source: pkg/controller/disruption/disruption.go, getExpectedPodCount.
    if spec.max_unavailable is not None:
        tolerated = specs.scaled(spec.max_unavailable, covered, "spec.maxUnavailable", up=True)
        desired = max(0, covered - tolerated)
    else:
        desired = specs.scaled(spec.min_available or 0, covered, "spec.minAvailable", up=True)
    return replace(budget, desired_healthy=desired, disruptions_allowed=max(0, healthy - desired))
