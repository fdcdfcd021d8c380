"""What pods ask for, read once for all pods of which the specs say the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from planner.kube import specs
from planner.kube.objects import Meta, PodSpec, PodStatus
from planner.model.preferences import Company, Wishes
from planner.model.resources import Resources
from planner.model.scheduling import NodeConstraints, NodeSelectorTerm, PodRules

_T = TypeVar("_T")
_OWN = frozenset(("node_name", "volumes"))
"""Fields that tell the pods of one template apart; nothing here is read from them."""

_COMPARED = tuple(name for name in PodSpec.__struct_fields__ if name not in _OWN)


@dataclass(frozen=True, slots=True)
class Asked:
    """A pod's requests, and what it demands and prefers of nodes and of the pods around it."""

    requests: Resources
    constraints: NodeConstraints
    rules: PodRules
    wishes: Wishes
    company: Company


class AskedByPods:
    """Reads what pods ask for; equal answers are one value, which makes grouping pods later a matter of identity."""

    def __init__(self) -> None:
        self._known: dict[bytes, Asked] = {}
        self._shared: dict[Any, Any] = {}

    def __call__(self, meta: Meta, spec: PodSpec, status: PodStatus | None) -> Asked:
        """Return what the pod asks for, its volumes left out.

        Raises:
            FieldError: a field is wrong.
        """
        labels = meta.labels or {}
        # Only terms and spreads read labels (matchLabelKeys).
        own = sorted(labels.items()) if spec.affinity or spec.topology_spread_constraints else ()
        resized = [
            (state.name, state.resources, state.allocated_resources)
            for state in (status.container_statuses or () if status else ())
        ]
        like = msgspec.msgpack.encode((meta.namespace, own, resized, [getattr(spec, name) for name in _COMPARED]))
        found = self._known.get(like)
        if found is None:
            found = self._known[like] = Asked(
                self._one(specs.pod_requests(spec, "spec", status)),
                self._one(specs.constraints(spec)),
                self._one(specs.rules(spec, meta.namespace, labels)),
                self._one(specs.wishes(spec, "spec")),
                self._one(specs.company(spec, meta.namespace, labels, "spec")),
            )
        return found

    def with_volumes(self, asked: Asked, required: list[tuple[NodeSelectorTerm, ...]], holds_volume: bool) -> Asked:
        """Return the same with what the pod's volumes ask: a term of each of `required`, and a node to themselves."""
        if not required and not holds_volume:
            return asked
        rules = replace(asked.rules, holds_volume=holds_volume)
        if required:
            rules = replace(rules, spreads=tuple(replace(spread, own=asked.constraints) for spread in rules.spreads))
        return replace(asked, rules=self._one(rules), constraints=self._one(asked.constraints.within(required)))

    def _one(self, value: _T) -> _T:
        shared: _T = self._shared.setdefault((type(value), value), value)
        return shared
