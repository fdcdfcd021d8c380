"""What pods prefer of nodes, each case small enough to check by hand.

m4 costs 0.2 $/h and has 4 CPU and 16 GiB. A move costs 41,666 nanodollars per hour. A wholly displeased pod costs
10,000 nanodollars per hour: 2/5 of it, 4,000, for a preferred node affinity of which nothing is met, and 3/5, 6,000,
for a taint of the effect PreferNoSchedule that is not tolerated.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from planner.model.cluster import ZONE
from planner.model.displeasure import preferences_nanousd_per_hour
from planner.model.disruption import DisruptionRules
from planner.model.inputs import PlanningInputs
from planner.model.machines import Offering
from planner.model.plan import Plan
from planner.model.preferences import PreferencePrices, Wish
from planner.model.scheduling import NodeConstraints, NodeSelectorTerm, Requirement, Taint, Toleration
from planner.optimizer import heuristics
from planner.optimizer.census import census_of
from planner.optimizer.contentment import contented
from planner.optimizer.movement import movement_of
from planner.optimizer.problem import build_problem
from planner.verifier import check_placement, verify
from planner.verifier.displeasure import displeasure_range
from planner.verifier.facts import gather
from tests.building import catalogue, deployment, inputs, nanousd, node, offering, pod, pods_of, snapshot
from tests.optimizer.plans import after, mixed_cluster, planned

OLD = Taint("old", "", "PreferNoSchedule")
SSD, HDD = {"disk": "ssd"}, {"disk": "hdd"}


def wish(disk: str, weight: int = 1) -> Wish:
    return Wish(weight, NodeSelectorTerm((Requirement("disk", "In", (disk,)),)))


def m4(pool: str, labels: dict[str, str], price_usd: float = 0.2, **fields: object) -> Offering:
    return offering("m4", price_usd, pool=pool, labels=labels, **fields)


def booted(plan: Plan) -> Counter[str]:
    return Counter(n.pool for n in plan.nodes if n.state == "boot")


def test_of_two_nodes_of_one_price_the_preferred_one_is_booted(solver: str) -> None:
    web = deployment("web", 4, cpu=1000)
    given = inputs(
        snapshot([], [web], pods_of(web, pending=4, wishes=(wish("ssd"),))), catalogue(m4("a", HDD), m4("b", SSD))
    )
    plan = planned(given, solver)
    assert booted(plan) == {"b": 1}
    assert plan.objective.preferences_nanousd_per_hour == 0
    assert plan.objective.value_nanousd_per_hour == nanousd(0.2)


def test_a_preference_is_never_above_a_difference_of_prices(solver: str) -> None:
    web = deployment("web", 4, cpu=1000)
    offers = catalogue(m4("a", HDD), offering("n4", 0.20002, pool="b", labels=SSD))
    given = inputs(snapshot([], [web], pods_of(web, pending=4, wishes=(wish("ssd"),))), offers)
    plan = planned(given, solver)
    # b is dearer by 20,000 nanodollars per hour; four pods on a cost 4 x 4,000.
    assert booted(plan) == {"a": 1}
    assert plan.objective.preferences_nanousd_per_hour == 16_000
    assert plan.objective.value_nanousd_per_hour == nanousd(0.2) + 16_000
    assert plan.cost_nanousd_per_hour == nanousd(0.2)


def test_who_says_so_pays_for_a_preference(solver: str) -> None:
    web = deployment("web", 4, cpu=1000)
    offers = catalogue(m4("a", HDD), offering("n4", 0.23, pool="b", labels=SSD))
    given = inputs(
        snapshot([], [web], pods_of(web, pending=4, wishes=(wish("ssd"),))),
        offers,
        preferences=PreferencePrices(nanousd(0.02), nanousd(1)),
    )
    # 4 pods x 2/5 x 0.02 = 0.032 on a; b is dearer by 0.03.
    assert booted(planned(given, solver)) == {"b": 1}
    # All four together may cost no more than 0.07: 4 x 2/5 x 0.07 / 4 = 0.028 on a.
    capped = replace(given, preferences=PreferencePrices(nanousd(0.02), nanousd(0.07)))
    plan = planned(capped, solver)
    assert booted(plan) == {"a": 1}
    assert plan.objective.preferences_nanousd_per_hour == nanousd(0.028)


def test_of_several_wishes_the_one_of_more_weight_counts_more(solver: str) -> None:
    web = deployment("web", 4, cpu=1000)
    pods = pods_of(web, pending=4, wishes=(wish("hdd", 30), wish("ssd", 70)))
    plan = planned(inputs(snapshot([], [web], pods), catalogue(m4("a", HDD), m4("b", SSD))), solver)
    # Unmet on a: 70 of 100, on b 30 of 100. b is the best there is, so that nothing is lacking there.
    assert booted(plan) == {"b": 1}
    assert plan.objective.preferences_nanousd_per_hour == 0


def test_pods_avoid_a_taint_that_only_discourages(solver: str) -> None:
    web = deployment("web", 5, cpu=1000)
    nodes = [node("a", taints=(OLD,)), node("b")]
    given = inputs(snapshot(nodes, [web], pods_of(web, pending=5)), catalogue())
    plan = planned(given, solver)
    # b holds four of the five; one has to go to a: 3/5 of 10,000.
    assert {n.name: n.pods.get(web.key, 0) for n in plan.nodes} == {"a": 1, "b": 4}
    assert plan.objective.preferences_nanousd_per_hour == 6_000


def test_a_pod_that_tolerates_the_taint_takes_that_node(solver: str) -> None:
    shy, bold = deployment("shy", 4, cpu=1000), deployment("bold", 4, cpu=1000)
    tolerant = NodeConstraints(tolerations=(Toleration("old", "Exists"),))
    nodes = [node("a"), node("b", taints=(OLD,))]
    pods = pods_of(shy, pending=4) + pods_of(bold, pending=4, constraints=tolerant)
    plan = planned(inputs(snapshot(nodes, [shy, bold], pods), catalogue()), solver)
    assert {n.name: dict(n.pods) for n in plan.nodes} == {"a": {shy.key: 4}, "b": {bold.key: 4}}
    assert plan.objective.preferences_nanousd_per_hour == 0


def test_no_pod_moves_for_what_it_prefers(solver: str) -> None:
    web = deployment("web", 2, cpu=1000, max_unavailable=1, max_surge=0)
    given = inputs(
        snapshot(
            [node("a", labels=HDD, annotations={"kinema.io/do-not-disrupt": "true"}), node("b", labels=SSD)],
            [web, other := deployment("other", 1, cpu=3000)],
            pods_of(web, {"a": 2}, wishes=(wish("ssd"),)) + pods_of(other, {"b": 1}),
        ),
        catalogue(offering()),
    )
    plan = planned(given, solver)
    # One pod could go to b, which would gain 4,000 for a move of 41,666.
    assert plan.moves == 0
    assert plan.objective.preferences_nanousd_per_hour == 8_000
    # Where a displeased pod costs 2/5 x 200,000 = 80,000, it goes.
    dear = replace(given, preferences=PreferencePrices(200_000, nanousd(1)))
    plan = planned(dear, solver)
    assert plan.moves == 1
    assert plan.objective.preferences_nanousd_per_hour == 80_000


def test_what_no_place_can_give_costs_nothing(solver: str) -> None:
    web, other = deployment("web", 2, cpu=1000), deployment("other", 2, cpu=1000)
    pods = pods_of(web, pending=2, wishes=(wish("tape"),)) + pods_of(other, pending=2)
    plan = planned(inputs(snapshot([], [web, other], pods), catalogue(m4("a", HDD), m4("b", SSD))), solver)
    assert plan.objective.value_nanousd_per_hour == nanousd(0.2)
    # Nor do such pods make the problem larger: all four are of one group.
    assert [g.count for g in plan.certificate.groups] == [4]


def test_pods_without_a_weight_are_as_if_they_wished_nothing() -> None:
    web, other = deployment("web", 2, cpu=1000), deployment("other", 2, cpu=1000)
    pods = pods_of(web, pending=2, wishes=(wish("ssd"),)) + pods_of(other, pending=2)
    given = inputs(
        snapshot([], [web, other], pods), catalogue(m4("a", HDD), m4("b", SSD)), preferences=PreferencePrices(0, 0)
    )
    plan = planned(given)
    assert [g.count for g in plan.certificate.groups] == [4]
    assert plan.objective.value_nanousd_per_hour == nanousd(0.2)


def test_the_many_together_cost_no_more_than_the_ceiling() -> None:
    web = deployment("web", 400, cpu=10, memory_gib=0.01)
    nodes = [node(f"n{i}", labels=HDD) for i in range(4)]
    given = inputs(
        snapshot(nodes, [web], pods_of(web, {n.name: 100 for n in nodes}, wishes=(wish("ssd"),))),
        catalogue(offering(), offering("x", 9.0, labels=SSD)),
        rules=DisruptionRules(max_nodes_changed=0),
    )
    # 1,000,000 / 400 pods = 2,500 for each at most, of which 2/5: 400 x 1,000.
    assert planned(given).objective.preferences_nanousd_per_hour == 400_000


def test_pods_that_stay_where_they_are_count_in_value_and_bound() -> None:
    solo = deployment("solo", 1, kind="Pod")
    nodes = [node("a", labels=HDD), node("b", labels=SSD, unschedulable=True)]
    given = inputs(snapshot(nodes, [], [pod(solo, 0, on="a", wishes=(wish("ssd"),))]), catalogue(offering()))
    plan = planned(given)
    assert plan.objective.preferences_nanousd_per_hour == 4_000
    # Two nodes at 0.2 and the pod's 4,000; the bound is that but for rounding.
    assert plan.objective.value_nanousd_per_hour == 400_004_000
    assert 400_003_000 < plan.objective.lower_bound_nanousd_per_hour <= 400_004_000


def test_pods_change_places_where_it_pleases_both() -> None:
    # 40 of each wish for 20 nodes, of which half have each disk. With so large a gap the first plan that is known, one
    # that packs without regard to wishes, is good enough.
    stays = {"kinema.io/do-not-disrupt": "true"}
    nodes = [node(f"n{i:02}", labels=HDD if i % 2 else SSD, annotations=stays) for i in range(20)]
    left, right = (deployment(name, 40, cpu=1000) for name in ("left", "right"))
    pods = pods_of(left, pending=40, wishes=(wish("ssd"),)) + pods_of(right, pending=40, wishes=(wish("hdd"),))
    plan = planned(inputs(snapshot(nodes, [left, right], pods), catalogue(offering())), target_gap=0.9)
    assert plan.objective.preferences_nanousd_per_hour == 0


@pytest.mark.parametrize("amount", [-1, 1])
def test_a_plan_that_counts_its_preferences_wrongly_is_refused(amount: int) -> None:
    web = deployment("web", 5, cpu=1000)
    given = inputs(snapshot([node("a", taints=(OLD,)), node("b")], [web], pods_of(web, pending=5)), catalogue())
    plan = planned(given)
    wrong = replace(plan, objective=replace(plan.objective, preferences_nanousd_per_hour=6_000 + amount))
    sentence = f"the objective's preferences is {6_000 + amount} in the plan, 6000 recomputed"
    assert sentence in check_placement(wrong, given)


def test_a_plan_of_other_weights_than_its_inputs_is_refused() -> None:
    web = deployment("web", 5, cpu=1000)
    given = inputs(snapshot([node("a", taints=(OLD,)), node("b")], [web], pods_of(web, pending=5)), catalogue())
    plan = planned(given)
    problems = verify(plan, replace(given, preferences=PreferencePrices(5_000, 1_000_000)), 60.0, lambda: 0.0).problems
    assert "preference_nanousd_per_hour is 10000 in the plan, 5000 recomputed" in problems
    assert "the objective's preferences is 6000 in the plan, 3000 recomputed" in problems


def wishing_cluster(seed: int, preferences: PreferencePrices) -> PlanningInputs:
    """Return eight badly packed nodes, of which some have a soft taint, and pods that prefer one zone or two."""
    chance = random.Random(seed)
    given = mixed_cluster(seed)
    zones = [NodeSelectorTerm((Requirement(ZONE, "In", (f"zone-{z}",)),)) for z in "abc"]
    wishes = {
        w.key: tuple(Wish(chance.randint(1, 100), zone) for zone in chance.sample(zones, chance.randint(0, 2)))
        for w in given.snapshot.workloads
    }
    nodes = [replace(n, taints=(OLD,) if chance.random() < 0.3 else ()) for n in given.snapshot.nodes]
    pods = [replace(p, wishes=wishes.get(p.workload, ())) for p in given.snapshot.pods]
    cluster = replace(given.snapshot, nodes=tuple(nodes), pods=tuple(pods))
    return replace(given, snapshot=cluster, preferences=preferences)


@pytest.mark.parametrize("worth", [PreferencePrices(), PreferencePrices(nanousd(0.005), nanousd(1))])
@pytest.mark.parametrize("seed", range(6))
def test_planning_again_on_the_result_changes_nothing(seed: int, worth: PreferencePrices) -> None:
    given = wishing_cluster(seed, worth)
    plan = planned(given)
    again = planned(replace(given, snapshot=after(plan, given), iteration="it-2"))
    assert plan.moves > 0
    assert again.moves == 0
    assert {n.state for n in again.nodes} == {"keep"}


@pytest.mark.parametrize("seed", range(6))
def test_what_a_plan_counts_can_be_told_from_the_plan(seed: int) -> None:
    given = wishing_cluster(seed, PreferencePrices(nanousd(0.005), nanousd(1)))
    plan = planned(given)
    assert plan.objective.preferences_nanousd_per_hour == preferences_nanousd_per_hour(plan, given)
    # A pod that goes from one node of the plan to another counts by what it finds there.
    crowded = max((n for n in plan.nodes if n.state != "remove"), key=lambda n: sum(n.pods.values()))
    key = next(iter(crowded.pods))
    others = [replace(n, pods={**n.pods, key: n.pods.get(key, 0) + 1}) for n in plan.nodes if n.state == "keep"]
    for other in others:
        nodes = [n for n in plan.nodes if n.name not in (crowded.name, other.name)]
        fewer = replace(crowded, pods={**crowded.pods, key: crowded.pods[key] - 1})
        moved = replace(plan, nodes=(*nodes, fewer, other))
        if other.name != crowded.name:
            assert displeasure_range(moved, gather(given)) == (preferences_nanousd_per_hour(moved, given),) * 2


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_pods_that_change_places_break_nothing_and_never_cost_more(seed: int, settled: bool) -> None:
    given = wishing_cluster(seed, PreferencePrices(nanousd(0.005), nanousd(1)))
    problem = build_problem(census_of(movement_of(given)), {})
    start = heuristics.present_state(problem) if seed % 2 else heuristics.empty_cluster(problem)
    packing = heuristics.fill(problem, start, "first")
    found = contented(problem, packing, settled=settled)
    assert found.faults(problem) == []
    before, then = (p.displaced_value(problem) for p in (packing, found))
    assert then <= before
    stayed = [np.minimum(p.contents, problem.present[p.classes]).sum() for p in (packing, found)]
    assert not settled or stayed[1] >= stayed[0]
    # Once more changes nothing.
    assert contented(problem, found, settled=settled).displaced_value(problem) == then
