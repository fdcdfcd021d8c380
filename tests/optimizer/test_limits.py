"""Limits on the total, rules for spot nodes and ceilings of change, each small enough to check by hand.

m4 costs 0.2 $/h and has 4 CPU and 16 GiB, s4 is the same as spot for 0.06 $/h. A move costs 41,666 nanodollars per
hour, the removal of a node that holds movable pods 1/96 of its price.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from planner.model.cluster import Node
from planner.model.disruption import DisruptionRules
from planner.model.inputs import PlanningInputs
from planner.model.machines import Catalogue, MachineType, Offering, SpotRule, TotalLimits
from planner.model.plan import Plan
from planner.model.scheduling import LabelSelector, Requirement
from planner.optimizer.census import census_of
from planner.optimizer.movement import movement_of
from planner.optimizer.problem import Problem, build_problem
from planner.verifier import check_placement, verify
from tests.building import GIB, deployment, inputs, nanousd, node, offering, pod, pods_of, resources, snapshot
from tests.optimizer.plans import planned

SPOT = {"cloud.google.com/gke-spot": "true"}
BATCH = LabelSelector((Requirement("app", "In", ("batch",)),))


def sold(*offers: Offering, total: TotalLimits | None = None, spot: SpotRule | None = None) -> Catalogue:
    """Return a catalogue that also prices spot nodes of its machine types."""
    on_demand = {o.machine_type: o.price_nanousd_per_hour for o in offers if o.capacity_type == "on-demand"}
    as_spot = {o.machine_type: o.price_nanousd_per_hour for o in offers if o.capacity_type == "spot"}
    machines = {
        o.machine_type: MachineType(
            o.machine_type, o.allocatable, on_demand.get(o.machine_type), as_spot.get(o.machine_type)
        )
        for o in offers
    }
    return Catalogue(machines, offers, None, total or TotalLimits(), spot or SpotRule())


def s4() -> Offering:
    return offering("s4", 0.06, capacity_type="spot", labels=SPOT)


def spot_node(name: str) -> Node:
    return node(name, "s4", labels=SPOT)


def kinds(plan: Plan) -> list[tuple[str, str]]:
    return sorted((n.state, n.machine_type) for n in plan.nodes)


def row(plan: Plan, kind: str) -> tuple[str, int]:
    (found,) = [r for r in plan.certificate.rows if r.kind == kind]
    return found.scope, found.rhs


def test_limit_on_nodes_takes_fewer_and_larger_ones(solver: str) -> None:
    web = deployment("web", 12, cpu=1000)
    offers = sold(offering(), offering("m8", 0.5, 8000, 32), total=TotalLimits(nodes=2))
    plan = planned(inputs(snapshot([], [web], pods_of(web, pending=12)), offers), solver)
    # 3 x m4 would cost 0.6; two nodes must be m4 + m8 = 0.7.
    assert kinds(plan) == [("boot", "m4"), ("boot", "m8")]
    assert row(plan, "total-maximum") == ("nodes", -2)
    assert plan.objective.status == "optimal"


def test_limit_on_cpu_leaves_pods_out_and_is_named(solver: str) -> None:
    web = deployment("web", 12, cpu=1000)
    offers = sold(offering(), total=TotalLimits(cpu_millicores=10_000))
    plan = planned(inputs(snapshot([], [web], pods_of(web, pending=12)), offers), solver)
    # Two nodes of 4 CPU are within 10, a third is not. In units of 4,000 millicores: -10,000 / 4,000 rounded up is -2.
    assert kinds(plan) == [("boot", "m4")] * 2
    assert row(plan, "total-maximum") == ("cpu_millicores", -2)
    assert (plan.unplaced[web.key].count, plan.unplaced[web.key].reason) == (
        4,
        "a node that would hold it is beyond limits.cpu 10",
    )


def test_limit_on_memory_takes_machines_with_less_of_it(solver: str) -> None:
    web = deployment("web", 12, cpu=1000)
    offers = sold(offering(), offering("h4", 0.25, 4000, 8), total=TotalLimits(memory_bytes=40 * GIB))
    plan = planned(inputs(snapshot([], [web], pods_of(web, pending=12)), offers), solver)
    # 3 x m4 have 48 GiB. 2 x m4 + h4 have 40: in units of 8 GiB, 2 + 2 + 1 <= 5.
    assert kinds(plan) == [("boot", "h4"), ("boot", "m4"), ("boot", "m4")]
    assert row(plan, "total-maximum") == ("memory_mebibytes", -5)
    assert plan.objective.status == "optimal"


def test_cluster_above_a_limit_may_stay_and_shrink_but_not_grow(solver: str) -> None:
    web = deployment("web", 9, cpu=1000, max_unavailable=1, max_surge=0)
    nodes = [node(f"n{i}") for i in range(3)]
    pods = pods_of(web, on={"n0": 4, "n1": 4})
    shrunk = planned(inputs(snapshot(nodes, [web], pods), sold(offering(), total=TotalLimits(nodes=1))), solver)
    assert kinds(shrunk) == [("keep", "m4"), ("keep", "m4"), ("remove", "m4")]
    full = pods_of(web, on={"n0": 4, "n1": 4, "n2": 4}, pending=1)
    stays = planned(inputs(snapshot(nodes, [web], full), sold(offering(), total=TotalLimits(nodes=1))), solver)
    assert kinds(stays) == [("keep", "m4")] * 3
    assert stays.unplaced[web.key].reason == "a node that would hold it is beyond limits.nodes 1"
    # The limit is 1, and 3 nodes are there.
    assert row(stays, "total-maximum") == ("nodes", -3)


def test_limit_counts_frozen_nodes_of_managed_pools_alone(solver: str) -> None:
    web = deployment("web", 5, cpu=1000)
    nodes = [node("cordoned", pool="p", unschedulable=True), node("foreign", pool="q")]
    offers = replace(
        sold(offering(pool="p"), total=TotalLimits(nodes=2)),
        managed_pools=frozenset({"p"}),
    )
    plan = planned(inputs(snapshot(nodes, [web], pods_of(web, pending=5)), offers), solver)
    # Of 2 nodes one is cordoned; the foreign one does not count, so one may be booted.
    assert [n.state for n in plan.nodes].count("boot") == 1
    assert row(plan, "total-maximum") == ("nodes", -1)
    assert plan.unplaced[web.key].count == 1


def test_minimum_of_a_pool_comes_before_the_limit(solver: str) -> None:
    web = deployment("web", 12, cpu=1000)
    offers = sold(offering(pool="p", minimum=3), total=TotalLimits(nodes=2))
    plan = planned(inputs(snapshot([], [web], pods_of(web, pending=12)), offers), solver)
    assert kinds(plan) == [("boot", "m4")] * 3
    assert row(plan, "total-maximum") == ("nodes", -3)


def test_only_selected_workloads_come_to_spot_nodes(solver: str) -> None:
    web, batch = deployment("web", 12, cpu=1000), deployment("batch", 4, cpu=1000)
    pods = pods_of(web, pending=12) + pods_of(batch, pending=4)
    plan = planned(inputs(snapshot([], [web, batch], pods), sold(offering(), s4(), spot=SpotRule(BATCH))), solver)
    # web on 3 x m4, batch on one s4: 0.6 + 0.06.
    assert plan.cost_nanousd_per_hour == nanousd(0.66)
    assert [dict(n.pods) for n in plan.nodes if n.capacity_type == "spot"] == [{batch.key: 4}]


def test_pod_that_only_spot_nodes_could_hold_is_left_out_by_the_rule(solver: str) -> None:
    web = deployment("web", 1)
    plan = planned(inputs(snapshot([], [web], pods_of(web, pending=1)), sold(s4(), spot=SpotRule(BATCH))), solver)
    reason = "spot.workloads bars it from spot nodes, and no other offering admits it"
    assert plan.unplaced[web.key].reason == reason


def test_pods_that_the_rule_bars_stay_on_their_spot_node_but_none_joins_them(solver: str) -> None:
    web = deployment("web", 6, cpu=1000, max_unavailable=1, max_surge=0)
    given = inputs(
        snapshot([spot_node("s0"), spot_node("s1")], [web], pods_of(web, on={"s0": 1, "s1": 2}, pending=3)),
        sold(offering(), s4(), spot=SpotRule(BATCH)),
    )
    plan = planned(given, solver)
    # Without the rule s0 and s1 hold all six (0.12). With it three pods take an m4, which has room for that of s0 too:
    # 0.2 + 0.06, the move, and 0.06 / 96 for s0. For the two of s1 a second m4 would be too much.
    assert {n.name: dict(n.pods) for n in plan.nodes if n.state == "keep"} == {"s1": {web.key: 2}}
    assert plan.objective.value_nanousd_per_hour == 260_000_000 + 41_666 + 625_000
    assert plan.objective.status == "optimal"


def test_share_of_spot_is_at_most_its_ceiling(solver: str) -> None:
    web = deployment("web", 12, cpu=1000)
    cluster = snapshot([], [web], pods_of(web, pending=12))
    half = planned(inputs(cluster, sold(offering(), s4(), spot=SpotRule(None, 500))), solver)
    # Of three nodes one may be spot: 4 <= 0.5 x 12; two would be 8 > 6.
    assert half.cost_nanousd_per_hour == nanousd(0.46)
    assert row(half, "spot-share") == ("cpu_millicores", 0)
    most = planned(inputs(cluster, sold(offering(), s4(), spot=SpotRule(None, 667))), solver)
    # 8 <= 0.667 x 12 = 8.004
    assert most.cost_nanousd_per_hour == nanousd(0.32)


def test_present_share_of_spot_above_the_ceiling_may_stay(solver: str) -> None:
    web = deployment("web", 9, cpu=1000, max_unavailable=1, max_surge=0)
    given = inputs(
        snapshot([spot_node("s0"), spot_node("s1")], [web], pods_of(web, on={"s0": 4, "s1": 4}, pending=1)),
        sold(offering(), s4(), spot=SpotRule(None, 250)),
    )
    plan = planned(given, solver)
    # 8 of 8 CPU are spot. The ninth pod takes an m4 (8 of 12), not an s4.
    assert kinds(plan) == [("boot", "m4"), ("keep", "s4"), ("keep", "s4")]
    # 0.25 x 8 - 8 = -6 CPU, in units of 1 CPU (0.75 x 4 and 0.25 x 4).
    assert row(plan, "spot-share") == ("cpu_millicores", -6)


@pytest.mark.parametrize(("ceiling", "states"), [(0, "kkkk"), (1, "kkkr"), (2, "kkrr"), (None, "kkrr")])
def test_no_more_nodes_change_than_the_ceiling(ceiling: int | None, states: str, solver: str) -> None:
    web = deployment("web", 8, cpu=1000, max_unavailable=1, max_surge=0)
    given = inputs(
        snapshot([node(f"n{i}") for i in range(4)], [web], pods_of(web, on={f"n{i}": 2 for i in range(4)})),
        sold(offering()),
        rules=DisruptionRules(max_nodes_changed=ceiling),
    )
    plan = planned(given, solver)
    # Eight pods fit two of the four nodes.
    assert "".join(sorted(n.state[0] for n in plan.nodes)) == states
    assert plan.objective.status == "optimal"


def test_boots_and_removals_count_together(solver: str) -> None:
    web = deployment("web", 4, cpu=1000, max_unavailable=1, max_surge=0)
    cheap = offering("c4", 0.05)
    cluster = snapshot([node("a"), node("b")], [web], pods_of(web, on={"a": 2, "b": 2}))

    def states(ceiling: int) -> list[tuple[str, str]]:
        rules = DisruptionRules(max_nodes_changed=ceiling)
        return kinds(planned(inputs(cluster, sold(offering(), cheap), rules=rules), solver))

    # c4 in place of both would be 1 boot and 2 removals.
    assert states(3) == [("boot", "c4"), ("remove", "m4"), ("remove", "m4")]
    assert states(2) == [("keep", "m4"), ("remove", "m4")]


def test_pending_pods_beyond_the_ceiling_wait_and_say_so(solver: str) -> None:
    web = deployment("web", 12, cpu=1000)
    rules = DisruptionRules(max_nodes_changed=2)
    plan = planned(inputs(snapshot([], [web], pods_of(web, pending=12)), sold(offering()), rules=rules), solver)
    assert kinds(plan) == [("boot", "m4")] * 2
    assert plan.unplaced[web.key].reason == "a node that would hold it is beyond move.max_nodes_changed 2"


def test_running_pods_have_a_place_before_pending_ones_of_another_workload(solver: str) -> None:
    # The pod of old leaves n0 for that of big; new has more pods than old and is of the same group.
    old, big, new = (
        deployment("old", 1, cpu=1000, kind="StatefulSet"),
        deployment("big", 1, cpu=4000),
        deployment("new", 8, 1000),
    )
    pods = [*pods_of(old, on={"n0": 1}), *pods_of(big, pending=1), *pods_of(new, pending=8)]
    given = inputs(snapshot([node("n0")], [old, big, new], pods), sold(offering(), total=TotalLimits(nodes=2)))
    assert old.key not in planned(given, solver).unplaced


def problem_of(offers: Catalogue) -> Problem:
    web = deployment("web", 12, cpu=1000)
    given = inputs(snapshot([], [web], pods_of(web, pending=12)), offers)
    return build_problem(census_of(movement_of(given)), {})


def test_offerings_dominate_each_other_where_rows_allow_it() -> None:
    small, same, large = offering(), offering("n4", 0.3), offering("n8", 0.15, 8000, 32)
    # Sorted by pool: m4, n4, n8. The large one is the cheapest and best.
    assert problem_of(sold(small, same, large)).dominators().tolist() == [2, 2, 2]
    # It takes more of a limit on CPU; of two that take as much the cheaper one leads.
    limited = sold(small, same, large, total=TotalLimits(cpu_millicores=16_000))
    assert problem_of(limited).dominators().tolist() == [0, 0, 2]
    # Of a limit on nodes it takes no more.
    counted = sold(small, same, large, total=TotalLimits(nodes=9))
    assert problem_of(counted).dominators().tolist() == [2, 2, 2]


def half_spot() -> PlanningInputs:
    """Return three nodes' worth of pods with every kind of limit; a plan needs two m4 and one s4."""
    web = deployment("web", 8, cpu=1000)
    batch = deployment("batch", 4, cpu=1000)
    total = TotalLimits(3, 12_000, 48 * GIB)
    return inputs(
        snapshot([], [web, batch], pods_of(web, pending=8) + pods_of(batch, pending=4)),
        sold(offering(), s4(), total=total, spot=SpotRule(BATCH, 500)),
        rules=DisruptionRules(max_nodes_changed=3),
    )


