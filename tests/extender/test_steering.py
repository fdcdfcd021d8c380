"""Each rule of steering, over a state that a few objects make."""

from __future__ import annotations

import msgspec
import pytest

from extender.objects import PodObject
from extender.state import State
from extender.steering import Rule
from extender.wire import NameCandidates
from tests.extender.building import EXPIRES, HandClock, Json, node, pod, put, state, target

WEB = "shop/Deployment/web"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def ask(known: State, thing: Json, *names: str) -> tuple[Rule, tuple[str, ...]]:
    verdict = known.filter(msgspec.convert(thing, PodObject), NameCandidates(msgspec.json.encode(names)))
    assert verdict is not None
    return verdict.rule, names if verdict.allowed is None else verdict.allowed


def scores(known: State, thing: Json, *names: str) -> list[int] | int | None:
    return known.prioritize(msgspec.convert(thing, PodObject), NameCandidates(msgspec.json.encode(names)))


# Pods of a workload with open targets


def test_a_planned_pod_gets_the_node_with_the_most_open_places(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 2)), node("b", target(WEB, 3)), pod("old", on="b"), node("c"))
    # Open places: a 2 - 0 = 2, b 3 - 1 = 2; equal, so the first by name.
    assert ask(known, pod("p1"), "c", "b", "a") == (Rule.PLANNED, ("a",))
    # Now a 2 - 1 reserved = 1, b 2.
    assert ask(known, pod("p2"), "c", "b", "a") == (Rule.PLANNED, ("b",))


def test_reservations_fill_a_target_before_any_pod_is_bound(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 2)), node("b", target(WEB, 1)), node("c"))
    given = [ask(known, pod(f"p{n}"), "a", "b", "c")[1] for n in range(3)]
    # want: a 2 + b 1 = 3 places for 3 pods.
    assert sorted(given) == [("a",), ("a",), ("b",)]
    assert ask(known, pod("p3"), "a", "b", "c")[0] is Rule.HEADROOM


def test_a_repeated_request_of_the_same_pod_keeps_its_node(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 1)), node("b", target(WEB, 3)))
    assert ask(known, pod("p1"), "a") == (Rule.PLANNED, ("a",))
    # b has more open places, but p1 holds a; the reservation does not count against its own pod (1 - 0 = 1).
    assert ask(known, pod("p1"), "a", "b") == (Rule.PLANNED, ("a",))
    assert known.reservations() == 1


def test_a_repeated_request_without_the_reserved_node_moves_the_reservation(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 1)), node("b", target(WEB, 1)))
    assert ask(known, pod("p1"), "a") == (Rule.PLANNED, ("a",))
    assert ask(known, pod("p1"), "b") == (Rule.PLANNED, ("b",))
    # The place on a is free again.
    assert ask(known, pod("p2"), "a", "b") == (Rule.PLANNED, ("a",))


def test_a_bound_pod_takes_the_place_of_its_reservation(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 2)))
    ask(known, pod("p1"), "a")
    put(known, pod("p1", on="a"))
    assert known.reservations() == 0
    # want 2 - 1 bound = 1 open.
    assert known.open_targets() == 1


def test_a_place_is_open_again_when_the_pod_that_reserved_it_is_deleted(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 1)), node("b"))
    ask(known, pod("p1"), "a", "b")
    put(known, pod("p1"))
    known.drop_pod("p1")
    assert ask(known, pod("p2"), "a", "b") == (Rule.PLANNED, ("a",))


def test_a_reservation_ages_out_when_its_pod_is_never_seen(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 1)), node("b"), reservation_seconds=60)
    ask(known, pod("p1"), "a", "b")
    clock.now += 59
    assert ask(known, pod("p2"), "a", "b")[0] is not Rule.PLANNED
    clock.now += 2
    assert ask(known, pod("p3"), "a", "b") == (Rule.PLANNED, ("a",))


