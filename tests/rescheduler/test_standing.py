"""What no order of stages can move is left where it is, and the rest of the plan arranged around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import pytest

from planner.model.cluster import HOSTNAME, Snapshot, Workload
from planner.model.inputs import PlanningInputs
from planner.model.plan import Plan, Unplaced
from planner.model.resources import Resources
from planner.model.scheduling import LabelSelector, PodRules, PodTerm, Requirement
from planner.rescheduler import left_standing, mended, staged
from planner.rescheduler.rehearsal import Ending, Rehearsal
from tests.building import catalogue, deployment, inputs, offering, pods_of, resources, snapshot
from tests.rescheduler.test_steps import moved, planned_node, pool_node, record_of

STORE, LATE = deployment("store", 1, cpu=2000, kind="StatefulSet"), deployment("late", 1, cpu=3000)
WHY = {STORE.key: "no room"}
OVERLAP = 10**8 * 15 // (60 * 24)
"""A node of 0.1 $/h that runs 15 minutes beside its replacement, spread over 24 hours."""


def test_a_waiting_pod_that_was_to_have_the_room_of_what_stays_goes_to_another_node_of_the_plan() -> None:
    # store (2000) stays on "mid" (4000), where late (3000) has no room beside it; "new" is empty then.
    plan, given = plan_for_late_on_mid()
    assert list(staged(plan, given, lambda: 60.0)[1].stuck) == [STORE.key]
    found = left_standing(plan, WHY, given)
    assert found is not None
    assert {n.name: (n.state, dict(n.pods)) for n in found.nodes} == {
        "mid": ("keep", {STORE.key: 1}),
        "new": ("boot", {LATE.key: 1}),
    }
    assert found.workloads[STORE.key].reason == "no order of stages could move it: no room"
    assert (found.workloads[STORE.key].strategy, found.moves) == ("stay", 0)
    assert staged(found, given, lambda: 60.0)[1].stuck == {}


def test_a_waiting_pod_takes_no_room_that_others_have_to_leave_first() -> None:
    # On "side" (4000) leaver (3000) stands until it is evicted to "far"; late would find no room there before. "new"
    # has room from the start, and comes after it in the plan.
    plan, given = plan_for_late_on_mid()
    leaver = deployment("leaver", 1, cpu=3000, kind="StatefulSet")
    cluster = given.snapshot
    cluster = replace(
        cluster,
        nodes=(pool_node("side"), *cluster.nodes, pool_node("far")),
        workloads=(*cluster.workloads, leaver),
        pods=(*cluster.pods, *pods_of(leaver, {"side": 1})),
    )
    plan = replace(
        plan,
        nodes=(planned_node("side", "keep"), *plan.nodes, planned_node("far", "keep", {leaver.key: 1})),
        workloads={**plan.workloads, leaver.key: moved(leaver, 1, "evict")},
    )
    found = left_standing(plan, WHY, replace(given, snapshot=cluster))
    assert found is not None
    assert {n.name: dict(n.pods) for n in found.nodes}["side"] == {}
    assert {n.name: dict(n.pods) for n in found.nodes}["new"] == {LATE.key: 1}


def test_nodes_of_what_stays_are_kept_and_new_ones_that_nothing_is_left_for_are_not_booted() -> None:
    nodes = [planned_node("old", "remove"), planned_node("new", "boot", {STORE.key: 1})]
    plan = record_of(nodes, {STORE.key: moved(STORE, 1, "evict")}).plan
    plan = replace(
        plan, objective=replace(plan.objective, nodes_nanousd_per_hour=10**8, boots_nanousd_per_hour=OVERLAP)
    )
    found = left_standing(plan, WHY, planned(snapshot([pool_node("old")], [STORE], pods_of(STORE, {"old": 1}))))
    assert found is not None
    assert [(n.name, n.state, dict(n.pods)) for n in found.nodes] == [("old", "keep", {STORE.key: 1})]
    # One node, no move, and none removed.
    assert found.objective.value_nanousd_per_hour == found.cost_nanousd_per_hour == 10**8


def test_what_was_to_come_to_a_node_that_stays_full_stays_as_well() -> None:
    # guest (3000) cannot come to "mid" (4000) beside store (2000), so "old" is not removed either.
    guest = deployment("guest", 1, cpu=3000, kind="StatefulSet")
    plan = record_of(
        [
            planned_node("mid", "keep", {guest.key: 1}),
            planned_node("new", "boot", {STORE.key: 1}),
            planned_node("old", "remove"),
        ],
        {STORE.key: moved(STORE, 1, "evict"), guest.key: moved(guest, 1, "evict")},
    ).plan
    pods = pods_of(STORE, {"mid": 1}) + pods_of(guest, {"old": 1})
    found = left_standing(plan, WHY, planned(snapshot([pool_node("mid"), pool_node("old")], [STORE, guest], pods)))
    assert found is not None
    assert [(n.name, n.state, dict(n.pods)) for n in found.nodes] == [
        ("mid", "keep", {STORE.key: 1}),
        ("old", "keep", {guest.key: 1}),
    ]
    assert found.moves == 0
    assert found.workloads[guest.key].reason.endswith("others that stay stand in its way")


def ending_in(stuck: Mapping[str, str], plan: Plan, given: PlanningInputs) -> Ending:
    """Return where the plan's moves end, with these workloads as those that are stuck."""
    return replace(Rehearsal.of(plan, given).play(plan), stuck=dict(stuck))


