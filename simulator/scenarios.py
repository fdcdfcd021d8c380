"""The demo's cluster: about 60 nodes of too many sizes and 500 pods in 40 workloads that spread over them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from planner import labels as keys
from planner.model.cluster import HOSTNAME, ZONE
from planner.model.machines import Catalogue, MachineType, Offering
from planner.model.scheduling import Taint
from simulator.workloads import Workload
from simulator.world import ExistingNode, Scenario, pool

ZONES: Final = ("us-central1-a", "us-central1-b", "us-central1-c")

BATCH: Final = Taint("dedicated", "batch", "NoSchedule")

_POOLS: Final[tuple[tuple[str, str, tuple[int, int, int]], ...]] = (
    ("general", "n2-standard-4", (7, 7, 6)),
    ("legacy", "n2-standard-8", (3, 3, 2)),
    ("web", "e2-standard-4", (4, 4, 4)),
    ("large", "e2-standard-8", (3, 3, 3)),
    ("memory", "e2-highmem-4", (2, 2, 2)),
    ("dense", "e2-standard-16", (0, 0, 0)),
    ("small", "e2-standard-2", (0, 0, 0)),
)
"""Pool, machine type, and how many nodes stand in each zone; the last two are empty pools."""

_SPOT_POOL: Final = ("batch-spot", "e2-standard-4", (2, 1, 2))

_SHAPES: Final = (
    ("200m", "512Mi"),
    ("250m", "512Mi"),
    ("250m", "1Gi"),
    ("500m", "1Gi"),
    ("500m", "2Gi"),
    ("750m", "1536Mi"),
    ("300m", "3Gi"),
    ("400m", "2560Mi"),
    ("600m", "1Gi"),
    ("1", "2Gi"),
    ("150m", "384Mi"),
)

_REPLICAS: Final = (40, 36, 30, 28, 24, 22, 20, 16, 14, 14, 12, 12, 10, 10, 8, 8, 8, 6, 6, 5, 4, 4, 3, 3)


def badly_packed(machines: Mapping[str, MachineType], start_seconds: float, seed: int) -> Scenario:
    """Return a cluster of 60 nodes in eight pools and three zones, and about 500 pods in 40 workloads.

    The pods are placed by the simulated scheduler, which spreads them, as the default of Kubernetes does.

    Raises:
        KeyError: a machine type of the scenario has no row among the machines.
    """
    chance = random.Random(f"{seed}/scenario")
    offerings = tuple(_offerings(machines))
    nodes = tuple(
        ExistingNode(f"gke-{name}-{zone[-1]}-{number}", name, zone)
        for name, _, counts in (*_POOLS, _SPOT_POOL)
        for zone, count in zip(ZONES, counts, strict=True)
        for number in range(count)
    )
    used = {offering.machine_type: machines[offering.machine_type] for offering in offerings}
    catalogue = Catalogue(used, offerings, frozenset(o.pool for o in offerings))
    shapes = _dealt(chance)
    workloads = (*_daemons(), *_deployments(shapes), *_singles(shapes), *_stateful(shapes), *_special())
    return Scenario(catalogue, nodes, workloads, start_seconds=start_seconds, seed=seed)


def with_rules(scenario: Scenario) -> Scenario:
    """Return the scenario with rules between pods, or volumes of one zone, on a quarter of its workloads.

    Which workloads, and which rules, follows from the scenario's seed.
    """
    chance = random.Random(f"{scenario.seed}/rules")
    able = [w.key for w in scenario.workloads if w.kind in ("Deployment", "StatefulSet")]
    chosen = set(chance.sample(able, -(-len(scenario.workloads) // 4)))
    workloads = tuple(_ruled(w, chance) if w.key in chosen else w for w in scenario.workloads)
    return replace(scenario, workloads=workloads)


def _ruled(workload: Workload, chance: random.Random) -> Workload:
    """Return the workload with a rule of a kind that so many pods can keep on a few nodes of three zones."""
    if workload.kind == "StatefulSet":
        return replace(workload, volume_zones=tuple(chance.choice(ZONES) for _ in range(workload.replicas)))
    kinds: list[Callable[[Workload, random.Random], Workload]] = [_zone_spread]
    if "nodeSelector" not in workload.spec:
        kinds += [_node_spread, _apart_by_node, _host_port] if workload.replicas <= 12 else []
        kinds += [_together_in_a_zone] if workload.replicas <= 8 else []
        kinds += [_apart_by_zone] if workload.replicas <= len(ZONES) else []
    return chance.choice(kinds)(workload, chance)


def _zone_spread(workload: Workload, chance: random.Random) -> Workload:
    return _spread(workload, ZONE, maxSkew=chance.choice((1, 1, 2)))


def _node_spread(workload: Workload, chance: random.Random) -> Workload:
    return _spread(workload, HOSTNAME, maxSkew=chance.choice((1, 2)))


def _spread(workload: Workload, key: str, **more: Any) -> Workload:
    constraint = {"topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": _own(workload)} | more
    return replace(workload, spec={**workload.spec, "topologySpreadConstraints": [constraint]})


def _apart_by_node(workload: Workload, _: random.Random) -> Workload:
    return _related(workload, "podAntiAffinity", HOSTNAME)


def _apart_by_zone(workload: Workload, _: random.Random) -> Workload:
    return _related(workload, "podAntiAffinity", ZONE)


def _together_in_a_zone(workload: Workload, _: random.Random) -> Workload:
    return _related(workload, "podAffinity", ZONE)


def _related(workload: Workload, kind: str, key: str) -> Workload:
    term = {"labelSelector": _own(workload), "topologyKey": key}
    affinity = {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return replace(workload, spec={**workload.spec, "affinity": affinity})


def _host_port(workload: Workload, chance: random.Random) -> Workload:
    return replace(workload, host_port=chance.choice((9100, 9200)))


def _own(workload: Workload) -> dict[str, Any]:
    return {"matchLabels": {"app": workload.name}}


def _offerings(machines: Mapping[str, MachineType]) -> Iterator[Offering]:
    for name, machine_type, _ in _POOLS:
        for zone in ZONES:
            yield pool(machines[machine_type], name, zone, maximum=40)
    name, machine_type, _ = _SPOT_POOL
    for zone in ZONES:
        spot = pool(machines[machine_type], name, zone, maximum=20, taints=(BATCH,))
        price = machines[machine_type].price("spot")
        if price is not None:
            yield replace(spot, capacity_type="spot", price_nanousd_per_hour=price)


def _daemons() -> Iterator[Workload]:
    everywhere = {"tolerations": [{"operator": "Exists"}]}
    for name, cpu, memory in (("node-agent", "50m", "128Mi"), ("log-shipper", "60m", "200Mi")):
        yield Workload(name=name, kind="DaemonSet", namespace="kube-system", cpu=cpu, memory=memory, spec=everywhere)


def _dealt(chance: random.Random) -> Iterator[tuple[str, str]]:
    """Deal the shapes like cards, so that no seed makes the largest of everything: all must fit on the nodes."""
    while True:
        yield from chance.sample(_SHAPES, len(_SHAPES))


def _deployments(shapes: Iterator[tuple[str, str]]) -> Iterator[Workload]:
    for number, replicas in enumerate(_REPLICAS):
        cpu, memory = next(shapes)
        budget: dict[str, Any] | None = {"maxUnavailable": "30%"} if number % 3 else None
        if number % 6 == 5:
            budget = {"minAvailable": replicas - 1}
        careful = number % 6 in (0, 5)
        plain = Workload(
            name=f"service-{number + 1:02d}", replicas=replicas, cpu=cpu, memory=memory, namespace=f"team-{number % 4}"
        )
        surge: int | str = 1 if replicas < 10 else "10%"
        strategy = replace(plain, max_surge=surge, max_unavailable=0) if careful else plain
        yield replace(strategy, budget=budget)


def _singles(shapes: Iterator[tuple[str, str]]) -> Iterator[Workload]:
    for number in range(5):
        cpu, memory = next(shapes)
        yield Workload(name=f"single-{number + 1}", cpu=cpu, memory=memory, namespace="tools")


def _stateful(shapes: Iterator[tuple[str, str]]) -> Iterator[Workload]:
    for number, replicas in enumerate((3, 3, 5)):
        cpu, memory = next(shapes)
        yield Workload(
            name=f"queue-{number + 1}",
            kind="StatefulSet",
            replicas=replicas,
            cpu=cpu,
            memory=memory,
            namespace="data",
            budget={"maxUnavailable": 1},
        )


def _special() -> Iterator[Workload]:
    yield Workload(name="migration", kind="Pod", cpu="200m", memory="512Mi", namespace="tools")
    yield Workload(name="debug-shell", kind="Pod", cpu="100m", memory="128Mi", namespace="tools")
    yield Workload(
        name="ledger", replicas=2, cpu="500m", namespace="data", pod_annotations={keys.DO_NOT_DISRUPT: "true"}
    )
    spot = {
        "nodeSelector": {"cloud.google.com/gke-spot": "true"},
        "tolerations": [{"key": BATCH.key, "operator": "Equal", "value": BATCH.value, "effect": BATCH.effect}],
    }
    yield Workload(name="render", replicas=9, cpu="500m", memory="1Gi", namespace="batch", spec=spot)
    zonal = {"nodeSelector": {"topology.kubernetes.io/zone": ZONES[1]}}
    yield Workload(name="zonal-cache", replicas=4, cpu="250m", memory="2Gi", namespace="data", spec=zonal)
    amd64 = {"nodeSelector": {"kubernetes.io/arch": "amd64"}}
    yield Workload(name="native", replicas=4, cpu="500m", memory="512Mi", namespace="tools", spec=amd64)
