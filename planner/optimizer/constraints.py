"""The constraints, one function each; docs/model.md has a row for each.

x_gn is the number of pods of group g on node n, z_k the number of nodes of class k in the plan, p a content of one
node (a column of the master program), z_p how many nodes have it. Capacity and admission hold inside every content;
the others are rows of the master, written as sum >= rhs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from planner.model.machines import WHOLE_SHARE_PERMILLE, Catalogue, TotalLimits
from planner.model.resources import Resources

IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float64]
ClassRole = Literal["offering", "removable", "kept"]
_MIB = 1024**2
_NODES, _CPU, _MEMORY = range(3)
_FIRST_OF_PAIRS = 0x5555_5555_5555_5555
_EXACT = 2.0**53


@dataclass(frozen=True, slots=True)
class Place:
    """What the rows need to know of a class: where its nodes are, how many it may have, what each can allocate.

    `kind` is the machine type and the capacity type; frozen nodes are places too, but no classes. Those of pools that
    Kinema was not given are not `managed`.
    """

    pool: str
    zone: str
    kind: tuple[str, str]
    role: ClassRole | Literal["frozen"]
    limit: int
    nodes: tuple[str, ...]
    allocatable: Resources
    managed: bool = True

    @property
    def amounts(self) -> tuple[int, int, int]:
        """What one node counts in the limits on the total: itself, its millicores, its memory in MiB, rounded up."""
        return 1, self.allocatable.cpu_millicores, -(-self.allocatable.memory_bytes // _MIB)

    def spot_weight(self, most_permille: int) -> int:
        """What one node adds to (ceiling x CPU) - (CPU of spot nodes), in thousandths of a millicore."""
        return self.allocatable.cpu_millicores * (
            most_permille - (WHOLE_SHARE_PERMILLE if self.kind[1] == "spot" else 0)
        )


@dataclass(frozen=True, slots=True)
class Row:
    """Sum over classes of coefficient x nodes >= rhs.

    `scopes` names what the row is about; a row over interchangeable kept nodes has the name of each. `name` is how
    the user knows the limit.
    """

    kind: str
    scopes: tuple[str, ...]
    rhs: int
    coefficients: IntArray
    name: str = ""


def spot_nodes(barred: npt.NDArray[np.bool_], held: IntArray) -> npt.NDArray[np.bool_]:
    """x_gn <= h_gn on every spot node n, for every group g whose pods may not come to one; shapes (groups).

    Here: not at all where h_gn is 0; else `Problem.room` holds h_gn places for pods of g.
    """
    allowed: npt.NDArray[np.bool_] = ~barred | (held > 0)
    return allowed


def within_capacity(requests: IntArray, room: IntArray, contents: IntArray) -> npt.NDArray[np.bool_]:
    """Sum_g requests_gr x_gn <= room_nr for every resource r that the content requests; (contents,).

    Shapes: requests (groups, resources), room and the answer one row for each content, contents (n, groups).
    """
    return within_room(use_of(requests, contents), room)


def use_of(requests: IntArray, contents: IntArray) -> IntArray:
    """Sum_g requests_gr x_gn for every resource r, (contents, resources); arrays as in `within_capacity`.

    Sums below 2^53 are exact in float64 as well, and its product of matrices is ten times as fast.
    """
    asked = requests.astype(np.float64)
    if np.abs(contents).max(initial=0) * np.abs(asked).sum(axis=0).max(initial=0.0) >= _EXACT:
        return contents @ requests
    use: IntArray = (contents.astype(np.float64) @ asked).astype(np.int64)
    return use


def within_room(used: IntArray, room: IntArray) -> npt.NDArray[np.bool_]:
    """Say of which contents what they use of each resource is there, or nothing; arrays as in `within_capacity`."""
    holds: npt.NDArray[np.bool_] = ((used <= room) | (used == 0)).all(axis=1)
    return holds


def opposed(sides: IntArray) -> npt.NDArray[np.bool_]:
    """Say of each number of bits, two for each rule, whether it has both bits of one; same shape."""
    both: npt.NDArray[np.bool_] = (sides & (sides >> 1) & _FIRST_OF_PAIRS) != 0
    return both


def one_side_of_each(sides: IntArray, contents: IntArray) -> npt.NDArray[np.bool_]:
    """Min(sum of x_gn over one side, sum over the other) = 0 for every rule with two sides; (contents,).

    Required anti-affinity whose bearers it does not match: a node has bearers or targets. Shapes: sides (groups),
    contents (n, groups).
    """
    present = np.bitwise_or.reduce(np.where(contents > 0, sides[None, :], 0), axis=1)
    return ~opposed(present)


def every_pod_has_a_place(contents: IntArray) -> IntArray:
    """Sum_p x_gp z_p + unplaced_g >= count_g for every group g; coefficients (groups, columns)."""
    return contents.T


def no_more_nodes_than_exist(classes: IntArray, limited: IntArray) -> IntArray:
    """-Sum_{p of class k} z_p >= -limit_k for existing nodes; coefficients (limited classes, columns)."""
    less: IntArray = -(limited[:, None] == classes[None, :]).astype(np.int8)
    return less


def kept_nodes(places: Sequence[Place]) -> list[Row]:
    """z_k >= the number of nodes in k, for each class of nodes that may not be removed."""
    return [
        Row("kept", place.nodes, place.limit, _unit(len(places), [k]))
        for k, place in enumerate(places)
        if place.role == "kept"
    ]


def pool_minimum(places: Sequence[Place], pool: str, zone: str, least: int) -> Row:
    """Sum_{k in pool and zone} z_k >= minimum - frozen nodes of it (`least`).

    Where the minimum is above the maximum and what must stay, the greater of the two takes its place.
    """
    return Row("pool-minimum", (f"{pool}/{zone}",), least, _members(places, pool, zone))


def pool_maximum(places: Sequence[Place], pool: str, zone: str, most: int) -> Row:
    """-Sum_{k in pool and zone} z_k >= -(maximum - frozen nodes of it) (`most`).

    A maximum restricts growth: where the pool has more nodes in the zone now, their number takes its place.
    """
    scope = f"{pool}/{zone}"
    return Row("pool-maximum", (scope,), -most, -_members(places, pool, zone), f"pool maximum {scope}")


def total_maximum(standing: Standing, limits: TotalLimits) -> list[Row]:
    """-Sum_k a_k z_k >= -(limit - what frozen nodes take), for a the node itself, its CPU, its memory.

    a_k is what a node of k can allocate; memory counts in MiB, each node's rounded up. A limit restricts growth: where
    the nodes that exist and those that pools still need for their minimums are more, that takes its place. Nodes of
    pools that Kinema was not given do not count.
    """
    memory = limits.memory_bytes
    asked = (
        ("nodes", _NODES, limits.nodes, f"limits.nodes {limits.nodes}"),
        ("cpu_millicores", _CPU, limits.cpu_millicores, f"limits.cpu {(limits.cpu_millicores or 0) / 1000:g}"),
        ("memory_mebibytes", _MEMORY, None if memory is None else memory // _MIB, f"limits.memory {_memory(memory)}"),
    )
    found = []
    for scope, which, limit, name in asked:
        if limit is None:
            continue
        most = max(limit, sum(place.limit * place.amounts[which] for place in standing.least))
        frozen = sum(place.limit * place.amounts[which] for place in standing.frozen)
        taken = np.array([place.amounts[which] for place in standing.places], dtype=np.int64)
        found.append(Row("total-maximum", (scope,), frozen - most, -taken, name))
    return found


def spot_share(standing: Standing, most_permille: int) -> Row:
    """Sum_{on-demand k} s cpu_k z_k - Sum_{spot k} (1000 - s) cpu_k z_k >= -(the same of frozen nodes).

    s is the largest share of spot in the CPU of all managed nodes, in thousandths. It restricts growth: where the
    present state exceeds it (with what pools still need for their minimums), that excess takes the place of 0.
    """
    excess = min(0, sum(place.limit * place.spot_weight(most_permille) for place in standing.least))
    frozen = sum(place.limit * place.spot_weight(most_permille) for place in standing.frozen)
    weights = np.array([place.spot_weight(most_permille) for place in standing.places], dtype=np.int64)
    return Row("spot-share", ("cpu_millicores",), excess - frozen, weights, f"spot.max_share {most_permille / 1000:g}")


def nodes_changed(standing: Standing, most: int) -> Row:
    """Sum_{removable k} z_k - Sum_{offering k} z_k >= removable nodes - ceiling on nodes booted and removed.

    Where pools need more fresh nodes than that for their minimums, their number takes the place of the ceiling.
    """
    places = standing.places
    signs = [{"removable": 1, "offering": -1}.get(place.role, 0) for place in places]
    removable = sum(place.limit for place in places if place.role == "removable")
    ceiling = max(most, standing.booted)
    return Row(
        "nodes-changed", ("nodes",), removable - ceiling, np.array(signs, dtype=np.int64),
        f"move.max_nodes_changed {most}",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Standing:
    """The present state as the limits see it: the classes, the frozen nodes of managed pools, and the least change.

    `least` is the present state with the fresh nodes that pools need for their minimums, each place with its number of
    nodes as `limit`; `booted` is how many those fresh ones are. That state is always a plan: every limit on growth
    makes way for it.
    """

    places: Sequence[Place]
    frozen: Sequence[Place]
    least: Sequence[Place]
    booted: int


def rows(
    places: Sequence[Place], frozen: Sequence[Place], catalogue: Catalogue, max_nodes_changed: int | None
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Return every row that can bind, and the names of the limits that cannot be met in full.

    `frozen` are the frozen nodes, which are no classes.
    """
    found = kept_nodes(places)
    dropped = []
    limits = catalogue.limits()
    still = _sizes(frozen)
    staying = still + _sizes([place for place in places if place.role == "kept"])
    present = still + _sizes([place for place in places if place.role != "offering"])
    missing: Counter[tuple[str, str]] = Counter()
    for (pool, zone), (minimum, maximum) in sorted(limits.items()):
        at = (pool, zone)
        least = minimum
        if maximum is not None:
            found.append(pool_maximum(places, pool, zone, max(maximum, present[at]) - still[at]))
            if least > (most := max(maximum, staying[at])):
                dropped.append(f"pool-minimum {pool}/{zone}: {minimum} nodes, but at most {most} may be had")
                least = most
        if least > still[at]:
            found.append(pool_minimum(places, pool, zone, least - still[at]))
        missing[at] = max(0, least - present[at])
    standing = _standing(places, frozen, missing)
    found += total_maximum(standing, catalogue.total)
    if catalogue.spot.max_share_permille < WHOLE_SHARE_PERMILLE:
        found.append(spot_share(standing, catalogue.spot.max_share_permille))
    if max_nodes_changed is not None:
        found.append(nodes_changed(standing, max_nodes_changed))
    return tuple(_reduced(row) for row in found if row.coefficients.any()), tuple(dropped)


