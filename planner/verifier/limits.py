"""The limits that tie nodes together, derived from the inputs: each a sum over kinds of nodes >= a right-hand side.

A node that stays counts as one of its own kind ("node NAME"), a booted one as one of its offering's; frozen nodes are
in the right-hand sides. A limit on growth makes way for the present state with the fresh nodes that pools still need
for their minimums, so that this is always a plan.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from planner.model.cluster import Node
from planner.model.machines import WHOLE_SHARE_PERMILLE, Offering
from planner.model.plan import Plan, PlannedNode
from planner.verifier.facts import Facts, offering_key

_MIB = 1024**2

Weight = Callable[[Node | Offering], int]
"""What one node of a kind, or one existing node, adds to a sum."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Sum of the coefficients (by what names a kind of node) >= rhs; `says` is the limit in words."""

    kind: str
    scope: str
    rhs: int
    coefficients: Mapping[str, int]
    says: str


@dataclass(frozen=True, slots=True)
class Tally:
    """The limits, and what the nodes of a plan add up to in each, by kind and scope."""

    limits: Mapping[tuple[str, str], Limit]
    sums: Mapping[tuple[str, str], int]

    def allows(self, label: str) -> bool:
        """Say whether one more node of this kind is within every limit."""
        added = ((key, limit.coefficients.get(label, 0)) for key, limit in self.limits.items())
        return all(more >= 0 or self.sums[key] + more >= self.limits[key].rhs for key, more in added)


def tally_of(plan: Plan, facts: Facts) -> Tally:
    """Add up the plan's nodes in every limit."""
    kinds = Counter(_label_of(node) for node in plan.nodes if node.state != "remove")
    limits = limits_of(facts)
    return Tally(
        limits,
        {key: sum(a * kinds[label] for label, a in limit.coefficients.items()) for key, limit in limits.items()},
    )


def node_label(name: str) -> str:
    """Return what names an existing node among kinds of nodes."""
    return f"node {name}"


def offering_label(kind: Offering | PlannedNode) -> str:
    """Return what names an offering among kinds of nodes."""
    return "/".join(offering_key(kind))


def _label_of(node: PlannedNode) -> str:
    return offering_label(node) if node.state == "boot" else node_label(node.name)


def limits_of(facts: Facts) -> dict[tuple[str, str], Limit]:
    """Return every limit of the inputs, by its kind and scope."""
    found = [*_kept(facts), *_pools(facts), *_totals(facts), *_spot(facts), *_changes(facts)]
    return {(limit.kind, limit.scope): _reduced(limit) for limit in found if any(limit.coefficients.values())}


