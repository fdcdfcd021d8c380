"""The two reads of the HTTP face, answered from memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NoReturn

from planner.errors import KinemaError, NotFound
from planner.kube.record import NAME, encode_record
from planner.model.cluster import INSTANCE_TYPE, NODE_POOL, ZONE
from planner.model.plan import PlanRecord
from planner.ports import CONFIGMAPS, NODES, Listing, PatchKind, Resource, WatchEvent


class MemoryCluster:
    """A `Kubernetes` that has nodes and a plan; every write fails the test, for the face only reads."""

    def __init__(
        self,
        record: PlanRecord | None = None,
        nodes: Mapping[tuple[str, str], int] | None = None,
        raw_record: bytes | None = None,
    ) -> None:
        self.record = record
        self.nodes = dict(nodes or {})
        self.raw_record = raw_record
        self.error: KinemaError | None = None
        self.fails_only_lists = False

    def get(self, resource: Resource, namespace: str, name: str) -> bytes:
        assert (resource, namespace, name) == (CONFIGMAPS, "kube-system", NAME)
        if self.error is not None and not self.fails_only_lists:
            raise self.error
        if self.raw_record is not None:
            return self.raw_record
        if self.record is None:
            raise NotFound(f"configmaps {name} not found")
        return json.dumps(encode_record(self.record, namespace)).encode()

    def list(self, resource: Resource, field_selector: str = "") -> Listing:
        assert (resource, field_selector) == (NODES, "")
        if self.error is not None:
            raise self.error
        items = []
        for (pool, zone), count in self.nodes.items():
            labels = {INSTANCE_TYPE: "m4", ZONE: zone} | ({NODE_POOL: pool} if pool else {})
            for _ in range(count):
                metadata = {"name": f"n{len(items)}", "uid": f"u{len(items)}", "labels": labels}
                items.append(json.dumps({"metadata": metadata, "spec": {}, "status": {}}).encode())
        return Listing(tuple(items), "1")

    def watch(self, resource: Resource, resource_version: str, timeout_seconds: float) -> Iterator[WatchEvent]:
        self._refuse()

    def create(self, resource: Resource, namespace: str, body: Mapping[str, object]) -> bytes:
        self._refuse()

    def replace(self, resource: Resource, namespace: str, name: str, body: Mapping[str, object]) -> bytes:
        self._refuse()

    def patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, object], kind: PatchKind = "merge"
    ) -> bytes:
        self._refuse()

    def evict(self, namespace: str, name: str, uid: str) -> None:
        self._refuse()

    def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise AssertionError("the HTTP face must only get the plan and list the nodes")
