"""Follows every change of a pod, from outside, and remembers the fewest that were ready at once."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from planner.errors import KinemaError
from planner.kube.client import KubernetesClient
from planner.ports import PODS
from simulator.selectors import selects
from tests.controlplane.cluster import ControlPlane

Json = dict[str, Any]

_WATCH_SECONDS = 1.0


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


@dataclass
class Readiness:
    """A context manager that watches until it is left.

    `violations` says when fewer were ready than must be, `unschedulable` why a pod found no node for a while, both with
    the number of changes seen before.
    """

    cluster: ControlPlane
    leasts: tuple[Least, ...]
    changes: int = 0
    violations: list[str] = field(default_factory=list)
    unschedulable: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Readiness:
        self._thread.start()
        self._begun.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _watch(self) -> None:
        try:
            client = KubernetesClient.connect(str(self.cluster.admin_kubeconfig))
            listing = client.list(PODS)
            pods = {body["metadata"]["uid"]: body for body in map(json.loads, listing.items)}
            version = listing.resource_version
            self._begun.set()
            while not self._ended.is_set():
                for event in client.watch(PODS, version, _WATCH_SECONDS):
                    body = json.loads(event.object)
                    version = body["metadata"]["resourceVersion"]
                    if event.type != "BOOKMARK":
                        self._apply(event.type, body, pods)
        except KinemaError as error:
            self.failures.append(str(error))

    def _apply(self, kind: str, body: Json, pods: dict[str, Json]) -> None:
        self.changes += 1
        uid, name = body["metadata"]["uid"], f"{body['metadata']['namespace']}/{body['metadata']['name']}"
        if kind == "DELETED":
            pods.pop(uid, None)
        else:
            pods[uid] = body
        if (why := unschedulable(body)) and kind != "DELETED":
            self.unschedulable[f"{name}: {why}"] += 1
        for least in self.leasts:
            if (count := least.count(pods)) < least.ready:
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
