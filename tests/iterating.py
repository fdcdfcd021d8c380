"""A small simulated cluster and the loop on it: one iteration takes a second or two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from planner.leadership import Leadership
from planner.loop import Edges, Report
from planner.metrics import Metrics
from planner.model.cluster import HOSTNAME, ZONE
from planner.ports import Kubernetes
from planner.settings import MoveSettings, OptimizerSettings, Settings
from planner.usage import NoUsage
from simulator.embedded import embedded_extender
from simulator.workloads import Workload
from simulator.world import ExistingNode, Scenario, World, catalogue, machine

APPLY = Settings(
    mode="apply",
    move=MoveSettings(steering="extender", poll_seconds=2),
    optimizer=OptimizerSettings(time_limit_seconds=8),
)

BIG = machine("big", 4000, 16, 0.20)
SMALL = machine("small", 3000, 12, 0.10)


def badly_placed(*, smaller: bool = False) -> World:
    """Return three big nodes with a Deployment of 3 and a StatefulSet of 2 pods, 500m of CPU each, that need one.

    One big node holds them, and so does a new small one (5 x 500m = 2500m), where `smaller` machines are sold.
    """
    workloads = (
        Workload(name="web", replicas=3, on=("n1", "n2", "n3")),
        Workload(name="store", kind="StatefulSet", replicas=2, on=("n2", "n3")),
    )
    nodes = tuple(ExistingNode(f"n{number}", "big") for number in (1, 2, 3))
    world = World(Scenario(catalogue([BIG, SMALL] if smaller else [BIG]), nodes, workloads))
    world.settle()
    return world


def bound_by_rules() -> World:
    """Return nine big nodes in three zones, whose pods must stand apart, spread, own a port, or stay with a volume.

    One node in each zone holds its third of everything: 3 x 500m of web, 500m of gate, of proxy and of store are the
    3000m of a small one.
    """
    zones = tuple(f"europe-west3-{letter}" for letter in "abc")
    nodes = tuple(ExistingNode(f"{zone[-1]}{number}", "big", zone) for zone in zones for number in (1, 2, 3))
    by_name = {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": {"app": "gate"}}}
    apart = {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [by_name]}}}
    by_zone = {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"}
    spread = {"topologySpreadConstraints": [by_zone | {"labelSelector": {"matchLabels": {"app": "web"}}}]}
    rolling: dict[str, Any] = {"max_surge": 0, "max_unavailable": 1}
    workloads = (
        Workload(name="web", replicas=9, spec=spread, on=tuple(node.name for node in nodes)),
        Workload(name="gate", replicas=3, spec=apart, on=("a1", "b2", "c3"), **rolling),
        Workload(name="proxy", replicas=3, host_port=8080, on=("a2", "b3", "c1"), **rolling),
        Workload(name="store", kind="StatefulSet", replicas=3, volume_zones=zones, on=("a3", "b1", "c2")),
    )
    world = World(Scenario(catalogue([BIG, SMALL], zones), nodes, workloads), embedded_extender)
    world.settle()
    return world


def in_company() -> World:
    """Return four big nodes, each with a pod of a cache and two of a web that must stand beside one, 400m of CPU each.

    A ninth of the web comes wherever it may. All 13 x 400m fit on two small nodes of 3000m.
    """
    by_name = {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": {"app": "cache"}}}
    beside = {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [by_name]}}}
    names = ("n1", "n2", "n3", "n4")
    rolling: dict[str, Any] = {"max_surge": 0, "max_unavailable": 1, "cpu": "400m"}
    workloads = (
        Workload(name="cache", replicas=4, on=names, **rolling),
        Workload(name="web", replicas=9, spec=beside, on=names + names, **rolling),
    )
    nodes = tuple(ExistingNode(name, "big") for name in names)
    world = World(Scenario(catalogue([BIG, SMALL]), nodes, workloads), embedded_extender)
    world.settle()
    return world


def edges_of(
    world: World,
    report: Callable[[Report], None] = lambda _: None,
    kubernetes: Kubernetes | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Edges:
    """Return the doors of a new planner to the world, its API server through `kubernetes` where that is given."""
    kubernetes = kubernetes or world.kubernetes
    return Edges(
        kubernetes=kubernetes,
        cloud=world.cloud,
        catalogue=lambda _: world.cloud.catalogue(),
        usage=NoUsage(),
        clock=world.clock,
        leadership=Leadership(kubernetes, world.clock, APPLY.leader, "planner"),
        metrics=Metrics(),
        report=report,
        stopping=stopping,
    )
