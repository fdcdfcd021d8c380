"""Whom the plan moves: its workloads by stage, with the pods that are not where it wants them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from planner.model.cluster import Pod, Snapshot, Workload, pod_key
from planner.model.companions import sought_by_workload
from planner.model.disruption import planned_pods
from planner.model.plan import PlannedWorkload, PlanRecord


@dataclass(frozen=True)
class Mover:
    """A workload that the plan moves, or of which pods wait for a node: its live pods, those to evict where it does not
    roll, and what the plan wants of it on each node that stays.

    Pods of the workloads that it `follows` must stand on a node before its own are let in there. In a rehearsal pods
    are `rearranged`: so many stand on each node then, whatever `pods` says.
    """

    key: str
    planned: PlannedWorkload
    workload: Workload
    pods: tuple[Pod, ...]
    misplaced: tuple[Pod, ...]
    wanted: Mapping[str, int]
    follows: frozenset[str] = frozenset()
    rearranged: Mapping[str, int] | None = None

    @property
    def unfinished(self) -> bool:
        """Whether any of its pods have yet to move or to come."""
        return bool(self.planned.strategy == "rollout" or self.misplaced or self.coming)

    def as_planned(self, planned: PlannedWorkload) -> Mover:
        """Return the mover under this plan, with the shares of a node that its pods take and no plan's format has."""
        shares = next((pod.requests.shares for pod in self.pods), ())
        return replace(self, planned=replace(planned, requests=planned.requests.with_shares(shares)))

    @cached_property
    def here(self) -> Mapping[str, int]:
        """Its pods by node, those that are on none left out."""
        if self.rearranged is not None:
            return self.rearranged
        return Counter(pod.node for pod in self.pods if pod.node is not None)

    @property
    def standing(self) -> Mapping[str, int]:
        """Its pods by node that stay there: none of a roll-out's."""
        return self.here if self.planned.strategy != "rollout" else {}

    @property
    def unavailable(self) -> int:
        """How many of its pods are missing or not ready."""
        return max(0, self.workload.replicas - sum(pod.ready for pod in self.pods))

    @property
    def coming(self) -> int:
        """How many of its pods are on no node yet."""
        return max(0, self.workload.replicas - sum(self.here.values()))


def movers_of(
    record: PlanRecord, snapshot: Snapshot, sought: Mapping[str, frozenset[str]] | None = None
) -> list[Mover]:
    """Return the workloads that the plan moves or brings to a node, by stage.

    Left out are those that are no longer the ones that it was made for. `sought` is what `sought_by_workload` says of
    the snapshot's pods, where that is known.
    """
    plan = record.plan
    pods: dict[str, list[Pod]] = {key: [] for key in plan.workloads}
    for pod in planned_pods(snapshot):
        if pod.workload in pods:
            pods[pod.workload].append(pod)
    wanted: dict[str, dict[str, int]] = {key: {} for key in pods}
    for node in plan.nodes:
        for key, count in node.pods.items():
            if node.state != "remove" and key in wanted and count:
                wanted[key][node.name] = count
    find_misplaced = MisplacedPods(record)
    misplaced = {
        key: find_misplaced(own, wanted[key])
        if plan.workloads[key].moves
        else _gone_ahead(plan.workloads[key], own, wanted[key], find_misplaced)
        for key, own in pods.items()
    }
    sought = sought_by_workload(snapshot.pods) if sought is None else sought
    movers = [
        Mover(
            key=w.key,
            planned=plan.workloads[w.key],
            workload=w,
            pods=tuple(pods[w.key]),
            misplaced=misplaced[w.key],
            wanted=wanted[w.key],
            follows=sought.get(w.key, frozenset()),
        ).as_planned(plan.workloads[w.key])
        for w in snapshot.workloads
        if w.key in pods and w.replicas > 0 and w.uid == plan.workloads[w.key].uid
    ]
    return by_stage(m for m in movers if m.planned.moves or m.misplaced or any(pod.node is None for pod in m.pods))


def _gone_ahead(
    planned: PlannedWorkload, pods: Iterable[Pod], wanted: Mapping[str, int], find_misplaced: MisplacedPods
) -> tuple[Pod, ...]:
    """Return the pods of a workload that stays which took another node than theirs while that was still booting.

    They have to move on: the room that they took is others', and theirs stays empty.
    """
    if planned.strategy != "stay":
        return ()
    missing = Counter(wanted) - Counter(pod.node for pod in pods if pod.node is not None)
    return find_misplaced(pods, wanted)[: missing.total()] if missing else ()


def by_stage(movers: Iterable[Mover]) -> list[Mover]:
    """Return the workloads in the order in which they may claim room."""
    return sorted(movers, key=lambda mover: (mover.planned.stage, mover.key))


class MisplacedPods:
    """Finds the pods to evict: on each node those beyond what the plan wants there, never one moved already.

    Pods made after a time stay, unless their node expires: without an exact steering they would be evicted for ever.
    It is that of the plan's acceptance, or `made_until`, in seconds since the epoch.
    """

    def __init__(self, record: PlanRecord, made_until: float | None = None) -> None:
        self._made_until = record.accepted_at if made_until is None else made_until
        self._expiring = {node.name: node.state == "remove" for node in record.plan.nodes}
        self._pinned = {name for node in record.plan.nodes for name in node.pod_names}

    def __call__(self, pods: Iterable[Pod], wanted: Mapping[str, int]) -> tuple[Pod, ...]:
        by_node: dict[str, list[Pod]] = {}
        for pod in sorted(pods, key=lambda p: p.name):
            if pod.node in self._expiring:
                by_node.setdefault(pod.node, []).append(pod)
        found: list[Pod] = []
        for node, here in sorted(by_node.items()):
            excess = len(here) - wanted.get(node, 0)
            fresh_stays = not self._expiring[node]
            movable = [
                pod
                for pod in here
                if pod_key(pod) not in self._pinned and not (fresh_stays and pod.created_at > self._made_until)
            ]
            if excess > 0:
                found.extend(movable[-excess:])
        return tuple(found)
