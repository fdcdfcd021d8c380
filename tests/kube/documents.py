"""Kubernetes objects as the API server writes them, said in few words."""

from __future__ import annotations

import json
from typing import Any

from planner.kube.reader import read_dump
from planner.model.cluster import Snapshot

Json = dict[str, Any]


def meta(name: str, namespace: str = "default", owner: tuple[str, str] | None = None, **more: Any) -> Json:
    """Return metadata; `owner` is (kind, name) of the controller, whose uid is "uid-" and its name."""
    found: Json = {"name": name, "uid": f"uid-{name}", **more}
    if namespace:
        found["namespace"] = namespace
    if owner:
        found["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "uid": f"uid-{owner[1]}", "controller": True}]
    return found


def container(name: str = "main", cpu: str = "", memory: str = "", **more: Any) -> Json:
    """Return a container with these requests."""
    requests = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value}
    return {"name": name, **({"resources": {"requests": requests}} if requests else {}), **more}


def node(name: str, cpu: str = "4", memory: str = "16Gi", **spec: Any) -> Json:
    """Return a ready node."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": meta(name, "", labels={"topology.kubernetes.io/zone": "zone-a"}),
        "spec": spec,
        "status": {
            "allocatable": {"cpu": cpu, "memory": memory, "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(name: str, *containers: Json, owner: tuple[str, str] | None = None, on: str = "", **spec: Any) -> Json:
    """Return a pod that runs on a node, or waits; `labels`, `annotations` and `namespace` are its metadata."""
    about = {key: spec.pop(key) for key in ("labels", "annotations", "namespace") if key in spec}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]} if on else {"phase": "Pending"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta(name, owner=owner, **about),
        "spec": {"containers": list(containers) or [container()], **({"nodeName": on} if on else {}), **spec},
        "status": status,
    }


def controller(kind: str, name: str, replicas: int = 1, template: Json | None = None, **spec: Any) -> Json:
    """Return a Deployment, ReplicaSet, StatefulSet or DaemonSet; `owner`, `labels` and `status` may be given."""
    about = {key: spec.pop(key) for key in ("owner", "labels", "generation") if key in spec}
    status = spec.pop("status", {})
    body = {"template": {"spec": template or {"containers": [container()]}}, **spec}
    if kind != "DaemonSet":
        body["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": meta(name, **about),
        "spec": body,
        "status": status,
    }


def budget(name: str, app: str, status: Json | None = None, **spec: Any) -> Json:
    """Return a PodDisruptionBudget for the pods of an app."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta(name),
        "spec": {"selector": {"matchLabels": {"app": app}}, **spec},
        **({"status": status} if status is not None else {}),
    }


def terms(key: str, *values: str) -> Json:
    """Return the terms of a required node affinity: the label has one of the values."""
    return {"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": "In", "values": list(values)}]}]}


def claim(name: str, volume: str | None) -> Json:
    """Return a PersistentVolumeClaim, bound to a volume or waiting for one."""
    spec = {"volumeName": volume} if volume else {}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta(name), "spec": spec}


def volume(name: str, zones: list[str] | None = None, modes: list[str] | None = None, **about: Any) -> Json:
    """Return a PersistentVolume that can be reached from these zones; `about` is metadata."""
    spec: Json = {"accessModes": modes or ["ReadWriteOnce"]}
    if zones:
        spec["nodeAffinity"] = {"required": terms("topology.kubernetes.io/zone", *zones)}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta(name, "", **about), "spec": spec}


def dump(*items: Json) -> bytes:
    """Return what kubectl prints of several objects."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)}).encode()


def read(*items: Json) -> Snapshot:
    """Return what a dump of the objects is read as."""
    return read_dump(dump(*items), "dump.json")


def changed(item: Json, path: str, value: object) -> Json:
    """Return a copy with another value at a path such as "spec.containers.0.name"; None deletes the field."""
    copy: Any = json.loads(json.dumps(item))
    place = copy
    *steps, last = path.split(".")
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return copy
