"""Nodes are emptied into what others have left: every rule holds, every pod keeps a place, and nothing gets dearer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.model.cluster import Workload
from planner.model.effort import Effort, Watch, never
from planner.optimizer import heuristics
from planner.optimizer.heuristics import empty_cluster, fill, present_state
from planner.optimizer.master import CvxpySolver
from planner.optimizer.packing import Packing
from planner.optimizer.planning import plan_with
from planner.optimizer.problem import Problem
from planner.optimizer.tightening import balanced, emptied, tightened
from tests.building import catalogue, deployment, inputs, node, offering, pods_of, snapshot
from tests.optimizer.test_large import problem_of
from tests.optimizer.test_planning import mixed_cluster


def groups_of(problem: Problem, *workloads: Workload) -> list[int]:
    numbers = {group.workloads[0]: g for g, group in enumerate(problem.groups)}
    return [numbers[workload.key] for workload in workloads]


def booted(problem: Problem, workloads: list[Workload], rows: list[list[int]]) -> Packing:
    """Return new nodes of the first class with so many pods of each workload."""
    contents = np.zeros((len(rows), len(problem.groups)), dtype=np.int64)
    contents[:, groups_of(problem, *workloads)] = rows
    packing = Packing(np.zeros(len(rows), dtype=np.int64), contents)
    assert packing.faults(problem) == []
    return packing


def test_nodes_with_different_resources_left_exchange_pods_until_another_one_is_not_needed() -> None:
    # A node has 8 CPU and 16 GiB. Four pods of (2, 1) leave (0, 12), four of (1, 4) leave (4, 0): one more of either
    # fits on neither. Two of each leave (8 - 6, 16 - 10) = (2, 6) on both, where one more of either fits.
    busy, large = deployment("busy", 5, cpu=2000, memory_gib=1), deployment("large", 5, cpu=1000, memory_gib=4)
    pods = pods_of(busy, pending=5) + pods_of(large, pending=5)
    offers = catalogue(offering("m8", 0.4, cpu=8000, memory_gib=16))
    problem = problem_of(inputs(snapshot([], [busy, large], pods), offers))
    packing = booted(problem, [busy, large], [[4, 0], [0, 4], [1, 1]])
    both = groups_of(problem, busy, large)
    assert balanced(problem, packing, never).contents[:2, both].tolist() == [[2, 2], [2, 2]]
    assert emptied(problem, packing, never).classes.size == 3
    found = tightened(problem, packing, never)
    assert sorted(found.contents[:, both].tolist()) == [[2, 3], [3, 2]]
    assert packing.displaced_value(problem) - found.displaced_value(problem) == 400_000_000


def test_pods_that_move_anyway_are_exchanged_rather_than_others() -> None:
    # On "full" (8 CPU, 16 GiB) two pods of own are at home and two of guest arrive from "away". Two of the four change
    # places with pods of "other": guest's, though they balance the nodes by 2 of 8,000 millicores less.
    own, guest = deployment("own", 2, cpu=2000, memory_gib=1), deployment("guest", 2, cpu=1998, memory_gib=1)
    large = deployment("large", 4, cpu=1000, memory_gib=4)
    pods = pods_of(own, {"full": 2}) + pods_of(guest, {"away": 2}) + pods_of(large, {"other": 4})
    names = ("away", "full", "other")
    nodes = [node(name, "m8", 8000, 16, pool="pool-a") for name in names]
    offers = catalogue(offering("m8", 0.4, cpu=8000, memory_gib=16, pool="pool-a"))
    problem = problem_of(inputs(snapshot(nodes, [own, guest, large], pods), offers))
    present, both = present_state(problem), groups_of(problem, own, guest, large)
    held = {problem.classes[k].nodes[0]: n for n, k in enumerate(present.classes)}
    contents = present.contents.copy()
    contents[held["full"], both[1]], contents[held["away"], both[1]] = 2, 0
    found = balanced(problem, Packing(present.classes, contents), never)
    assert found.contents[[held["full"], held["other"]]][:, both].tolist() == [[2, 0, 2], [0, 2, 2]]


def test_a_pod_that_fits_nowhere_takes_the_place_of_a_smaller_one() -> None:
    # Nodes of 4 CPU: 2 + 1 + 0.5 and 2 + 1.5 leave half a CPU each, and a pod of 1 is on a third. In the place of the
    # one of 0.5 it makes 2 + 1 + 1, and 2 + 1.5 + 0.5 is 4 too.
    big, middle, small, odd = (
        deployment(name, replicas, cpu=cpu, memory_gib=0)
        for name, replicas, cpu in (("big", 2, 2000), ("middle", 2, 1000), ("small", 1, 500), ("odd", 1, 1500))
    )
    workloads = [big, middle, small, odd]
    pods = [pod for workload in workloads for pod in pods_of(workload, pending=workload.replicas)]
    problem = problem_of(inputs(snapshot([], workloads, pods), catalogue(offering(price_usd=0.2))))
    packing = booted(problem, workloads, [[1, 1, 1, 0], [1, 0, 0, 1], [0, 1, 0, 0]])
    found = emptied(problem, packing, never)
    assert sorted(found.contents[:, groups_of(problem, *workloads)].tolist()) == [[1, 0, 1, 1], [1, 2, 0, 0]]


def test_a_pod_goes_where_it_is_now_though_another_node_is_fuller() -> None:
    # "home" has 4 - 2.5 CPU left and runs web's pod, "fuller" has 4 - 3 left.
    web, anchor, other = (deployment(name, 1, cpu=cpu) for name, cpu in (("web", 1000), ("anchor", 2500), ("o", 3000)))
    pods = pods_of(web, {"home": 1}) + pods_of(anchor, {"home": 1}) + pods_of(other, {"fuller": 1})
    cluster = snapshot([node("home", pool="pool-a"), node("fuller", pool="pool-a")], [web, anchor, other], pods)
    problem = problem_of(inputs(cluster, catalogue(offering(pool="pool-a"))))
    present = present_state(problem)
    (mine,) = groups_of(problem, web)
    new = next(k for k, c in enumerate(problem.classes) if c.role == "offering")
    contents = np.vstack([present.contents, np.zeros((1, len(problem.groups)), dtype=np.int64)])
    contents[present.contents[:, mine].argmax(), mine], contents[-1, mine] = 0, 1
    found = emptied(problem, Packing(np.append(present.classes, new), contents), never)
    assert found.classes.tolist() == present.classes.tolist()
    assert found.contents.tolist() == present.contents.tolist()


def test_no_node_goes_that_a_pool_needs_for_its_minimum() -> None:
    web = deployment("web", 2, cpu=1000)
    offers = catalogue(offering(minimum=2))
    problem = problem_of(inputs(snapshot([], [web], pods_of(web, pending=2)), offers))
    assert tightened(problem, booted(problem, [web], [[1], [1]]), never).classes.size == 2
    assert tightened(problem, booted(problem, [web], [[1], [1], [0]]), never).classes.size == 2


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), anew=st.booleans())
def test_every_rule_holds_and_emptied_nodes_only_save(seed: int, anew: bool) -> None:
    problem = problem_of(mixed_cluster(seed))
    begun = fill(problem, empty_cluster(problem) if anew else present_state(problem), "first")
    faults, unplaced = begun.faults(problem), begun.unplaced(problem)
    fewer = emptied(problem, begun, never)
    assert fewer.displaced_value(problem) <= begun.displaced_value(problem)
    for found in (fewer, balanced(problem, begun, never), tightened(problem, begun, never)):
        assert set(found.faults(problem)) <= set(faults)
        assert (found.unplaced(problem) <= unplaced).all()


@pytest.mark.parametrize("seed", range(3))
def test_once_it_is_over_nothing_is_changed(seed: int) -> None:
    problem = problem_of(mixed_cluster(seed))
    begun = fill(problem, present_state(problem), "best")
    found = tightened(problem, begun, lambda: True)
    assert found.contents.tolist() == begun.contents.tolist()


def test_of_a_running_cluster_the_first_plan_that_is_dealt_is_tightened_whatever_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As in the first test, with the pods where they are: dealt is the present state, and no time is left.
    busy, large = deployment("busy", 5, cpu=2000, memory_gib=1), deployment("large", 5, cpu=1000, memory_gib=4)
    pods = pods_of(busy, {"a": 4, "c": 1}) + pods_of(large, {"b": 4, "c": 1})
    nodes = [node(name, "m8", 8000, 16, pool="pool-a") for name in "abc"]
    offers = catalogue(offering("m8", 0.4, cpu=8000, memory_gib=16, pool="pool-a"))
    cluster = inputs(snapshot(nodes, [busy, large], pods), offers)
    monkeypatch.setattr(heuristics, "deal", lambda problem, *_: present_state(problem))
    monkeypatch.setattr(heuristics, "repaired", lambda _, packing: packing)
    late = Effort("HIGHS", 0.0, 0.0)
    plan = plan_with(CvxpySolver("HIGHS"), cluster, late, Watch(lambda: 0.0, lambda _: None, never))
    assert sum(planned.state == "keep" for planned in plan.nodes) == 2
