"""A small cluster and the right plan for it, to break in one place at a time.

node a (m4): web web        removed
node b (m4): web            removed
node k (m4): solo           kept: solo is a bare pod; receives web web web
node f (m4): web            frozen: cordoned
huge (6 CPU, pending)       a new m8
mammoth (64 CPU, pending)   fits nowhere
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from planner.model.inputs import PlanningInputs
from planner.model.plan import (
    Certificate,
    CertificateClass,
    CertificateGroup,
    CertificateRow,
    Objective,
    Plan,
    PlannedNode,
    PlannedWorkload,
    Unplaced,
)
from tests.building import catalogue, daemonset, deployment, inputs, node, offering, pod, pods_of, resources, snapshot

M4_NANOUSD, M8_NANOUSD = 200_000_000, 350_000_000
MOVE_NANOUSD = 1_000_000 // 24
EXIT_NANOUSD = M4_NANOUSD * 15 // (60 * 24)
"""What removing an m4 costs: 15 minutes of its price, spread over 24 hours."""

WEB, HUGE, MAMMOTH, SOLO = (
    "default/Deployment/web",
    "default/Deployment/huge",
    "default/Deployment/mammoth",
    "default/Pod/solo",
)


def right_inputs() -> PlanningInputs:
    web = deployment("web", 4, max_unavailable=1)
    huge = deployment("huge", 1, cpu=6000, memory_gib=4)
    mammoth = deployment("mammoth", 1, cpu=64000, memory_gib=4)
    solo = deployment("solo", 1, kind="Pod")
    agent = daemonset("agent", cpu=100)
    cluster = snapshot(
        nodes=[
            node("a", pool="general"),
            node("b", pool="general"),
            node("k", pool="general"),
            node("f", pool="general", unschedulable=True),
        ],
        workloads=[web, huge, mammoth],
        pods=[
            *pods_of(web, on={"a": 2, "b": 1, "f": 1}),
            *pods_of(huge, pending=1),
            *pods_of(mammoth, pending=1),
            pod(solo, "x", on="k", name="solo"),
        ],
        daemonsets=(agent,),
    )
    offers = catalogue(
        offering("m4", 0.2, pool="general", minimum=1, maximum=4),
        offering("m8", 0.35, cpu=8000, memory_gib=32, pool="big"),
        managed_pools=frozenset({"general", "big"}),
    )
    return inputs(cluster, offers)


def planned(name: str, state: Any, pods: dict[str, int], **fields: Any) -> PlannedNode:
    return PlannedNode(
        name=name,
        state=state,
        pool=fields.pop("pool", "general"),
        machine_type=fields.pop("machine_type", "m4"),
        zone="zone-a",
        capacity_type="on-demand",
        price_nanousd_per_hour=fields.pop("price", M4_NANOUSD),
        allocatable=fields.pop("allocatable", resources(4000, 16, 110)),
        pods=pods,
        **fields,
    )


def workload(name: str, replicas: int, strategy: Any, moves: int, cpu: int, memory_gib: int) -> PlannedWorkload:
    requests = resources(cpu, memory_gib, 1)
    return PlannedWorkload(f"uid-{name}", replicas, requests, requests, strategy, moves)


def right_plan() -> Plan:
    """Three moves and two removed m4; value 754,291,666 and bound 754,291,664 nanodollars per hour.

    Prices: a web pod is worth its move (k must stay, so it costs nothing more), huge the m8 and its arrival, and
    the row of k pays for k. Then no class has V > c, and
    bound = f 200,000,000 + exits 2 x 2,083,333 - one placed pending pod 41,666
            + web 3 x 41,666 + huge 350,041,666 + row 200,000,000.
    """
    return Plan(
        iteration="it-1",
        objective=Objective(
            name="cost",
            nodes_nanousd_per_hour=2 * M4_NANOUSD + M8_NANOUSD,
            moves_nanousd_per_hour=3 * 1_000_000 // 24,
            boots_nanousd_per_hour=2 * EXIT_NANOUSD,
            lower_bound_nanousd_per_hour=754_291_664,
            status="optimal",
            payback_hours=24,
            move_cost_nanousd=1_000_000,
            boot_overlap_minutes=15,
            preference_nanousd_per_hour=10_000,
            preference_ceiling_nanousd_per_hour=1_000_000,
        ),
        current_cost_nanousd_per_hour=4 * M4_NANOUSD,
        cost_nanousd_per_hour=2 * M4_NANOUSD + M8_NANOUSD,
        nodes=(
            planned("a", "remove", {}),
            planned("b", "remove", {}),
            planned(
                "big-it-1-0",
                "boot",
                {HUGE: 1},
                pool="big",
                machine_type="m8",
                price=M8_NANOUSD,
                allocatable=resources(8000, 32, 110),
            ),
            planned("f", "keep", {WEB: 1}, pod_names=("default/web-3",), reason="is cordoned", frozen=True),
            planned("k", "keep", {WEB: 3, SOLO: 1}, pod_names=("default/solo",), reason="holds a pinned pod"),
        ),
        workloads={
            WEB: workload("web", 4, "evict", 3, 500, 1),
            HUGE: workload("huge", 1, "stay", 0, 6000, 4),
            MAMMOTH: workload("mammoth", 1, "stay", 0, 64000, 4),
            SOLO: workload("solo", 1, "pinned", 0, 500, 1),
        },
        unplaced={MAMMOTH: Unplaced(1, "requests 64 CPU; the largest offering, m8, has 7.9 free")},
        certificate=Certificate(
            groups=(
                CertificateGroup("g0", (HUGE,), 1, resources(6000, 4, 1), M8_NANOUSD + MOVE_NANOUSD),
                CertificateGroup("g1", (WEB,), 3, resources(500, 1, 1), MOVE_NANOUSD),
            ),
            classes=(
                CertificateClass("m4", "general", "zone-a", "m4", "on-demand", None, 3, M4_NANOUSD),
                CertificateClass("m8", "big", "zone-a", "m8", "on-demand", None, 4, M8_NANOUSD),
                CertificateClass("a", "general", "zone-a", "m4", "on-demand", "a", 1, M4_NANOUSD - EXIT_NANOUSD),
                CertificateClass("b", "general", "zone-a", "m4", "on-demand", "b", 1, M4_NANOUSD - EXIT_NANOUSD),
                CertificateClass("k", "general", "zone-a", "m4", "on-demand", "k", 1, M4_NANOUSD),
            ),
            # One node of the pool is frozen: of at least 1 and at most 4, 0 and 3 are left.
            rows=(
                CertificateRow("kept", "k", 1, M4_NANOUSD),
                CertificateRow("pool-minimum", "general/zone-a", 0, 0),
                CertificateRow("pool-maximum", "general/zone-a", -3, 0),
            ),
        ),
    )


def with_node(plan: Plan, which: str, **changes: Any) -> Plan:
    """Return the plan with some fields of one node replaced."""
    assert any(n.name == which for n in plan.nodes)
    return replace(plan, nodes=tuple(replace(n, **changes) if n.name == which else n for n in plan.nodes))


def with_workload(plan: Plan, key: str, **changes: Any) -> Plan:
    """Return the plan with some fields of one workload replaced."""
    return replace(plan, workloads=dict(plan.workloads) | {key: replace(plan.workloads[key], **changes)})


def with_objective(plan: Plan, **changes: Any) -> Plan:
    """Return the plan with some fields of its objective replaced."""
    return replace(plan, objective=replace(plan.objective, **changes))


def with_certificate(plan: Plan, **changes: Any) -> Plan:
    """Return the plan with some fields of its certificate replaced."""
    return replace(plan, certificate=replace(plan.certificate, **changes))
