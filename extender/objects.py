"""The fields of Kubernetes objects that the extender uses, as msgspec structs; all others are skipped.

The same structs read a pod from a scheduler's request and from the watch. Null and absent mean the same,
as they do for Go. None can be part of a cycle (they are trees, and frozen), so the garbage collector is spared them.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import msgspec

from planner.labels import EXPIRING, ITERATION, OPTIMAL, PLACEMENT

SYSTEM_NAMESPACE: Final = "kube-system"
"""Kinema's own pods live here; elsewhere its name on a pod is only a tenant's label."""

_UNITS: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}

_QUANTITY: Final = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)([numkMGTPE]?|[KMGTPE]i)")

_LARGEST: Final = Decimal(2**63 - 1)
"""Kubernetes caps quantities here; it also keeps an exponent of millions from becoming an integer."""

_KEYS: Final = {
    "cpu": "cpu_millicores",
    "memory": "memory_bytes",
    "ephemeral-storage": "ephemeral_storage_bytes",
}


Amounts = tuple[tuple[str, int], ...]
"""(resource, amount) sorted by resource, named as in a placement's headroom."""

_Written = tuple[tuple[str, str | int | float], ...]
"""(resource, quantity) as the object says it."""


class Owner(msgspec.Struct, frozen=True, gc=False):
    """An owner reference."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class NodeLabels(msgspec.Struct, frozen=True, gc=False):
    """The labels of the contract on a node."""

    optimal: str | None = msgspec.field(default=None, name=OPTIMAL)
    expiring: str | None = msgspec.field(default=None, name=EXPIRING)


class NodeAnnotations(msgspec.Struct, frozen=True, gc=False):
    """The annotation of the contract on a node."""

    placement: str | None = msgspec.field(default=None, name=PLACEMENT)


class NodeMetadata(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The metadata of a node that steering uses."""

    name: str = ""
    labels: NodeLabels | None = None
    annotations: NodeAnnotations | None = None


class Node(msgspec.Struct, frozen=True, gc=False):
    """A node: its name, its labels and annotation of the contract."""

    metadata: NodeMetadata = NodeMetadata()


class PodLabels(msgspec.Struct, frozen=True, gc=False):
    """The labels of a pod that steering uses."""

    app_name: str | None = msgspec.field(default=None, name="app.kubernetes.io/name")
    template_hash: str | None = msgspec.field(default=None, name="pod-template-hash")


class PodAnnotations(msgspec.Struct, frozen=True, gc=False):
    """The annotations of a pod that steering uses."""

    iteration: str | None = msgspec.field(default=None, name=ITERATION)
    mirror: str | None = msgspec.field(default=None, name="kubernetes.io/config.mirror")


