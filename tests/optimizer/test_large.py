"""What makes large clusters quick: prices by volume, pooled nodes, an earlier plan. None of it may cost the truth."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from planner.model.inputs import PlanningInputs
from planner.optimizer import planning
from planner.optimizer.continuing import packing_as, prices_as
from planner.optimizer.heuristics import fill, present_state
from planner.optimizer.master import CvxpySolver
from planner.optimizer.movement import movement_of
from planner.optimizer.packing import Packing
from planner.optimizer.pooling import given_out, pooled
from planner.optimizer.problem import Problem, build_problem
from planner.optimizer.search import Search
from planner.optimizer.volume import volume_prices
from planner.verifier import verify
from tests.building import catalogue, deployment, inputs, node, offering, pods_of, snapshot
from tests.optimizer.test_planning import after, mixed_cluster, planned

SOLVER = CvxpySolver("HIGHS")


def problem_of(given: PlanningInputs) -> Problem:
    movement = movement_of(given)
    return build_problem(given, movement.assessment, movement.group, {})


def test_volume_prices_are_what_the_cheapest_machine_asks_for_a_resource() -> None:
    # Ten pods of 1 CPU and no memory; m4 has 4 CPU for 0.2 $/h, so that a CPU is worth 0.05 $/h.
    web = deployment("web", 10, cpu=1000, memory_gib=0)
    given = inputs(snapshot([], [web], pods_of(web, pending=10)), catalogue(offering(price_usd=0.2)))
    problem = problem_of(given)
    volume = volume_prices(problem, np.arange(1), SOLVER, 10.0)
    # 50,000,000 nanodollars and the move that each pending pod pays (41,666), rounded down at most once.
    assert volume.pods[0] - 50_041_666 in (-1, 0)


@pytest.mark.parametrize("seed", range(6))
def test_the_bound_by_volume_is_below_every_plan(seed: int) -> None:
    given = mixed_cluster(seed)
    search = Search(problem_of(given), SOLVER, lambda: 10.0)
    before = search.proof.value
    search.start_by_volume()
    assert before < search.proof.value <= planned(given).objective.value_nanousd_per_hour


def test_pods_that_nothing_admits_have_no_price_without_bound() -> None:
    web = deployment("web", 2, cpu=9000)
    given = inputs(snapshot([], [web], pods_of(web, pending=2)), catalogue(offering()))
    volume = volume_prices(problem_of(given), np.arange(1), SOLVER, 10.0)
    assert volume.pods.tolist() == [given.prices.move_nanousd_per_hour]


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
