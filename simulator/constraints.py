"""Which nodes a pod of raw JSON may run on, and how much it takes, as kube-scheduler reads it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from planner.model.resources import Resources
from planner.model.scheduling import NodeConstraints, NodeSelectorTerm, Requirement, Taint, Toleration
from simulator.selectors import amounts

Json = dict[str, Any]

UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"


def admits(spec: Json, node: Json) -> bool:
    """Tell whether a pod of this spec may be put on the node, room aside."""
    labels, name = node["metadata"].get("labels") or {}, node["metadata"]["name"]
    return constraints_of(spec).admit(labels, name, taints_of(node))


def tolerates_running(spec: Json, node: Json) -> bool:
    """Tell whether a pod of this spec may stay on the node: selected, and NoExecute taints tolerated."""
    constraints = constraints_of(spec)
    labels, name = node["metadata"].get("labels") or {}, node["metadata"]["name"]
    lasting = tuple(taint for taint in taints_of(node) if taint.effect == "NoExecute")
    return constraints.select(labels, name) and constraints.tolerate(lasting)


def taints_of(node: Json) -> tuple[Taint, ...]:
    """Return the node's taints; a cordon counts as one, as its own plugin treats it."""
    taints = [Taint(t["key"], t.get("value", ""), t["effect"]) for t in node["spec"].get("taints") or ()]
    if node["spec"].get("unschedulable") and not any(taint.key == UNSCHEDULABLE for taint in taints):
        taints.append(Taint(UNSCHEDULABLE, "", "NoSchedule"))
    return tuple(taints)


def constraints_of(spec: Json) -> NodeConstraints:
    """Return where a pod of this spec may run."""
    affinity = _node_affinity(spec)
    decisive = (spec.get("nodeSelector"), affinity.get(_REQUIRED), spec.get("tolerations"))
    return _constraints(msgspec.json.encode(decisive))


def preferences_of(spec: Json) -> tuple[tuple[int, NodeSelectorTerm], ...]:
    """Return the preferred node affinity: weights and terms."""
    preferred = _node_affinity(spec).get(_PREFERRED) or ()
    return tuple((item["weight"], _term(item["preference"])) for item in preferred)


def requests_of(spec: Json) -> Resources:
    """Return what the scheduler counts for a pod.

    max(Σ containers + Σ sidecars, max over init containers i of (init i + sidecars before i)) + overhead.
    """
    return _requests(
        msgspec.json.encode((_asked(spec, "containers"), _asked(spec, "initContainers"), spec.get("overhead")))
    )


def _asked(spec: Json, field: str) -> list[tuple[Any, Any]]:
    return [((c.get("resources") or {}).get("requests"), c.get("restartPolicy")) for c in spec.get(field) or ()]


@functools.lru_cache(maxsize=4096)
def _requests(encoded: bytes) -> Resources:
    containers, starters, overhead = msgspec.json.decode(encoded)
    running, sidecars, peak = Resources(), Resources(), Resources()
    for requests, _ in containers:
        running += amounts(requests)
    for requests, restart in starters:
        if restart == "Always":
            sidecars += amounts(requests)
            peak = _maximum(peak, sidecars)
        else:
            peak = _maximum(peak, sidecars + amounts(requests))
    return _maximum(running + sidecars, peak) + amounts(overhead) + Resources(pods=1)


def _maximum(one: Resources, other: Resources) -> Resources:
    left, right = one.amounts(), other.amounts()
    return Resources.from_amounts({name: max(left.get(name, 0), right.get(name, 0)) for name in left | right})


@functools.lru_cache(maxsize=4096)
def _constraints(encoded: bytes) -> NodeConstraints:
    selector, required, tolerations = msgspec.json.decode(encoded)
    terms = None if required is None else tuple(_term(term) for term in required["nodeSelectorTerms"])
    return NodeConstraints(
        tuple(sorted((selector or {}).items())),
        terms,
        tuple(
            Toleration(t.get("key") or "", t.get("operator") or "Equal", t.get("value") or "", t.get("effect") or "")
            for t in tolerations or ()
        ),
    )


def _term(term: Mapping[str, Any]) -> NodeSelectorTerm:
    return NodeSelectorTerm(
        tuple(_requirement(item) for item in term.get("matchExpressions") or ()),
        tuple(_requirement(item) for item in term.get("matchFields") or ()),
    )


def _requirement(item: Mapping[str, Any]) -> Requirement:
    return Requirement(item["key"], item["operator"], tuple(item.get("values") or ()))


def _node_affinity(spec: Json) -> Json:
    affinity: Json = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    return affinity
