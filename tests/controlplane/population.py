"""Creates a generated cluster on the real control plane, its pods scattered over more nodes than they need."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from planner import labels as keys
from simulator.selectors import selects
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.judgement import Owners, is_planned, key_of
from tests.controlplane.kwok import FakeNode
from tests.controlplane.live import LiveCluster, path_of
from tests.controlplane.processes import ControlPlaneError
from tests.controlplane.readiness import is_ready, unschedulable

Json = dict[str, Any]

_TAKEN_BACK = 0.85
"""In which share of the clusters no pod waits for a node that only pods' rules keep it from."""

_KINDS = ("deployments", "replicasets", "statefulsets", "daemonsets", "jobs", "poddisruptionbudgets")
_GROUPS = {"jobs": "batch/v1", "poddisruptionbudgets": "policy/v1"}


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
        owners = Owners(self._cluster.items("/apis/apps/v1/replicasets"))
        pods = [pod for pod in self._cluster.items("/api/v1/pods") if is_planned(pod)]
        waiting = Counter(owners.workload(pod) for pod in pods if not pod["spec"].get("nodeName"))
        for body in workloads:
            count = waiting[key_of(body)]
            if count and "replicas" in body["spec"]:
                self._scale(body, body["spec"]["replicas"] - count)
            elif count:
                with_its_pods = {"propagationPolicy": "Background"}  # a Job's would stay behind, without a controller
                self._cluster.request("DELETE", f"{path_of(body)}/{body['metadata']['name']}", with_its_pods)
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

    def _touch(self, budget: Json) -> None:
        """Change the budget, so that it is counted anew.

        Of several budgets over a pod the controller counts only one anew when the pod comes or goes, and it chooses
        that one arbitrarily (`getPdbForPod` in kubernetes/pkg/controller/disruption/disruption.go).
        """
        meta = budget["metadata"]
        path = f"/apis/policy/v1/namespaces/{meta['namespace']}/poddisruptionbudgets/{meta['name']}"
        note = {"metadata": {"annotations": {"tests.kinema.io/touched-at": meta["resourceVersion"]}}}
        self._cluster.request("PATCH", path, note)

    def _unrest(self) -> str:
        """Name something that is still under way; a budget that is not counted is touched."""
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
                    if kind == "poddisruptionbudgets":
                        self._touch(body)
                    return f"{kind} {body['metadata']['name']}: {body.get('status')}"
        return ""


def _is_counted(kind: str, body: Json, owned: Counter[str], ready: Counter[str], pods: list[Json]) -> bool:
    """Say whether the controller has done what it is asked for, and its status says how things are."""
    status, spec, uid = body.get("status", {}), body["spec"], body["metadata"]["uid"]
    if kind == "jobs":
        done = any(c["type"] == "Complete" and c["status"] == "True" for c in status.get("conditions", ()))
        # The last pods of a Job are fewer than may run at once.
        left = spec.get("completions", spec["parallelism"]) - status.get("succeeded", 0)
        return done or owned[uid] == min(spec["parallelism"], left)
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
