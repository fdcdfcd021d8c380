"""Small clusters for tests, said in few words: CPU in millicores, memory in GiB, prices in USD per hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from planner.model.cluster import (
    ARCH,
    HOSTNAME,
    INSTANCE_TYPE,
    NODE_POOL,
    ZONE,
    Container,
    DaemonSet,
    Node,
    Pod,
    Snapshot,
    Workload,
)
from planner.model.inputs import PlanningInputs
from planner.model.machines import Catalogue, MachineType, Offering
from planner.model.resources import Resources
from planner.model.scheduling import NodeConstraints, Taint
from planner.model.utilization import cap_on

GIB = 1024**3


def resources(cpu: int = 0, memory_gib: float = 0, pods: int = 0, **extended: int) -> Resources:
    """Return amounts: CPU in millicores, memory in GiB."""
    return Resources.from_amounts(
        {"cpu_millicores": cpu, "memory_bytes": int(memory_gib * GIB), "pods": pods, **extended}
    )


def nanousd(usd: float) -> int:
    """Return a price in nanodollars."""
    return round(usd * 10**9)


def node(
    name: str,
    machine_type: str = "m4",
    cpu: int = 4000,
    memory_gib: float = 16,
    *,
    pods: int = 110,
    zone: str = "zone-a",
    pool: str = "",
    labels: Mapping[str, str] | None = None,
    **fields: Any,
) -> Node:
    """Return a ready node; further fields (taints, annotations, ready, unschedulable, …) are those of Node."""
    own = {INSTANCE_TYPE: machine_type, ZONE: zone, ARCH: "amd64", HOSTNAME: name}
    own |= {NODE_POOL: pool} if pool else {}
    return Node(
        name=name,
        uid=f"uid-{name}",
        labels=own | dict(labels or {}),
        annotations=fields.pop("annotations", {}),
        taints=fields.pop("taints", ()),
        allocatable=fields.pop("allocatable", resources(cpu, memory_gib, pods)),
        **fields,
    )


def deployment(
    name: str,
    replicas: int,
    cpu: int = 500,
    memory_gib: float = 1,
    *,
    kind: str = "Deployment",
    namespace: str = "default",
    **fields: Any,
) -> Workload:
    """Return a workload of identical pods, by default a Deployment that surges by one and rolls freely."""
    requests = fields.pop("requests", resources(cpu, memory_gib, 1))
    surge = {"max_surge": 1, "max_unavailable": 0} if kind == "Deployment" else {}
    return Workload(
        key=f"{namespace}/{kind}/{name}",
        uid=f"uid-{name}",
        replicas=replicas,
        ready_replicas=fields.pop("ready_replicas", replicas),
        updated_replicas=fields.pop("updated_replicas", replicas),
        requests=requests,
        containers=fields.pop(
            "containers", (Container("main", Resources(requests.cpu_millicores, requests.memory_bytes)),)
        ),
        **(surge | fields),
    )


def pod(workload: Workload, index: int | str, on: str | None = None, **fields: Any) -> Pod:
    """Return one pod of the workload, running and ready on a node, or pending without one."""
    return Pod(
        namespace=workload.namespace,
        name=fields.pop("name", f"{workload.name}-{index}"),
        uid=fields.pop("uid", f"uid-{workload.name}-{index}"),
        workload=workload.key,
        workload_uid=workload.uid,
        requests=fields.pop("requests", workload.requests),
        constraints=fields.pop("constraints", workload.constraints),
        labels=fields.pop("labels", {"app": workload.name}),
        node=on,
        phase=fields.pop("phase", "Pending" if on is None else "Running"),
        ready=fields.pop("ready", on is not None),
        unschedulable=fields.pop("unschedulable", on is None),
        **fields,
    )


def pods_of(workload: Workload, on: Mapping[str, int] | None = None, pending: int = 0, **fields: Any) -> list[Pod]:
    """Return the workload's pods: so many on each node, and so many pending."""
    spots: list[str | None] = [name for name, count in (on or {}).items() for _ in range(count)]
    return [pod(workload, i, on=spot, **fields) for i, spot in enumerate(spots + [None] * pending)]


