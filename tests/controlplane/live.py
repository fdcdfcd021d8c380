"""A generated cluster (tests/filters/clusters.py) as objects for a real API server, and as pools of a fake cloud."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.controlplane.kwok import RUNS_ON, FakeNode
from tests.filters.clusters import ARCH, HOSTNAME, MACHINE_TYPE, POOL, ZONE, Case, Machine, outline
from tests.googlecloud.fake import FakePool

Json = dict[str, Any]

SPOT: Final = "cloud.google.com/gke-spot"
OVERHEAD: Final = {"cpu": "100m", "memory": "64Mi"}
RUNTIME_CLASS: Final = "heavy"
CLAIM: Final = "data"
IMAGE: Final = "registry.example/app:1"

_LASTING_JOBS: Final = 0.3
"""The share of Jobs that run on, and pin their nodes; the others are done at once."""

_SHARED_BUDGETS: Final = 0.5
"""In which share of the clusters without a budget several workloads get one together, where any could."""

_SPOT_SHARE_OF_PRICE: Final = 0.35
_UNCLASSED: Final = {"storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}
_CLAIM_TEMPLATE: Final = {"metadata": {"name": CLAIM}, "spec": {"accessModes": ["ReadWriteOnce"], **_UNCLASSED}}
_GENERATED_LABELS: Final = frozenset({HOSTNAME, ZONE, MACHINE_TYPE, POOL})
_EFFECTS: Final = {"NoSchedule": "NO_SCHEDULE", "NoExecute": "NO_EXECUTE", "PreferNoSchedule": "PREFER_NO_SCHEDULE"}
_PATHS: Final = {
    "Namespace": "/api/v1/namespaces",
    "PersistentVolume": "/api/v1/persistentvolumes",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    **{
        kind: f"/apis/apps/v1/namespaces/{{}}/{kind.lower()}s"
        for kind in ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet")
    },
}
WORKLOADS: Final = ("Deployment", "StatefulSet", "ReplicaSet", "Job", "Pod")


def path_of(body: Json) -> str:
    """Return where objects of this kind are created."""
    return _PATHS[body["kind"]].format(body["metadata"].get("namespace", ""))


@dataclass(frozen=True)
class LivePool:
    """A node pool: every node of one machine type belongs to it."""

    name: str
    machine: Machine
    zones: tuple[str, ...]
    spot: bool
    labels: dict[str, str]
    taints: tuple[dict[str, str], ...]
    minimum: int | None = None
    maximum: int | None = None

    def node(self, name: str, zone: str) -> FakeNode:
        """Return a fresh node of the pool."""
        labels = {ARCH: self.machine.arch, **self.labels, **({SPOT: "true"} if self.spot else {})}
        return FakeNode(
            name=name,
            machine_type=self.machine.name,
            pool=self.name,
            zone=zone,
            labels=labels,
            taints=self.taints,
            allocatable=self.machine.allocatable(),
        )

    def fake(self, instances: dict[str, list[str]]) -> FakePool:
        """Return the pool as the fake cloud has it, with these machines running, by zone."""
        taints = [{**taint, "effect": _EFFECTS[taint["effect"]]} for taint in self.taints]
        return FakePool(
            self.name,
            self.machine.name,
            self.zones,
            instances,
            spot=self.spot,
            labels=self.labels,
            minimum=self.minimum,
            maximum=self.maximum,
            config={"taints": taints} if taints else {},
        )


@dataclass(frozen=True)
class LiveCluster:
    """What is created on the control plane: `workloads` in the order of their creation, without their pods.

    `extras` are the labels and taints that a node has beyond those of its pool.
    """

    seed: int
    pools: dict[str, LivePool]
    nodes: list[tuple[str, LivePool, str]]
    extras: dict[str, tuple[dict[str, str], tuple[dict[str, str], ...]]]
    namespaces: list[Json]
    infrastructure: list[Json] = field(default_factory=list)
    workloads: list[Json] = field(default_factory=list)

    def existing(self) -> list[FakeNode]:
        """Return the nodes that are there in the beginning."""
        found = []
        for name, pool, zone in self.nodes:
            node = pool.node(name, zone)
            labels, taints = self.extras.get(name, ({}, ()))
            found.append(replace(node, labels={**node.labels, **labels}, taints=(*node.taints, *taints)))
        return found

    def fake_pools(self) -> list[FakePool]:
        """Return the cloud's pools with the machines of the existing nodes."""
        machines: dict[str, dict[str, list[str]]] = {name: {} for name in self.pools}
        for name, pool, zone in self.nodes:
            machines[pool.name].setdefault(zone, []).append(name)
        return [pool.fake(machines[pool.name]) for pool in self.pools.values()]

    def machine_table(self) -> str:
        """Return the table of machine types that the planner reads."""
        machines = [pool.machine for pool in self.pools.values()]
        return Case(self.seed, tuple(machines), []).table()


