"""Short descriptions of workloads, turned into the objects that a user would apply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from planner.model.cluster import ZONE
from planner.ports import BUDGETS, CLAIMS, DAEMONSETS, DEPLOYMENTS, JOBS, PODS, STATEFULSETS, VOLUMES, Resource
from simulator.store import Json

Kind = Literal["Deployment", "StatefulSet", "DaemonSet", "Job", "Pod"]

_RESOURCES: Mapping[str, Resource] = {
    "Deployment": DEPLOYMENTS,
    "StatefulSet": STATEFULSETS,
    "DaemonSet": DAEMONSETS,
    "Job": JOBS,
    "Pod": PODS,
}

_DISK: Final[Mapping[str, Any]] = {"accessModes": ["ReadWriteOnce"], "storageClassName": "disk"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A workload of one container; quantities as Kubernetes writes them.

    `budget` is the spec of a PodDisruptionBudget over its pods without the selector, such as
    {"minAvailable": 2}; None is no budget. `on` names the nodes of its first pods, in order; the scheduler
    places the rest. `spec` is merged into the pods' spec, `controller_spec` into the controller's.
    `host_port` is a port of the node that each pod takes; 0 is none. `volume_zones` gives each pod of a StatefulSet
    a volume of its own, the first one in the first of these zones and so on, to which its claim is bound already;
    () gives none.
    """

    name: str
    kind: Kind = "Deployment"
    replicas: int = 1
    cpu: str = "500m"
    memory: str = "512Mi"
    namespace: str = "default"
    max_surge: int | str = "25%"
    max_unavailable: int | str = "25%"
    budget: Mapping[str, Any] | None = None
    on: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    pod_annotations: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    controller_spec: Mapping[str, Any] = field(default_factory=dict)
    host_port: int = 0
    volume_zones: tuple[str, ...] = ()

    @property
    def resource(self) -> Resource:
        """The kind of object that is applied."""
        return _RESOURCES[self.kind]

    @property
    def key(self) -> str:
        """ "namespace/Kind/name", as plans name it."""
        return f"{self.namespace}/{self.kind}/{self.name}"

    def manifest(self) -> Json:
        """Return the object that a user would apply."""
        labels = {"app": self.name}
        ports = [{"containerPort": 8080, "hostPort": self.host_port}] if self.host_port else []
        pod = {
            "metadata": {"labels": labels, "annotations": dict(self.pod_annotations)},
            "spec": {
                "containers": [
                    {
                        "name": "main",
                        "image": "registry.example/app:1",
                        "resources": {"requests": {"cpu": self.cpu, "memory": self.memory}},
                        "ports": ports,
                    }
                ],
                **self.spec,
            },
        }
        metadata = {"name": self.name, "namespace": self.namespace, "annotations": dict(self.annotations)}
        if self.kind == "Pod":
            metadata["annotations"] = metadata["annotations"] | dict(self.pod_annotations)  # type: ignore[operator]
            return {"metadata": metadata | {"labels": labels}, "spec": pod["spec"]}
        spec: Json = {"template": pod}
        if self.kind == "Job":
            pod["spec"] = {"restartPolicy": "Never", **pod["spec"]}
            spec |= {"parallelism": self.replicas, "completions": self.replicas}
        else:
            spec["selector"] = {"matchLabels": labels}
        if self.kind in ("Deployment", "StatefulSet"):
            spec["replicas"] = self.replicas
        if self.kind == "StatefulSet":
            spec["serviceName"] = self.name
            if self.volume_zones:
                spec["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": dict(_DISK)}]
        if self.kind == "Deployment":
            rolling = {"maxSurge": self.max_surge, "maxUnavailable": self.max_unavailable}
            spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": rolling}
        return {"metadata": metadata, "spec": spec | dict(self.controller_spec)}

    def budget_manifest(self) -> Json | None:
        """Return its PodDisruptionBudget."""
        if self.budget is None:
            return None
        return {
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {"selector": {"matchLabels": {"app": self.name}}, **self.budget},
        }

    def volume_manifests(self) -> Iterator[tuple[Resource, Json]]:
        """Yield the volume of each pod, as a cloud provisions it for one zone, and the claim that is bound to it."""
        for number in range(self.replicas if self.volume_zones else 0):
            zone = self.volume_zones[number % len(self.volume_zones)]
            claim = f"data-{self.name}-{number}"
            volume = f"pv-{self.namespace}-{claim}"
            reached = {"matchExpressions": [{"key": ZONE, "operator": "In", "values": [zone]}]}
            affinity = {"required": {"nodeSelectorTerms": [reached]}}
            owner = {"namespace": self.namespace, "name": claim}
            yield (
                VOLUMES,
                {"metadata": {"name": volume}, "spec": {**_DISK, "nodeAffinity": affinity, "claimRef": owner}},
            )
            metadata = {"namespace": self.namespace, "name": claim}
            yield CLAIMS, {"metadata": metadata, "spec": {**_DISK, "volumeName": volume}}

    def objects(self) -> tuple[tuple[Resource, Json], ...]:
        """Return everything that a user would apply: the budget and the volumes, then the workload."""
        budget = self.budget_manifest()
        before = (((BUDGETS, budget),) if budget else ()) + tuple(self.volume_manifests())
        return (*before, (self.resource, self.manifest()))