def test_pods_that_are_stopping_or_finished_do_not_count(clock: HandClock) -> None:
    stopping, finished = pod("s", on="a"), pod("f", on="a")
    stopping["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    finished["status"]["phase"] = "Succeeded"
    known = state(clock, node("a", target(WEB, 1)), stopping, finished)
    assert known.open_targets() == 1


def test_a_roll_out_target_counts_and_admits_only_pods_with_its_mark(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 2, "iteration")), node("b"), pod("old", on="a"))
    # The old pod has no mark: both places are open, and not for another old pod.
    assert known.open_targets() == 2
    assert ask(known, pod("late", mark="i-0"), "a", "b")[0] is not Rule.PLANNED
    assert ask(known, pod("new", mark="i-1"), "a", "b") == (Rule.PLANNED, ("a",))


def test_a_target_with_a_uid_is_not_for_a_workload_recreated_under_the_same_name(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 1, uid="another")), node("b"))
    # shop/Deployment/web has the uid shop-web: no plan for it, and a's open target is not its own.
    assert ask(known, pod("p"), "a", "b") == (Rule.FREE, ("b",))


def test_a_target_with_the_uid_of_the_deployment_takes_its_pods(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 1, uid="shop-web")), node("b"))
    assert ask(known, pod("p"), "a", "b") == (Rule.PLANNED, ("a",))


def test_a_pod_is_known_by_its_template_hash_before_its_replicaset_is_seen(clock: HandClock) -> None:
    known = state(clock, node("a", target("shop/Deployment/new", 1, uid="u")), node("b"))
    assert ask(known, pod("p", "Deployment/new"), "a", "b") == (Rule.PLANNED, ("a",))


def test_an_owner_that_cannot_be_told_gives_no_verdict(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 1)))
    stranger = pod("p", "ReplicaSet/never-seen")
    assert known.filter(msgspec.convert(stranger, PodObject), NameCandidates(b'["a"]')) is None


def test_a_pod_with_a_quantity_that_is_none_is_still_one_of_its_workload(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 2)), node("b"), pod("w", on="a", cpu="12x"))
    assert ask(known, pod("p", cpu="12x"), "a", "b") == (Rule.PLANNED, ("a",))
    assert known.open_targets() == 0


def test_a_statefulset_is_its_own_workload(clock: HandClock) -> None:
    known = state(clock, node("a", target("shop/StatefulSet/db", 1, uid="shop-db")), node("b"))
    assert ask(known, pod("db-0", "StatefulSet/db"), "a", "b") == (Rule.PLANNED, ("a",))


def test_an_open_target_on_a_node_that_expires_is_not_used(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 5), expiring="i-2"), node("b", target(WEB, 1)), node("c"))
    assert ask(known, pod("p1"), "a", "b", "c") == (Rule.PLANNED, ("b",))
    assert ask(known, pod("p2"), "a", "b", "c") == (Rule.HEADROOM, ("b", "c"))


def test_each_node_follows_its_own_placement_during_a_hand_over(clock: HandClock) -> None:
    old = node("a", target(WEB, 1), optimal="i-1")
    new = node("b", target("shop/Deployment/api", 1), optimal="i-2")
    known = state(clock, old, new)
    assert ask(known, pod("p1", "Deployment/api"), "a", "b") == (Rule.PLANNED, ("b",))
    assert ask(known, pod("p2"), "a", "b") == (Rule.PLANNED, ("a",))
    # The next iteration takes the place on a away: web has no plan left anywhere, and no node has open targets.
    put(known, node("a", target("shop/Deployment/api", 0), optimal="i-2"))
    assert ask(known, pod("p3"), "a", "b") == (Rule.FREE, ("a", "b"))


# Pods of the plan without a place


def test_a_pod_over_the_targets_goes_where_the_plan_left_room(clock: HandClock) -> None:
    roomy = {"cpu_millicores": 100, "memory_bytes": 1 << 30, "pods": 1}
    tight = {"cpu_millicores": 99, "memory_bytes": 1 << 30, "pods": 1}
    known = state(clock, node("a", target(WEB, 0), headroom=tight), node("b", headroom=roomy), node("c", optimal=""))
    # The pod asks for 100m: 99 does not hold it, 100 does; c is not in the plan.
    assert ask(known, pod("p", cpu="100m"), "a", "b", "c") == (Rule.HEADROOM, ("b",))


