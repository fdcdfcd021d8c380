"""What decides where a pod may run, as kube-scheduler reads it: selectors, node affinity, taints."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One expression of a node affinity term or a label selector.

    Source: k8s.io/component-helpers nodeaffinity and k8s.io/apimachinery labels.Requirement.
    """

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether the labels satisfy the expression; NotIn and DoesNotExist hold where the key is absent."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "Gt" | "Lt":
                try:
                    have, bound = int(value or ""), int(self.values[0])
                except (ValueError, IndexError):
                    return False
                return have > bound if self.operator == "Gt" else have < bound


@dataclass(frozen=True, slots=True)
class NodeSelectorTerm:
    """Expressions over node labels and fields, all of which must hold; an empty term matches no node."""

    expressions: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str], name: str) -> bool:
        """Say whether a node of these labels and this name satisfies the term."""
        if not self.expressions and not self.fields:
            return False
        named = {"metadata.name": name}
        return all(e.matches(labels) for e in self.expressions) and all(f.matches(named) for f in self.fields)


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A selector over object labels: every requirement must hold; without any it matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether the labels satisfy every requirement."""
        return all(r.matches(labels) for r in self.requirements)


@dataclass(frozen=True, slots=True)
class PodTerm:
    """One required term of a pod's affinity or anti-affinity to other pods: within one domain of the topology key.

    `namespaces` is None for all of them. A selector of None matches no pod.
    """

    topology_key: str
    namespaces: frozenset[str] | None
    selector: LabelSelector | None

    def matches(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Say whether the term is about a pod of this namespace and these labels."""
        if self.selector is None or (self.namespaces is not None and namespace not in self.namespaces):
            return False
        return self.selector.matches(labels)


@dataclass(frozen=True, slots=True)
class Spread:
    """A hard topology spread constraint: in each domain at most `max_skew` more matching pods than in the emptiest.

    With fewer than `min_domains` domains the emptiest counts as empty. Domains are those of the nodes that the pod's
    selector and node affinity admit (where `honors_affinity`) and whose taints it tolerates (where `honors_taints`).
    Only pods of the pod's own namespace count. `own` are the pod's own constraints where its volumes add to them: to
    which nodes a volume is bound is nothing to a spread. `beside` are the topology keys of the pod's other hard spreads
    (the host name left out, which every node has): a node that lacks one of them counts for none.
    """

    topology_key: str
    max_skew: int
    selector: LabelSelector
    min_domains: int = 1
    honors_affinity: bool = True
    honors_taints: bool = False
    own: NodeConstraints | None = None
    beside: tuple[str, ...] = ()

    def regards(
        self, constraints: NodeConstraints, labels: Mapping[str, str], name: str, taints: tuple[Taint, ...]
    ) -> bool:
        """Say whether a node counts for a pod of these constraints.

        Source: kube-scheduler's plugin PodTopologySpread, calPreFilterState.
        """
        if any(key not in labels for key in self.beside):
            return False
        selecting = self.own if self.own is not None else constraints
        if self.honors_affinity and not selecting.select(labels, name):
            return False
        return not self.honors_taints or constraints.tolerate(taints)

    def view(self, constraints: NodeConstraints) -> Hashable:
        """Return what decides which nodes count for a pod of these constraints, and for which domain each."""
        selecting = self.own if self.own is not None else constraints
        selected = (selecting.node_selector, selecting.required_terms) if self.honors_affinity else None
        return self.topology_key, self.beside, selected, constraints.tolerations if self.honors_taints else None


