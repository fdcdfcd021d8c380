"""Golden scenarios small enough to check by hand, on both solvers; m4 costs 0.2 $/h, m8 0.39 $/h unless said.

With the usual prices of change a move costs 0.001 $ / 24 h = 41,666 nanodollars per hour, and the removal of a node
that holds movable pods 15 min / 24 h = 1/96 of its price.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from planner.errors import BadSettings, SolverError
from planner.model.effort import Effort, Progress, Watch
from planner.model.forecast import Forecast
from planner.model.inputs import ChangePrices
from planner.model.machines import Catalogue
from planner.model.plan import Plan
from planner.model.resources import Resources
from planner.model.scheduling import NodeConstraints, Taint, Toleration
from planner.optimizer import optimize
from planner.optimizer.master import Answer, CvxpySolver, Limits, Program
from planner.optimizer.planning import plan_with
from planner.verifier import verify
from tests.building import (
    GIB,
    catalogue,
    daemonset,
    deployment,
    inputs,
    nanousd,
    node,
    offering,
    pod,
    pods_of,
    snapshot,
)
from tests.optimizer.plans import after, mixed_cluster, planned

FREE = ChangePrices(payback_hours=24, move_cost_nanousd=0, boot_overlap_minutes=0)


def booted(plan: Plan) -> list[str]:
    return sorted(n.machine_type for n in plan.nodes if n.state == "boot")


def removed(plan: Plan) -> list[str]:
    return [n.name for n in plan.nodes if n.state == "remove"]


def test_pending_pods_get_the_cheapest_nodes_that_hold_them(solver: str) -> None:
    web = deployment("web", 12, cpu=1000, memory_gib=2)
    plan = planned(
        inputs(
            snapshot([], [web], pods_of(web, pending=12)), catalogue(offering("m4"), offering("m8", 0.39, 8000, 32))
        ),
        solver,
    )
    # 12 CPU: m8 + m4 = 0.39 + 0.2 = 0.59; three m4 = 0.6; two m8 = 0.78.
    assert booted(plan) == ["m4", "m8"]
    assert plan.cost_nanousd_per_hour == nanousd(0.59)
    assert plan.objective.value_nanousd_per_hour == plan.cost_nanousd_per_hour
    assert plan.moves == 0


def test_each_node_is_an_integer_packing_not_a_share_of_a_pool(solver: str) -> None:
    web = deployment("web", 3, cpu=2500)
    plan = planned(inputs(snapshot([], [web], pods_of(web, pending=3)), catalogue(offering("m4"))), solver)
    # 7.5 CPU fit two nodes of 4 CPU as a pool; but one node holds only one pod of 2.5 CPU.
    assert booted(plan) == ["m4", "m4", "m4"]
    # The bound sees it too: a node is worth one pod, so 3 nodes are proven.
    assert plan.objective.status == "optimal"


def test_two_half_empty_nodes_become_one(solver: str) -> None:
    web = deployment("web", 4, cpu=1000, max_unavailable=1, max_surge=0)
    given = inputs(snapshot([node("a"), node("b")], [web], pods_of(web, {"a": 2, "b": 2})), catalogue(offering()))
    plan = planned(given, solver)
    assert len(removed(plan)) == 1
    # 0.2 for the node that stays + 2 moves x 41,666 (rounded down once: 2e6 / 24 = 83,333) + 0.2 / 96 overlap.
    assert plan.objective.value_nanousd_per_hour == 200_000_000 + 83_333 + 2_083_333
    assert plan.objective.status == "optimal"
    assert plan.workloads[web.key].strategy == "evict"


def test_a_roll_out_counts_every_pod_that_it_replaces(solver: str) -> None:
    web = deployment("web", 4, cpu=1000)
    given = inputs(snapshot([node("a"), node("b")], [web], pods_of(web, {"a": 2, "b": 2})), catalogue(offering()))
    plan = planned(given, solver)
    # Surge of one and no pod unavailable: eviction is no way, so all four pods are recreated for the two displaced.
    assert plan.workloads[web.key].strategy == "rollout"
    assert plan.workloads[web.key].moves == 4
    assert plan.objective.moves_nanousd_per_hour == 4_000_000 // 24


def test_a_saving_smaller_than_its_moves_is_left(solver: str) -> None:
    web = deployment("web", 4, cpu=1000, max_unavailable=1, max_surge=0)
    given = inputs(
        snapshot([node("a"), node("b")], [web], pods_of(web, {"a": 2, "b": 2})),
        catalogue(offering()),
        # 2 moves x 2.4 $ / 24 h = 0.2 $/h: as much as the node saves, without the overlap.
        prices=ChangePrices(payback_hours=24, move_cost_nanousd=2_400_000_000, boot_overlap_minutes=15),
    )
    plan = planned(given, solver)
    assert removed(plan) == []
    assert plan.moves == 0
    assert plan.objective.value_nanousd_per_hour == nanousd(0.4)


def test_a_present_state_that_is_best_stays_as_it_is(solver: str) -> None:
    web = deployment("web", 8, cpu=1000)
    given = inputs(snapshot([node("a"), node("b")], [web], pods_of(web, {"a": 4, "b": 4})), catalogue(offering()))
    plan = planned(given, solver)
    assert [n.state for n in plan.nodes] == ["keep", "keep"]
    assert plan.workloads[web.key].strategy == "stay"
    assert plan.objective.value_nanousd_per_hour == nanousd(0.4)
    assert plan.objective.status == "optimal"


def test_an_empty_node_is_removed_for_nothing(solver: str) -> None:
    web = deployment("web", 1, cpu=1000)
    given = inputs(snapshot([node("a"), node("b")], [web], pods_of(web, {"a": 1})), catalogue(offering()))
    plan = planned(given, solver)
    assert removed(plan) == ["b"]
    assert plan.objective.boots_nanousd_per_hour == 0
    assert plan.objective.value_nanousd_per_hour == nanousd(0.2)


def test_pool_maximum_leaves_pending_pods_out_with_a_reason(solver: str) -> None:
    web = deployment("web", 9, cpu=1000)
    given = inputs(snapshot([], [web], pods_of(web, pending=9)), catalogue(offering(pool="p", maximum=2)))
    plan = planned(given, solver)
    # Two nodes of 4 CPU hold 8 of the 9 pods.
    assert booted(plan) == ["m4", "m4"]
    assert plan.unplaced[web.key].count == 1
    assert plan.unplaced[web.key].reason == "a node that would hold it is beyond pool maximum p/zone-a"


def test_pool_that_must_have_a_node_and_may_have_no_other_leaves_pods_out(solver: str) -> None:
    web = deployment("web", 3, cpu=3000)
    given = inputs(snapshot([], [web], pods_of(web, pending=3)), catalogue(offering(pool="p", minimum=1, maximum=1)))
    plan = planned(given, solver)
    # One of 3000 fits 4000.
    assert (booted(plan), plan.unplaced[web.key].count) == (["m4"], 2)


def test_pool_maximum_turns_to_the_dearer_pool(solver: str) -> None:
    web = deployment("web", 12, cpu=1000)
    offers = catalogue(offering(pool="cheap", maximum=2), offering("n4", 0.3, pool="dear"))
    plan = planned(inputs(snapshot([], [web], pods_of(web, pending=12)), offers), solver)
    # 3 nodes of 4 CPU: 2 x 0.2 + 0.3.
    assert plan.cost_nanousd_per_hour == nanousd(0.7)
    assert plan.objective.status == "optimal"


def test_pool_minimum_is_kept_with_empty_nodes(solver: str) -> None:
    web = deployment("web", 1, cpu=1000)
    offers = catalogue(offering(pool="p", minimum=2), offering("n4", 0.1, pool="q"))
    plan = planned(inputs(snapshot([], [web], pods_of(web, pending=1)), offers), solver)
    # The minimum of 2 x 0.2 holds the pod as well, so nothing of the cheaper pool is needed.
    assert [n.pool for n in plan.nodes] == ["p", "p"]
    assert plan.objective.status == "optimal"


def test_pool_minimum_above_its_maximum_is_met_as_far_as_it_can_be(solver: str) -> None:
    web = deployment("web", 1)
    nodes = [node(f"n{i}", pool="p") for i in range(3)]
    offers = catalogue(offering(pool="p", minimum=3, maximum=2), managed_pools=frozenset({"p"}))
    plan = planned(inputs(snapshot(nodes, [web], pods_of(web, on={"n0": 1})), offers), solver)
    # One node would do; of the minimum of 3 the maximum leaves 2 x 0.2.
    assert plan.cost_nanousd_per_hour == nanousd(0.4)
    assert plan.certificate.dropped == ("pool-minimum p/zone-a: 3 nodes, but at most 2 may be had",)


def test_pool_above_its_maximum_may_stay_but_not_grow(solver: str) -> None:
    web = deployment("web", 12, cpu=1000)
    nodes = [node(f"n{i}", pool="p") for i in range(3)]
    offers = catalogue(offering(pool="p", maximum=2), managed_pools=frozenset({"p"}))
    pods = pods_of(web, on={"n0": 4, "n1": 4, "n2": 3}, pending=2)
    plan = planned(inputs(snapshot(nodes, [web], pods), offers), solver)
    # 11 running pods fill three nodes but for one place; the second pending pod would need a fourth node.
    assert [n.state for n in plan.nodes] == ["keep"] * 3
    assert plan.unplaced[web.key].count == 1
    assert plan.unplaced[web.key].reason == "a node that would hold it is beyond pool maximum p/zone-a"
    assert ("pool-maximum", -3) in [(row.kind, row.rhs) for row in plan.certificate.rows]


def test_taint_keeps_pods_without_toleration_away(solver: str) -> None:
    taint = Taint("dedicated", "gpu", "NoSchedule")
    plain = deployment("plain", 2, cpu=1000)
    tolerant = deployment(
        "tolerant", 2, cpu=1000, constraints=NodeConstraints(tolerations=(Toleration("dedicated", "Exists"),))
    )
    offers = catalogue(offering("cheap", 0.1, taints=(taint,)), offering("open", 0.5))
    pods = pods_of(plain, pending=2) + pods_of(tolerant, pending=2)
    plan = planned(inputs(snapshot([], [plain, tolerant], pods), offers), solver)
    # One open node (0.5) must be; it holds all four pods, so the cheap tainted one is not needed.
    assert booted(plan) == ["open"]


def test_node_selector_chooses_the_dearer_machine(solver: str) -> None:
    web = deployment("web", 2, cpu=1000, constraints=NodeConstraints(node_selector=(("disk", "ssd"),)))
    offers = catalogue(offering("m4", 0.1), offering("s4", 0.4, labels={"disk": "ssd"}))
    assert booted(planned(inputs(snapshot([], [web], pods_of(web, pending=2)), offers), solver)) == ["s4"]


def test_daemonset_takes_room_on_every_fresh_node(solver: str) -> None:
    web = deployment("web", 8, cpu=1000)
    agent = daemonset("agent", cpu=100)
    given = inputs(snapshot([], [web], pods_of(web, pending=8), daemonsets=(agent,)), catalogue(offering()))
    # 4000 - 100 = 3900 millicores hold 3 pods of 1000, so 8 pods take 3 nodes; without the agent 2 would do.
    assert booted(planned(given, solver)) == ["m4", "m4", "m4"]


def test_pinned_pod_keeps_its_node_and_others_join_it(solver: str) -> None:
    bare = deployment("bare", 1, cpu=500, kind="Pod")
    web = deployment("web", 2, cpu=1000, max_unavailable=1, max_surge=0)
    pods = [pod(bare, 0, on="a"), *pods_of(web, {"b": 2})]
    plan = planned(inputs(snapshot([node("a"), node("b")], [bare, web], pods), catalogue(offering())), solver)
    # a must stay for the bare pod and has 3.5 CPU left: both pods of web go there, b goes.
    assert removed(plan) == ["b"]
    (kept,) = [n for n in plan.nodes if n.state == "keep"]
    assert kept.pods == {bare.key: 1, web.key: 2}
    assert kept.pod_names == ("default/bare-0",)
    assert "no controller" in kept.reason
    assert plan.workloads[bare.key].strategy == "pinned"
    assert plan.objective.status == "optimal"


def test_node_without_a_price_is_kept_with_its_reason(solver: str) -> None:
    web = deployment("web", 1, cpu=1000)
    given = inputs(snapshot([node("old", "x1")], [web], pods_of(web, {"old": 1})), catalogue(offering()))
    (kept,) = planned(given, solver).nodes
    assert (kept.state, kept.price_nanousd_per_hour) == ("keep", None)
    assert "no price" in kept.reason


def test_cordoned_node_is_frozen_and_counts_in_the_cost(solver: str) -> None:
    web = deployment("web", 2, cpu=1000, max_unavailable=1, max_surge=0)
    nodes = [node("a", unschedulable=True), node("b")]
    plan = planned(inputs(snapshot(nodes, [web], pods_of(web, {"a": 1, "b": 1})), catalogue(offering())), solver)
    frozen = {n.name: n.frozen for n in plan.nodes}
    assert frozen == {"a": True, "b": False}
    assert plan.cost_nanousd_per_hour == nanousd(0.4)


def test_pod_too_large_for_any_machine_is_left_out_with_numbers(solver: str) -> None:
    giant = deployment("giant", 1, cpu=64_000)
    web = deployment("web", 1, cpu=1000)
    pods = pods_of(giant, pending=1) + pods_of(web, pending=1)
    plan = planned(
        inputs(snapshot([], [giant, web], pods), catalogue(offering(), offering("m8", 0.39, 8000, 32))), solver
    )
    assert plan.unplaced[giant.key].count == 1
    assert plan.unplaced[giant.key].reason == ("requests 64 CPU; the largest offering that admits it, m8, has 8 free")
    assert booted(plan) == ["m4"]


def test_pod_that_asks_for_more_than_64_bits_hold_is_left_out(solver: str) -> None:
    # A quantity is capped at 2^63 - 1; two containers at the cap ask for twice as much.
    huge = deployment("huge", 1, requests=Resources(500, 2**64 - 2, 1))
    plan = planned(inputs(snapshot([], [huge], pods_of(huge, pending=1)), catalogue(offering())), solver)
    assert (plan.nodes, plan.unplaced[huge.key].count) == ((), 1)


def test_pending_pod_with_an_unmodelled_constraint_is_left_out_by_name(solver: str) -> None:
    web = deployment("web", 1)
    pods = pods_of(web, pending=1, unmodelled=("podAntiAffinity",))
    plan = planned(inputs(snapshot([], [web], pods), catalogue(offering())), solver)
    assert plan.unplaced[web.key].reason == "not modelled yet: podAntiAffinity"
    assert plan.nodes == ()


def test_forecast_is_planned_with_where_a_roll_out_can_bring_it(solver: str) -> None:
    web = deployment("web", 4, cpu=1000, memory_gib=1)
    less = Forecast(requests={web.key: {"main": Resources(500, GIB)}})
    given = inputs(
        snapshot([node("a"), node("b")], [web], pods_of(web, {"a": 2, "b": 2})),
        catalogue(offering(), offering("m2", 0.1, 2000, 8)),
        forecast=less,
    )
    plan = planned(given, solver)
    # 4 x 0.5 CPU fit one m2.
    assert booted(plan) == ["m2"]
    assert plan.workloads[web.key].requests.cpu_millicores == 500
    assert plan.workloads[web.key].strategy == "rollout"


def test_forecast_of_a_stateful_set_is_left_out_with_a_reason(solver: str) -> None:
    db = deployment("db", 2, cpu=1000, kind="StatefulSet")
    more = Forecast(requests={db.key: {"main": Resources(3000, GIB)}})
    given = inputs(snapshot([node("a")], [db], pods_of(db, {"a": 2})), catalogue(offering()), forecast=more)
    plan = planned(given, solver)
    assert plan.workloads[db.key].requests == plan.workloads[db.key].requests_before
    assert plan.workloads[db.key].reason == "it cannot be rolled out"


def test_workload_with_a_pinned_pod_is_never_rolled_out(solver: str) -> None:
    web = deployment("web", 4, cpu=1000)
    pods = pods_of(web, {"a": 2, "b": 2})
    pods[0] = replace(pods[0], annotations={"kinema.io/do-not-disrupt": "true"})
    plan = planned(inputs(snapshot([node("a"), node("b")], [web], pods), catalogue(offering())), solver)
    # It may only surge, and a roll-out would replace the pinned pod: so nothing of it moves, and both nodes stay.
    assert removed(plan) == []
    assert plan.workloads[web.key].strategy == "pinned"
    assert all(n.pod_names for n in plan.nodes)


def test_held_workload_stays_and_the_bound_does_without_the_hold(solver: str) -> None:
    web = deployment("web", 4, cpu=1000, max_unavailable=1, max_surge=0)
    given = inputs(
        snapshot([node("a"), node("b")], [web], pods_of(web, {"a": 2, "b": 2})),
        catalogue(offering()),
        held={web.key: "no order of stages could move it"},
    )
    plan = planned(given, solver)
    assert removed(plan) == []
    # Without the hold one node would do for 0.2 + 2 moves + overlap: that is all the bound may claim.
    assert plan.objective.lower_bound_nanousd_per_hour <= 200_000_000 + 83_333 + 2_083_333
    assert plan.objective.status == "feasible"


def test_workload_that_may_stand_on_new_nodes_only_leaves_the_present_ones(solver: str) -> None:
    web, other = deployment("web", 2, cpu=1000), deployment("other", 1, cpu=1000)
    cluster = snapshot([node("a"), node("b")], [web, other], pods_of(web, {"a": 1, "b": 1}) + pods_of(other, {"a": 1}))
    # One node holds all: "a" for 0.2, two moves (web rolls) and the overlap of b; a new one for a move and a's overlap
    # more.
    kept = planned(inputs(cluster, catalogue(offering())), solver)
    assert kept.objective.value_nanousd_per_hour == 200_000_000 + 83_333 + 2_083_333
    fresh = planned(inputs(cluster, catalogue(offering()), fresh=frozenset({web.key})), solver)
    assert fresh.objective.value_nanousd_per_hour == 200_000_000 + 125_000 + 2 * 2_083_333
    assert [dict(n.pods) for n in fresh.nodes if n.state == "boot"] == [{other.key: 1, web.key: 2}]
    # What the planner chose itself is no part of the problem: the bound is that of the first plan.
    assert fresh.objective.lower_bound_nanousd_per_hour <= kept.objective.value_nanousd_per_hour


def test_pod_of_a_vanished_node_is_placed_anew(solver: str) -> None:
    web = deployment("web", 1, cpu=1000)
    given = inputs(snapshot([], [web], pods_of(web, {"gone": 1})), catalogue(offering()))
    plan = planned(given, solver)
    assert booted(plan) == ["m4"]
    assert plan.moves == 0


def test_pod_of_a_vanished_node_is_placed_anew_though_the_others_are_stuck(solver: str) -> None:
    web = deployment("web", 2)  # surges only, and a roll-out would also replace the opted-out pod
    stays = pod(web, 0, on="a", annotations={"kinema.io/do-not-disrupt": "true"})
    lost = pod(web, 1, on="gone")
    plan = planned(inputs(snapshot([node("a")], [web], [stays, lost]), catalogue(offering())), solver)
    assert {n.name: dict(n.pods) for n in plan.nodes} == {"a": {web.key: 2}}


def test_empty_cluster_needs_nothing(solver: str) -> None:
    plan = planned(inputs(snapshot(), catalogue(offering())), solver)
    assert plan.nodes == ()
    assert plan.objective.status == "optimal"


def test_where_every_node_is_frozen_and_nothing_is_on_offer_all_stays(solver: str) -> None:
    web = deployment("web", 1)
    cluster = snapshot([node("a", pool="p", unschedulable=True)], [web], pods_of(web, on={"a": 1}))
    plan = planned(inputs(cluster, Catalogue(catalogue(offering()).machines, ())), solver)
    assert {n.name: (n.state, dict(n.pods)) for n in plan.nodes} == {"a": ("keep", {web.key: 1})}
    assert plan.objective.status == "optimal"


def test_booted_nodes_have_names_that_are_labels_and_not_taken() -> None:
    web = deployment("web", 8, cpu=1000)
    taken = node("m4-it-1-0")
    given = inputs(snapshot([taken], [web], pods_of(web, {"m4-it-1-0": 4}, pending=4)), catalogue(offering()))
    assert [n.name for n in planned(given).nodes] == ["m4-it-1-0", "m4-it-1-1"]


def test_unknown_solver_is_refused_with_those_that_are_installed() -> None:
    given = inputs(snapshot(), catalogue(offering()))
    with pytest.raises(BadSettings, match=r"'CPLEX'.*GLPK_MI, HIGHS"):
        optimize(given, Effort(solver="CPLEX"), Watch(lambda: 0.0, lambda progress: None))


def test_any_other_mixed_integer_solver_of_cvxpy_can_be_named() -> None:
    web = deployment("web", 12, cpu=1000, memory_gib=2)
    offers = catalogue(offering("m4"), offering("m8", 0.39, 8000, 32))
    plan = planned(inputs(snapshot([], [web], pods_of(web, pending=12)), offers), "SCIPY")
    assert plan.cost_nanousd_per_hour == nanousd(0.59)


def test_time_limit_that_is_over_at_once_still_gives_a_plan_and_its_true_gap() -> None:
    given = mixed_cluster(3)
    ticks = itertools.count()
    watch = Watch(now=lambda: float(next(ticks)), report=lambda progress: None)
    plan = optimize(given, Effort(time_limit_seconds=0.5), watch)
    assert verify(plan, given, 60.0, lambda: 0.0).problems == ()
    assert plan.objective.value_nanousd_per_hour <= plan.current_cost_nanousd_per_hour


class Late(CvxpySolver):
    """HiGHS, and a clock that jumps past every time limit during its n-th call."""

    def __init__(self, jump: int) -> None:
        super().__init__("HIGHS")
        self.calls, self._jump = 0, jump

    def solve(self, program: Program, limits: Limits) -> Answer:
        self.calls += 1
        return super().solve(program, limits)

    def now(self) -> float:
        return 1e6 if self.calls >= self._jump else 0.0


@pytest.mark.parametrize("jump", range(1, 9))
def test_once_the_time_is_over_the_solver_is_not_asked_again(jump: int) -> None:
    given = mixed_cluster(3)
    late = Late(jump)
    plan = plan_with(late, given, Effort(target_gap=0.0), Watch(now=late.now, report=lambda _: None))
    # The first three calls are relaxations. The first of them, and the plan near it, come whatever the time; so to a
    # jump in one of the three only the call for that plan is added.
    assert late.calls == jump + (jump <= 3)
    assert verify(plan, given, 60.0, lambda: 0.0).problems == ()


def test_progress_never_gets_worse() -> None:
    told: list[Progress] = []
    ticks = itertools.count()
    optimize(mixed_cluster(4), Effort(), Watch(lambda: next(ticks) * 1e-4, told.append))
    values = [p.value_nanousd_per_hour for p in told if p.value_nanousd_per_hour is not None]
    bounds = [p.lower_bound_nanousd_per_hour for p in told if p.lower_bound_nanousd_per_hour is not None]
    assert len(told) > 2
    assert values == sorted(values, reverse=True)
    assert bounds == sorted(bounds)


def test_running_pods_that_fit_nowhere_are_no_plan() -> None:
    web = deployment("web", 2, cpu=2000)
    more = Forecast(requests={web.key: {"main": Resources(5000, GIB)}})
    given = inputs(snapshot([node("a")], [web], pods_of(web, {"a": 2})), catalogue(offering()), forecast=more)
    with pytest.raises(SolverError, match="a running pod has no place"):
        planned(given)


@pytest.mark.parametrize("seed", range(4))
def test_order_of_the_objects_does_not_matter(seed: int) -> None:
    given = mixed_cluster(seed)
    shuffled = random.Random(seed)
    fields = {
        name: tuple(shuffled.sample(getattr(given.snapshot, name), len(getattr(given.snapshot, name))))
        for name in ("nodes", "pods", "workloads", "daemonsets")
    }
    offers = tuple(shuffled.sample(given.catalogue.offerings, len(given.catalogue.offerings)))
    other = replace(
        given,
        snapshot=replace(given.snapshot, **fields),
        catalogue=Catalogue(given.catalogue.machines, offers, given.catalogue.managed_pools),
    )
    assert replace(planned(other), timings_seconds={}) == replace(planned(given), timings_seconds={})


@pytest.mark.parametrize("seed", range(6))
def test_planning_again_on_the_result_changes_nothing(seed: int) -> None:
    given = mixed_cluster(seed)
    plan = planned(given)
    again = planned(replace(given, snapshot=after(plan, given), iteration="it-2"))
    assert plan.moves > 0
    assert again.moves == 0
    assert {n.state for n in again.nodes} == {"keep"}
    assert again.objective.value_nanousd_per_hour == plan.cost_nanousd_per_hour
