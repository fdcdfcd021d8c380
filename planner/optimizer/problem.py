"""The problem as index sets and integer arrays: groups of identical pods, classes of nodes, rows.

Everything is sorted by what it is, never by where it stood in the snapshot, so that the order of objects in a
reading cannot change a plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from planner.model.cluster import CapacityType, Node, pod_key
from planner.model.displeasure import surroundings
from planner.model.inputs import offering_room
from planner.model.machines import Catalogue, Offering
from planner.model.resources import BEARER, Resources, is_share, other_side
from planner.optimizer import constraints
from planner.optimizer.census import Census
from planner.optimizer.constraints import ClassRole, Place, Row
from planner.optimizer.movement import GroupKey, Movement
from planner.optimizer.outlook import Outlook, amounts

IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Group:
    """Identical pods, or parties: same planned requests, same constraints. `count` includes the `pending` ones."""

    id: str
    key: GroupKey
    workloads: tuple[str, ...]
    count: int
    pending: int

    @property
    def requests(self) -> Resources:
        return self.key.requests


@dataclass(frozen=True, slots=True)
class NodeClass:
    """Interchangeable nodes: what one offering boots, or existing nodes of equal room, content and price.

    `cost` is what one of them adds to the value when it is in the plan: the price, less `overlap` (what its
    removal would have cost). `nodes` names the existing ones. Nanodollars per hour.
    """

    id: str
    role: ClassRole
    pool: str
    zone: str
    machine_type: str
    capacity_type: CapacityType
    nodes: tuple[str, ...]
    offering: Offering | None
    limit: int
    cost: int
    overlap: int


@dataclass(frozen=True)
class Problem:
    """What is solved. Arrays: `requests` (groups, resources), `room` (classes, resources), `admissible`, `present` and
    `displeasure` (classes, groups), `counts`, `pending`, `sides` and `move_prices` (groups), `costs` and `limits`
    (classes).

    `sides` are bits, two for each rule by which two sides never share a node: see `constraints.one_side_of_each`.

    `displeasure` is what one pod costs on a node that it would rather avoid. `constant` is the part of the value that
    no decision changes: frozen nodes' prices, the displeasure of pinned pods (`displeased`), and the overlap price of
    every removable node (which a node that stays earns back through its cost). Nanodollars per hour.
    """

    groups: tuple[Group, ...]
    classes: tuple[NodeClass, ...]
    resources: tuple[str, ...]
    requests: IntArray
    counts: IntArray
    pending: IntArray
    room: IntArray
    admissible: BoolArray
    present: IntArray
    displeasure: IntArray
    sides: IntArray
    costs: IntArray
    limits: IntArray
    rows: tuple[Row, ...]
    dropped: tuple[str, ...]
    move_prices: IntArray
    constant: int
    displeased: int

    @cached_property
    def whole(self) -> int:
        """How many of the resources are no shares of a node; they come first."""
        return sum(not is_share(name) for name in self.resources)

    @cached_property
    def caps(self) -> IntArray:
        """The most pods of each group that one node of each class can hold, (classes, groups)."""
        caps = np.where(self.admissible, self.counts[None, :], 0)
        for r in range(len(self.resources)):
            asks = self.requests[:, r] > 0
            fits = np.maximum(self.room[:, r, None], 0) // self.requests[None, asks, r]
            caps[:, asks] = np.minimum(caps[:, asks], fits)
        whole: IntArray = caps.astype(np.int64)
        whole.flags.writeable = False
        return whole

    @cached_property
    def typical_room(self) -> npt.NDArray[np.float64]:
        """The mean room of the classes, (whole resources,): that of the largest would hide all but one resource."""
        room = np.maximum(self.room[:, : self.whole], 0)
        return np.asarray(np.maximum(room.sum(axis=0) / np.maximum((room > 0).sum(axis=0), 1), 1.0))

    def dominators(self) -> IntArray:
        """Return for each class the one that is at least as good in every plan, itself where there is none, (classes).

        An offering that admits the same groups, displeases none of them more, has no less room, costs no more and adds
        no less to any row: no content of the other is worth more on its own node at any prices of the rows (they are
        not negative), so V - c of the other is at most that of its dominator, and a plan stays one where the dominator
        takes its place.
        """
        best = np.arange(len(self.classes))
        adds = np.array([row.coefficients for row in self.rows], dtype=np.int64).reshape(
            len(self.rows), len(self.classes)
        )
        offers = [k for k, c in enumerate(self.classes) if c.role == "offering"]
        offers.sort(key=lambda k: (int(self.costs[k]), *(-self.room[k]).tolist(), k))
        leaders = np.zeros(0, dtype=np.int64)
        for k in offers:
            holds = (self.room[leaders] >= self.room[k]).all(axis=1) & (adds[:, leaders] >= adds[:, [k]]).all(axis=0)
            for leader in leaders[holds].tolist():
                pleases = self.admissible[leader] & (self.displeasure[leader] <= self.displeasure[k])
                if (pleases | ~self.admissible[k]).all():
                    best[k] = leader
                    break
            else:
                leaders = np.append(leaders, k)
        return best

    @property
    def placement_cost(self) -> int:
        """What it costs to place every pending pod, which is no move; nanodollars per hour."""
        return int((self.move_prices * self.pending).sum())

    def moves(self, classes: IntArray, contents: IntArray) -> IntArray:
        """What it costs that each content has more pods of a group than its node holds now, (contents,)."""
        arriving = np.maximum(contents - self.present[classes], 0)
        costs: IntArray = (arriving * self.move_prices).sum(axis=1, dtype=np.int64)
        return costs

    def column_costs(self, classes: IntArray, contents: IntArray) -> IntArray:
        """What each content adds to the value: node's cost + its moves + displeasure, (contents,)."""
        costs: IntArray = self.costs[classes] + self.moves(classes, contents)
        return costs + self.displeasures(classes, contents)

    def displeasures(self, classes: IntArray, contents: IntArray) -> IntArray:
        """What the pods of each content cost there because they would rather be elsewhere, (contents,)."""
        costs: IntArray = (self.displeasure[classes] * contents).sum(axis=1, dtype=np.int64)
        return costs