TIGHTER: dict[str, tuple[Callable[[PlanningInputs], PlanningInputs], str]] = {
    "nodes": (
        lambda g: replace(g, catalogue=replace(g.catalogue, total=TotalLimits(nodes=2))),
        "the plan breaks the limit of 2 nodes (total-maximum nodes): -3 is below -2",
    ),
    "cpu": (
        lambda g: replace(g, catalogue=replace(g.catalogue, total=TotalLimits(cpu_millicores=11_999))),
        "the plan breaks the limit of 11999 cpu_millicores (total-maximum cpu_millicores): -3 is below -2",
    ),
    "memory": (
        lambda g: replace(g, catalogue=replace(g.catalogue, total=TotalLimits(memory_bytes=48 * GIB - 1))),
        "the plan breaks the limit of 49151 memory_mebibytes (total-maximum memory_mebibytes): -3 is below -2",
    ),
    "share of spot": (
        # 2 x 0.333 x 4 - 0.667 x 4 = -0.004 CPU, in units of 4,000 x 1/1,000 millicores.
        lambda g: replace(g, catalogue=replace(g.catalogue, spot=SpotRule(BATCH, 333))),
        "the plan breaks the ceiling of 333 thousandths on the share of spot (spot-share cpu_millicores): -1 is below",
    ),
    "workloads on spot": (
        lambda g: replace(
            g, catalogue=replace(g.catalogue, spot=SpotRule(LabelSelector((Requirement("app", "DoesNotExist"),))))
        ),
        "is a spot node, to which pods of default/Deployment/batch may not come: 0 are there",
    ),
    "nodes changed": (
        lambda g: replace(g, rules=DisruptionRules(max_nodes_changed=2)),
        "the plan breaks the ceiling of 2 nodes changed (nodes-changed nodes): -3 is below -2",
    ),
}


