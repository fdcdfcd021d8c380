"""Node objects as the model's nodes."""

from __future__ import annotations

from planner.errors import BadInput
from planner.kube import specs
from planner.kube.collection import Objects
from planner.kube.objects import NodeObject
from planner.model.cluster import Node
from planner.model.scheduling import Taint


def nodes(objects: Objects) -> tuple[Node, ...]:
    """Return the nodes of a reading.

    Raises:
        BadInput: an amount is missing or wrong.
    """
    return tuple(_node(objects, item) for item in objects.of("Node", NodeObject).values())


def _node(objects: Objects, item: NodeObject) -> Node:
    meta, spec, status = item.metadata, item.spec, item.status
    ready = any(c.type == "Ready" and c.status == "True" for c in (status.conditions or () if status else ()))
    quantities = status.allocatable if status else None
    # A node that registers with a live cluster has no status for a moment; it is not ready, so nothing is lost.
    if not (objects.live and not ready and not quantities):
        for name in ("cpu", "memory", "pods"):
            if name not in (quantities or {}):
                raise BadInput(f"{objects.origin}: Node {meta.name}: the field status.allocatable.{name} is missing")
    with objects.naming("Node", meta):
        allocatable = specs.amounts(quantities, "status.allocatable")
    return Node(
        name=meta.name,
        uid=meta.uid,
        labels=meta.labels or {},
        annotations=meta.annotations or {},
        taints=tuple(Taint(t.key, t.value or "", t.effect) for t in (spec.taints or () if spec else ())),
        allocatable=specs.resources(allocatable, pods=allocatable.pop("pods", 0)),
        ready=ready,
        unschedulable=bool(spec and spec.unschedulable),
        deleting=meta.deletion_timestamp is not None,
        provider_id=(spec.provider_id or "") if spec else "",
        created_at=meta.created_at,
    )
