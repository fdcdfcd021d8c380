"""What the cluster holds, read for the HTTP face and kept for a few seconds."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from planner.errors import KinemaError
from planner.kube.objects import NodeObject, decode
from planner.kube.record import read_record
from planner.model.cluster import INSTANCE_TYPE, NODE_POOL, ZONE
from planner.model.plan import PlanRecord
from planner.ports import NODES, Kubernetes


@dataclass(frozen=True, slots=True)
class Reading:
    """The plan that the cluster remembers and how many Node objects each (pool, zone) has; or why not."""

    record: PlanRecord | None = None
    existing: Mapping[tuple[str, str], int] = field(default_factory=dict)
    failure: str = ""


class ClusterView:
    """Reads plan and nodes together; one reading answers everything for `cache_seconds`.

    A failed reading is kept as long as a good one, so that callers do not add to an API server's trouble. It
    never answers with an older one: the nodes may have changed.
    """

    def __init__(
        self,
        kubernetes: Kubernetes,
        namespace: str,
        cache_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kubernetes = kubernetes
        self._namespace = namespace
        self._cache_seconds = cache_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._reading = Reading(failure="not read yet")
        self._expires = -float("inf")

    def read(self) -> Reading:
        """Return the present reading, made anew where the last one is too old."""
        with self._lock:
            if self._monotonic() >= self._expires:
                self._reading = self._read()
                self._expires = self._monotonic() + self._cache_seconds
            return self._reading

    def _read(self) -> Reading:
        try:
            return Reading(read_record(self._kubernetes, self._namespace), self._count_nodes())
        except KinemaError as error:
            return Reading(failure=f"the cluster cannot be read: {error}")

    def _count_nodes(self) -> Mapping[tuple[str, str], int]:
        """Count nodes by pool and zone; a node without a pool counts for its machine type, as in plans."""
        counts: Counter[tuple[str, str]] = Counter()
        for item in self._kubernetes.list(NODES).items:
            labels = decode(item, NodeObject, "Node", "the API server's list").metadata.labels or {}
            counts[labels.get(NODE_POOL) or labels.get(INSTANCE_TYPE, ""), labels.get(ZONE, "")] += 1
        return counts
