"""The simulated API server: creation with defaults, preconditions, patches, graceful deletion, evictions."""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from planner.errors import Conflict, Gone, KubernetesError, NotFound, TooManyRequests
from planner.ports import (
    BUDGETS,
    DAEMONSETS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    LEASES,
    NODES,
    PODS,
    REPLICASETS,
    STATEFULSETS,
    Listing,
    PatchKind,
    Resource,
    WatchEvent,
)
from simulator.clock import SimulatedClock
from simulator.patching import merge_patch, strategic_patch
from simulator.selectors import selects
from simulator.store import Entry, Json, Key, Store, controller_of, copy_of, key_of

NOT_READY: Final = "node.kubernetes.io/not-ready"
UNREACHABLE: Final = "node.kubernetes.io/unreachable"

_WITH_STATUS: Final = frozenset({NODES, PODS, DEPLOYMENTS, REPLICASETS, STATEFULSETS, DAEMONSETS, JOBS, BUDGETS})
_WITH_GENERATION: Final = frozenset({PODS, DEPLOYMENTS, REPLICASETS, STATEFULSETS, DAEMONSETS, JOBS, BUDGETS})
_WITH_TEMPLATE: Final = frozenset({DEPLOYMENTS, REPLICASETS, STATEFULSETS, DAEMONSETS, JOBS})
_CREATED_BY_PUT: Final = frozenset({LEASES, EVENTS})
_UPDATED_BY_VERSION: Final = frozenset({LEASES, BUDGETS})
"""Kinds whose replacement must name a version. Source: AllowUnconditionalUpdate of their registry strategies."""

_KEPT_METADATA: Final = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "generation")
_SUFFIX_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
_DAEMON_TOLERATED: Final = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}


def stamp(seconds: float) -> str:
    """Return the time as Kubernetes writes it, in whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> float:
    """Return the seconds since the epoch of a time that `stamp` wrote."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def condition(body: Json, kind: str) -> Json | None:
    """Return a condition of an object's status."""
    found = (body.get("status") or {}).get("conditions") or ()
    return next((item for item in found if item["type"] == kind), None)


def is_true(body: Json, kind: str) -> bool:
    """Tell whether a condition of an object's status is True."""
    found = condition(body, kind)
    return found is not None and found["status"] == "True"


def is_ready(body: Json) -> bool:
    """Tell whether a pod or node is Ready."""
    return is_true(body, "Ready")


def is_deleting(body: Json) -> bool:
    """Tell whether an object's deletion has begun."""
    return "deletionTimestamp" in body["metadata"]


def is_active(pod: Json) -> bool:
    """Tell whether a pod counts for its controller: neither finished nor being deleted."""
    return pod["status"].get("phase") not in ("Succeeded", "Failed") and not is_deleting(pod)


