"""What must hold of a cluster while a plan is carried out, and in the end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner import labels as keys
from planner.model.plan import Plan
from simulator.selectors import scaled
from tests.controlplane.readiness import Least, is_ready

Json = dict[str, Any]


class Owners:
    """Knows which workload a pod belongs to, as "namespace/Kind/name"."""

    def __init__(self, replicasets: Iterable[Json]) -> None:
        self._above = {
            body["metadata"]["uid"]: owner
            for body in replicasets
            for owner in body["metadata"].get("ownerReferences", ())
        }

    def workload(self, pod: Json) -> str:
        """Return the key of the pod's workload."""
        owner = next(iter(pod["metadata"].get("ownerReferences", ())), None)
        if owner is None:
            return f"{pod['metadata']['namespace']}/Pod/{pod['metadata']['name']}"
        owner = self._above.get(owner["uid"], owner)
        return f"{pod['metadata']['namespace']}/{owner['kind']}/{owner['name']}"


def key_of(body: Json) -> str:
    """Return "namespace/Kind/name"."""
    return f"{body['metadata']['namespace']}/{body['kind']}/{body['metadata']['name']}"


def is_planned(pod: Json) -> bool:
    """Say whether the pod is live, and of no DaemonSet."""
    owned_by_daemon = any(o["kind"] == "DaemonSet" for o in pod["metadata"].get("ownerReferences", ()))
    over = pod["status"]["phase"] in ("Succeeded", "Failed") or "deletionTimestamp" in pod["metadata"]
    return not over and not owned_by_daemon


def of_kind(dump: Json, kind: str) -> list[Json]:
    """Return the objects of one kind."""
    return [body for body in dump["items"] if body["kind"] == kind]


def leasts(dump: Json, ceiling: float) -> Iterator[Least]:
    """Yield how many pods must stay ready: by the budgets, and by each workload's strategy and the ceiling.

    What was not ready in the beginning may stay so.
    """
    pods = {pod["metadata"]["uid"]: pod for pod in of_kind(dump, "Pod")}

    def capped(what: str, body: Json, least: int) -> Least:
        found = Least(what, body["metadata"]["namespace"], body["spec"]["selector"], least)
        return Least(found.what, found.namespace, found.selector, min(least, found.count(pods)))

    for body in of_kind(dump, "PodDisruptionBudget"):
        yield capped(f"the budget {body['metadata']['name']}", body, body["status"]["desiredHealthy"])
    for kind in ("Deployment", "StatefulSet", "ReplicaSet"):
        for body in of_kind(dump, kind):
            if not body["metadata"].get("ownerReferences"):
                replicas = body["spec"]["replicas"]
                most = min(_unavailable(body), math.floor(ceiling * replicas + 1e-9))
                yield capped(key_of(body), body, replicas - most)


def _unavailable(body: Json) -> int:
    """Return how many pods a workload's strategy lets be unavailable: maxUnavailable, else one after the other."""
    strategy = body["spec"].get("strategy", {})
    if strategy.get("type") != "RollingUpdate":
        return 1
    replicas, bounds = body["spec"]["replicas"], strategy["rollingUpdate"]
    found = scaled(bounds["maxUnavailable"], replicas, round_up=False)
    return found if found or scaled(bounds["maxSurge"], replicas, round_up=True) else 1


@dataclass(frozen=True)
class Judgement:
    """What API server and cloud say in the end, to be held against the plan.

    `machines` is the state of each by its name; `pods` are the live ones of workloads.
    """

    plan: Plan
    nodes: Sequence[Json]
    pods: Sequence[Json]
    owners: Owners
    machines: Mapping[str, str]

    def problems(self) -> Iterator[str]:
        """Yield everything that is not as the plan has it."""
        yield from self._machines()
        yield from self._placement()
        for node in self.nodes:
            yield from self._marks(node)

    def _machines(self) -> Iterator[str]:
        wanted = {node.name for node in self.plan.nodes if node.state != "remove"}
        # What the plan has no place for may settle anywhere; where nobody may move it, its node stays.
        wanted |= {
            pod["spec"]["nodeName"]
            for pod in self.pods
            if pod["spec"].get("nodeName") and self.owners.workload(pod) in self.plan.unplaced
        }
        if (found := {node["metadata"]["name"] for node in self.nodes}) != wanted:
            yield f"nodes: {sorted(found - wanted)} too many, {sorted(wanted - found)} missing"
        if self.machines != dict.fromkeys(wanted, "running"):
            yield f"machines: {self.machines}, planned {sorted(wanted)}"

    def _placement(self) -> Iterator[str]:
        """Compare the counts of each workload by node; only what the plan left out may be anywhere, or nowhere."""
        wanted = Counter(
            {
                (node.name, key): count
                for node in self.plan.nodes
                if node.state != "remove"
                for key, count in node.pods.items()
            }
        )
        found = Counter((p["spec"].get("nodeName", ""), self.owners.workload(p)) for p in self.pods)
        spare = Counter({key: unplaced.count for key, unplaced in self.plan.unplaced.items()})
        for (node, key), count in sorted((wanted - found).items()):
            yield f"{count} pods of {key} are missing on {node}"
        for (node, key), count in sorted((found - wanted).items()):
            left = max(0, count - spare[key])
            spare[key] -= count - left
            if left:
                yield f"{left} pods of {key} " + (f"are on {node}, unplanned" if node else "are Pending")
        for pod in self.pods:
            if pod["spec"].get("nodeName") and not is_ready(pod):
                yield f"{pod['metadata']['name']} is not ready"

    def _marks(self, node: Json) -> Iterator[str]:
        labels, name = node["metadata"]["labels"], node["metadata"]["name"]
        planned = next((n for n in self.plan.nodes if n.name == name), None)
        expected = self.plan.iteration if planned and not planned.frozen else None
        taints = [t for t in node["spec"].get("taints", ()) if t["key"].startswith(keys.GROUP)]
        if labels.get(keys.OPTIMAL) != expected or keys.EXPIRING in labels or taints:
            own = {k: v for k, v in labels.items() if k.startswith(keys.GROUP)}
            yield f"{name} has the labels {own} and taints {taints} in the end"
