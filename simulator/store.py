"""What the simulated API server remembers: objects, their versions, and the history that watches read."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from planner.ports import PODS, Resource

Json = dict[str, Any]
Key = tuple[str, str]
"""Namespace ("" for cluster-wide kinds) and name."""

FIRST_VERSION: Final = 100
"""A new server has history behind it already, so that version 1 is too old as on a real one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object as it stands, decoded and as the bytes that are sent; neither may be changed."""

    body: Json
    raw: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch; `before` is what the object was, None for a new one."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    resource: Resource
    version: int
    body: Json
    raw: bytes
    before: Json | None

    @property
    def key(self) -> Key:
        """Namespace and name of the object."""
        return key_of(self.body)


def key_of(body: Json) -> Key:
    """Return namespace and name of an object."""
    metadata = body["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def controller_of(body: Json) -> Json | None:
    """Return the owner reference of the object's controller."""
    owners = body["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)


def copy_of(entry: Entry) -> Json:
    """Return the object again, as one that may be changed."""
    copied: Json = msgspec.json.decode(entry.raw)
    return copied


class Store:
    """Objects by kind and key; safe to read from the threads of a server while the world changes it."""

    def __init__(self, history: int = 20_000) -> None:
        """Keep so many changes of each kind for watches."""
        self._history_limit = history
        self._version = FIRST_VERSION
        self._tables: dict[Resource, dict[Key, Entry]] = {}
        self._history: dict[Resource, list[Change]] = {}
        self._floors: dict[Resource, int] = {}
        self._floor = FIRST_VERSION
        self._owned: dict[str, dict[tuple[Resource, Key], None]] = {}
        self._on_node: dict[str, dict[Key, None]] = {}
        self._listeners: list[Callable[[Change], None]] = []
        self.changed: Final = threading.Condition(threading.RLock())

    @property
    def version(self) -> int:
        """The resource version of the last change."""
        return self._version

    def subscribe(self, listener: Callable[[Change], None]) -> None:
        """Call the listener with every change from now on, in order, before the write returns."""
        self._listeners.append(listener)

    def get(self, resource: Resource, key: Key) -> Entry | None:
        """Return the object, if it is there."""
        return self._tables.get(resource, {}).get(key)

    def entries(self, resource: Resource) -> list[Entry]:
        """Return every object of a kind, in the order of their keys, as etcd does."""
        with self.changed:
            table = self._tables.get(resource, {})
            return [table[key] for key in sorted(table)]

    def bodies(self, resource: Resource) -> list[Json]:
        """Return every object of a kind, in the order of their creation."""
        return [entry.body for entry in self._tables.get(resource, {}).values()]

    def owned(self, uid: str, resource: Resource) -> list[Json]:
        """Return the objects of a kind whose owner references name the uid, oldest first."""
        return [self._tables[r][key].body for r, key in self._owned.get(uid, {}) if r == resource]

    def dependents(self, uid: str) -> list[tuple[Resource, Key]]:
        """Return all objects whose owner references name the uid."""
        return list(self._owned.get(uid, {}))

    def pods_on(self, node: str) -> list[Json]:
        """Return the pods that are bound to a node, oldest binding first."""
        table = self._tables.get(PODS, {})
        return [table[key].body for key in self._on_node.get(node, {})]

    def put(self, resource: Resource, body: Json) -> Entry:
        """Write an object under a new resource version; the body belongs to the store from now on."""
        with self.changed:
            self._version += 1
            body["metadata"]["resourceVersion"] = str(self._version)
            entry = Entry(body, msgspec.json.encode(body))
            table = self._tables.setdefault(resource, {})
            key = key_of(body)
            before = table.get(key)
            table[key] = entry
            if before is not None:
                self._unlink(resource, key, before.body)
            self._link(resource, key, body)
            kind: Literal["ADDED", "MODIFIED"] = "ADDED" if before is None else "MODIFIED"
            old = None if before is None else before.body
            self._publish(Change(kind, resource, self._version, body, entry.raw, old))
            return entry

    def drop(self, resource: Resource, key: Key) -> None:
        """Remove an object."""
        with self.changed:
            entry = self._tables[resource].pop(key)
            self._unlink(resource, key, entry.body)
            self._version += 1
            body = copy_of(entry)
            body["metadata"]["resourceVersion"] = str(self._version)
            raw = msgspec.json.encode(body)
            self._publish(Change("DELETED", resource, self._version, body, raw, entry.body))

    def since(self, resource: Resource, version: int) -> list[Change]:
        """Return the changes of a kind after a resource version.

        Raises:
            LookupError: the history does not reach back so far.
        """
        with self.changed:
            if version < max(self._floor, self._floors.get(resource, 0)):
                raise LookupError(f"too old resource version: {version} ({self._version})")
            history = self._history.get(resource, [])
            return history[bisect_right(history, version, key=lambda change: change.version) :]

    def compact(self) -> None:
        """Forget the history, as etcd does every five minutes."""
        with self.changed:
            self._floor = self._version
            self._history.clear()

    def _publish(self, change: Change) -> None:
        history = self._history.setdefault(change.resource, [])
        history.append(change)
        if len(history) > 2 * self._history_limit:
            dropped = history[: self._history_limit]
            del history[: self._history_limit]
            self._floors[change.resource] = dropped[-1].version
        for listener in self._listeners:
            listener(change)
        self.changed.notify_all()

    def _link(self, resource: Resource, key: Key, body: Json) -> None:
        for uid in _owners(body):
            self._owned.setdefault(uid, {})[(resource, key)] = None
        if resource == PODS and (node := body["spec"].get("nodeName")):
            self._on_node.setdefault(node, {})[key] = None

    def _unlink(self, resource: Resource, key: Key, body: Json) -> None:
        for uid in _owners(body):
            owned = self._owned.get(uid, {})
            owned.pop((resource, key), None)
            if not owned:
                self._owned.pop(uid, None)
        if resource == PODS and (node := body["spec"].get("nodeName")):
            on_node = self._on_node.get(node, {})
            on_node.pop(key, None)
            if not on_node:
                self._on_node.pop(node, None)


def _owners(body: Json) -> Iterator[str]:
    return (owner["uid"] for owner in body["metadata"].get("ownerReferences") or ())
