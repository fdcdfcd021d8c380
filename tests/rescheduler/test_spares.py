"""What no order of stages can bring to its planned nodes comes to new ones; m4 has 4 CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner.model.cluster import HOSTNAME, ZONE, Workload
from planner.model.inputs import PlanningInputs
from planner.model.machines import Offering
from planner.model.plan import Plan
from planner.model.resources import Resources
from planner.model.scheduling import LabelSelector, NodeConstraints, PodRules, PodTerm, Requirement
from planner.rescheduler import staged
from planner.rescheduler.rehearsal import Ending, Rehearsal
from planner.rescheduler.spares import with_room_for, with_spare_nodes
from tests.building import catalogue, deployment, inputs, offering, pods_of, resources, snapshot
from tests.rescheduler.test_steps import IT, moved, planned_node, pool_node, record_of

LEFT, RIGHT = (deployment(name, 2, cpu=2000, kind="StatefulSet", max_unavailable=1) for name in ("left", "right"))


def swapped(*offers: Offering, **fields: Any) -> tuple[Plan, PlanningInputs]:
    """Return a plan in which the two pods of left and right swap two full nodes, with room for nobody on the way."""
    plan = record_of(
        [planned_node("a", "keep", {RIGHT.key: 2}), planned_node("b", "keep", {LEFT.key: 2})],
        {LEFT.key: moved(LEFT, 2, "evict"), RIGHT.key: moved(RIGHT, 2, "evict")},
    ).plan
    plan = replace(plan, objective=replace(plan.objective, nodes_nanousd_per_hour=2 * 10**8))
    pods = pods_of(LEFT, {"a": 2}, **fields) + pods_of(RIGHT, {"b": 2})
    cluster = snapshot([pool_node("a"), pool_node("b")], [LEFT, RIGHT], pods)
    return plan, inputs(cluster, catalogue(*(offers or (offering(price_usd=0.1, pool="pool-a"),))))


def end_of(plan: Plan, given: PlanningInputs) -> Ending:
    return Rehearsal.of(plan, given).play(plan)


def booted(plan: Plan | None) -> dict[str, tuple[str, dict[str, int]]]:
    assert plan is not None
    return {n.name: (n.machine_type, dict(n.pods)) for n in plan.nodes if n.state == "boot"}


def test_one_of_two_that_would_have_to_swap_gets_a_new_node_and_then_both_can_move() -> None:
    plan, given = swapped()
    assert staged(plan, given, lambda: 60.0, diverting=False)[1].stuck.keys() == {LEFT.key, RIGHT.key}
    found = with_spare_nodes(plan, [LEFT.key], given, end_of(plan, given))
    assert booted(found) == {f"pool-a-{IT}-2": ("m4", {LEFT.key: 2})}
    assert found is not None
    assert found.cost_nanousd_per_hour == found.objective.nodes_nanousd_per_hour == 3 * 10**8
    assert {n.name: dict(n.pods) for n in found.nodes if n.state == "keep"} == {"a": {RIGHT.key: 2}, "b": {}}
    assert staged(found, given, lambda: 60.0)[1].stuck == {}


def test_pods_of_a_stuck_workload_that_can_move_go_where_the_plan_wants_them() -> None:
    # A third pod of left keeps its zone: it goes from "old" to "c", while the two in zone-a cannot swap with right's.
    left = replace(LEFT, replicas=3)
    plan = record_of(
        [
            planned_node("a", "keep", {RIGHT.key: 2}),
            planned_node("b", "keep", {left.key: 2}),
            planned_node("c", "keep", {left.key: 1}),
            planned_node("old", "remove"),
        ],
        {left.key: moved(left, 3, "evict"), RIGHT.key: moved(RIGHT, 2, "evict")},
    ).plan
    nodes = [pool_node("a"), pool_node("b"), pool_node("c", zone="zone-b"), pool_node("old", zone="zone-b")]
    pods = pods_of(left, {"a": 2, "old": 1}, keeps=(ZONE,)) + pods_of(RIGHT, {"b": 2})
    given = inputs(snapshot(nodes, [left, RIGHT], pods), catalogue(offering(price_usd=0.1, pool="pool-a")))
    assert staged(plan, given, lambda: 60.0, diverting=False)[1].stuck.keys() == {left.key, RIGHT.key}
    found = with_spare_nodes(plan, [left.key], given, end_of(plan, given))
    assert booted(found) == {f"pool-a-{IT}-4": ("m4", {left.key: 2})}
    assert found is not None
    assert {n.name: dict(n.pods) for n in found.nodes if n.name in ("b", "c")} == {"b": {}, "c": {left.key: 1}}
    assert staged(found, given, lambda: 60.0)[1].stuck == {}


def test_a_pod_that_waits_comes_where_it_has_room_while_others_of_its_workload_get_a_new_node() -> None:
    # left's third pod waits; "c" has room for it now. Its two others cannot swap with right's.
    left = replace(LEFT, replicas=3)
    plan = record_of(
        [
            planned_node("a", "keep", {RIGHT.key: 2}),
            planned_node("b", "keep", {left.key: 2}),
            planned_node("c", "keep", {left.key: 1}),
        ],
        {left.key: moved(left, 2, "evict"), RIGHT.key: moved(RIGHT, 2, "evict")},
    ).plan
    pods = pods_of(left, {"a": 2}, pending=1) + pods_of(RIGHT, {"b": 2})
    cluster = snapshot([pool_node("a"), pool_node("b"), pool_node("c")], [left, RIGHT], pods)
    given = inputs(cluster, catalogue(offering(price_usd=0.1, pool="pool-a")))
    found = with_spare_nodes(plan, [left.key], given, end_of(plan, given))
    assert booted(found) == {f"pool-a-{IT}-3": ("m4", {left.key: 2})}
    assert found is not None
    assert {n.name: dict(n.pods) for n in found.nodes if n.name in ("b", "c")} == {"b": {}, "c": {left.key: 1}}


@pytest.mark.parametrize("alone", [False, True])
def test_pods_of_several_workloads_share_a_new_node_unless_one_has_rules_of_its_own(alone: bool) -> None:
    # 2 x 2000 of left leave 4000 of 8000 millicores, as much as right's two take.
    rules = PodRules(anti_affinity=(PodTerm(HOSTNAME, None, LabelSelector((Requirement("app", "In", ("x",)),))),))
    plan, given = swapped(offering("m8", 0.2, 8000, 32, pool="pool-a"), rules=rules if alone else PodRules())
    found = booted(with_spare_nodes(plan, [LEFT.key, RIGHT.key], given, end_of(plan, given)))
    both = [{LEFT.key: 2, RIGHT.key: 2}]
    assert [content for _, content in found.values()] == ([{LEFT.key: 2}, {RIGHT.key: 2}] if alone else both)


def test_the_nodes_that_cost_least_together_are_booted() -> None:
    # Two of 2 CPU for 0.03 $/h each are cheaper than one of 4 CPU for 0.1 $/h.
    plan, given = swapped(offering("m4", 0.1, pool="pool-a"), offering("m2", 0.03, 2000, pool="pool-b"))
    found = with_spare_nodes(plan, [LEFT.key], given, end_of(plan, given))
    assert [content for _, content in booted(found).values()] == [{LEFT.key: 1}, {LEFT.key: 1}]
    assert found is not None
    assert found.cost_nanousd_per_hour == 2 * 10**8 + 2 * 30_000_000


def test_a_pool_that_may_not_grow_boots_none() -> None:
    plan, given = swapped(offering("m4", 0.1, pool="pool-a", zone="zone-a", maximum=2))
    assert with_spare_nodes(plan, [LEFT.key], given, end_of(plan, given)) is None


def test_pods_that_keep_their_zone_get_a_node_there() -> None:
    offers = [offering("m4", cost, pool=zone, zone=zone) for zone, cost in (("zone-a", 0.1), ("zone-b", 0.05))]
    plan, given = swapped(*offers, keeps=(ZONE,))
    found = with_spare_nodes(plan, [LEFT.key], given, end_of(plan, given))
    assert found is not None
    assert [n.zone for n in found.nodes if n.state == "boot"] == ["zone-a"]


@pytest.mark.parametrize("why", ["roll-out", "company", "constraints", "too-large"])
def test_nothing_is_booted_for_what_that_would_not_help(why: str) -> None:
    own = LabelSelector((Requirement("app", "In", ("left",)),))
    fields: dict[str, dict[str, Any]] = {
        "company": {"rules": PodRules(affinity=(PodTerm(HOSTNAME, None, own),))},
        "constraints": {"constraints": NodeConstraints((("disk", "ssd"),))},
    }
    plan, given = swapped(**fields.get(why, {}))
    if why == "roll-out":
        plan = with_workload(plan, LEFT, strategy="rollout")
    if why == "too-large":
        plan = with_workload(plan, LEFT, requests=Resources(5000, 0, 1))
    assert with_spare_nodes(plan, [LEFT.key], given, end_of(plan, given)) is None


def with_workload(plan: Plan, workload: Workload, **fields: Any) -> Plan:
    changed = {**plan.workloads, workload.key: replace(plan.workloads[workload.key], **fields)}
    return replace(plan, workloads=changed)


ROLLED = deployment("rolled", 1, cpu=3000)


def rolled_out_to_mid(*offers: Offering, **fields: Any) -> tuple[Plan, PlanningInputs, Ending]:
    """Return a plan in which rolled (3000) and guest (2000) come to "mid" (4000), though that was full to the brim.

    Guest goes first, so that the roll-out is stuck at the end.
    """
    guest = deployment("guest", 2, cpu=2000, max_unavailable=1)
    nodes = [planned_node("mid", "keep", {ROLLED.key: 1, guest.key: 1}), planned_node("old", "remove")]
    plan = record_of(
        [*nodes, planned_node("side", "keep", {guest.key: 1})],
        {ROLLED.key: moved(ROLLED, 1, "rollout", stage=1), guest.key: moved(guest, 1, "evict")},
    ).plan
    plan = replace(plan, objective=replace(plan.objective, nodes_nanousd_per_hour=2 * 10**8))
    pods = pods_of(ROLLED, {"old": 1}) + pods_of(guest, {"old": 1, "side": 1}, **fields)
    old = replace(pool_node("old"), allocatable=resources(8000, 16, 110))
    cluster = snapshot([pool_node("mid"), old, pool_node("side")], [ROLLED, guest], pods)
    given = inputs(cluster, catalogue(*(offers or (offering(price_usd=0.1, pool="pool-a"),))))
    return plan, given, end_of(plan, given)


def test_a_rollout_gets_its_room_and_what_else_was_to_come_there_gets_a_new_node() -> None:
    plan, given, ending = rolled_out_to_mid()
    assert ending.stuck == {ROLLED.key: "its new pods do not fit beside the old ones on mid"}
    found = with_room_for(plan, given, ending)
    assert found is not None
    assert {n.name: dict(n.pods) for n in found.nodes if n.state == "keep"} == {
        "mid": {ROLLED.key: 1},
        "side": {"default/Deployment/guest": 1},
    }
    assert [content for _, content in booted(found).values()] == [{"default/Deployment/guest": 1}]
    assert found.cost_nanousd_per_hour == 3 * 10**8
    assert staged(found, given, lambda: 60.0)[1].stuck == {}


@pytest.mark.parametrize("why", ["company", "nothing on offer"])
def test_nobody_gets_room_where_others_can_go_nowhere_else(why: str) -> None:
    beside = PodRules(affinity=(PodTerm(HOSTNAME, None, LabelSelector((Requirement("app", "In", ("rolled",)),))),))
    if why == "company":
        plan, given, ending = rolled_out_to_mid(rules=beside)
        ending = replace(ending, stuck={ROLLED.key: "no room"}, movers=end_of(*rolled_out_to_mid()[:2]).movers)
    else:
        plan, given, ending = rolled_out_to_mid(offering("m1", 0.1, 1000, pool="pool-a"))
    assert with_room_for(plan, given, ending) is None
