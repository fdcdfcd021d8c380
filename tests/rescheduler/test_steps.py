"""What is next follows from plan and snapshot alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from planner import labels as keys
from planner.model.cluster import ZONE, DisruptionBudget, Instance, Node, Snapshot, Workload
from planner.model.plan import (
    BootNodes,
    DeleteInstances,
    DeleteNode,
    EvictPod,
    MarkNode,
    Objective,
    Plan,
    PlannedNode,
    PlannedWorkload,
    PlanRecord,
    RollOut,
    SavePlan,
    Strategy,
    Wait,
)
from planner.model.resources import Resources
from planner.model.scheduling import LabelSelector, Requirement, Taint
from planner.rescheduler import CARRIED_OUT, next_steps
from planner.settings import MoveSettings
from tests.building import daemonset, daemonset_pod, deployment, node, pods_of, resources, snapshot

SETTINGS = MoveSettings(
    boot_timeout_seconds=600,
    standstill_timeout_seconds=300,
    iteration_timeout_seconds=3600,
    plan_ttl_seconds=86400,
)
ACCEPTED_AT = 1000.0
IT = "it-1"


def planned_node(name: str, state: Any, pods: Mapping[str, int] | None = None, **fields: Any) -> PlannedNode:
    return PlannedNode(
        name, state, "pool-a", "m4", "zone-a", "on-demand", 10**8, resources(4000, 16, 110), pods or {}, **fields
    )


def moved(workload: Workload, moves: int, strategy: Strategy = "rollout", **fields: Any) -> PlannedWorkload:
    requests = workload.requests
    return PlannedWorkload(workload.uid, workload.replicas, requests, requests, strategy, moves, **fields)


def record_of(nodes: list[PlannedNode], workloads: Mapping[str, PlannedWorkload], **fields: Any) -> PlanRecord:
    objective = Objective("cost", 0, 0, 0, 0, "feasible", 24, 0, 0)
    plan = Plan(IT, objective, 0, 0, tuple(nodes), workloads)
    return PlanRecord(plan, fields.pop("phase", "carrying-out"), ACCEPTED_AT, **fields)


def pool_node(name: str, **fields: Any) -> Node:
    return node(name, pool="pool-a", **fields)


def marked(found: Node, record: PlanRecord, cluster: Snapshot) -> Node:
    """Return the node as it is after its mark was written."""
    for step in next_steps(record, cluster, ACCEPTED_AT, SETTINGS):
        if isinstance(step, MarkNode) and step.node == found.name:
            labels = {k: v for k, v in {**found.labels, **step.labels}.items() if v is not None}
            notes = {k: v for k, v in {**found.annotations, **step.annotations}.items() if v is not None}
            taints = tuple(t for t in found.taints if t.key != keys.EXPIRING)
            if step.taint_value is not None:
                taints += (Taint(keys.EXPIRING, step.taint_value, step.taint_effect),)
            return replace(found, labels=labels, annotations=notes, taints=taints)
    return found


def all_marked(record: PlanRecord, cluster: Snapshot) -> Snapshot:
    return replace(cluster, nodes=tuple(marked(n, record, cluster) for n in cluster.nodes))


def running(*names: str) -> tuple[Instance, ...]:
    return tuple(Instance(name, "pool-a", "zone-a", "running") for name in names)


WEB = deployment("web", 2)
KEEP_OLD_BOOT_NEW = record_of(
    [planned_node("old", "remove"), planned_node("new", "boot", {WEB.key: 2})], {WEB.key: moved(WEB, 2)}
)


def test_missing_machines_are_booted_at_once_in_each_pool_and_zone() -> None:
    nodes = [
        planned_node("b-1", "boot"),
        planned_node("b-2", "boot"),
        replace(planned_node("b-3", "boot"), zone="zone-b"),
    ]
    cluster = snapshot(instances=running("b-2"))
    steps = next_steps(record_of(nodes, {}), cluster, ACCEPTED_AT, SETTINGS)
    assert steps == (BootNodes("pool-a", "zone-a", ("b-1",), IT), BootNodes("pool-a", "zone-b", ("b-3",), IT))


@pytest.mark.parametrize(
    "starting",
    [
        {"ready": False},
        {"taints": (Taint("node.kubernetes.io/not-ready", "", "NoSchedule"),)},
        {"taints": (Taint("startup-taint.cluster-autoscaler.kubernetes.io/gpu", "", "NoSchedule"),)},
    ],
)
def test_only_a_new_node_is_marked_while_it_is_still_starting(starting: dict[str, Any]) -> None:
    cluster = snapshot([pool_node("old"), pool_node("new", **starting)], instances=running("old", "new"))
    # A pod that waits for any node takes the first that is usable: what it is meant for must be on it by then.
    mark, wait = next_steps(KEEP_OLD_BOOT_NEW, cluster, ACCEPTED_AT, SETTINGS)
    assert isinstance(mark, MarkNode)
    assert (mark.node, mark.labels) == ("new", {keys.OPTIMAL: IT})
    assert keys.PLACEMENT in mark.annotations
    assert wait == Wait(("1 of 1 new nodes are still booting",))
    nodes = (cluster.nodes[0], marked(cluster.nodes[1], KEEP_OLD_BOOT_NEW, cluster))
    assert next_steps(KEEP_OLD_BOOT_NEW, replace(cluster, nodes=nodes), ACCEPTED_AT, SETTINGS) == (wait,)


def test_a_ready_node_without_its_pools_label_is_not_used() -> None:
    cluster = snapshot([pool_node("old"), node("new", pool="other")], instances=running("old", "new"))
    assert isinstance(next_steps(KEEP_OLD_BOOT_NEW, cluster, ACCEPTED_AT, SETTINGS)[0], Wait)


def test_planned_nodes_get_their_placement_and_expiring_ones_a_soft_taint() -> None:
    agent = daemonset("agent", cpu=100, memory_gib=1)
    cluster = snapshot([pool_node("old"), pool_node("new")], [WEB], pods_of(WEB, {"old": 2}), daemonsets=(agent,))
    new, old = (marked(n, KEEP_OLD_BOOT_NEW, cluster) for n in (cluster.nodes[1], cluster.nodes[0]))
    placement = keys.decode_placement(new.annotations[keys.PLACEMENT])
    assert new.labels[keys.OPTIMAL] == IT
    assert placement.targets == (keys.Target(WEB.key, WEB.uid, 2, "iteration"),)
    # 4000 allocatable - 100 of the agent - 2 x 500 = 2900 millicores; 16 - 1 - 2 x 1 = 13 GiB; 110 - 1 - 2 pods.
    assert placement.headroom["cpu_millicores"] == 2900
    assert placement.headroom["memory_bytes"] == 13 * 1024**3
    assert placement.headroom["pods"] == 107
    assert placement.expires == ACCEPTED_AT + 86400
    assert old.labels[keys.EXPIRING] == IT
    assert old.taints == (Taint(keys.EXPIRING, IT, "PreferNoSchedule"),)


def test_marks_of_an_older_iteration_are_cleared_even_on_nodes_outside_of_the_plan() -> None:
    stale = pool_node(
        "stranger",
        labels={keys.EXPIRING: "it-0"},
        annotations={keys.PLACEMENT: "{}"},
        taints=(Taint(keys.EXPIRING, "it-0", "NoSchedule"),),
    )
    cluster = snapshot([stale, pool_node("old"), pool_node("new")], instances=running("old", "new"))
    cleared = marked(stale, KEEP_OLD_BOOT_NEW, cluster)
    assert keys.EXPIRING not in cleared.labels
    assert keys.PLACEMENT not in cleared.annotations
    assert cleared.taints == ()


def test_a_frozen_node_is_not_touched() -> None:
    record = record_of([planned_node("other", "keep", frozen=True)], {})
    steps = next_steps(record, snapshot([node("other")], instances=()), ACCEPTED_AT, SETTINGS)
    assert [type(step) for step in steps] == [SavePlan]


def test_a_roll_out_starts_only_where_its_new_pods_fit_beside_the_old_ones() -> None:
    # The node has 4000 millicores: two old pods of 1500 leave 1000, two new ones want 3000.
    web = deployment("web", 2, cpu=1500)
    record = record_of([planned_node("n", "keep", {web.key: 2})], {web.key: moved(web, 2)})
    tight = snapshot([pool_node("n")], [web], pods_of(web, {"n": 2}), instances=running("n"))
    [step] = next_steps(record, all_marked(record, tight), ACCEPTED_AT, SETTINGS)
    assert step == Wait((f"{web.key}: its new pods do not fit beside the old ones on n",))
    small = deployment("web", 2, cpu=1000)  # 4000 - 2000 leaves 2000 = 2 x 1000
    record = record_of([planned_node("n", "keep", {small.key: 2})], {small.key: moved(small, 2)})
    roomy = snapshot([pool_node("n")], [small], pods_of(small, {"n": 2}), instances=running("n"))
    [step] = next_steps(record, all_marked(record, roomy), ACCEPTED_AT, SETTINGS)
    assert step == RollOut(small.key, small.uid, IT)


def test_room_promised_to_a_running_roll_out_is_not_given_twice() -> None:
    # The new node has 4000 millicores; a (2 x 1500 to come) leaves 1000, so b with 1500 has to wait.
    a, b = deployment("a", 2, cpu=1500), deployment("b", 1, cpu=1500)
    a = replace(a, template_annotations={keys.ITERATION: IT})
    record = record_of(
        [planned_node("old", "remove"), planned_node("new", "boot", {a.key: 2, b.key: 1})],
        {a.key: moved(a, 2), b.key: moved(b, 1)},
    )
    pods = pods_of(a, {"old": 2}) + pods_of(b, {"old": 1})
    cluster = snapshot([pool_node("old"), pool_node("new")], [a, b], pods, instances=running("old", "new"))
    [step] = next_steps(record, all_marked(record, cluster), ACCEPTED_AT, SETTINGS)
    assert isinstance(step, Wait)
    assert step.reasons == (
        f"{a.key}: 0 of 2 pods rolled out",
        f"{b.key}: its new pods do not fit beside the old ones on new",
    )


def evicting(replicas: int, ready: int, **fields: Any) -> tuple[PlanRecord, Snapshot]:
    store = deployment("store", replicas, kind="StatefulSet", **fields)
    record = record_of(
        [planned_node("old", "remove"), planned_node("new", "boot", {store.key: replicas})],
        {store.key: moved(store, replicas, "evict")},
    )
    pods = [replace(p, ready=i < ready) for i, p in enumerate(pods_of(store, {"old": replicas}))]
    cluster = snapshot([pool_node("old"), pool_node("new")], [store], pods, instances=running("old", "new"))
    return record, all_marked(record, cluster)


def with_open_target(record: PlanRecord, cluster: Snapshot) -> Snapshot:
    """Return the cluster once the first target on "new" is open, so that the extender knows of it before the pod."""
    [opening] = next_steps(record, cluster, ACCEPTED_AT, SETTINGS)
    assert isinstance(opening, MarkNode)
    text = opening.annotations[keys.PLACEMENT]
    assert text is not None
    assert [target.want for target in keys.decode_placement(text).targets] == [1]
    notes = {keys.PLACEMENT: text}
    return replace(cluster, nodes=tuple(replace(n, annotations=notes) if n.name == "new" else n for n in cluster.nodes))


def test_a_stateful_set_is_evicted_one_pod_after_the_other() -> None:
    record, cluster = evicting(replicas=3, ready=3)
    [step] = next_steps(record, with_open_target(record, cluster), ACCEPTED_AT, SETTINGS)
    assert isinstance(step, EvictPod)
    assert (step.node, step.uid, step.reason) == ("old", f"uid-{step.name}", "the plan puts it on new")
    record, cluster = evicting(replicas=3, ready=2)
    assert all(isinstance(step, Wait) for step in next_steps(record, cluster, ACCEPTED_AT, SETTINGS))


def two_zones(coming: str = "") -> tuple[PlanRecord, Snapshot]:
    """Return pods that keep their zones, of which one leaves an expiring node in each; that of a zone may be away."""
    web = deployment("web", 4, max_surge=0, max_unavailable=2)
    zones = {"old-a": "a", "old-b": "b", "new-a": "a", "new-b": "b"}
    record = record_of(
        [
            planned_node(n, "remove" if n.startswith("old") else "keep", {web.key: 2 * n.startswith("new")})
            for n in zones
        ],
        {web.key: moved(web, 2, "evict")},
    )
    pods = pods_of(web, dict.fromkeys(zones, 1), keeps=(ZONE,))
    nodes = [pool_node(name, zone=zone) for name, zone in zones.items()]
    cluster = snapshot(nodes, [web], [p for p in pods if p.node != f"old-{coming}"], instances=running(*zones))
    return record, all_marked(record, cluster)


def test_pods_that_keep_their_zones_are_evicted_towards_their_own_zone() -> None:
    record, cluster = two_zones()
    openings = next_steps(record, cluster, ACCEPTED_AT, SETTINGS)
    notes = {step.node: step.annotations for step in openings if isinstance(step, MarkNode)}
    assert notes.keys() == {"new-a", "new-b"}
    # Only b's target is open: a's pod, though first by name, has to wait for its own.
    opened = [replace(n, annotations=notes[n.name]) if n.name == "new-b" else n for n in cluster.nodes]
    steps = next_steps(record, replace(cluster, nodes=tuple(opened)), ACCEPTED_AT, SETTINGS)
    evictions = [(step.node, step.reason) for step in steps if isinstance(step, EvictPod)]
    assert evictions == [("old-b", "the plan puts it on new-b")]
    assert [step.node for step in steps if isinstance(step, MarkNode)] == ["new-a"]


@pytest.mark.parametrize("zone", ["a", "b"])
def test_an_open_target_of_a_zone_is_kept_for_the_pod_of_that_zone_which_is_away(zone: str) -> None:
    record, cluster = two_zones()
    openings = next_steps(record, cluster, ACCEPTED_AT, SETTINGS)
    notes = {step.node: step.annotations for step in openings if isinstance(step, MarkNode)}
    _, cluster = two_zones(coming=zone)
    opened = tuple(replace(n, annotations=notes.get(n.name, n.annotations)) for n in cluster.nodes)
    steps = next_steps(record, replace(cluster, nodes=opened), ACCEPTED_AT, SETTINGS)
    other = "b" if zone == "a" else "a"
    evictions = [(step.node, step.reason) for step in steps if isinstance(step, EvictPod)]
    assert evictions == [(f"old-{other}", f"the plan puts it on new-{other}")]


def test_a_pod_whose_zone_was_filled_by_one_of_another_zone_goes_where_that_one_belonged() -> None:
    record, cluster = two_zones(coming="b")
    # The pod of b was let into a, so that a has all that the plan wants of it, and b lacks one.
    crossed = replace(cluster.pods[0], name="crossed", uid="crossed", node="new-a")
    cluster = replace(cluster, pods=(*cluster.pods, crossed))
    cluster = all_marked(record, replace(cluster, nodes=tuple(replace(n, annotations={}) for n in cluster.nodes)))
    steps = next_steps(record, cluster, ACCEPTED_AT, SETTINGS)
    # Its target on new-b is opened, and old-b, which is empty, closed.
    assert [step.node for step in steps if isinstance(step, MarkNode)] == ["new-b", "old-b"]


def test_an_open_target_for_which_a_pod_is_on_its_way_is_no_other_pods_too() -> None:
    # The pod of b is away. Only new-a is open to it, and nothing forbids it to go there: no pod may be evicted towards
    # new-a as well, or one of the two finds no target. The target on new-b is opened beside it, and so both have one.
    record, cluster = two_zones()
    openings = next_steps(record, cluster, ACCEPTED_AT, SETTINGS)
    notes = {step.node: step.annotations for step in openings if isinstance(step, MarkNode)}
    _, cluster = two_zones(coming="b")
    opened = tuple(replace(n, annotations=notes[n.name]) if n.name == "new-a" else n for n in cluster.nodes)
    steps = next_steps(record, replace(cluster, nodes=opened), ACCEPTED_AT, SETTINGS)
    # old-b, which is empty, is closed.
    assert [step.node for step in steps if isinstance(step, MarkNode)] == ["new-b", "old-b"]
    assert not [step for step in steps if isinstance(step, EvictPod)]


def test_a_plan_has_not_ended_before_pods_that_stay_pending_are_on_their_planned_nodes() -> None:
    web = deployment("web", 2)
    record = record_of([planned_node("a", "keep", {web.key: 2})], {web.key: moved(web, 0, "stay")})
    one_pending = snapshot([pool_node("a")], [web], pods_of(web, {"a": 1}, pending=1), instances=running("a"))
    one_pending = all_marked(record, one_pending)
    [wait] = next_steps(record, one_pending, ACCEPTED_AT, SETTINGS)
    assert wait == Wait((f"{web.key}: its pods have yet to come to a",))
    # After a minute in which nothing moved the plan ends all the same: the next one knows better.
    [end] = next_steps(record, one_pending, ACCEPTED_AT + 61, SETTINGS)
    assert isinstance(end, SavePlan)
    both = all_marked(record, replace(one_pending, pods=tuple(pods_of(web, {"a": 2}))))
    [end] = next_steps(record, both, ACCEPTED_AT, SETTINGS)
    assert isinstance(end, SavePlan)


def gone_ahead(second: str = "zone-b", **fields: Any) -> tuple[PlanRecord, Snapshot]:
    """Return a cluster in which a pod that waited took "first", which was usable before its own "second"."""
    store = deployment("store", 2, kind="StatefulSet")
    web = deployment("web", 2, max_surge=0, max_unavailable=1)
    record = record_of(
        [
            planned_node("old", "keep", {store.key: 1}),
            planned_node("first", "boot", {web.key: 2}),
            replace(planned_node("second", "boot", {store.key: 1}), zone=second),
        ],
        {store.key: moved(store, 0, "stay"), web.key: moved(web, 2, "evict")},
    )
    pods = [*pods_of(store, {"first": 1, "old": 1}, **fields), *pods_of(web, {"old": 2})]
    nodes = [pool_node("old"), pool_node("first"), pool_node("second", zone=second)]
    return record, all_marked(record, snapshot(nodes, [store, web], pods, instances=running("old", "first", "second")))


def test_a_pod_that_took_the_first_node_to_boot_moves_on_to_its_own() -> None:
    record, cluster = gone_ahead()
    steps = next_steps(record, cluster, ACCEPTED_AT, SETTINGS)
    evictions = [(step.workload, step.node, step.reason) for step in steps if isinstance(step, EvictPod)]
    assert evictions == [("default/StatefulSet/store", "first", "the plan puts it on second")]


def test_new_nodes_of_one_kind_are_exchanged_for_a_pod_that_took_the_first_of_them() -> None:
    record, cluster = gone_ahead(second="zone-a")
    [step] = next_steps(record, cluster, ACCEPTED_AT, SETTINGS)
    assert isinstance(step, SavePlan)
    assert {node.name: dict(node.pods) for node in step.record.plan.nodes} == {
        "old": {"default/StatefulSet/store": 1},
        "first": {"default/StatefulSet/store": 1},
        "second": {"default/Deployment/web": 2},
    }
    # Then each node is marked for what it is to have now, and nothing of store moves.
    marks = next_steps(step.record, cluster, ACCEPTED_AT, SETTINGS)
    assert [mark.node for mark in marks if isinstance(mark, MarkNode)] == ["old", "first", "second"]
    after = next_steps(step.record, all_marked(step.record, cluster), ACCEPTED_AT, SETTINGS)
    assert [step.node for step in after if isinstance(step, MarkNode)] == ["second"]
    assert not any(isinstance(step, EvictPod) for step in after)


def test_new_nodes_are_not_exchanged_once_a_roll_out_towards_them_has_begun() -> None:
    record, cluster = gone_ahead(second="zone-a")
    begun = tuple(replace(w, template_annotations={keys.ITERATION: IT}) for w in cluster.workloads)
    steps = next_steps(record, replace(cluster, workloads=begun), ACCEPTED_AT, SETTINGS)
    assert not any(isinstance(step, SavePlan) for step in steps)


def test_a_pod_that_came_after_the_plan_is_not_sent_on() -> None:
    record, cluster = gone_ahead(created_at=ACCEPTED_AT + 1)
    openings = next_steps(record, cluster, ACCEPTED_AT, SETTINGS)
    assert [step.node for step in openings if isinstance(step, MarkNode)] == ["first"]


def test_a_pod_more_than_the_plan_knew_of_stays_where_it_came_to() -> None:
    web = deployment("web", 3)
    record = record_of(
        [planned_node("a", "keep", {web.key: 1}), planned_node("b", "keep", {web.key: 1})],
        {web.key: moved(web, 0, "stay")},
    )
    cluster = snapshot([pool_node("a"), pool_node("b")], [web], pods_of(web, {"a": 2, "b": 1}))
    [end] = next_steps(record, all_marked(record, cluster), ACCEPTED_AT, SETTINGS)
    assert end == SavePlan(replace(record, phase="done", reason=CARRIED_OUT))


def test_a_target_is_opened_for_a_pending_pod_of_a_workload_of_which_others_are_evicted() -> None:
    # 1 of 3 is pending: none of the others may be evicted (a StatefulSet moves one by one) before it has come.
    store = deployment("store", 3, kind="StatefulSet")
    record = record_of(
        [planned_node("old", "remove"), planned_node("new", "boot", {store.key: 3})],
        {store.key: moved(store, 2, "evict")},
    )
    pods = pods_of(store, {"old": 2}, pending=1)
    cluster = snapshot([pool_node("old"), pool_node("new")], [store], pods, instances=running("old", "new"))
    [opening] = next_steps(record, all_marked(record, cluster), ACCEPTED_AT, SETTINGS)
    assert isinstance(opening, MarkNode)
    text = opening.annotations[keys.PLACEMENT]
    assert text is not None
    assert [target.want for target in keys.decode_placement(text).targets] == [1]


def test_a_disruption_budget_without_slack_stops_evictions() -> None:
    record, cluster = evicting(replicas=3, ready=3)
    selector = LabelSelector((Requirement("app", "In", ("store",)),))
    budget = DisruptionBudget("default", "store", selector, desired_healthy=3, disruptions_allowed=0)
    steps = next_steps(record, replace(cluster, budgets=(budget,)), ACCEPTED_AT, SETTINGS)
    assert not any(isinstance(step, EvictPod) for step in steps)


def test_workloads_under_one_budget_do_not_take_down_more_pods_together_than_it_allows() -> None:
    # 2 + 2 pods of which 3 must stay healthy: each may have 1 unavailable, both at once would be 2.
    a, b = (deployment(name, 2, max_unavailable=1, max_surge=1) for name in ("a", "b"))
    pods = [replace(p, labels={"tier": "web"}) for w in (a, b) for p in pods_of(w, {"old": 2})]
    selector = LabelSelector((Requirement("tier", "In", ("web",)),))
    budget = DisruptionBudget("default", "web", selector, desired_healthy=3, disruptions_allowed=1)
    nodes = [planned_node("old", "remove"), planned_node("new", "boot", {a.key: 2, b.key: 2})]
    cluster = snapshot([pool_node("old"), pool_node("new")], [a, b], pods, instances=running("old", "new"))
    cluster = replace(cluster, budgets=(budget,))

    def begun(strategies: Mapping[str, Strategy], cluster: Snapshot) -> list[str]:
        record = record_of(nodes, {w.key: moved(w, 2, strategies[w.key]) for w in (a, b)})
        steps = next_steps(record, all_marked(record, cluster), ACCEPTED_AT, SETTINGS)
        return [step.workload for step in steps if isinstance(step, RollOut)]

    assert begun({a.key: "rollout", b.key: "rollout"}, cluster) == [a.key]
    # While a rolls out, b waits, also where all pods are ready at this moment.
    rolling = replace(a, template_annotations={keys.ITERATION: IT})
    assert begun({a.key: "rollout", b.key: "rollout"}, replace(cluster, workloads=(rolling, b))) == []
    # A pod that surges is none to spare: 5 are ready, and a may fall to 1 beside the 2 of b.
    surging = replace(pods[0], name="a-new", uid="a-new", node="new", annotations={keys.ITERATION: IT})
    surged = replace(cluster, workloads=(rolling, b), pods=(*pods, surging))
    assert begun({a.key: "rollout", b.key: "rollout"}, surged) == []
    # So it does while a pod of a is away.
    away = replace(cluster, pods=(replace(pods[0], ready=False), *pods[1:]))
    assert begun({a.key: "evict", b.key: "rollout"}, away) == []
    # Once a has rolled out, b may.
    over = [replace(p, node="new", annotations={keys.ITERATION: IT}) if p.workload == a.key else p for p in pods]
    rolled = replace(cluster, workloads=(rolling, b), pods=tuple(over))
    assert begun({a.key: "rollout", b.key: "rollout"}, rolled) == [b.key]


def test_a_pod_made_after_the_plan_is_not_evicted_again_where_steering_is_not_exact() -> None:
    store = deployment("store", 2, kind="StatefulSet")
    record = record_of(
        [planned_node("a", "keep", {store.key: 2}), planned_node("b", "keep")], {store.key: moved(store, 1, "evict")}
    )
    pods = [replace(p, created_at=ACCEPTED_AT + 5) for p in pods_of(store, {"a": 1, "b": 1})]
    cluster = snapshot([pool_node("a"), pool_node("b")], [store], pods, instances=running("a", "b"))
    [step] = next_steps(record, all_marked(record, cluster), ACCEPTED_AT, SETTINGS)
    assert isinstance(step, SavePlan)
    assert step.record.phase == "done"


def removal(**fields: Any) -> tuple[PlanRecord, Snapshot]:
    """A node whose pods have all moved, with only a DaemonSet's pod left on it."""
    agent = daemonset("agent")
    record = record_of([planned_node("old", "remove"), planned_node("new", "keep")], {})
    cluster = snapshot(
        [pool_node("old"), pool_node("new")],
        [],
        [daemonset_pod(agent, "old"), *fields.pop("pods", [])],
        instances=fields.pop("instances", running("old", "new")),
    )
    return record, all_marked(record, cluster)


