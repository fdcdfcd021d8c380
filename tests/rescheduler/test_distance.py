"""How far the cluster is from the plan, by reason."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from planner.model.plan import Unplaced
from planner.rescheduler import divergence
from tests.building import deployment, pods_of, snapshot
from tests.rescheduler.test_steps import moved, planned_node, record_of

WEB = deployment("web", 4)
UNKNOWN = deployment("unknown", 2)

PLAN = record_of(
    [planned_node("old", "remove"), planned_node("a", "keep", {WEB.key: 3}), planned_node("b", "keep", {WEB.key: 1})],
    {WEB.key: moved(WEB, 4)},
).plan


@pytest.mark.parametrize(
    ("on", "pending", "expected"),
    [
        pytest.param({"a": 3, "b": 1}, 0, (0, 0, 0), id="as planned"),
        pytest.param({"a": 2, "b": 2}, 0, (1, 0, 0), id="one on b that belongs on a"),
        pytest.param({"old": 2, "b": 1}, 1, (2, 1, 0), id="two have not moved, one waits"),
        pytest.param({"gone": 1, "a": 2, "b": 1}, 0, (1, 0, 0), id="one on a node that the plan does not know"),
        pytest.param({"a": 3, "b": 3}, 0, (0, 0, 2), id="scaled up by two, which came to b"),
        pytest.param({"a": 1, "b": 4}, 0, (2, 0, 1), id="scaled up by one, and two that belong on a are on b as well"),
        pytest.param({"a": 3, "b": 1}, 2, (0, 2, 0), id="scaled up by two, which wait"),
        pytest.param({"a": 3}, 0, (0, 0, 0), id="scaled down"),
    ],
)
def test_divergence_counts_the_pods_that_are_not_where_the_plan_wants_them(
    on: Mapping[str, int], pending: int, expected: tuple[int, int, int]
) -> None:
    cluster = snapshot([], [WEB, UNKNOWN], pods_of(WEB, on, pending) + pods_of(UNKNOWN, {"a": 2}))
    elsewhere, waiting, unplanned = expected
    assert divergence(PLAN, cluster) == {"elsewhere": elsewhere, "pending": waiting, "unplanned": unplanned}


def test_a_pod_for_which_the_plan_has_no_place_does_not_diverge_while_it_waits() -> None:
    larger = deployment("web", 6)
    plan = record_of(
        [planned_node("a", "keep", {larger.key: 4})],
        {larger.key: moved(larger, 0, "stay")},
    ).plan
    short = type(plan)(
        plan.iteration, plan.objective, 0, 0, plan.nodes, plan.workloads, {larger.key: Unplaced(2, "no room")}
    )
    # Three of six wait, two of them as planned.
    cluster = snapshot([], [larger], pods_of(larger, {"a": 3}, pending=3))
    assert divergence(short, cluster) == {"elsewhere": 0, "pending": 1, "unplanned": 0}
