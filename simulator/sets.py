"""StatefulSets, DaemonSets and Jobs, as far as moving pods depends on them."""

from __future__ import annotations

from typing import Final

from planner.kube.specs import DAEMON_TOLERATIONS
from planner.ports import DAEMONSETS, JOBS, NODES, PODS, STATEFULSETS
from simulator.constraints import admits, tolerates_running
from simulator.controllers import owner_key, pod_of, set_status, template_hash
from simulator.queues import Controller
from simulator.selectors import scaled
from simulator.status import is_active, is_deleting, is_ready
from simulator.store import Change, Json, Key, key_of

CONTROLLER_HASH: Final = "controller-revision-hash"
POD_INDEX: Final = "apps.kubernetes.io/pod-index"


class StatefulSets(Controller):
    """Keeps pods of fixed names, one after the other. Source: kubernetes stateful_set_control.go.

    Claims of its templates are used, not created: who applies it also brings them and the volumes that they are bound
    to (`Workload.volume_zones`).
    """

    def observe(self, change: Change) -> None:
        """React to a StatefulSet's or one of its pods' changes."""
        if change.resource == STATEFULSETS and change.type != "DELETED":
            self.enqueue(change.key)
        elif change.resource == PODS and (key := owner_key(change.body, "StatefulSet")) is not None:
            self.enqueue(key)

    def reconcile(self, key: Key) -> None:
        """Create the next missing pod, or delete the next one that is too many or outdated."""
        body = self.server.find(STATEFULSETS, key)
        if body is None or is_deleting(body):
            return
        pods = {_ordinal(pod): pod for pod in self.store.owned(body["metadata"]["uid"], PODS)}
        if self._fill(body, pods) and self._shrink(body, pods):
            self._update(body, pods)
        self._write_status(key)

    def _fill(self, body: Json, pods: dict[int, Json]) -> bool:
        """Create missing pods in order; tells whether all stand (Parallel: whether nothing is in the way)."""
        in_order = body["spec"]["podManagementPolicy"] == "OrderedReady"
        for ordinal in range(body["spec"]["replicas"]):
            pod = pods.get(ordinal)
            if pod is None:
                self._create(body, ordinal)
            elif pod["status"].get("phase") in ("Succeeded", "Failed") and not is_deleting(pod):
                self.server.delete(PODS, key_of(pod), pod["metadata"]["uid"])
            elif not is_deleting(pod) and is_ready(pod):
                continue
            if in_order:
                return False
        return True

    def _shrink(self, body: Json, pods: dict[int, Json]) -> bool:
        """Delete the pods beyond the size, the highest first; tells whether there was none."""
        surplus = sorted((n for n in pods if n >= body["spec"]["replicas"]), reverse=True)
        for ordinal in surplus:
            if not is_deleting(pods[ordinal]):
                self.server.delete(PODS, key_of(pods[ordinal]), pods[ordinal]["metadata"]["uid"])
            if body["spec"]["podManagementPolicy"] == "OrderedReady":
                break
        return not surplus

    def _update(self, body: Json, pods: dict[int, Json]) -> None:
        """Delete the highest outdated pod, if every pod above it is well."""
        strategy = body["spec"]["updateStrategy"]
        if strategy["type"] != "RollingUpdate":
            return
        digest = template_hash(body["spec"]["template"])
        partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        for ordinal in sorted(pods, reverse=True):
            pod = pods[ordinal]
            if ordinal < partition:
                return
            if pod["metadata"]["labels"].get(CONTROLLER_HASH) != digest and not is_deleting(pod):
                self.server.delete(PODS, key_of(pod), pod["metadata"]["uid"])
                return
            if is_deleting(pod) or not is_ready(pod):
                return

    def _create(self, body: Json, ordinal: int) -> None:
        name = f"{body['metadata']['name']}-{ordinal}"
        labels = {
            "statefulset.kubernetes.io/pod-name": name,
            POD_INDEX: str(ordinal),
            CONTROLLER_HASH: template_hash(body["spec"]["template"]),
        }
        pod = pod_of(body, name, labels)
        templates = [template["metadata"]["name"] for template in body["spec"].get("volumeClaimTemplates") or ()]
        own = [{"name": t, "persistentVolumeClaim": {"claimName": f"{t}-{name}"}} for t in templates]
        if own:
            pod["spec"]["volumes"] = [v for v in pod["spec"].get("volumes") or () if v["name"] not in templates] + own
        self.server.create(PODS, body["metadata"]["namespace"], pod)

    def _write_status(self, key: Key) -> None:
        body = self.server.find(STATEFULSETS, key)
        if body is None:
            return
        digest = template_hash(body["spec"]["template"])
        pods = [p for p in self.store.owned(body["metadata"]["uid"], PODS) if is_active(p)]
        ready = sum(is_ready(pod) for pod in pods)
        updated = sum(pod["metadata"]["labels"].get(CONTROLLER_HASH) == digest for pod in pods)
        before = body["status"].get("currentRevision", digest)
        set_status(
            self,
            STATEFULSETS,
            key,
            {
                "observedGeneration": body["metadata"]["generation"],
                "replicas": len(pods),
                "readyReplicas": ready,
                "availableReplicas": ready,
                "updatedReplicas": updated,
                "currentReplicas": updated if before == digest else len(pods) - updated,
                "currentRevision": digest if updated == len(pods) == body["spec"]["replicas"] else before,
                "updateRevision": digest,
            },
        )