def test_an_empty_node_is_closed_then_its_machine_deleted_then_its_node() -> None:
    record, cluster = removal()
    [closing] = next_steps(record, cluster, ACCEPTED_AT, SETTINGS)
    assert isinstance(closing, MarkNode)
    assert closing.taint_effect == "NoSchedule"
    closed_node = replace(cluster.nodes[0], taints=(Taint(keys.EXPIRING, IT, "NoSchedule"),))
    closed = replace(cluster, nodes=(closed_node, cluster.nodes[1]))
    assert next_steps(record, closed, ACCEPTED_AT, SETTINGS) == (DeleteInstances("pool-a", "zone-a", ("old",), IT),)
    deleting = replace(closed, instances=(Instance("old", "pool-a", "zone-a", "deleting"), *running("new")))
    assert next_steps(record, deleting, ACCEPTED_AT, SETTINGS) == (Wait(("the machine old is being deleted",)),)
    gone = replace(closed, instances=running("new"))
    assert next_steps(record, gone, ACCEPTED_AT, SETTINGS) == (DeleteNode("old", "uid-old"),)
    [end] = next_steps(record, replace(gone, nodes=(cluster.nodes[1],)), ACCEPTED_AT, SETTINGS)
    assert isinstance(end, SavePlan)
    assert end.record.phase == "done"
    assert next_steps(end.record, cluster, ACCEPTED_AT, SETTINGS) == ()