@dataclass(frozen=True, slots=True)
class Site:
    """One existing node that may receive pods, with its room for movable pods."""

    node: Node
    role: Literal["removable", "kept"]
    price: int
    room: Resources


def build_problem(census: Census, unplaced: Mapping[GroupKey, int]) -> Problem:
    """Lay out the inputs of the census as arrays, with the pods of `unplaced` (pending ones, by group) left out."""
    running, pending = Counter[GroupKey](), Counter[GroupKey]()
    owners: dict[GroupKey, set[str]] = {}
    for held in census.running.values():
        for key, by_workload in held.items():
            running[key] += sum(by_workload.values())
            owners.setdefault(key, set()).update(by_workload)
    for key, by_workload in census.waiting.items():
        pending[key] += sum(by_workload.values())
        owners.setdefault(key, set()).update(by_workload)
    for key, count in unplaced.items():
        pending[key] -= count
    keys = sorted((k for k in owners if running[k] + pending[k] > 0), key=_group_order)
    groups = tuple(
        Group(f"g{i}", k, tuple(sorted(owners[k])), running[k] + pending[k], pending[k]) for i, k in enumerate(keys)
    )
    arranged = _arrange(census, groups)
    pinned = _displeased(census.movement)
    return replace(arranged, constant=arranged.constant + pinned, displeased=pinned)


def _displeased(movement: Movement) -> int:
    """Return what it costs that pinned pods are where they are, in nanodollars per hour."""
    inputs = movement.inputs
    at = {node.name: surroundings(node) for node in inputs.snapshot.nodes}
    pinned = [p for p in inputs.snapshot.planned if p.node in at and pod_key(p) in movement.assessment.pins]
    return sum(movement.preferences.cost(p, at[str(p.node)]) for p in pinned)


def _group_order(key: GroupKey) -> tuple[object, ...]:
    requests = key.requests
    return (
        -requests.cpu_millicores,
        -requests.memory_bytes,
        requests.ephemeral_storage_bytes,
        requests.extended,
        requests.shares,
        repr(key.constraints),
        key.home,
        key.fresh,
        key.barred,
        repr(key.wishes),
        key.beside,
        repr(key.members),
        key.at_once,
    )


