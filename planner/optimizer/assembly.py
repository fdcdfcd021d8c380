"""From a packing to a plan: nodes by name, pods by workload, strategies, moves, and the value that they cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from planner.model.cap import CpuCap, objective_name
from planner.model.cluster import HOSTNAME, Node
from planner.model.machines import Offering
from planner.model.naming import node_name
from planner.model.plan import Certificate, Objective, Plan, PlannedNode, PlannedWorkload, Strategy, Unplaced
from planner.optimizer.census import Census
from planner.optimizer.company import Place, seated
from planner.optimizer.movement import Movement
from planner.optimizer.packing import Packing
from planner.optimizer.problem import Problem


@dataclass(slots=True)
class _Spot:
    """One node being filled: what it holds by group now, what it shall hold, and by workload in the end.

    `row` is its row in the packing; `arrivals` are those of its pods that come, by group and workload.
    """

    node: Node | None
    offering: Offering | None
    wanted: dict[int, int]
    present: dict[int, dict[str, int]] = field(default_factory=dict)
    pods: Counter[str] = field(default_factory=Counter)
    row: int | None = None
    arrivals: Counter[tuple[int, str]] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Draft:
    """A plan but for its bound: its nodes, workloads and the terms of its value in nanodollars per hour."""

    nodes: tuple[PlannedNode, ...]
    workloads: Mapping[str, PlannedWorkload]
    unplaced: Mapping[str, Unplaced]
    nodes_cost: int
    moves_cost: int
    boots_cost: int
    preferences_cost: int

    @property
    def value(self) -> int:
        return self.nodes_cost + self.moves_cost + self.boots_cost + self.preferences_cost

    @property
    def missing(self) -> int:
        return sum(u.count for u in self.unplaced.values())


def assemble(
    census: Census,
    problem: Problem,
    packing: Packing,
    unplaceable: Mapping[str, Unplaced],
    *,
    in_company: bool = False,
) -> Draft:
    """Name the nodes, spread the pods of each group over workloads and choose the strategies.

    `unplaceable` are the pending pods that were left out before; those that the packing leaves out are added. With
    `in_company` pods that arrive change seats by what they prefer of each other (`company`), which changes no value.
    """
    inputs = census.movement.inputs
    spots = _spots(census, problem, packing)
    displaced: Counter[str] = Counter()
    for name, count in _keep_in_place(list(spots.values())).items():
        displaced.update(census.by_workload(name, count))
    homeless: dict[int, Counter[str]] = defaultdict(Counter)
    for spot in spots.values():
        for g, held in spot.present.items():
            for workload, count in held.items():
                homeless[g][workload] += count
    # A pod of no group is among the unplaceable ones already.
    groups = {group.key: g for g, group in enumerate(problem.groups)}
    waiting = {groups[key]: Counter(found) for key, found in census.waiting.items() if key in groups}
    # Only pending pods may stay without a place, so those that run go first.
    _spread(spots, homeless)
    _spread(spots, waiting)
    for spot in spots.values():
        _part(census, spot)
    if in_company:
        full = bool(packing.unplaced(problem).any() or unplaceable)
        _change_seats(census, problem, packing, spots, full=full)
    nodes = _planned_nodes(census, spots)
    workloads = _planned_workloads(census, displaced)
    unplaced = dict(unplaceable)
    for workload, (count, reasons) in sorted(_left_over(census, problem, packing, waiting).items()):
        earlier = unplaced[workload].count if workload in unplaced else 0
        limits = f"a node that would hold it is beyond {' and '.join(sorted(reasons))}"
        why = limits if reasons else "only existing nodes could hold it, and they have no room left"
        unplaced[workload] = Unplaced(count + earlier, why + (f"; {unplaced[workload].reason}" if earlier else ""))
    removed = {n.name for n in nodes if n.state == "remove"}
    price = {n.name: n.price_nanousd_per_hour or 0 for n in nodes}
    return Draft(
        nodes=nodes,
        workloads=workloads,
        unplaced=dict(sorted(unplaced.items())),
        nodes_cost=sum(price[n.name] for n in nodes if n.state != "remove"),
        moves_cost=inputs.prices.moves_nanousd_per_hour(sum(w.moves for w in workloads.values())),
        boots_cost=sum(
            inputs.prices.overlap_nanousd_per_hour(price[name]) for name in sorted(removed & census.running.keys())
        ),
        preferences_cost=problem.displeased + int(problem.displeasures(packing.classes, packing.contents).sum()),
    )


def finish(movement: Movement, draft: Draft, lower_bound: int, proof: Certificate, cap: CpuCap | None) -> Plan:
    """Return the plan with its bound; the clock's readings are added by whoever has a clock."""
    inputs = movement.inputs
    prices = inputs.prices
    # Prices of pods are whole nanodollars, and a content counts as better from a tiny share of a node's price on:
    # below a thousand nanodollars per node a difference is rounding.
    rounding = 1000 * max(1, len(draft.nodes))
    return Plan(
        iteration=inputs.iteration,
        objective=Objective(
            name=objective_name(cap),
            nodes_nanousd_per_hour=draft.nodes_cost,
            moves_nanousd_per_hour=draft.moves_cost,
            boots_nanousd_per_hour=draft.boots_cost,
            lower_bound_nanousd_per_hour=lower_bound,
            status="optimal" if draft.value - lower_bound < rounding else "feasible",
            payback_hours=prices.payback_hours,
            move_cost_nanousd=prices.move_cost_nanousd,
            boot_overlap_minutes=prices.boot_overlap_minutes,
            cap=cap,
            preferences_nanousd_per_hour=draft.preferences_cost,
            preference_nanousd_per_hour=inputs.preferences.pod_nanousd_per_hour,
            preference_ceiling_nanousd_per_hour=inputs.preferences.ceiling_nanousd_per_hour,
        ),
        current_cost_nanousd_per_hour=sum(inputs.catalogue.price(n) or 0 for n in inputs.snapshot.nodes),
        cost_nanousd_per_hour=draft.nodes_cost,
        nodes=draft.nodes,
        workloads=draft.workloads,
        unplaced=draft.unplaced,
        certificate=proof,
    )