def test_a_node_with_a_terminating_pod_is_not_deleted() -> None:
    web = deployment("web", 1)
    leaving = [replace(p, deleting=True) for p in pods_of(web, {"old": 1})]
    record, cluster = removal(pods=leaving)
    closed_node = replace(cluster.nodes[0], taints=(Taint(keys.EXPIRING, IT, "NoSchedule"),))
    closed = replace(cluster, nodes=(closed_node, cluster.nodes[1]))
    assert next_steps(record, closed, ACCEPTED_AT, SETTINGS) == (Wait(("old is being drained: 1 pods left",)),)


def test_a_node_that_meanwhile_got_a_pod_that_nobody_may_move_is_spared() -> None:
    job = deployment("batch", 1, kind="Job")
    record, cluster = removal(pods=pods_of(job, {"old": 1}))
    spared = cluster.nodes[0]
    assert spared.labels.get(keys.OPTIMAL) == IT
    assert keys.EXPIRING not in spared.labels
    [end] = next_steps(record, cluster, ACCEPTED_AT, SETTINGS)
    assert isinstance(end, SavePlan)


def test_a_stockout_abandons_the_plan_takes_marks_back_and_deletes_what_was_booted() -> None:
    failed = Instance("new", "pool-a", "zone-a", "failed", "ZONE_RESOURCE_POOL_EXHAUSTED")
    cluster = snapshot([pool_node("old")], [WEB], pods_of(WEB, {"old": 2}), instances=(*running("old"), failed))
    [saved] = next_steps(KEEP_OLD_BOOT_NEW, cluster, ACCEPTED_AT, SETTINGS)
    assert isinstance(saved, SavePlan)
    assert saved.record.phase == "abandoning"
    assert saved.record.reason == "the cloud could not boot new in zone-a: ZONE_RESOURCE_POOL_EXHAUSTED"
    steps = next_steps(saved.record, cluster, ACCEPTED_AT, SETTINGS)
    assert steps == (DeleteInstances("pool-a", "zone-a", ("new",), IT),)
    [end] = next_steps(saved.record, replace(cluster, instances=running("old")), ACCEPTED_AT, SETTINGS)
    assert isinstance(end, SavePlan)
    assert end.record.phase == "done"