def _sites(census: Census) -> list[Site]:
    inputs, roles = census.movement.inputs, census.movement.assessment.roles
    return [
        Site(node, role, inputs.catalogue.price(node) or 0, census.room[node.name])
        for node in sorted(inputs.snapshot.nodes, key=lambda n: n.name)
        if (role := roles[node.name]) != "frozen"
    ]


def _arrange(census: Census, groups: tuple[Group, ...]) -> Problem:
    inputs = census.movement.inputs
    assessment, preferences = census.movement.assessment, census.movement.preferences
    index = {group.key: g for g, group in enumerate(groups)}
    counts = np.array([group.count for group in groups], dtype=np.int64)
    classes: list[NodeClass] = []
    whole: list[Resources] = []
    rooms: list[Resources] = []
    admissible: list[BoolArray] = []
    present: list[IntArray] = []
    displeasure: list[IntArray] = []
    merged: dict[tuple[object, ...], list[Site]] = {}
    outlook = Outlook([group.key for group in groups], preferences)
    barred = np.array([group.key.barred for group in groups], dtype=np.bool_)
    fresh = np.array([group.key.fresh for group in groups], dtype=np.bool_)
    at_once = [g for g, group in enumerate(groups) if group.key.at_once]
    for site in _sites(census):
        at = surroundings(site.node)
        admitted = outlook.admission(at, site.room) & ~fresh
        held = np.zeros(len(groups), dtype=np.int64)
        for key, by_workload in census.running.get(site.node.name, {}).items():
            held[index[key]] = sum(by_workload.values())
        if at_once:
            taken = (key.requests * sum(n.values()) for key, n in census.running.get(site.node.name, {}).items())
            now = site.room - sum(taken, Resources())
            admitted[at_once] &= [groups[g].requests.fits_in(now) for g in at_once]
        if site.node.capacity_type == "spot":
            admitted &= constraints.spot_nodes(barred, held)
        displeased = outlook.displeasures(at)
        pool = inputs.catalogue.pool_of(site.node)
        like = (
            pool, site.node.zone, site.node.machine_type, site.node.capacity_type, site.role, site.price,
            site.room, site.node.allocatable, admitted.tobytes(), held.tobytes(),
            displeased.tobytes(),
        )  # fmt: skip
        twins = merged.setdefault(like, [])
        if not twins:
            rooms.append(site.room)
            admissible.append(admitted)
            present.append(held)
            displeasure.append(displeased)
        twins.append(site)
    sizes = Counter((inputs.catalogue.pool_of(n), n.zone) for n in inputs.snapshot.nodes)
    for twins in merged.values():
        first = twins[0]
        holds = first.role == "removable" and first.node.name in census.running
        overlap = inputs.prices.overlap_nanousd_per_hour(first.price) if holds else 0
        whole.append(first.node.allocatable)
        classes.append(
            NodeClass(
                id=f"node/{first.node.name}",
                role=first.role,
                pool=inputs.catalogue.pool_of(first.node),
                zone=first.node.zone,
                machine_type=first.node.machine_type,
                capacity_type=first.node.capacity_type,
                nodes=tuple(s.node.name for s in twins),
                offering=None,
                limit=len(twins),
                cost=first.price - overlap,
                overlap=overlap,
            )
        )
    # Nothing is booted in a closed domain but what a pool lacks of its minimum.
    lacking = {(o.pool, o.zone) for o in inputs.catalogue.due(inputs.snapshot.nodes) if o.minimum}
    for offering in sorted(inputs.catalogue.offerings, key=_offering_order):
        if (offering.pool, offering.zone) not in lacking and census.movement.shut(offering):
            continue
        room = offering_room(inputs, offering)
        at = surroundings(offering)
        admitted = outlook.admission(at, room)
        if offering.capacity_type == "spot":
            admitted &= constraints.spot_nodes(barred, np.zeros(len(groups), dtype=np.int64))
        limit = max(offering.minimum, int(counts[admitted].sum()))
        if offering.maximum is not None:
            limit = min(limit, max(offering.maximum, sizes[offering.pool, offering.zone]))
        classes.append(
            NodeClass(
                id=f"{offering.pool}/{offering.zone}/{offering.machine_type}/{offering.capacity_type}",
                role="offering",
                pool=offering.pool,
                zone=offering.zone,
                machine_type=offering.machine_type,
                capacity_type=offering.capacity_type,
                nodes=(),
                offering=offering,
                limit=limit,
                cost=offering.price_nanousd_per_hour,
                overlap=0,
            )
        )
        whole.append(offering.allocatable)
        rooms.append(room)
        admissible.append(admitted)
        present.append(np.zeros(len(groups), dtype=np.int64))
        displeasure.append(outlook.displeasures(at))
    resources = outlook.resources
    room_left = amounts((room.left(resources) for room in rooms), resources)
    held_here = np.array(present, dtype=np.int64).reshape(len(classes), len(groups))
    on_spot = np.array([c.capacity_type == "spot" for c in classes], dtype=np.bool_)
    settled = np.flatnonzero(barred & (held_here[on_spot] > 0).any(axis=0))
    frozen = [n for n in inputs.snapshot.nodes if assessment.roles[n.name] == "frozen"]
    rows, dropped = constraints.rows(
        [
            Place(c.pool, c.zone, (c.machine_type, c.capacity_type), c.role, c.limit, c.nodes, allocatable)
            for c, allocatable in zip(classes, whole, strict=True)
        ],
        [_frozen_place(inputs.catalogue, node) for node in frozen],
        inputs.catalogue,
        inputs.rules.max_nodes_changed,
    )
    prices = [inputs.catalogue.price(n) or 0 for n in frozen]
    return Problem(
        groups=groups,
        classes=tuple(classes),
        # Pods that may only stay on the spot nodes where they are take a place there of which no node has more.
        resources=(*resources, *(f"{groups[g].id} (on spot)" for g in settled)),
        requests=np.hstack([outlook.asks, np.eye(len(groups), dtype=np.int64)[:, settled]]),
        counts=counts,
        pending=np.array([group.pending for group in groups], dtype=np.int64),
        room=np.hstack([room_left, np.where(on_spot[:, None], held_here, counts[None, :])[:, settled]]),
        admissible=np.array(admissible, dtype=np.bool_).reshape(len(classes), len(groups)),
        present=held_here,
        displeasure=np.array(displeasure, dtype=np.int64).reshape(len(classes), len(groups)),
        sides=_sides(groups),
        costs=np.array([c.cost for c in classes], dtype=np.int64),
        limits=np.array([c.limit for c in classes], dtype=np.int64),
        rows=rows,
        dropped=dropped,
        move_prices=inputs.prices.move_nanousd_per_hour * np.array([g.key.pods for g in groups], dtype=np.int64),
        constant=sum(prices) + sum(c.overlap * c.limit for c in classes),
        displeased=0,
    )


def _frozen_place(bought: Catalogue, node: Node) -> Place:
    kind = (node.machine_type, node.capacity_type)
    managed = bought.manages(node)
    return Place(bought.pool_of(node), node.zone, kind, "frozen", 1, (node.name,), node.allocatable, managed)


def _offering_order(offering: Offering) -> tuple[object, ...]:
    return (
        offering.pool,
        offering.zone,
        offering.machine_type,
        offering.capacity_type,
        offering.price_nanousd_per_hour,
    )


def _sides(groups: Sequence[Group]) -> IntArray:
    """Return the sides of each group as bits: of each pair one for those that bear the rule, the next for targets."""
    names = sorted({name for group in groups for name, _ in group.requests.shares if name.endswith(BEARER)})
    bits = {name: 1 << (2 * i) for i, name in enumerate(names)}
    bits |= {str(other_side(name)): 2 << (2 * i) for i, name in enumerate(names)}
    sides = [sum(bits.get(name, 0) for name, _ in group.requests.shares) for group in groups]
    return np.array(sides, dtype=np.int64)
