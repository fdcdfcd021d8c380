"""The constraints, one function each; docs/model.md has a row for each.

x_gn is the number of pods of group g on node n, z_k the number of nodes of class k in the plan, p a content of one
node (a column of the master program), z_p how many nodes have it. Capacity and admission hold inside every content;
the others are rows of the master, written as sum >= rhs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from planner.model.resources import Resources
from planner.model.scheduling import NodeConstraints, Taint

IntArray: TypeAlias = npt.NDArray[np.int64]
_FIRST_OF_PAIRS = 0x5555_5555_5555_5555


@dataclass(frozen=True, slots=True)
class Place:
    """What the rows need to know of a class: its pool and zone, how many nodes it may have, whether they are kept."""

    pool: str
    zone: str
    limit: int
    kept: bool
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Sum over classes of coefficient x nodes >= rhs.

    `scopes` names what the row is about; a row over interchangeable kept nodes has the name of each.
    """

    kind: str
    scopes: tuple[str, ...]
    rhs: int
    coefficients: IntArray


def admission(
    groups: Sequence[tuple[Resources, NodeConstraints]],
    room: Resources,
    labels: Mapping[str, str],
    name: str,
    taints: tuple[Taint, ...],
) -> npt.NDArray[np.bool_]:
    """x_gn = 0 unless nodeSelector, required affinity and tolerations admit the node and one pod fits its room."""
    return np.array(
        [requests.fits_in(room) and rules.admit(labels, name, taints) for requests, rules in groups], dtype=np.bool_
    )


def within_capacity(requests: IntArray, room: IntArray, contents: IntArray) -> npt.NDArray[np.bool_]:
    """Sum_g requests_gr x_gn <= room_nr for every resource r that the content requests; (contents,).

    Shapes: requests (groups, resources), room and the answer one row for each content, contents (n, groups).
    """
    used = contents @ requests
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
    same: IntArray = (limited[:, None] == classes[None, :]).astype(np.int64)
    return -same


def kept_nodes(places: Sequence[Place]) -> list[Row]:
    """z_k >= the number of nodes in k, for each class of nodes that may not be removed."""
    return [
        Row("kept", place.nodes, place.limit, _unit(len(places), [k])) for k, place in enumerate(places) if place.kept
    ]


def pool_minimum(places: Sequence[Place], pool: str, zone: str, least: int) -> Row:
    """Sum_{k in pool and zone} z_k >= minimum - frozen nodes of it (`least`).

    Where the minimum is above what the maximum allows, that takes its place.
    """
    return Row("pool-minimum", (f"{pool}/{zone}",), least, _members(places, pool, zone))


def pool_maximum(places: Sequence[Place], pool: str, zone: str, most: int) -> Row:
    """-Sum_{k in pool and zone} z_k >= -(maximum - frozen nodes of it) (`most`).

    Where more nodes may not be removed than the maximum allows, their number takes its place.
    """
    return Row("pool-maximum", (f"{pool}/{zone}",), -most, -_members(places, pool, zone))


def rows(
    places: Sequence[Place],
    limits: Mapping[tuple[str, str], tuple[int, int | None]],
    frozen: Mapping[tuple[str, str], int],
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Return every row that can bind, and the names of the limits that cannot be met in full."""
    found = kept_nodes(places)
    dropped = []
    for (pool, zone), (minimum, maximum) in sorted(limits.items()):
        members = _members(places, pool, zone)
        kept = int(sum(place.limit for place, m in zip(places, members, strict=True) if m and place.kept))
        still = frozen.get((pool, zone), 0)
        least = minimum - still
        if maximum is not None:
            most = max(maximum - still, kept)
            found.append(pool_maximum(places, pool, zone, most))
            if least > most:
                dropped.append(f"pool-minimum {pool}/{zone}: {minimum} nodes, but at most {most + still} may be had")
                least = most
        if least > 0:
            found.append(pool_minimum(places, pool, zone, least))
    return tuple(found), tuple(dropped)


def _members(places: Sequence[Place], pool: str, zone: str) -> IntArray:
    return _unit(len(places), [k for k, p in enumerate(places) if (p.pool, p.zone) == (pool, zone)])


def _unit(length: int, ones: Sequence[int]) -> IntArray:
    vector = np.zeros(length, dtype=np.int64)
    vector[list(ones)] = 1
    return vector
