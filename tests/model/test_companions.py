"""Who joins whom: waiting pods with a required affinity by host name, and what all of a party ask of a node."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from planner.model.cluster import HOSTNAME, ZONE, Pod
from planner.model.coexistence import interpreted
from planner.model.companions import Parties, accompanied, find_parties
from planner.model.scheduling import (
    LabelSelector,
    NodeConstraints,
    NodeSelectorTerm,
    PodRules,
    PodTerm,
    Requirement,
    Spread,
    Taint,
    Toleration,
)
from tests.building import catalogue, daemonset, daemonset_pod, deployment, inputs, node, pods_of, snapshot

NODES = [node("n1"), node("n2"), node("n3")]


def of(app: str) -> LabelSelector:
    return LabelSelector((Requirement("app", "In", (app,)),))


def beside(app: str, *further: PodTerm) -> PodRules:
    return PodRules(affinity=(PodTerm(HOSTNAME, None, of(app)), *further))


def app(
    name: str, rules: PodRules | None = None, on: dict[str, int] | None = None, pending: int = 0, cpu: int = 1000
) -> list[Pod]:
    return pods_of(deployment(name, 1, cpu=cpu), on, pending, rules=rules or PodRules())


def told(*pods: Pod) -> dict[str, Pod]:
    return {p.name: p for p in accompanied(NODES, interpreted(NODES, pods))}


def parties(*pods: Pod, cpu_millicores: int = 4000) -> Parties:
    """Return the parties where a node has so much CPU."""
    return find_parties(
        list(told(*pods).values()),
        lambda pod: pod.requests,
        lambda requests, _: requests.cpu_millicores <= cpu_millicores,
    )


class TestRunningPods:
    def test_each_follows_one_that_it_looks_for_on_its_node(self) -> None:
        # n1 has two leaders and three followers: 2 and 1. On n2 nobody follows.
        found = told(*app("db", on={"n1": 2, "n2": 1}, cpu=500), *app("web", beside("db"), {"n1": 3}, cpu=500))
        assert [found[f"web-{i}"].party for i in range(3)] == ["default/db-0", "default/db-1", "default/db-0"]
        assert [found[f"db-{i}"].party for i in range(3)] == ["default/db-0", "default/db-1", ""]
        assert not any(pod.unmodelled for pod in found.values())

    def test_those_that_look_for_their_own_kind_stay(self) -> None:
        found = told(*app("pack", beside("pack"), {"n1": 2}))
        own = "required podAffinity to app In (pack) by host name"
        needed = "required podAffinity of default/Deployment/pack, which needs it on its node"
        assert [set(found[f"pack-{i}"].unmodelled) for i in range(2)] == [{own, needed}, {own, needed}]

    def test_those_that_look_for_others_that_look_for_others_stay_and_hold_them(self) -> None:
        found = told(
            *app("a", beside("b"), {"n1": 1}), *app("b", beside("c"), {"n1": 1}), *app("c", on={"n1": 1, "n2": 1})
        )
        assert [bool(found[name].unmodelled) for name in ("a-0", "b-0", "c-0", "c-1")] == [True, True, False, False]
        # b may move with c, but a, which stays, needs it.
        assert found["b-0"].party == "default/c-0"

    def test_one_that_looks_for_a_daemonset_stays(self) -> None:
        agent = daemonset_pod(daemonset("agent"), "n1", labels={"app": "agent"})
        found = told(agent, *app("web", beside("agent"), {"n1": 1}))
        assert found["web-0"].unmodelled == ("required podAffinity to app In (agent) by host name",)

    def test_the_party_of_a_pod_that_stays_stays(self) -> None:
        # The last pod of lone may not be unavailable; web shares its party, and with it the second pod of web stays.
        lone, web = deployment("lone", 1, max_unavailable=1), deployment("web", 4, max_unavailable=1)
        pods = [*pods_of(lone, {"n1": 1}), *pods_of(web, {"n1": 1, "n2": 3}, rules=beside("lone"))]
        cluster = snapshot(NODES, [lone, web], accompanied(NODES, interpreted(NODES, pods)))
        pins = inputs(cluster, catalogue()).assessment.pins
        assert pins["default/web-0"].startswith("stands beside default/lone-0, which stays: ")


class TestJoining:
    def test_a_waiting_pod_joins_where_there_is_room_and_holds_its_company(self) -> None:
        # n1 has 4 CPU and 3.5 taken; n2 holds 1 CPU.
        found = told(
            *app("full", on={"n1": 1}, cpu=2500),
            *app("db", on={"n1": 1, "n2": 1}),
            *app("web", beside("db"), pending=1),
        )
        assert found["web-0"].beside == "n2"
        assert found["db-0"].unmodelled == ()
        assert found["db-1"].unmodelled == (
            "required podAffinity of default/Deployment/web, which needs it on its node",
        )

    def test_room_that_is_given_away_is_gone(self) -> None:
        # n1 and n2 each hold 1 of 4 CPU: one pod of 2 CPU joins on either, the third has no room.
        found = told(*app("db", on={"n1": 1, "n2": 1}), *app("web", beside("db"), pending=3, cpu=2000))
        assert [found[f"web-{i}"].beside for i in range(3)] == ["n1", "n2", ""]

    def test_pods_join_one_that_joins_another(self) -> None:
        found = told(*app("a", beside("b"), pending=1), *app("b", beside("c"), pending=1), *app("c", on={"n3": 1}))
        assert (found["a-0"].beside, found["b-0"].beside) == ("n3", "n3")

    def test_only_a_pod_that_every_term_is_about_is_company(self) -> None:
        tier = PodTerm(HOSTNAME, None, LabelSelector((Requirement("tier", "In", ("x",)),)))
        found = told(*app("db", on={"n1": 1}), *app("web", beside("db", tier), pending=1))
        assert found["web-0"].beside == ""

    def test_a_rule_over_zones_about_a_pod_that_needs_company_is_named(self) -> None:
        rules = PodRules(affinity=beside("db").affinity, spreads=(Spread(ZONE, 1, of("web")),))
        found = told(*app("db", on={"n1": 1}), *app("web", rules, pending=1))
        assert found["web-0"].unmodelled == (
            f"required podAffinity to app In (db) by host name beside a rule over {ZONE}",
        )


class TestParties:
    def test_followers_are_shared_out_among_the_leaders(self) -> None:
        # 5 followers to 2 leaders: 3 and 2.
        found = parties(*app("db", pending=2, cpu=100), *app("web", beside("db"), pending=5, cpu=100))
        assert found.refused == {}
        assert {party: sum(p == party for p in found.of.values()) for party in found.of.values()} == {
            "default/db-0": 4,
            "default/db-1": 3,
        }

    def test_a_leader_that_nobody_follows_is_in_no_party(self) -> None:
        found = parties(*app("db", pending=3), *app("web", beside("db"), pending=1))
        assert found.of == {"default/web-0": "default/db-0", "default/db-0": "default/db-0"}

    def test_a_smaller_party_takes_who_has_no_room_in_the_first(self) -> None:
        # big leads with 3.5 CPU and has no room for 1 CPU more; db has.
        big = replace(app("db", pending=1, cpu=3500)[0], name="big")
        found = parties(big, *app("db", pending=1), *app("web", beside("db"), pending=2))
        assert [found.of[f"default/web-{i}"] for i in range(2)] == ["default/db-0"] * 2

    def test_pods_of_one_kind_do_not_come_first_while_some_of_it_run(self) -> None:
        # pack-0 stands on n1, where no room is left: the others can neither join it nor begin anew.
        found = parties(*app("full", on={"n1": 1}, cpu=3000), *app("pack", beside("pack"), on={"n1": 1}, pending=2))
        assert found.of == {}
        assert set(found.refused) == {"default/pack-1", "default/pack-2"}

    def test_two_kinds_that_look_for_both_are_one_party(self) -> None:
        both = PodRules(affinity=(PodTerm(HOSTNAME, None, LabelSelector((Requirement("app", "In", ("a", "b")),))),))
        found = parties(*app("a", both, pending=1), *app("b", both, pending=2))
        assert len(set(found.of.values())) == 1
        assert len(found.of) == 3


_KEYS, _VALUES, _EFFECTS = ("a", "b"), ("x", "y"), ("NoSchedule", "NoExecute")
_TAINTS = st.builds(Taint, st.sampled_from(_KEYS), st.sampled_from(_VALUES), st.sampled_from(_EFFECTS))
_TOLERATIONS = st.builds(
    lambda key, value, effect: Toleration(key, "Equal" if value else "Exists", value, effect),
    st.sampled_from(("", *_KEYS)),
    st.sampled_from(("", *_VALUES)),
    st.sampled_from(("", *_EFFECTS)),
)
_TERMS = st.builds(
    lambda key, value: NodeSelectorTerm((Requirement(key, "In", (value,)),)),
    st.sampled_from(_KEYS),
    st.sampled_from(_VALUES),
)
_CONSTRAINTS = st.builds(
    NodeConstraints,
    st.dictionaries(st.sampled_from(_KEYS), st.sampled_from(_VALUES)).map(lambda d: tuple(sorted(d.items()))),
    st.one_of(st.none(), st.lists(_TERMS, max_size=2).map(tuple)),
    st.lists(_TOLERATIONS, max_size=2).map(tuple),
)


@given(
    _CONSTRAINTS,
    _CONSTRAINTS,
    st.dictionaries(st.sampled_from(_KEYS), st.sampled_from(_VALUES)),
    st.lists(_TAINTS, max_size=2).map(tuple),
)
def test_joint_constraints_admit_where_both_do(
    one: NodeConstraints, other: NodeConstraints, labels: dict[str, str], taints: tuple[Taint, ...]
) -> None:
    apart = one.admit(labels, "n", taints) and other.admit(labels, "n", taints)
    assert (one & other).admit(labels, "n", taints) == apart