class ApiServer:
    """The objects of a simulated cluster with the rules of their writes; controllers write here directly."""

    def __init__(self, clock: SimulatedClock, seed: int) -> None:
        """Start empty; uids and generated names follow from the seed."""
        self.clock: Final = clock
        self.store: Final = Store()
        self._random = random.Random(f"{seed}/api")

    def name_after(self, prefix: str) -> str:
        """Return the prefix with five letters, as generateName does."""
        return prefix + "".join(self._random.choice(_SUFFIX_LETTERS) for _ in range(5))

    def find(self, resource: Resource, key: Key) -> Json | None:
        """Return an object, which may not be changed, if it is there."""
        entry = self.store.get(resource, key)
        return None if entry is None else entry.body

    def create(self, resource: Resource, namespace: str, body: Mapping[str, Any]) -> Entry:
        """Create an object as a user would: with defaults, without status where that has a subresource."""
        given = copy.deepcopy(dict(body))
        metadata = given.setdefault("metadata", {})
        if "name" not in metadata and "generateName" in metadata:
            metadata["name"] = self.name_after(metadata["generateName"])
        if not metadata.get("name"):
            raise KubernetesError(f"422: {resource.kind} is invalid: metadata.name: name or generateName is required")
        if resource.namespaced and metadata.setdefault("namespace", namespace) != namespace:
            raise KubernetesError("400: the namespace of the object does not match the namespace of the request")
        if metadata.pop("resourceVersion", ""):
            raise KubernetesError("400: resourceVersion should not be set on objects to be created")
        if self.store.get(resource, key_of(given)) is not None:
            raise Conflict(f'409: {resource.plural} "{metadata["name"]}" already exists')
        metadata["uid"] = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        metadata["creationTimestamp"] = stamp(self.clock.now())
        metadata.pop("deletionTimestamp", None)
        if resource in _WITH_GENERATION:
            metadata["generation"] = 1
        created = {"apiVersion": _api_version(resource), "kind": resource.kind, "metadata": metadata}
        created |= {key: value for key, value in given.items() if key not in created}
        _admit(resource, created)
        return self.store.put(resource, created)

    def write(self, resource: Resource, key: Key, change: Callable[[Json], None]) -> Json:
        """Change an object as a controller does, status and all; writing what is there already does nothing.

        Raises:
            NotFound: it is gone.
        """
        entry = self._entry(resource, key)
        body = copy_of(entry)
        change(body)
        return self._save(resource, entry, body).body

    def update(self, resource: Resource, key: Key, body: Mapping[str, Any]) -> Entry:
        """Replace what a user may replace of an object, if the preconditions in its metadata hold."""
        entry = self._entry(resource, key)
        new, old = copy.deepcopy(dict(body)), entry.body
        metadata = new.setdefault("metadata", {})
        _check_preconditions(resource, old, metadata)
        for name in ("name", "namespace"):
            if metadata.get(name, old["metadata"].get(name)) != old["metadata"].get(name):
                raise KubernetesError(f"400: the {name} of the object does not match the {name} of the request")
        for name in _KEPT_METADATA:
            metadata.pop(name, None)
            if name in old["metadata"]:
                metadata[name] = old["metadata"][name]
        new["apiVersion"], new["kind"] = old["apiVersion"], old["kind"]
        if resource in _WITH_STATUS:
            new["status"] = old.get("status", {})
        _check_immutable(resource, old, new)
        if resource == DEPLOYMENTS and old["metadata"].get("annotations") != metadata.get("annotations"):
            # Its controller notes the revision without this, since it writes by the status subresource.
            metadata["generation"] += old["spec"] == new["spec"]
        return self._save(resource, entry, new)

    def patch(self, resource: Resource, key: Key, patch: Mapping[str, Any], kind: PatchKind) -> Entry:
        """Patch an object as a user would."""
        entry = self._entry(resource, key)
        old = copy_of(entry)
        # Without a version of its own the patch applies to whatever stands there now.
        old["metadata"].pop("resourceVersion")
        try:
            new = strategic_patch(old, patch) if kind == "strategic" else merge_patch(old, patch)
        except ValueError as error:
            raise KubernetesError(f"400: {error}") from error
        return self.update(resource, key, new)

    def bind(self, key: Key, node: str) -> None:
        """Assign a pod to a node, as the scheduler does."""

        def change(pod: Json) -> None:
            pod["spec"]["nodeName"] = node
            set_condition(pod, "PodScheduled", "True", self.clock.now())

        self.write(PODS, key, change)

    def delete(self, resource: Resource, key: Key, uid: str) -> None:
        """Delete an object, a pod gracefully, if it still has the uid; "" is any uid."""
        entry = self._entry(resource, key)
        if uid and entry.body["metadata"]["uid"] != uid:
            raise Conflict(
                f'409: Operation cannot be fulfilled on {resource.plural} "{key[1]}": the UID in the precondition '
                f"({uid}) does not match the UID in record ({entry.body['metadata']['uid']})"
            )
        if resource == PODS and _ends_gracefully(entry.body):
            self._begin_deletion(key)
        else:
            self.store.drop(resource, key)

    def remove(self, resource: Resource, key: Key) -> None:
        """Remove an object at once, as a kubelet does at the end of a pod; one that is gone is no error."""
        if self.store.get(resource, key) is not None:
            self.store.drop(resource, key)

    def evict(self, key: Key, uid: str) -> None:
        """Delete a pod where its disruption budget allows it.

        Source: kubernetes pkg/registry/core/pod/storage/eviction.go.
        """
        pod = self._entry(PODS, key).body
        if uid and pod["metadata"]["uid"] != uid:
            raise Conflict(f'409: the UID in the precondition ({uid}) does not match the pod "{key[1]}"')
        if not is_active(pod) or pod["status"].get("phase") == "Pending":
            self.delete(PODS, key, uid)
            return
        budgets = [
            budget
            for budget in self.store.bodies(BUDGETS)
            if budget["metadata"]["namespace"] == key[0] and selects(budget["spec"].get("selector"), pod)
        ]
        if len(budgets) > 1:
            raise KubernetesError("500: This pod has more than one PodDisruptionBudget, which is not supported.")
        if budgets and not _passes_unhealthy(pod, budgets[0]):
            self._spend(budgets[0], key[1])
        self.delete(PODS, key, uid)

    def _spend(self, budget: Json, pod: str) -> None:
        status, name = budget.get("status") or {}, budget["metadata"]["name"]
        if status.get("observedGeneration", 0) < budget["metadata"]["generation"]:
            raise TooManyRequests(f"429: The disruption budget {name} is still being processed by the server.", 10.0)
        if status.get("disruptionsAllowed", 0) <= 0:
            raise TooManyRequests(
                "429: Cannot evict pod as it would violate the pod's disruption budget. The disruption budget "
                f"{name} needs {status.get('desiredHealthy', 0)} healthy pods and has "
                f"{status.get('currentHealthy', 0)} currently"
            )

        def change(body: Json) -> None:
            body["status"]["disruptionsAllowed"] -= 1
            body["status"].setdefault("disruptedPods", {})[pod] = stamp(self.clock.now())

        self.write(BUDGETS, key_of(budget), change)

    def _begin_deletion(self, key: Key) -> None:
        now = self.clock.now()

        def change(pod: Json) -> None:
            grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
            pod["metadata"].setdefault("deletionTimestamp", stamp(now + grace))
            pod["metadata"].setdefault("deletionGracePeriodSeconds", grace)

        self.write(PODS, key, change)

    def _entry(self, resource: Resource, key: Key) -> Entry:
        entry = self.store.get(resource, key)
        if entry is None:
            raise NotFound(f'404: {resource.plural} "{key[1]}" not found')
        return entry

    def _save(self, resource: Resource, entry: Entry, body: Json) -> Entry:
        body["metadata"]["resourceVersion"] = entry.body["metadata"]["resourceVersion"]
        if body == entry.body:
            return entry
        if resource in _WITH_GENERATION and _has_new_generation(resource, entry.body, body):
            body["metadata"]["generation"] = entry.body["metadata"].get("generation", 0) + 1
        return self.store.put(resource, body)


