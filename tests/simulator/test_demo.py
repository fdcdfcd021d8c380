"""The demo's cluster and what it measures around an iteration."""

from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console

from planner.cloud.gcp.machines import builtin_machines
from planner.kube.reader import read_snapshot
from planner.model.disruption import DisruptionRules, assess, mobilities
from planner.model.plan import EvictPod
from planner.ports import NODES, PODS
from simulator.demo import demonstrate
from simulator.scenarios import ZONES, badly_packed
from simulator.world import DEFAULT_START_SECONDS, World

MACHINES = builtin_machines("us-central1")
RULES = DisruptionRules()


def test_the_demos_cluster_is_badly_packed_and_of_a_realistic_mix() -> None:
    scenario = badly_packed(MACHINES, DEFAULT_START_SECONDS, seed=7)
    world = World(scenario)
    world.settle()
    snapshot = read_snapshot(world.kubernetes, world.cloud, world.clock)

    assert (len(snapshot.nodes), len(snapshot.pods), len(scenario.workloads)) == (60, 500, 40)
    assert {node.zone for node in snapshot.nodes} == set(ZONES)
    assert {w.kind for w in scenario.workloads} == {"Deployment", "StatefulSet", "DaemonSet", "Pod"}
    requested = sum(pod.requests.cpu_millicores for pod in snapshot.pods)
    allocatable = sum(node.allocatable.cpu_millicores for node in snapshot.nodes)
    assert requested / allocatable < 0.6
    rules = assess(snapshot, scenario.catalogue, RULES, mobilities(snapshot, RULES))
    # Two bare pods, and two pods that carry do-not-disrupt.
    assert len(rules.pins) == 4


def test_equal_seeds_describe_equal_clusters() -> None:
    first, again, other = (badly_packed(MACHINES, DEFAULT_START_SECONDS, seed) for seed in (1, 1, 2))

    assert first == again
    assert first.workloads != other.workloads


def evict_one_and_boot_one(world: World, report: Callable[[object], None]) -> str:
    """Stand in for an iteration: move one pod of a Deployment of many replicas, and add a machine."""
    pod = next(p for p in world.server.store.bodies(PODS) if p["metadata"]["labels"]["app"] == "service-02")
    namespace, name, uid = (pod["metadata"][field] for field in ("namespace", "name", "uid"))
    world.kubernetes.evict(namespace, name, uid)
    report(EvictPod(namespace, name, uid, "team-1/Deployment/service-02", pod["spec"]["nodeName"], "a test"))
    world.cloud.boot("dense", ZONES[0], ["gke-extra"])
    world.run_until(lambda: world.server.find(NODES, ("", "gke-extra")) is not None)
    world.run(60)
    return "carried-out"


def test_the_demo_measures_what_an_iteration_did() -> None:
    console = Console(file=io.StringIO(), width=120)

    result = demonstrate(MACHINES, evict_one_and_boot_one, console)

    assert result.outcome == "carried-out"
    assert result.nodes == (60, 61)
    # One e2-standard-16 more: 0.53609 $/h.
    assert result.cost_nanousd_per_hour[1] - result.cost_nanousd_per_hour[0] == 536_090_000
    assert result.moved == 1
    assert result.violations == 0
    assert result.lowest is not None
    assert (result.lowest.workload, result.lowest.ready) == ("team-1/Deployment/service-02", 35)
    # 36 pods of which one was evicted; 25 % of them may be unavailable.
    # The evicted pod, asked for filter and prioritize, and the new node's two DaemonSet pods, one candidate each.
    assert (result.extender_calls, result.extender_faults) == (4, 0)
    output = console.file.getvalue()
    assert "boot     gke-extra" in output
    assert "One iteration: carried-out" in output
