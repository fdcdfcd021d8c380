"""Domains of pending pods, each case small enough to count by hand; m4 has 4 CPU and costs 0.2 $/h."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planner.model.cluster import ZONE, Node, Pod
from planner.model.coexistence import interpreted
from planner.model.machines import Offering, SpotRule
from planner.model.plan import Plan
from planner.model.scheduling import LabelSelector, NodeConstraints, PodRules, PodTerm, Requirement, Spread
from tests.building import catalogue, deployment, inputs, node, offering, pods_of, snapshot
from tests.optimizer import plans

SPOT = {"cloud.google.com/gke-spot": "true"}


def of(*apps: str) -> LabelSelector:
    return LabelSelector((Requirement("app", "In", apps),))


def spread(app: str, skew: int = 1) -> PodRules:
    return PodRules(spreads=(Spread(ZONE, skew, of(app)),))


def app(
    name: str, rules: PodRules | None = None, on: dict[str, int] | None = None, pending: int = 0, zone: str = ""
) -> list[Pod]:
    """Return pods of 2 CPU, two of which fill an m4."""
    selected = NodeConstraints(((ZONE, zone),)) if zone else NodeConstraints()
    workload = deployment(name, pending + sum((on or {}).values()), cpu=2000, max_unavailable=1)
    return pods_of(workload, on, pending, rules=rules or PodRules(), constraints=selected)


def planned(
    nodes: Sequence[Node], pods: Sequence[Pod], offers: Sequence[Offering], spot: SpotRule | None = None
) -> Plan:
    """Plan deployments of these pods."""
    counts = {pod.workload: sum(other.workload == pod.workload for other in pods) for pod in pods}
    workloads = [deployment(key.split("/")[2], count, cpu=2000, max_unavailable=1) for key, count in counts.items()]
    cluster = snapshot(nodes, workloads, interpreted(nodes, pods))
    given = inputs(cluster, replace(catalogue(*offers), spot=spot or SpotRule()))
    return plans.planned(given)


def by_zone(plan: Plan, app: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for planned_node in plan.nodes:
        if count := planned_node.pods.get(f"default/Deployment/{app}", 0):
            counts[planned_node.zone] = counts.get(planned_node.zone, 0) + count
    return counts


def test_pods_that_find_no_place_do_not_count_for_the_spread_of_the_others() -> None:
    # Zone b may have one node, which holds two: beside 2 in b a maxSkew of 1 allows 3 in a. The other 3 stay out.
    offers = [offering("m4", pool="a", zone="a"), offering("m4", pool="b", zone="b", maximum=1)]
    plan = planned([], app("web", spread("web"), pending=8), offers)
    assert by_zone(plan, "web") == {"a": 3, "b": 2}
    (left_out,) = plan.unplaced.values()
    assert left_out.count == 3
    assert left_out.reason == ("no domain is open to it: in b a node that would hold it is beyond pool maximum b/b")


def test_pods_that_may_not_come_to_spot_nodes_get_a_zone_in_which_there_are_others() -> None:
    offers = [
        offering("m4", 0.06, pool="a", zone="a", capacity_type="spot", labels=SPOT),
        offering("m4", pool="b", zone="b"),
    ]
    near = PodRules(affinity=(PodTerm(ZONE, None, of("web")),))
    assert by_zone(planned([], app("web", near, pending=2), offers, SpotRule(of("batch"))), "web") == {"b": 2}


def test_no_zone_is_opened_for_a_pod_if_that_breaks_the_spread_of_others_and_the_reason_says_so() -> None:
    # 2 in a and 2 in b hold a maxSkew of 1 only as long as there is no empty zone c.
    nodes = [node("a1", zone="a"), node("b1", zone="b")]
    pods = [*app("web", spread("web"), {"a1": 2, "b1": 2}), *app("disk", pending=1, zone="c")]
    plan = planned(nodes, pods, [offering(zone=zone) for zone in "abc"])
    (left_out,) = plan.unplaced.values()
    assert left_out.reason == f"a first node in c would break the spread of default/Deployment/web over {ZONE}"


def test_a_zone_is_opened_by_the_pods_that_even_out_the_spread() -> None:
    # 2 in a, with the only node: two more go to b, and one that only runs in b comes along.
    pods = [*app("web", spread("web"), {"a1": 2}, pending=2), *app("disk", pending=1, zone="b")]
    plan = planned([node("a1", zone="a")], pods, [offering(zone=zone) for zone in "ab"])
    assert plan.unplaced == {}
    assert by_zone(plan, "web") == {"a": 2, "b": 2}


def test_what_nothing_holds_is_named_by_what_it_requests_and_not_by_its_spread() -> None:
    plan = planned([], app("web", spread("web"), pending=2), [offering("m1", cpu=1000, zone=zone) for zone in "ab"])
    (left_out,) = plan.unplaced.values()
    assert left_out.reason == "requests 2 CPU; the largest offering that admits it, m1, has 1 free"