def _reduced(limit: Limit) -> Limit:
    """Divide by the greatest common divisor of the coefficients: what is allowed stays the same."""
    divisor = math.gcd(*limit.coefficients.values())
    coefficients = {label: a // divisor for label, a in limit.coefficients.items()}
    return Limit(limit.kind, limit.scope, -(-limit.rhs // divisor), coefficients, limit.says)


def _kept(facts: Facts) -> Iterator[Limit]:
    for name in facts.nodes:
        if facts.role(name) == "kept":
            yield Limit("kept", name, 1, {node_label(name): 1}, f"node {name} must stay")


def _pools(facts: Facts) -> Iterator[Limit]:
    for (pool, zone), (_, maximum) in facts.inputs.catalogue.limits().items():
        frozen = sum(facts.role(name) == "frozen" for name in facts.existing(pool, zone))
        members = {node_label(name): 1 for name in facts.existing(pool, zone) if facts.role(name) != "frozen"}
        members |= {offering_label(o): 1 for o, _ in facts.offers.values() if (o.pool, o.zone) == (pool, zone)}
        scope = f"{pool}/{zone}"
        least = facts.least(pool, zone)
        yield Limit("pool-minimum", scope, least - frozen, members, f"the minimum of {least} nodes of {scope}")
        if maximum is not None:
            most = facts.most(pool, zone, maximum)
            fewer = dict.fromkeys(members, -1)
            yield Limit("pool-maximum", scope, frozen - most, fewer, f"the maximum of {most} nodes of {scope}")


def _totals(facts: Facts) -> Iterator[Limit]:
    """-Σ a z >= -(limit - what frozen nodes take), for a = 1, millicores, and MiB of memory rounded up."""
    total = facts.inputs.catalogue.total
    memory_mib = None if total.memory_bytes is None else total.memory_bytes // _MIB
    asked: tuple[tuple[str, int | None, Weight], ...] = (
        ("nodes", total.nodes, lambda _: 1),
        ("cpu_millicores", total.cpu_millicores, lambda kind: kind.allocatable.cpu_millicores),
        ("memory_mebibytes", memory_mib, lambda kind: -(-kind.allocatable.memory_bytes // _MIB)),
    )
    for scope, limit, weight in asked:
        if limit is None:
            continue
        most = max(limit, _least_change(facts, weight))
        coefficients = {label: -a for label, a in _weights(facts, weight).items()}
        yield Limit("total-maximum", scope, _frozen(facts, weight) - most, coefficients, f"the limit of {most} {scope}")


def _spot(facts: Facts) -> Iterator[Limit]:
    """Σ on-demand s·cpu - Σ spot (1000 - s)·cpu >= 0, or the present excess."""
    permille = facts.inputs.catalogue.spot.max_share_permille
    if permille >= WHOLE_SHARE_PERMILLE:
        return

    def weight(kind: Node | Offering) -> int:
        cpu = kind.allocatable.cpu_millicores
        return (permille - WHOLE_SHARE_PERMILLE) * cpu if kind.capacity_type == "spot" else permille * cpu

    rhs = min(0, _least_change(facts, weight)) - _frozen(facts, weight)
    says = f"the ceiling of {permille} thousandths on the share of spot"
    yield Limit("spot-share", "cpu_millicores", rhs, _weights(facts, weight), says)


def _changes(facts: Facts) -> Iterator[Limit]:
    """Σ removable that stay - Σ booted >= removable - ceiling."""
    ceiling = facts.inputs.rules.max_nodes_changed
    if ceiling is None:
        return
    most = max(ceiling, sum(count for _, count in _missing(facts)))
    removable = [name for name in facts.nodes if facts.role(name) == "removable"]
    coefficients = {node_label(name): 1 for name in removable}
    coefficients |= {offering_label(offering): -1 for offering, _ in facts.offers.values()}
    yield Limit("nodes-changed", "nodes", len(removable) - most, coefficients, f"the ceiling of {most} nodes changed")


def _weights(facts: Facts, weight: Weight) -> dict[str, int]:
    found = {node_label(name): weight(node) for name, node in facts.nodes.items() if facts.role(name) != "frozen"}
    return found | {offering_label(offering): weight(offering) for offering, _ in facts.offers.values()}


def _frozen(facts: Facts, weight: Weight) -> int:
    """Add up the frozen nodes of managed pools."""
    catalogue = facts.inputs.catalogue
    return sum(weight(n) for n in facts.nodes.values() if facts.role(n.name) == "frozen" and catalogue.manages(n))


def _least_change(facts: Facts, weight: Weight) -> int:
    """Add up the present state with the fresh nodes that pools need for their minimums."""
    present = sum(weight(node) for node in facts.nodes.values() if facts.role(node.name) != "frozen")
    return present + _frozen(facts, weight) + sum(count * weight(offering) for offering, count in _missing(facts))


def _missing(facts: Facts) -> Iterator[tuple[Offering, int]]:
    """Yield what pools below their minimum need: the first of their offerings by machine type and capacity type."""
    for pool, zone in facts.inputs.catalogue.limits():
        count = facts.least(pool, zone) - len(facts.existing(pool, zone))
        if count > 0:
            kinds = [o for o, _ in facts.offers.values() if (o.pool, o.zone) == (pool, zone)]
            yield min(kinds, key=lambda o: (o.machine_type, o.capacity_type)), count
