"""The benchmark's clusters: the same seed gives the same bytes, and every constraint holds before any plan."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from benchmarks.optimizer.changes import arrived, carried_out, with_changes
from benchmarks.optimizer.cluster import HOSTNAME, ZONE, Cluster, crowded, machines, pools_yaml
from benchmarks.optimizer.dumps import pending, write_dump
from benchmarks.optimizer.machines import machines_csv
from benchmarks.optimizer.shapes import Shape
from planner.cloud.tables import read_machines, read_pools
from planner.kube.reader import read_dump

SIZE = (40, 900, 100)


def small(seed: int = 1) -> Cluster:
    return crowded(*SIZE, seed)


def digest(cluster: Cluster, path: Path) -> str:
    write_dump(path, cluster.objects())
    return hashlib.sha256(path.read_bytes()).hexdigest()


def plan_of(cluster: Cluster) -> dict[str, Any]:
    """Return the plan that leaves everything as it is, in the public format."""
    pods: dict[str, Counter[str]] = defaultdict(Counter)
    for pod in cluster.pods:
        if pod.node:
            pods[pod.node][pod.app] += 1
    nodes = [
        {"name": n.name, "state": "keep", "pool": n.pool, "zone": n.zone, "pods": dict(pods[n.name])}
        for n in cluster.nodes
    ]
    return {"nodes": nodes}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = digest(small(), tmp_path / "a.json")

    assert digest(small(), tmp_path / "b.json") == first
    assert digest(small(seed=2), tmp_path / "c.json") != first
    assert digest(with_changes(small(), 0.05, 3), tmp_path / "d.json") == digest(
        with_changes(small(), 0.05, 3), tmp_path / "e.json"
    )


def test_clusters_have_the_size_that_was_asked_for() -> None:
    found = small()

    assert (len(found.nodes), len(found.pods)) == SIZE[:2]
    assert sum(app.owner.kind != "Pod" for app in found.apps.values()) == SIZE[2]
    assert all(pod.node for pod in found.pods)


def test_planner_reads_what_is_written(tmp_path: Path) -> None:
    write_dump(tmp_path / "cluster.json", small().objects())
    (tmp_path / "machines.csv").write_text(machines_csv(machines()))
    (tmp_path / "pools.yaml").write_text(pools_yaml())

    snapshot = read_dump((tmp_path / "cluster.json").read_bytes(), "cluster.json")
    pools = read_pools(str(tmp_path / "pools.yaml"), read_machines(str(tmp_path / "machines.csv")))

    assert (len(snapshot.nodes), len([p for p in snapshot.pods if not p.stays_with_node])) == SIZE[:2]
    assert len(snapshot.daemonsets) == 3
    assert len(snapshot.budgets) > 0
    assert {pool.name for pool in pools} >= {node.pool for node in small().nodes} - {"legacy"}


def test_pods_of_an_empty_cluster_are_pending(tmp_path: Path) -> None:
    write_dump(tmp_path / "cluster.json", pending([Shape(100, 2**20, 3), Shape(200, 2**20, 1)]))

    snapshot = read_dump((tmp_path / "cluster.json").read_bytes(), "cluster.json")

    assert [pod.requests.cpu_millicores for pod in snapshot.pods] == [100, 100, 100, 200]
    assert all(pod.node is None and pod.unschedulable for pod in snapshot.pods)
    assert {workload.replicas for workload in snapshot.workloads} == {1, 3}


def test_no_node_holds_more_than_it_can(tmp_path: Path) -> None:
    write_dump(tmp_path / "cluster.json", small().objects())
    snapshot = read_dump((tmp_path / "cluster.json").read_bytes(), "cluster.json")
    used: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for pod in snapshot.pods:
        for index, amount in enumerate((pod.requests.cpu_millicores, pod.requests.memory_bytes, 1)):
            used[pod.node or ""][index] += amount
    for node in snapshot.nodes:
        room = (node.allocatable.cpu_millicores, node.allocatable.memory_bytes, node.allocatable.pods)
        assert all(a <= b for a, b in zip(used[node.name], room, strict=True)), node.name
    assert used[""] == [0, 0, 0]


def test_every_kind_of_constraint_is_there_and_holds() -> None:
    found = small()
    nodes = {node.name: node for node in found.nodes}
    pods: dict[str, list[str]] = defaultdict(list)
    for pod in found.pods:
        pods[pod.app].append(pod.node or "")
    seen = set()
    for key, app in found.apps.items():
        spec, seen_on = app.owner.spec, pods[key]
        seen.add(app.kind)
        for name in seen_on:
            labels = nodes[name].all_labels
            assert all(labels[label] == value for label, value in spec.get("nodeSelector", {}).items()), key
            assert not nodes[name].taints or spec.get("tolerations"), key
        if app.kind == "machine":
            assert "e2-standard-4" not in {nodes[name].machine_type for name in seen_on}
        if app.kind in ("apart", "port"):
            assert max(Counter(seen_on).values()) == 1
        for spread in spec.get("topologySpreadConstraints", ()):
            domains = Counter(nodes[name].all_labels[spread["topologyKey"]] for name in seen_on)
            every = {node.all_labels[spread["topologyKey"]] for node in found.nodes}
            assert spread["topologyKey"] in (HOSTNAME, ZONE)
            assert max(domains.values()) - min(domains[name] for name in every) <= spread["maxSkew"]
        if app.kind == "near":
            friends = {nodes[name].zone for name in pods["app/Deployment/plain-0"]}
            assert {nodes[name].zone for name in seen_on} <= friends
        if app.kind == "beside":
            assert set(seen_on) <= set(pods["app/Deployment/plain-0"])
    assert seen == {
        *("plain", "zone", "machine", "batch", "ssd", "tolerant"),
        *("apart", "port", "zone-spread", "node-spread", "near", "beside"),
    }


def test_a_plan_that_changes_nothing_leaves_the_cluster_as_it_is() -> None:
    found = small()

    assert carried_out(found, plan_of(found)) == found
    assert arrived(found, plan_of(found)) == 0


def test_a_plan_is_carried_out_with_as_few_moves_as_it_needs() -> None:
    found = small()
    plan = plan_of(found)
    gone = next(entry for entry in plan["nodes"] if entry["pool"] == "general-8" and entry["pods"])
    gone["state"] = "remove"
    plan["nodes"].append({**gone, "name": "fresh", "state": "boot"})

    after = carried_out(found, plan)

    assert {node.name for node in after.nodes} == {node.name for node in found.nodes} - {gone["name"]} | {"fresh"}
    moved = {(old.name, new.node) for old, new in zip(found.pods, after.pods, strict=True) if old.node != new.node}
    assert {node for _, node in moved} == {"fresh"}
    assert len(moved) == arrived(found, plan) == sum(gone["pods"].values())


def test_a_share_of_the_pods_changes() -> None:
    found = small()

    after = with_changes(found, 0.05, seed=3)

    before, now = {pod.name for pod in found.pods}, {pod.name for pod in after.pods}
    # 900 x 5 % = 45, of which half are gone and half are new.
    assert len(before - now) == 22
    assert len(now - before) == 22
    assert all(pod.node is None for pod in after.pods if pod.name not in before)
    for key, app in after.apps.items():
        assert app.owner.replicas == sum(pod.app == key for pod in after.pods)
