"""Random clusters in which limits of every kind bind at once: there is always a plan, and the verifier agrees."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from planner.model.cluster import SPOT_MARKS, Node, Pod, Workload
from planner.model.disruption import DisruptionRules
from planner.model.effort import Effort, Watch
from planner.model.inputs import PlanningInputs
from planner.model.machines import WHOLE_SHARE_PERMILLE, SpotRule, TotalLimits
from planner.model.scheduling import LabelSelector, NodeConstraints, Requirement
from planner.optimizer import heuristics, optimize
from planner.optimizer.census import census_of
from planner.optimizer.movement import movement_of
from planner.optimizer.packing import Packing
from planner.optimizer.problem import Problem, build_problem
from planner.verifier import verify
from tests.building import GIB, catalogue, deployment, inputs, nanousd, node, offering, pods_of, snapshot

SPOT = {SPOT_MARKS[0]: "true"}
ZONES = ("zone-a", "zone-b")
KINDS = {"m4": (4000, 16, 0.2, 0.06), "m8": (8000, 32, 0.37, 0.11)}
POOLS = {"a": ("m4", False), "b": ("m8", False), "as": ("m4", True), "bs": ("m8", True)}


def limited_cluster(seed: int) -> PlanningInputs:
    """Return up to eight nodes of four pools (two of them spot) and two zones, with limits that may all bind."""
    chance = random.Random(seed)
    nodes = [_node(chance, i) for i in range(chance.randint(0, 8))]
    room = {n.name: [n.allocatable.cpu_millicores, n.allocatable.memory_bytes] for n in nodes}
    loads: list[Workload] = []
    pods: list[Pod] = []
    for i in range(chance.randint(2, 6)):
        cpu, memory = chance.choice([300, 700, 900, 1100, 1300, 1700, 2300]), chance.choice([0.5, 1, 2, 3, 5, 7])
        on: Counter[str] = Counter()
        pending = 0
        for _ in range(chance.randint(2, 15)):
            open_ = [name for name, (c, m) in room.items() if c >= cpu and m >= memory * GIB]
            if not open_ or chance.random() < 0.2:
                pending += 1
                continue
            spot = chance.choice(open_)
            on[spot] += 1
            room[spot] = [room[spot][0] - cpu, room[spot][1] - int(memory * GIB)]
        if on and chance.random() < 0.5:
            pending = 0
        load = deployment(f"w{i}", on.total() + pending, cpu, memory, max_unavailable=chance.choice([0, 1]))
        loads.append(load)
        pods += pods_of(load, on, pending, labels={"tier": "batch" if i % 2 else "web"})
    offers = [
        offering(
            kind, KINDS[kind][3 if spot else 2], *KINDS[kind][:2], pool=pool, zone=zone,
            capacity_type="spot" if spot else "on-demand", labels=SPOT if spot else {},
            minimum=chance.choice([0, 0, 0, 0, 1, 2]), maximum=chance.choice([None, None, None, 2, 4]),
        )
        for zone in ZONES
        for pool, (kind, spot) in POOLS.items()
    ]  # fmt: skip
    sold = catalogue(*offers, managed_pools=frozenset(POOLS))
    machines = {n: replace(m, spot_price_nanousd_per_hour=nanousd(KINDS[n][3])) for n, m in sold.machines.items()}
    total = TotalLimits(
        chance.choice([None, None, chance.randint(1, 12)]),
        chance.choice([None, None, chance.randint(4, 60) * 1000]),
        chance.choice([None, None, chance.randint(10, 200) * GIB]),
    )
    batch = LabelSelector((Requirement("tier", "In", ("batch",)),))
    spot_rule = SpotRule(chance.choice([None, batch]), chance.choice([WHOLE_SHARE_PERMILLE, 0, 300, 500, 750]))
    return inputs(
        snapshot(nodes, loads, pods),
        replace(sold, machines=machines, total=total, spot=spot_rule),
        rules=DisruptionRules(max_nodes_changed=chance.choice([None, None, 1, 3, 6])),
    )


def _node(chance: random.Random, index: int) -> Node:
    pool = chance.choice(sorted(POOLS))
    kind, spot = POOLS[pool]
    return node(
        f"n{index}", kind, *KINDS[kind][:2], zone=chance.choice(ZONES), pool=pool, labels=SPOT if spot else {},
        unschedulable=chance.random() < 0.15,
    )  # fmt: skip


def problem_of(given: PlanningInputs) -> Problem:
    return build_problem(census_of(movement_of(given)), {})


def _planned_and_verified(seed: int) -> None:
    given = limited_cluster(seed)
    ticks = itertools.count()
    plan = optimize(given, Effort(), Watch(lambda: next(ticks) * 1e-4, lambda progress: None))
    verdict = verify(plan, given, 60.0, lambda: 0.0)
    assert verdict.problems == ()
    assert plan.objective.lower_bound_nanousd_per_hour <= plan.objective.value_nanousd_per_hour


@pytest.mark.parametrize("seed", range(20))
def test_there_is_a_plan_within_all_limits_and_the_verifier_agrees(seed: int) -> None:
    _planned_and_verified(seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20, 1000))
def test_there_is_always_a_plan_within_all_limits(seed: int) -> None:
    _planned_and_verified(seed)


def test_filling_nodes_sets_aside_what_pools_lack_of_their_minimums() -> None:
    web = deployment("web", 8, cpu=2000, constraints=NodeConstraints(node_selector=(("for", "web"),)))
    offers = catalogue(
        offering("m4", 0.2, pool="a", minimum=1),
        offering("n4", 0.1, pool="b", labels={"for": "web"}),
    )
    given = inputs(snapshot([], [web], pods_of(web, pending=8)), replace(offers, total=TotalLimits(nodes=3)))
    problem = problem_of(given)
    filled = heuristics.fill(problem, heuristics.present_state(problem), "best")
    # Of three nodes one is the minimum of a, so b gets two, which hold 4 of the 8 pods.
    assert filled.faults(problem) == []
    assert [problem.classes[k].pool for k in sorted(filled.classes.tolist())] == ["a", "b", "b"]
    assert int(filled.unplaced(problem).sum()) == 4


def test_an_existing_node_that_counts_for_the_minimum_already_does_not_hide_what_is_lacking() -> None:
    web = deployment("web", 1, cpu=2000, constraints=NodeConstraints(node_selector=(("for", "web"),)))
    offers = catalogue(
        offering("m4", 0.2, pool="a", minimum=2),
        offering("n4", 0.1, pool="b", labels={"for": "web"}),
        managed_pools=frozenset("ab"),
    )
    cluster = snapshot([node("x", pool="a")], [web], pods_of(web, pending=1))
    problem = problem_of(inputs(cluster, replace(offers, total=TotalLimits(nodes=2))))
    budget = heuristics.budget_of(problem, heuristics.present_state(problem).classes)
    # Of two nodes x is one and the other is the second of a, so that none is left for b.
    assert {c.pool: int(n) for c, n in zip(problem.classes, budget, strict=True) if c.role == "offering"} == {
        "a": 1,
        "b": 0,
    }


def test_a_cheaper_offering_is_taken_only_within_the_limits_and_what_it_frees_is_used() -> None:
    web = deployment("web", 3, cpu=3500)
    offers = catalogue(offering("m4", 0.2), offering("m8", 0.37, 8000, 32), offering("x16", 0.1, 16000, 16))
    given = inputs(
        snapshot([], [web], pods_of(web, pending=3)),
        # x16 is the cheapest for one pod, but takes more of the limit than there is.
        replace(offers, total=TotalLimits(cpu_millicores=12000)),
    )
    problem = problem_of(given)
    large = [c.machine_type for c in problem.classes].index("m8")
    start = Packing(np.array([large]), np.array([[1]]))
    cheaper = heuristics.with_cheapest_offerings(problem, start)
    # The m8 becomes an m4, and the 8 CPU that are then free hold the other two pods: 2 m4, or one m8.
    assert cheaper.faults(problem) == []
    assert not cheaper.unplaced(problem).any()
    assert "x16" not in {problem.classes[k].machine_type for k in cheaper.classes.tolist()}
