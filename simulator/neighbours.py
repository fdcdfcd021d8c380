"""Where the pods that stand, and its volumes, let a pod go: counted once for an attempt, then asked of every node.

As kube-scheduler's plugins NodePorts, VolumeRestrictions (of claims), VolumeBinding, VolumeZone, PodTopologySpread and
InterPodAffinity filter, except that a namespaceSelector selects every namespace and a claim must be bound already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from planner.model.scheduling import PodTerm, Spread
from planner.ports import NODES, PODS
from simulator.constraints import constraints_of, rules_of, taints_of
from simulator.status import is_deleting
from simulator.store import Json, Store
from simulator.volumes import Volumes

Domain = tuple[str, str]
"""A label that nodes have in common: key and value."""


class Neighbours:
    """What the rest of the cluster demands of one pod at one moment."""

    def __init__(self, store: Store, pod: Json) -> None:
        """Count what the pod's rules, and others' rules about it, ask for."""
        self._pod = pod
        self._rules = rules_of(pod)
        nodes = store.bodies(NODES)
        labels = {node["metadata"]["name"]: _labels(node) for node in nodes}
        standing = [p for p in store.bodies(PODS) if p["spec"].get("nodeName") in labels and _runs(p)]
        ports = set(self._rules.host_ports)
        self._port_taken = {
            p["spec"]["nodeName"] for p in standing if ports and not ports.isdisjoint(rules_of(p).host_ports)
        }
        self._volumes = Volumes.of(store, pod, standing)
        self._spreads = tuple(
            (spread, _by_domain(spread, self._rules.spreads, pod, nodes, standing)) for spread in self._rules.spreads
        )
        near = [p for p in standing if _matches_all(self._rules.affinity, p)] if self._rules.affinity else []
        self._near = _domains(((term, near) for term in self._rules.affinity), labels)
        mine = ((term, [p for p in standing if _matches(term, p)]) for term in self._rules.anti_affinity)
        self._apart = _domains(mine, labels)
        theirs = (
            (term, [p])
            for p in standing
            if (p["spec"].get("affinity") or {}).get("podAntiAffinity")
            for term in rules_of(p).anti_affinity
            if _matches(term, pod)
        )
        self._forbidden = _domains(theirs, labels)

    def refusal(self, node: Json) -> str:
        """Return why the pod may not stand on the node, in the scheduler's words; "" if it may."""
        if node["metadata"]["name"] in self._port_taken:
            return "node(s) didn't have free ports for the requested pod ports"
        labels = _labels(node)
        return self._volumes.refusal(node) or self._spread_refusal(labels) or self._affinity_refusal(labels)

    def _spread_refusal(self, labels: Mapping[str, str]) -> str:
        own = _labels(self._pod)
        for spread, counts in self._spreads:
            domain = labels.get(spread.topology_key)
            if domain is None:
                return "node(s) didn't match pod topology spread constraints (missing required label)"
            enough = len(counts) >= spread.min_domains
            fewest = min(counts.values(), default=0) if enough else 0
            if counts.get(domain, 0) + spread.selector.matches(own) - fewest > spread.max_skew:
                return "node(s) didn't match pod topology spread constraints"
        return ""

    def _affinity_refusal(self, labels: Mapping[str, str]) -> str:
        here = set(labels.items())
        terms = self._rules.affinity
        keyed = all(term.topology_key in labels for term in terms)
        # The first of a group that wants to stand together goes anywhere: nobody stands there yet whom it could join.
        first = not self._near and _matches_all(terms, self._pod)
        joined = all((term.topology_key, labels.get(term.topology_key)) in self._near for term in terms)
        if not keyed or not (joined or first):
            return "node(s) didn't match pod affinity rules"
        if not self._apart.isdisjoint(here):
            return "node(s) didn't match pod anti-affinity rules"
        if not self._forbidden.isdisjoint(here):
            return "node(s) didn't satisfy existing pods anti-affinity rules"
        return ""


def _by_domain(
    spread: Spread, spreads: Iterable[Spread], pod: Json, nodes: Iterable[Json], standing: Iterable[Json]
) -> dict[str, int]:
    """Count what a spread counts in each of its domains: on the nodes that it regards and that every spread reaches."""
    on: Counter[str] = Counter()
    # A selector without requirements selects every pod and yet counts none. Source: countPodsMatchSelector.
    if spread.selector.requirements:
        on.update(
            p["spec"]["nodeName"]
            for p in standing
            if p["metadata"]["namespace"] == pod["metadata"]["namespace"]
            and not is_deleting(p)
            and spread.selector.matches(_labels(p))
        )
    keys = [each.topology_key for each in spreads]
    constraints = constraints_of(pod["spec"])
    counts: dict[str, int] = {}
    for node in nodes:
        name, labels = node["metadata"]["name"], _labels(node)
        if not all(key in labels for key in keys):
            continue
        if spread.honors_affinity and not constraints.select(labels, name):
            continue
        if spread.honors_taints and not constraints.tolerate(taints_of(node)):
            continue
        domain = labels[spread.topology_key]
        counts[domain] = counts.get(domain, 0) + on[name]
    return counts


def _domains(
    found: Iterable[tuple[PodTerm, Iterable[Json]]], labels: Mapping[str, Mapping[str, str]]
) -> frozenset[Domain]:
    """Return the domains of the terms' keys in which their pods stand."""
    return frozenset(
        (term.topology_key, domain)
        for term, pods in found
        for pod in pods
        if (domain := labels[pod["spec"]["nodeName"]].get(term.topology_key)) is not None
    )


def _matches(term: PodTerm, pod: Json) -> bool:
    return term.matches(pod["metadata"]["namespace"], _labels(pod))


def _matches_all(terms: Iterable[PodTerm], pod: Json) -> bool:
    """Tell whether every term is about the pod: only such a pod counts for an affinity of several terms."""
    return all(_matches(term, pod) for term in terms)


def _runs(pod: Json) -> bool:
    return pod["status"].get("phase") not in ("Succeeded", "Failed")


def _labels(body: Json) -> Mapping[str, str]:
    labels: Mapping[str, str] = body["metadata"].get("labels") or {}
    return labels
