"""Small Kubernetes objects and requests for the extender's tests, as JSON values."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from extender.nodes import Cache
from extender.objects import Node, PodObject, ReplicaSet
from extender.state import Clock, State
from planner.labels import EXPIRING, ITERATION, OPTIMAL, PLACEMENT, Placement, Target, encode_placement

Json = dict[str, Any]

NOW = 1_000_000.0
"""Where the hand clock starts, seconds since the epoch."""

EXPIRES = NOW + 3600

PLENTY = {"cpu_millicores": 4000, "memory_bytes": 16 << 30, "pods": 100}


class HandClock:
    """A clock that only moves when a test says so."""

    def __init__(self) -> None:
        self.now = NOW

    def clock(self) -> Clock:
        """Return both clocks, which move together."""
        return Clock(lambda: self.now, lambda: self.now)


def target(workload: str, want: int, count: Any = "all", uid: str = "") -> Target:
    """Return a target; the uid is free unless the test is about it."""
    return Target(workload, uid, want, count)


def node(
    name: str,
    *targets: Target,
    optimal: str = "i-1",
    expiring: str = "",
    headroom: dict[str, int] | None = None,
    expires: float = EXPIRES,
) -> Json:
    """Return a node of the plan `optimal`; with targets or headroom it carries a placement."""
    labels = {key: value for key, value in ((OPTIMAL, optimal), (EXPIRING, expiring)) if value}
    annotations = {}
    if targets or headroom is not None:
        placement = Placement(optimal or "i-1", expires, targets, PLENTY if headroom is None else headroom)
        annotations[PLACEMENT] = encode_placement(placement)
    return {"metadata": {"name": name, "labels": labels, "annotations": annotations}}


def pod(
    uid: str,
    owner: str = "Deployment/web",
    *,
    on: str = "",
    mark: str = "",
    cpu: str = "100m",
    namespace: str = "shop",
) -> Json:
    """Return a pod of the owner "Kind/name"; a Deployment's pod belongs to the ReplicaSet "name-7d4f"."""
    kind, _, name = owner.partition("/")
    labels: Json = {}
    if kind == "Deployment":
        kind, name, labels = "ReplicaSet", f"{name}-7d4f", {"pod-template-hash": "7d4f"}
    owners = [{"kind": kind, "name": name, "uid": f"{namespace}-{name}", "controller": True}] if owner else None
    return {
        "metadata": {
            "namespace": namespace,
            "name": uid,
            "uid": uid,
            "labels": labels,
            "annotations": {ITERATION: mark} if mark else None,
            "ownerReferences": owners,
        },
        "spec": {
            "nodeName": on or None,
            "containers": [{"name": "main", "resources": {"requests": {"cpu": cpu, "memory": "128Mi"}}}],
        },
        "status": {"phase": "Running" if on else "Pending"},
    }


def replicaset(deployment: str, uid: str = "", namespace: str = "shop") -> Json:
    """Return the ReplicaSet "deployment-7d4f" of a Deployment with the uid."""
    name = f"{deployment}-7d4f"
    owner = {"kind": "Deployment", "name": deployment, "uid": uid or f"{namespace}-{deployment}", "controller": True}
    return {
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": f"{namespace}-{name}",
            "ownerReferences": [owner],
        }
    }


def state(clock: HandClock, *objects: Json, reservation_seconds: float = 60.0) -> State:
    """Return a state that has read these nodes and pods, and the ReplicaSets web and api, whole."""
    known = State(clock.clock(), reservation_seconds)
    for deployment in ("web", "api"):
        known.put_replicaset(msgspec.convert(replicaset(deployment), ReplicaSet))
    for thing in objects:
        put(known, thing)
    known.settle()
    return known


def put(known: State, thing: Json) -> None:
    """Let the state see a node or a pod, as an event of the watch would."""
    if "spec" in thing:
        known.put_pod(msgspec.convert(thing, PodObject))
    else:
        known.put_node(msgspec.convert(thing, Node))


def cache(known: State) -> Cache:
    """Return a cache without feeds over the state: ready, and never stale."""
    return Cache(known, (), stale_seconds=120.0)


def names_only(thing: Json, *names: str) -> bytes:
    """Return a request as a scheduler with nodeCacheCapable sends it."""
    return json.dumps({"Pod": thing, "Nodes": None, "NodeNames": names}).encode()


def whole_nodes(thing: Json, *nodes: Json) -> bytes:
    """Return a request as a scheduler without nodeCacheCapable sends it."""
    return json.dumps({"Pod": thing, "Nodes": {"metadata": {}, "items": nodes}, "NodeNames": None}).encode()