def _spots(census: Census, problem: Problem, packing: Packing) -> dict[str, _Spot]:
    """Give every content a node: existing ones of a class in order of name, fresh ones in order of content."""
    movement, snapshot, iteration = census.movement, census.movement.inputs.snapshot, census.movement.inputs.iteration
    spots = {node.name: _Spot(node, None, {}) for node in sorted(snapshot.nodes, key=lambda n: n.name)}
    many = np.bincount(packing.classes, minlength=len(problem.classes))

    def turn(n: int) -> tuple[int, ...]:
        k = int(packing.classes[n])
        return (k, *(-packing.contents[n]).tolist()) if many[k] > 1 else (k,)

    order = sorted(range(packing.classes.size), key=turn)
    taken: Counter[int] = Counter()
    index = 0
    for n in order:
        k = int(packing.classes[n])
        c = problem.classes[k]
        some = np.flatnonzero(packing.contents[n])
        wanted = dict(zip(some.tolist(), packing.contents[n, some].tolist(), strict=True))
        if c.offering is None:
            spots[c.nodes[taken[k]]].wanted = wanted
            spots[c.nodes[taken[k]]].row = n
            taken[k] += 1
            continue
        name = ""
        while not name or name in spots:
            name, index = node_name(c.pool, iteration, index), index + 1
        spots[name] = _Spot(None, c.offering, wanted, row=n)
    in_plan = {name for k, c in enumerate(problem.classes) for name in c.nodes[: taken[k]]}
    for name, spot in spots.items():
        if spot.node is not None and movement.assessment.roles[name] == "removable" and name not in in_plan:
            spots[name] = _Spot(None, None, {})
    groups = {group.key: g for g, group in enumerate(problem.groups)}
    for name, held in census.running.items():
        spots[name].present = {groups[key]: dict(by_workload) for key, by_workload in held.items()}
    return spots


def _keep_in_place(spots: Sequence[_Spot]) -> Counter[str]:
    """Leave present pods where their group has room on their node; return the displaced pods by workload.

    Emptied nodes come first. Where only some pods of a group leave a node, those of workloads leave that move
    anyway (a roll-out replaces all), then those of which most have left.
    """
    displaced: Counter[str] = Counter()
    for spot in sorted(spots, key=lambda s: bool(s.wanted)):
        for g in sorted(spot.present):
            held = spot.present[g]
            count = sum(held.values())
            leaving = count - spot.wanted.get(g, 0)
            if leaving <= 0:
                for workload, staying in held.items():
                    spot.pods[workload] += staying
                spot.wanted[g] -= count
                held.clear()
                continue
            for workload in sorted(held, key=lambda w: (-displaced[w], held[w], w)):
                gone = min(leaving, held[workload])
                leaving -= gone
                displaced[workload] += gone
                spot.pods[workload] += held[workload] - gone
                if g in spot.wanted:
                    spot.wanted[g] -= held[workload] - gone
                held[workload] = gone
    return +displaced


def _spread(spots: Mapping[str, _Spot], waiting: Mapping[int, Counter[str]]) -> None:
    """Fill what is left on each node with these pods, by workload; those that find no place go on waiting."""
    for name in sorted(spots):
        spot = spots[name]
        for g in sorted(g for g, count in spot.wanted.items() if count):
            queue = waiting.get(g)
            if not queue:
                continue
            for workload in sorted(queue, key=lambda w: (-queue[w], w)):
                here = min(spot.wanted[g], queue[workload])
                spot.wanted[g] -= here
                queue[workload] -= here
                spot.pods[workload] += here
                spot.arrivals[g, workload] += here


def _part(census: Census, spot: _Spot) -> None:
    """Count the pods of parties by workload; what came together stays together."""
    for name in spot.pods.keys() & census.parties.keys():
        spot.pods.update(census.by_workload(name, spot.pods.pop(name)))
    for arrival in [arrival for arrival in spot.arrivals if arrival[1] in census.parties]:
        del spot.arrivals[arrival]


