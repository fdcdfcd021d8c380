"""Follows every pod from outside: when it was made, when and where it was bound."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from planner.labels import ITERATION
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.fidelity.rollout import NAMESPACE, key_of
from tests.controlplane.readiness import unschedulable
from tests.controlplane.watching import PodWatch

Json = dict[str, Any]


@dataclass
class Life:
    """One pod: whose it is, which iteration marked it, and its times, in seconds of a clock that never jumps."""

    uid: str
    name: str
    workload: str
    iteration: str
    made_at: float
    bound_at: float | None = None
    node: str = ""
    gone_at: float | None = None
    unschedulable: str = ""

    @property
    def gone(self) -> bool:
        return self.gone_at is not None

    def stood_at(self, moment: float) -> bool:
        """Say whether it was bound before this moment, and not gone yet."""
        return self.bound_at is not None and self.bound_at < moment and (self.gone_at or moment) >= moment

    @property
    def waited_seconds(self) -> float | None:
        return None if self.bound_at is None else self.bound_at - self.made_at


class History(PodWatch):
    """A context manager that watches until it is left; pods that stood before are in it without a wait."""

    def __init__(self, cluster: ControlPlane) -> None:
        super().__init__(cluster)
        self.lives: dict[str, Life] = {}
        self._lock = threading.Lock()

    def marked(self, iteration: str = "") -> list[Life]:
        """Return the pods that a roll-out made (of this iteration), those that are gone again included."""
        with self._lock:
            return [life for life in self.lives.values() if life.iteration and iteration in ("", life.iteration)]

    def bound(self, iteration: str = "") -> list[Life]:
        """Return those of them that were bound, in the order of their binding."""
        found = [life for life in self.marked(iteration) if life.bound_at is not None]
        return sorted(found, key=lambda life: life.bound_at or 0.0)

    def standing(self) -> list[Life]:
        """Return the pods that are live now."""
        with self._lock:
            return [life for life in self.lives.values() if not life.gone]

    def counts(self) -> Counter[tuple[str, str]]:
        """Count the live pods by node and workload; the node of one that waits is ""."""
        return Counter((life.node, life.workload) for life in self.standing())

    def begin(self, pods: Sequence[Json]) -> None:
        """Take the pods that stood before."""
        for pod in pods:
            self.see("ADDED", pod)

    def see(self, kind: str, pod: Json) -> None:
        """Note what the change says of the pod."""
        meta, now = pod["metadata"], time.monotonic()
        if meta["namespace"] != NAMESPACE:
            return
        with self._lock:
            life = self.lives.get(meta["uid"])
            if life is None:
                mark = meta.get("annotations", {}).get(ITERATION, "")
                life = Life(meta["uid"], meta["name"], key_of(meta["labels"]["app"]), mark, now)
                self.lives[meta["uid"]] = life
            if life.bound_at is None and (node := pod["spec"].get("nodeName")):
                life.node, life.bound_at = node, now
            life.unschedulable = unschedulable(pod) or life.unschedulable
            if life.gone_at is None and (kind == "DELETED" or "deletionTimestamp" in meta):
                life.gone_at = now