def test_a_machine_that_is_not_ready_in_time_abandons_the_plan() -> None:
    cluster = snapshot([pool_node("old"), pool_node("new", ready=False)], instances=running("old", "new"))
    [step] = next_steps(KEEP_OLD_BOOT_NEW, cluster, ACCEPTED_AT + 601, SETTINGS)
    assert isinstance(step, SavePlan)
    assert step.record.reason == "new not Ready after 600 s"


def test_an_abandoned_plan_keeps_new_nodes_that_already_run_pods() -> None:
    record = replace(KEEP_OLD_BOOT_NEW, phase="abandoning", reason="for a test")
    cluster = snapshot(
        [pool_node("old"), pool_node("new", labels={keys.OPTIMAL: IT})],
        [WEB],
        pods_of(WEB, {"new": 2}),
        instances=running("old", "new"),
    )
    [step] = next_steps(record, cluster, ACCEPTED_AT, SETTINGS)
    assert isinstance(step, MarkNode)
    assert (step.node, step.labels, step.taint_value) == ("new", {keys.OPTIMAL: None}, None)


def test_a_stray_is_evicted_only_where_a_planned_node_has_room_for_it() -> None:
    # "new" has 4000 and holds 3000: a stray of 1000 fits, one of 1500 would stay Pending.
    held = deployment("held", 1, cpu=3000)
    for cpu, leaves in ((1000, True), (1500, False)):
        late = deployment("late", 2, cpu=cpu, kind="StatefulSet")
        pods = [*pods_of(held, {"new": 1}), *pods_of(late, {"old": 1, "other": 1})]
        record = record_of(
            [planned_node("old", "remove"), planned_node("new", "keep", {held.key: 1})],
            {held.key: moved(held, 0, "stay")},
        )
        nodes = [pool_node("old"), pool_node("new"), pool_node("other")]
        cluster = all_marked(record, snapshot(nodes, [held, late], pods, instances=running("old", "new", "other")))
        [closing] = next_steps(record, cluster, ACCEPTED_AT, SETTINGS)
        assert isinstance(closing, MarkNode)
        closed_node = replace(cluster.nodes[0], taints=(Taint(keys.EXPIRING, IT, "NoSchedule"),))
        closed = replace(cluster, nodes=(closed_node, *cluster.nodes[1:]))
        [step] = next_steps(record, closed, ACCEPTED_AT, SETTINGS)
        assert isinstance(step, EvictPod) == leaves
        assert leaves or step == Wait(("old is being drained: 1 pods left",))


