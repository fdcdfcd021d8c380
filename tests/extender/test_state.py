"""The indexes stay what a fresh look at the same objects would make them."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from extender.objects import PodObject
from extender.state import State
from extender.steering import Pod, matches
from extender.wire import NameCandidates
from tests.extender.building import EXPIRES, HandClock, Json, node, pod, put, state, target

WEB = "shop/Deployment/web"
NAMES = ("a", "b", "c")
SHAPE = Pod("probe", "", "", "", (("cpu_millicores", 100), ("pods", 1)))

wants = st.builds(target, st.sampled_from((WEB, "shop/Deployment/api")), st.integers(0, 3), st.just("all"))
rooms = st.fixed_dictionaries({"cpu_millicores": st.sampled_from((0, 100, 250)), "pods": st.integers(0, 2)})
seen_nodes = st.builds(
    lambda name, targets, optimal, expiring, room: node(
        name, *targets, optimal=optimal, expiring=expiring, headroom=room
    ),
    st.sampled_from(NAMES),
    st.lists(wants, max_size=2),
    st.sampled_from(("", "i-1", "i-2")),
    st.sampled_from(("", "", "i-2")),
    st.none() | rooms,
)
seen_pods = st.builds(
    lambda uid, owner, on: pod(uid, owner, on=on),
    st.sampled_from(("p1", "p2", "p3", "p4")),
    st.sampled_from(("Deployment/web", "Deployment/api", "StatefulSet/db")),
    st.sampled_from(("", *NAMES)),
)
gone = st.tuples(st.just("node"), st.sampled_from(NAMES)) | st.tuples(
    st.just("pod"), st.sampled_from(("p1", "p2", "p3", "p4"))
)


def picture(known: State) -> dict[str, Any]:
    """Everything that steering can ask, once the counts are up to date."""
    total = known.open_targets()
    asking = Pod("x", WEB, "", "", ())
    return {
        "open": total,
        "optimal": set(known.optimal),
        "expiring": set(known.expiring),
        "published": set(known.published),
        "unfilled": set(known.unfilled),
        "places": list(known.open_places(asking)),
        "in plan": known.in_plan(asking),
    }


@given(changes=st.lists(seen_nodes | seen_pods | gone, max_size=25))
def test_any_order_of_changes_leads_to_what_a_fresh_list_shows(changes: list[Json | tuple[str, str]]) -> None:
    known = state(HandClock())
    nodes: dict[str, Json] = {}
    pods: dict[str, Json] = {}
    for change in changes:
        if isinstance(change, tuple):
            kind, name = change
            (nodes if kind == "node" else pods).pop(name, None)
            (known.drop_node if kind == "node" else known.drop_pod)(name)
        else:
            (pods if "spec" in change else nodes)[change["metadata"]["name"]] = change
            put(known, change)
        kept = set(known.holding(SHAPE))
        assert kept <= set(NAMES)
        picture(known)
    assert picture(known) == picture(state(HandClock(), *nodes.values(), *pods.values()))
    # The nodes that hold a shape are kept over all changes; forgetting the answer must not change it.
    kept = set(known.holding(SHAPE))
    known._holding.clear()
    assert known.holding(SHAPE) == kept


marked_nodes = st.builds(
    lambda name, targets, optimal: node(name, *targets, optimal=optimal),
    st.sampled_from(NAMES),
    st.lists(
        st.builds(
            target,
            st.sampled_from((WEB, "shop/Deployment/api")),
            st.integers(0, 3),
            st.sampled_from(("all", "iteration")),
            st.sampled_from(("", "shop-web", "older")),
        ),
        max_size=3,
    ),
    st.sampled_from(("i-1", "i-2")),
)


@given(
    changes=st.lists(marked_nodes | seen_pods, max_size=15),
    uid=st.sampled_from(("", "shop-web", "older")),
    mark=st.sampled_from(("", "i-1", "i-2")),
)
def test_open_places_are_those_of_the_targets_that_match(changes: list[Json], uid: str, mark: str) -> None:
    known = state(HandClock(), *changes)
    asking = Pod("x", WEB, uid, mark, ())
    known.open_targets()
    places = {
        name: sum(left for wanted, left in seen.open if seen.placement and matches(wanted, seen.placement, asking))
        for name, seen in known._nodes.items()
    }
    expected = sorted((name for name, count in places.items() if count), key=lambda name: (-places[name], name))
    assert list(known.open_places(asking)) == expected
    named = {
        wanted.uid
        for seen in known._nodes.values()
        if seen.placement
        for wanted in seen.placement.targets
        if wanted.workload == WEB
    }
    assert known.in_plan(asking) == any(not wanted or not uid or wanted == uid for wanted in named)


@given(order=st.permutations(["p1", "p2", "p3", "p4", "p5", "p6"]), repeats=st.lists(st.integers(0, 5), max_size=6))
def test_reservations_never_give_a_place_twice(order: list[str], repeats: list[int]) -> None:
    clock = HandClock()
    known = state(clock, node("a", target(WEB, 2)), node("b", target(WEB, 1)), node("c"))
    given_to: dict[str, str] = {}
    for uid in [*order, *(order[index] for index in repeats)]:
        asking = msgspec.convert(pod(uid), PodObject)
        verdict = known.filter(asking, NameCandidates(b'["a","b","c"]'))
        assert verdict is not None
        if verdict.rule == "planned" and verdict.allowed is not None:
            (name,) = verdict.allowed
            # Whoever asks again gets the same node again.
            assert given_to.setdefault(uid, name) == name
    # want: a 2 + b 1 = 3 of the 6 pods.
    assert sorted(given_to.values()) == ["a", "a", "b"]
    assert known.open_targets() == 0


def test_expiry_closes_every_target_at_once() -> None:
    clock = HandClock()
    known = state(clock, node("a", target(WEB, 2)), node("b", target(WEB, 1), expires=EXPIRES + 100))
    assert known.open_targets() == 3
    clock.now = EXPIRES + 1
    assert (known.open_targets(), known.published) == (1, {"b"})
    clock.now = EXPIRES + 101
    assert (known.open_targets(), known.published) == (0, set())


def test_what_is_gone_leaves_nothing_behind() -> None:
    known = state(HandClock(), node("a", target(WEB, 2)), pod("p", on="a"), pod("q", on="unknown"))
    known.filter(msgspec.convert(pod("r"), PodObject), NameCandidates(b'["a"]'))
    for uid in ("p", "q", "r"):
        known.drop_pod(uid)
    known.drop_node("a")
    assert known.reservations() == known.open_targets() == 0
    indexes = (known._nodes, known._known, known._targeted, known._open, known._reservations, known._pods_of_replicaset)
    assert [len(index) for index in indexes] == [0] * 6
