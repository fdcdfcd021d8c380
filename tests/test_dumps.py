"""Clusters of every kind, as kubectl prints them: each is planned, and each plan is right by the check."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import planner.planning
from planner.cli import main
from planner.model.effort import Effort, Progress, Watch
from planner.model.plan import Plan
from planner.optimizer import optimize
from planner.settings import OptimizerSettings
from planner.verifier import Examination
from tests.kube.documents import Json, budget, container, controller, node, pod

MACHINES = """machine_type,cpu_millicores,memory_bytes,max_pods,price_usd_per_hour,zones,ephemeral_storage_bytes
m2,1930,6000000000,8,0.067,,0
m4,3920,13899923456,110,0.134,zone-a zone-b,50000000000
m8,7910,29000000000,110,0.268,zone-a,0
"""
CPUS = ("50m", "0.1", ".25", "500000u", "1", "1e0")
MEMORIES = ("64Mi", "128M", "1.28e8", "262144Ki", "1Gi", "1073741824")
LABELS = {"node.kubernetes.io/instance-type": "m4", "topology.kubernetes.io/zone": "zone-a"}
MILLICORES = {"50m": 50, "0.1": 100, ".25": 250, "500000u": 500, "1": 1000, "1e0": 1000}


class Dump:
    """A cluster by chance; a node never holds more CPU than it can allocate."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.items: list[Json] = []
        self.free: dict[str, int] = {}
        for index in range(self.chance.choice((0, 1, 3, 5))):
            self.add_node(f"n{index}")
        agent = {"containers": [container("agent", "100m")], "tolerations": [{"operator": "Exists"}]}
        self.items.append(controller("DaemonSet", "agent", template=agent))
        for name in self.free:
            self.items.append(pod(f"agent-{name}", container("agent", "100m"), owner=("DaemonSet", "agent"), on=name))
        for index in range(self.chance.choice((1, 3, 6))):
            self.add_workload(f"w{index}")
        self.items.append(budget("b", "w0", **self.chance.choice(({"minAvailable": "50%"}, {"maxUnavailable": 1}))))
        self.items.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"}})
        self.chance.shuffle(self.items)

    def may(self, share: float) -> bool:
        return self.chance.random() < share

    def add_node(self, name: str) -> None:
        made = node(name, "3920m", "13899923456")
        made["metadata"]["labels"] = LABELS | {"kubernetes.io/hostname": name}
        if self.may(0.3):
            made["metadata"]["labels"]["node.kubernetes.io/instance-type"] = self.chance.choice(("m8", "exotic"))
        if self.may(0.15):
            made["spec"] = {"unschedulable": True}
        elif self.may(0.15):
            made["spec"] = {"taints": [{"key": "team", "effect": "NoSchedule"}]}
        if self.may(0.1):
            made["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
        self.items.append(made)
        self.free[name] = 0 if made["spec"] else 3800

    def spec(self) -> tuple[Json, str]:
        cpu = self.chance.choice(CPUS)
        spec: Json = {"containers": [container("main", cpu, self.chance.choice(MEMORIES))]}
        if self.may(0.2):
            spec["initContainers"] = [container("init", "50m", "64Mi")]
        if self.may(0.1):
            spec["nodeSelector"] = {"topology.kubernetes.io/zone": "zone-a"}
        if self.may(0.1):
            term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "w1"}}}
            spec["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        if self.may(0.1):
            spec["topologySpreadConstraints"] = [{"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
        if self.may(0.1):
            spec["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
        if self.may(0.05):
            spec["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] = "1"
        return spec, cpu

    def add_workload(self, name: str) -> None:
        spec, cpu = self.spec()
        kind = self.chance.choice(("Deployment", "Deployment", "StatefulSet", "Job", "Rollout", "Pod"))
        size = 1 if kind == "Pod" else self.chance.choice((0, 1, 2, 5))
        owner = None if kind == "Pod" else (kind, name)
        if kind == "Job":
            self.items.append(
                controller(kind, name, template=spec, status={"active": size}) | {"apiVersion": "batch/v1"}
            )
        elif kind in ("Deployment", "StatefulSet") and self.may(0.9):  # else the owner was not dumped
            self.items.append(controller(kind, name, size, template=spec))
        if kind == "Deployment":
            self.items.append(controller("ReplicaSet", f"{name}-x", size, template=spec, owner=owner))
            owner = ("ReplicaSet", f"{name}-x")
        for index in range(size):
            places = [n for n, free in self.free.items() if free >= MILLICORES[cpu] + 50]
            on = self.chance.choice(places) if places and self.may(0.8) else "gone" if self.may(0.1) else ""
            rest = {key: value for key, value in spec.items() if key != "containers"}
            made = pod(f"{name}-{index}", *spec["containers"], owner=owner, on=on, labels={"app": name}, **rest)
            if self.may(0.1):
                made["status"] = {"phase": "Succeeded"}
            elif self.may(0.05):
                made["metadata"]["deletionTimestamp"] = "2025-01-01T00:00:00Z"
            if on in self.free:
                self.free[on] -= MILLICORES[cpu] + 50
            self.items.append(made)

    def pools(self) -> Json:
        limits = self.chance.choice(({}, {"min": 1}, {"min": 1, "max": 6}))
        return [{"name": "general", "machineType": "m4"} | limits, {"name": "big", "machineType": "m8"}]

    def text(self) -> str:
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": self.items})


def at_once(
    examination: Examination,
    settings: OptimizerSettings,
    report: Callable[[Progress], None],
    hurried: Callable[[], bool],
    _: object = None,
) -> Plan:
    """Optimize in this process: loading cvxpy anew takes a second."""
    effort = Effort(settings.solver, settings.time_limit_seconds, settings.target_gap)
    return optimize(examination.inputs, effort, Watch(time.monotonic, report, hurried))


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner.planning, "solve", at_once)


def made_plan(capsysbinary: pytest.CaptureFixture[bytes], files: tuple[str, ...]) -> Any:
    assert main(("plan", *files, "--output", "json")) == 0, capsysbinary.readouterr().err
    return json.loads(capsysbinary.readouterr().out)


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_every_cluster_is_planned_rightly_and_whatever_the_order_of_its_objects(
    seed: int, pooled: bool, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    dump = Dump(seed)
    files = ("--cluster", f"{tmp_path}/d.json", "--machines", f"{tmp_path}/m.csv")
    (tmp_path / "m.csv").write_text(MACHINES)
    if pooled:
        for item in dump.items:
            if item["kind"] == "Node":
                item["metadata"]["labels"]["cloud.google.com/gke-nodepool"] = "general"
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(dump.pools()))
        files += ("--pools", f"{tmp_path}/p.yaml")
    (tmp_path / "d.json").write_text(dump.text())
    plan = made_plan(capsysbinary, files)
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert main(("verify", f"{tmp_path}/plan.json", *files)) == 0, capsysbinary.readouterr().out
    capsysbinary.readouterr()

    dump.items.reverse()
    (tmp_path / "d.json").write_text(dump.text())
    again = made_plan(capsysbinary, files)
    del plan["timings_seconds"], again["timings_seconds"]
    assert plan == again