@pytest.mark.parametrize(
    ("settings", "idle_seconds"),
    [(SETTINGS, 61), (replace(SETTINGS, steering="affinity"), 0)],
    ids=["exact", "affinity"],
)
def test_a_pod_whose_planned_node_is_full_leaves_an_expiring_node_for_another_one(
    settings: MoveSettings, idle_seconds: int
) -> None:
    # The plan wants store on "full" (4000), where a guest of 4000 is by now; "spare" has room.
    store, guest = deployment("store", 2, kind="StatefulSet"), deployment("guest", 1, cpu=4000)
    nodes = [
        planned_node("old", "remove"),
        planned_node("full", "keep", {store.key: 1}),
        planned_node("spare", "keep", {store.key: 1}),
    ]
    record = record_of(nodes, {store.key: moved(store, 1, "evict")})
    pods = [*pods_of(store, {"old": 1, "spare": 1}), *pods_of(guest, {"full": 1})]
    names = ("old", "full", "spare")
    cluster = snapshot([pool_node(n) for n in names], [store, guest], pods, instances=running(*names))
    cluster = all_marked(record, cluster)
    why = f"{store.key}: no planned node has room for its pod store-0"
    assert next_steps(record, cluster, ACCEPTED_AT + 60, SETTINGS) == (Wait((why,)),)
    [closing] = next_steps(record, cluster, ACCEPTED_AT + idle_seconds, settings)
    assert isinstance(closing, MarkNode)
    assert (closing.node, closing.taint_effect) == ("old", "NoSchedule")
    closed_node = replace(cluster.nodes[0], taints=(Taint(keys.EXPIRING, IT, "NoSchedule"),))
    [step] = next_steps(
        record, replace(cluster, nodes=(closed_node, *cluster.nodes[1:])), ACCEPTED_AT + idle_seconds, settings
    )
    assert isinstance(step, EvictPod)
    assert (step.name, step.reason) == ("store-0", "its node expires")


