"""Rules between pods: which share of a node each takes, which domain each keeps, and what is not modelled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner.model.cluster import HOSTNAME, ZONE, Node, Pod
from planner.model.coexistence import Views, excess, interpreted, surge_hindrances
from planner.model.domains import Crowding, find_homes, upset_by_minimums
from planner.model.resources import BEARER, TARGET, WHOLE_NODE
from planner.model.scheduling import (
    LabelSelector,
    NodeConstraints,
    PodRules,
    PodTerm,
    Requirement,
    Spread,
    Taint,
    Toleration,
)
from tests.building import deployment, node, offering, pod, pods_of

NODES = [node("a1", zone="a"), node("a2", zone="a"), node("b1", zone="b")]


def of(app: str) -> LabelSelector:
    return LabelSelector((Requirement("app", "In", (app,)),))


def of_any(*apps: str) -> LabelSelector:
    return LabelSelector((Requirement("app", "In", apps),))


def apart(app: str, key: str = HOSTNAME) -> PodRules:
    return PodRules(anti_affinity=(PodTerm(key, frozenset({"default"}), of(app)),))


def near(app: str, key: str = ZONE) -> PodRules:
    return PodRules(affinity=(PodTerm(key, frozenset({"default"}), of(app)),))


def spread(app: str, skew: int = 1, key: str = ZONE, **policies: Any) -> PodRules:
    return PodRules(spreads=(Spread(key, skew, of(app), **policies),))


def told(*pods: Pod, nodes: list[Node] | None = None) -> dict[str, Pod]:
    return {p.name: p for p in interpreted(NODES if nodes is None else nodes, pods)}


def app(name: str, rules: PodRules | None = None, on: dict[str, int] | None = None, pending: int = 0) -> list[Pod]:
    return pods_of(deployment(name, 1), on, pending, rules=rules or PodRules())


class TestShares:
    def test_pods_without_rules_are_left_alone(self) -> None:
        pods = app("web", on={"a1": 2})
        assert list(told(*pods).values()) == pods

    def test_a_host_port_is_a_whole_share(self) -> None:
        (found,) = told(*app("web", PodRules(host_ports=(("TCP", 80),)), {"a1": 1})).values()
        assert found.requests.shares == (("host port 80/TCP", WHOLE_NODE),)
        assert not found.requests.fits_in(NODES[0].allocatable - found.requests)

    def test_pods_that_carry_an_anti_affinity_never_share_a_node_with_those_that_it_matches(self) -> None:
        found = told(*app("db", apart("db"), {"a1": 1}), *app("web", on={"a2": 1}))
        ((name, whole),) = found["db-0"].requests.shares
        assert (name, whole) == ("anti-affinity to app In (db) in default", WHOLE_NODE)
        assert found["web-0"].requests.shares == ()

    def test_pods_that_are_only_matched_share_a_node_with_each_other(self) -> None:
        # db avoids db and batch, which does not carry the term: batch takes one part of it.
        rule = PodRules(anti_affinity=(PodTerm(HOSTNAME, None, of_any("db", "batch")),))
        found = told(*app("db", rule, {"a1": 1}), *app("batch", on={"b1": 2}))
        assert [dict(found[name].requests.shares).popitem()[1] for name in ("db-0", "batch-0")] == [WHOLE_NODE, 1]
        room = NODES[2].allocatable - found["batch-0"].requests
        assert found["batch-1"].requests.fits_in(room)
        assert not found["db-0"].requests.fits_in(room)

    def test_pods_that_avoid_others_and_not_themselves_are_a_side_of_which_a_node_has_one(self) -> None:
        found = told(*app("web", apart("batch"), {"a1": 2}), *app("batch", on={"b1": 2}))
        web, batch = found["web-0"].requests, found["batch-0"].requests
        name = "anti-affinity to app In (batch) in default"
        assert (web.shares, batch.shares) == (((name + BEARER, 1),), ((name + TARGET, 1),))
        room = NODES[0].allocatable
        assert web.fits_in(room - web)
        assert batch.fits_in(room - batch)
        assert not batch.fits_in(room - web)
        assert not web.fits_in(room - batch)
        assert not (web + batch).fits_in(room)

    def test_two_sides_that_share_a_node_already_stay_there_and_others_of_both_keep_away(self) -> None:
        found = told(*app("web", apart("batch"), {"a1": 1, "a2": 1}), *app("batch", on={"a1": 1, "b1": 1}))
        held = [bool(found[n].unmodelled) for n in ("web-0", "web-1", "batch-0", "batch-1")]
        assert held == [True, False, True, False]
        there = found["web-0"].requests + found["batch-0"].requests
        assert there.as_it_stands.fits_in(NODES[0].allocatable)
        room = NODES[0].allocatable - there
        assert not found["web-1"].requests.fits_in(room)
        assert not found["batch-1"].requests.fits_in(room)

    @pytest.mark.parametrize("skew", [1, 2, 3, 7, 848])
    def test_a_spread_by_host_name_lets_max_skew_pods_on_a_node(self, skew: int) -> None:
        (found,) = told(*app("web", spread("web", skew, HOSTNAME), {"a1": 1})).values()
        ((_, share),) = found.requests.shares
        assert skew * share <= WHOLE_NODE < (skew + 1) * share

    def test_where_the_present_state_breaks_a_rule_its_pods_stay_and_others_keep_away(self) -> None:
        found = told(*app("db", apart("db"), {"a1": 2, "b1": 1}))
        reason = "anti-affinity to app In (db) in default, which does not hold on its node"
        assert [found[f"db-{i}"].unmodelled for i in range(3)] == [(reason,), (reason,), ()]
        # Together they take the whole share and no more, so that their node is not overdrawn.
        assert [sum(s for _, s in found[f"db-{i}"].requests.shares) for i in range(2)] == [WHOLE_NODE, 0]

    def test_a_spread_that_does_not_count_the_pod_itself_is_not_modelled(self) -> None:
        (found,) = told(*app("web", spread("other", 1, HOSTNAME), {"a1": 1})).values()
        assert found.unmodelled == ("a topology spread whose selector does not match the pod itself",)

    def test_a_pod_whose_labels_are_not_its_templates_stays_where_a_rule_asks_for_them(self) -> None:
        labels = {"app": "db", "role": "primary", "note": "old"}
        db = app("db", on={"a1": 1, "b1": 1})
        primary = replace(db[0], labels=labels)
        asks_for_role = PodTerm(HOSTNAME, None, LabelSelector((Requirement("role", "In", ("primary",)),)))
        web = app("web", PodRules(anti_affinity=(asks_for_role,)), on={"a2": 1})
        templates = {"default/Deployment/db": {"app": "db", "note": "new"}}
        found = {p.name: p for p in interpreted(NODES, [primary, db[1], *web], templates)}
        reason = "its label role, for which a rule asks, is not that of its workload's template"
        assert [found[name].unmodelled for name in ("db-0", "db-1", "web-0")] == [(reason,), (), ()]


class TestDomains:
    def test_pods_with_a_rule_over_zones_and_those_that_it_is_about_keep_their_zones(self) -> None:
        found = told(*app("web", near("db"), {"a1": 1}), *app("db", on={"a2": 1}), *app("other", on={"a1": 1}))
        assert [found[n].keeps for n in ("web-0", "db-0", "other-0")] == [(ZONE,), (ZONE,), ()]
        homes = find_homes(NODES, (), list(found.values())).homes
        assert homes == {"default/web-0": ((ZONE, "a"),), "default/db-0": ((ZONE, "a"),)}

    def test_a_pod_on_a_node_without_the_label_stays(self) -> None:
        bare = node("bare", zone="")
        bare = Node(bare.name, bare.uid, {}, {}, (), bare.allocatable)
        found = told(*app("web", near("web"), {"bare": 1}), nodes=[bare])
        assert found["web-0"].unmodelled == (f"a rule over {ZONE}, a label that its node lacks",)

    def test_pending_pods_of_a_spread_fill_the_emptiest_zones(self) -> None:
        # 3 in a, 1 in b, and c can be booted: 5 more make 3, 3 and 3.
        pods = list(told(*app("web", spread("web", 2), {"a1": 3, "b1": 1}, pending=5)).values())
        offers = [offering(zone=zone) for zone in "abc"]
        homes = find_homes(NODES, offers, pods).homes
        zones = [dict(home)[ZONE] for home in homes.values()]
        assert sorted(zones) == list("aaabbbccc")

    def test_pods_on_nodes_that_a_spread_does_not_regard_do_not_count(self) -> None:
        # Two in a, one of which is on a tainted node, and one in b: each of the next two goes to another zone.
        tainted = replace(NODES[1], taints=(Taint("spoilt", "", "NoSchedule"),))
        nodes = [NODES[0], tainted, NODES[2]]
        pods = app("web", spread("web", honors_taints=True), {"a1": 1, "a2": 1, "b1": 1}, pending=2)
        homes = find_homes(nodes, (), list(told(*pods, nodes=nodes).values())).homes
        assert sorted(dict(homes[f"default/web-{number}"])[ZONE] for number in (3, 4)) == ["a", "b"]

    def test_no_first_node_that_counts_may_come_beside_those_that_do_not(self) -> None:
        nodes = [NODES[0], replace(NODES[2], taints=(Taint("spoilt", "", "NoSchedule"),))]
        pods = list(told(*app("web", spread("web", honors_taints=True), {"a1": 2}), nodes=nodes).values())
        found = find_homes(nodes, [offering(zone=zone) for zone in "ab"], pods)
        assert [closure.domain for closure in found.closed] == [(ZONE, "b")]

    def test_a_spread_counts_the_zones_that_only_the_volume_of_its_pod_excludes(self) -> None:
        # Two stand in a, where the third one's volume is: 2 + 1 - 0 pods of b exceed a maxSkew of 2.
        to_a = NodeConstraints((("topology.kubernetes.io/zone", "a"),))
        pods = app("web", spread("web", 2, own=NodeConstraints()), {"a1": 1, "a2": 1}, pending=1)
        pods = list(told(*(replace(one, constraints=to_a) for one in pods)).values())
        assert find_homes(NODES, (), pods).refused == {"default/web-2": f"its spread over {ZONE} with maxSkew 2"}

    def test_pending_pods_that_must_stand_apart_by_zone_are_refused_when_zones_run_out(self) -> None:
        pods = list(told(*app("web", apart("web", ZONE), {"a1": 1}, pending=2)).values())
        found = find_homes(NODES, (), pods)
        assert found.homes["default/web-1"] == ((ZONE, "b"),)
        assert found.refused == {
            "default/web-2": f"its required podAntiAffinity to app In (web) by {ZONE}",
        }

    def test_a_pending_pod_goes_where_those_are_that_it_needs_and_the_first_of_its_kind_anywhere(self) -> None:
        pods = told(*app("web", near("db"), pending=1), *app("db", on={"b1": 1}), *app("self", near("self"), pending=2))
        homes = find_homes(NODES, (), list(pods.values())).homes
        assert homes["default/web-0"] == ((ZONE, "b"),)
        assert homes["default/self-0"] == homes["default/self-1"]

    def test_who_has_several_affinities_asks_for_one_pod_that_matches_them_all(self) -> None:
        # Of db in a and cache in b neither is both, so the first pod that is both may go anywhere, and no other.
        both = PodRules(affinity=(*near("db").affinity, *near("cache").affinity))
        either = PodRules(affinity=(*near("db").affinity, PodTerm(ZONE, None, of_any("db", "cache"))))
        apps = [*app("db", on={"a1": 1}), *app("cache", on={"b1": 1})]
        pods = told(*apps, *app("web", both, pending=1), *app("late", either, pending=1))
        found = find_homes(NODES, (), list(pods.values()))
        assert found.refused == {"default/web-0": f"its required podAffinity to app In (db) by {ZONE}"}
        assert found.homes["default/late-0"] == ((ZONE, "a"),)
        own = PodRules(affinity=(PodTerm(ZONE, None, of_any("web", "db")), PodTerm(ZONE, None, of_any("web", "cache"))))
        assert told(*apps, *app("web", own, {"a1": 1}))["web-0"].unmodelled == ()

    def test_a_node_that_lacks_a_label_of_one_spread_counts_for_none(self) -> None:
        # Two of web stand in a, one of them on a node without a rack: counted are one in a and one in b.
        racked = [replace(n, labels={**n.labels, "rack": n.name}) for n in (NODES[0], NODES[2])]
        nodes = [*racked, NODES[1]]
        rules = PodRules(spreads=(Spread(ZONE, 1, of("web"), beside=("rack",)), Spread("rack", 2, of("web"))))
        pods = told(*app("web", rules, {"a1": 1, "a2": 1, "b1": 1}, pending=2), nodes=nodes)
        assert pods["web-0"].unmodelled == ()
        homes = find_homes(nodes, (), list(pods.values())).homes
        assert sorted(dict(homes[f"default/web-{i}"])[ZONE] for i in (3, 4)) == ["a", "b"]

    def test_no_pending_pod_upsets_the_spread_of_others_that_counts_it(self) -> None:
        # web counts db: 2 in a, 1 in b. Two more in b make 3 - 2 <= 1; a third one would keep a new web out of b.
        rule = PodRules(spreads=(Spread(ZONE, 1, of_any("web", "db")),))
        to_b = NodeConstraints((("topology.kubernetes.io/zone", "b"),))
        late = [replace(one, constraints=to_b, name=f"late-{i}") for i, one in enumerate(app("db", pending=3))]
        pods = [*app("web", rule, {"a1": 1, "b1": 1}), *app("db", on={"a1": 1}), *late]
        found = find_homes(NODES, (), list(told(*pods).values()))
        assert [found.homes[f"default/late-{i}"] for i in range(2)] == [((ZONE, "b"),)] * 2
        assert found.refused == {
            "default/late-2": f"the spread of default/Deployment/web over {ZONE}, which counts it",
        }

    def test_pods_come_to_where_the_first_one_is_that_asks_for_them(self) -> None:
        # web runs alone in b, as the first that matches its own affinity; db matches it as well.
        rule = PodRules(affinity=(PodTerm(ZONE, None, of_any("web", "db")),))
        pods = told(*app("web", rule, {"b1": 1}), *app("db", pending=2))
        homes = find_homes(NODES, (), list(pods.values())).homes
        assert [dict(homes[f"default/db-{i}"])[ZONE] for i in range(2)] == ["b", "a"]

    def test_a_home_without_a_place_is_left_for_the_next_and_without_any_the_reason_says_why(self) -> None:
        pods = list(told(*app("web", spread("web", 2), pending=4)).values())
        one_in_b = Crowding(lambda pod: pod.workload, {(pods[0].workload, ((ZONE, "b"),)): (1, "b is full")})
        found = find_homes(NODES, (), pods, one_in_b)
        # One in b, and 1 + 2 = 3 in a.
        assert sorted(dict(home)[ZONE] for home in found.homes.values()) == list("aaab")
        full = Crowding(lambda pod: pod.workload, {(pods[0].workload, ((ZONE, zone),)): (0, zone) for zone in "ab"})
        assert find_homes(NODES, (), pods, full).refused["default/web-0"] == "a"

    def test_no_first_node_may_come_in_a_zone_that_a_spread_does_not_count_yet(self) -> None:
        # 2 in a and 2 in b hold a maxSkew of 1 only as long as there is no empty zone c.
        pods = list(told(*app("web", spread("web"), {"a1": 2, "b1": 2})).values())
        offers = [offering(zone=zone) for zone in "abc"]
        (closure,) = find_homes(NODES, offers, pods).closed
        assert closure.domain == (ZONE, "c")
        assert closure.bars(offering(zone="c").labels, ())
        # A node that the spread does not count opens no zone for it.
        aside = NodeConstraints((("disk", "ssd"),))
        assert not replace(closure, constraints=aside).bars(offering(zone="c").labels, ())

    def test_a_pools_minimum_upsets_a_spread_where_it_opens_a_zone_and_not_where_it_counts_nothing_yet(self) -> None:
        # 2 in a alone hold a maxSkew of 1, and not beside an empty b; nobody counts the one on the tainted node in c.
        nodes = [NODES[0], replace(node("c1", zone="c"), taints=(Taint("spoilt", "", "NoSchedule"),))]
        two = app("web", spread("web", honors_taints=True), {"a1": 2})
        one = app("db", spread("db", honors_taints=True), {"c1": 1})
        due = [offering(zone="b", minimum=1)]
        found = upset_by_minimums(nodes, due, list(told(*two, *one, nodes=nodes).values()))
        reason = f"its spread over {ZONE} does not hold beside a node that a pool's minimum asks for"
        assert found == {"default/Deployment/web": reason}
        assert upset_by_minimums(nodes, [offering(zone="b")], two) == {}

    def test_no_two_zones_are_opened_that_together_break_a_spread(self) -> None:
        # Three in a hold a maxSkew of 1 while a is alone; one pending pod each in b and c would leave 3 - 1 > 1.
        rule = PodRules(spreads=(Spread(ZONE, 1, of_any("web", "db")),))
        nodes = [NODES[0]]
        to_b = NodeConstraints((("topology.kubernetes.io/zone", "b"),))
        late = [replace(one, constraints=to_b) for one in app("db", pending=1)]
        pods = list(told(*app("web", rule, {"a1": 3}, pending=1), *late, nodes=nodes).values())
        found = find_homes(nodes, [offering(zone=zone) for zone in "abc"], pods)
        assert [closure.domain for closure in found.closed] == [(ZONE, "b"), (ZONE, "c")]
        assert found.homes["default/web-3"] == ((ZONE, "a"),)

    def test_pods_of_an_affinity_over_zones_that_does_not_hold_stay(self) -> None:
        # Its db went to another zone: a new pod of web would not be let into a.
        found = told(*app("web", near("db"), {"a1": 1, "b1": 1}), *app("db", on={"b1": 1}))
        reason = "a required podAffinity to app In (db) in a, which does not hold"
        assert [found[name].unmodelled for name in ("web-0", "web-1", "db-0")] == [(reason,), (), ()]

    def test_the_only_pod_of_a_group_that_stands_together_may_move(self) -> None:
        assert told(*app("web", near("web"), {"a1": 1}))["web-0"].unmodelled == ()

    def test_pods_on_both_sides_of_an_anti_affinity_over_zones_that_does_not_hold_stay(self) -> None:
        found = told(*app("web", apart("db", ZONE), {"a1": 1}), *app("db", on={"a2": 1, "b1": 1}))
        reason = "a required podAntiAffinity to app In (db) in a, which does not hold"
        assert [found[name].unmodelled for name in ("web-0", "db-0", "db-1")] == [(reason,), (reason,), ()]
        twins = told(*app("web", apart("web", ZONE), {"a1": 1, "a2": 1, "b1": 1}))
        assert [bool(twins[f"web-{number}"].unmodelled) for number in range(3)] == [True, True, False]

    def test_pods_of_a_spread_that_does_not_hold_stay(self) -> None:
        found = told(*app("web", spread("web"), {"a1": 3, "b1": 1}))
        reason = f"its spread over {ZONE}, which does not hold in a"
        assert [found[f"web-{i}"].unmodelled for i in range(4)] == [(reason,)] * 3 + [()]

    @pytest.mark.parametrize(
        ("counts", "minimum", "result"),
        [
            ({"a": 2, "b": 1}, 1, 0),  # 2 - 1 - 1
            ({"a": 3, "b": 1}, 1, 1),  # 3 - 1 - 1
            ({"a": 1}, 1, 0),  # alone: 1 - 0 - 1
            ({"a": 2, "b": 2}, 3, 1),  # too few domains count as an empty one: 2 - 0 - 1
        ],
    )
    def test_excess_is_what_a_pod_made_anew_would_have(self, counts: dict[str, int], minimum: int, result: int) -> None:
        assert excess(Spread(ZONE, 1, of("web"), minimum), counts, "a") == result


class TestSurge:
    def test_new_pods_beside_old_ones_must_be_able_to_keep_the_rules(self) -> None:
        hindered = surge_hindrances(
            NODES,
            [
                *app("db", apart("db", ZONE), {"a1": 1}),
                *app("disk", PodRules(holds_volume=True), {"a1": 1}),
                *app("even", spread("even"), {"a1": 1, "b1": 1}),  # 1 + 1 - 1 <= 1
                *app("uneven", spread("uneven"), {"a1": 1}),  # 1 + 1 - 0 > 1
                *app("wide", PodRules(spreads=(Spread(ZONE, 1, of("wide"), 3),)), {"a1": 1, "b1": 1}),  # 2 zones of 3
                *app("web", near("db"), {"a1": 1}),
            ],
        )
        assert hindered == {
            "default/Deployment/db": f"its pods must stand apart by {ZONE}",
            "default/Deployment/disk": "a volume of its pods can be attached to one node only",
            "default/Deployment/uneven": f"its spread over {ZONE} does not hold beside its old pods",
            "default/Deployment/wide": f"its spread over {ZONE} does not hold beside its old pods",
        }


def test_a_pod_that_is_gone_counts_for_nothing() -> None:
    gone = pod(deployment("db", 1), 0, "a1", rules=apart("db"), phase="Succeeded")
    assert told(gone)["db-0"].requests.shares == ()


def test_pods_that_a_spread_shows_other_nodes_do_not_share_what_they_see() -> None:
    # "tainted" counts only for who tolerates it, where the spread asks for taints, and "b" only for who selects it.
    tainted = replace(node("tainted", zone="zone-b"), taints=(Taint("old", "", "NoSchedule"),))
    views = Views([node("a"), node("b", zone="zone-b", labels={"disk": "ssd"}), tainted])
    honest = Spread(ZONE, 1, LabelSelector(), honors_taints=True)
    tolerant = NodeConstraints(tolerations=(Toleration(operator="Exists"),))
    on_ssd = NodeConstraints(node_selector=(("disk", "ssd"),))
    seen = [views.domains(spread, who) for spread, who in (
        (honest, NodeConstraints()), (honest, tolerant), (replace(honest, honors_taints=False), NodeConstraints()),
        (honest, on_ssd), (replace(honest, honors_affinity=False), on_ssd), (replace(honest, max_skew=3), on_ssd),
    )]  # fmt: skip
    everywhere, untainted = {"a", "b", "tainted"}, {"a", "b"}
    assert [set(found) for found in seen] == [untainted, everywhere, everywhere, {"b"}, untainted, {"b"}]
    assert seen[3] is seen[5]
