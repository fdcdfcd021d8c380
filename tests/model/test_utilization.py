"""What pods are predicted to use, by workload, and as an amount like others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.model.cap import CpuCap, objective_name
from planner.model.plan import Objective, Plan, PlannedNode
from planner.model.utilization import (
    cap_on,
    excess_millicores,
    holding,
    predicted_usage,
    rounded_up,
    under_cap,
)
from tests.building import (
    catalogue,
    daemonset,
    daemonset_pod,
    deployment,
    node,
    offering,
    pod,
    pods_of,
    resources,
    snapshot,
)

WEB, API, AGENT = "default/Deployment/web", "default/Deployment/api", "kube-system/DaemonSet/agent"


@pytest.mark.parametrize(
    ("millicores", "rounded"),
    [(0, 0), (1, 10), (10, 10), (11, 20), (99, 100), (101, 110), (990, 990), (991, 1000), (1001, 1100), (12345, 13000)],
)
def test_usage_is_rounded_up_to_two_digits_and_ten_millicores(millicores: int, rounded: int) -> None:
    assert rounded_up(millicores) == rounded
    assert rounded_up(rounded) == rounded


def test_what_is_not_measured_counts_with_its_largest_request() -> None:
    web, api = deployment("web", 2, cpu=250), deployment("api", 2, cpu=125)
    grown = pod(api, "new", requests=resources(375, 1, 1))
    agent, other = daemonset("agent", cpu=100), daemonset("other", cpu=30)
    pods = [*pods_of(web, {"a": 2}), *pods_of(api, {"a": 1}), grown, daemonset_pod(agent, "a")]
    cluster = snapshot([node("a")], [web, api], pods, daemonsets=(agent, other))
    found = predicted_usage(cluster, {WEB: 301, AGENT: 5, "default/Deployment/gone": 99})
    # What is measured is rounded up; requests are kinds of pods already.
    assert found == {API: 375, WEB: 310, AGENT: 10, other.key: 30}


def test_pods_of_no_workload_that_is_measured_and_finished_ones_count_as_they_are() -> None:
    web = deployment("web", 2, cpu=250)
    done = pod(web, "done", on="a", phase="Succeeded", requests=resources(4000, 1, 1))
    assert predicted_usage(snapshot([node("a")], [web], [done, *pods_of(web, {"a": 1})]), {}) == {WEB: 250}


def test_a_node_has_room_for_its_share_rounded_down_or_what_it_is_allowed() -> None:
    web = deployment("web", 1, cpu=250)
    cluster = snapshot([node("a", cpu=3921), node("b", cpu=3921)], [web], pods_of(web, {"a": 1}))
    offers = catalogue(offering(cpu=3921))
    cap = CpuCap(700, "day", {WEB: 300}, {"b": 3000})
    counted, sold = under_cap(cluster, offers, cap)
    # 0.7 x 3921 = 2744.7
    assert [n.allocatable.predicted_cpu_millicores for n in counted.nodes] == [2744, 3000]
    assert [o.allocatable.predicted_cpu_millicores for o in sold.offerings] == [2744]
    assert counted.pods[0].requests == resources(250, 1, 1, **{"kinema.io/predicted-cpu-millicores": 300})
    assert counted.pods[0].requests.plain == cluster.pods[0].requests
    assert [n.allocatable.plain for n in counted.nodes] == [n.allocatable for n in cluster.nodes]


def test_predicted_cpu_is_counted_as_other_amounts_and_can_be_taken_away() -> None:
    one = resources(500, 1, 1).with_predicted_cpu(300)
    room = resources(4000, 16, 110).with_predicted_cpu(700)
    assert (one * 2).fits_in(room)
    assert not (one * 3).fits_in(room)
    assert (room - one * 3).predicted_cpu_millicores == -200
    assert not one.fits_in(room - one * 3)
    assert one.with_predicted_cpu(0).fits_in(room - one * 3)
    assert one.with_predicted_cpu(200).predicted_cpu_millicores == 200
    assert one.scheduled == resources(500, 1, 1)


def test_objectives_are_named_by_their_cap() -> None:
    assert objective_name(None) == "cost"
    assert objective_name(cap_on(snapshot(), 725, "day", {})) == "cost under cpu utilization <= 0.725"


def test_pods_that_are_put_elsewhere_take_their_use_along() -> None:
    cap = CpuCap(700, "day", {WEB: 300, API: 100}, {"b": 3000})
    before = PlannedNode(
        "a", "keep", "p", "m4", "z", "on-demand", 1, resources(4000), {WEB: 2}, predicted_cpu_millicores=700
    )
    # The other 100m are those of a DaemonSet. - 2 x 300 + 300 + 5 x 100
    after = holding(before, {WEB: 1, API: 5}, cap)
    assert (after.pods, after.predicted_cpu_millicores) == ({WEB: 1, API: 5}, 900)
    assert holding(before, {WEB: 1}, None) == replace(before, pods={WEB: 1})


def test_what_nodes_use_beyond_the_cap_counts_but_for_frozen_ones_and_what_is_allowed() -> None:
    cap = CpuCap(700, "day", {}, {"b": 3000})

    def using(name: str, millicores: int, frozen: bool = False) -> PlannedNode:
        node = PlannedNode(name, "keep", "p", "m4", "z", "on-demand", 1, resources(4000), {}, frozen=frozen)
        return replace(node, predicted_cpu_millicores=millicores)

    nodes = (using("a", 2850), using("b", 3010), using("c", 2800), using("d", 4000, frozen=True))
    objective = Objective("", 0, 0, 0, 0, "feasible", 24, 0, 0, cap=cap)
    plan = Plan("it-1", objective, 0, 0, nodes, {})
    # 0.7 x 4000 = 2800
    assert excess_millicores(plan, allowed=False) == 50 + 210
    assert excess_millicores(plan, allowed=True) == 50 + 10
    assert excess_millicores(replace(plan, objective=replace(objective, cap=None)), allowed=False) == 0
