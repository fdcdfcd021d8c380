"""An iteration begins only when nothing is under way; what holds for ever must not block for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from planner.model.cluster import Autoscaler, Instance, Snapshot, Utilization
from planner.model.scheduling import Taint
from planner.observer import instabilities
from planner.settings import StabilitySettings
from tests.building import deployment, node, pods_of, snapshot

WEB = "default/Deployment/web"
SETTINGS = StabilitySettings(pending_grace_seconds=300, autoscaler_threshold=1.1)


def stable() -> Snapshot:
    web = deployment("web", 2)
    return snapshot([node("a")], [web], pods_of(web, on={"a": 2}), taken_at=1000.0)


def _node(cluster: Snapshot, **changes: object) -> Snapshot:
    return replace(cluster, nodes=(replace(cluster.nodes[0], **changes),))  # type: ignore[arg-type]  # any field


def _workload(cluster: Snapshot, **changes: object) -> Snapshot:
    return replace(cluster, workloads=(replace(cluster.workloads[0], **changes),))  # type: ignore[arg-type]


def _pod(cluster: Snapshot, **changes: object) -> Snapshot:
    return replace(cluster, pods=(*cluster.pods[:-1], replace(cluster.pods[-1], **changes)))  # type: ignore[arg-type]


def _scaled(current: int, desired: int, percent: float, largest: int = 10) -> Autoscaler:
    metrics = (Utilization("cpu", percent, 80.0),)
    return Autoscaler("default/web", WEB, current, desired, largest, metrics)


UNSTABLE: dict[str, tuple[Callable[[Snapshot], Snapshot], str]] = {
    "operation": (lambda s: replace(s, operations=("the upgrade of pool a",)), "the upgrade of pool a is under way"),
    "machine being created": (
        lambda s: replace(s, instances=(Instance("m-1", "general", "zone-a", "creating"),)),
        "the cloud is creating the machine m-1 of the pool general",
    ),
    "machine being deleted": (
        lambda s: replace(s, instances=(Instance("m-1", "general", "zone-a", "deleting"),)),
        "the cloud is deleting the machine m-1 of the pool general",
    ),
    "node not ready": (lambda s: _node(s, ready=False), "node a is not ready"),
    "node being deleted": (lambda s: _node(s, deleting=True), "node a is being deleted"),
    "node that others remove": (
        lambda s: _node(s, taints=(Taint("ToBeDeletedByClusterAutoscaler", "1", "NoSchedule"),)),
        "node a is about to be removed by others: taint ToBeDeletedByClusterAutoscaler",
    ),
    "specification not yet observed": (
        lambda s: _workload(s, observed=False),
        f"{WEB}: its controller has not yet seen its newest specification",
    ),
    "roll-out under way": (lambda s: _workload(s, updated_replicas=1), f"{WEB}: 1 of 2 replicas are updated"),
    "replica not ready": (lambda s: _workload(s, ready_replicas=1), f"{WEB}: 1 of 2 replicas are ready"),
    "autoscaler at work": (
        lambda s: replace(s, autoscalers=(_scaled(2, 3, 80),)),
        "the autoscaler default/web scales from 2 to 3 replicas",
    ),
    "autoscaler about to work": (
        lambda s: replace(s, autoscalers=(_scaled(2, 2, 88.1),)),  # above 1.1 x 80 = 88
        "the autoscaler default/web is about to scale: cpu is at 88.1 % of the request, the target is 80 %",
    ),
    "pod being scheduled": (
        lambda s: _pod(s, node=None, unschedulable=False, created_at=0.0),
        f"{WEB}: 1 pod is not yet scheduled",
    ),
    "pod unschedulable for a short time": (
        lambda s: _pod(s, node=None, unschedulable=True, created_at=701.0),  # 299 s ago
        f"{WEB}: 1 pod is unschedulable for less than 300 s",
    ),
    "pod being deleted": (lambda s: _pod(s, deleting=True), f"{WEB}: 1 pod is being deleted"),
}


def test_stable_cluster_has_no_reasons() -> None:
    assert instabilities(stable(), SETTINGS) == ()


@pytest.mark.parametrize("case", UNSTABLE)
def test_what_is_under_way_is_named(case: str) -> None:
    change, reason = UNSTABLE[case]
    assert instabilities(change(stable()), SETTINGS) == (reason,)


STABLE: dict[str, Callable[[Snapshot], Snapshot]] = {
    "cordoned node": lambda s: _node(s, unschedulable=True),
    "machine that failed": lambda s: replace(s, instances=(Instance("m-1", "a", "zone-a", "failed", "QUOTA"),)),
    "metric at the threshold": lambda s: replace(s, autoscalers=(_scaled(2, 2, 88.0),)),
    "autoscaler at its maximum": lambda s: replace(s, autoscalers=(_scaled(2, 2, 200, largest=2),)),
    # 1 ready + 1 that nothing can hold since 300 s = 2 replicas.
    "pod unschedulable past the grace": lambda s: _workload(
        _pod(s, node=None, unschedulable=True, ready=False, created_at=700.0), ready_replicas=1
    ),
    "gated pod past the grace": lambda s: _workload(
        _pod(s, node=None, unschedulable=False, unmodelled=("schedulingGates",), created_at=700.0), ready_replicas=1
    ),
    "paused roll-out": lambda s: _workload(s, paused=True, updated_replicas=0),
    "finished pod being deleted": lambda s: _pod(s, deleting=True, phase="Succeeded"),
    "controller that is not known": lambda s: _workload(s, known=False, ready_replicas=0),
}


@pytest.mark.parametrize("case", STABLE)
def test_what_may_last_does_not_block(case: str) -> None:
    changed = STABLE[case](stable())
    assert changed != stable()
    assert instabilities(changed, SETTINGS) == ()


def test_replicaset_has_no_updated_replicas() -> None:
    bare = deployment("bare", 1, kind="ReplicaSet", updated_replicas=0)
    cluster = snapshot([node("a")], [bare], pods_of(bare, on={"a": 1}), taken_at=1000.0)
    assert instabilities(cluster, SETTINGS) == ()
    waiting = replace(cluster, workloads=(replace(bare, ready_replicas=0),))
    assert instabilities(waiting, SETTINGS) == ("default/ReplicaSet/bare: 0 of 1 replicas are ready",)


def test_unready_pod_blocks_although_another_one_is_unschedulable() -> None:
    # 3 replicas: one ready, one nothing can hold, one starting.
    web = deployment("web", 3, ready_replicas=1)
    pods = pods_of(web, on={"a": 2}, pending=1, created_at=0.0)
    assert instabilities(snapshot([node("a")], [web], pods, taken_at=1000.0), SETTINGS) == (
        f"{WEB}: 1 of 3 replicas are ready",
    )