class DaemonSets(Controller):
    """Keeps one pod on every node that a DaemonSet selects and tolerates. Source: daemon_controller.go."""

    def observe(self, change: Change) -> None:
        """React to a DaemonSet's, one of its pods', or any node's changes."""
        if change.resource == DAEMONSETS and change.type != "DELETED":
            self.enqueue(change.key)
        elif change.resource == PODS and (key := owner_key(change.body, "DaemonSet")) is not None:
            self.enqueue(key)
        elif change.resource == NODES and _placement_of(change.before) != _placement_of(change.body):
            for body in self.store.bodies(DAEMONSETS):
                self.enqueue(key_of(body))

    def reconcile(self, key: Key) -> None:
        """Create what is missing, delete what does not belong, replace outdated pods one by one."""
        body = self.server.find(DAEMONSETS, key)
        if body is None or is_deleting(body):
            return
        by_node = {_daemon_node(pod): pod for pod in self.store.owned(body["metadata"]["uid"], PODS)}
        spec, wanted = _daemon_spec(body), 0
        for node in self.store.bodies(NODES):
            name = node["metadata"]["name"]
            pod = by_node.get(name)
            should = admits(spec, node)
            wanted += should
            if pod is None and should:
                self._create(body, name)
            elif pod is not None and not is_deleting(pod):
                finished = pod["status"].get("phase") in ("Succeeded", "Failed")
                if finished or not tolerates_running(spec, node):
                    self.server.delete(PODS, key_of(pod), pod["metadata"]["uid"])
        self._update(body, list(by_node.values()), wanted)
        self._write_status(key, wanted)

    def _update(self, body: Json, pods: list[Json], wanted: int) -> None:
        if body["spec"]["updateStrategy"]["type"] != "RollingUpdate":
            return
        rolling = body["spec"]["updateStrategy"].get("rollingUpdate") or {}
        digest = template_hash(body["spec"]["template"])
        most = scaled(rolling.get("maxUnavailable", 1), wanted, round_up=True)
        room = most - sum(not is_ready(pod) or is_deleting(pod) for pod in pods) - max(0, wanted - len(pods))
        for pod in pods:
            outdated = pod["metadata"]["labels"].get(CONTROLLER_HASH) != digest
            if outdated and not is_deleting(pod) and (room > 0 or not is_ready(pod)):
                room -= is_ready(pod)
                self.server.delete(PODS, key_of(pod), pod["metadata"]["uid"])

    def _create(self, body: Json, node: str) -> None:
        digest = template_hash(body["spec"]["template"])
        pod = pod_of(body, self.server.name_after(f"{body['metadata']['name']}-"), {CONTROLLER_HASH: digest})
        pod["spec"] = _daemon_spec(body)
        field = {"key": "metadata.name", "operator": "In", "values": [node]}
        # The template's own required terms are replaced: the controller has checked them already.
        affinity = pod["spec"].setdefault("affinity", {}).setdefault("nodeAffinity", {})
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [{"matchFields": [field]}]}
        self.server.create(PODS, body["metadata"]["namespace"], pod)

    def _write_status(self, key: Key, wanted: int) -> None:
        body = self.server.find(DAEMONSETS, key)
        if body is None:
            return
        digest = template_hash(body["spec"]["template"])
        pods = [p for p in self.store.owned(body["metadata"]["uid"], PODS) if is_active(p)]
        ready = sum(is_ready(pod) for pod in pods)
        status = {
            "observedGeneration": body["metadata"]["generation"],
            "desiredNumberScheduled": wanted,
            "currentNumberScheduled": len(pods),
            "updatedNumberScheduled": sum(p["metadata"]["labels"].get(CONTROLLER_HASH) == digest for p in pods),
            "numberReady": ready,
            "numberAvailable": ready,
            "numberMisscheduled": 0,
        }
        set_status(self, DAEMONSETS, key, status)