def _change_seats(
    census: Census, problem: Problem, packing: Packing, spots: Mapping[str, _Spot], *, full: bool
) -> None:
    """Let arriving pods change seats by what they prefer of each other."""
    places: dict[str, Place] = {}
    for name, spot in sorted(spots.items()):
        kind = spot.node or spot.offering
        if kind is None:
            continue
        place = Place({**kind.labels, HOSTNAME: name}, spot.pods + Counter(census.pinned.get(name)))
        if spot.row is not None:
            place.k, place.content = int(packing.classes[spot.row]), packing.contents[spot.row].copy()
            place.arrivals = dict(+spot.arrivals)
            place.leaving = frozenset(w for held in spot.present.values() for w, count in held.items() if count)
        places[name] = place
    seated(problem, list(places.values()), census.movement.inputs.snapshot.planned, full=full)
    for name, place in places.items():
        spots[name].pods = place.pods - Counter(census.pinned.get(name))


def _planned_nodes(census: Census, spots: Mapping[str, _Spot]) -> tuple[PlannedNode, ...]:
    inputs, assessment = census.movement.inputs, census.movement.assessment
    nodes = {node.name: node for node in inputs.snapshot.nodes}
    planned = []
    for name, spot in sorted(spots.items()):
        pods = spot.pods + Counter(census.pinned[name]) if name in census.pinned else +spot.pods
        if spot.offering is not None:
            o = spot.offering
            planned.append(
                PlannedNode(
                    name, "boot", o.pool, o.machine_type, o.zone, o.capacity_type, o.price_nanousd_per_hour,
                    o.allocatable.plain, dict(sorted(pods.items())),
                )
            )  # fmt: skip
            continue
        node = nodes[name]
        planned.append(
            PlannedNode(
                name,
                "remove" if spot.node is None else "keep",
                inputs.catalogue.pool_of(node),
                node.machine_type,
                node.zone,
                node.capacity_type,
                inputs.catalogue.price(node),
                node.allocatable.plain,
                dict(sorted(pods.items())),
                tuple(sorted(census.pinned_names.get(name, ()))),
                assessment.role_reasons.get(name, ""),
                frozen=assessment.roles[name] == "frozen",
            )
        )
    return tuple(planned)


def _planned_workloads(census: Census, displaced: Mapping[str, int]) -> dict[str, PlannedWorkload]:
    movement, inputs = census.movement, census.movement.inputs
    planned = {}
    for key, members in sorted(census.members.items()):
        workload, sample = movement.workloads.get(key), members.sample
        before, after = sample.requests.plain, movement.requests(sample).plain
        strategy, moves, reason = _strategy(movement, key, displaced.get(key, 0), members.free, after != before)
        if members.running and not members.free:
            strategy, reason = "pinned", members.pinned_by
        if not reason:
            reason = inputs.forecast.reasons.get(key, "")
        if key in inputs.forecast.requests and after == before and not reason:
            reason = "its forecast changes nothing" if key in movement.rollable else "it cannot be rolled out"
        planned[key] = PlannedWorkload(
            uid=workload.uid if workload else sample.workload_uid,
            replicas=workload.replicas if workload else members.pods,
            requests_before=before,
            requests=after,
            strategy=strategy,
            moves=moves,
            reason=reason,
            containers=dict(inputs.forecast.requests[key]) if after != before else {},
        )
    return planned


def _strategy(movement: Movement, key: str, displaced: int, running: int, changed: bool) -> tuple[Strategy, int, str]:
    """Choose how the workload moves; a roll-out replaces all its running pods, an eviction the displaced ones."""
    mobility = movement.assessment.mobility.get(key)
    if changed and running:
        return "rollout", running, "its requests change"
    if not displaced or mobility is None:
        return "stay", 0, ""
    workload = movement.workloads[key]
    if key in movement.rollable and (not mobility.evictable or displaced * 2 > workload.replicas):
        return "rollout", running, f"{displaced} of {running} pods must move"
    return "evict", displaced, f"{displaced} of {running} pods must move"


def _left_over(
    census: Census, problem: Problem, packing: Packing, waiting: Mapping[int, Counter[str]]
) -> dict[str, tuple[int, set[str]]]:
    """Return for each workload how many pods found no place, and what stands against each further node for them."""
    left_over: dict[str, tuple[int, set[str]]] = {}
    for g, queue in waiting.items():
        for name, lacking in (+queue).items():
            for workload, count in census.by_workload(name, lacking).items():
                before, reasons = left_over.get(workload, (0, set()))
                left_over[workload] = (before + count, reasons | obstacles(problem, packing, g))
    return left_over


def obstacles(problem: Problem, packing: Packing, g: int) -> set[str]:
    """Name the limits, as the user knows them, that forbid one more node of a class that could hold such a pod."""
    sums = [int(row.coefficients[packing.classes].sum()) for row in problem.rows]
    names = set()
    for k in np.flatnonzero(problem.caps[:, g] > 0).tolist():
        broken = {
            row.name
            for row, total in zip(problem.rows, sums, strict=True)
            if row.name and row.coefficients[k] < 0 and total + row.coefficients[k] < row.rhs
        }
        names |= broken
    return names
