"""Stages: on paper, a plan is carried out in an order in which everything fits, or mended until it can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from planner import labels as keys
from planner.model.cluster import HOSTNAME, Snapshot, Workload
from planner.model.disruption import DisruptionRules, mobilities
from planner.model.inputs import PlanningInputs
from planner.model.machines import Catalogue
from planner.model.plan import Plan, PlannedNode, PlannedWorkload, PlanRecord, Strategy, Unplaced
from planner.model.scheduling import NodeConstraints, NodeSelectorTerm, Requirement
from planner.rescheduler import rules_of, staged
from planner.rescheduler.moves import Moves, find_moves
from planner.rescheduler.rehearsal import Rehearsal, with_booted
from planner.settings import MoveSettings
from tests.building import catalogue, daemonset, deployment, inputs, node, offering, pods_of, resources, snapshot
from tests.rescheduler.test_steps import ACCEPTED_AT, moved, planned_node, pool_node, record_of

RULES = rules_of(MoveSettings())


def test_rehearsal_finds_the_order_in_which_everything_fits() -> None:
    # b (3000) fits on "mid" only after a (3000) has left it for "new".
    a, b = deployment("a", 1, cpu=3000), deployment("b", 1, cpu=3000)
    offer = offering(pool="pool-a")
    record = record_of(
        [
            planned_node("mid", "keep", {b.key: 1}),
            planned_node("new", "boot", {a.key: 1}),
            planned_node("old", "remove"),
        ],
        {a.key: moved(a, 1), b.key: moved(b, 1)},
    )
    pods = pods_of(a, {"mid": 1}) + pods_of(b, {"old": 1})
    cluster = snapshot([pool_node("mid"), pool_node("old")], [a, b], pods)
    assert stuck_of(record.plan, cluster, catalogue(offer)) == {}


def test_rehearsal_names_workloads_that_would_have_to_swap_places() -> None:
    # Each of two nodes (4000) holds one pod of 3000, and the plan wants them exchanged: neither can begin.
    a, b = deployment("a", 1, cpu=3000), deployment("b", 1, cpu=3000)
    record = record_of(
        [planned_node("x", "keep", {b.key: 1}), planned_node("y", "keep", {a.key: 1})],
        {a.key: moved(a, 1), b.key: moved(b, 1)},
    )
    cluster = snapshot([pool_node("x"), pool_node("y")], [a, b], pods_of(a, {"x": 1}) + pods_of(b, {"y": 1}))
    assert sorted(stuck_of(record.plan, cluster, catalogue())) == [a.key, b.key]


def test_rehearsal_counts_the_daemonsets_of_new_nodes() -> None:
    # 4000 - 100 of the agent = 3900 is less than the 4000 that the pod wants.
    a = deployment("a", 1, cpu=4000)
    record = record_of([planned_node("old", "remove"), planned_node("new", "boot", {a.key: 1})], {a.key: moved(a, 1)})
    cluster = snapshot([pool_node("old")], [a], pods_of(a, {"old": 1}), daemonsets=(daemonset("agent", cpu=100),))
    assert list(stuck_of(record.plan, cluster, catalogue(offering(pool="pool-a")))) == [a.key]
    assert stuck_of(record.plan, replace(cluster, daemonsets=()), catalogue(offering(pool="pool-a"))) == {}


def test_rehearsal_holds_a_workload_of_which_the_plan_leaves_pods_without_a_place() -> None:
    # 2 of 4 find no place: the two that run must not be evicted, and would have to share their targets with those two.
    store = deployment("store", 4, kind="StatefulSet")
    record = record_of(
        [planned_node("old", "remove"), planned_node("new", "boot", {store.key: 2})],
        {store.key: moved(store, 2, "evict")},
    )
    cluster = snapshot([pool_node("old")], [store], pods_of(store, {"old": 2}, pending=2))
    plan = replace(record.plan, unplaced={store.key: Unplaced(2, "no room")})
    stuck = stuck_of(plan, cluster, catalogue(offering(pool="pool-a")))
    assert stuck == {store.key: "the plan has no place for some of its pods"}


def test_rehearsal_lets_pending_pods_come_before_others_of_their_workload_are_evicted() -> None:
    store = deployment("store", 3, kind="StatefulSet")
    record = record_of(
        [planned_node("old", "remove"), planned_node("new", "boot", {store.key: 3})],
        {store.key: moved(store, 2, "evict")},
    )
    cluster = snapshot([pool_node("old")], [store], pods_of(store, {"old": 2}, pending=1))
    assert stuck_of(record.plan, cluster, catalogue(offering(pool="pool-a"))) == {}
    # Beside 3 x 1500 of them there is no room on "new" (4000): what could not move before the pending pod came is told.
    wide = replace(store, requests=resources(1500, 1, 1))
    pods = pods_of(wide, {"old": 2}, pending=1)
    stuck = stuck_of(
        replace(record.plan, workloads={wide.key: moved(wide, 2, "evict")}),
        replace(cluster, workloads=(wide,), pods=tuple(pods)),
        catalogue(offering(pool="pool-a")),
    )
    assert list(stuck) == [wide.key]


def test_rehearsal_refuses_to_let_a_pending_pod_wait_until_others_have_left() -> None:
    # The waiting pod (3000) is to stand on "mid" (4000) once store (2000) has left it for "new". It would not wait:
    # when "new" comes up it takes that.
    store, late = deployment("store", 1, cpu=2000, kind="StatefulSet"), deployment("late", 1, cpu=3000)
    plan = record_of(
        [planned_node("mid", "keep", {late.key: 1}), planned_node("new", "boot", {store.key: 1})],
        {store.key: moved(store, 1, "evict"), late.key: moved(late, 0, "stay")},
    ).plan
    pods = pods_of(store, {"mid": 1}) + pods_of(late, pending=1)
    cluster = snapshot([pool_node("mid")], [store, late], pods)
    given = replace(inputs(cluster, catalogue(offering(pool="pool-a"))), rules=DisruptionRules(1.0))
    stuck = Rehearsal.of(plan, given).play(plan).stuck
    assert stuck == {store.key: "pods that wait for a node have no room on mid before it moves"}
    # Beside 4000 - 2000 a pod of 2000 has room at once.
    small = replace(late, requests=resources(2000, 1, 1))
    plan = replace(plan, workloads={store.key: moved(store, 1, "evict"), late.key: moved(small, 0, "stay")})
    pods = pods_of(store, {"mid": 1}) + pods_of(small, pending=1)
    given = replace(given, snapshot=replace(cluster, workloads=(store, small), pods=tuple(pods)))
    assert Rehearsal.of(plan, given).play(plan).stuck == {}


def test_rehearsal_refuses_to_let_a_pending_pod_wait_for_the_place_of_another_pod_of_its_workload() -> None:
    # store-1 waits for its volume's node "a", where store-0 is that the plan wants on "new": one of them on each node.
    # By their numbers "a" has its pod and "new" lacks one, but store-1 cannot come there, and while one of two is
    # unavailable store-0 is not evicted.
    store = deployment("store", 2, kind="StatefulSet")
    plan = record_of(
        [planned_node("a", "keep", {store.key: 1}), planned_node("new", "boot", {store.key: 1})],
        {store.key: moved(store, 1, "evict")},
    ).plan
    first, late = pods_of(store, {"a": 1}, pending=1)
    cluster = snapshot([pool_node("a")], [store], [first, replace(late, constraints=bound_to("a"))])
    offers = catalogue(offering(pool="pool-a"))
    reason = "no free place of the plan suits a pod of it that waits for a node"
    assert stuck_of(plan, cluster, offers) == {store.key: reason}
    # With the volume of store-0 there, and that of store-1 anywhere, "new" is the place of store-1.
    cluster = replace(cluster, pods=(replace(first, constraints=bound_to("a")), late))
    assert stuck_of(plan, cluster, offers) == {}


def test_rehearsal_lets_a_pending_pod_come_where_its_volume_is_and_another_one_elsewhere() -> None:
    # store-1, first by name, may come to "a", "b" or "c", store-2 to "a" alone. With these two on "a" and "b" store-0
    # finds "c", to which its volume is bound.
    store = deployment("store", 3, kind="StatefulSet")
    names = ("a", "b", "c")
    plan = record_of(
        [*(planned_node(name, "keep", {store.key: 1}) for name in names), planned_node("old", "remove")],
        {store.key: moved(store, 1, "evict")},
    ).plan
    moving, either, late = pods_of(store, {"old": 1}, pending=2)
    pods = [replace(moving, constraints=bound_to("c", "old")), either, replace(late, constraints=bound_to("a"))]
    cluster = snapshot([pool_node(name) for name in (*names, "old")], [store], pods)
    given = replace(inputs(cluster, catalogue()), rules=DisruptionRules(1.0))
    ending = Rehearsal.of(plan, given).play(plan)
    assert ending.stuck == {}
    assert [dict(mover.here) for mover in ending.movers] == [{"a": 1, "b": 1, "c": 1, "old": 0}]


def test_rehearsal_lets_a_pending_pod_wait_for_the_room_of_its_volumes_node_only() -> None:
    # store-1 waits for "mid" (4000), where web (3000) is that shall leave: "new", which has room, is no place for it.
    store, web = deployment("store", 2, cpu=2000, kind="StatefulSet"), deployment("web", 1, cpu=3000)
    plan = record_of(
        [
            planned_node("mid", "keep", {store.key: 1}),
            planned_node("new", "boot", {store.key: 1}),
            planned_node("old", "remove"),
            planned_node("side", "keep", {web.key: 1}),
        ],
        {store.key: moved(store, 1, "evict"), web.key: moved(web, 1)},
    ).plan
    first, late = pods_of(store, {"old": 1}, pending=1)
    pods = [first, replace(late, constraints=bound_to("mid")), *pods_of(web, {"mid": 1})]
    cluster = snapshot([pool_node(name) for name in ("mid", "old", "side")], [store, web], pods)
    stuck = stuck_of(plan, cluster, catalogue(offering(pool="pool-a")))
    assert stuck == {web.key: "pods that wait for a node have no room on mid before it moves"}


def bound_to(*nodes: str) -> NodeConstraints:
    """Return the constraints of a pod whose volume is bound to these nodes."""
    return NodeConstraints(required_terms=(NodeSelectorTerm((Requirement(HOSTNAME, "In", nodes),)),))


def stuck_of(plan: Plan, cluster: Snapshot, offers: Catalogue) -> dict[str, str]:
    return Rehearsal.of(plan, inputs(cluster, offers)).play(plan).stuck


def plan_inputs(cluster: Snapshot) -> PlanningInputs:
    return inputs(cluster, catalogue(offering(pool="pool-a")))


def test_a_roll_out_beside_its_old_pods_goes_before_those_that_only_arrive() -> None:
    # "mid" has 4000. web (1000, on mid) is replaced there, which needs 1000 beside it; guest (3000) comes from "old".
    # web first: 1000 + 1000, then 1000 + 3000. guest first: 1000 + 3000 leave nothing for web's new pod.
    web, guest = deployment("web", 2, cpu=1000), deployment("guest", 1, cpu=3000)
    plan = record_of(
        [
            planned_node("mid", "keep", {web.key: 1, guest.key: 1}),
            planned_node("new", "boot", {web.key: 1}),
            planned_node("old", "remove"),
        ],
        {web.key: moved(web, 2), guest.key: moved(guest, 1)},
    ).plan
    pods = pods_of(web, {"mid": 1, "old": 1}) + pods_of(guest, {"old": 1})
    cluster = snapshot([pool_node("mid"), pool_node("old", cpu=8000)], [web, guest], pods)
    assert web.key in stuck_of(plan, cluster, catalogue(offering(pool="pool-a")))  # in the order of names
    found, ending = staged(plan, plan_inputs(cluster), lambda: 60.0)
    assert ending.stuck == {}
    assert found.workloads[web.key].stage < found.workloads[guest.key].stage


def test_room_that_an_earlier_stage_waits_for_is_not_taken_by_a_later_one() -> None:
    # "mid" (4000) holds first's old pod (1000) and busy (1500), which leaves. first wants 2 x 1000 beside its old pod:
    # 1500 are free now, 3000 when busy has gone. second (1500) fits now, and would leave first only 1500 for ever.
    busy, first, second = deployment("busy", 1, cpu=1500), deployment("first", 2), deployment("second", 1, cpu=1500)
    first = replace(first, requests=resources(1000, 1, 1))
    nodes = [
        planned_node("mid", "keep", {first.key: 2, second.key: 1}),
        planned_node("side", "keep", {busy.key: 1}),
        planned_node("old", "remove"),
    ]
    stages = {w.key: moved(w, w.replicas, stage=stage) for stage, w in enumerate((busy, first, second))}
    pods = pods_of(busy, {"mid": 1}) + pods_of(first, {"mid": 1, "old": 1}) + pods_of(second, {"old": 1})
    cluster = snapshot([pool_node("mid"), pool_node("side"), pool_node("old")], [busy, first, second], pods)
    moves = find_moves(record_of(nodes, stages), cluster, mobilities(cluster, RULES))
    assert moves.rollouts == (busy.key,)
    assert [key for key, _ in moves.stuck] == [first.key]
    assert moves.behind == ((second.key, "others go first on mid"),)


def test_a_roll_out_without_room_is_evicted_where_its_strategy_allows_it() -> None:
    # "mid" (4000) is full of web's 4 pods of 1000 and stays so: no new pod fits beside them. Evicting moves only the
    # two pods on "old".
    web = deployment("web", 6, cpu=1000, max_unavailable=2, max_surge=1)
    plan = record_of(
        [
            planned_node("mid", "keep", {web.key: 4}),
            planned_node("new", "boot", {web.key: 2}),
            planned_node("old", "remove"),
        ],
        {web.key: moved(web, 6)},
    ).plan
    cluster = snapshot([pool_node("mid"), pool_node("old")], [web], pods_of(web, {"mid": 4, "old": 2}))
    found, ending = staged(plan, plan_inputs(cluster), lambda: 60.0)
    assert ending.stuck == {}
    assert (found.workloads[web.key].strategy, found.workloads[web.key].moves) == ("evict", 2)
    # 2 moves x 0.001 $ / 24 h
    assert found.objective.moves_nanousd_per_hour == 2_000_000 // 24
    careful = replace(web, max_unavailable=0)
    found, ending = staged(plan, plan_inputs(replace(cluster, workloads=(careful,))), lambda: 60.0)
    assert list(ending.stuck) == [web.key]
    assert found.workloads[web.key].strategy == "rollout"


def test_pods_that_would_have_to_swap_places_stay_where_they_are() -> None:
    # Each of two nodes (4000) holds two pods of 1800, and the plan wants them exchanged: 400 are free on each.
    a, b = (deployment(name, 2, cpu=1800, max_unavailable=1) for name in "ab")
    plan = record_of(
        [planned_node("x", "keep", {b.key: 2}), planned_node("y", "keep", {a.key: 2})],
        {w.key: moved(w, 2, "evict") for w in (a, b)},
    ).plan
    pods = pods_of(a, {"x": 2}) + pods_of(b, {"y": 2})
    found, ending = staged(plan, plan_inputs(snapshot([pool_node("x"), pool_node("y")], [a, b], pods)), lambda: 60.0)
    assert ending.stuck == {}
    # Once the pods of one node stay, so do those of the other.
    assert [dict(n.pods) for n in found.nodes] == [{a.key: 2}, {b.key: 2}]
    assert [(w.strategy, w.moves) for w in found.workloads.values()] == [("stay", 0)] * 2
    assert found.objective.moves_nanousd_per_hour == 0


def test_a_pod_that_must_leave_and_finds_its_place_taken_goes_where_there_is_room() -> None:
    # "x" (4000) is full of two pods of a, of which one shall swap with c on "y" (full as well). b's pod (1800) leaves
    # "old" for "x", where it never fits; "side" has room.
    a, b, c = (deployment(name, 2, cpu=1800, max_unavailable=1) for name in "abc")
    plan = record_of(
        [
            planned_node("x", "keep", {a.key: 1, b.key: 1}),
            planned_node("y", "keep", {a.key: 1, c.key: 1}),
            planned_node("side", "keep", {b.key: 1, c.key: 1}),
            planned_node("old", "remove"),
        ],
        {a.key: moved(a, 1, "evict"), b.key: moved(b, 1, "evict"), c.key: moved(c, 0, "stay")},
    ).plan
    pods = pods_of(a, {"x": 2}) + pods_of(b, {"old": 1, "side": 1}) + pods_of(c, {"y": 2})
    nodes = [pool_node("x"), pool_node("y"), pool_node("side", cpu=8000), pool_node("old")]
    found, ending = staged(plan, plan_inputs(snapshot(nodes, [a, b, c], pods)), lambda: 60.0)
    assert ending.stuck == {}
    assert [dict(n.pods) for n in found.nodes if n.name in ("x", "side")] == [{a.key: 2}, {b.key: 2, c.key: 1}]
    assert (found.workloads[a.key].moves, found.workloads[b.key].moves) == (0, 1)


def test_new_pods_of_a_roll_out_that_do_not_fit_beside_the_old_ones_go_where_there_is_room() -> None:
    # "mid" (4000) holds two of web's pods (1000) and is to hold three: 2000 + 3000 is too much, 2000 + 2000 is not.
    web = deployment("web", 3, cpu=1000)
    plan = record_of(
        [planned_node("mid", "keep", {web.key: 3}), planned_node("side", "keep"), planned_node("old", "remove")],
        {web.key: moved(web, 3)},
    ).plan
    nodes = [pool_node("mid"), pool_node("side"), pool_node("old")]
    cluster = snapshot(nodes, [web], pods_of(web, {"mid": 2, "old": 1}))
    found, ending = staged(plan, plan_inputs(cluster), lambda: 60.0)
    assert ending.stuck == {}
    assert [dict(n.pods) for n in found.nodes] == [{web.key: 2}, {web.key: 1}, {}]


def after(record: PlanRecord, snapshot: Snapshot, moves: Moves) -> Snapshot:
    """Return the snapshot after these moves, every new pod Ready on its planned node."""
    plan = record.plan
    evicted = {(pod.namespace, pod.name): target for pod, target in moves.evictions}
    places = {
        key: [n.name for n in plan.nodes if n.state != "remove" for _ in range(n.pods.get(key, 0))]
        for key in moves.rollouts
    }
    pods = []
    for pod in snapshot.pods:
        if pod.workload in places and pod.live and places[pod.workload]:
            marks = {**pod.annotations, keys.ITERATION: plan.iteration}
            node, requests = places[pod.workload].pop(0), plan.workloads[pod.workload].requests
            pods.append(replace(pod, node=node, annotations=marks, requests=requests, ready=True))
        elif (pod.namespace, pod.name) in evicted:
            node = evicted[pod.namespace, pod.name]
            requests = plan.workloads[pod.workload].requests
            pods.append(replace(pod, node=node, requests=requests, ready=True, created_at=record.accepted_at + 1))
        else:
            pods.append(pod)
    workloads = tuple(
        replace(w, template_annotations={**w.template_annotations, keys.ITERATION: plan.iteration})
        if w.key in places
        else w
        for w in snapshot.workloads
    )
    return replace(snapshot, pods=tuple(pods), workloads=workloads)


def steps_on_paper(record: PlanRecord, cluster: Snapshot, slow: Any) -> dict[str, str]:
    """Carry the plan out one move at a time, each chosen by `slow`, as pods of uneven speed would; return the stuck."""
    while True:
        moves = find_moves(record, cluster, mobilities(cluster, RULES))
        choices = [*moves.rollouts, *moves.evictions]
        if not choices:
            return {} if moves.over else dict((*moves.stuck, *moves.behind))
        chosen = choices[slow(len(choices))]
        one = (
            replace(moves, rollouts=(chosen,), evictions=())
            if isinstance(chosen, str)
            else replace(moves, rollouts=(), evictions=(chosen,))
        )
        cluster = after(record, cluster, one)


@st.composite
def shuffled_clusters(draw: st.DrawFn) -> tuple[Plan, Snapshot]:
    """Return three full nodes that stay and two that go, and a plan that moves pods among them at random."""
    names = ("a", "b", "c")
    workloads: list[Workload] = []
    pods = []
    nodes: dict[str, dict[str, int]] = {name: {} for name in (*names, "new")}
    free = dict.fromkeys((*names, "new"), 8)
    strategies: dict[str, PlannedWorkload] = {}
    room = dict.fromkeys((*names, "old-1", "old-2"), 8)
    for index in range(draw(st.integers(2, 6))):
        size = draw(st.integers(1, 4))
        strategy: Strategy = draw(st.sampled_from(("rollout", "evict")))
        web = deployment(f"w{index}", draw(st.integers(1, 4)), cpu=size * 500, max_unavailable=1)
        froms = [n for n in room if room[n] >= size * web.replicas]
        tos = [n for n in free if free[n] >= size * web.replicas]
        if not froms or not tos:
            continue
        source, target = draw(st.sampled_from(froms)), draw(st.sampled_from(tos))
        room[source] -= size * web.replicas
        free[target] -= size * web.replicas
        workloads.append(web)
        pods += pods_of(web, {source: web.replicas})
        nodes[target][web.key] = web.replicas
        moves = 0 if source == target else web.replicas
        strategies[web.key] = moved(web, moves, strategy if moves else "stay")
    planned: list[PlannedNode] = [planned_node(n, "boot" if n == "new" else "keep", held) for n, held in nodes.items()]
    planned += [planned_node("old-1", "remove"), planned_node("old-2", "remove")]
    cluster = snapshot([node(n, pool="pool-a") for n in room], workloads, pods)
    return record_of(planned, strategies).plan, cluster


@given(shuffled_clusters(), st.randoms(use_true_random=False))
def test_a_staged_plan_never_gets_stuck_whatever_moves_first(made: tuple[Plan, Snapshot], chance: Any) -> None:
    plan, cluster = made
    plan, ending = staged(plan, plan_inputs(cluster), lambda: 60.0)
    if ending.stuck:
        return
    record = PlanRecord(plan, "carrying-out", ACCEPTED_AT)
    booted = with_booted(plan, cluster, catalogue(offering(pool="pool-a")))
    assert steps_on_paper(record, booted, chance.randrange) == {}
