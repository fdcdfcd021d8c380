"""How many pods may be unavailable at once: the rules of the settings, and budgets that several workloads share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from planner.model.cluster import Snapshot
from planner.model.disruption import DisruptionRules, Mobility, planned_pods
from planner.settings import MoveSettings


def rules_of(settings: MoveSettings) -> DisruptionRules:
    """Return the rules of disruption that the settings ask for."""
    return DisruptionRules(
        settings.unavailability_ceiling,
        settings.pin_local_storage,
        settings.max_nodes_changed or None,
        settings.max_pods_moved or None,
    )


@dataclass(slots=True)
class SharedBudgets:
    """Counts by disruption budget the pods that are unavailable, of all workloads under it."""

    disrupted: Counter[str]

    def spare(self, mobility: Mobility, most: int) -> int:
        """Return how many of `most` pods the budgets still let become unavailable beside those of other workloads."""
        return min((spare - self.disrupted[budget] for budget, spare in mobility.budgets), default=most)

    def disrupt(self, mobility: Mobility, pods: int) -> None:
        """Count so many pods more as unavailable under the budgets of their workload."""
        self.disrupted.update(dict.fromkeys((budget for budget, _ in mobility.budgets), pods))


def disrupted_by_budget(snapshot: Snapshot, allowed: Mapping[str, Mobility], rolling: Collection[str]) -> Counter[str]:
    """Count by disruption budget the pods that are unavailable, or may become so at any time in a roll-out.

    All live pods of a workload count in its budget; of one that rolls out only replicas - maxUnavailable are sure to
    stay ready.
    """
    here: Counter[str] = Counter()
    ready: Counter[str] = Counter()
    for pod in planned_pods(snapshot):
        here[pod.workload] += 1
        ready[pod.workload] += pod.ready
    found: Counter[str] = Counter()
    for workload in snapshot.workloads:
        if (mobility := allowed.get(workload.key)) is None:
            continue
        sure = ready[workload.key]
        if workload.key in rolling:
            sure = min(sure, workload.replicas - workload.max_unavailable)
        for budget, _ in mobility.budgets:
            found[budget] += here[workload.key] - sure
    return found