class Jobs(Controller):
    """Runs a Job's pods until enough have succeeded; failures are not retried with a back-off."""

    def observe(self, change: Change) -> None:
        """React to a Job's or one of its pods' changes."""
        if change.resource == JOBS and change.type != "DELETED":
            self.enqueue(change.key)
        elif change.resource == PODS and (key := owner_key(change.body, "Job")) is not None:
            self.enqueue(key)

    def reconcile(self, key: Key) -> None:
        """Create pods up to the parallelism, and count the finished ones."""
        body = self.server.find(JOBS, key)
        if body is None or is_deleting(body):
            return
        pods = self.store.owned(body["metadata"]["uid"], PODS)
        active = sum(is_active(pod) for pod in pods)
        succeeded = sum(pod["status"].get("phase") == "Succeeded" for pod in pods)
        failed = sum(pod["status"].get("phase") == "Failed" for pod in pods)
        wanted = min(body["spec"]["parallelism"], body["spec"]["completions"] - succeeded)
        for _ in range(wanted - active):
            labels = {"batch.kubernetes.io/job-name": key[1], "job-name": key[1]}
            self.server.create(PODS, key[0], pod_of(body, self.server.name_after(f"{key[1]}-"), labels))
        status: Json = {"active": max(active, wanted), "succeeded": succeeded, "failed": failed}
        if succeeded >= body["spec"]["completions"]:
            status["active"] = 0
            status["conditions"] = [{"type": "Complete", "status": "True"}]
        set_status(self, JOBS, key, status)


def _ordinal(pod: Json) -> int:
    return int(pod["metadata"]["labels"][POD_INDEX])


def _daemon_spec(body: Json) -> Json:
    """Return the spec of a DaemonSet's pod with the tolerations that its controller adds."""
    spec: Json = pod_of(body, "", {})["spec"]
    tolerations = spec.setdefault("tolerations", [])
    for added in DAEMON_TOLERATIONS:
        tolerations.append({"key": added.key, "operator": added.operator, "effect": added.effect})
    return spec


def _daemon_node(pod: Json) -> str:
    """Return the node for which a DaemonSet's pod was made, also before it is bound."""
    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    name: str = required["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]
    return name


def _placement_of(node: Json | None) -> object:
    """Return what decides about DaemonSet pods on a node."""
    if node is None:
        return None
    return node["metadata"].get("labels"), node["spec"].get("taints"), node["spec"].get("unschedulable")
