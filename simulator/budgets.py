"""The disruption controller: keeps the status of PodDisruptionBudgets, on which evictions depend."""

from __future__ import annotations

from planner.ports import BUDGETS, DEPLOYMENTS, PODS, REPLICASETS, STATEFULSETS
from simulator.controllers import set_status
from simulator.queues import Controller
from simulator.selectors import scaled, selects
from simulator.status import is_deleting, is_ready, seconds_of
from simulator.store import Change, Json, Key, controller_of, key_of

_DELETION_SECONDS = 120.0
"""How long an evicted pod counts as disrupted before its deletion is seen. Source: disruption.go DeletionTimeout."""

_SCALES = {"ReplicaSet": REPLICASETS, "StatefulSet": STATEFULSETS, "Deployment": DEPLOYMENTS}


class Budgets(Controller):
    """Counts healthy pods for every budget. Source: kubernetes pkg/controller/disruption/disruption.go."""

    def observe(self, change: Change) -> None:
        """React to a budget's change, and to the pods and sizes that it counts."""
        if change.resource == BUDGETS and change.type != "DELETED":
            self.enqueue(change.key)
        elif change.resource in (PODS, REPLICASETS, STATEFULSETS, DEPLOYMENTS):
            namespace = change.key[0]
            for budget in self.store.bodies(BUDGETS):
                if budget["metadata"]["namespace"] != namespace:
                    continue
                if change.resource != PODS or selects(budget["spec"].get("selector"), change.body):
                    self.enqueue(key_of(budget))

    def reconcile(self, key: Key) -> None:
        """Write how many disruptions are allowed now."""
        body = self.server.find(BUDGETS, key)
        if body is None:
            return
        pods = [
            pod
            for pod in self.store.bodies(PODS)
            if pod["metadata"]["namespace"] == key[0] and selects(body["spec"].get("selector"), pod)
        ]
        expected, desired = self._expectation(body["spec"], pods)
        now = self.clock.now()
        standing = {pod["metadata"]["name"] for pod in pods if not is_deleting(pod)}
        disrupted = {
            name: since
            for name, since in (body["status"].get("disruptedPods") or {}).items()
            if name in standing and seconds_of(since) + _DELETION_SECONDS > now
        }
        healthy = sum(
            is_ready(pod) and not is_deleting(pod) and pod["metadata"]["name"] not in disrupted for pod in pods
        )
        status: Json = {
            "observedGeneration": body["metadata"]["generation"],
            "expectedPods": expected,
            "desiredHealthy": desired,
            "currentHealthy": healthy,
            "disruptionsAllowed": max(0, healthy - desired) if expected > 0 else 0,
            "disruptedPods": disrupted,
        }
        set_status(self, BUDGETS, key, status)

    def _expectation(self, spec: Json, pods: list[Json]) -> tuple[int, int]:
        """Return how many pods there should be and how many must be healthy."""
        if "maxUnavailable" in spec:
            expected = self._expected(pods)
            return expected, max(0, expected - scaled(spec["maxUnavailable"], expected, round_up=True))
        least = spec.get("minAvailable", 1)
        if isinstance(least, int):
            return len(pods), least
        expected = self._expected(pods)
        return expected, scaled(least, expected, round_up=True)

    def _expected(self, pods: list[Json]) -> int:
        """Return the sum of the sizes of the controllers that the pods belong to."""
        sizes: dict[str, int] = {}
        for pod in pods:
            owner = controller_of(pod)
            if owner is None or owner["kind"] not in _SCALES:
                continue
            namespace = pod["metadata"]["namespace"]
            body = self.server.find(_SCALES[owner["kind"]], (namespace, owner["name"]))
            above = controller_of(body) if body else None
            if above is not None and above["kind"] in _SCALES:
                body = self.server.find(_SCALES[above["kind"]], (namespace, above["name"])) or body
            if body is not None:
                sizes[body["metadata"]["uid"]] = body["spec"]["replicas"]
        return sum(sizes.values())