@pytest.mark.parametrize("which", TIGHTER)
def test_plan_beyond_a_limit_is_refused(which: str) -> None:
    tighten, sentence = TIGHTER[which]
    plan = planned(half_spot())
    assert any(sentence in problem for problem in check_placement(plan, tighten(half_spot())))


def test_pod_that_joins_those_that_may_stay_on_a_spot_node_is_found() -> None:
    web = deployment("web", 3, cpu=1000)
    given = inputs(
        snapshot([spot_node("s0"), node("n0")], [web], pods_of(web, on={"s0": 1, "n0": 2})),
        sold(offering(), s4(), spot=SpotRule(BATCH)),
    )
    open_ = replace(given, catalogue=replace(given.catalogue, spot=SpotRule()))
    plan = planned(open_)
    # Without the rule all three go to the spot node.
    assert [n.name for n in plan.nodes if n.state == "keep"] == ["s0"]
    sentence = "node s0 is a spot node, to which pods of default/Deployment/web may not come: 1 are there"
    assert sentence in check_placement(plan, given)


ROWS = (
    "total-maximum nodes",
    "total-maximum cpu_millicores",
    "total-maximum memory_mebibytes",
    "spot-share",
    "nodes-ch",
)


@pytest.mark.parametrize("which", ROWS)
def test_fault_in_a_row_of_a_limit_is_found(which: str) -> None:
    given = half_spot()
    plan = planned(given)
    at = [i for i, r in enumerate(plan.certificate.rows) if f"{r.kind} {r.scope}".startswith(which)]
    assert len(at) == 1
    row = plan.certificate.rows[at[0]]

    def complaints(**changes: object) -> tuple[str, ...]:
        rows = list(plan.certificate.rows)
        rows[at[0]] = replace(row, **changes)  # type: ignore[arg-type]  # any field of the row
        return verify(
            replace(plan, certificate=replace(plan.certificate, rows=tuple(rows))), given, 60.0, lambda: 0.0
        ).problems

    label = f"certificate row {row.kind} {row.scope}"
    assert complaints(rhs=row.rhs + 1) == (f"{label}: rhs is {row.rhs + 1}, the inputs say {row.rhs}",)
    assert complaints(dual_nanousd_per_hour=-1) == (f"{label}: the dual -1 must not be negative",)
    assert any("no such constraint" in problem for problem in complaints(scope="elsewhere"))
    # A dual beyond what the limit is worth makes the claimed bound unproven.
    assert any(
        "is not proven" in problem for problem in complaints(dual_nanousd_per_hour=row.dual_nanousd_per_hour + 10**9)
    )


