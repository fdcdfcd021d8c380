"""A small simulated cluster and the loop on it: one iteration takes a second or two."""

from __future__ import annotations

from collections.abc import Callable

from planner.leadership import Leadership
from planner.loop import Edges, Report
from planner.metrics import Metrics
from planner.ports import Kubernetes
from planner.settings import MoveSettings, OptimizerSettings, Settings
from planner.usage import NoUsage
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
