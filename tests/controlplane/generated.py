"""Generated clusters on the real control plane: populated, misplaced, and taken to the plan by Kinema itself.

By hand: `python -m tests.controlplane.generated SEED [LAST]` (`--out FOLDER` keeps what is needed to look into a seed).
"""

from __future__ import annotations

import argparse
import json
import math
import random
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

from planner import labels as keys
from planner.model.plan import Plan
from planner.rescheduler import CARRIED_OUT
from simulator.selectors import scaled, selects
from tests.controlplane.build import build
from tests.controlplane.cluster import STARTS_SLOWLY, ControlPlane, ControlPlaneError, FakeNode
from tests.controlplane.installation import Installation, finish
from tests.controlplane.live import OVERHEAD, RUNTIME_CLASS, LiveCluster, live, path_of
from tests.controlplane.readiness import Least, Readiness, is_ready, unschedulable
from tests.googlecloud.fake import FakeGoogleCloud

Json = dict[str, Any]

NAMESPACES = ("shop", "data")
CEILINGS = (0.5, 1.0, 0.25)
"""The ceilings of unavailability, by seed."""

_TAKEN_BACK = 0.85
"""In which share of the clusters no pod waits for a node that only pods' rules keep it from."""

_KINDS = ("deployments", "replicasets", "statefulsets", "daemonsets", "jobs", "poddisruptionbudgets")
_GROUPS = {"jobs": "batch/v1", "poddisruptionbudgets": "policy/v1"}


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
            try:
                trial = self.attempt(seed)
            except Exception:  # noqa: BLE001  # one seed must not end the others
                trial = Trial(seed, "error", problems=[traceback.format_exc()])
            yield trial
            self.reset()

    def attempt(self, seed: int) -> Trial:
        """Create the cluster of a seed, let Kinema run one iteration on it and judge the end; all stays as it is."""
        made = live(seed, self.scheduler_name)
        trial = Trial(seed)
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
                trial.problems += _Judgement(self, cloud, trial, trial.plan).problems()
        return trial

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
        with Readiness(self.cluster, tuple(_leasts(trial.before, ceiling))) as readiness:
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
        old = {pod["metadata"]["uid"] for pod in _of(trial.before, "Pod")}
        new = [pod for pod in self.pods() if pod["metadata"]["uid"] not in old and pod["spec"].get("nodeName")]
        trial.moved = len(new)
        if (steered := self._steered() - steered_before) < len(new):
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
        return [pod for pod in self.cluster.items("/api/v1/pods") if _counts(pod)]


