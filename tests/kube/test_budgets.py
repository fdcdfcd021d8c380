"""Disruption budgets as they are read."""

from __future__ import annotations

import pytest

from planner.model.cluster import DisruptionBudget
from planner.model.scheduling import LabelSelector, Requirement
from tests.kube.documents import Json, budget, pod, read


def test_a_budgets_status_is_taken_where_there_is_one() -> None:
    (found,) = read(budget("b", "x", {"desiredHealthy": 3, "disruptionsAllowed": 2}, minAvailable=1)).budgets
    selector = LabelSelector((Requirement("app", "In", ("x",)),))
    assert found == DisruptionBudget("default", "b", selector, 3, 2)


@pytest.mark.parametrize(
    ("spec", "desired", "allowed"),
    [
        # five pods match, four of them ready
        ({"minAvailable": 3}, 3, 1),
        ({"minAvailable": "50%"}, 3, 1),  # 2.5 up
        ({"maxUnavailable": 1}, 4, 0),
        ({"maxUnavailable": "30%"}, 3, 1),  # 5 - 1.5 up
        ({"minAvailable": 9}, 9, 0),
    ],
)
def test_without_status_a_budget_is_computed_from_its_pods(spec: Json, desired: int, allowed: int) -> None:
    pods = [pod(f"p{i}", labels={"app": "x"}, on="n") for i in range(4)] + [pod("p4", labels={"app": "x"})]
    (found,) = read(budget("b", "x", **spec), *pods, pod("other", labels={"app": "y"}, on="n")).budgets
    assert (found.desired_healthy, found.disruptions_allowed) == (desired, allowed)


def test_a_budget_that_its_controller_cannot_count_lets_no_pod_go() -> None:
    # As for maxUnavailable over pods of a Job: the status says that none need be healthy, and no eviction is granted.
    failed = {"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed"}
    status = {"desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0, "conditions": [failed]}
    pods = [pod(f"p{i}", labels={"app": "x"}, on="n") for i in range(3)]
    (found,) = read(budget("b", "x", status, maxUnavailable=1), *pods).budgets
    assert (found.desired_healthy, found.disruptions_allowed) == (3, 0)


def test_an_empty_selector_covers_the_namespace_and_none_covers_nothing() -> None:
    everything, nothing = budget("all", "x"), budget("none", "x")
    everything["spec"]["selector"] = {}
    del nothing["spec"]["selector"]
    found = read(everything, nothing, pod("p"), pod("q", namespace="shop"))
    (only,) = found.budgets
    assert [only.covers(p) for p in found.pods] == [True, False]