def test_those_behind_go_where_the_one_ahead_waits_for_room_that_only_they_can_make() -> None:
    # ahead (2 x 2000) is wanted on "left" and on "right" (4000 each). left holds a guest (1000) and east (1500), right
    # west (1000): 1500 and 3000 are free, 2000 are asked of each. east is wanted on right and west on left, where
    # 3000 - 2000 and 1500 - 2000 are too little beside what ahead wants; but 1500 <= 3000 and 1000 <= 1500 fit.
    # Then ahead has 4000 - 1000 - 1000 = 2000 on left and 4000 - 1500 = 2500 on right.
    ahead, guest = deployment("ahead", 2, cpu=2000), deployment("guest", 1, cpu=1000)
    east, west = deployment("east", 1, cpu=1500), deployment("west", 1, cpu=1000)
    workloads = [ahead, guest, east, west]
    record = record_of(
        [
            planned_node("left", "keep", {ahead.key: 1, guest.key: 1, west.key: 1}),
            planned_node("right", "keep", {ahead.key: 1, east.key: 1}),
            planned_node("old", "remove"),
        ],
        {
            ahead.key: moved(ahead, 2, stage=0),
            guest.key: moved(guest, 0, "stay"),
            east.key: moved(east, 1, stage=1),
            west.key: moved(west, 1, stage=2),
        },
    )

    def standing(places: Mapping[str, Mapping[str, int]], begun: tuple[str, ...] = ()) -> Snapshot:
        marks = {keys.ITERATION: IT}
        pods = []
        for workload in workloads:
            made_at, notes = (ACCEPTED_AT + 61, marks) if workload.name in begun else (ACCEPTED_AT, {})
            pods += pods_of(workload, places[workload.name], created_at=made_at, annotations=notes)
        rolled = [replace(w, template_annotations=marks) if w.name in begun else w for w in workloads]
        names = ("left", "right", "old")
        cluster = snapshot([pool_node(n) for n in names], rolled, pods, instances=running(*names))
        return all_marked(record, cluster)

    before = {"ahead": {"old": 2}, "guest": {"left": 1}, "east": {"left": 1}, "west": {"right": 1}}
    [waiting] = next_steps(record, standing(before), ACCEPTED_AT + 60, SETTINGS)
    assert isinstance(waiting, Wait)
    assert set(waiting.reasons) == {
        f"{ahead.key}: its new pods do not fit beside the old ones on left",
        f"{east.key}: others go first on right",
        f"{west.key}: others go first on left",
    }
    begun = next_steps(record, standing(before), ACCEPTED_AT + 61, SETTINGS)
    assert begun == (RollOut(east.key, east.uid, IT), RollOut(west.key, west.uid, IT))
    after = {**before, "east": {"right": 1}, "west": {"left": 1}}
    rolled = standing(after, begun=("east", "west"))
    assert next_steps(record, rolled, ACCEPTED_AT + 62, SETTINGS) == (RollOut(ahead.key, ahead.uid, IT),)