def test_without_any_room_a_pod_of_the_plan_goes_anywhere_that_stays(clock: HandClock) -> None:
    none = {"cpu_millicores": 0, "memory_bytes": 0, "pods": 0}
    nodes = (node("a", target(WEB, 0), headroom=none), node("b", optimal="", expiring="i-1"), node("c", optimal=""))
    known = state(clock, *nodes)
    assert ask(known, pod("p"), "a", "b", "c") == (Rule.NOT_EXPIRING, ("a", "c"))


def test_only_expiring_candidates_are_all_allowed(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 1)), node("b", optimal="", expiring="i-1"))
    assert ask(known, pod("p"), "b") == (Rule.EVERYTHING, ("b",))


def test_an_expired_placement_leaves_the_labels_alone_to_steer(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 1)), node("b"), node("c", optimal=""))
    clock.now = EXPIRES
    assert ask(known, pod("p1"), "a", "b", "c") == (Rule.PLANNED, ("a",))
    known.drop_pod("p1")
    clock.now = EXPIRES + 1
    assert ask(known, pod("p1"), "a", "b", "c") == (Rule.HEADROOM, ("a", "b"))
    assert ask(known, pod("p2", "Deployment/api"), "a", "b", "c") == (Rule.OPTIMAL, ("a", "b"))
    assert known.open_targets() == 0


def test_a_renewed_placement_counts_again(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 1)), node("b"))
    clock.now = EXPIRES + 1
    assert ask(known, pod("p"), "a", "b")[0] is not Rule.PLANNED
    put(known, node("a", target(WEB, 1), expires=clock.now + 60))
    assert ask(known, pod("p"), "a", "b") == (Rule.PLANNED, ("a",))


def test_labels_alone_prefer_the_plan_then_what_stays(clock: HandClock) -> None:
    known = state(clock, node("a"), node("b", optimal=""), node("c", optimal="", expiring="i-1"))
    assert ask(known, pod("p1"), "a", "b", "c") == (Rule.OPTIMAL, ("a",))
    assert ask(known, pod("p2"), "b", "c") == (Rule.NOT_EXPIRING, ("b",))
    assert ask(known, pod("p3"), "c") == (Rule.EVERYTHING, ("c",))


def test_an_unreadable_placement_leaves_the_label(clock: HandClock) -> None:
    broken = node("a", target(WEB, 1))
    broken["metadata"]["annotations"] = {"kinema.io/placement": "{"}
    known = state(clock, broken, node("b", optimal=""))
    assert ask(known, pod("p"), "a", "b") == (Rule.OPTIMAL, ("a",))


# Pods without a plan


def test_without_any_plan_every_node_passes(clock: HandClock) -> None:
    known = state(clock, node("a", optimal=""), node("b", optimal=""))
    assert ask(known, pod("p"), "a", "b") == (Rule.NO_PLAN, ("a", "b"))


def test_a_pod_without_a_plan_keeps_away_from_open_targets(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 1)), node("b", target(WEB, 0)), node("c", optimal="", expiring="i-1"))
    assert ask(known, pod("p", "StatefulSet/db"), "a", "b", "c", "unknown") == (Rule.FREE, ("b", "unknown"))


def test_among_open_targets_a_pod_without_a_plan_takes_only_the_headroom(clock: HandClock) -> None:
    roomy = {"cpu_millicores": 100, "memory_bytes": 1 << 30, "pods": 1}
    tight = {"cpu_millicores": 99, "memory_bytes": 1 << 30, "pods": 1}
    known = state(clock, node("a", target(WEB, 1), headroom=tight), node("b", target(WEB, 1), headroom=roomy))
    assert ask(known, pod("p", "StatefulSet/db", cpu="100m"), "a", "b") == (Rule.HEADROOM, ("b",))