def plan_around_store_on_mid(guest: Workload, start: str, **fields: Any) -> tuple[Plan, PlanningInputs]:
    """Return a plan in which store is rolled out from "mid" to "new", and guest moves from `start` to "mid"."""
    states: dict[str, Literal["keep", "remove"]] = {"old": "remove", "side": "keep"}
    plan = record_of(
        [
            planned_node("mid", "keep", {guest.key: 1}),
            planned_node("new", "boot", {STORE.key: 1}),
            planned_node(start, states[start]),
        ],
        {STORE.key: moved(STORE, 1, "rollout"), guest.key: moved(guest, 1, "evict")},
    ).plan
    pods = pods_of(STORE, {"mid": 1}, **fields) + pods_of(guest, {start: 1})
    return plan, planned(snapshot([pool_node("mid"), pool_node(start)], [STORE, guest], pods))


def test_what_was_to_come_beside_a_stuck_rollout_comes_to_another_node() -> None:
    # guest (3000) has no room on "mid" (4000) beside store (2000); "new" (4000) is empty now, and "old" goes.
    guest = deployment("guest", 1, cpu=3000, kind="StatefulSet")
    plan, given = plan_around_store_on_mid(guest, "old")
    found = mended(plan, given, ending_in(WHY, plan, given))
    assert found is not None
    assert {n.name: (n.state, dict(n.pods)) for n in found.nodes} == {
        "mid": ("keep", {STORE.key: 1}),
        "new": ("boot", {guest.key: 1}),
        "old": ("remove", {}),
    }
    assert (found.workloads[STORE.key].strategy, found.workloads[guest.key].moves) == ("stay", 1)


def test_what_finds_room_where_it_is_does_not_move() -> None:
    # guest (1800) fits neither on "mid" (4000) beside store (2500) nor on "new" (1000). "side" (4000), where it is, has
    # room for one more of it.
    guest = deployment("guest", 1, cpu=1800, kind="StatefulSet")
    plan, given = plan_around_store_on_mid(guest, "side")
    full = [replace(n, allocatable=resources(1000, 16, 110)) if n.name == "new" else n for n in plan.nodes]
    plan = replace(plan, nodes=tuple(full))
    large = tuple(
        replace(p, requests=resources(2500, 1)) if p.workload == STORE.key else p for p in given.snapshot.pods
    )
    given = replace(given, snapshot=replace(given.snapshot, pods=large))
    found = mended(plan, given, ending_in(WHY, plan, given))
    assert found is not None
    assert {n.name: (n.state, dict(n.pods)) for n in found.nodes} == {
        "mid": ("keep", {STORE.key: 1}),
        "side": ("keep", {guest.key: 1}),
    }
    assert (found.workloads[guest.key].strategy, found.moves) == ("stay", 0)
    assert found.objective.moves_nanousd_per_hour == 0


def test_whom_a_stuck_pod_needs_beside_it_stays_with_it() -> None:
    # store must stand beside mate; both were to go from "mid" to "new". mate can, and store cannot.
    mate = deployment("mate", 1, cpu=500, kind="StatefulSet")
    beside = PodRules(affinity=(PodTerm(HOSTNAME, None, LabelSelector((Requirement("app", "In", ("mate",)),))),))
    guest = deployment("guest", 1, cpu=3000, kind="StatefulSet")
    plan, given = plan_around_store_on_mid(guest, "old", rules=beside)
    both = [replace(n, pods={STORE.key: 1, mate.key: 1}) if n.name == "new" else n for n in plan.nodes]
    ways = {STORE.key: moved(STORE, 1, "evict"), mate.key: moved(mate, 1, "evict")}
    plan = replace(plan, nodes=tuple(both), workloads={**plan.workloads, **ways})
    cluster = given.snapshot
    cluster = replace(cluster, workloads=(*cluster.workloads, mate), pods=(*cluster.pods, *pods_of(mate, {"mid": 1})))
    given = replace(given, snapshot=cluster)
    found = mended(plan, given, ending_in(WHY, plan, given))
    assert found is not None
    assert {n.name: dict(n.pods) for n in found.nodes} == {
        "mid": {STORE.key: 1, mate.key: 1},
        "new": {guest.key: 1},
        "old": {},
    }
    assert found.workloads[mate.key].reason.endswith("others that stay stand beside it")