def test_a_plan_of_which_nothing_moves_any_more_is_abandoned_with_what_it_waited_for() -> None:
    # The new pods (2 x 2000) have no room on "new" beside what a user put there meanwhile.
    web, guest = deployment("web", 2, cpu=2000), deployment("guest", 1, cpu=1000)
    record = record_of(
        [planned_node("old", "remove"), planned_node("new", "keep", {web.key: 2})], {web.key: moved(web, 2)}
    )
    pods = pods_of(web, {"old": 2}, created_at=ACCEPTED_AT - 50) + pods_of(guest, {"new": 1})
    cluster = snapshot([pool_node("old"), pool_node("new")], [web, guest], pods, instances=running("old", "new"))
    cluster = all_marked(record, cluster)
    why = f"{web.key}: its new pods do not fit beside the old ones on new"
    assert next_steps(record, cluster, ACCEPTED_AT + 300, SETTINGS) == (Wait((why,)),)
    [step] = next_steps(record, cluster, ACCEPTED_AT + 301, SETTINGS)
    assert isinstance(step, SavePlan)
    assert step.record.phase == "abandoning"
    assert step.record.reason == f"nothing has moved for 301 s: {why}"
    # A pod that was made since is progress: the patience starts anew.
    younger = replace(cluster, pods=(replace(pods[0], created_at=ACCEPTED_AT + 100), *pods[1:]))
    assert next_steps(record, younger, ACCEPTED_AT + 301, SETTINGS) == (Wait((why,)),)


