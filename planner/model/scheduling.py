"""What decides where a pod may run, as kube-scheduler reads it: selectors, node affinity, taints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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

    def tolerate(self, taints: tuple[Taint, ...]) -> bool:
        """Say whether every NoSchedule and NoExecute taint is tolerated."""
        return all(
            any(toleration.tolerates(taint) for toleration in self.tolerations)
            for taint in taints
            if taint.effect in ("NoSchedule", "NoExecute")
        )
