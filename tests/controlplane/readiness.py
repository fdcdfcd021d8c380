"""Follows every change of a pod, from outside, and remembers the fewest that were ready at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.selectors import selects
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.watching import PodWatch

Json = dict[str, Any]


@dataclass(frozen=True)
class Least:
    """Of whom at least `ready` pods must be ready at every moment: the pods of a namespace that a selector selects."""

    what: str
    namespace: str
    selector: Json
    ready: int

    def count(self, pods: Mapping[str, Json]) -> int:
        """Count the ready pods of these; one that is being deleted is not."""
        return sum(
            is_ready(pod) and pod["metadata"]["namespace"] == self.namespace and selects(self.selector, pod)
            for pod in pods.values()
        )


class Readiness(PodWatch):
    """A context manager that watches until it is left.

    `violations` says when fewer were ready than must be, `unschedulable` why a pod found no node for a while, both with
    the number of changes seen before.
    """

    def __init__(self, cluster: ControlPlane, leasts: tuple[Least, ...]) -> None:
        super().__init__(cluster)
        self.leasts, self.changes = leasts, 0
        self.violations: list[str] = []
        self.unschedulable: Counter[str] = Counter()
        self._pods: dict[str, Json] = {}

    def begin(self, pods: Sequence[Json]) -> None:
        """Take the pods that stood before."""
        self._pods = {pod["metadata"]["uid"]: pod for pod in pods}

    def see(self, kind: str, pod: Json) -> None:
        """Take a change, and count who is ready after it."""
        self.changes += 1
        uid, name = pod["metadata"]["uid"], f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        if kind == "DELETED":
            self._pods.pop(uid, None)
        else:
            self._pods[uid] = pod
        if (why := unschedulable(pod)) and kind != "DELETED":
            self.unschedulable[f"{name}: {why}"] += 1
        for least in self.leasts:
            if (count := least.count(self._pods)) < least.ready:
                text = f"change {self.changes} ({kind} {name}): {count} pods of {least.what} ready, not {least.ready}"
                self.violations.append(text)


def is_ready(pod: Json) -> bool:
    """Say whether the pod's Ready condition is true, and it is not being deleted."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def unschedulable(pod: Json) -> str:
    """Return why the scheduler found no node for the pod, "" where it did not say so."""
    if pod["spec"].get("nodeName"):
        return ""
    found = (c for c in pod.get("status", {}).get("conditions", []) if c["type"] == "PodScheduled")
    return next((c.get("message", "") for c in found if c.get("reason") == "Unschedulable"), "")