@dataclass(frozen=True, slots=True)
class PodRules:
    """What a pod demands of the pods around it; hashable, so that equal ones are one value.

    `affinity` asks in each term's domain for a pod that matches every term (`seeks`); while there is none anywhere, a
    pod that is such a one itself may go anywhere. Source: kube-scheduler's plugin InterPodAffinity, satisfyPodAffinity.
    `host_ports` holds (protocol, port). `holds_volume` says that a volume of the pod can be attached to one node only,
    so that no second pod can start before it is gone.
    """

    affinity: tuple[PodTerm, ...] = ()
    anti_affinity: tuple[PodTerm, ...] = ()
    spreads: tuple[Spread, ...] = ()
    host_ports: tuple[tuple[str, int], ...] = ()
    holds_volume: bool = False

    def seeks(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Say whether a pod of this namespace and these labels is one that the affinity asks for."""
        return bool(self.affinity) and all(term.matches(namespace, labels) for term in self.affinity)


@dataclass(frozen=True, slots=True)
class Taint:
    """A node's taint; `effect` is NoSchedule, PreferNoSchedule or NoExecute."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Toleration:
    """A pod's toleration; an empty key with operator Exists tolerates every taint, an empty effect every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """Say whether the toleration matches the taint. Source: k8s.io/api core/v1 toleration.go."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        return self.operator == "Exists" or (bool(self.key) and self.value == taint.value)

    def __and__(self, other: Toleration) -> Toleration | None:
        """Return what tolerates a taint that both tolerate, and no other; None where no taint is one."""
        equal = [t for t in (self, other) if t.operator != "Exists"]
        if any(not t.key for t in equal) or len({t.value for t in equal}) > 1:
            return None
        if len({t.key for t in (self, other) if t.key}) > 1 or len({t.effect for t in (self, other) if t.effect}) > 1:
            return None
        narrower = equal[0] if equal else Toleration(operator="Exists")
        return replace(narrower, key=self.key or other.key, effect=self.effect or other.effect)


@dataclass(frozen=True, slots=True)
class NodeConstraints:
    """Which nodes a pod may run on: nodeSelector, required node affinity (terms are OR) and tolerations.

    Hashable, so that identical pods can be grouped; `node_selector` is sorted by key.
    """

    node_selector: tuple[tuple[str, str], ...] = ()
    required_terms: tuple[NodeSelectorTerm, ...] | None = None
    tolerations: tuple[Toleration, ...] = ()

    def admit(self, labels: Mapping[str, str], name: str, taints: tuple[Taint, ...]) -> bool:
        """Say whether a pod may be scheduled to a node of these labels, this name and these taints."""
        return self.select(labels, name) and self.tolerate(taints)

    def select(self, labels: Mapping[str, str], name: str) -> bool:
        """Say whether nodeSelector and required node affinity hold; `required_terms` () matches no node."""
        if any(labels.get(key) != value for key, value in self.node_selector):
            return False
        return self.required_terms is None or any(t.matches(labels, name) for t in self.required_terms)

    def within(self, required: Sequence[tuple[NodeSelectorTerm, ...]]) -> NodeConstraints:
        """Return the constraints under which a term of each of these also holds."""
        if not required:
            return self
        terms = self.required_terms if self.required_terms is not None else (NodeSelectorTerm(),)
        for more in required:
            terms = tuple(
                NodeSelectorTerm(a.expressions + b.expressions, a.fields + b.fields) for a in terms for b in more
            )
        return NodeConstraints(self.node_selector, terms, self.tolerations)

    def __and__(self, other: NodeConstraints) -> NodeConstraints:
        """Return the constraints that admit where both do."""
        if other == self:
            return self
        chosen = tuple(sorted({*self.node_selector, *other.node_selector}))
        both = {a & b for a in self.tolerations for b in other.tolerations}
        tolerations = tuple(sorted((t for t in both if t is not None), key=repr))
        joint = NodeConstraints(chosen, self.required_terms, tolerations)
        return joint if other.required_terms is None else joint.within([other.required_terms])

    def tolerate(self, taints: tuple[Taint, ...]) -> bool:
        """Say whether every NoSchedule and NoExecute taint is tolerated."""
        return all(
            any(toleration.tolerates(taint) for toleration in self.tolerations)
            for taint in taints
            if taint.effect in ("NoSchedule", "NoExecute")
        )
