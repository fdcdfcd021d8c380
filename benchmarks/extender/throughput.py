"""One run of the real kube-scheduler over pods that wait: how many it binds a second."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.extender.api import Api
from benchmarks.extender.population import NAMESPACE, Size, waiting_pods, wanted
from benchmarks.extender.programs import ROOT, BenchmarkError, Extender, start_echo, start_ours
from tests.controlplane.cluster import ControlPlane

Json = dict[str, Any]

_MANIFEST: Final = ROOT / "manifests" / "base" / "scheduler-configuration.yaml"
_RUN_SECONDS: Final = 900.0
_MARGIN: Final = 0.05
"""Share of the bindings at either end that is left out: caches fill first, and the last pods have no queue behind."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What is compared: the extender, whose pods, and what the scheduler sends it.

    `share` is the part of the pods that the arm creates, for one that would take hours.
    """

    name: str
    extender: str = ""
    kind: str = "planned"
    whole_nodes: bool = False
    share: float = 1.0


ARMS: Final = (
    Arm("none"),
    Arm("none again"),
    Arm("Go echo", "echo"),
    Arm("planned", "ours"),
    Arm("without a plan", "ours", kind="guest"),
    Arm("whole nodes", "ours", whole_nodes=True, share=0.03),
)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run showed: pods bound a second, CPU for each, the share bound as planned, the extender's own counts.

    CPU is that of the scheduler and of the extender from the first binding on: it says what an arm costs even
    where other work on the machine makes the time say little.
    """

    arm: str
    repeat: int
    pods: int
    pods_per_second: float
    cpu_milliseconds_per_pod: float
    as_planned: float | None
    calls: dict[str, float]
    ready_seconds: float | None


class Bindings:
    """Notes when each pod of a run gets its node, by a watch of those that have one."""

    def __init__(self, api: Api, run: str) -> None:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=run%3D{run}&fieldSelector=spec.nodeName%21%3D"
        self._connection, self._answer = api.watch(f"{path}&watch=1")
        self.times: list[float] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the watch."""
        if self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._connection.close()

    def _read(self) -> None:
        try:
            for line in self._answer:
                if json.loads(line)["type"] == "ADDED":
                    self.times.append(time.monotonic())
        except (OSError, ValueError):
            return  # it was shut


class Bench:
    """A populated cluster on which runs follow one another."""

    def __init__(self, cluster: ControlPlane, api: Api, size: Size, owners: dict[str, str]) -> None:
        self._cluster = cluster
        self._api = api
        self._size = size
        self._owners = owners

    def run(self, arm: Arm, repeat: int) -> Run:
        """Create the pods, start the scheduler, time its bindings, and take the pods away again.

        Raises:
            BenchmarkError: not every pod was bound in time.
        """
        run = f"run-{self._size.nodes}-{arm.name.lower().replace(' ', '-')}-{repeat}"
        pods = max(10, round(self._size.pods * arm.share))
        self._api.request_all(waiting_pods(arm.kind, pods, f"{run}-scheduler", run, self._owners))
        try:
            with self._extender(arm) as extender:
                times, cpu_seconds = self._bind(arm, run, pods, extender)
                return Run(
                    arm.name,
                    repeat,
                    pods,
                    _rate(times),
                    cpu_seconds / pods * 1000,
                    self._as_planned(run) if arm.extender == "ours" and arm.kind == "planned" else None,
                    _calls(extender) if extender is not None and arm.extender == "ours" else {},
                    extender.ready_seconds if extender is not None and arm.extender == "ours" else None,
                )
        finally:
            self._delete(run)

    @contextlib.contextmanager
    def _extender(self, arm: Arm) -> Iterator[Extender | None]:
        if not arm.extender:
            yield None
            return
        echo = arm.extender == "echo"
        running = start_echo(self._cluster.folder) if echo else start_ours(self._cluster.admin_kubeconfig)
        try:
            yield running
        finally:
            running.stop()

    def _bind(self, arm: Arm, run: str, pods: int, extender: Extender | None) -> tuple[list[float], float]:
        bindings = Bindings(self._api, run)
        scheduler = self._cluster.start_scheduler(_configuration(arm, f"{run}-scheduler", extender))
        try:
            deadline = time.monotonic() + _RUN_SECONDS
            processes, before = [scheduler.popen.pid, *(extender.processes() if extender else [])], -1.0
            while len(bindings.times) < pods:
                if before < 0 and bindings.times:
                    before = _cpu_seconds(processes)
                if time.monotonic() > deadline or not scheduler.running():
                    raise BenchmarkError(f"{run}: {len(bindings.times)} of {pods} pods bound\n{scheduler.log_tail()}")
                time.sleep(0.02)
            return bindings.times, _cpu_seconds(processes) - before
        finally:
            scheduler.stop()
            bindings.close()

    def _as_planned(self, run: str) -> float:
        """Return the share of the run's pods on a node that had a place for them, counted from the API."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=run%3D{run}"
        found = Counter(pod["spec"]["nodeName"] for pod in self._api.request("GET", path)["items"])
        places = wanted(self._size)
        return sum(min(count, places.get(name, 0)) for name, count in found.items()) / found.total()

    def _delete(self, run: str) -> None:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=run%3D{run}"
        self._api.request("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})


def _configuration(arm: Arm, name: str, extender: Extender | None) -> Json:
    """Return the configuration of the manifests under another scheduler name, without election and for long calls."""
    found: Json = yaml.safe_load(_MANIFEST.read_text())
    found["leaderElection"] = {"leaderElect": False}
    found["profiles"] = [{"schedulerName": name}]
    found["clientConnection"] = {"qps": 5000, "burst": 10_000}
    if extender is None:
        del found["extenders"]
        return found
    (entry,) = found["extenders"]
    # A call that takes too long would look like a fast one: nobody is ignored here.
    entry |= {"urlPrefix": extender.url, "httpTimeout": "30s", "nodeCacheCapable": not arm.whole_nodes}
    entry["ignorable"] = False
    if arm.extender == "echo":
        del entry["prioritizeVerb"], entry["weight"]
    return found


def _cpu_seconds(processes: list[int]) -> float:
    """Return the user and system time that processes have taken, their threads that ended included."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _rate(times: list[float]) -> float:
    first, last = round(len(times) * _MARGIN), round(len(times) * (1 - _MARGIN)) - 1
    return (last - first) / (times[last] - times[first])


def _calls(extender: Extender) -> dict[str, float]:
    """Return the extender's calls by verb and outcome."""
    outcomes = ("planned", "free", "headroom", "not_expiring", "everything", "no_plan", "untouched", "fail_open")
    counted = {("filter", outcome) for outcome in outcomes} | {("prioritize", "scored"), ("prioritize", "fail_open")}
    lines = {pair: f'kinema_extender_requests_total{{outcome="{pair[1]}",verb="{pair[0]}"}}' for pair in counted}
    found = {" ".join(pair): extender.metric(line) for pair, line in sorted(lines.items())}
    return {pair: count for pair, count in found.items() if count}