class PodMetadata(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The metadata of a pod that steering uses."""

    namespace: str = ""
    name: str = ""
    uid: str = ""
    labels: PodLabels | None = None
    annotations: PodAnnotations | None = None
    owner_references: tuple[Owner, ...] | None = None
    deletion_timestamp: str | None = None


class Resources(msgspec.Struct, frozen=True, gc=False):
    """Resource requests; a quantity may come as a number."""

    requests: dict[str, str | int | float] | None = None


class Container(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """What a container asks for; an init container with restart policy Always is a sidecar."""

    resources: Resources | None = None
    restart_policy: str | None = None


class FieldRequirement(msgspec.Struct, frozen=True, gc=False):
    """One matchFields requirement of a node selector term."""

    key: str = ""
    operator: str = ""


class SelectorTerm(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """A node selector term, its fields only."""

    match_fields: tuple[FieldRequirement, ...] | None = None


class NodeSelector(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The required node affinity."""

    node_selector_terms: tuple[SelectorTerm, ...] | None = None


class NodeAffinity(msgspec.Struct, frozen=True, gc=False):
    """The node affinity, its required part only."""

    required: NodeSelector | None = msgspec.field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")


class Affinity(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The affinity, its part about nodes only."""

    node_affinity: NodeAffinity | None = None


class PodSpec(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The spec of a pod that steering uses."""

    node_name: str | None = None
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    overhead: dict[str, str | int | float] | None = None
    resources: Resources | None = None
    affinity: Affinity | None = None


class PodStatus(msgspec.Struct, frozen=True, gc=False):
    """The phase tells a finished pod."""

    phase: str | None = None


class PodObject(msgspec.Struct, frozen=True, gc=False):
    """A pod as the API server and the scheduler send it."""

    metadata: PodMetadata = PodMetadata()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class ReplicaSetMetadata(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The metadata of a ReplicaSet that steering uses."""

    namespace: str = ""
    name: str = ""
    uid: str = ""
    owner_references: tuple[Owner, ...] | None = None


class ReplicaSet(msgspec.Struct, frozen=True, gc=False):
    """A ReplicaSet, or its PartialObjectMetadata: both have the same metadata."""

    metadata: ReplicaSetMetadata = ReplicaSetMetadata()


def controller(owners: tuple[Owner, ...] | None) -> Owner | None:
    """Return the controlling owner."""
    for owner in owners or ():
        if owner.controller:
            return owner
    return None


def passes_untouched(pod: PodObject) -> bool:
    """Tell whether steering leaves the pod alone: it belongs to a node, or to Kinema itself."""
    metadata, spec = pod.metadata, pod.spec
    app = (metadata.labels.app_name if metadata.labels is not None else None) or ""
    if metadata.namespace == SYSTEM_NAMESPACE and f"{app}-".startswith("kinema-"):
        return True
    return bool(spec.node_name) or belongs_to_node(metadata) or _names_its_node(spec)


def belongs_to_node(metadata: PodMetadata) -> bool:
    """Tell whether the pod is part of its node: of a DaemonSet, static, or the mirror of a static one."""
    if metadata.annotations is not None and metadata.annotations.mirror is not None:
        return True
    owner = controller(metadata.owner_references)
    return owner is not None and owner.kind in ("DaemonSet", "Node")


def is_live(pod: PodObject) -> bool:
    """Tell whether the pod counts: neither being deleted nor finished."""
    return pod.metadata.deletion_timestamp is None and pod.status.phase not in ("Succeeded", "Failed")


def requests_of(spec: PodSpec) -> Amounts:
    """Return what the scheduler reserves for the pod, keyed as a placement's headroom and sorted by key.

    max(Σ containers + Σ sidecars, max over init containers i of (init i + sidecars before i)) + overhead;
    a request of the pod as a whole takes the place of its containers' (Kubernetes 1.34 PodRequests).

    Equal requests are mostly one and the same value, computed once: 30,000 pods have some hundred shapes.

    Raises:
        ValueError: a quantity that Kubernetes would not have written.
    """
    return _reserved(
        tuple([_written(container.resources) for container in spec.containers or ()]),
        tuple([(container.restart_policy, _written(container.resources)) for container in spec.init_containers or ()]),
        _written(spec.resources),
        tuple((spec.overhead or {}).items()),
    )


@functools.lru_cache(maxsize=4096)
def _reserved(
    containers: tuple[_Written, ...],
    init_containers: tuple[tuple[str | None, _Written], ...],
    whole: _Written,
    overhead: _Written,
) -> Amounts:
    running: dict[str, int] = {}
    for asked in containers:
        _add(running, _quantities(asked))
    sidecars: dict[str, int] = {}
    starting: dict[str, int] = {}
    for restart_policy, asked in init_containers:
        amounts = _quantities(asked)
        if restart_policy == "Always":
            _add(sidecars, amounts)
            amounts = {}
        peak = dict(sidecars)
        _add(peak, amounts)
        for key, amount in peak.items():
            starting[key] = max(starting.get(key, 0), amount)
    _add(running, sidecars)
    total = {key: max(running.get(key, 0), starting.get(key, 0)) for key in {*running, *starting}}
    total.update(_quantities(whole))
    _add(total, _quantities(overhead))
    total["pods"] = 1
    return tuple(sorted(total.items()))


@functools.lru_cache(maxsize=4096)
def quantity(text: str) -> Decimal:
    """Return the number that a Kubernetes quantity stands for ("100m" = 0.1, "1Gi" = 2^30).

    Raises:
        ValueError: it is no quantity.
    """
    parts = _QUANTITY.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is no Kubernetes quantity such as 100m or 1Gi")
    value = Decimal(parts[1]) * _UNITS[parts[2]]
    if abs(value) > _LARGEST:
        raise ValueError(f"{text!r} is beyond every quantity that Kubernetes knows")
    return value


def _names_its_node(spec: PodSpec) -> bool:
    """Tell whether the required node affinity leaves one node by its name, as in the pods of a DaemonSet."""
    affinity = spec.affinity.node_affinity if spec.affinity is not None else None
    if affinity is None or affinity.required is None:
        return False
    terms = affinity.required.node_selector_terms or ()
    return len(terms) == 1 and any(
        field.key == "metadata.name" and field.operator == "In" for field in terms[0].match_fields or ()
    )


def _written(resources: Resources | None) -> _Written:
    return tuple(resources.requests.items()) if resources is not None and resources.requests is not None else ()


def _quantities(asked: _Written) -> dict[str, int]:
    amounts = {}
    for name, text in asked:
        scale = 1000 if name == "cpu" else 1
        amounts[_KEYS.get(name, name)] = math.ceil(quantity(str(text)) * scale)
    return amounts


def _add(total: dict[str, int], amounts: Mapping[str, int]) -> None:
    for key, amount in amounts.items():
        total[key] = total.get(key, 0) + amount