def test_a_plan_whose_evictions_do_not_succeed_for_as_long_is_abandoned() -> None:
    # Nothing forbids the eviction, yet for 301 s no pod was made anew: the API server refuses each attempt.
    record, cluster = evicting(replicas=3, ready=3)
    cluster = with_open_target(record, cluster)
    [eviction] = next_steps(record, cluster, ACCEPTED_AT + 300, SETTINGS, acted_at=ACCEPTED_AT)
    assert isinstance(eviction, EvictPod)
    [step] = next_steps(record, cluster, ACCEPTED_AT + 301, SETTINGS, acted_at=ACCEPTED_AT)
    assert isinstance(step, SavePlan)
    refused = f"{eviction.namespace}/{eviction.name} could not be evicted"
    assert (step.record.phase, step.record.reason) == ("abandoning", f"nothing has moved for 301 s: {refused}")
    # A planner that was away for as long, or one that has just done something, has yet to try.
    assert next_steps(record, cluster, ACCEPTED_AT + 301, SETTINGS, acted_at=ACCEPTED_AT + 1) == (eviction,)


def test_resources_of_a_plan_are_never_negative_in_the_headroom() -> None:
    fat = replace(daemonset("fat"), requests=Resources(cpu_millicores=9000, pods=1))
    cluster = snapshot([pool_node("old"), pool_node("new")], [WEB], pods_of(WEB, {"old": 2}), daemonsets=(fat,))
    new = marked(cluster.nodes[1], KEEP_OLD_BOOT_NEW, cluster)
    assert keys.decode_placement(new.annotations[keys.PLACEMENT]).headroom["cpu_millicores"] == 0
