"""Generated clusters on the real control plane: populated, misplaced, and taken to the plan by Kinema itself.

By hand: `python -m tests.controlplane.generated SEED [LAST]` (`--out FOLDER` keeps what is needed to look into a seed).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from planner.model.plan import Plan
from planner.rescheduler import CARRIED_OUT
from tests.controlplane.build import build
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.installation import Installation, finish
from tests.controlplane.judgement import Judgement, Owners, is_planned, leasts, of_kind
from tests.controlplane.kwok import STARTS_SLOWLY
from tests.controlplane.live import OVERHEAD, RUNTIME_CLASS, LiveCluster, live
from tests.controlplane.population import Population
from tests.controlplane.readiness import Readiness
from tests.googlecloud.fake import FakeGoogleCloud

Json = dict[str, Any]

NAMESPACES = ("shop", "data")
CEILINGS = (0.5, 1.0, 0.25)
"""The ceilings of unavailability, by seed."""


@dataclass
class Trial:
    """What came of one seed: the plan, if one was carried out, and everything that is not as it should be."""

    seed: int
    outcome: str = ""
    plan: Plan | None = None
    moved: int = 0
    problems: list[str] = field(default_factory=list)
    waited: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    before: Json = field(default_factory=dict)
    output: str = ""

    def __str__(self) -> str:
        found: Counter[str] = Counter()
        if self.plan is not None:
            found.update(node.state for node in self.plan.nodes)
            found.update(workload.strategy for workload in self.plan.workloads.values())
        counts = ", ".join(f"{count} {what}" for what, count in sorted(found.items()))
        head = f"seed {self.seed}: {self.outcome or '?'} ({counts}), {self.moved} pods moved, {self.seconds}"
        return "\n".join([head, *(f"  {problem}" for problem in self.problems[:8])])


class Ground(Installation):
    """One control plane with Kinema's parts, on which clusters follow each other."""

    def prepare(self) -> None:
        """Install Kinema's parts, and what the clusters have in common."""
        self.install()
        for name in NAMESPACES:
            self.cluster.create_namespace(name)
        overhead = {"handler": RUNTIME_CLASS, "overhead": {"podFixed": OVERHEAD}, "metadata": {"name": RUNTIME_CLASS}}
        self.cluster.request("POST", "/apis/node.k8s.io/v1/runtimeclasses", overhead)

    def trials(self, seeds: Iterable[int]) -> Iterator[Trial]:
        """Try one seed after the other, and take each cluster away; a failure is a problem like others."""
        for seed in seeds:
            trial = Trial(seed)
            try:
                self._attempt(trial)
            except Exception:  # noqa: BLE001  # one seed must not end the others
                trial.problems.append(traceback.format_exc())
            yield trial
            self.reset()

    def _attempt(self, trial: Trial) -> None:
        """Create the cluster of a seed, let Kinema run one iteration on it and judge the end; all stays as it is."""
        made = live(trial.seed, self.scheduler_name)
        with FakeGoogleCloud(made.fake_pools(), boot_seconds=0.3, delete_seconds=0.1) as cloud:
            cloud.on_instance_created = lambda name, pool, zone, _type: self.cluster.add_node(
                replace(made.pools[pool].node(name, zone), annotations={STARTS_SLOWLY: "true"})
            )
            with _timed(trial, "populate"):
                Population(self.cluster, made).settle()
            trial.before = self.dump()
            with _timed(trial, "run"):
                self._run(made, cloud, trial)
            if trial.plan is not None:
                machines = {machine.name: machine.state for machine in cloud.instances()}
                owners = Owners(self.cluster.items("/apis/apps/v1/replicasets"))
                nodes = self.cluster.items("/api/v1/nodes")
                trial.problems += Judgement(trial.plan, nodes, self.pods(), owners, machines).problems()

    def reset(self) -> None:
        """Take everything away that belongs to a cluster."""
        self.cluster.empty()
        if self.record() is not None:
            self.cluster.request("DELETE", "/api/v1/namespaces/kube-system/configmaps/kinema-plan")
        for namespace in (*NAMESPACES, "kube-system", "default"):
            self.cluster.request("DELETE", f"/api/v1/namespaces/{namespace}/events")

    def dump(self) -> Json:
        """Return the cluster as `kubectl get … -A -o json` prints it."""
        kinds = "nodes,pods,deployments,replicasets,statefulsets,daemonsets,jobs,hpa,pdb,pv,pvc,namespaces"
        found: Json = json.loads(self.cluster.kubectl("get", kinds, "-A", "-o", "json"))
        return found

    def _run(self, made: LiveCluster, cloud: FakeGoogleCloud, trial: Trial) -> None:
        table = self.folder / "machines.csv"
        table.write_text(made.machine_table())
        settings = self.settings(cloud)
        settings["cloud"]["machines"] = str(table)
        settings["stability"] = {"pending_grace_seconds": 0}
        settings["processor"] = {"saving_threshold": 0}
        settings["optimizer"] = {"time_limit_seconds": 10, "target_gap": 0.02}
        ceiling = CEILINGS[made.seed % len(CEILINGS)]
        # Longer than the two minutes for which a pod may count as being disrupted that is back already.
        settings["move"] |= {"unavailability_ceiling": ceiling, "standstill_timeout_seconds": 150}
        steered_before = self._steered()
        with Readiness(self.cluster, tuple(leasts(trial.before, ceiling))) as readiness:
            trial.output = finish(self.launch(settings), 400)
        trial.outcome = trial.output.rpartition("iteration ended: ")[2].strip()
        trial.problems += [*readiness.failures, *readiness.violations[:3]]
        trial.waited = readiness.unschedulable
        record = self.record()
        if record is not None and trial.outcome in ("carried-out", "abandoned"):
            trial.plan = record.plan
            if (record.phase, record.reason) != ("done", CARRIED_OUT):
                trial.problems.append(f"the plan ended as {record.phase}: {record.reason}")
        elif trial.outcome != "dropped":
            trial.problems.append(f"there is no plan: {trial.output}")
        old = {pod["metadata"]["uid"] for pod in of_kind(trial.before, "Pod")}
        new = [pod for pod in self.pods() if pod["metadata"]["uid"] not in old and pod["spec"].get("nodeName")]
        trial.moved = len(new)
        if (steered := self._steered() - steered_before) < len(new):
            steered_otherwise = self.extender.ask("GET", "/metrics")[1].decode() if self.extender else ""
            trial.output += steered_otherwise
            trial.problems.append(f"{len(new)} pods were put anew, the extender steered {steered:g} of them")
        trial.problems += self._bound_otherwise(new)

    def _steered(self) -> float:
        """Return for how many pods the extender has named their planned node."""
        assert self.extender is not None
        self.extender.connection.close()  # one that stood idle for long may be closed at the other end
        return self.extender.metric('kinema_extender_requests_total{outcome="planned",verb="filter"}')

    def _bound_otherwise(self, pods: list[Json]) -> Iterator[str]:
        """Yield the pods that no real scheduler says to have assigned to their node."""
        wanted = {pod["metadata"]["uid"] for pod in pods}

        def told() -> dict[str, tuple[str, str]]:
            found = {
                event["involvedObject"]["uid"]: (event.get("reportingComponent", ""), event["message"])
                for event in self.cluster.items("/api/v1/events")
                if event["reason"] == "Scheduled"
            }
            return found if wanted <= found.keys() else {}

        # An event may come a moment later than the binding that it tells of.
        said = self.cluster.eventually(told, "the events of all bindings") if wanted else {}
        for pod in pods:
            name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
            who, message = said[pod["metadata"]["uid"]]
            if who != self.scheduler_name or not message.endswith(f" to {node}"):
                yield f"{name} is on {node}, but {who} says: {message}"

    def pods(self) -> list[Json]:
        """Return the live pods that are not bound to their node's life."""
        return [pod for pod in self.cluster.items("/api/v1/pods") if is_planned(pod)]