def daemonset(
    name: str, cpu: int = 100, memory_gib: float = 0.125, constraints: NodeConstraints | None = None
) -> DaemonSet:
    """Return a DaemonSet that takes this much on each node that it selects."""
    return DaemonSet(
        key=f"kube-system/DaemonSet/{name}",
        uid=f"uid-{name}",
        requests=resources(cpu, memory_gib, 1),
        constraints=constraints or NodeConstraints(),
    )


def daemonset_pod(owner: DaemonSet, on: str, **fields: Any) -> Pod:
    """Return the running pod of a DaemonSet on one node."""
    name = f"{owner.key.split('/')[2]}-{on}"
    return Pod(
        namespace="kube-system",
        name=name,
        uid=f"uid-{name}",
        workload=owner.key,
        workload_uid=owner.uid,
        requests=owner.requests,
        constraints=owner.constraints,
        node=on,
        phase="Running",
        ready=True,
        **fields,
    )


def offering(
    machine_type: str = "m4",
    price_usd: float = 0.2,
    cpu: int = 4000,
    memory_gib: float = 16,
    *,
    pods: int = 110,
    pool: str = "",
    zone: str = "zone-a",
    labels: Mapping[str, str] | None = None,
    taints: tuple[Taint, ...] = (),
    **fields: Any,
) -> Offering:
    """Return a kind of node that can be booted; without a pool's name the pool is the machine type."""
    own = {INSTANCE_TYPE: machine_type, ZONE: zone, ARCH: "amd64"}
    own |= {NODE_POOL: pool} if pool else {}
    return Offering(
        pool=pool or machine_type,
        zone=zone,
        machine_type=machine_type,
        capacity_type=fields.pop("capacity_type", "on-demand"),
        price_nanousd_per_hour=nanousd(price_usd),
        allocatable=fields.pop("allocatable", resources(cpu, memory_gib, pods)),
        labels=own | dict(labels or {}),
        taints=taints,
        **fields,
    )


def catalogue(*offerings: Offering, managed_pools: frozenset[str] | None = None) -> Catalogue:
    """Return a catalogue of the offerings, which also prices the nodes of their machine types."""
    machines = {
        o.machine_type: MachineType(o.machine_type, o.allocatable, o.price_nanousd_per_hour)
        for o in offerings
        if o.capacity_type == "on-demand"
    }
    return Catalogue(machines=machines, offerings=tuple(offerings), managed_pools=managed_pools)


def snapshot(
    nodes: Sequence[Node] = (),
    workloads: Sequence[Workload] = (),
    pods: Sequence[Pod] = (),
    **fields: Any,
) -> Snapshot:
    """Return a snapshot; further fields (daemonsets, budgets, instances, …) are those of Snapshot."""
    return Snapshot(nodes=tuple(nodes), workloads=tuple(workloads), pods=tuple(pods), **fields)


def inputs(cluster: Snapshot, offers: Catalogue, **fields: Any) -> PlanningInputs:
    """Return what a plan is made from; further fields (prices, rules, forecast, …) are those of PlanningInputs."""
    return PlanningInputs(snapshot=cluster, catalogue=offers, iteration=fields.pop("iteration", "it-1"), **fields)


def capped(given: PlanningInputs, permille: int, **usage_millicores: int) -> PlanningInputs:
    """Return the inputs under a cap on predicted CPU; a workload of no said usage uses its CPU request."""
    keys = {key.split("/")[2]: key for key in (p.workload for p in given.snapshot.pods)}
    measured = {keys[name]: millicores for name, millicores in usage_millicores.items()}
    return replace(given, cap=cap_on(given.snapshot, permille, "office hours", measured))