class SimulatedKubernetes:
    """Implements `planner.ports.Kubernetes` on a simulated API server; every call takes simulated time.

    The port's errors are those of the real client. Time passes in a call as it would on a real cluster, so
    that what a caller read is no longer quite what there is.
    """

    def __init__(self, server: ApiServer, latency_seconds: float = 0.005) -> None:
        """Answer after so many seconds of simulated time."""
        self.server: Final = server
        self.latency_seconds = latency_seconds

    def list(self, resource: Resource, field_selector: str = "") -> Listing:
        """Return every object, read at one moment."""
        self._wait()
        store = self.server.store
        with store.changed:
            chosen = [e for e in store.entries(resource) if fields_match(field_selector, e.body)]
            return Listing(tuple(item_bytes(entry) for entry in chosen), str(store.version))

    def watch(self, resource: Resource, resource_version: str, timeout_seconds: float) -> Iterator[WatchEvent]:
        """Yield changes; while there is none simulated time passes."""
        self._wait()
        store, clock = self.server.store, self.server.clock
        position, deadline = int(resource_version or 0), clock.now() + timeout_seconds
        while True:
            try:
                changes = store.since(resource, position)
            except LookupError as error:
                raise Gone(f"410: {error}") from error
            for change in changes:
                position = change.version
                yield WatchEvent(change.type, change.raw)
            if not changes:
                if clock.now() >= deadline:
                    break
                clock.step(deadline)
        yield WatchEvent("BOOKMARK", bookmark(resource, max(position, store.version)))

    def get(self, resource: Resource, namespace: str, name: str) -> bytes:
        """Return one object."""
        self._wait()
        entry = self.server.store.get(resource, (namespace, name))
        if entry is None:
            raise NotFound(f'404: {resource.plural} "{name}" not found')
        return entry.raw

    def create(self, resource: Resource, namespace: str, body: Mapping[str, object]) -> bytes:
        """Create an object."""
        self._wait()
        return self.server.create(resource, namespace, body).raw

    def replace(self, resource: Resource, namespace: str, name: str, body: Mapping[str, object]) -> bytes:
        """Replace an object; a Lease or an Event that is not there is created, as on a real server."""
        self._wait()
        key = (namespace, name)
        given: Mapping[str, Any] = msgspec.convert(body.get("metadata") or {}, dict[str, Any])
        if resource in _CREATED_BY_PUT and self.server.store.get(resource, key) is None:
            metadata = dict(given)
            if metadata.get("uid"):
                raise Conflict(f'409: {resource.plural} "{name}" of this uid does not exist')
            metadata.pop("resourceVersion", None)
            return self.server.create(resource, namespace, {**body, "metadata": metadata}).raw
        if resource in _UPDATED_BY_VERSION and not given.get("resourceVersion"):
            raise KubernetesError(
                f'422: {resource.plural} "{name}" is invalid: metadata.resourceVersion: must be specified for an update'
            )
        return self.server.update(resource, key, body).raw

    def patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, object], kind: PatchKind = "merge"
    ) -> bytes:
        """Patch an object."""
        self._wait()
        return self.server.patch(resource, (namespace, name), patch, kind).raw

    def evict(self, namespace: str, name: str, uid: str) -> None:
        """Evict a pod."""
        self._wait()
        self.server.evict((namespace, name), uid)

    def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """Delete an object."""
        self._wait()
        self.server.delete(resource, (namespace, name), uid)

    def _wait(self) -> None:
        if self.latency_seconds:
            self.server.clock.sleep(self.latency_seconds)


