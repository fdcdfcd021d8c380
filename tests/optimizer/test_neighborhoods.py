"""Placing the pods of some nodes anew: the others stay, every rule holds, and a plan only gets better."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from planner.model.inputs import PlanningInputs
from planner.model.machines import TotalLimits
from planner.optimizer import neighborhoods
from planner.optimizer.heuristics import empty_cluster, fill, present_state
from planner.optimizer.master import CvxpySolver
from planner.optimizer.neighborhoods import improved, neighborhood
from planner.optimizer.packing import Packing
from planner.optimizer.problem import Problem
from tests.building import catalogue, deployment, inputs, offering, pods_of, snapshot
from tests.optimizer.test_large import problem_of
from tests.optimizer.test_planning import mixed_cluster

SOLVER = CvxpySolver("HIGHS")


def better(problem: Problem, packing: Packing, seconds_left: float = 10.0) -> list[Packing]:
    prices = np.zeros(len(problem.groups), dtype=np.int64)
    return list(improved(problem, packing, prices, SOLVER, lambda: seconds_left))


def four_and_four() -> PlanningInputs:
    """Four pods of 3 CPU and four of 1 CPU; a machine of 4 CPU costs 0.2 $/h, so that four of them hold all."""
    large, small = deployment("large", 4, cpu=3000, memory_gib=0), deployment("small", 4, cpu=1000, memory_gib=0)
    pods = pods_of(large, pending=4) + pods_of(small, pending=4)
    return inputs(snapshot([], [large, small], pods), catalogue(offering(price_usd=0.2)))


def wasteful(problem: Problem) -> Packing:
    """Each large pod on a node of its own, and all small ones on a fifth."""
    contents = np.zeros((5, 2), dtype=np.int64)
    contents[:4, 0], contents[4, 1] = 1, 4
    return Packing(np.zeros(5, dtype=np.int64), contents)


def test_pods_of_a_node_that_is_not_needed_go_to_the_others() -> None:
    problem = problem_of(four_and_four())
    packing = wasteful(problem)
    assert packing.faults(problem) == []
    best = better(problem, packing)[-1]
    # 4 x (3 + 1) CPU on 4 x 4 CPU: 0.8 $/h instead of 1.0 $/h.
    assert sorted(best.contents.tolist()) == [[1, 1]] * 4
    assert packing.displaced_value(problem) - best.displaced_value(problem) == 200_000_000


def test_the_nodes_that_are_not_chosen_stay_as_they_are() -> None:
    problem = problem_of(four_and_four())
    packing = wasteful(problem)
    chosen = np.array([True, False, False, True, True])
    part = neighborhood(problem, packing, chosen, np.array([0]))
    # Of the eight pods the two large ones of these nodes and the four small ones are placed anew.
    assert dict(zip(part.groups.tolist(), part.problem.counts.tolist(), strict=True)) == {0: 2, 1: 4}
    rest = Packing(packing.classes[~chosen], packing.contents[~chosen])
    whole = part.in_whole(rest, part.now)
    assert sorted(whole.contents.tolist()) == sorted(packing.contents.tolist())
    assert whole.contents[:2].tolist() == packing.contents[~chosen].tolist()


def test_a_pod_without_a_place_is_placed_beside_those_of_the_chosen_nodes() -> None:
    problem = problem_of(four_and_four())
    packing = wasteful(problem)
    packing.contents[4, 1] = 3
    part = neighborhood(problem, packing, np.array([False, False, False, False, True]), np.array([0]))
    assert part.problem.counts.tolist() == [4]
    assert better(problem, packing)[-1].unplaced(problem).tolist() == [0, 0]


def test_limits_count_the_nodes_that_stay() -> None:
    given = four_and_four()
    problem = problem_of(replace(given, catalogue=replace(given.catalogue, total=TotalLimits(nodes=5))))
    part = neighborhood(problem, wasteful(problem), np.array([True, True, False, False, False]), np.array([0]))
    # Five nodes at most, three of them stay: -1 for each new one, and no less than -2.
    assert [(row.coefficients.tolist(), row.rhs) for row in part.problem.rows] == [([-1], -2)]


@pytest.mark.parametrize("seed", range(6))
def test_every_better_packing_is_right_and_costs_less_than_the_one_before(seed: int) -> None:
    problem = problem_of(mixed_cluster(seed))
    start = fill(problem, present_state(problem), "first")
    assert start.faults(problem) == []
    found = [start, *better(problem, start)]
    # Eight nodes at 0.2 $/h are badly packed: less than half of that is needed, moves and overlaps included.
    assert found[-1].displaced_value(problem) < 0.5 * start.displaced_value(problem)
    assert all(packing.faults(problem) == [] for packing in found)
    ranks = [(int(p.unplaced(problem).sum()), p.displaced_value(problem)) for p in found]
    assert all(after < before for before, after in itertools.pairwise(ranks))


@pytest.mark.parametrize(("cheaper", "draws"), [(0.0, 3), (0.0004, 3), (0.0006, 4)])
def test_what_saves_hardly_anything_keeps_the_search_going_no_longer_than_what_saves_nothing(
    cheaper: float, draws: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every neighborhood has all four nodes, so that each was in three of them after three draws. The first one puts the
    # pods on machines that are cheaper by this share; from 0.05 % on that is worth three more.
    given = replace(four_and_four(), catalogue=catalogue(offering("dear", 0.2), offering("cheap", 0.2 * (1 - cheaper))))
    problem = problem_of(given)
    dear = next(k for k, c in enumerate(problem.classes) if c.cost == problem.costs.max())
    packing = Packing(np.full(4, dear), np.ones((4, 2), dtype=np.int64))
    drawn = []
    draw = neighborhoods._drawn
    monkeypatch.setattr(neighborhoods, "_drawn", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    found = better(problem, packing)
    assert [int(chosen.sum()) for chosen in drawn] == [4] * draws
    saved = packing.displaced_value(problem) - (found[-1] if found else packing).displaced_value(problem)
    assert saved == round(4 * 0.2 * cheaper * 10**9)


def test_the_same_neighborhoods_are_drawn_in_every_run() -> None:
    problem = problem_of(mixed_cluster(1))
    start = fill(problem, empty_cluster(problem), "first")
    one, other = (better(problem, start) for _ in range(2))
    assert [p.contents.tolist() for p in one] == [p.contents.tolist() for p in other]


def test_nothing_is_tried_once_the_time_is_over() -> None:
    problem = problem_of(four_and_four())
    assert better(problem, wasteful(problem), seconds_left=0.0) == []
