"""The cap on predicted CPU, checked by adding up what the pods of each node will use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.model.effort import Effort, Watch
from planner.model.inputs import PlanningInputs
from planner.model.plan import Plan
from planner.optimizer import optimize
from planner.verifier import check_placement
from tests.building import capped, catalogue, deployment, inputs, node, offering, pods_of, snapshot

WEB = "default/StatefulSet/web"


def seven_pods() -> PlanningInputs:
    """Return a node with seven pods that use 600m each: 4.2 of its 4 CPU, where 0.7 of them are allowed."""
    web = deployment("web", 7, cpu=500, kind="StatefulSet")
    return capped(inputs(snapshot([node("a")], [web], pods_of(web, {"a": 7})), catalogue(offering())), 700, web=600)


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Return the plan that leaves four of the pods on the node, which use 2.4 CPU, and moves three."""
    return optimize(seven_pods(), Effort(), Watch(lambda: 0.0, lambda _: None))


def with_cap(plan: Plan, given: PlanningInputs, **fields: object) -> tuple[Plan, PlanningInputs]:
    """Return both with another cap."""
    assert given.cap is not None
    cap = replace(given.cap, **fields)  # type: ignore[arg-type]  # any field of the cap
    return replace(plan, objective=replace(plan.objective, cap=cap, name=cap.name)), replace(given, cap=cap)


def test_a_node_that_is_filled_to_the_cap_is_right(plan: Plan) -> None:
    assert check_placement(*with_cap(plan, seven_pods(), permille=600)) == ()


def test_a_node_that_is_filled_above_the_cap_is_named_with_its_share(plan: Plan) -> None:
    problems = check_placement(*with_cap(plan, seven_pods(), permille=599))
    # 0.599 x 4 CPU
    assert "node a will use 2400 of 4000 millicores (60.0 %), which is above the cap: at most 2396" in problems


def test_what_stays_above_the_cap_must_not_become_more(plan: Plan) -> None:
    lower = {"permille": 500, "allowed_millicores": {"a": 4201}}
    problems = check_placement(*with_cap(plan, seven_pods(), **lower))
    assert "node a may come to use 4201 millicores by the plan, and uses 4200 now" in problems


def test_standing_still_is_no_plan_that_a_relief_must_beat(plan: Plan) -> None:
    assert plan.objective.value_nanousd_per_hour > plan.current_cost_nanousd_per_hour
    assert check_placement(plan, seven_pods()) == ()
    # Without the cap the same placement is worse than none.
    free = replace(plan.objective, cap=None, name="cost")
    nodes = tuple(replace(n, predicted_cpu_before_millicores=None, predicted_cpu_millicores=None) for n in plan.nodes)
    problems = check_placement(replace(plan, objective=free, nodes=nodes), replace(seven_pods(), cap=None))
    assert [p for p in problems if "is worse than standing still" in p] == list(problems)
    assert problems


def test_a_plan_for_another_objective_is_none_for_this_one(plan: Plan) -> None:
    assert "the plan has a cap on predicted CPU" in check_placement(plan, replace(seven_pods(), cap=None))
    problems = check_placement(plan, capped(seven_pods(), 700, web=650))
    assert f"workload {WEB}: a pod uses 600 millicores by the plan, 650 by the inputs" in problems
