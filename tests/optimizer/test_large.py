"""What makes large clusters quick: cut pods and nodes, pooled nodes, an earlier plan. None of it may cost the truth."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner.model.effort import Effort, Watch
from planner.model.inputs import PlanningInputs
from planner.optimizer import planning
from planner.optimizer.census import census_of
from planner.optimizer.constraints import IntArray
from planner.optimizer.continuing import packing_as, prices_as
from planner.optimizer.fluid import Fluid, fluid
from planner.optimizer.heuristics import deal, fill, present_state, repaired, topped_up
from planner.optimizer.master import Answer, Columns, CvxpySolver, Limits, Program, Solver
from planner.optimizer.movement import movement_of
from planner.optimizer.packing import Packing
from planner.optimizer.planning import plan_with
from planner.optimizer.pooling import given_out, pooled
from planner.optimizer.problem import Problem, build_problem
from planner.optimizer.search import Search
from planner.verifier import verify
from tests.building import catalogue, deployment, inputs, node, offering, pods_of, snapshot
from tests.optimizer.plans import after, mixed_cluster, planned

SOLVER = CvxpySolver("HIGHS")


def problem_of(given: PlanningInputs) -> Problem:
    return build_problem(census_of(movement_of(given)), {})


def relaxation(problem: Problem) -> Callable[[IntArray, Columns], Fluid | None]:
    return lambda cut, whole: fluid(problem, cut, SOLVER, 10.0, whole=whole)


def cut_plan(problem: Problem, filled: float = 1.0) -> Fluid:
    cut = fluid(problem, np.unique(problem.dominators()), SOLVER, 10.0, filled)
    assert cut is not None
    return cut


def test_where_pods_may_be_cut_a_resource_is_worth_what_the_cheapest_machine_asks_for_it() -> None:
    # Ten pods of 1 CPU and no memory; m4 has 4 CPU for 0.2 $/h, so that a CPU is worth 0.05 $/h.
    web = deployment("web", 10, cpu=1000, memory_gib=0)
    given = inputs(snapshot([], [web], pods_of(web, pending=10)), catalogue(offering(price_usd=0.2)))
    cut = cut_plan(problem_of(given))
    # 50,000,000 nanodollars and the move that each pending pod pays, 41,666.
    assert cut.pods.tolist() == pytest.approx([50_041_666])
    # 10 CPU are two and a half nodes.
    assert cut.nodes.tolist() == pytest.approx([2.5])
    assert cut.shares.tolist() == [pytest.approx([10.0])]


@pytest.mark.parametrize("seed", range(6))
def test_the_bound_where_pods_may_be_cut_is_below_every_plan(seed: int) -> None:
    given = mixed_cluster(seed)
    search = Search(problem_of(given), SOLVER, lambda: 10.0)
    before = search.proof.value
    search.start_at(relaxation(search.problem))
    assert before < search.proof.value <= planned(given).objective.value_nanousd_per_hour


def pods_that_fill_no_node() -> Problem:
    """Pods of 3 CPU: two fit into an m8, one into an m4, and m8 costs 1.9 times as much; the third is too dear."""
    web = deployment("web", 8, cpu=3000, memory_gib=1)
    offers = catalogue(offering(), offering("m8", 0.38, cpu=8000), offering("dear", 2.0, cpu=8000, memory_gib=64))
    return problem_of(inputs(snapshot([], [web], pods_of(web, pending=8)), offers))


def test_before_anything_is_priced_pods_that_wait_are_known_to_cost_no_less_than_nothing() -> None:
    # To come somewhere costs each of the ten 41,666 nanodollars per hour, which count as no move.
    web = deployment("web", 10, cpu=1000, memory_gib=0)
    given = inputs(snapshot([], [web], pods_of(web, pending=10)), catalogue(offering(price_usd=0.2)))
    proof = Search(problem_of(given), SOLVER, lambda: 10.0).proof
    assert proof.pod_prices.tolist() == [41_666]
    assert proof.value == 0


def test_nodes_that_no_whole_pods_fill_are_not_cut_in_the_bound() -> None:
    # Cut, 8 pods fill three m8 (8 x 3 / 8), 3 x 0.38 = 1.14 $/h; whole, two to an m8, they need four, 4 x 0.38 = 1.52.
    problem = pods_that_fill_no_node()
    assert float(8 * cut_plan(problem).pods[0]) == pytest.approx(1_140_000_000 + 8 * 41_666, rel=1e-6)
    search = Search(problem, SOLVER, lambda: 10.0)
    search.start_at(relaxation(problem))
    # What pods pay that come anew is no part of the bound.
    assert search.proof.value == pytest.approx(1_520_000_000, rel=1e-3)


def test_no_further_relaxation_is_solved_that_would_take_most_of_what_is_left() -> None:
    # Each takes a second: after the first of four the next three would be all that is left.
    problem, asked = pods_that_fill_no_node(), list[float]()
    solve = relaxation(problem)

    def slow(cut: IntArray, whole: Columns) -> Fluid | None:
        asked.append(1.0)
        return solve(cut, whole)

    search = Search(problem, SOLVER, lambda: 4.0 - sum(asked))
    search.start_at(slow)
    assert len(asked) == 1
    assert search.proof.value == pytest.approx(1_140_000_000, rel=1e-3)


@pytest.mark.parametrize(("seconds_each", "dealt"), [(1.0, 5), (4.0, 1)])
def test_no_further_plan_is_dealt_that_would_take_more_than_is_left(
    seconds_each: float, dealt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Six of ten seconds are for dealing. Five plans of a second each end in time; after one of four, two seconds are
    # left.
    ticks = itertools.count()
    fills: list[float] = []

    def slow(problem: Problem, cut: IntArray, solver: Solver, seconds: float, filled: float = 1.0, **more: Any) -> Any:
        if filled < 1.0:
            fills.append(filled)
        return fluid(problem, cut, solver, seconds, filled, **more)

    monkeypatch.setattr(planning, "fluid", slow)
    watch = Watch(lambda: next(ticks) * 1e-4 + seconds_each * len(fills), lambda _: None)
    plan_with(SOLVER, mixed_cluster(3), Effort("HIGHS", 10.0, 0.0), watch)
    assert len(fills) == dealt


def test_the_bound_gives_nodes_with_less_room_no_more_than_their_own_worth() -> None:
    # Both nodes have to stay, 0.2 $/h each; "a" has room for one pod of 1 CPU, "b" for four. The relaxation sees the
    # mean of 2.5 CPU and prices both alike, 0.125 $/h beside the 0.05 $/h that a CPU costs on a new node. Ten pods
    # wait: five go to new nodes, 5 x 0.05 $/h. To count "a" at the mean would lose 0.125 - 0.05 = 0.075 $/h.
    web, big, small = (
        deployment("web", 10, cpu=1000, memory_gib=0),
        deployment("big", 1, cpu=3000, memory_gib=0, kind="Pod"),
        deployment("small", 1, cpu=0, memory_gib=0, kind="Pod"),
    )
    pods = [*pods_of(web, pending=10), *pods_of(big, {"a": 1}), *pods_of(small, {"b": 1})]
    problem = problem_of(inputs(snapshot([node("a"), node("b")], [web, big, small], pods), catalogue(offering())))
    search = Search(problem, SOLVER, lambda: 10.0)
    search.start_at(relaxation(problem))
    assert search.proof.value == pytest.approx(2 * 200_000_000 + 5 * 50_000_000, rel=1e-5)


def test_pods_that_nothing_admits_are_cut_to_nothing() -> None:
    web = deployment("web", 2, cpu=9000)
    given = inputs(snapshot([], [web], pods_of(web, pending=2)), catalogue(offering()))
    assert fluid(problem_of(given), np.arange(1), SOLVER, 10.0) is None


def test_pods_of_the_cut_plan_are_dealt_to_nodes_that_stay_with_what_they_hold() -> None:
    # Five nodes of 4 CPU hold one pod of 1 CPU each but for the last, which holds three. Two nodes are enough: the
    # fullest stays, gets one pod, and one more node stays with its pod and gets the other three.
    web = deployment("web", 7, cpu=1000, memory_gib=0)
    names = ["a", "b", "c", "d", "e"]
    cluster = snapshot([node(name) for name in names], [web], pods_of(web, dict.fromkeys(names, 1) | {"e": 3}))
    problem = problem_of(inputs(cluster, catalogue(offering(price_usd=0.2))))
    cut = cut_plan(problem)
    dealt = repaired(problem, deal(problem, cut.kinds, cut.nodes, cut.shares))
    assert dealt.faults(problem) == []
    assert sorted(dealt.contents.sum(axis=1).tolist()) == [3, 4]
    # Three of the seven pods stay on "e", and one on the other node.
    assert problem.moves(dealt.classes, dealt.contents).sum() == 3 * problem.move_prices[0]


@pytest.mark.parametrize("seed", range(6))
def test_nodes_that_stay_are_filled_up_and_keep_what_they_hold(seed: int) -> None:
    problem = problem_of(mixed_cluster(seed))
    found = list(topped_up(problem, lambda: False))
    assert len(found) == 3
    for packing in found:
        assert packing.faults(problem) == []
        kept = [k for k in packing.classes.tolist() if problem.classes[k].role == "kept"]
        assert sorted(kept) == sorted(k for k, c in enumerate(problem.classes) for _ in c.nodes if c.role == "kept")


@pytest.mark.parametrize("nodes", [1, 2])
def test_what_is_filled_up_is_left_as_it_was(nodes: int) -> None:
    # Each m4 has 4 CPU and one pod of 1; four more wait.
    names = [f"n{i}" for i in range(nodes)]
    web = deployment("web", nodes + 4, cpu=1000, memory_gib=0)
    pods = pods_of(web, dict.fromkeys(names, 1), pending=4)
    problem = problem_of(inputs(snapshot([node(n) for n in names], [web], pods), catalogue(offering())))
    start = present_state(problem)
    filled = fill(problem, start, "best")
    assert int(filled.contents.sum()) == nodes + 4
    assert start.contents.sum(axis=1).tolist() == [1] * nodes


def test_one_plan_of_nodes_that_stay_is_made_however_little_time_there_is() -> None:
    assert len(list(topped_up(problem_of(mixed_cluster(1)), lambda: True))) == 1


def test_existing_nodes_of_equal_kind_are_one_class_whatever_they_hold() -> None:
    problem = problem_of(mixed_cluster(1))
    few, became = pooled(problem)
    existing = [c for c in few.classes if c.role != "offering"]
    # Eight nodes of one type in three zones; one holds nothing, so that its removal costs nothing.
    assert sorted(c.limit for c in existing) == [1, 2, 2, 3]
    assert Counter(became.tolist())[int(became[0])] == existing[0].limit
    assert sorted(name for c in existing for name in c.nodes) == sorted(n for c in problem.classes for n in c.nodes)


@pytest.mark.parametrize("seed", range(6))
def test_a_pooled_packing_is_given_to_the_nodes_where_most_of_it_stands(seed: int) -> None:
    problem = problem_of(mixed_cluster(seed))
    few, became = pooled(problem)
    present = present_state(problem)
    mixed = np.random.default_rng(seed).permutation(present.classes.size)
    back = given_out(problem, became, Packing(became[present.classes[mixed]], present.contents[mixed]))
    assert back.faults(problem) == []
    # The present state is found again: no pod moves.
    assert back.displaced_value(problem) == present.displaced_value(problem)
    pooled_value = Packing(became[present.classes], present.contents).displaced_value(few)
    assert pooled_value <= present.displaced_value(problem)


@pytest.mark.parametrize("seed", range(4))
def test_a_plan_of_pooled_nodes_is_right_and_its_bound_is_proven(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_MOST_SINGLE", 0)
    given = mixed_cluster(seed)
    plan = planned(given)
    verdict = verify(plan, given, 60.0, lambda: 0.0)
    assert verdict.problems == ()
    assert verdict.right


@pytest.mark.parametrize("seed", range(4))
def test_an_earlier_plan_that_was_carried_out_is_gone_on_from(seed: int) -> None:
    given = mixed_cluster(seed)
    first = planned(given)
    then = replace(given, snapshot=after(first, given), iteration="it-2")
    again = planned(replace(then, start=first))
    assert again.moves == 0
    assert again.objective.value_nanousd_per_hour == first.cost_nanousd_per_hour
    assert verify(again, then, 60.0, lambda: 0.0).right


@pytest.mark.parametrize("seed", range(4))
def test_what_goes_on_from_a_plan_that_was_proven_no_better_asks_the_solver_once(seed: int) -> None:
    given = mixed_cluster(seed)
    first = planned(given)
    # With a bound of 0 its gap is 100 %: whatever is found first is as good.
    vague = replace(first, objective=replace(first.objective, lower_bound_nanousd_per_hour=0))
    then = replace(given, snapshot=after(first, given), iteration="it-2", start=vague)
    solver = Counting("HIGHS")
    again = plan_with(solver, then, Effort(), Watch(lambda: 0.0, lambda progress: None))
    assert solver.programs == 1  # the relaxation that proves it
    assert again.objective.value_nanousd_per_hour <= first.cost_nanousd_per_hour
    assert verify(again, then, 60.0, lambda: 0.0).right


class Counting(CvxpySolver):
    """Counts what is solved."""

    programs = 0

    def solve(self, program: Program, limits: Limits) -> Answer:
        self.programs += 1
        return super().solve(program, limits)


def test_an_earlier_plan_is_a_packing_of_what_still_exists() -> None:
    given = mixed_cluster(2)
    first = planned(given)
    problem = problem_of(given)
    packing = packing_as(first, problem)
    assert packing.faults(problem) == []
    assert packing.unplaced(problem).sum() == 0
    prices = prices_as(first, problem, np.zeros(len(problem.groups), dtype=np.int64))
    assert sorted(prices.tolist()) == sorted(g.price_nanousd_per_hour for g in first.certificate.groups)


def test_an_earlier_plan_of_another_cluster_does_no_harm() -> None:
    web = deployment("web", 3, cpu=1000)
    given = inputs(snapshot([node("a")], [web], pods_of(web, {"a": 3})), catalogue(offering()))
    stranger = planned(mixed_cluster(0))
    problem = problem_of(given)
    packing = fill(problem, packing_as(stranger, problem), "best")
    assert packing.faults(problem) == []
    assert planned(replace(given, start=stranger)).moves == 0