def test_of_several_that_are_stuck_a_rollout_stays_and_others_get_new_nodes() -> None:
    # store's roll-out has no room; left and right (2 x 2000 each) would have to swap "a" and "b" (4000).
    left, right = (deployment(name, 2, cpu=2000, kind="StatefulSet", max_unavailable=1) for name in ("left", "right"))
    plan = record_of(
        [
            planned_node("mid", "keep"),
            planned_node("new", "boot", {STORE.key: 1}),
            planned_node("a", "keep", {right.key: 2}),
            planned_node("b", "keep", {left.key: 2}),
        ],
        {
            STORE.key: moved(STORE, 1, "rollout"),
            left.key: moved(left, 2, "evict"),
            right.key: moved(right, 2, "evict"),
        },
    ).plan
    pods = pods_of(STORE, {"mid": 1}) + pods_of(left, {"a": 2}) + pods_of(right, {"b": 2})
    nodes = [pool_node(name) for name in ("mid", "a", "b")]
    given = planned(snapshot(nodes, [STORE, left, right], pods))
    both = {**WHY, left.key: "no room"}
    spared = mended(plan, given, ending_in(both, plan, given))
    assert spared is not None
    found = mended(spared, given, ending_in(WHY, spared, given))
    assert found is not None
    assert {n.name: dict(n.pods) for n in found.nodes if n.state == "keep"} == {
        "mid": {STORE.key: 1},
        "a": {right.key: 2},
        "b": {},
    }
    assert [dict(n.pods) for n in found.nodes if n.state == "boot"] == [{left.key: 2}]
    assert staged(found, given, lambda: 60.0)[1].stuck == {}


def test_a_waiting_pod_without_room_elsewhere_comes_to_a_further_new_node() -> None:
    # "new" has 1000: there is 4000 - 2000 on "mid" for the 3000 of late, and m4 is on offer.
    plan, given = plan_for_late_on_mid()
    found = left_standing(with_tiny_new_node(plan), WHY, given)
    assert found is not None
    further = [n for n in found.nodes if n.pods == {LATE.key: 1}]
    assert [(n.state, n.machine_type, n.zone) for n in further] == [("boot", "m4", "zone-a")]
    assert {n.name: dict(n.pods) for n in found.nodes}["mid"] == {STORE.key: 1}
    assert found.cost_nanousd_per_hour == sum(n.price_nanousd_per_hour or 0 for n in found.nodes)
    assert staged(found, given, lambda: 60.0)[1].stuck == {}


def test_nothing_is_left_standing_where_a_waiting_pod_would_have_no_place() -> None:
    # The pool may have two nodes, "mid" and "new".
    plan, given = plan_for_late_on_mid()
    two = catalogue(offering(pool="pool-a", maximum=2))
    assert left_standing(with_tiny_new_node(plan), WHY, replace(given, catalogue=two)) is None


def with_tiny_new_node(plan: Plan) -> Plan:
    tiny = [replace(n, pods={}, allocatable=resources(1000, 16, 110)) if n.name == "new" else n for n in plan.nodes]
    return replace(plan, nodes=tuple(tiny))


@pytest.mark.parametrize("change", ["requests", "unplaced"])
def test_nothing_is_left_standing_that_changes_its_requests_or_has_pods_without_a_place(change: str) -> None:
    plan, given = plan_for_late_on_mid()
    if change == "requests":
        wider = replace(plan.workloads[STORE.key], containers={"main": Resources(2500, 1)})
        plan = replace(plan, workloads={**plan.workloads, STORE.key: wider})
    else:
        plan = replace(plan, unplaced={STORE.key: Unplaced(1, "no room")})
    assert left_standing(plan, WHY, given) is None


def plan_for_late_on_mid() -> tuple[Plan, PlanningInputs]:
    """Return a plan in which store leaves "mid" for "new", and late, which waits for a node, is to come to "mid"."""
    plan = record_of(
        [planned_node("mid", "keep", {LATE.key: 1}), planned_node("new", "boot", {STORE.key: 1})],
        {STORE.key: moved(STORE, 1, "evict"), LATE.key: moved(LATE, 0, "stay")},
    ).plan
    pods = pods_of(STORE, {"mid": 1}) + pods_of(LATE, pending=1)
    return plan, planned(snapshot([pool_node("mid")], [STORE, LATE], pods))


def planned(cluster: Snapshot) -> PlanningInputs:
    return inputs(cluster, catalogue(offering(pool="pool-a")))
