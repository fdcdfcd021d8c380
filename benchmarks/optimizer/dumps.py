"""Kubernetes objects as `kubectl get … -A -o json` prints them, with the fields that a planner may read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.optimizer.shapes import MIB, Shape

Object = dict[str, Any]

NAMESPACE = "app"
_SYSTEM = "kube-system"
_API = {"Deployment": "apps/v1", "StatefulSet": "apps/v1", "ReplicaSet": "apps/v1", "Job": "batch/v1"}


@dataclass(frozen=True, slots=True)
class Owner:
    """A controller: its kind ("Pod" for a bare pod, which has none), name, replicas and the spec of its pods."""

    name: str
    replicas: int
    spec: Object
    kind: str = "Deployment"

    @property
    def key(self) -> str:
        """How plans call it."""
        return f"{NAMESPACE}/{self.kind}/{self.name}"

    @property
    def labels(self) -> dict[str, str]:
        return {"app": self.name}


def pod_spec(cpu_millicores: int, memory_bytes: int, **fields: object) -> Object:
    """Return the spec of a pod with one container and further fields, such as nodeSelector."""
    requests = {"cpu": f"{cpu_millicores}m", "memory": f"{memory_bytes // MIB}Mi"}
    return {"containers": [{"name": "main", "resources": {"requests": requests}}], **fields}


def controllers(owner: Owner) -> Iterator[Object]:
    """Return the controller's objects: one, or a Deployment with its ReplicaSet; none for a bare pod."""
    if owner.kind == "Pod":
        return
    template = {"metadata": {"labels": owner.labels}, "spec": owner.spec}
    spec: Object = {"selector": {"matchLabels": owner.labels}, "template": template}
    if owner.kind == "Job":
        yield _object("Job", owner.name, spec=spec, status={"active": owner.replicas, "ready": owner.replicas})
        return
    spec["replicas"] = owner.replicas
    status = {"replicas": owner.replicas, "readyReplicas": owner.replicas, "updatedReplicas": owner.replicas}
    yield _object(owner.kind, owner.name, spec=spec, status=status)
    if owner.kind == "Deployment":
        yield _object(
            "ReplicaSet", _replicaset(owner), _controlled_by(owner.kind, owner.name), spec=spec, status=status
        )


def pod(owner: Owner, name: str, node: str | None, annotations: Mapping[str, str] | None = None) -> Object:
    """Return one of the controller's pods: running on the node, or without one pending since nothing holds it."""
    kind, by = ("ReplicaSet", _replicaset(owner)) if owner.kind == "Deployment" else (owner.kind, owner.name)
    meta = {} if owner.kind == "Pod" else _controlled_by(kind, by)
    meta["labels"] = owner.labels
    if annotations:
        meta["annotations"] = dict(annotations)
    return _pod(name, NAMESPACE, meta, owner.spec, node)


@dataclass(frozen=True, slots=True)
class Daemon:
    """A DaemonSet; it tolerates every taint."""

    name: str
    spec: Object


def daemonset(daemon: Daemon) -> Object:
    """Return the DaemonSet's object."""
    template = {"metadata": {"labels": {"daemon": daemon.name}}, "spec": daemon.spec}
    found = _object("DaemonSet", daemon.name, spec={"template": template}, namespace=_SYSTEM)
    return found | {"apiVersion": "apps/v1"}


def daemon_pod(daemon: Daemon, node: str) -> Object:
    """Return the DaemonSet's pod on the node."""
    meta = _controlled_by("DaemonSet", daemon.name) | {"labels": {"daemon": daemon.name}}
    return _pod(f"{daemon.name}-{node}", _SYSTEM, meta, daemon.spec, node)


def budget(owner: Owner, **spec: object) -> Object:
    """Return a PodDisruptionBudget over the controller's pods, with minAvailable or maxUnavailable."""
    found = _object("PodDisruptionBudget", owner.name, spec={"selector": {"matchLabels": owner.labels}, **spec})
    return found | {"apiVersion": "policy/v1"}


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node: its machine's amounts, where it is, and how its pool marks it."""

    name: str
    machine_type: str
    pool: str
    zone: str
    amounts: tuple[int, int, int]
    arch: str = "amd64"
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()

    @property
    def all_labels(self) -> dict[str, str]:
        return {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/arch": self.arch,
            "kubernetes.io/os": "linux",
            "node.kubernetes.io/instance-type": self.machine_type,
            "topology.kubernetes.io/zone": self.zone,
            "topology.kubernetes.io/region": self.zone.rpartition("-")[0],
            "cloud.google.com/gke-nodepool": self.pool,
            **self.labels,
        }


def node(facts: NodeFacts) -> Object:
    """Return a ready Node."""
    cpu, memory, pods = facts.amounts
    allocatable = {"cpu": f"{cpu}m", "memory": str(memory), "pods": str(pods)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": facts.name, "uid": f"node-{facts.name}", "labels": facts.all_labels},
        "spec": {"taints": [dict(taint) for taint in facts.taints]},
        "status": {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def pending(shapes: Iterable[Shape]) -> Iterator[Object]:
    """Return a cluster without nodes: a Deployment for each shape, all its pods pending."""
    for index, shape in enumerate(shapes):
        owner = Owner(f"w{index}", shape.count, pod_spec(shape.cpu_millicores, shape.memory_bytes))
        yield from controllers(owner)
        for number in range(shape.count):
            yield pod(owner, f"{_replicaset(owner)}-{number}", None)


def write_dump(path: Path, objects: Iterable[Object]) -> None:
    """Write the objects as one List, one a line, without holding them all."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"apiVersion":"v1","kind":"List","items":[\n')
        for index, item in enumerate(objects):
            file.write((",\n" if index else "") + json.dumps(item, separators=(",", ":")))
        file.write("\n]}\n")


def _replicaset(owner: Owner) -> str:
    return f"{owner.name}-5d4f7c"


def _object(kind: str, name: str, meta: Object | None = None, namespace: str = NAMESPACE, **parts: object) -> Object:
    uid = f"{kind.lower()}-{name}"
    metadata = {"name": name, "namespace": namespace, "uid": uid, "generation": 1, **(meta or {})}
    return {"apiVersion": _API.get(kind, "v1"), "kind": kind, "metadata": metadata, **parts}


def _controlled_by(kind: str, name: str) -> Object:
    return {"ownerReferences": [{"kind": kind, "name": name, "uid": f"{kind.lower()}-{name}", "controller": True}]}


def _pod(name: str, namespace: str, meta: Object, spec: Object, on: str | None) -> Object:
    if on is not None:
        spec = {**spec, "nodeName": on}
        status: Object = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    else:
        waiting = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        status = {"phase": "Pending", "conditions": [waiting]}
    return _object("Pod", name, meta, namespace, spec=spec, status=status)