def limited_cluster(seed: int) -> PlanningInputs:
    """Return a small cluster of on-demand and spot nodes with limits of every kind, by chance."""
    chance = random.Random(seed)
    offers, machines = [], {}
    for machine_type, cpu, memory_gib in (("m4", 4000, 16), ("m8", 8000, 32), ("m2", 2000, 8)):
        price = cpu * 0.00005 * chance.uniform(0.9, 1.1)
        has = resources(cpu - chance.choice((0, 80, 130)), memory_gib - chance.random() * 0.7, 110)
        machines[machine_type] = MachineType(machine_type, has, nanousd(price), nanousd(price * 0.3))
        own = {"minimum": chance.choice((0, 0, 0, 2)), "maximum": chance.choice((None, None, 4))}
        offers.append(offering(machine_type, price, pool=f"{machine_type}-od", allocatable=has, **own))
        if chance.random() < 0.7:
            pool = f"{machine_type}-spot"
            offers.append(
                offering(machine_type, price * 0.3, pool=pool, allocatable=has, capacity_type="spot", labels=SPOT)
            )
    nodes = []
    for i in range(chance.randint(0, 8)):
        o = chance.choice(offers)
        cordoned = chance.random() < 0.1
        nodes.append(node(f"n{i}", o.machine_type, labels=o.labels, allocatable=o.allocatable, unschedulable=cordoned))
    room = {n.name: n.allocatable for n in nodes}
    workloads, pods = [], []
    for w in range(chance.randint(1, 7)):
        size = chance.randint(1, chance.choice((6, 6, 30)))
        cpu, memory_gib = chance.choice((200, 500, 900, 1500, 700)), chance.choice((0.5, 1, 3))
        owner = deployment(f"w{w}", size, cpu, memory_gib, kind=chance.choice(("Deployment", "StatefulSet")))
        on: Counter[str] = Counter()
        for _ in range(size):
            fits = [name for name, left in room.items() if owner.requests.fits_in(left)]
            if fits and chance.random() < 0.8:
                spot = chance.choice(fits)
                room[spot] = room[spot] - owner.requests
                on[spot] += 1
        workloads.append(owner)
        pods += pods_of(owner, on, pending=size - on.total())
    total = TotalLimits(
        chance.choice((None, 1, 4, 9)),
        chance.choice((None, 5000, 15000, 33333)),
        chance.choice((None, 20 * GIB, 90 * GIB + 7)),
    )
    some = LabelSelector((Requirement("app", "In", ("w0", "w2", "w4")),))
    rule = SpotRule(chance.choice((None, some)), chance.choice((1000, 1000, 0, 333, 500)))
    bought = Catalogue(machines, tuple(offers), frozenset(o.pool for o in offers), total, rule)
    ceiling = chance.choice((None, None, 0, 1, 2, 5))
    return inputs(snapshot(nodes, workloads, pods), bought, rules=DisruptionRules(max_nodes_changed=ceiling))


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("seed", range(30))
def test_plans_of_limited_clusters_are_right(seed: int) -> None:
    given = limited_cluster(seed)
    plan = planned(given)
    assert verify(plan, given, 60.0, lambda: 0.0).right


def test_pods_of_one_workload_may_differ_in_whether_spot_nodes_take_them(solver: str) -> None:
    web = deployment("web", 2, cpu=2000)
    pods = [pod(web, 0, labels={"app": "batch"}), pod(web, 1)]
    plan = planned(inputs(snapshot([], [web], pods), sold(offering(), s4(), spot=SpotRule(BATCH))), solver)
    # The barred one needs an m4, which has room for the other too.
    assert kinds(plan) == [("boot", "m4")]
