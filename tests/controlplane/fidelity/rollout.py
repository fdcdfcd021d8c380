"""The cluster whose Deployments are all rolled at once, and the plans that say where their pods go."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from planner.cloud.gcp.machines import builtin_machines
from planner.model.plan import Objective, Plan, PlannedNode, PlannedWorkload
from planner.model.resources import Resources

Json = dict[str, Any]

NAMESPACE: Final = "shop"
POOL: Final = "general"
MACHINE_TYPE: Final = "e2-standard-4"
ZONE: Final = "us-central1-a"
MACHINE: Final = builtin_machines("us-central1")[MACHINE_TYPE]
_MEMORY_MIB: Final = 64
_CPU_MILLICORES: Final = (40, 50, 60, 70, 80)
"""60 on average. With 10 pods a node, as many marked twice on half of the nodes (two plans in succession), a node
that is kept holds at the most about 10 + 20 + 20 pods of 60 millicores: 3,000 of its 3,920."""


@dataclass(frozen=True)
class Size:
    """How many nodes, Deployments and pods; each Deployment has the same share of the pods.

    Fewer `node_cpu_millicores` than the machine type has make room short while pods are doubled.
    """

    nodes: int
    pods: int
    workloads: int = 10
    node_cpu_millicores: int = MACHINE.allocatable.cpu_millicores

    @property
    def replicas(self) -> int:
        return self.pods // self.workloads

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(f"node-{number:03}" for number in range(self.nodes))

    @property
    def apps(self) -> tuple[str, ...]:
        return tuple(f"app-{number}" for number in range(self.workloads))

    @property
    def planned_cpu_millicores(self) -> float:
        """What a plan, which keeps half of the nodes, puts on each of them on average."""
        return self.replicas * sum(self.cpu_millicores(app) for app in self.apps) / (self.nodes / 2)

    def cpu_millicores(self, app: str) -> int:
        """Return what each pod of the Deployment asks for."""
        return _CPU_MILLICORES[self.apps.index(app) % len(_CPU_MILLICORES)]


def key_of(app: str) -> str:
    """Return the key by which a plan names the Deployment."""
    return f"{NAMESPACE}/Deployment/{app}"


def deployments(size: Size, schedulers: Sequence[str]) -> Iterator[Json]:
    """Yield the Deployments, with the strategy that Kubernetes gives by default; the schedulers take turns."""
    for number, app in enumerate(size.apps):
        labels = {"app": app}
        requests = {"cpu": f"{size.cpu_millicores(app)}m", "memory": f"{_MEMORY_MIB}Mi"}
        spec = {
            "schedulerName": schedulers[number % len(schedulers)],
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "registry.example/app:1", "resources": {"requests": requests}}],
        }
        yield {
            "metadata": {"name": app},
            "spec": {
                "replicas": size.replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }


def make_plan(size: Size, uids: Mapping[str, str], iteration: str, seed: int) -> Plan:
    """Return a plan that keeps every second node, removes the others, and rolls every Deployment.

    Where pods go is chance, of two nodes each time the emptier one: counts differ, and no node is overfull.
    """
    chance = random.Random(seed)
    kept = size.node_names[::2]
    pods: dict[str, Counter[str]] = {name: Counter() for name in kept}
    taken = Counter(dict.fromkeys(kept, 0))
    everyone = [app for app in size.apps for _ in range(size.replicas)]
    chance.shuffle(everyone)
    for app in everyone:
        node = min(chance.sample(kept, 2), key=lambda name: taken[name])
        pods[node][key_of(app)] += 1
        taken[node] += size.cpu_millicores(app)
    price = MACHINE.price_nanousd_per_hour
    nodes = [
        PlannedNode(
            name,
            "keep" if name in pods else "remove",
            POOL,
            MACHINE_TYPE,
            ZONE,
            "on-demand",
            price,
            replace(MACHINE.allocatable, cpu_millicores=size.node_cpu_millicores),
            dict(sorted(pods.get(name, {}).items())),
        )
        for name in size.node_names
    ]
    workloads = {}
    for app in size.apps:
        requests = Resources(size.cpu_millicores(app), _MEMORY_MIB * 2**20, 1)
        workloads[key_of(app)] = PlannedWorkload(
            uids[app], size.replicas, requests, requests, "rollout", size.replicas, "its nodes are removed"
        )
    cost = (price or 0) * len(kept)
    objective = Objective("cost", cost, 0, 0, 0, "feasible", 24, 0, 0)
    return Plan(iteration, objective, (price or 0) * size.nodes, cost, tuple(nodes), workloads)


def wanted(plan: Plan) -> dict[tuple[str, str], int]:
    """Return how many pods the plan wants by node and workload key."""
    return {(node.name, key): count for node in plan.nodes for key, count in node.pods.items()}
