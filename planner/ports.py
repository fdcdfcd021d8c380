"""What the loop needs from outside; the simulator implements every port as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from planner.model.cluster import Instance, Snapshot
from planner.model.forecast import UsageSeries
from planner.model.machines import Catalogue


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of Kubernetes object as the API's paths know it; `group` is "" for core."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True


NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICASETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
STATEFULSETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMONSETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
JOBS = Resource("batch", "v1", "jobs", "Job")
AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS = Resource("", "v1", "events", "Event")

SNAPSHOT_RESOURCES = (
    NODES,
    PODS,
    DEPLOYMENTS,
    REPLICASETS,
    STATEFULSETS,
    DAEMONSETS,
    JOBS,
    AUTOSCALERS,
    BUDGETS,
    CLAIMS,
    VOLUMES,
)
"""What one snapshot lists, each whole, or the snapshot fails."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Every object of one kind: raw JSON each, and the resource version to watch from."""

    items: tuple[bytes, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change: ADDED, MODIFIED, DELETED or BOOKMARK, and the object as raw JSON."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: bytes


PatchKind = Literal["merge", "strategic"]


class Kubernetes(Protocol):
    """The API server, at the level of its verbs.

    Every method raises `Forbidden`, `NotFound`, `Conflict`, `Gone`, `TooManyRequests` or, for anything else
    (5xx, timeout, no connection), `KubernetesError`.
    """

    def list(self, resource: Resource, field_selector: str = "") -> Listing:
        """Return every object in all namespaces, page by page inside; the whole list or an error."""
        ...

    def watch(self, resource: Resource, resource_version: str, timeout_seconds: float) -> Iterator[WatchEvent]:
        """Yield the changes after the resource version until the timeout; raises `Gone` when it is too old."""
        ...

    def get(self, resource: Resource, namespace: str, name: str) -> bytes:
        """Return one object as raw JSON; `namespace` is "" for cluster-wide kinds."""
        ...

    def create(self, resource: Resource, namespace: str, body: Mapping[str, object]) -> bytes:
        """Create an object; raises `Conflict` where it exists."""
        ...

    def replace(self, resource: Resource, namespace: str, name: str, body: Mapping[str, object]) -> bytes:
        """Replace an object; with metadata.resourceVersion in the body raises `Conflict` where it changed."""
        ...

    def patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, object], kind: PatchKind = "merge"
    ) -> bytes:
        """Patch an object; metadata.resourceVersion or metadata.uid in the patch are preconditions (`Conflict`)."""
        ...

    def evict(self, namespace: str, name: str, uid: str) -> None:
        """Evict a pod; raises `TooManyRequests` where a budget forbids it, `Conflict` for another uid."""
        ...

    def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """Delete an object of this uid; raises `Conflict` for another uid, `NotFound` where it is gone."""
        ...


class Cloud(Protocol):
    """A cloud's compute manager. Names are chosen by Kinema, so every call is safe to repeat.

    Every method raises `CloudError`; `boot` may raise `InsufficientCapacity` or `QuotaExceeded` where the
    cloud refuses at once (it may also fail later: see `Instance.state` "failed").
    """

    def catalogue(self) -> Catalogue:
        """Return what can be booted and what the machine types cost."""
        ...

    def instances(self) -> tuple[Instance, ...]:
        """Return every machine of every managed pool."""
        ...

    def operations(self) -> tuple[str, ...]:
        """Name what else is under way on the managed pools (upgrades, resizes by others); () for nothing."""
        ...

    def boot(self, pool: str, zone: str, names: Sequence[str]) -> None:
        """Create machines of these names; one that exists already is left alone. Returns once accepted."""
        ...

    def delete(self, pool: str, zone: str, names: Sequence[str]) -> None:
        """Delete machines by name; one that is gone already is no error. Returns once accepted."""
        ...


class Usage(Protocol):
    """Where measured usage comes from; raises `UsageError`."""

    def read(self, snapshot: Snapshot) -> tuple[UsageSeries, ...]:
        """Return the series of every container of the snapshot's workloads that has any."""
        ...


class Clock(Protocol):
    """Time, so that the simulator can have its own."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after so many seconds; an interrupt ends it early."""
        ...
