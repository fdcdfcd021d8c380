"""The objects of one reading, decoded and checked, by kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from planner import ports
from planner.errors import BadInput
from planner.kube import specs
from planner.kube.objects import (
    AutoscalerObject,
    BudgetObject,
    ClaimObject,
    ControllerObject,
    JobObject,
    Meta,
    NodeObject,
    PodObject,
    VolumeObject,
    decode,
)

SHAPES: dict[str, type[msgspec.Struct]] = {
    "Node": NodeObject,
    "Pod": PodObject,
    "Deployment": ControllerObject,
    "ReplicaSet": ControllerObject,
    "StatefulSet": ControllerObject,
    "DaemonSet": ControllerObject,
    "Job": JobObject,
    "HorizontalPodAutoscaler": AutoscalerObject,
    "PodDisruptionBudget": BudgetObject,
    "PersistentVolumeClaim": ClaimObject,
    "PersistentVolume": VolumeObject,
}
_GROUPS = {resource.kind: resource.group for resource in ports.SNAPSHOT_RESOURCES}
_CLUSTER_WIDE = frozenset(r.kind for r in ports.SNAPSHOT_RESOURCES if not r.namespaced)

_Object = (
    NodeObject | PodObject | ControllerObject | JobObject | AutoscalerObject | BudgetObject | ClaimObject | VolumeObject
)
_V = TypeVar("_V")


@dataclass(slots=True)
class Objects:
    """The decoded objects of one reading, by kind; `live` where they come from an API server."""

    origin: str
    live: bool = False
    by_kind: dict[str, dict[tuple[str, str], _Object]] = field(default_factory=dict)

    def add(self, kind: str, api_version: str, raw: bytes | msgspec.Raw) -> None:
        """Decode and keep an object; other kinds, and kinds of this name in another API group, are skipped.

        Raises:
            BadInput: a field is missing or wrong, or another object of this name is there.
        """
        shape = SHAPES.get(kind)
        if shape is None or (api_version and api_version.rpartition("/")[0] not in (_GROUPS[kind], "")):
            return
        item = decode(raw, shape, kind, self.origin)
        assert isinstance(item, _Object)
        meta = item.metadata
        if not meta.name:
            raise BadInput(f"{self.origin}: {kind} without a name: metadata.name must not be empty")
        for path, name in (
            ("metadata.name", meta.name),
            ("metadata.namespace", meta.namespace),
            *((f"metadata.ownerReferences[{i}].name", o.name) for i, o in enumerate(meta.owner_references or ())),
        ):
            if "/" in name:
                raise BadInput(
                    f'{self.origin}: {kind} {meta.full_name}: {path} must be a name without "/", not {name!r}'
                )
        if not meta.namespace and kind not in _CLUSTER_WIDE:
            raise BadInput(f"{self.origin}: {kind} {meta.name}: the field metadata.namespace is missing")
        known = self.by_kind.setdefault(kind, {})
        earlier = known.get((meta.namespace, meta.name))
        if earlier is not None and earlier.metadata.uid != meta.uid:
            raise BadInput(
                f"{self.origin}: {kind} {meta.full_name} is there twice, with the uids {earlier.metadata.uid!r} "
                f"and {meta.uid!r}; expected one reading of one cluster"
            )
        known[(meta.namespace, meta.name)] = item

    def of(self, kind: str, shape: type[_V]) -> dict[tuple[str, str], _V]:
        """Return the objects of a kind by namespace and name, in that order, so that no list's order means anything."""
        return {key: item for key, item in sorted(self.by_kind.get(kind, {}).items()) if isinstance(item, shape)}

    @contextmanager
    def naming(self, kind: str, meta: Meta) -> Iterator[None]:
        """Say in the error of a field which object it belongs to."""
        try:
            yield
        except specs.FieldError as error:
            raise BadInput(f"{self.origin}: {kind} {meta.full_name}: {error}") from None
