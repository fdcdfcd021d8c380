"""A plan is carried out only where it still fits and is worth it; the boundaries are exact."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.model.cap import CpuCap
from planner.model.cluster import Snapshot
from planner.model.plan import Certificate, Objective, Plan, PlannedNode, PlannedWorkload, Unplaced
from planner.model.resources import Resources
from planner.processor import decide
from planner.settings import ProcessorSettings
from tests.building import deployment, node, pods_of, snapshot

WEB = "default/Deployment/web"
SETTINGS = ProcessorSettings(churn_limit=0.1, saving_threshold=0.1)


def plan_of(current: int, cost: int, *, moves: int = 1, change: int = 0, **fields: object) -> Plan:
    """Return a plan that removes node b, with costs in nanodollars per hour; `change` is the price of its moves."""
    nodes = tuple(
        PlannedNode(name, state, "m4", "m4", "zone-a", "on-demand", 1, Resources(), {})  # type: ignore[arg-type]
        for name, state in (("a", "keep"), ("b", "remove" if moves else "keep"))
    )
    objective = Objective("cost", cost, change, 0, 0, "feasible", 24, 1, 15)
    stays = PlannedWorkload("uid-web", 8, Resources(), Resources(), "rollout" if moves else "stay", moves)
    plan = Plan("it-1", objective, current, cost, nodes, {WEB: stays}, {}, Certificate())
    return replace(plan, **fields)  # type: ignore[arg-type]  # any field of the plan


def cluster(pods: int = 8, pending: int = 0) -> Snapshot:
    web = deployment("web", pods + pending)
    return snapshot([node("a"), node("b")], [web], pods_of(web, on={"a": pods}, pending=pending))


@pytest.mark.parametrize(
    ("cost", "verdict"),
    [
        (89, "accepted"),  # saves 11 of 100
        (90, "too-small"),  # saves 10 of 100: not more than a tenth
        (91, "too-small"),
    ],
)
def test_plan_must_save_more_than_a_tenth(cost: int, verdict: str) -> None:
    decision = decide(plan_of(100, cost), cluster(), cluster(), SETTINGS)
    assert decision.verdict == verdict
    assert decision.saving == (100 - cost) / 100
    assert decision.churn == 0


def test_plan_just_above_a_tenth_is_accepted() -> None:
    decision = decide(plan_of(10_000_000_000, 8_999_999_999), cluster(), cluster(), SETTINGS)
    assert decision.accepted


def test_saving_that_its_moves_cost_is_too_small() -> None:
    # 80 for nodes and 20 for moves are what standing still costs.
    decision = decide(plan_of(100, 80, change=20), cluster(), cluster(), SETTINGS)
    assert decision.verdict == "too-small"
    assert decision.saving == pytest.approx(0.2)
    assert decide(plan_of(100, 80, change=19), cluster(), cluster(), SETTINGS).accepted


@pytest.mark.parametrize(
    ("gone", "verdict"),
    [
        (1, "accepted"),  # 1 of 20 pods and nodes
        (2, "stale"),  # 2 of 20: not less than a tenth
        (3, "stale"),
    ],
)
def test_plan_is_dropped_when_a_tenth_of_the_cluster_changed(gone: int, verdict: str) -> None:
    before = cluster(pods=18)
    after = replace(before, pods=before.pods[gone:])
    decision = decide(plan_of(100, 50), before, after, SETTINGS)
    assert decision.verdict == verdict
    assert decision.churn == gone / 20


def test_replaced_moved_and_new_pods_and_nodes_each_count_once() -> None:
    before = cluster(pods=18)
    first, second, *rest = before.pods
    replaced = replace(before, pods=(replace(first, uid="uid-new"), second, *rest))
    moved = replace(before, pods=(replace(first, node="b"), second, *rest))
    grown = replace(before, nodes=(*before.nodes, node("c")))
    for after, share in ((replaced, 1 / 20), (moved, 1 / 20), (grown, 1 / 21)):
        assert decide(plan_of(100, 50), before, after, SETTINGS).churn == share


def test_changes_of_daemonset_and_finished_pods_are_no_churn() -> None:
    before = cluster(pods=8)
    done = replace(before.pods[0], uid="uid-done", name="done", phase="Succeeded")
    after = replace(before, pods=(*before.pods, done))
    assert decide(plan_of(100, 50), before, after, SETTINGS).churn == 0


def test_plan_that_places_pending_pods_needs_no_saving() -> None:
    dearer = plan_of(100, 130)
    decision = decide(dearer, cluster(pending=2), cluster(pending=2), SETTINGS)
    assert decision.verdict == "accepted"
    assert decision.saving == -0.3
    assert decision.reason == "2 pending pods get a place"


def test_plan_that_leaves_the_pending_pods_out_must_save() -> None:
    out = plan_of(100, 95, unplaced={WEB: Unplaced(2, "no machine is large enough")})
    assert decide(out, cluster(pending=2), cluster(pending=2), SETTINGS).verdict == "too-small"


def test_there_is_nothing_to_do_when_nothing_changes() -> None:
    still = plan_of(100, 100, moves=0)
    assert decide(still, cluster(), cluster(), SETTINGS).verdict == "nothing-to-do"
    # A pod that only waits for a place on a node that stays is something to do.
    assert decide(still, cluster(pending=1), cluster(pending=1), SETTINGS).accepted


def test_stale_plan_is_dropped_even_if_it_places_pending_pods() -> None:
    before = cluster(pods=8, pending=2)
    after = replace(before, pods=before.pods[4:])
    assert decide(plan_of(100, 130), before, after, SETTINGS).verdict == "stale"


def test_cluster_without_cost_saves_nothing() -> None:
    assert decide(plan_of(0, 0), cluster(), cluster(), SETTINGS).saving == 0


def relief(before: int, after: int) -> Plan:
    """Return a plan that costs more than standing still, under a cap of 0.7 x 4 CPU on node a."""
    plan = plan_of(100, 140)
    a, b = plan.nodes
    a = replace(
        a,
        allocatable=Resources(4000),
        predicted_cpu_before_millicores=before,
        predicted_cpu_millicores=after,
    )
    return replace(plan, nodes=(a, b), objective=replace(plan.objective, cap=CpuCap(700, "day")))


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (2941, 2400, "accepted"),
        (2940, 2400, "too-small"),  # 1.05 x 2800: not above the threshold
        (2941, 2941, "too-small"),  # nothing is relieved
        (2700, 2400, "too-small"),
    ],
)
def test_a_plan_that_relieves_a_node_above_the_cap_needs_no_saving(before: int, after: int, verdict: str) -> None:
    decision = decide(relief(before, after), cluster(), cluster(), replace(SETTINGS, relief_threshold=0.05))
    assert decision.verdict == verdict
    if decision.accepted:
        assert decision.reason == "1 node is relieved that is above the cap on predicted CPU"


def test_a_relief_for_another_cluster_is_stale_all_the_same() -> None:
    # One of ten pods and nodes is gone: a tenth is no longer below the limit.
    assert decide(relief(4000, 2400), cluster(), cluster(pods=7), SETTINGS).verdict == "stale"