@contextmanager
def _timed(trial: Trial, what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    trial.seconds[what] = round(time.monotonic() - began, 1)


@contextmanager
def opened(cluster: ControlPlane, folder: Path, steering: Any = "extender") -> Iterator[Ground]:
    """Prepare a control plane for clusters that follow each other."""
    ground = Ground(cluster, folder, steering)
    try:
        ground.prepare()
        yield ground
    finally:
        ground.stop()


def main() -> int:
    """Try the seeds; exit code 1 where anything is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.controlplane.generated", description=__doc__)
    parser.add_argument("first", type=int, help="the first seed")
    parser.add_argument("last", type=int, nargs="?", help="the last seed (default: the first)")
    parser.add_argument("--steering", choices=("extender", "scheduler"), default="extender")
    parser.add_argument("--out", type=Path, help="a folder for dumps, plans and logs of seeds with problems")
    arguments = parser.parse_args()
    failed = 0
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with (
            ControlPlane(build(), folder / "control-plane") as cluster,
            opened(cluster, folder, arguments.steering) as ground,
        ):
            for trial in ground.trials(range(arguments.first, (arguments.last or arguments.first) + 1)):
                outcomes[trial.outcome] += 1
                failed += bool(trial.problems)
                _say(str(trial))
                if arguments.out and trial.problems:
                    _keep(arguments.out / str(trial.seed), ground, trial)
    _say(f"{failed} seeds failed; {dict(outcomes)}")
    return int(bool(failed))


def _keep(folder: Path, ground: Ground, trial: Trial) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "before.json").write_text(json.dumps(trial.before, indent=1))
    (folder / "after.json").write_text(json.dumps(ground.dump(), indent=1))
    (folder / "planner.log").write_text(trial.output)
    (folder / "problems.txt").write_text("\n".join([*trial.problems, *map(str, trial.waited.items())]))
    if (record := ground.record()) is not None:
        from planner.model.plan_json import encode_plan

        (folder / "plan.json").write_bytes(encode_plan(record.plan))
    if (table := ground.folder / "machines.csv").is_file():
        (folder / "machines.csv").write_text(table.read_text())


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
