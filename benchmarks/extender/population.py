"""The cluster of the benchmark: nodes without kubelets, pods that stand on them, and pods that wait for a scheduler.

The plan wants all waiting pods of the Deployments `planned-0` to `planned-9`, on at most half of the nodes; those of
`guest-0` to `guest-9` are in no plan.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from planner.labels import OPTIMAL, PLACEMENT, Placement, Target, encode_placement
from tests.controlplane.kwok import FakeNode

Json = dict[str, Any]
Request = tuple[str, str, Json | None]

NAMESPACE: Final = "bench"
ITERATION: Final = "i-bench"
WORKLOADS: Final = 10
KINDS: Final = ("planned", "guest")


@dataclass(frozen=True, slots=True)
class Size:
    """How large the cluster is: nodes, pods that stand on them, and pods that are created for each run."""

    nodes: int
    bound: int
    pods: int


def node_name(index: int) -> str:
    """Return a name as GKE would make it, 46 characters."""
    suffix = "".join("bcdfghjkmn"[int(digit)] for digit in f"{index * 7919 % 10_000:04d}")
    return f"gke-production-cluster-e2-standard-{index:05d}-{suffix}"


def nodes(size: Size) -> Iterator[Request]:
    """Yield what creates the nodes, Ready, with the plan's marks."""
    wants = _wants(size)
    for index in range(size.nodes):
        zone = f"europe-west3-{'abc'[index % 3]}"
        body = FakeNode(name=node_name(index), pool=f"pool-{index % 4}", zone=zone).manifest()
        targets = tuple(
            Target(f"{NAMESPACE}/Deployment/{workload}", _uid(workload), want, "all")
            for workload, want in wants.get(index, {}).items()
        )
        placement = Placement(
            ITERATION, time.time() + 86_400, targets, {"cpu_millicores": 400, "memory_bytes": 1 << 30, "pods": 50}
        )
        body["metadata"]["labels"][OPTIMAL] = ITERATION
        body["metadata"]["annotations"][PLACEMENT] = encode_placement(placement)
        body["status"]["conditions"] = [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]
        yield "POST", "/api/v1/nodes", body


def untaint(size: Size) -> Iterator[Request]:
    """Yield what takes away the taint that the API server puts on every new node; no controller runs."""
    for index in range(size.nodes):
        yield "PATCH", f"/api/v1/nodes/{node_name(index)}", {"spec": {"taints": None}}


def workloads() -> Iterator[Request]:
    """Yield what creates the ReplicaSets; nobody makes pods of them."""
    for kind in (*KINDS, "old"):
        for number in range(WORKLOADS):
            name = f"{kind}-{number}"
            body = {
                "metadata": {
                    "name": f"{name}-7d4f",
                    "ownerReferences": [
                        {
                            "apiVersion": "apps/v1",
                            "kind": "Deployment",
                            "name": name,
                            "uid": _uid(name),
                            "controller": True,
                        }
                    ],
                },
                "spec": {
                    "replicas": 0,
                    "selector": {"matchLabels": {"app": name}},
                    "template": {"metadata": {"labels": {"app": name}}, "spec": _spec({})},
                },
            }
            yield "POST", f"/apis/apps/v1/namespaces/{NAMESPACE}/replicasets", body


def bound_pods(size: Size, owners: dict[str, str]) -> Iterator[Request]:
    """Yield what creates the pods that stand on the nodes already."""
    for index in range(size.bound):
        workload = f"old-{index % WORKLOADS}"
        yield _create(f"old-{index}", workload, owners, {"nodeName": node_name(index % size.nodes)})


def waiting_pods(kind: str, count: int, scheduler: str, run: str, owners: dict[str, str]) -> Iterator[Request]:
    """Yield what creates pods that wait for the scheduler of that name."""
    for index in range(count):
        name = f"{run}-{index}"
        yield _create(name, f"{kind}-{index % WORKLOADS}", owners, {"schedulerName": scheduler}, {"run": run})


def pod(name: str, kind: str, owners: dict[str, str]) -> Json:
    """Return a waiting pod as a scheduler would send it."""
    (_, _, body) = _create(name, f"{kind}-0", owners, {"schedulerName": "kinema"})
    assert body is not None  # a POST
    body["metadata"] |= {"namespace": NAMESPACE, "uid": f"uid-of-{name}"}
    body["status"] = {"phase": "Pending"}
    return body


def wanted(size: Size) -> dict[str, int]:
    """Return how many waiting pods the plan wants on each node."""
    return {node_name(index): sum(wants.values()) for index, wants in _wants(size).items()}


def _wants(size: Size) -> dict[int, dict[str, int]]:
    found: dict[int, dict[str, int]] = {}
    chosen = min(size.nodes // 2, size.pods)
    for index in range(size.pods):
        wants = found.setdefault(index % chosen * 2, {})
        workload = f"planned-{index % WORKLOADS}"
        wants[workload] = wants.get(workload, 0) + 1
    return found


def _create(
    name: str, workload: str, owners: dict[str, str], spec: Json, labels: dict[str, str] | None = None
) -> Request:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": workload, "pod-template-hash": "7d4f", **(labels or {})},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": f"{workload}-7d4f",
                    "uid": owners[workload],
                    "controller": True,
                }
            ],
        },
        "spec": _spec(spec),
    }
    return "POST", f"/api/v1/namespaces/{NAMESPACE}/pods", body


def _spec(more: Json) -> Json:
    requests = {"cpu": "100m", "memory": "64Mi"}
    container = {"name": "main", "image": "registry.example/app:1", "resources": {"requests": requests}}
    return {"containers": [container], "terminationGracePeriodSeconds": 0, **more}


def _uid(workload: str) -> str:
    return f"uid-of-{workload}"