def test_what_came_since_the_placement_takes_from_the_headroom(clock: HandClock) -> None:
    room = {"cpu_millicores": 250, "memory_bytes": 1 << 30, "pods": 9}
    known = state(clock, node("a", target(WEB, 1), headroom=room), node("b", target(WEB, 1), headroom=room))
    db = "StatefulSet/db"
    put(known, pod("db-0", db, cpu="200m", on="a"))
    # 250 - 200 = 50 < 100 on a; 250 on b.
    assert ask(known, pod("db-1", db, cpu="100m"), "a", "b") == (Rule.HEADROOM, ("b",))
    # One node was answered, so it is reserved: 250 - 100 = 150 holds 150 but not 151.
    assert ask(known, pod("db-2", db, cpu="151m"), "a", "b")[0] is Rule.NOT_EXPIRING
    assert ask(known, pod("db-3", db, cpu="150m"), "a", "b") == (Rule.HEADROOM, ("b",))


def test_what_the_plan_knew_takes_nothing_from_the_headroom(clock: HandClock) -> None:
    room = {"cpu_millicores": 100, "memory_bytes": 1 << 30, "pods": 9}
    nodes = (node("a", target(WEB, 2), headroom=room), node("b", target(WEB, 9)))
    known = state(clock, pod("db-0", "StatefulSet/db", on="a"), pod("agent", "DaemonSet/agent", on="a"), *nodes)
    # Neither those from before, nor the targets' own pods, nor what belongs to the node: 100 are still free.
    put(known, pod("w", on="a"))
    put(known, pod("agent-2", "DaemonSet/agent", on="a"))
    assert ask(known, pod("db-1", "StatefulSet/db", cpu="100m"), "a") == (Rule.HEADROOM, ("a",))


def test_pods_of_a_target_beyond_its_want_take_from_the_headroom(clock: HandClock) -> None:
    room = {"cpu_millicores": 150, "memory_bytes": 1 << 30, "pods": 9}
    other = target("shop/Deployment/api", 1)
    known = state(clock, node("a", target(WEB, 1), other, headroom=room), node("b", optimal="", expiring="i-1"))
    put(known, pod("w1", on="a"))
    put(known, pod("w2", on="a"))
    # w1 is wanted, w2 is one too many: 150 - 100 = 50.
    assert ask(known, pod("db-1", "StatefulSet/db", cpu="51m"), "a", "b")[0] is Rule.NOT_EXPIRING
    known.drop_pod("db-1")
    assert ask(known, pod("db-2", "StatefulSet/db", cpu="50m"), "a", "b") == (Rule.HEADROOM, ("a",))


def test_a_bare_pod_has_no_plan(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 1)), node("b", target(WEB, 0)))
    assert ask(known, pod("lonely", ""), "a", "b") == (Rule.FREE, ("b",))


# Scores


def test_scores_follow_the_documented_table(clock: HandClock) -> None:
    none = {"cpu_millicores": 0, "memory_bytes": 0, "pods": 0}
    api = target("shop/Deployment/api", 1)
    nodes = {
        "own": node("own", target(WEB, 1)),
        "free": node("free"),
        "open": node("open", api),
        "outside": node("outside", optimal=""),
        "full": node("full", headroom=none),
        "open-full": node("open-full", api, headroom=none),
        "expiring": node("expiring", target(WEB, 1), expiring="i-1"),
    }
    known = state(clock, *nodes.values())
    assert scores(known, pod("p"), *nodes) == [10, 8, 7, 5, 3, 1, 0]
    # The same nodes without a plan for the pod: "own" is only another node with open targets that has room.
    assert scores(known, pod("db-0", "StatefulSet/db"), *nodes) == [4, 9, 4, 7, 6, 1, 0]


def test_scoring_reserves_nothing(clock: HandClock) -> None:
    known = state(clock, node("a", target(WEB, 1)))
    assert scores(known, pod("p"), "a") == [10]
    assert known.reservations() == 0
