"""The command: `python -m benchmarks.extender [--short]`; prints the tables, writes the same as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.extender.api import Api
from benchmarks.extender.calls import Calls, measure
from benchmarks.extender.population import KINDS, NAMESPACE, Size, bound_pods, nodes, untaint, workloads
from benchmarks.extender.programs import ROOT, BenchmarkError, start_ours
from benchmarks.extender.table import calls_table, throughput_table
from benchmarks.extender.throughput import ARMS, Bench, Run
from tests.controlplane.build import BuildError, build
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.processes import ControlPlaneError

_OUTPUT: Final = ROOT / "build" / "benchmarks" / "extender"

_DISTURBED_LOAD: Final = 1.0
"""Load average above which the figures say more about the machine's other work."""


def main() -> int:
    """Run every size; each is written when it is finished, and its runs are told one by one."""
    asked = _parser().parse_args()
    arms = [arm for arm in ARMS if not asked.arms or arm.name in asked.arms]
    if asked.arms and len(arms) < len(set(asked.arms)):
        sys.stderr.write(f"the arms are: {', '.join(arm.name for arm in ARMS)}\n")
        return 2
    if (load := os.getloadavg()[0]) > _DISTURBED_LOAD:
        sys.stderr.write(f"the machine is busy (load average {load:.1f}): take the ratios only, and with care\n")
    asked.output.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    tables: list[str] = []
    try:
        for count in asked.nodes:
            size = Size(count, asked.bound, asked.pods)
            with tempfile.TemporaryDirectory() as folder, ControlPlane(build(), Path(folder)) as cluster:
                runs, calls, ready = _measure(cluster, size, arms, asked.repeats, asked.calls)
            if runs:
                tables.append(throughput_table(size, runs))
            tables.append(calls_table(size, ready, calls))
            results.append(
                {
                    "size": asdict(size),
                    "runs": [asdict(run) for run in runs],
                    "ready_seconds": ready,
                    "calls": [asdict(one) for one in calls],
                }
            )
            _write(asked.output, tables, results, load)
    except (BenchmarkError, BuildError, ControlPlaneError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    print("\n".join(tables))
    return 0


def _measure(
    cluster: ControlPlane, size: Size, arms: list[Any], repeats: int, calls: int
) -> tuple[list[Run], list[Calls], list[float]]:
    api, owners = _populate(cluster, size)
    bench = Bench(cluster, api, size, owners)
    runs = []
    for repeat in range(repeats):
        # Every arm once a repeat, each time beginning with another one: what changes slowly hits all alike.
        for arm in [*arms[repeat % len(arms) :], *arms[: repeat % len(arms)]] if arms else []:
            runs.append(bench.run(arm, repeat))
            _say(f"{size.nodes} nodes, repeat {repeat + 1}: {arm.name} {runs[-1].pods_per_second:.1f} pods/s")
    found, ready = [], []
    for kind in KINDS:
        extender = start_ours(cluster.admin_kubeconfig)
        try:
            ready.append(extender.ready_seconds)
            found.append(measure(extender, size, kind, owners, calls))
        finally:
            extender.stop()
    return runs, found, ready


def _populate(cluster: ControlPlane, size: Size) -> tuple[Api, dict[str, str]]:
    """Create everything but the pods of the runs; return the API and the ReplicaSets' uids by workload."""
    started = time.monotonic()
    cluster.create_namespace(NAMESPACE)
    cluster.stop_controllers()
    api = Api(cluster.admin_kubeconfig, cluster.certificate_authority)
    api.request_all(nodes(size))
    api.request_all(untaint(size))
    made = api.request_all(workloads())
    owners = {item["metadata"]["name"].removesuffix("-7d4f"): item["metadata"]["uid"] for item in made}
    api.request_all(bound_pods(size, owners))
    _say(f"{size.nodes} nodes and {size.bound} pods made in {time.monotonic() - started:.0f} s")
    return api, owners


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extender", description=__doc__)
    parser.add_argument("--short", action="store_true", help="200 nodes and two repeats: a minute, for a first look")
    parser.add_argument("--nodes", type=int, nargs="+", metavar="COUNT", help="sizes of the cluster (1000 5000)")
    parser.add_argument("--bound", type=int, metavar="PODS", help="pods that stand on the nodes (30000)")
    parser.add_argument("--pods", type=int, metavar="PODS", help="pods that each run schedules (2000)")
    parser.add_argument("--repeats", type=int, metavar="COUNT", help="of every arm (5); 0: calls only")
    parser.add_argument("--calls", type=int, default=1000, metavar="COUNT", help="filter calls that are timed (1000)")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help=", ".join(arm.name for arm in ARMS))
    parser.add_argument("--output", type=Path, default=_OUTPUT, metavar="DIR", help="for table.md and results.json")
    short = parser.parse_known_args()[0].short
    small, large = ([200], 1000, 200, 2), ([1000, 5000], 30_000, 2000, 5)
    sizes = dict(zip(("nodes", "bound", "pods", "repeats"), small if short else large, strict=True))
    parser.set_defaults(**sizes)
    return parser


def _write(folder: Path, tables: list[str], results: list[dict[str, Any]], load: float) -> None:
    (folder / "table.md").write_text("\n".join(tables), encoding="utf-8")
    asking = ["git", "describe", "--always", "--dirty"]
    revision = subprocess.run(asking, cwd=ROOT, capture_output=True, text=True, check=False)
    about = {
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "revision": revision.stdout.strip(),
        "cores": os.cpu_count(),
        "load_average": load,
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    body = {"about": about, "sizes": results}
    (folder / "results.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
