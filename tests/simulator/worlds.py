"""Small worlds for the simulator's own tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from planner.ports import CLAIMS, DEPLOYMENTS, VOLUMES
from simulator.api import ApiServer
from simulator.extenders import Extender
from simulator.store import Json
from simulator.workloads import Workload
from simulator.world import ExistingNode, Scenario, World, catalogue, machine

M4 = machine("m4", 4000, 16, 0.20)
ZONE = "europe-west3-a"
OTHER_ZONE = "europe-west3-b"


def world(
    workloads: Sequence[Workload] = (),
    nodes: int = 3,
    seed: int = 0,
    extender: Callable[[ApiServer], Extender] | None = None,
) -> World:
    """Return a world of nodes n1, n2, … with 4 CPUs and 16 GiB each, in which everything stands."""
    existing = tuple(ExistingNode(f"n{number + 1}", "m4", ZONE) for number in range(nodes))
    built = World(Scenario(catalogue([M4]), existing, tuple(workloads), seed=seed), extender)
    built.settle()
    return built


def two_zones() -> World:
    """Return a world of one such node in each of two zones, n1 and n2."""
    nodes = (ExistingNode("n1", "m4", ZONE), ExistingNode("n2", "m4", OTHER_ZONE))
    return World(Scenario(catalogue([M4], (ZONE, OTHER_ZONE)), nodes))


def restart(built: World, workload: Workload, iteration: str = "i1") -> None:
    """Start the rolling update of a Deployment, as `kubectl rollout restart` does."""
    template: dict[str, Any] = {"metadata": {"annotations": {"kinema.io/iteration": iteration}}}
    patch: dict[str, Any] = {"spec": {"template": template}}
    built.kubernetes.patch(DEPLOYMENTS, workload.namespace, workload.name, patch)


def with_volume(built: World, mode: str, *names: str, node: str = "") -> list[Workload]:
    """Return a pod of each name that uses one volume with this access mode, its claim bound; all on a node if given."""
    modes = {"accessModes": [mode]}
    built.kubernetes.create(VOLUMES, "", {"metadata": {"name": "disk"}, "spec": modes})
    built.kubernetes.create(CLAIMS, "default", {"metadata": {"name": "data"}, "spec": modes | {"volumeName": "disk"}})
    spec: dict[str, Any] = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return [Workload(name=name, kind="Pod", spec=spec) for name in names]


def names(pods: Sequence[Json]) -> list[str]:
    """Return the pods' names."""
    return [pod["metadata"]["name"] for pod in pods]


def uids(pods: Sequence[Json]) -> list[str]:
    """Return the pods' uids."""
    return [pod["metadata"]["uid"] for pod in pods]
