"""What happens to a cluster after a plan: the plan is carried out, and then people change some of the pods."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchmarks.optimizer.cluster import POOLS, Cluster, Placed, node_of

_CHANGED_MOST = 0.3
"""Of a workload's replicas, at most this share comes or goes."""


def carried_out(cluster: Cluster, plan: Mapping[str, Any]) -> Cluster:
    """Return the cluster with the plan's nodes, each with so many pods of a workload as the plan says.

    As many pods as may stay where they are do; whatever the plan leaves unplaced is pending.
    """
    pools = {pool.name: pool for pool in POOLS}
    known = {facts.name: facts for facts in cluster.nodes}
    left = [entry for entry in plan["nodes"] if entry["state"] != "remove"]
    nodes = [known.get(entry["name"]) or node_of(pools[entry["pool"]], entry["name"], entry["zone"]) for entry in left]
    wanted: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in left:
        for key, count in entry["pods"].items():
            wanted[key][entry["name"]] = count
    placed: dict[str, Placed] = {}
    waiting = []
    # Pinned pods first: they stay whatever the others of their workload do.
    for pod in sorted(cluster.pods, key=lambda pod: not pod.pinned):
        if pod.node is not None and wanted[pod.app][pod.node] > 0:
            wanted[pod.app][pod.node] -= 1
            placed[pod.name] = pod
        else:
            waiting.append(pod)
    for pod in waiting:
        node = next((name for name, count in wanted[pod.app].items() if count > 0), None)
        if node is not None:
            wanted[pod.app][node] -= 1
        placed[pod.name] = replace(pod, node=node)
    return Cluster(tuple(nodes), cluster.apps, tuple(placed[pod.name] for pod in cluster.pods))


def with_changes(cluster: Cluster, share: float, seed: int) -> Cluster:
    """Return the cluster after so large a share of its pods changed: half of them gone, as many new ones pending.

    Workloads that spread are left alone: to remove any of their pods might break what they ask for.
    """
    chance = random.Random(seed)
    apps = dict(cluster.apps)
    ready = [key for key, app in apps.items() if "spread" not in app.kind and app.owner.replicas >= 4]
    chance.shuffle(ready)
    pods: dict[str, list[Placed]] = defaultdict(list)
    for pod in cluster.pods:
        pods[pod.app].append(pod)
    half = round(len(cluster.pods) * share / 2)
    gone, come = half, half
    for key in ready:
        count = max(1, int(apps[key].owner.replicas * _CHANGED_MOST))
        running = [pod for pod in pods[key] if not pod.pinned]
        if gone > 0:
            count = min(count, gone)
            leaving = {pod.name for pod in chance.sample(running, min(count, len(running)))}
            pods[key] = [pod for pod in pods[key] if pod.name not in leaving]
            gone -= len(leaving)
        elif come > 0:
            count = min(count, come)
            pods[key] += [Placed(key, f"{apps[key].owner.name}-new-{number}", None) for number in range(count)]
            come -= count
        app = apps[key]
        apps[key] = replace(app, owner=replace(app.owner, replicas=len(pods[key])))
    return Cluster(cluster.nodes, apps, tuple(pod for key in apps for pod in pods[key]))


def arrived(before: Cluster, plan: Mapping[str, Any]) -> int:
    """Return how many running pods the plan moves to another node, counted from its placement alone."""
    there: Counter[tuple[str, str]] = Counter()
    waiting: Counter[str] = Counter()
    for pod in before.pods:
        if pod.node is None:
            waiting[pod.app] += 1
        else:
            there[pod.app, pod.node] += 1
    coming: Counter[str] = Counter()
    for entry in plan["nodes"]:
        if entry["state"] != "remove":
            for key, count in entry["pods"].items():
                coming[key] += max(0, count - there[key, entry["name"]])
    return sum(max(0, count - waiting[key]) for key, count in coming.items())
