"""Short descriptions of workloads, turned into the objects that a user would apply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from planner.ports import BUDGETS, DAEMONSETS, DEPLOYMENTS, JOBS, PODS, STATEFULSETS, Resource
from simulator.store import Json

Kind = Literal["Deployment", "StatefulSet", "DaemonSet", "Job", "Pod"]

_RESOURCES: Mapping[str, Resource] = {
    "Deployment": DEPLOYMENTS,
    "StatefulSet": STATEFULSETS,
    "DaemonSet": DAEMONSETS,
    "Job": JOBS,
    "Pod": PODS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A workload of one container; quantities as Kubernetes writes them.

    `budget` is the spec of a PodDisruptionBudget over its pods without the selector, such as
    {"minAvailable": 2}; None is no budget. `on` names the nodes of its first pods, in order; the scheduler
    places the rest. `spec` is merged into the pods' spec, `controller_spec` into the controller's.
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
        pod = {
            "metadata": {"labels": labels, "annotations": dict(self.pod_annotations)},
            "spec": {
                "containers": [
                    {
                        "name": "main",
                        "image": "registry.example/app:1",
                        "resources": {"requests": {"cpu": self.cpu, "memory": self.memory}},
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

    def objects(self) -> tuple[tuple[Resource, Json], ...]:
        """Return everything that a user would apply, the budget first."""
        budget = self.budget_manifest()
        return (*(((BUDGETS, budget),) if budget else ()), (self.resource, self.manifest()))