def item_bytes(entry: Entry) -> bytes:
    """Return an object as an element of a list: there it has neither apiVersion nor kind."""
    start = entry.raw.index(b'"metadata"')
    return b"{" + entry.raw[start:]


def bookmark(resource: Resource, version: int) -> bytes:
    """Return the object of a bookmark event."""
    return msgspec.json.encode(
        {
            "kind": resource.kind,
            "apiVersion": _api_version(resource),
            "metadata": {"resourceVersion": str(version)},
        }
    )


def fields_match(selector: str, body: Json) -> bool:
    """Tell whether an object satisfies a field selector such as `spec.nodeName=n1,status.phase!=Failed`."""
    for part in filter(None, selector.split(",")):
        path, equal, wanted = part.replace("!=", "=!").replace("==", "=").partition("=")
        value: Any = body
        for name in path.strip().split("."):
            value = value.get(name, "") if isinstance(value, dict) else ""
        if not equal or (str(value) == wanted.lstrip("!")) == wanted.startswith("!"):
            return False
    return True


def set_condition(body: Json, kind: str, status: str, now: float, **more: str) -> None:
    """Set a condition of an object that is being changed; its transition time moves with its status."""
    conditions = body.setdefault("status", {}).setdefault("conditions", [])
    found = next((item for item in conditions if item["type"] == kind), None)
    if found is None:
        found = {"type": kind, "status": ""}
        conditions.append(found)
    if found["status"] != status:
        found["lastTransitionTime"] = stamp(now)
    for name in ("reason", "message"):
        found.pop(name, None)
    found |= {"status": status, **more}


def _api_version(resource: Resource) -> str:
    return f"{resource.group}/{resource.version}" if resource.group else resource.version


def _check_preconditions(resource: Resource, old: Json, metadata: Json) -> None:
    name = old["metadata"]["name"]
    if (uid := metadata.get("uid")) and uid != old["metadata"]["uid"]:
        raise Conflict(
            f'409: Operation cannot be fulfilled on {resource.plural} "{name}": the UID in the precondition ({uid}) '
            f"does not match the UID in record ({old['metadata']['uid']})"
        )
    if (version := metadata.get("resourceVersion")) and version != old["metadata"]["resourceVersion"]:
        raise Conflict(
            f'409: Operation cannot be fulfilled on {resource.plural} "{name}": the object has been modified; please '
            "apply your changes to the latest version and try again"
        )


