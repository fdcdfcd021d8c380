"""Plans that the verifier has checked, a cluster to plan, and the cluster that a plan leads to."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

from planner.model.cluster import HOSTNAME, Node, Snapshot
from planner.model.effort import Effort, Watch
from planner.model.inputs import PlanningInputs
from planner.model.plan import Plan
from planner.optimizer import optimize
from planner.verifier import verify
from tests.building import (
    catalogue,
    daemonset,
    daemonset_pod,
    deployment,
    inputs,
    node,
    offering,
    pod,
    pods_of,
    snapshot,
)


def planned(given: PlanningInputs, solver: str = "HIGHS", target_gap: float = 0.0005) -> Plan:
    """Plan, and have the plan checked by the verifier before a test looks at it."""
    ticks = itertools.count()
    watch = Watch(now=lambda: next(ticks) * 1e-4, report=lambda progress: None)
    plan = optimize(given, Effort(solver=solver, target_gap=target_gap), watch)
    assert verify(plan, given, 60.0, lambda: 0.0).problems == ()
    assert plan.objective.lower_bound_nanousd_per_hour <= plan.objective.value_nanousd_per_hour
    return plan


def mixed_cluster(seed: int) -> PlanningInputs:
    """Return eight badly packed nodes of three zones with five workloads and a DaemonSet."""
    chance = random.Random(seed)
    nodes = [node(f"n{i}", zone=f"zone-{'abc'[i % 3]}") for i in range(8)]
    sizes = [(250, 0.5), (500, 1), (500, 2), (1000, 2), (1500, 3)]
    agent = daemonset("agent", cpu=100)
    workloads = []
    pods = [daemonset_pod(agent, n.name) for n in nodes]
    for i, (cpu, memory_gib) in enumerate(sizes):
        kind = chance.choice(["Deployment", "StatefulSet"])
        load = deployment(f"w{i}", 4, cpu, memory_gib, kind=kind)
        workloads.append(load)
        # At most one pod of each workload on a node: 3.75 CPU of 3.9.
        spots = chance.sample(nodes, 4)
        pods += pods_of(load, {n.name: 1 for n in spots})
    offers = catalogue(
        *(offering("m4", 0.2, zone=f"zone-{z}") for z in "abc"),
        *(offering("m8", 0.38, 8000, 32, zone=f"zone-{z}") for z in "abc"),
    )
    return inputs(snapshot(nodes, workloads, pods, daemonsets=(agent,)), offers)


def after(plan: Plan, given: PlanningInputs) -> Snapshot:
    """Return the cluster as the plan wants it."""
    old = {n.name: n for n in given.snapshot.nodes}
    offers = {(o.pool, o.zone, o.machine_type): o for o in given.catalogue.offerings}
    workloads = {w.key: w for w in given.snapshot.workloads}
    like = {p.workload: {"wishes": p.wishes, "company": p.company} for p in given.snapshot.pods}
    nodes, pods = [], []
    count = itertools.count()
    for planned_node in plan.nodes:
        if planned_node.state == "remove":
            continue
        name = planned_node.name
        if planned_node.state == "keep":
            nodes.append(old[name])
        else:
            kind = offers[planned_node.pool, planned_node.zone, planned_node.machine_type]
            labels = dict(kind.labels) | {HOSTNAME: name}
            nodes.append(Node(name, f"uid-{name}", labels, {}, kind.taints, kind.allocatable))
        pods += [daemonset_pod(d, name) for d in given.snapshot.daemonsets]
        for key, number in planned_node.pods.items():
            pods += [pod(workloads[key], next(count), on=name, **like[key]) for _ in range(number)]
    return replace(given.snapshot, nodes=tuple(nodes), pods=tuple(pods))
