"""Pod objects as the model's pods: owners, volumes and the rules between pods resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.kube import specs
from planner.kube.asked import AskedByPods
from planner.kube.collection import Objects
from planner.kube.objects import ControllerObject, Meta, PodObject, PodSpec
from planner.kube.volumes import Volumes
from planner.model.cluster import Node, Pod
from planner.model.coexistence import interpreted
from planner.model.companions import accompanied

_MIRROR = "kubernetes.io/config.mirror"


@dataclass(frozen=True, slots=True)
class ReadPod:
    """A pod with what only the assembly needs of it."""

    pod: Pod
    spec: PodSpec


def owned_pods(objects: Objects) -> list[ReadPod]:
    """Return the pods of a reading, each with its final owner and what its volumes ask of nodes.

    Raises:
        BadInput: a field is wrong.
    """
    found = []
    owners = _Owners(objects)
    volumes = Volumes(objects)
    read = AskedByPods()
    for item in objects.of("Pod", PodObject).values():
        meta, spec, status = item.metadata, item.spec, item.status
        workload, uid = owners.of_pod(meta)
        with objects.naming("Pod", meta):
            asked = read(meta, spec, status)
        conditions = {c.type: c for c in (status.conditions or () if status else ())}
        scheduled, ready = conditions.get("PodScheduled"), conditions.get("Ready")
        template = owners.template_of(workload)
        required, holds_volume, unmodelled_volumes = volumes.of_pod(meta, spec)
        asked = read.with_volumes(asked, required, holds_volume)
        unmodelled = (*specs.unmodelled(spec), *unmodelled_volumes)
        if template is not None and template.node_name:
            unmodelled = (*unmodelled, f"nodeName {template.node_name} in its template")
        pod = Pod(
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            workload=workload,
            workload_uid=uid,
            requests=asked.requests,
            constraints=asked.constraints,
            labels=meta.labels or {},
            annotations=meta.annotations or {},
            node=spec.node_name or None,
            phase=(status.phase if status else None) or "Pending",
            ready=ready is not None and ready.status == "True",
            deleting=meta.deletion_timestamp is not None,
            unschedulable=scheduled is not None and scheduled.status == "False" and scheduled.reason == "Unschedulable",
            mirror=_MIRROR in (meta.annotations or {}),
            local_storage=specs.local_storage(spec),
            rules=asked.rules,
            wishes=asked.wishes,
            company=asked.company,
            unmodelled=unmodelled,
            created_at=meta.created_at,
            scheduler_name=spec.scheduler_name or "default-scheduler",
            priority=spec.priority or 0,
        )
        found.append(ReadPod(pod, spec))
    return found


def with_rules_among(
    nodes: tuple[Node, ...], pods: list[ReadPod], templates: Mapping[str, Mapping[str, str]]
) -> list[ReadPod]:
    """Return the pods with what follows from the rules between them."""
    told = accompanied(nodes, interpreted(nodes, [found.pod for found in pods], templates))
    return [ReadPod(pod, found.spec) for found, pod in zip(pods, told, strict=True)]


class _Owners:
    """Finds what would recreate a pod."""

    def __init__(self, objects: Objects) -> None:
        self._replicasets = objects.of("ReplicaSet", ControllerObject)
        self._controllers = {
            kind: objects.of(kind, ControllerObject)
            for kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet")
        }

    def of_pod(self, meta: Meta) -> tuple[str, str]:
        """Return key and uid of the pod's final owner, or of the pod itself."""
        owner = meta.controller
        # A mirror pod is "controlled" by its Node, which recreates nothing elsewhere.
        if owner is None or owner[0] == "Node":
            return meta.key("Pod"), meta.uid
        kind, name, uid = owner
        if kind == "ReplicaSet":
            replicaset = self._replicasets.get((meta.namespace, name))
            if replicaset is not None and uid in ("", replicaset.metadata.uid):
                kind, name, uid = replicaset.metadata.controller or owner
        return f"{meta.namespace}/{kind}/{name}", uid

    def template_of(self, key: str) -> PodSpec | None:
        """Return the pod spec of a controller's template, where the controller is known."""
        namespace, kind, name = key.split("/")
        found = self._controllers.get(kind, {}).get((namespace, name))
        return found.spec.template.spec if found else None
