"""Performs steps through the ports; every step is safe to repeat.

Before each write the Lease is read again, and before a machine is deleted its node's mark and its
pods (a second consistent read, as one stale cache once emptied a whole cluster: kubernetes/autoscaler #446).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from planner import labels as keys
from planner.errors import Conflict, KubernetesError, NotFound, TooManyRequests
from planner.kube import record as records
from planner.kube.reader import read_pods
from planner.model.plan import (
    BootNodes,
    DeleteInstances,
    DeleteNode,
    EvictPod,
    MarkNode,
    RollOut,
    SavePlan,
    Step,
    Wait,
)
from planner.model.resources import Resources
from planner.ports import CONFIGMAPS, DEPLOYMENTS, NODES, PODS, Cloud, Kubernetes, Resource

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Executor:
    """Where steps go.

    `confirm` reads the Lease again; `affinity` also writes the preferred node affinity of the steering without
    a scheduler of ours; `namespace` holds the plan's ConfigMap.
    """

    kubernetes: Kubernetes
    cloud: Cloud | None
    confirm: Callable[[], bool]
    namespace: str
    affinity: bool = False

    def execute(self, steps: Iterable[Step]) -> tuple[Step, ...]:
        """Perform the steps in order; return those that were done.

        A step that meets a changed cluster (conflict, gone, a budget's refusal) is left out: the next snapshot
        says what to do. Stops where leadership was lost.

        Raises:
            Outside: the API server or the cloud failed otherwise.
        """
        done = []
        for step in steps:
            try:
                if self._perform(step):
                    done.append(step)
            except (Conflict, NotFound, TooManyRequests) as error:
                _log.info("left for the next round: %s: %s", type(step).__name__, error)
            except _NoLongerLeader:
                _log.warning("leadership is lost: %s and what follows is not done", type(step).__name__)
                break
        return tuple(done)

    def _perform(self, step: Step) -> bool:
        if not isinstance(step, Wait):
            self._require_leadership()
        match step:
            case BootNodes():
                self._cloud().boot(step.pool, step.zone, step.names)
            case MarkNode():
                self._mark(step)
            case RollOut():
                return self._roll_out(step)
            case EvictPod():
                self.kubernetes.evict(step.namespace, step.name, step.uid)
            case DeleteInstances():
                names = tuple(name for name in step.names if self._still_removable(name, step.iteration))
                self._require_leadership()  # the reads above took time
                if names:
                    self._cloud().delete(step.pool, step.zone, names)
                return names == step.names
            case DeleteNode():
                self.kubernetes.delete(NODES, "", step.node, step.uid)
            case SavePlan():
                self._save(step)
            case Wait():
                pass
        return True

    def _require_leadership(self) -> None:
        if not self.confirm():
            raise _NoLongerLeader

    def _cloud(self) -> Cloud:
        if self.cloud is None:
            raise KubernetesError("the plan boots or deletes machines, but no cloud is configured (cloud.provider)")
        return self.cloud

    def _read(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        found = json.loads(self.kubernetes.get(resource, namespace, name))
        if not isinstance(found, dict):
            raise KubernetesError(f"{resource.kind} {name}: the API server's answer is no object")
        return found

    def _mark(self, step: MarkNode) -> None:
        """Patch labels, annotations and taint in one write that fails where the node changed meanwhile."""
        node = self._read(NODES, "", step.node)
        metadata = node["metadata"]
        if step.uid and metadata["uid"] != step.uid:
            raise Conflict(f"node {step.node} was made anew")
        taints = (node.get("spec") or {}).get("taints") or []
        marked = [taint for taint in taints if taint.get("key") != keys.EXPIRING]
        if step.taint_value is not None:
            marked.append({"key": keys.EXPIRING, "value": step.taint_value, "effect": step.taint_effect})
        patch: dict[str, Any] = {
            "metadata": {
                "resourceVersion": metadata["resourceVersion"],
                "labels": dict(step.labels),
                "annotations": dict(step.annotations),
            }
        }
        if marked != taints:
            patch["spec"] = {"taints": marked or None}
        self.kubernetes.patch(NODES, "", step.node, patch)

    def _roll_out(self, step: RollOut) -> bool:
        """Mark the pod template as `kubectl rollout restart` does, with new requests and affinity where wanted."""
        namespace, _, name = step.workload.split("/")
        deployment = self._read(DEPLOYMENTS, namespace, name)
        if step.uid and deployment["metadata"]["uid"] != step.uid:
            raise Conflict(f"{step.workload} was made anew")
        template: dict[str, Any] = {"metadata": {"annotations": {keys.ITERATION: step.iteration}}}
        spec: dict[str, Any] = {}
        if step.containers:
            spec["containers"] = [
                {"name": container, "resources": {"requests": _quantities(requests)}}
                for container, requests in sorted(step.containers.items())
            ]
        if self.affinity:
            spec["affinity"] = _with_preference(deployment["spec"]["template"]["spec"].get("affinity") or {})
        if spec:
            template["spec"] = spec
        patch = {
            "metadata": {"resourceVersion": deployment["metadata"]["resourceVersion"]},
            "spec": {"template": template},
        }
        self.kubernetes.patch(DEPLOYMENTS, namespace, name, patch, "strategic")
        return True

    def _still_removable(self, name: str, iteration: str) -> bool:
        """Read node and pods again: closed by this iteration, and nothing on it that would not die with it."""
        try:
            node = self._read(NODES, "", name)
        except NotFound:
            return True
        marked = (node["metadata"].get("labels") or {}).get(keys.EXPIRING) == iteration
        closed = any(
            t.get("key") == keys.EXPIRING and t.get("effect") == "NoSchedule"
            for t in (node.get("spec") or {}).get("taints") or []
        )
        if not (marked and closed):
            return False
        pods = read_pods(self.kubernetes.list(PODS, f"spec.nodeName={name}"))
        return all(pod.finished or pod.stays_with_node for pod in pods if pod.node == name)

    def _save(self, step: SavePlan) -> None:
        body = records.encode_record(step.record, self.namespace)
        try:
            self.kubernetes.create(CONFIGMAPS, self.namespace, body)
        except Conflict:
            self.kubernetes.replace(CONFIGMAPS, self.namespace, records.NAME, body)


class _NoLongerLeader(Exception):
    """Another planner may be acting: nothing destructive may follow."""


def _quantities(requests: Resources) -> dict[str, str]:
    return {"cpu": f"{requests.cpu_millicores}m", "memory": str(requests.memory_bytes)}


def _with_preference(affinity: dict[str, Any]) -> dict[str, Any]:
    """Return the affinity with a preference for any node that is in a plan, added once.

    The list of preferences is replaced as a whole by a strategic merge, so those of the user are kept in it.
    """
    term = {
        "weight": 100,
        "preference": {"matchExpressions": [{"key": keys.OPTIMAL, "operator": "Exists"}]},
    }
    node = affinity.get("nodeAffinity") or {}
    preferred = list(node.get("preferredDuringSchedulingIgnoredDuringExecution") or [])
    if term not in preferred:
        preferred.append(term)
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
