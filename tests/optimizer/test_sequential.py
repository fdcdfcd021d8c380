"""Plans made node by node at prices of pods, and what such a plan pays for a pod."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from planner.model.effort import never
from planner.model.inputs import PlanningInputs
from planner.optimizer import heuristics, search
from planner.optimizer.certificate import Bound
from planner.optimizer.constraints import IntArray
from planner.optimizer.knapsacks import Knapsacks
from planner.optimizer.master import Columns, Remainder
from planner.optimizer.packing import Packing
from planner.optimizer.planning import _prove
from planner.optimizer.race import Race
from planner.optimizer.search import Search
from planner.optimizer.sequential import corrected, sequence
from tests.building import catalogue, deployment, inputs, offering, pods_of, snapshot
from tests.optimizer.test_large import SOLVER, problem_of, relaxation
from tests.optimizer.test_pricing import possible, some_knapsacks


def one_kind(sizes: list[int], counts: list[int], room: int) -> Knapsacks:
    """Return the knapsack of one kind of new node with one resource."""
    nothing = np.zeros((1, len(sizes)), dtype=np.int64)
    caps = np.minimum(np.array(counts), room // np.array(sizes))[None, :]
    sizes_of = np.array(sizes, dtype=np.int64)[:, None]
    zeros = np.zeros(len(sizes), dtype=np.int64)
    return Knapsacks(sizes_of, zeros, np.array([[room]]), caps, nothing, nothing, zeros, 1)


def numbers(*values: int) -> IntArray:
    return np.array(values, dtype=np.int64)


def test_a_pod_is_paid_for_with_its_share_of_its_node() -> None:
    # A node has 10 CPU and costs 10 m$. A pod of 6 and one of 4 fill one, and are worth their 6 and 4. The second pod
    # of 4 has a node to itself and is paid 10 for: (4 + 10) / 2 = 7 for a pod of 4.
    sacks = one_kind([6, 4], [1, 2], 10)
    prices = np.array([6e6, 4e6])
    made = sequence(sacks, prices, numbers(10_000_000), numbers(5), numbers(1, 2), never)
    assert made.contents.tolist() == [[1, 1], [0, 1]]
    assert made.amounts.tolist() == [1, 1]
    assert made.paid.tolist() == [6e6, 7e6]
    # Half of the difference corrects the prices.
    assert corrected(prices, made.paid).tolist() == [6e6, 5.5e6]


def test_a_content_is_taken_as_often_as_pods_and_nodes_allow() -> None:
    # Two pods of 5 fill a node; eleven make five of them, but there may be three, and five pods stay.
    sacks = one_kind([5], [11], 10)
    for limit, amounts in ((9, [5, 1]), (3, [3])):
        made = sequence(sacks, np.array([5e6]), numbers(10_000_000), numbers(limit), numbers(11), never)
        assert made.amounts.tolist() == amounts
        assert made.contents[0].tolist() == [2]


@pytest.mark.parametrize("price", [0, -1, -30_000_000])
def test_nodes_that_cost_nothing_or_are_paid_for_are_taken_with_pods_only(price: int) -> None:
    # A pod of a price of 0 or less is worth no place, and an empty node would be worth as much as this one.
    sacks = one_kind([5, 3], [3, 1], 10)
    made = sequence(sacks, np.array([5e6, 0.0]), numbers(price), numbers(9), numbers(3, 1), never)
    assert made.contents.sum(axis=1).min(initial=1) > 0
    assert (made.amounts @ made.contents)[0] == 3
    # Nothing is shared out of what is not paid.
    assert made.paid[0] == 5e6


@pytest.mark.parametrize("seed", range(60))
def test_no_node_holds_more_than_it_can_and_no_pod_is_placed_twice(seed: int) -> None:
    sacks, prices = some_knapsacks(seed)
    counts = sacks.caps.max(axis=0) + 1
    limits = numbers(1, 2, 9)
    floor = np.random.default_rng(seed).integers(-10_000, 40_000, 3)
    made = sequence(sacks, prices.astype(np.float64), floor, limits, counts, never)
    assert (made.amounts @ made.contents <= counts).all()
    assert (np.bincount(made.classes, made.amounts, minlength=3) <= limits).all()
    for k, content in zip(made.found_classes.tolist(), made.found, strict=True):
        assert possible(sacks, k, content)
        assert (content <= sacks.caps[k]).all()
    taken = {(k, tuple(c)) for k, c in zip(made.classes.tolist(), made.contents.tolist(), strict=True)}
    assert taken <= {(k, tuple(c)) for k, c in zip(made.found_classes.tolist(), made.found.tolist(), strict=True)}
    assert (made.paid >= 0).all()


def test_what_is_begun_when_the_time_is_over_is_left_as_it_is() -> None:
    # Three pods of different sizes need three steps of a node each; the time is over after one.
    sacks, looks = one_kind([6, 7, 8], [1, 1, 1], 10), count()
    made = sequence(
        sacks, np.array([6e6, 7e6, 8e6]), numbers(8_000_000), numbers(5), numbers(1, 1, 1), lambda: next(looks) > 0
    )
    assert made.contents.tolist() == [[0, 0, 1]]
    assert made.paid.tolist() == [6e6, 7e6, 8e6]


def many_shapes(kinds: int, pods_each: int) -> PlanningInputs:
    """Return pods of many shapes and three machine types of different proportions."""
    chance = np.random.default_rng(7)
    workloads = [
        deployment(f"w{i}", pods_each, cpu=int(chance.integers(2, 30)) * 55, memory_gib=int(chance.integers(1, 5)))
        for i in range(kinds)
    ]
    offers = [
        offering("small", 0.11, cpu=3900, memory_gib=13),
        offering("large", 0.43, cpu=15900, memory_gib=58),
        offering("cores", 0.39, cpu=15900, memory_gib=28),
    ]
    pods = [pod for workload in workloads for pod in pods_of(workload, pending=pods_each)]
    return inputs(snapshot([], workloads, pods), catalogue(*offers))


def started(given: PlanningInputs) -> Search:
    problem = problem_of(given)
    found = Search(problem, SOLVER, lambda: 60.0)
    found.start_at(relaxation(problem))
    return found


def test_their_contents_bring_the_continuous_optimum_down_at_once_and_their_plans_beat_best_fit() -> None:
    given = many_shapes(20, 20)
    with_them, without = started(given), started(given)
    problem = with_them.problem
    plans = list(with_them.sequences(6, never))
    assert [plan.faults(problem) for plan in plans] == [[]] * 6
    assert not any(plan.unplaced(problem).any() for plan in plans)
    fits = [heuristics.fill(problem, heuristics.empty_cluster(problem), fit) for fit in ("first", "best")]
    assert min(plan.displaced_value(problem) for plan in plans) < min(fit.displaced_value(problem) for fit in fits)
    optima = []
    for some in (with_them, without):
        for fit in fits:
            some.start_from(fit)
        relaxed = some._master.relax(Remainder.of(problem), np.arange(some.columns.classes.size), True)
        assert relaxed is not None
        optima.append(relaxed.value)
    assert optima[0] < 0.98 * optima[1]


def test_none_are_made_where_nodes_hold_few_pods_or_no_time_is_left() -> None:
    # 15 of 16 cores: one pod on a node.
    wide = deployment("wide", 30, cpu=15000, memory_gib=1)
    offers = catalogue(offering("m16", cpu=16000, memory_gib=64))
    given = inputs(snapshot([], [wide], pods_of(wide, pending=30)), offers)
    assert list(started(given).sequences(3, never)) == []
    assert list(started(many_shapes(20, 20)).sequences(3, lambda: True)) == []


def test_only_all_contents_are_picked_from_when_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    some = started(many_shapes(4, 6))
    problem = some.problem
    best = heuristics.fill(problem, heuristics.empty_cluster(problem), "best")
    some.start_from(best)
    some.generate(lambda proof, relaxed: relaxed - proof.value < 1.0)
    value = best.displaced_value(problem) + 1
    monkeypatch.setattr(search, "_PICK", (1, 300))
    assert some.pick(value, 10.0, among_all=True) is None
    assert isinstance(some.pick(value, 10.0), Packing)
    monkeypatch.setattr(search, "_PICK", (Columns(problem).classes.size + 10_000, 300))
    assert isinstance(some.pick(value, 10.0, among_all=True), Packing)


def test_of_very_many_contents_those_go_that_lose_most_and_the_continuous_optimum_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some = started(many_shapes(6, 12))
    problem = some.problem
    some.start_from(heuristics.fill(problem, heuristics.empty_cluster(problem), "best"))
    some.generate(lambda proof, relaxed: relaxed - proof.value < 1.0)
    before, known = some.optimum(), some.columns.classes.size
    monkeypatch.setattr(search, "_DIVE_COLUMNS", 12)
    monkeypatch.setattr(search, "_MOST_CELLS", 20 * len(problem.groups))
    some.dive(0)
    assert known > some.columns.classes.size == 20
    assert some.relaxed is not None
    assert some.relaxed.amounts.size == 20
    relaxed = some._master.relax(Remainder.of(problem), np.arange(20))
    assert relaxed is not None
    assert relaxed.value == pytest.approx(some.relaxed.value)
    assert some.optimum() == before
    # What was forgotten is new when it comes again, and what is known is not.
    empty = np.zeros((1, len(problem.groups)), dtype=np.int64)
    assert some.columns.add(some.columns.classes[:1], some.columns.contents[:1]) == 0
    assert some.columns.add(np.zeros(1, dtype=np.int64), empty + 99) == 1
    assert some.columns.add(np.zeros(1, dtype=np.int64), empty + 99) == 0


@pytest.mark.parametrize(("fall", "rounds"), [(0.0, 6), (0.9, 6), (1.1, 40)])
def test_column_generation_ends_when_in_five_rounds_it_proves_no_more_and_its_optimum_hardly_falls(
    fall: float, rounds: int
) -> None:
    # The best plan is 100 above the optimum: five rounds that bring it down by less than 5 are in vain.
    made: list[float] = []

    def generate(enough: Callable[[Bound, float], bool]) -> None:
        proof = cast("Bound", SimpleNamespace(value=0))
        while len(made) < 40:
            made.append(1000.0 - fall * len(made))
            if enough(proof, made[-1]):
                return

    race = SimpleNamespace(
        bound=lambda proof: None,
        left=lambda share: 1.0,
        won=lambda: False,
        above=lambda optimum: 100.0,
        worth_proving=lambda relaxed: 0.0,
    )
    _prove(cast("Search", SimpleNamespace(generate=generate)), cast("Race", race), 1.0)
    assert len(made) == rounds
