"""The judge of generated clusters sees what it is there to see; needs no control plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from planner import labels as keys
from planner.model.plan import Unplaced
from tests.building import deployment
from tests.controlplane.judgement import Judgement, Owners, leasts
from tests.rescheduler.test_steps import IT, moved, planned_node, record_of

WEB = deployment("web", 2)
STORE = deployment("store", 1, kind="StatefulSet")
PLAN = record_of(
    [planned_node("a", "keep", {WEB.key: 2}), planned_node("b", "boot", {STORE.key: 1}), planned_node("c", "remove")],
    {WEB.key: moved(WEB, 2), STORE.key: moved(STORE, 1, "evict")},
).plan
REPLICASETS = [{"metadata": {"uid": "rs", "ownerReferences": [{"uid": "web", "kind": "Deployment", "name": "web"}]}}]


def a_node(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {keys.OPTIMAL: IT, **labels}}, "spec": {}}


def a_pod(name: str, node: str | None, ready: bool = True) -> dict[str, Any]:
    """Return a pod of web, or of store where its name says so."""
    app = name.partition("-")[0]
    kind, owner, uid = ("ReplicaSet", "web-1", "rs") if app == "web" else ("StatefulSet", app, app)
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": name,
            "labels": {"app": app},
            "ownerReferences": [{"kind": kind, "name": owner, "uid": uid}],
        },
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


PODS = (a_pod("web-0", "a"), a_pod("web-1", "a"), a_pod("store-0", "b"))
AS_PLANNED = Judgement(
    PLAN, (a_node("a"), a_node("b")), PODS, Owners(REPLICASETS), dict.fromkeys(("a", "b"), "running")
)


@pytest.mark.parametrize(
    ("changed", "problems"),
    [
        ({}, []),
        (
            {"pods": (a_pod("web-0", "a"), a_pod("web-1", "b"), a_pod("store-0", "b"))},
            [f"1 pods of {WEB.key} are missing on a", f"1 pods of {WEB.key} are on b, unplanned"],
        ),
        (
            {"pods": (*PODS[:2], a_pod("store-0", None))},
            [f"1 pods of {STORE.key} are missing on b", f"1 pods of {STORE.key} are Pending"],
        ),
        ({"pods": (*PODS[:2], a_pod("store-0", "b", ready=False))}, ["store-0 is not ready"]),
        ({"nodes": (a_node("a"),)}, ["nodes: [] too many, ['b'] missing"]),
        (
            {"nodes": (a_node("a"), a_node("b", **{keys.EXPIRING: IT}))},
            [f"b has the labels {{'{keys.OPTIMAL}': '{IT}', '{keys.EXPIRING}': '{IT}'}} and taints [] in the end"],
        ),
        (
            {"machines": {"a": "running", "b": "deleting"}},
            ["machines: {'a': 'running', 'b': 'deleting'}, planned ['a', 'b']"],
        ),
    ],
)
def test_each_difference_from_the_plan_is_a_problem(changed: Mapping[str, Any], problems: list[str]) -> None:
    assert list(replace(AS_PLANNED, **changed).problems()) == problems


def test_a_pod_without_a_place_in_the_plan_may_wait_or_stand_anywhere() -> None:
    plan = replace(PLAN, unplaced={WEB.key: Unplaced(1, "no room")})
    for node in (None, "b"):
        assert list(replace(AS_PLANNED, plan=plan, pods=(*PODS, a_pod("web-2", node))).problems()) == []
    two = (*PODS, a_pod("web-2", None), a_pod("web-3", None))
    assert list(replace(AS_PLANNED, plan=plan, pods=two).problems()) == [f"1 pods of {WEB.key} are Pending"]


def test_as_many_pods_must_stay_ready_as_budget_strategy_and_ceiling_say() -> None:
    selector = {"matchLabels": {"app": "web"}}
    pods = [a_pod(f"web-{number}", "a") | {"kind": "Pod"} for number in range(8)]
    bounds = {"maxSurge": "25%", "maxUnavailable": "50%"}
    web = {
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 8,
            "selector": selector,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": bounds},
        },
    }
    budget = {
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": selector},
        "status": {"desiredHealthy": 7},
    }

    def ready(ceiling: float, *unready: int) -> list[int]:
        found = [
            a_pod(f"web-{n}", "a", ready=False) | {"kind": "Pod"} if n in unready else p for n, p in enumerate(pods)
        ]
        return [least.ready for least in leasts({"items": [*found, web, budget]}, ceiling)]

    # The budget: 7. The strategy: 8 - 50 % of 8 = 4; with a ceiling of a quarter: 8 - 2 = 6.
    assert ready(1.0) == [7, 4]
    assert ready(0.25) == [7, 6]
    # What was not ready in the beginning is not asked for: 5 of 8 are.
    assert ready(0.25, 0, 1, 2) == [5, 5]