def _check_immutable(resource: Resource, old: Json, new: Json) -> None:
    name = new["metadata"]["name"]
    if resource == PODS and _fixed_part(old["spec"]) != _fixed_part(new.get("spec", {})):
        raise KubernetesError(f'422: Pod "{name}" is invalid: spec: Forbidden: pod updates may not change these fields')
    if resource in (DEPLOYMENTS, REPLICASETS, STATEFULSETS, DAEMONSETS, JOBS):
        if old["spec"].get("selector") != new.get("spec", {}).get("selector"):
            raise KubernetesError(f'422: {resource.kind} "{name}" is invalid: spec.selector: field is immutable')
        _check_selector(resource, new)


def _fixed_part(spec: Json) -> Json:
    """Return what nobody may change of a pod's spec."""
    changeable = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations")
    fixed = {key: value for key, value in spec.items() if key not in changeable}
    for field in ("containers", "initContainers"):
        if field in fixed:
            fixed[field] = [{k: v for k, v in c.items() if k != "image"} for c in fixed[field]]
    return fixed


def _check_selector(resource: Resource, body: Json) -> None:
    if resource == JOBS:
        return
    spec = body["spec"]
    if not selects(spec.get("selector"), {"metadata": spec["template"].get("metadata") or {}}):
        raise KubernetesError(
            f'422: {resource.kind} "{body["metadata"]["name"]}" is invalid: spec.template.metadata.labels: '
            "`selector` does not match template `labels`"
        )


def _has_new_generation(resource: Resource, old: Json, new: Json) -> bool:
    if old.get("spec") == new.get("spec"):
        return False
    # A binding is written by the server itself and leaves the pod's generation.
    return resource != PODS or old["spec"].get("nodeName") == new["spec"].get("nodeName")


def _ends_gracefully(pod: Json) -> bool:
    return bool(pod["spec"].get("nodeName")) and pod["status"].get("phase") not in ("Succeeded", "Failed")


def _passes_unhealthy(pod: Json, budget: Json) -> bool:
    """Tell whether a pod that is not ready may go without spending the budget."""
    if is_ready(pod):
        return False
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = status.get("desiredHealthy", 0)
    return bool(desired > 0 and status.get("currentHealthy", 0) >= desired)


def _admit(resource: Resource, body: Json) -> None:
    """Fill in what the server's defaults and admission add, as far as anything here reads it."""
    if resource == NODES:
        spec = body.setdefault("spec", {})
        body.setdefault("status", {})
        if not is_ready(body):
            # Admission TaintNodesByCondition: a new node takes no pods until it has reported.
            taints = spec.setdefault("taints", [])
            if not any(taint["key"] == NOT_READY for taint in taints):
                taints.append({"key": NOT_READY, "effect": "NoSchedule"})
        return
    if resource in _WITH_STATUS:
        body["status"] = {}
    if resource == PODS:
        _default_pod_spec(body["spec"])
        body["status"] = {"phase": "Pending"}
        tolerations = body["spec"].setdefault("tolerations", [])
        for key in (NOT_READY, UNREACHABLE):
            if not any(t.get("key") in (None, "", key) and t.get("effect") != "NoSchedule" for t in tolerations):
                tolerations.append({"key": key, **_DAEMON_TOLERATED})
        if controller_of(body) is None:
            body["metadata"].setdefault("labels", {})
    if resource in _WITH_TEMPLATE:
        spec = body["spec"]
        _default_pod_spec(spec["template"]["spec"])
        if resource in (DEPLOYMENTS, REPLICASETS, STATEFULSETS):
            spec.setdefault("replicas", 1)
        if resource == DEPLOYMENTS:
            _default_deployment(spec)
        if resource in (STATEFULSETS, DAEMONSETS):
            spec.setdefault("updateStrategy", {"type": "RollingUpdate"})
            spec.setdefault("revisionHistoryLimit", 10)
        if resource == STATEFULSETS:
            spec.setdefault("podManagementPolicy", "OrderedReady")
        if resource == JOBS:
            spec.setdefault("completions", 1)
            spec.setdefault("parallelism", 1)
        _check_selector(resource, body)


def _default_deployment(spec: Json) -> None:
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", "25%")
        rolling.setdefault("maxUnavailable", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def _default_pod_spec(spec: Json) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    for container in [*spec.get("containers", ()), *spec.get("initContainers", ())]:
        resources = container.setdefault("resources", {})
        for name, quantity in (resources.get("limits") or {}).items():
            resources.setdefault("requests", {}).setdefault(name, quantity)
