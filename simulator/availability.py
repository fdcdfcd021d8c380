"""Watches how many pods of every workload are Ready, at every change, and compares with what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from planner.ports import BUDGETS, DEPLOYMENTS, PODS, REPLICASETS, STATEFULSETS
from simulator.api import ApiServer
from simulator.controllers import owner_key, surge_and_unavailable
from simulator.selectors import selects
from simulator.status import is_deleting, is_ready
from simulator.store import Change, Json, key_of


@dataclass(frozen=True, slots=True)
class Sample:
    """How many pods of a workload were Ready at one moment, of how many, and how many had to be.

    `floor` is what its strategy and its disruption budgets leave: replicas - maxUnavailable of a Deployment
    (0 for Recreate), replicas - 1 of a StatefulSet, and the desired healthy pods of every budget over it.
    """

    workload: str
    time_seconds: float
    ready: int
    replicas: int
    floor: int

    @property
    def share(self) -> float:
        """The Ready share of the replicas; 1 for a workload scaled to zero."""
        return self.ready / self.replicas if self.replicas else 1.0

    @property
    def is_violation(self) -> bool:
        """Whether fewer pods were Ready than had to be."""
        return self.ready < self.floor


class Availability:
    """Samples the workload of every pod that changes; begin it when the world stands."""

    def __init__(self, server: ApiServer) -> None:
        """Record nothing until `begin`."""
        self._server = server
        self._recording = False
        self.lowest: dict[str, Sample] = {}
        self.violations: list[Sample] = []
        server.store.subscribe(self._observe)

    def begin(self) -> None:
        """Forget what was recorded, take a first sample of every workload and record from now on."""
        self._recording = True
        self.lowest.clear()
        self.violations.clear()
        for kind, resource in (("Deployment", DEPLOYMENTS), ("StatefulSet", STATEFULSETS)):
            for body in self._server.store.bodies(resource):
                self._take(kind, body)

    def worst(self) -> Sample | None:
        """Return the sample with the lowest Ready share, the first by name among equals."""
        return min(self.lowest.values(), key=lambda s: (s.share, s.workload), default=None)

    def _observe(self, change: Change) -> None:
        if not self._recording or change.resource != PODS:
            return
        if (key := owner_key(change.body, "StatefulSet")) is not None:
            kind, body = "StatefulSet", self._server.find(STATEFULSETS, key)
        else:
            replicaset = owner_key(change.body, "ReplicaSet")
            owner = self._server.find(REPLICASETS, replicaset) if replicaset else None
            key = owner_key(owner, "Deployment") if owner else None
            kind, body = "Deployment", self._server.find(DEPLOYMENTS, key) if key else None
        if body is not None and not is_deleting(body):
            self._take(kind, body)

    def _take(self, kind: str, body: Json) -> None:
        pods = list(self._pods(kind, body))
        ready = sum(is_ready(pod) and not is_deleting(pod) for pod in pods)
        replicas = body["spec"]["replicas"]
        namespace, name = key_of(body)
        floor = max(self._strategy_floor(kind, body), *self._budget_floors(body), 0)
        sample = Sample(f"{namespace}/{kind}/{name}", self._server.clock.now(), ready, replicas, floor)
        before = self.lowest.get(sample.workload)
        if before is None or sample.share < before.share:
            self.lowest[sample.workload] = sample
        if sample.is_violation:
            self.violations.append(sample)

    def _pods(self, kind: str, body: Json) -> Iterator[Json]:
        store, uid = self._server.store, body["metadata"]["uid"]
        if kind == "StatefulSet":
            yield from store.owned(uid, PODS)
        else:
            for replicaset in store.owned(uid, REPLICASETS):
                yield from store.owned(replicaset["metadata"]["uid"], PODS)

    def _strategy_floor(self, kind: str, body: Json) -> int:
        replicas: int = body["spec"]["replicas"]
        return replicas - (1 if kind == "StatefulSet" else surge_and_unavailable(body)[1])

    def _budget_floors(self, body: Json) -> Iterator[int]:
        template = {"metadata": body["spec"]["template"].get("metadata") or {}}
        for budget in self._server.store.bodies(BUDGETS):
            if budget["metadata"]["namespace"] == body["metadata"]["namespace"]:
                spec = budget["spec"]
                if selects(spec.get("selector"), template):
                    yield (budget.get("status") or {}).get("desiredHealthy", 0)
