"""What pods are predicted to use, as one more resource: each pod takes its usage, each node has room up to the cap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from planner.model.cap import CpuCap
from planner.model.cluster import Snapshot
from planner.model.machines import Catalogue
from planner.model.plan import Plan, PlannedNode
from planner.model.resources import Resources


def cap_on(snapshot: Snapshot, permille: int, window: str, measured: Mapping[str, int]) -> CpuCap:
    """Return the cap with what the pods of the snapshot will use; `measured` as in `predicted_usage`."""
    return CpuCap(permille, window, predicted_usage(snapshot, measured))


def predicted_usage(snapshot: Snapshot, measured: Mapping[str, int]) -> dict[str, int]:
    """Return what one pod of each workload will use, in millicores, by workload key.

    `measured` is known of some workloads and is rounded up. For the others it is the largest CPU request of their
    pods; what requests nothing and is not measured counts nothing.
    """
    found = {daemonset.key: daemonset.requests.cpu_millicores for daemonset in snapshot.daemonsets}
    for pod in snapshot.pods:
        if not pod.finished:
            found[pod.workload] = max(found.get(pod.workload, 0), pod.requests.cpu_millicores)
    known = {key: rounded_up(millicores) for key, millicores in measured.items() if key in found}
    return dict(sorted((found | known).items()))


def rounded_up(millicores: int) -> int:
    """Round up to two significant digits, and to 10 at least.

    Pods of different usage are different to the optimizer: so there are at most 90 kinds from one power of ten to the
    next, and usage that wavers by less than that changes no plan. The price is up to 10 % too much.
    """
    if millicores <= 0:
        return 0
    step: int = max(10, 10 ** (len(str(millicores)) - 2))
    return -(-millicores // step) * step


def under_cap(snapshot: Snapshot, catalogue: Catalogue, cap: CpuCap) -> tuple[Snapshot, Catalogue]:
    """Return both with the predicted CPU among the amounts: requested by pods, and to be had on nodes up to the cap."""

    @cache
    def using(requests: Resources, millicores: int) -> Resources:
        return requests.with_predicted_cpu(millicores)

    usage = cap.usage_millicores
    nodes = []
    for node in snapshot.nodes:
        limit = cap.limit_millicores(node.name, node.allocatable.cpu_millicores)
        nodes.append(replace(node, allocatable=node.allocatable.with_predicted_cpu(limit)))
    pods = tuple(replace(p, requests=using(p.requests, usage.get(p.workload, 0))) for p in snapshot.pods)
    daemonsets = tuple(replace(d, requests=using(d.requests, usage.get(d.key, 0))) for d in snapshot.daemonsets)
    offerings = []
    for offering in catalogue.offerings:
        room = cap.room_millicores(offering.allocatable.cpu_millicores)
        offerings.append(replace(offering, allocatable=offering.allocatable.with_predicted_cpu(room)))
    return (
        replace(snapshot, nodes=tuple(nodes), pods=pods, daemonsets=daemonsets),
        replace(catalogue, offerings=tuple(offerings)),
    )


def holding(node: PlannedNode, pods: Mapping[str, int], cap: CpuCap | None) -> PlannedNode:
    """Return the node with these pods by workload instead, and what they will use."""
    changed = replace(node, pods=pods)
    if cap is None or node.predicted_cpu_millicores is None:
        return changed
    usage = cap.usage_millicores
    more = sum((pods.get(key, 0) - node.pods.get(key, 0)) * usage.get(key, 0) for key in pods.keys() | node.pods.keys())
    return replace(changed, predicted_cpu_millicores=node.predicted_cpu_millicores + more)


def excess_millicores(plan: Plan, *, allowed: bool) -> int:
    """Return what the nodes of the plan will use beyond the cap, or beyond what each is `allowed`; 0 without a cap.

    Frozen nodes are no part of the plan.
    """
    cap = plan.objective.cap
    if cap is None:
        return 0
    total = 0
    for node in plan.nodes:
        cpu = node.allocatable.cpu_millicores
        limit = cap.limit_millicores(node.name, cpu) if allowed else cap.room_millicores(cpu)
        total += 0 if node.frozen else max(0, (node.predicted_cpu_millicores or 0) - limit)
    return total
