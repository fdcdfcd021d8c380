"""A watch of all pods of a control plane from outside, in a thread of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from planner.errors import KinemaError
from planner.kube.client import KubernetesClient
from planner.ports import PODS
from tests.controlplane.cluster import ControlPlane

Json = dict[str, Any]

_WATCH_SECONDS = 1.0


class PodWatch:
    """A context manager that watches until it is left; `failures` says why it ended early."""

    def __init__(self, cluster: ControlPlane) -> None:
        self.failures: list[str] = []
        self._cluster = cluster
        self._ended = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._begun.wait(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(30)

    def begin(self, pods: Sequence[Json]) -> None:
        """Take the pods that stood before."""
        raise NotImplementedError

    def see(self, kind: str, pod: Json) -> None:
        """Take a change: ADDED, MODIFIED or DELETED."""
        raise NotImplementedError

    def _watch(self) -> None:
        try:
            client = KubernetesClient.connect(str(self._cluster.admin_kubeconfig))
            listing = client.list(PODS)
            self.begin([json.loads(item) for item in listing.items])
            version = listing.resource_version
            self._begun.set()
            while not self._ended.is_set():
                for event in client.watch(PODS, version, _WATCH_SECONDS):
                    body = json.loads(event.object)
                    version = body["metadata"]["resourceVersion"]
                    if event.type != "BOOKMARK":
                        self.see(event.type, body)
        except KinemaError as error:
            self.failures.append(str(error))
