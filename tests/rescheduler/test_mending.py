"""Pods that came astray are moved once more, when all else is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from planner import labels as keys
from planner.model.cluster import Pod, Snapshot
from planner.model.plan import EvictPod, Mending, PlanRecord, SavePlan, Wait
from planner.rescheduler import CARRIED_OUT, next_steps
from tests.building import deployment, pods_of, resources, snapshot
from tests.rescheduler.test_steps import (
    ACCEPTED_AT,
    IT,
    SETTINGS,
    all_marked,
    moved,
    planned_node,
    pool_node,
    record_of,
)

ROLLED_AT = ACCEPTED_AT + 100
NOW = ROLLED_AT + 10

WEB = deployment("web", 4, max_surge=1, max_unavailable=1, template_annotations={keys.ITERATION: IT})
RECORD = record_of(
    [planned_node("a", "keep", {WEB.key: 3}), planned_node("b", "keep", {WEB.key: 1})], {WEB.key: moved(WEB, 4)}
)


def cluster(on: Mapping[str, int], record: PlanRecord = RECORD, **fields: Any) -> Snapshot:
    """Return the cluster after the roll-out, with so many of its pods on each node."""
    pods = pods_of(WEB, on, annotations={keys.ITERATION: IT}, **{"created_at": ROLLED_AT, **fields})
    return all_marked(record, snapshot([pool_node("a"), pool_node("b")], [WEB], pods))


def steps(record: PlanRecord, found: Snapshot, now: float = NOW, **settings: Any) -> tuple[Any, ...]:
    return next_steps(record, found, now, replace(SETTINGS, **{"steering": "extender", **settings}))


DONE = (SavePlan(replace(RECORD, phase="done", reason=CARRIED_OUT)),)
MENDING = replace(RECORD, mending=Mending(began_at=NOW, made_until=ROLLED_AT))


def test_a_pod_that_came_astray_is_moved_once_more_and_then_stays() -> None:
    # One of four, a quarter, is on b and belongs on a.
    found = cluster({"a": 2, "b": 2})
    assert steps(RECORD, found) == (SavePlan(MENDING),)
    [step] = steps(MENDING, found)
    assert isinstance(step, EvictPod)
    assert (step.node, step.reason) == ("b", "it came astray: the plan puts it on a")
    # It is gone, and made anew.
    waiting = replace(found, pods=tuple(p for p in found.pods if p.name != step.name))
    assert isinstance(steps(MENDING, waiting)[0], Wait)
    [again] = pods_of(WEB, {"b": 1}, annotations={keys.ITERATION: IT}, created_at=NOW)
    back = replace(waiting, pods=(*waiting.pods, replace(again, name="again", uid="again")))
    assert steps(MENDING, back) == (SavePlan(replace(MENDING, phase="done", reason=CARRIED_OUT)),)


def test_where_more_than_a_quarter_is_astray_nothing_steers_and_nothing_is_mended() -> None:
    assert steps(RECORD, cluster({"a": 1, "b": 3})) == DONE


@pytest.mark.parametrize("settings", [{"steering": "affinity"}, {"publish_placement": False}])
def test_without_an_exact_steering_nothing_is_mended(settings: Mapping[str, Any]) -> None:
    found = cluster({"a": 2, "b": 2})
    if settings.get("publish_placement") is False:
        bare = tuple(replace(n, annotations={}) for n in found.nodes)
        found = replace(found, nodes=bare)
    assert steps(RECORD, found, **settings) == DONE


def test_pods_of_another_scheduler_than_the_steered_one_are_not_mended() -> None:
    assert steps(RECORD, cluster({"a": 2, "b": 2}), steering="scheduler", scheduler_name="kinema-scheduler") == DONE


def test_after_the_plan_has_expired_nothing_is_mended() -> None:
    short = {"plan_ttl_seconds": 60.0}
    record = RECORD
    pods = pods_of(WEB, {"a": 2, "b": 2}, annotations={keys.ITERATION: IT}, created_at=ROLLED_AT)
    found = snapshot([pool_node("a"), pool_node("b")], [WEB], pods)
    for step in next_steps(record, found, ACCEPTED_AT, replace(SETTINGS, steering="extender", **short)):
        labels = {k: v for k, v in step.labels.items() if v is not None}
        notes = {k: v for k, v in step.annotations.items() if v is not None}
        nodes = tuple(
            replace(n, labels={**n.labels, **labels}, annotations=notes) if n.name == step.node else n
            for n in found.nodes
        )
        found = replace(found, nodes=nodes)
    assert steps(record, found, **short) == DONE


def test_a_pod_stays_astray_where_its_planned_node_has_no_room_any_more() -> None:
    # a has 4000m; two pods of web and a guest of 2600m leave 400m, and the next of web needs 500m.
    guest = deployment("guest", 1, requests=resources(2600, 1, 1))
    found = cluster({"a": 2, "b": 2})
    crowded = replace(found, workloads=(*found.workloads, guest), pods=(*found.pods, *pods_of(guest, {"a": 1})))
    assert steps(RECORD, crowded) == DONE


def test_a_pod_stays_astray_where_no_pod_of_its_workload_may_be_unavailable() -> None:
    strict = replace(WEB, max_unavailable=0)
    found = cluster({"a": 2, "b": 2})
    assert steps(RECORD, replace(found, workloads=(strict,))) == DONE


def test_mending_begins_however_long_ago_the_last_pod_was_made() -> None:
    # A hundred nodes were removed since.
    found, late = cluster({"a": 2, "b": 2}), ROLLED_AT + 290
    [begun] = steps(RECORD, found, now=late)
    assert begun == SavePlan(replace(RECORD, mending=Mending(began_at=late, made_until=ROLLED_AT)))
    assert isinstance(steps(begun.record, found, now=late + 5)[0], EvictPod)


def test_evictions_that_are_refused_for_a_minute_end_the_mending() -> None:
    found = cluster({"a": 2, "b": 2})
    assert isinstance(steps(MENDING, found, now=NOW + 60)[0], EvictPod)
    assert steps(MENDING, found, now=NOW + 61)[0].record.phase == "done"


def test_pods_beyond_the_plan_are_no_reason_to_mend() -> None:
    grown = replace(WEB, replicas=6)
    found = replace(cluster({"a": 3, "b": 3}), workloads=(grown,))
    assert steps(RECORD, found) == DONE


def test_what_was_evicted_and_came_astray_is_mended_too() -> None:
    store = deployment("store", 4, kind="StatefulSet")
    record = record_of(
        [planned_node("a", "keep", {store.key: 3}), planned_node("b", "keep", {store.key: 1})],
        {store.key: moved(store, 4, "evict")},
    )

    def standing(on: Mapping[str, int]) -> list[Pod]:
        return pods_of(store, on, created_at=ROLLED_AT)

    # All targets were open once, as they are where every pod has come to its place.
    complete = all_marked(record, snapshot([pool_node("a"), pool_node("b")], [store], standing({"a": 3, "b": 1})))
    found = replace(complete, pods=tuple(standing({"a": 2, "b": 2})))
    begun = replace(record, mending=Mending(began_at=NOW, made_until=ROLLED_AT))
    assert steps(record, found) == (SavePlan(begun),)
    [step] = steps(begun, found)
    assert (step.workload, step.node) == (store.key, "b")