def _standing(places: Sequence[Place], frozen: Sequence[Place], missing: Mapping[tuple[str, str], int]) -> Standing:
    frozen = [place for place in frozen if place.managed]
    least = [place for place in places if place.role != "offering"] + frozen
    for at, count in sorted(missing.items()):
        if count:
            kinds = [place for place in places if place.role == "offering" and (place.pool, place.zone) == at]
            least.append(replace(min(kinds, key=lambda place: place.kind), limit=count))
    return Standing(places, frozen, least, sum(missing.values()))


def _reduced(row: Row) -> Row:
    """Divide the row by the greatest common divisor of its coefficients, the right-hand side rounded up.

    Every sum is a multiple of the divisor, so the row allows the same; its dual, a whole number, is finer.
    """
    divisor = math.gcd(*row.coefficients.tolist())
    return replace(row, rhs=-(-row.rhs // divisor), coefficients=row.coefficients // divisor)


def _sizes(places: Sequence[Place]) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for place in places:
        found[place.pool, place.zone] += place.limit
    return found


def _memory(amount: int | None) -> str:
    for unit, size in (("Gi", 1024**3), ("Mi", _MIB)):
        if amount and amount % size == 0:
            return f"{amount // size}{unit}"
    return str(amount)


def _members(places: Sequence[Place], pool: str, zone: str) -> IntArray:
    return _unit(len(places), [k for k, p in enumerate(places) if (p.pool, p.zone) == (pool, zone)])


def _unit(length: int, ones: Sequence[int]) -> IntArray:
    vector = np.zeros(length, dtype=np.int64)
    vector[list(ones)] = 1
    return vector
