"""The Kubernetes port on a simulated API server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from planner.errors import Conflict, Gone, KubernetesError, NotFound
from planner.ports import BUDGETS, EVENTS, LEASES, Listing, PatchKind, Resource, WatchEvent
from simulator.api import ApiServer
from simulator.selectors import fields_match
from simulator.wire import bookmark, item_bytes

_CREATED_BY_PUT: Final = frozenset({LEASES, EVENTS})
_UPDATED_BY_VERSION: Final = frozenset({LEASES, BUDGETS})
"""Kinds whose replacement must name a version. Source: AllowUnconditionalUpdate of their registry strategies."""


class SimulatedKubernetes:
    """Implements `planner.ports.Kubernetes` on a simulated API server; every call takes simulated time.

    The port's errors are those of the real client. Time passes in a call as it would on a real cluster, so
    that what a caller read is no longer quite what there is.
    """

    def __init__(self, server: ApiServer, latency_seconds: float = 0.005) -> None:
        """Answer after so many seconds of simulated time."""
        self.server: Final = server
        self.latency_seconds = latency_seconds

    def list(self, resource: Resource, field_selector: str = "") -> Listing:
        """Return every object, read at one moment."""
        self._wait()
        store = self.server.store
        with store.changed:
            chosen = [e for e in store.entries(resource) if fields_match(field_selector, e.body)]
            return Listing(tuple(item_bytes(entry) for entry in chosen), str(store.version))

    def watch(self, resource: Resource, resource_version: str, timeout_seconds: float) -> Iterator[WatchEvent]:
        """Yield changes; while there is none simulated time passes."""
        self._wait()
        store, clock = self.server.store, self.server.clock
        position, deadline = int(resource_version or 0), clock.now() + timeout_seconds
        while True:
            try:
                changes = store.since(resource, position)
            except LookupError as error:
                raise Gone(f"410: {error}") from error
            for change in changes:
                position = change.version
                yield WatchEvent(change.type, change.raw)
            if not changes:
                if clock.now() >= deadline:
                    break
                clock.step(deadline)
        yield WatchEvent("BOOKMARK", bookmark(resource, max(position, store.version)))

    def get(self, resource: Resource, namespace: str, name: str) -> bytes:
        """Return one object."""
        self._wait()
        entry = self.server.store.get(resource, (namespace, name))
        if entry is None:
            raise NotFound(f'404: {resource.plural} "{name}" not found')
        return entry.raw

    def create(self, resource: Resource, namespace: str, body: Mapping[str, object]) -> bytes:
        """Create an object."""
        self._wait()
        return self.server.create(resource, namespace, body).raw

    def replace(self, resource: Resource, namespace: str, name: str, body: Mapping[str, object]) -> bytes:
        """Replace an object; a Lease or an Event that is not there is created, as on a real server."""
        self._wait()
        key = (namespace, name)
        given: Mapping[str, Any] = msgspec.convert(body.get("metadata") or {}, dict[str, Any])
        if resource in _CREATED_BY_PUT and self.server.store.get(resource, key) is None:
            metadata = dict(given)
            if metadata.get("uid"):
                raise Conflict(f'409: {resource.plural} "{name}" of this uid does not exist')
            metadata.pop("resourceVersion", None)
            return self.server.create(resource, namespace, {**body, "metadata": metadata}).raw
        if resource in _UPDATED_BY_VERSION and not given.get("resourceVersion"):
            raise KubernetesError(
                f'422: {resource.plural} "{name}" is invalid: metadata.resourceVersion: must be specified for an update'
            )
        return self.server.update(resource, key, body).raw

    def patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, object], kind: PatchKind = "merge"
    ) -> bytes:
        """Patch an object."""
        self._wait()
        return self.server.patch(resource, (namespace, name), patch, kind).raw

    def evict(self, namespace: str, name: str, uid: str) -> None:
        """Evict a pod."""
        self._wait()
        self.server.evict((namespace, name), uid)

    def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """Delete an object."""
        self._wait()
        self.server.delete(resource, (namespace, name), uid)

    def _wait(self) -> None:
        if self.latency_seconds:
            self.server.clock.sleep(self.latency_seconds)
