"""Whether the cluster stands still enough to plan: an iteration begins only in a stable window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from planner.model.cluster import Pod, Snapshot, Workload
from planner.model.disruption import REMOVAL_TAINTS
from planner.settings import StabilitySettings

_ROLLING = ("Deployment", "StatefulSet")
_READY = ("Deployment", "ReplicaSet", "StatefulSet")


def instabilities(snapshot: Snapshot, settings: StabilitySettings) -> tuple[str, ...]:
    """Return by name what is under way, as reasons not to start an iteration; () for a stable cluster."""
    stuck = Counter(pod.workload for pod in snapshot.pods if _stuck(pod, snapshot, settings))
    reasons = [f"{operation} is under way" for operation in snapshot.operations]
    reasons += _machines(snapshot)
    reasons += _nodes(snapshot)
    for workload in sorted(snapshot.workloads, key=lambda w: w.key):
        reasons += _workload(workload, stuck[workload.key])
    reasons += _autoscalers(snapshot, settings)
    reasons += _pods(snapshot, settings)
    return tuple(reasons)


def _without_room(pod: Pod) -> bool:
    """Say whether the pod waits for room, or for its scheduling gates, rather than for its turn."""
    return pod.unschedulable or "schedulingGates" in pod.unmodelled


def _stuck(pod: Pod, snapshot: Snapshot, settings: StabilitySettings) -> bool:
    """Say whether nothing could hold the pod for longer than the grace: then it is the plan's to place."""
    waiting = pod.live and pod.node is None and _without_room(pod)
    return waiting and snapshot.taken_at - pod.created_at >= settings.pending_grace_seconds


def _machines(snapshot: Snapshot) -> Iterator[str]:
    for instance in sorted(snapshot.instances or (), key=lambda i: (i.pool, i.zone, i.name)):
        if instance.state in ("creating", "deleting"):
            yield f"the cloud is {instance.state} the machine {instance.name} of the pool {instance.pool}"


def _nodes(snapshot: Snapshot) -> Iterator[str]:
    for node in sorted(snapshot.nodes, key=lambda n: n.name):
        marks = [taint.key for taint in node.taints if taint.key in REMOVAL_TAINTS]
        if node.deleting:
            yield f"node {node.name} is being deleted"
        elif not node.ready:
            yield f"node {node.name} is not ready"
        elif marks:
            yield f"node {node.name} is about to be removed by others: taint {marks[0]}"


def _workload(workload: Workload, stuck: int) -> Iterator[str]:
    """Compare a controller's wish with what its status says; pods that nothing can hold do not count against it."""
    if workload.kind not in _READY or not workload.known:
        return
    if not workload.observed:
        yield f"{workload.key}: its controller has not yet seen its newest specification"
        return
    # A paused Deployment and an OnDelete StatefulSet keep old pods for as long as their owner likes.
    rolls = workload.kind in _ROLLING and workload.update != "OnDelete" and not workload.paused
    if rolls and workload.updated_replicas < workload.replicas:
        yield f"{workload.key}: {workload.updated_replicas} of {workload.replicas} replicas are updated"
    elif workload.ready_replicas + stuck < workload.replicas:
        yield f"{workload.key}: {workload.ready_replicas} of {workload.replicas} replicas are ready"


def _autoscalers(snapshot: Snapshot, settings: StabilitySettings) -> Iterator[str]:
    """Find autoscalers that scale now, or will: a metric above threshold x target, with replicas left to add."""
    for autoscaler in sorted(snapshot.autoscalers, key=lambda a: a.key):
        name = f"the autoscaler {autoscaler.key}"
        if autoscaler.desired_replicas != autoscaler.current_replicas:
            yield f"{name} scales from {autoscaler.current_replicas} to {autoscaler.desired_replicas} replicas"
            continue
        if autoscaler.current_replicas >= autoscaler.max_replicas:
            continue
        for metric in autoscaler.utilizations:
            if metric.current_percent > settings.autoscaler_threshold * metric.target_percent:
                yield (
                    f"{name} is about to scale: {metric.metric} is at {metric.current_percent:g} % of the request, "
                    f"the target is {metric.target_percent:g} %"
                )
                break


def _pods(snapshot: Snapshot, settings: StabilitySettings) -> Iterator[str]:
    """Find pods that come or go; unschedulable ones block for the grace only."""
    waiting = [pod for pod in snapshot.pods if pod.live and pod.node is None]
    fresh = [pod for pod in waiting if _without_room(pod) and not _stuck(pod, snapshot, settings)]
    going = [pod for pod in snapshot.pods if pod.deleting and not pod.finished]
    yield from _counted([pod for pod in waiting if not _without_room(pod)], "not yet scheduled")
    yield from _counted(fresh, f"unschedulable for less than {settings.pending_grace_seconds:g} s")
    yield from _counted(going, "being deleted")


def _counted(pods: Iterable[Pod], what: str) -> Iterator[str]:
    for workload, count in sorted(Counter(pod.workload for pod in pods).items()):
        yield f"{workload}: {count} {'pod is' if count == 1 else 'pods are'} {what}"
