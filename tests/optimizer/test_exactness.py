"""Tiny clusters, where every possible plan can be tried: the optimizer finds the best one, with both solvers."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.model.cluster import HOSTNAME, Node, Pod
from planner.model.coexistence import interpreted
from planner.model.disruption import DisruptionRules
from planner.model.effort import Effort, Watch
from planner.model.inputs import ChangePrices, PlanningInputs
from planner.model.machines import Offering, TotalLimits
from planner.model.preferences import PreferencePrices, Wish
from planner.model.resources import Resources
from planner.model.scheduling import LabelSelector, NodeSelectorTerm, PodRules, PodTerm, Requirement, Spread, Taint
from planner.model.utilization import cap_on
from planner.optimizer import optimize
from planner.verifier import verify
from tests.building import catalogue, deployment, inputs, node, offering, pods_of, snapshot

# Many machines, so that no two plans cost the same by chance; CPU in millicores, memory in GiB.
_MACHINES = {"s": (2000, 4, 0.11), "m": (4000, 10, 0.2), "l": (6000, 12, 0.31)}


_DISKS, _TAINTS = ("ssd", "hdd", "none"), ((), (), (Taint("old", "", "PreferNoSchedule"),))


def _disk(weight: int, kind: str) -> Wish:
    return Wish(weight, NodeSelectorTerm((Requirement("disk", "In", (kind,)),)))


_WISHES = ((), (), (_disk(1, "ssd"),), (_disk(70, "ssd"), _disk(30, "hdd")))
# A tie-breaker, more than most differences of prices, and more than that with a ceiling that binds from three pods on.
_WORTH = (
    PreferencePrices(),
    PreferencePrices(70_000_000, 10**9),
    PreferencePrices(70_000_000, 200_000_000),
    PreferencePrices(0, 0),
)


def _rules_of(name: str) -> tuple[PodRules, ...]:
    """Return the rules that may be drawn for a workload; a spread is about its own pods alone."""
    own, first = (LabelSelector((Requirement("app", "In", (app,)),)) for app in (name, "w0"))
    return (
        PodRules(),
        PodRules(),
        PodRules(host_ports=(("TCP", 80),)),
        PodRules(anti_affinity=(PodTerm(HOSTNAME, None, first),)),
        PodRules(spreads=(Spread(HOSTNAME, 2, own),)),
    )


@st.composite
def tiny_clusters(draw: st.DrawFn) -> PlanningInputs:
    """Draw up to three nodes and up to five pods in two workloads that are evicted pod by pod.

    Their rules between pods hold from the start. Some prefer a disk, or nodes without a soft taint.
    """
    nodes = [
        node(
            f"n{i}", kind, _MACHINES[kind][0], _MACHINES[kind][1],
            labels={"disk": draw(st.sampled_from(_DISKS))}, taints=draw(st.sampled_from(_TAINTS)),
        )
        for i, kind in enumerate(draw(st.lists(st.sampled_from("sml"), max_size=3)))
    ]  # fmt: skip
    room = {n.name: n.allocatable for n in nodes}
    workloads, pods = [], []
    for w in range(draw(st.integers(1, 2))):
        size = draw(st.integers(2, 3 if w == 0 else 2))
        cpu, memory_gib = draw(st.sampled_from([(500, 1), (900, 2), (1500, 1), (1900, 5), (700, 4)]))
        load = deployment(f"w{w}", size, cpu, memory_gib, kind="StatefulSet")
        rules = draw(st.sampled_from(_rules_of(load.name)))
        wishes = draw(st.sampled_from(_WISHES))
        on: Counter[str] = Counter()
        for _ in range(size):
            one = pods_of(load, pending=1, rules=rules)[0]
            standing = pods + pods_of(load, on, rules=rules)
            fits = [
                name
                for name, left in room.items()
                if load.requests.fits_in(left) and _get_along([p for p in standing if p.node == name] + [one])
            ]
            if fits and draw(st.booleans()):
                spot = draw(st.sampled_from(fits))
                room[spot] = room[spot] - load.requests
                on[spot] += 1
        workloads.append(load)
        pods += pods_of(load, on, pending=size - on.total(), rules=rules, wishes=wishes)
    kinds = draw(st.lists(st.sampled_from("sml"), min_size=1, max_size=3, unique=True))
    offers = [
        offering(
            k, _MACHINES[k][2], _MACHINES[k][0], _MACHINES[k][1],
            labels={"disk": draw(st.sampled_from(_DISKS))}, taints=draw(st.sampled_from(_TAINTS)),
        )
        for k in "sml"
    ]  # fmt: skip
    prices = ChangePrices(24, draw(st.sampled_from([0, 1_000_000, 700_000_000])), draw(st.sampled_from([0, 15, 600])))
    whole = catalogue(*offers)
    sold = type(whole)(whole.machines, tuple(o for o in offers if o.machine_type in kinds))
    # Two sides that stand apart are not told apart in a list of all contents (`Search._list_all`).
    limited = not any(p.rules.anti_affinity for p in pods)
    sold = replace(sold, total=TotalLimits(nodes=draw(st.sampled_from([None, None, 1, 2, 3])) if limited else None))
    rules = DisruptionRules(max_nodes_changed=draw(st.sampled_from([None, None, 0, 1, 2])) if limited else None)
    cluster = snapshot(nodes, workloads, interpreted(nodes, pods))
    return inputs(cluster, sold, prices=prices, rules=rules, preferences=draw(st.sampled_from(_WORTH)))


def _get_along(pods: Sequence[Pod]) -> bool:
    """Say whether these pods may stand on one node together; of a spread no more than maxSkew pods."""
    ports = [port for p in pods for port in p.rules.host_ports]
    apart = (
        term.matches(other.namespace, other.labels)
        for p in pods
        for other in pods
        if other is not p
        for term in p.rules.anti_affinity
    )
    crowded = (
        sum(spread.selector.matches(other.labels) for other in pods) > spread.max_skew
        for spread in {spread for p in pods for spread in p.rules.spreads}
    )
    return len(ports) == len(set(ports)) and not any(apart) and not any(crowded)


@pytest.mark.parametrize("solver", ["HIGHS", "GLPK_MI"])
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(drawn=tiny_clusters())
def test_no_plan_at_all_is_better(solver: str, drawn: PlanningInputs) -> None:
    ticks = itertools.count()
    effort = Effort(solver=solver, target_gap=0.0)
    plan = optimize(drawn, effort, Watch(lambda: next(ticks) * 1e-4, lambda progress: None))
    assert verify(plan, drawn, 60.0, lambda: 0.0).problems == ()
    left_out = sum(u.count for u in plan.unplaced.values())
    assert (left_out, plan.objective.value_nanousd_per_hour) == min(_every_plan(drawn))
    assert plan.objective.lower_bound_nanousd_per_hour <= plan.objective.value_nanousd_per_hour


@st.composite
def capped_clusters(draw: st.DrawFn) -> PlanningInputs:
    """Draw a tiny cluster, a cap, and usage below and above what the pods request."""
    given = draw(tiny_clusters())
    usage = {pod.workload: draw(st.sampled_from([0, 300, 700, 1300, 2100])) for pod in given.snapshot.pods}
    return replace(given, cap=cap_on(given.snapshot, draw(st.sampled_from([400, 600, 800])), "window", usage))


@pytest.mark.parametrize("solver", ["HIGHS", "GLPK_MI"])
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(drawn=capped_clusters())
def test_no_plan_under_the_cap_is_better(solver: str, drawn: PlanningInputs) -> None:
    ticks = itertools.count()
    plan = optimize(drawn, Effort(solver=solver, target_gap=0.0), Watch(lambda: next(ticks) * 1e-4, lambda _: None))
    assert verify(plan, drawn, 60.0, lambda: 0.0).problems == ()
    # The usage as a further resource; a node that stays above the cap has room for what the plan leaves there.
    best = min(_every_plan(replace(drawn, cap=plan.objective.cap).under_cap()))
    left_out = sum(u.count for u in plan.unplaced.values())
    assert (left_out, plan.objective.value_nanousd_per_hour) == best
    if plan.objective.cap is not None and plan.objective.cap.allowed_millicores:
        # No node stays above the cap where all could be placed under it, and as many pending pods as they are now.
        assert all(without > left_out for without, _ in _every_plan(drawn.under_cap()))


def _every_plan(given: PlanningInputs) -> Iterator[tuple[int, int]]:
    """Yield (pods without a place, value) of every plan, by putting every pod everywhere."""
    pods = list(given.snapshot.pods)
    existing = [(n.name, n.allocatable) for n in given.snapshot.nodes]
    for spots in _placements([p.requests.with_shares(()) for p in pods], [room for _, room in existing], given):
        if not all(_get_along([p for p, s in zip(pods, spots, strict=True) if s == at]) for at in set(spots) - {None}):
            continue
        moves = Counter[tuple[str, int | None]]()
        for pod, spot in zip(pods, spots, strict=True):
            moves[pod.workload, spot] += 1
        here = Counter((p.workload, _index(existing, p.node)) for p in pods if p.node is not None)
        arriving = sum(max(0, n - here[key]) for key, n in moves.items() if key[1] is not None)
        placed_pending = sum(s is not None for s in spots) - sum(p.node is not None for p in pods)
        if any(sum(n for (w, s), n in moves.items() if w == load.key and s is not None) < _running(given, load.key)
               for load in given.snapshot.workloads):  # fmt: skip
            continue  # a running pod is never left out
        cost, unused = 0, []
        for i, (name, _) in enumerate(existing):
            price = given.catalogue.price(given.snapshot.nodes[i]) or 0
            held = any(p.node == name for p in pods)
            exit_cost = given.prices.overlap_nanousd_per_hour(price) if held else 0
            if i in spots:
                cost += price
            else:
                cost += exit_cost
                unused.append(price - exit_cost)
        booted = len({s for s in spots if s is not None and s >= len(existing)})
        # As many unused nodes stay, the cheapest, as would be too many to remove.
        staying = max(0, booted + len(unused) - _ceiling(given))
        used = len(existing) - len(unused)
        if staying > len(unused) or used + staying + booted > _most_nodes(given):
            continue
        cost += sum(sorted(unused)[:staying])
        for fresh in {s for s in spots if s is not None and s >= len(existing)}:
            content = [p for p, s in zip(pods, spots, strict=True) if s == fresh]
            load = sum((p.requests.with_shares(()) for p in content), Resources())
            cost += min(
                o.price_nanousd_per_hour + sum(_displeased(p, o, given) for p in content)
                for o in given.catalogue.offerings
                if load.fits_in(o.allocatable)
            )
        for pod, s in zip(pods, spots, strict=True):
            if s is not None and s < len(existing):
                cost += _displeased(pod, given.snapshot.nodes[s], given)
        yield spots.count(None), cost + given.prices.moves_nanousd_per_hour(arriving - placed_pending)


def _displeased(pod: Pod, at: Node | Offering, given: PlanningInputs) -> int:
    """Return what it costs that the pod is there, more than where it would be pleased most.

    Of the price of a displeased pod 3/5 for a taint (none is tolerated), 2/5 for the share of its wishes not met.
    """
    price = given.preferences.pod_nanousd_per_hour
    price = min(price, given.preferences.ceiling_nanousd_per_hour // len(given.snapshot.pods))
    whole = sum(wish.weight for wish in pod.wishes) or 1

    def displeased(place: Node | Offering) -> int:
        lacking = sum(w.weight for w in pod.wishes if place.labels["disk"] not in w.term.expressions[0].values)
        return price * (3 * whole * bool(place.taints) + 2 * lacking) // (5 * whole)

    return displeased(at) - min(map(displeased, (*given.snapshot.nodes, *given.catalogue.offerings)))


def _ceiling(given: PlanningInputs) -> int:
    """Return how many nodes may be booted and removed."""
    ceiling = given.rules.max_nodes_changed
    return 99 if ceiling is None else ceiling


def _most_nodes(given: PlanningInputs) -> int:
    """Return how many nodes there may be: the limit, or those that are there."""
    limit = given.catalogue.total.nodes
    return 99 if limit is None else max(limit, len(given.snapshot.nodes))


def _placements(requests: list[Resources], rooms: list[Resources], given: PlanningInputs) -> Iterator[list[int | None]]:
    """Yield every way to put pods on existing nodes, on fresh ones (numbered in order of first use), or nowhere."""
    if not requests:
        yield []
        return
    rest = requests[1:]
    largest = [o.allocatable for o in given.catalogue.offerings]
    for i, room in enumerate(rooms):
        used = len(given.snapshot.nodes)
        if i < used:
            fits = requests[0].fits_in(room)
            after = room - requests[0]
        else:
            # For a fresh node the "room" is the load so far, negated.
            after = room - requests[0]
            fits = any((Resources() - after).fits_in(whole) for whole in largest)
        if fits:
            for others in _placements(rest, [*rooms[:i], after, *rooms[i + 1 :]], given):
                yield [i, *others]
    if any(requests[0].fits_in(whole) for whole in largest):
        for others in _placements(rest, [*rooms, Resources() - requests[0]], given):
            yield [len(rooms), *others]
    for others in _placements(rest, rooms, given):
        yield [None, *others]


def _index(existing: list[tuple[str, Resources]], name: str | None) -> int:
    return [n for n, _ in existing].index(str(name))


def _running(given: PlanningInputs, key: str) -> int:
    return sum(p.workload == key and p.node is not None for p in given.snapshot.pods)
