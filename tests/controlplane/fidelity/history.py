"""Follows every pod from outside: when it was made, when and where it was bound."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from planner.errors import KinemaError
from planner.kube.client import KubernetesClient
from planner.labels import ITERATION
from planner.ports import PODS
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.fidelity.rollout import NAMESPACE, key_of
from tests.controlplane.readiness import unschedulable

Json = dict[str, Any]

_WATCH_SECONDS = 1.0


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


@dataclass
class History:
    """A context manager that watches until it is left; pods that stood before are in it without a wait."""

    cluster: ControlPlane
    lives: dict[str, Life] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._begun = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> History:
        self._thread.start()
        self._begun.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

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

    def _watch(self) -> None:
        try:
            client = KubernetesClient.connect(str(self.cluster.admin_kubeconfig))
            listing = client.list(PODS)
            for item in listing.items:
                self._apply("ADDED", json.loads(item))
            version = listing.resource_version
            self._begun.set()
            while not self._ended.is_set():
                for event in client.watch(PODS, version, _WATCH_SECONDS):
                    body = json.loads(event.object)
                    version = body["metadata"]["resourceVersion"]
                    if event.type != "BOOKMARK":
                        self._apply(event.type, body)
        except KinemaError as error:
            self.failures.append(str(error))

    def _apply(self, kind: str, body: Json) -> None:
        meta, now = body["metadata"], time.monotonic()
        if meta["namespace"] != NAMESPACE:
            return
        with self._lock:
            life = self.lives.get(meta["uid"])
            if life is None:
                mark = meta.get("annotations", {}).get(ITERATION, "")
                life = Life(meta["uid"], meta["name"], key_of(meta["labels"]["app"]), mark, now)
                self.lives[meta["uid"]] = life
            if life.bound_at is None and (node := body["spec"].get("nodeName")):
                life.node, life.bound_at = node, now
            life.unschedulable = unschedulable(body) or life.unschedulable
            if life.gone_at is None and (kind == "DELETED" or "deletionTimestamp" in meta):
                life.gone_at = now
