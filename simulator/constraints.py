"""Which nodes a pod of raw JSON may run on, and how much it takes, as kube-scheduler reads it."""

from __future__ import annotations

import functools
from typing import Final

import msgspec

from planner.kube import specs
from planner.kube.objects import NodeTerms, PodSpec
from planner.model.resources import Resources
from planner.model.scheduling import NodeConstraints, NodeSelectorTerm, PodRules, Taint
from simulator.store import Json

UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"

_RULING: Final = ("affinity", "hostNetwork", "initContainers", "topologySpreadConstraints")
"""The fields of a spec, besides its containers, that hold what it demands of other pods."""


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
    return _understood(msgspec.json.encode(spec))[0]


def requests_of(spec: Json) -> Resources:
    """Return what the scheduler counts for a pod of this spec."""
    return _understood(msgspec.json.encode(spec))[1]


def rules_of(pod: Json) -> PodRules:
    """Return what a pod demands of the pods around it."""
    spec, labels = pod["spec"], pod["metadata"].get("labels") or {}
    asked = {key: spec[key] for key in _RULING if key in spec} | {"containers": spec["containers"]}
    return _rules(msgspec.json.encode(asked), pod["metadata"]["namespace"], frozenset(labels.items()))


def node_terms_of(selector: Json) -> tuple[NodeSelectorTerm, ...]:
    """Return the terms of a node selector, one of which must hold."""
    return specs.terms(msgspec.convert(selector, NodeTerms))


def preferences_of(spec: Json) -> tuple[tuple[int, NodeSelectorTerm], ...]:
    """Return the preferred node affinity: weights and terms."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    found = []
    for item in preferred:
        required = {"nodeSelectorTerms": [item["preference"]]}
        as_required = {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}
        terms = constraints_of({"containers": [], **as_required}).required_terms or ()
        found += [(int(item["weight"]), term) for term in terms]
    return tuple(found)


def allocatable_of(node: Json) -> Resources:
    """Return what a node can allocate."""
    return _allocatable(msgspec.json.encode(node["status"].get("allocatable") or {}))


@functools.lru_cache(maxsize=4096)
def _understood(encoded: bytes) -> tuple[NodeConstraints, Resources]:
    spec = msgspec.json.decode(encoded, type=PodSpec)
    return specs.constraints(spec), specs.pod_requests(spec, "spec")


@functools.lru_cache(maxsize=4096)
def _rules(encoded: bytes, namespace: str, labels: frozenset[tuple[str, str]]) -> PodRules:
    return specs.rules(msgspec.json.decode(encoded, type=PodSpec), namespace, dict(labels))


@functools.lru_cache(maxsize=4096)
def _allocatable(encoded: bytes) -> Resources:
    counted = specs.amounts(msgspec.json.decode(encoded), "status.allocatable")
    return specs.resources(counted, counted.get("pods", 0))
