"""How objects go over the wire: their version, as elements of lists, as bookmarks."""

from __future__ import annotations

import msgspec

from planner.ports import Resource
from simulator.store import Entry


def api_version(resource: Resource) -> str:
    """Return the apiVersion of a kind's objects."""
    return f"{resource.group}/{resource.version}" if resource.group else resource.version


def item_bytes(entry: Entry) -> bytes:
    """Return an object as an element of a list: there it has neither apiVersion nor kind."""
    start = entry.raw.index(b'"metadata"')
    return b"{" + entry.raw[start:]


def bookmark(resource: Resource, version: int) -> bytes:
    """Return the object of a bookmark event."""
    return msgspec.json.encode(
        {
            "kind": resource.kind,
            "apiVersion": api_version(resource),
            "metadata": {"resourceVersion": str(version)},
        }
    )
