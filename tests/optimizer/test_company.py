"""What pods prefer of each other, each case small enough to check by hand; m4 has 4 CPU and costs 0.2 $/h."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from planner.model.cluster import HOSTNAME, ZONE
from planner.model.inputs import PlanningInputs
from planner.model.machines import TotalLimits
from planner.model.plan import Plan
from planner.model.preferences import Company
from planner.model.scheduling import LabelSelector, PodTerm, Requirement, Spread
from tests.building import catalogue, deployment, inputs, nanousd, node, offering, pods_of, snapshot
from tests.optimizer.plans import after, mixed_cluster, planned


def app(name: str) -> LabelSelector:
    return LabelSelector((Requirement("app", "In", (name,)),))


def spread(name: str, key: str = HOSTNAME) -> Company:
    return Company(spreads=(Spread(key, 1, app(name)),))


def apart(name: str, key: str = HOSTNAME) -> Company:
    return Company(apart=((100, PodTerm(key, None, app(name))),))


def near(name: str, key: str = HOSTNAME) -> Company:
    return Company(near=((100, PodTerm(key, None, app(name))),))


def counts(plan: Plan, key: str) -> list[int]:
    return sorted(n.pods.get(key, 0) for n in plan.nodes if n.state != "remove")


@pytest.mark.parametrize("company", [spread, apart])
def test_pods_of_two_workloads_mix_on_the_nodes_where_one_would_rather_not_stand_alone(company: object) -> None:
    web, api = deployment("web", 4, cpu=1000), deployment("api", 4, cpu=1000)
    pods = pods_of(web, pending=4, company=company("web")) + pods_of(api, pending=4)  # type: ignore[operator]
    given = inputs(snapshot([], [web, api], pods), catalogue(offering()))
    plan = planned(given)
    # Two nodes of four pods, which are all alike to the optimizer.
    assert counts(plan, web.key) == [2, 2]
    assert plan.objective.value_nanousd_per_hour == nanousd(0.4)
    # Without a wish for company the first node has all of one workload.
    alone = replace(given, snapshot=replace(given.snapshot, pods=tuple(replace(p, company=Company()) for p in pods)))
    assert counts(planned(alone), web.key) == [0, 4]


def test_pods_that_ask_for_different_amounts_change_seats_where_both_fit() -> None:
    stays = {"kinema.io/do-not-disrupt": "true"}
    nodes = [node(name, annotations=stays) for name in "ab"]
    web, api = deployment("web", 4, cpu=1000, memory_gib=2), deployment("api", 4, cpu=1000, memory_gib=1)
    pods = pods_of(web, pending=4, company=spread("web")) + pods_of(api, pending=4)
    plan = planned(inputs(snapshot(nodes, [web, api], pods), catalogue(offering())))
    assert counts(plan, web.key) == [2, 2]
    assert counts(plan, api.key) == [2, 2]


def test_pods_spread_over_zones() -> None:
    stays = {"kinema.io/do-not-disrupt": "true"}
    nodes = [node(f"{z}{i}", zone=f"zone-{z}", annotations=stays) for z in "ab" for i in range(2)]
    web = deployment("web", 6, cpu=1000)
    plan = planned(inputs(snapshot(nodes, [web], pods_of(web, pending=6, company=spread("web", ZONE))), catalogue()))
    assert sum(n.pods.get(web.key, 0) for n in plan.nodes if n.zone == "zone-a") == 3


def test_pods_go_where_those_are_that_they_like() -> None:
    stays = {"kinema.io/do-not-disrupt": "true"}
    nodes = [node(name, annotations=stays) for name in "ab"]
    cache, web = deployment("cache", 2, cpu=1000), deployment("web", 2, cpu=1000)
    pods = pods_of(cache, {"b": 2}) + pods_of(web, pending=2, company=near("cache"))
    plan = planned(inputs(snapshot(nodes, [cache, web], pods), catalogue(offering())))
    assert {n.name: n.pods.get(web.key, 0) for n in plan.nodes} == {"a": 0, "b": 2}
    assert plan.moves == 0


@pytest.mark.parametrize("company", [spread("web"), apart("web")])
def test_no_pod_moves_for_its_company(company: Company) -> None:
    stays = {"kinema.io/do-not-disrupt": "true"}
    web = deployment("web", 3, cpu=1000)
    cluster = snapshot([node(name, annotations=stays) for name in "ab"], [web], pods_of(web, {"a": 3}, company=company))
    plan = planned(inputs(cluster, catalogue(offering())))
    assert plan.moves == 0
    assert {n.name: n.pods.get(web.key, 0) for n in plan.nodes} == {"a": 3, "b": 0}


def social_cluster(seed: int) -> PlanningInputs:
    """Return eight badly packed nodes of three zones, pods that come, and workloads with wishes for company.

    Every other cluster has a limit that leaves pods out.
    """
    chance = random.Random(seed)
    given = mixed_cluster(seed)
    kinds = [spread, apart, near]
    names = [w.name for w in given.snapshot.workloads]
    company = {
        w.key: chance.choice(kinds)(chance.choice([w.name, chance.choice(names)]), chance.choice([HOSTNAME, ZONE]))
        for w in given.snapshot.workloads
    }
    pods = [replace(p, company=company.get(p.workload, Company())) for p in given.snapshot.pods]
    for load in given.snapshot.workloads:
        more = pods_of(load, pending=chance.randint(0, 6), company=company[load.key])
        pods += [replace(p, name=f"more-{p.name}", uid=f"more-{p.uid}") for p in more]
    total = TotalLimits(nodes=9) if seed % 2 else TotalLimits()
    cluster = replace(given.snapshot, pods=tuple(pods))
    return replace(given, snapshot=cluster, catalogue=replace(given.catalogue, total=total))


@pytest.mark.parametrize("seed", range(8))
def test_company_changes_neither_value_nor_moves(seed: int) -> None:
    given = social_cluster(seed)
    plan = planned(given)
    alone = replace(
        given, snapshot=replace(given.snapshot, pods=tuple(replace(p, company=Company()) for p in given.snapshot.pods))
    )
    other = planned(alone)
    assert plan.objective == other.objective
    assert plan.moves == other.moves
    assert plan.unplaced == other.unplaced


@pytest.mark.parametrize("seed", range(0, 8, 2))
def test_planning_again_on_the_result_changes_nothing(seed: int) -> None:
    given = social_cluster(seed)
    again = planned(replace(given, snapshot=after(planned(given), given), iteration="it-2"))
    assert again.moves == 0
    assert {n.state for n in again.nodes} == {"keep"}