def live(seed: int, scheduler_name: str) -> LiveCluster:
    """Return the cluster of a seed; its pods name this scheduler."""
    case, chance = outline(seed), random.Random(f"live {seed}")
    zones = sorted({node["metadata"]["labels"].get(ZONE, "zone-a") for node in case.of("Node")})
    pools = {pool.name: pool for pool in _pools(case, zones, chance)}
    nodes, extras = [], {}
    for node in case.of("Node"):
        name, labels = node["metadata"]["name"], node["metadata"]["labels"]
        pool = pools[_pool_name(labels[MACHINE_TYPE])]
        nodes.append((name, pool, labels.get(ZONE, pool.zones[0])))
        own = {k: v for k, v in labels.items() if k not in _GENERATED_LABELS}
        extras[name] = (own, tuple(t for t in node["spec"].get("taints", ()) if t not in pool.taints))
    for number in range(chance.randint(2, 5)):
        pool = chance.choice(list(pools.values()))
        nodes.append((f"extra-{number}", pool, chance.choice(pool.zones)))
    made = LiveCluster(seed, pools, nodes, extras, case.of("Namespace"))
    spot = any(pool.spot for _, pool, _ in nodes)
    claims = {claim["metadata"]["name"] for claim in case.of("PersistentVolumeClaim")}
    for body in case.objects:
        kind = body["kind"]
        owned = "ownerReferences" in body["metadata"]
        if kind in ("DaemonSet", "PersistentVolume", "PersistentVolumeClaim", "PodDisruptionBudget"):
            made.infrastructure.append(_stored(body, "default-scheduler"))
        elif kind in WORKLOADS and not owned:
            taken = _stored(body, scheduler_name)
            if kind == "StatefulSet" and f"{CLAIM}-{body['metadata']['name']}-0" in claims:
                taken["spec"]["volumeClaimTemplates"] = [_CLAIM_TEMPLATE]
            if kind == "Job" and chance.random() < _LASTING_JOBS:
                taken["spec"]["template"]["metadata"]["annotations"] = {RUNS_ON: "true"}
            if spot and chance.random() < 0.1:
                _pod_spec(taken).setdefault("nodeSelector", {})[SPOT] = "true"
            made.workloads.append(taken)
    if not case.of("PodDisruptionBudget") and chance.random() < _SHARED_BUDGETS:
        made.infrastructure.extend(_shared_budget(made.workloads, chance))
    return made


def _shared_budget(workloads: list[Json], chance: random.Random) -> Iterator[Json]:
    """Yield a budget over those workloads of a namespace that share a tier, if there are several."""
    tiers: dict[tuple[str, str], list[str]] = {}
    for body in workloads:
        labels = _labels(body)
        tiers.setdefault((body["metadata"]["namespace"], labels["tier"]), []).append(body["kind"])
    # The disruption controller cannot count the pods of Jobs, and single pods only under minAvailable.
    fit = [key for key, kinds in sorted(tiers.items()) if len(kinds) > 1 and not {"Job", "Pod"} & set(kinds)]
    if fit:
        namespace, tier = chance.choice(fit)
        spec = {"selector": {"matchLabels": {"tier": tier}}, "maxUnavailable": chance.choice([1, 1, 2, "25%"])}
        meta = {"name": "shared", "namespace": namespace}
        yield {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta, "spec": spec}


def _labels(body: Json) -> Json:
    found: Json = (
        body["metadata"]["labels"] if body["kind"] == "Pod" else body["spec"]["template"]["metadata"]["labels"]
    )
    return found


def _pools(case: Case, zones: list[str], chance: random.Random) -> Iterator[LivePool]:
    given = {pool["machineType"]: pool for pool in case.pools}
    for machine in case.machines:
        pool = given.get(machine.name, {})
        spot = chance.random() < 0.25
        sold = replace(machine, spot_price_usd=round(machine.price_usd * _SPOT_SHARE_OF_PRICE, 6)) if spot else machine
        yield LivePool(
            name=_pool_name(machine.name),
            machine=sold,
            zones=tuple(sorted(pool.get("zones", zones))),
            spot=spot,
            labels=pool.get("labels", {}),
            taints=tuple(pool.get("taints", ())),
            minimum=pool.get("min"),
            maximum=pool.get("max"),
        )


def _pool_name(machine_type: str) -> str:
    return f"pool-{machine_type}"


def _pod_spec(body: Json) -> Json:
    found: Json = body["spec"] if body["kind"] == "Pod" else body["spec"]["template"]["spec"]
    return found


def _stored(body: Json, scheduler_name: str) -> Json:
    """Return the object as a person would apply it: what the API server demands is added, what it writes left out."""
    made: Json = copy.deepcopy(body)
    kind, spec = made["kind"], made["spec"]
    meta = made["metadata"]
    made["metadata"] = {k: meta[k] for k in ("name", "namespace", "labels", "annotations") if k in meta}
    made.pop("status", None)
    if kind == "PersistentVolume":
        spec |= {"hostPath": {"path": "/data"}, "persistentVolumeReclaimPolicy": "Retain"}
    elif kind == "PersistentVolumeClaim":
        made["metadata"].pop("annotations")
        spec |= _UNCLASSED
    if kind in ("DaemonSet", *WORKLOADS):
        _complete(_pod_spec(made), scheduler_name)
    if kind == "Job":
        _pod_spec(made)["restartPolicy"] = "Never"
    if kind == "StatefulSet":
        spec |= {"serviceName": meta["name"], "podManagementPolicy": "Parallel"}
    bounds = spec.get("strategy", {}).get("rollingUpdate", {}) if kind == "Deployment" else {}
    if bounds.get("maxSurge") == 0 and bounds["maxUnavailable"] == 0:
        bounds["maxUnavailable"] = 1  # the API server refuses 0 beside 0
    return made


def _complete(spec: Json, scheduler_name: str) -> None:
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        container["image"] = IMAGE
    if spec.pop("overhead", None):
        spec["runtimeClassName"] = RUNTIME_CLASS
    spec |= {"schedulerName": scheduler_name, "terminationGracePeriodSeconds": 1}
