"""The cap on nodes' predicted CPU, in clusters small enough to check by hand.

m4 costs 0.2 $/h and has 4 CPU and 16 GiB. A move costs 41,666 nanodollars per hour, the removal of a node that holds
movable pods 1/96 of its price.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from planner.model.cluster import Node, Pod
from planner.model.disruption import DisruptionRules
from planner.model.inputs import PlanningInputs
from planner.model.machines import Catalogue, TotalLimits
from planner.model.plan import Plan
from planner.model.plan_json import decode_plan, encode_plan
from tests.building import (
    capped,
    catalogue,
    daemonset,
    daemonset_pod,
    deployment,
    inputs,
    node,
    offering,
    pod,
    pods_of,
    resources,
    snapshot,
)
from tests.optimizer.plans import after, mixed_cluster, planned

WEB = "default/StatefulSet/web"
STOCK = "default/StatefulSet/stock"


def nothing_to_buy() -> Catalogue:
    return Catalogue(catalogue(offering()).machines, ())


def use(plan: Plan) -> dict[str, tuple[int | None, int | None]]:
    """Return what the pods of each node use, before and after, in millicores."""
    return {n.name: (n.predicted_cpu_before_millicores, n.predicted_cpu_millicores) for n in plan.nodes}


def above(plan: Plan) -> dict[str, int]:
    assert plan.objective.cap is not None
    return dict(plan.objective.cap.allowed_millicores)


def test_nodes_are_filled_to_the_cap_and_not_to_their_allocatable(solver: str) -> None:
    web = deployment("web", 8, cpu=500, kind="StatefulSet")
    given = inputs(snapshot([], [web], pods_of(web, pending=8)), catalogue(offering()))
    # 8 x 500m are 4 CPU: one node. Each uses 600m, and 0.7 x 4 CPU are 2.8: four pods with 2.4 on each of two nodes.
    plan = planned(capped(given, 700, web=600), solver)
    assert planned(given, solver).cost_nanousd_per_hour == 200_000_000
    assert plan.cost_nanousd_per_hour == 400_000_000
    assert list(use(plan).values()) == [(0, 2400), (0, 2400)]
    assert plan.objective.name == "cost under cpu utilization <= 0.7"
    assert plan.objective.status == "optimal"
    (group,) = plan.certificate.groups
    assert group.requests == resources(500, 1, 1, **{"kinema.io/predicted-cpu-millicores": 600})


def test_pods_of_equal_requests_are_mixed_by_what_they_use(solver: str) -> None:
    busy = deployment("busy", 4, cpu=500, kind="StatefulSet")
    idle = deployment("idle", 4, cpu=500, kind="StatefulSet")
    pods = pods_of(busy, pending=4) + pods_of(idle, pending=4)
    given = inputs(snapshot([], [busy, idle], pods), catalogue(offering("m4"), offering("m2", 0.11, 2000, 8)))
    # At most 0.5 x 4 CPU = 2 on an m4 and 1 on an m2. 4 x 900m + 4 x 100m are 4 CPU: two m4 (0.4) or m4 and two m2
    # (0.42), each with a busy pod and an idle one for each CPU.
    plan = planned(capped(given, 500, busy=900, idle=100), solver)
    assert plan.cost_nanousd_per_hour == 400_000_000
    assert [dict(n.pods) for n in plan.nodes] == [{busy.key: 2, idle.key: 2}] * 2


def test_a_node_above_the_cap_is_relieved_by_the_fewest_moves(solver: str) -> None:
    web = deployment("web", 7, cpu=500, kind="StatefulSet")
    given = inputs(snapshot([node("a")], [web], pods_of(web, {"a": 7})), catalogue(offering()))
    plan = planned(capped(given, 700, web=600), solver)
    # 7 x 600m = 4.2 CPU. Four stay with 2.4 of at most 2.8; three move: 0.4 + 3 x 1e6 / 24.
    assert sorted(n.pods[WEB] for n in plan.nodes) == [3, 4]
    assert use(plan)["a"] == (4200, 2400)
    assert plan.objective.value_nanousd_per_hour == 400_000_000 + 3_000_000 // 24
    assert above(plan) == {}


def test_what_no_node_takes_under_the_cap_stays_and_others_leave(solver: str) -> None:
    hot = deployment("hot", 1, cpu=1000, kind="StatefulSet", max_unavailable=1)
    web = deployment("web", 2, cpu=500, kind="StatefulSet")
    pods = [*pods_of(hot, {"a": 1}), *pods_of(web, {"a": 2})]
    given = inputs(snapshot([node("a")], [hot, web], pods), catalogue(offering()))
    given = replace(given, rules=DisruptionRules(unavailability_ceiling=1.0))
    plan = planned(capped(given, 700, hot=3000, web=600), solver)
    # 3 CPU are more than 0.7 x 4 on any m4: hot stays, and web gets a node of its own.
    assert {n.name == "a": dict(n.pods) for n in plan.nodes} == {True: {hot.key: 1}, False: {WEB: 2}}
    assert use(plan)["a"] == (4200, 3000)
    assert above(plan) == {"a": 3000}


def test_a_larger_machine_takes_what_is_too_much_for_a_small_one(solver: str) -> None:
    hot = deployment("hot", 1, cpu=1000, kind="StatefulSet")
    given = inputs(
        snapshot([node("a")], [hot], pods_of(hot, {"a": 1})), catalogue(offering(), offering("m8", 0.39, 8000, 32))
    )
    given = replace(given, rules=DisruptionRules(unavailability_ceiling=1.0))
    plan = planned(capped(given, 700, hot=3000), solver)
    # 3 CPU are within 0.7 x 8.
    assert [(n.state, n.machine_type) for n in plan.nodes] == [("remove", "m4"), ("boot", "m8")]
    assert above(plan) == {}


def test_where_nothing_can_be_bought_the_present_state_is_the_plan_and_says_so(solver: str) -> None:
    web = deployment("web", 7, cpu=500, kind="StatefulSet")
    given = inputs(snapshot([node("a")], [web], pods_of(web, {"a": 7})), nothing_to_buy())
    plan = planned(capped(given, 700, web=600), solver)
    assert plan.moves == 0
    assert use(plan) == {"a": (4200, 4200)}
    assert above(plan) == {"a": 4200}
    assert plan.objective.status == "optimal"


def test_pods_that_must_stay_use_of_the_cap_what_they_use(solver: str) -> None:
    agent = daemonset("agent", cpu=100)
    solo = deployment("solo", 1, cpu=500, kind="Pod")
    web = deployment("web", 4, cpu=500, kind="StatefulSet")
    pods = [daemonset_pod(agent, "a"), pod(solo, 0, on="a"), *pods_of(web, pending=4)]
    given = inputs(snapshot([node("a")], [web], pods, daemonsets=(agent,)), catalogue(offering()))
    plan = planned(capped(given, 700, agent=300, solo=1600, web=400), solver)
    # On "a" 2.8 - 0.3 - 1.6 = 0.9 CPU are left: two pods. A new node has its own agent, and room for six.
    assert {n.name == "a": n.pods[WEB] for n in plan.nodes} == {True: 2, False: 2}
    assert sorted(use(plan).values()) == [(0, 300 + 2 * 400), (300 + 1600, 300 + 1600 + 2 * 400)]


def test_a_node_above_the_cap_by_pods_that_must_stay_takes_no_others(solver: str) -> None:
    solo = deployment("solo", 1, cpu=500, kind="Pod")
    web = deployment("web", 2, cpu=500, kind="StatefulSet")
    pods = [pod(solo, 0, on="a"), *pods_of(web, {"a": 1}, pending=1)]
    given = inputs(snapshot([node("a")], [web], pods), catalogue(offering()))
    plan = planned(capped(given, 700, solo=3000, web=100), solver)
    # 3 CPU stay on "a", above its 2.8, so that the pod of web leaves, and the pending one does not come.
    assert {n.name == "a": dict(n.pods) for n in plan.nodes} == {True: {solo.key: 1}, False: {WEB: 2}}
    assert above(plan) == {"a": 3000}


def test_pods_that_use_nothing_may_come_to_a_node_above_the_cap(solver: str) -> None:
    solo = deployment("solo", 1, cpu=500, kind="Pod")
    web = deployment("web", 2, cpu=500, kind="StatefulSet")
    pods = [pod(solo, 0, on="a"), *pods_of(web, {"a": 1}, pending=1)]
    given = inputs(snapshot([node("a")], [web], pods), catalogue(offering()))
    plan = planned(capped(given, 700, solo=3000, web=0), solver)
    assert [n.pods[WEB] for n in plan.nodes] == [2]


def test_a_pending_pod_that_the_cap_keeps_out_says_so(solver: str) -> None:
    hot = deployment("hot", 1, cpu=1000, kind="StatefulSet")
    given = inputs(snapshot([node("a")], [hot], pods_of(hot, pending=1)), catalogue(offering()))
    plan = planned(capped(given, 700, hot=2900), solver)
    reason = "is predicted to use 2.9 CPU; under the cap the largest offering that admits it, m4, has 2.8 left"
    assert plan.unplaced[hot.key].reason == reason


def test_frozen_nodes_are_no_part_of_the_cap(solver: str) -> None:
    web = deployment("web", 7, cpu=500, kind="StatefulSet")
    given = inputs(snapshot([node("a", unschedulable=True)], [web], pods_of(web, {"a": 7})), catalogue(offering()))
    plan = planned(capped(given, 700, web=600), solver)
    assert use(plan) == {"a": (4200, 4200)}
    assert (above(plan), plan.moves) == ({}, 0)


def test_any_number_of_nodes_is_replaced_by_any_other_in_one_plan(solver: str) -> None:
    web = deployment("web", 12, cpu=500, kind="StatefulSet", max_unavailable=1)
    nodes = [node("a", zone="zone-a"), node("b", zone="zone-b"), node("c", zone="zone-b")]
    pods = pods_of(web, {"a": 7, "b": 4, "c": 1})
    offers = (offering("m8", 0.3, 8000, 32, zone=f"zone-{z}") for z in "ab")
    # 12 x 600m = 7.2 CPU: 9 pods on an m8 (5.4 of 5.6), 4 on an m4 (2.4 of 2.8). m8 + m4 is the least, with b as it is:
    # 0.3 + 0.2 + 8 moves + a's and c's overlap.
    sold = catalogue(*offers)
    sold = replace(sold, machines=sold.machines | catalogue(offering()).machines)
    plan = planned(capped(inputs(snapshot(nodes, [web], pods), sold), 700, web=600), solver)
    states = sorted((n.state, n.machine_type, n.pods.get(WEB, 0)) for n in plan.nodes)
    assert states == [("boot", "m8", 8), ("keep", "m4", 4), ("remove", "m4", 0), ("remove", "m4", 0)]
    assert plan.objective.value_nanousd_per_hour == 500_000_000 + 8_000_000 // 24 + 2 * (200_000_000 // 96)


def test_relief_that_only_an_exchange_of_nodes_gives_is_found(solver: str) -> None:
    # Drawn by chance: neither first fit nor best fit finds it, for at most three nodes may be there and two change.
    w0 = deployment("w0", 3, 900, 2, kind="StatefulSet")
    w1 = deployment("w1", 2, 500, 1, kind="StatefulSet")
    nodes = [node("n0", "s", 2000, 4), node("n1", "m", 4000, 10), node("n2", "s", 2000, 4)]
    pods = pods_of(w0, {"n2": 1, "n1": 1}, pending=1) + pods_of(w1, {"n1": 2})
    sold = catalogue(offering("s", 0.11, 2000, 4), offering("m", 0.2, 4000, 10), offering("l", 0.31, 6000, 12))
    given = inputs(snapshot(nodes, [w0, w1], pods), replace(sold, total=TotalLimits(nodes=3)))
    given = replace(given, rules=DisruptionRules(max_nodes_changed=2))
    plan = planned(capped(given, 800, w0=2100, w1=700), solver)
    # w0 needs 2.1 CPU of use for each pod: one on the m (3.2 at most), two on an l (4.8); w1 beside the first.
    assert (above(plan), dict(plan.unplaced)) == ({}, {})


@pytest.mark.parametrize("seed", range(6))
def test_planning_again_on_the_result_changes_nothing(seed: int) -> None:
    given = under_some_cap(mixed_cluster(seed), seed)
    plan = planned(given)
    again = planned(replace(given, snapshot=after(plan, given), iteration="it-2"))
    assert plan.moves > 0
    assert again.moves == 0
    assert {n.state for n in again.nodes} == {"keep"}
    assert again.objective.value_nanousd_per_hour == plan.cost_nanousd_per_hour
    assert above(again) == above(plan)


def under_some_cap(given: PlanningInputs, seed: int) -> PlanningInputs:
    """Return the inputs under a cap of 0.6 with usage by chance: nearly nothing, or twice the requests."""
    chance = random.Random(seed)
    names = sorted({p.workload.split("/")[2] for p in given.snapshot.pods})
    requests = {p.workload.split("/")[2]: p.requests.cpu_millicores for p in given.snapshot.pods}
    return capped(given, 600, **{name: int(requests[name] * chance.choice((0.1, 0.5, 1, 2))) for name in names})


def test_a_plan_under_a_cap_is_the_same_after_json() -> None:
    given = under_some_cap(mixed_cluster(2), 2)
    plan = planned(given)
    assert decode_plan(encode_plan(plan), "plan") == plan


def test_what_is_rounded_up_makes_few_kinds_of_pods() -> None:
    many = [deployment(f"w{i}", 1, cpu=500, kind="StatefulSet") for i in range(60)]
    pods: list[Pod] = [p for load in many for p in pods_of(load, pending=1)]
    empty: list[Node] = []
    given = inputs(snapshot(empty, many, pods), catalogue(offering()))
    # 301m to 360m are 310m, 320m, … 360m: six groups of ten pods.
    plan = planned(capped(given, 700, **{f"w{i}": 301 + i for i in range(60)}))
    assert [g.count for g in plan.certificate.groups] == [10] * 6
