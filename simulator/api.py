"""The simulated API server: creation, preconditions, patches, graceful deletion, evictions."""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from planner.errors import Conflict, KubernetesError, NotFound, TooManyRequests
from planner.ports import (
    BUDGETS,
    DAEMONSETS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    REPLICASETS,
    STATEFULSETS,
    PatchKind,
    Resource,
)
from simulator.admission import WITH_STATUS, admit, check_immutable
from simulator.clock import SimulatedClock
from simulator.patching import merge_patch, strategic_patch
from simulator.selectors import selects
from simulator.status import is_active, is_ready, set_condition, stamp
from simulator.store import Entry, Json, Key, Store, copy_of, key_of
from simulator.wire import api_version

_WITH_GENERATION: Final = frozenset({PODS, DEPLOYMENTS, REPLICASETS, STATEFULSETS, DAEMONSETS, JOBS, BUDGETS})
_KEPT_METADATA: Final = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "generation")
_SUFFIX_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"


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
        created = {"apiVersion": api_version(resource), "kind": resource.kind, "metadata": metadata}
        created |= {key: value for key, value in given.items() if key not in created}
        admit(resource, created)
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
        if resource in WITH_STATUS:
            new["status"] = old.get("status", {})
        check_immutable(resource, old, new)
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
