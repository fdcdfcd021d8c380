"""Pods that wait, with room now or without, each case small enough to count by hand; m4 has 4 CPU and costs 0.2 $/h."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.model.cluster import ZONE, Node, Pod, Workload
from planner.model.inputs import PlanningInputs
from planner.model.scheduling import NodeConstraints
from planner.optimizer.census import census_of
from planner.optimizer.movement import movement_of
from planner.optimizer.packing import Packing
from planner.optimizer.problem import build_problem
from planner.optimizer.seats import seated, seated_together
from planner.planning import make_plan
from planner.settings import Settings
from tests.building import catalogue, deployment, inputs, node, offering, pods_of, snapshot
from tests.optimizer.plans import planned


def given(nodes: list[Node], *apps: tuple[Workload, list[Pod]]) -> PlanningInputs:
    pods = [pod for _, own in apps for pod in own]
    return inputs(snapshot(nodes, [workload for workload, _ in apps], pods), catalogue(offering("m4")))


def app(
    name: str, cpu: int, on: dict[str, int] | None = None, pending: int = 0, zone: str = ""
) -> tuple[Workload, list[Pod]]:
    count = sum((on or {}).values()) + pending
    selected = NodeConstraints(((ZONE, zone),)) if zone else NodeConstraints()
    workload = deployment(name, count, cpu=cpu, max_surge=1, max_unavailable=int(count > 1), constraints=selected)
    return workload, pods_of(workload, on, pending)


def fragmented() -> PlanningInputs:
    """Return two nodes with 2 of 4 CPU free each, and a pod of 3 CPU that waits."""
    return given([node("n1"), node("n2")], app("web", 1000, {"n1": 2, "n2": 2}), app("big", 3000, pending=1))


def without_a_seat(cluster: PlanningInputs) -> set[str]:
    return {name for name, seat in seated(movement_of(cluster)).seats.items() if not seat}


class TestWhoHasNoRoom:
    def test_the_largest_pods_take_the_room_first(self) -> None:
        # 2 + 2 CPU are free: one pod of 2 CPU on each node, and none of 1 CPU is left a place.
        cluster = given(
            [node("n1"), node("n2")],
            app("web", 1000, {"n1": 2, "n2": 2}),
            app("small", 1000, pending=1),
            app("large", 2000, pending=2),
        )
        assert without_a_seat(cluster) == {"default/small-0"}

    def test_the_fullest_node_that_holds_a_pod_is_filled(self) -> None:
        # n1 has 1 CPU free, n2 has 3: the pod of 1 CPU leaves n2 to the one of 3.
        cluster = given(
            [node("n1"), node("n2")],
            app("web", 1000, {"n1": 3, "n2": 1}),
            app("small", 1000, pending=1),
            app("large", 3000, pending=1),
        )
        assert without_a_seat(cluster) == set()

    def test_a_node_that_the_pod_does_not_admit_is_no_room(self) -> None:
        cluster = given([node("n1", zone="a")], app("web", 1000, {"n1": 1}), app("late", 1000, pending=1, zone="b"))
        assert without_a_seat(cluster) == {"default/late-0"}


def test_a_pod_without_room_gets_a_new_node_though_others_could_make_room() -> None:
    # As a problem: move two pods from n1 to n2, and big comes to n1: 2 x 0.2 $/h. Nobody moves: 3 x 0.2 $/h.
    plan = planned(fragmented())
    assert plan.objective.nodes_nanousd_per_hour == 400_000_000
    patient = planned(replace(fragmented(), seated=True))
    (new,) = [n for n in patient.nodes if n.state == "boot"]
    assert dict(new.pods)["default/Deployment/big"] == 1
    # The bound is about both.
    assert patient.objective.lower_bound_nanousd_per_hour <= plan.objective.value_nanousd_per_hour


def test_a_pod_with_room_on_one_node_does_not_come_to_another_that_has_none_now() -> None:
    # big has room on n2 now. As a problem it might come to n1 as well, once web has left for n2.
    cluster = given([node("n1"), node("n2")], app("web", 1000, {"n1": 2}), app("big", 3000, pending=1))
    plan = planned(replace(cluster, seated=True))
    assert {n.name: n.pods.get("default/Deployment/big", 0) for n in plan.nodes} == {"n1": 0, "n2": 1}


def test_where_no_new_node_may_be_had_a_pod_waits_for_the_room_of_others() -> None:
    cluster = fragmented()
    nothing_to_buy = replace(cluster, catalogue=replace(cluster.catalogue, offerings=()), seated=True)
    plan = planned(nothing_to_buy)
    assert plan.unplaced == {}
    assert sorted(sum(n.pods.values()) for n in plan.nodes) == [2, 3]


def test_a_pod_that_fits_nowhere_is_no_reason_to_let_others_wait() -> None:
    cluster = given(
        [node("n1"), node("n2")],
        app("web", 1000, {"n1": 2, "n2": 2}),
        app("big", 3000, pending=1),
        app("huge", 9000, pending=1),
    )
    plan = planned(replace(cluster, seated=True))
    assert list(plan.unplaced) == ["default/Deployment/huge"]
    assert [n.state for n in plan.nodes if n.pods.get("default/Deployment/big")] == ["boot"]


def test_pods_that_wait_hold_up_no_plan_whose_moves_would_make_room_for_them() -> None:
    # n1 to n4 have 1 CPU free each, n5 and n6 have 3. For the two pods of 3.5 CPU that wait nobody has room: web would
    # have to leave n5 and n6 first, and whoever waits would come between.
    nodes = [node(f"n{i}") for i in range(1, 7)]
    web = app("web", 1000, {"n1": 3, "n2": 3, "n3": 3, "n4": 3, "n5": 1, "n6": 1})
    plan = make_plan(given(nodes, web, app("late", 3500, pending=2)), Settings(), lambda report: None)
    assert plan.unplaced == {}
    assert not any(w.reason.startswith("no order of stages") for w in plan.workloads.values())
    # 14 CPU of web and 2 x 3.5 CPU on m4: six nodes hold 12 + 2 and 7, as few as 21 CPU need.
    assert plan.objective.nodes_nanousd_per_hour == 6 * 200_000_000


def test_pods_that_come_to_one_node_have_room_there_together_before_anybody_leaves() -> None:
    # Two pods of web on n1 and three on n2, 1 CPU each; n3 is empty. A plan sends both pods of 2 CPU that wait to n1,
    # and web away: now only one of them has room there. The other one may go to n3, if web leaves 2 CPU there.
    cluster = given(
        [node("n1"), node("n2"), node("n3")], app("web", 1000, {"n1": 2, "n2": 3}), app("late", 2000, pending=2)
    )
    problem = build_problem(census_of(seated(movement_of(cluster))), {})
    late, web = (problem.requests[:, problem.resources.index("cpu_millicores")].tolist().index(c) for c in (2000, 1000))
    at = {c.nodes[0]: k for k, c in enumerate(problem.classes) if c.nodes}
    contents = np.zeros((3, 2), dtype=np.int64)
    contents[[0, 1, 2], [late, web, web]] = 2, 2, 3
    packing = Packing(np.array([at["n1"], at["n2"], at["n3"]]), contents)
    # n2 has no 2 CPU now, and n3 none in the end.
    assert seated_together(problem, packing).contents[:, late].tolist() == [2, 0, 0]
    contents[2, web], contents[1, web] = 1, 4
    assert seated_together(problem, packing).contents[:, late].tolist() == [1, 0, 1]