class Population:
    """Creates a cluster in two waves, so that it is scattered: more nodes and pods come, then some pods go."""

    def __init__(self, cluster: ControlPlane, made: LiveCluster) -> None:
        self._cluster = cluster
        self._made = made
        self._chance = random.Random(f"population {made.seed}")

    def settle(self) -> None:
        """Return once every pod is Ready, or known to find no node, and all of this is counted."""
        for namespace in self._made.namespaces:
            name, labels = namespace["metadata"]["name"], namespace["metadata"]["labels"]
            self._cluster.request("PATCH", f"/api/v1/namespaces/{name}", {"metadata": {"labels": labels}})
        nodes, workloads = self._made.existing(), list(self._made.workloads)
        self._chance.shuffle(nodes)
        self._chance.shuffle(workloads)
        for body in self._made.infrastructure:
            self._cluster.request("POST", path_of(body), body)
        first = max(2, round(len(nodes) * 0.6))
        self._wave(nodes[:first], workloads[: len(workloads) // 2])
        self._wave(nodes[first:], workloads[len(workloads) // 2 :])
        for body in workloads:
            if "replicas" in body["spec"] and "volumeClaimTemplates" not in body["spec"]:
                self._scale(body, body["spec"]["replicas"])
        self._rest("every pod to have a node or to be known to find none")
        if self._chance.random() < _TAKEN_BACK:
            self._take_back_what_waits(workloads)
        self._mark_some()
        self._rest("the cluster to be at rest")

    def _wave(self, nodes: list[FakeNode], workloads: list[Json]) -> None:
        self._cluster.add_node(*nodes)
        self._rest("the DaemonSets' pods to run")
        for body in workloads:
            replicas = body["spec"].get("replicas")
            more = body
            if replicas and "volumeClaimTemplates" not in body["spec"] and self._chance.random() < 0.5:
                more = {**body, "spec": {**body["spec"], "replicas": replicas + self._chance.randint(1, 3)}}
            self._cluster.request("POST", path_of(body), more)
        self._rest("the pods of a wave to have nodes")

    def _scale(self, body: Json, replicas: int) -> None:
        self._cluster.request("PATCH", f"{path_of(body)}/{body['metadata']['name']}", {"spec": {"replicas": replicas}})

    def _take_back_what_waits(self, workloads: list[Json]) -> None:
        """Let workloads do without the pods that find no node; what is then still without one waits for Kinema."""
        owners = Owners(self._cluster)
        pods = [pod for pod in self._cluster.items("/api/v1/pods") if _counts(pod)]
        waiting = Counter(owners.workload(pod) for pod in pods if not pod["spec"].get("nodeName"))
        for body in workloads:
            count = waiting[_key(body)]
            if count and "replicas" in body["spec"]:
                self._scale(body, body["spec"]["replicas"] - count)
            elif count:
                self._cluster.request("DELETE", f"{path_of(body)}/{body['metadata']['name']}")
        self._rest("the pods to go that found no node")

    def _mark_some(self) -> None:
        """Cordon a node now and then, and let a pod now and then ask not to be disrupted."""
        for node in self._cluster.items("/api/v1/nodes"):
            if self._chance.random() < 0.03:
                cordon = {"spec": {"unschedulable": True}}
                self._cluster.request("PATCH", f"/api/v1/nodes/{node['metadata']['name']}", cordon)
        for pod in sorted(self._cluster.items("/api/v1/pods"), key=lambda p: str(p["metadata"]["name"])):
            if self._chance.random() < 0.01:
                meta = pod["metadata"]
                wish = {"metadata": {"annotations": {keys.DO_NOT_DISRUPT: "true"}}}
                self._cluster.request("PATCH", f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", wish)

    def _rest(self, what: str) -> None:
        """Wait until every pod is where it will be, and every controller and budget has counted its pods."""
        try:
            self._cluster.eventually(lambda: not self._unrest(), what)
        except ControlPlaneError as error:
            raise ControlPlaneError(f"{error}: {self._unrest()}") from None

    def _unrest(self) -> str:
        """Name something that is still under way."""
        pods = self._cluster.items("/api/v1/pods")
        live_pods = [pod for pod in pods if pod["status"]["phase"] not in ("Succeeded", "Failed")]
        owned: Counter[str] = Counter()
        ready: Counter[str] = Counter()
        if going := [pod for pod in pods if "deletionTimestamp" in pod["metadata"]]:
            return f"{going[0]['metadata']['name']} is being deleted"
        if coming := [pod for pod in live_pods if not is_ready(pod) and not unschedulable(pod)]:
            return f"{coming[0]['metadata']['name']} is starting: {coming[0]['status']}"
        for pod in live_pods:
            for owner in pod["metadata"].get("ownerReferences", ()):
                owned[owner["uid"]] += 1
                ready[owner["uid"]] += is_ready(pod)
        for kind in _KINDS:
            for body in self._cluster.items(f"/apis/{_GROUPS.get(kind, 'apps/v1')}/{kind}"):
                if not _is_counted(kind, body, owned, ready, live_pods):
                    return f"{kind} {body['metadata']['name']}: {body.get('status')}"
        return ""


def _is_counted(kind: str, body: Json, owned: Counter[str], ready: Counter[str], pods: list[Json]) -> bool:
    """Say whether the controller has done what it is asked for, and its status says how things are."""
    status, spec, uid = body.get("status", {}), body["spec"], body["metadata"]["uid"]
    if kind == "jobs":
        done = any(c["type"] == "Complete" and c["status"] == "True" for c in status.get("conditions", ()))
        return done or owned[uid] == spec["parallelism"]
    if status.get("observedGeneration", 0) < body["metadata"].get("generation", 1):
        return False
    if kind == "daemonsets":
        wanted = status["desiredNumberScheduled"]
        return bool(owned[uid] == wanted and status.get("numberReady", 0) == ready[uid])
    if kind == "poddisruptionbudgets":
        namespace, selector = body["metadata"]["namespace"], spec["selector"]
        covered = [p for p in pods if p["metadata"]["namespace"] == namespace and selects(selector, p)]
        failed = any(c.get("reason") == "SyncFailed" for c in status.get("conditions", ()))
        return failed or bool(status["currentHealthy"] == sum(map(is_ready, covered)))
    if kind == "deployments":
        return bool(status.get("updatedReplicas", 0) == status.get("replicas", 0) == spec["replicas"])
    counted = status.get("replicas", 0) == owned[uid] and status.get("readyReplicas", 0) == ready[uid]
    return bool(counted and owned[uid] == spec["replicas"])


class Owners:
    """Knows which workload a pod belongs to, as "namespace/Kind/name"."""

    def __init__(self, cluster: ControlPlane) -> None:
        self._above = {
            body["metadata"]["uid"]: owner
            for body in cluster.items("/apis/apps/v1/replicasets")
            for owner in body["metadata"].get("ownerReferences", ())
        }

    def workload(self, pod: Json) -> str:
        owner = next(iter(pod["metadata"].get("ownerReferences", ())), None)
        if owner is None:
            return f"{pod['metadata']['namespace']}/Pod/{pod['metadata']['name']}"
        owner = self._above.get(owner["uid"], owner)
        return f"{pod['metadata']['namespace']}/{owner['kind']}/{owner['name']}"


def _key(body: Json) -> str:
    return f"{body['metadata']['namespace']}/{body['kind']}/{body['metadata']['name']}"


def _counts(pod: Json) -> bool:
    """Say whether the pod is live, and of no DaemonSet."""
    owned_by_daemon = any(o["kind"] == "DaemonSet" for o in pod["metadata"].get("ownerReferences", ()))
    over = pod["status"]["phase"] in ("Succeeded", "Failed") or "deletionTimestamp" in pod["metadata"]
    return not over and not owned_by_daemon


def _of(dump: Json, kind: str) -> list[Json]:
    return [body for body in dump["items"] if body["kind"] == kind]


def _leasts(dump: Json, ceiling: float) -> Iterator[Least]:
    """Yield how many pods must stay ready: by the budgets, and by each workload's strategy and the ceiling.

    What was not ready in the beginning may stay so.
    """
    pods = {pod["metadata"]["uid"]: pod for pod in _of(dump, "Pod")}

    def capped(what: str, body: Json, least: int) -> Least:
        found = Least(what, body["metadata"]["namespace"], body["spec"]["selector"], least)
        return Least(found.what, found.namespace, found.selector, min(least, found.count(pods)))

    for body in _of(dump, "PodDisruptionBudget"):
        yield capped(f"the budget {body['metadata']['name']}", body, body["status"]["desiredHealthy"])
    for kind in ("Deployment", "StatefulSet", "ReplicaSet"):
        for body in _of(dump, kind):
            if not body["metadata"].get("ownerReferences"):
                replicas = body["spec"]["replicas"]
                most = min(_unavailable(body), math.floor(ceiling * replicas + 1e-9))
                yield capped(_key(body), body, replicas - most)


def _unavailable(body: Json) -> int:
    """Return how many pods a workload's strategy lets be unavailable: maxUnavailable, else one after the other."""
    strategy = body["spec"].get("strategy", {})
    if strategy.get("type") != "RollingUpdate":
        return 1
    replicas, bounds = body["spec"]["replicas"], strategy["rollingUpdate"]
    found = scaled(bounds["maxUnavailable"], replicas, round_up=False)
    return found if found or scaled(bounds["maxSurge"], replicas, round_up=True) else 1


class _Judgement:
    """Holds what API server and cloud say in the end against the plan."""

    def __init__(self, ground: Ground, cloud: FakeGoogleCloud, trial: Trial, plan: Plan) -> None:
        self._cloud, self._plan = cloud, plan
        self._nodes = ground.cluster.items("/api/v1/nodes")
        self._pods = ground.pods()
        self._owners = Owners(ground.cluster)
        self._trial = trial

    def problems(self) -> Iterator[str]:
        yield from self._machines()
        yield from self._placement()
        for node in self._nodes:
            yield from self._marks(node)

    def _machines(self) -> Iterator[str]:
        wanted = {node.name for node in self._plan.nodes if node.state != "remove"}
        # What the plan has no place for may settle anywhere; where nobody may move it, its node stays.
        wanted |= {
            pod["spec"]["nodeName"]
            for pod in self._pods
            if pod["spec"].get("nodeName") and self._owners.workload(pod) in self._plan.unplaced
        }
        if (found := {node["metadata"]["name"] for node in self._nodes}) != wanted:
            yield f"nodes: {sorted(found - wanted)} too many, {sorted(wanted - found)} missing"
        machines = {machine.name: machine.state for machine in self._cloud.instances()}
        if machines != dict.fromkeys(wanted, "running"):
            yield f"machines: {machines}, planned {sorted(wanted)}"

    def _placement(self) -> Iterator[str]:
        """Compare the counts of each workload by node; only what the plan left out may be anywhere, or nowhere."""
        wanted = Counter(
            {
                (node.name, key): count
                for node in self._plan.nodes
                if node.state != "remove"
                for key, count in node.pods.items()
            }
        )
        found = Counter((p["spec"].get("nodeName", ""), self._owners.workload(p)) for p in self._pods)
        spare = Counter({key: unplaced.count for key, unplaced in self._plan.unplaced.items()})
        for (node, key), count in sorted((wanted - found).items()):
            yield f"{count} pods of {key} are missing on {node}"
        for (node, key), count in sorted((found - wanted).items()):
            left = max(0, count - spare[key])
            spare[key] -= count - left
            if left:
                yield f"{left} pods of {key} " + (f"are on {node}, unplanned" if node else "are Pending")
        for pod in self._pods:
            if pod["spec"].get("nodeName") and not is_ready(pod):
                yield f"{pod['metadata']['name']} is not ready"

    def _marks(self, node: Json) -> Iterator[str]:
        labels, name = node["metadata"]["labels"], node["metadata"]["name"]
        planned = next((n for n in self._plan.nodes if n.name == name), None)
        expected = self._plan.iteration if planned and not planned.frozen else None
        taints = [t for t in node["spec"].get("taints", ()) if t["key"].startswith(keys.GROUP)]
        if labels.get(keys.OPTIMAL) != expected or keys.EXPIRING in labels or taints:
            own = {k: v for k, v in labels.items() if k.startswith(keys.GROUP)}
            yield f"{name} has the labels {own} and taints {taints} in the end"


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
