"""Deployments and ReplicaSets: rolling updates with surge and unavailability as the real controllers do them."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import msgspec

from planner.errors import Conflict
from planner.ports import DEPLOYMENTS, PODS, REPLICASETS, Resource
from simulator.queues import Controller
from simulator.selectors import scaled
from simulator.status import condition, is_active, is_deleting, is_ready, seconds_of, set_condition
from simulator.store import Change, Json, Key, controller_of, key_of

TEMPLATE_HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def template_hash(template: Json) -> str:
    """Return ten letters that stand for a pod template."""
    encoded = msgspec.json.encode(template, order="deterministic")
    number = int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big")
    return "".join(_LETTERS[number // len(_LETTERS) ** place % len(_LETTERS)] for place in range(10))


def owner_reference(owner: Json) -> Json:
    """Return the reference by which a controller owns an object."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def pod_of(owner: Json, name: str, labels: Json) -> Json:
    """Return a new pod of the owner's template with further labels."""
    template: Json = msgspec.json.decode(msgspec.json.encode(owner["spec"]["template"]))
    metadata = template.get("metadata") or {}
    return {
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": (metadata.get("labels") or {}) | labels,
            "annotations": metadata.get("annotations") or {},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": template["spec"],
    }


def owner_key(body: Json, kind: str) -> Key | None:
    """Return the key of the object's controller, if that is of the kind."""
    owner = controller_of(body)
    if owner is None or owner["kind"] != kind:
        return None
    return body["metadata"].get("namespace", ""), owner["name"]


class ReplicaSets(Controller):
    """Keeps as many pods as a ReplicaSet asks for. Source: kubernetes pkg/controller/replicaset."""

    def observe(self, change: Change) -> None:
        """React to a ReplicaSet's or one of its pods' changes."""
        if change.resource == REPLICASETS and change.type != "DELETED":
            self.enqueue(change.key)
        elif change.resource == PODS and (key := owner_key(change.body, "ReplicaSet")) is not None:
            self.enqueue(key)

    def reconcile(self, key: Key) -> None:
        """Create or delete the difference, then write the status."""
        body = self.server.find(REPLICASETS, key)
        if body is None or is_deleting(body):
            return
        pods = [pod for pod in self.store.owned(body["metadata"]["uid"], PODS) if is_active(pod)]
        missing = body["spec"]["replicas"] - len(pods)
        for _ in range(missing):
            pod = pod_of(body, self.server.name_after(f"{key[1]}-"), {})
            self.server.create(PODS, key[0], pod)
        if missing < 0:
            for pod in self._victims(body, pods, -missing):
                self.server.delete(PODS, key_of(pod), pod["metadata"]["uid"])
        self._write_status(key)

    def _victims(self, body: Json, pods: list[Json], count: int) -> list[Json]:
        """Return the pods to delete first. Source: controller_utils.go ActivePodsWithRanks.Less."""
        neighbours = self._pods_by_node(body)
        now = self.clock.now()

        def rank(pod: Json) -> tuple[Any, ...]:
            ready = is_ready(pod)
            node = pod["spec"].get("nodeName", "")
            return (
                bool(node),
                {"Pending": 0, "Unknown": 1, "Running": 2}.get(pod["status"].get("phase", ""), 0),
                ready,
                int((pod["metadata"].get("annotations") or {}).get(DELETION_COST, "0")),
                -neighbours.get(node, 0),
                _age_class(now - _ready_since(pod)) if ready else 0,
                _age_class(now - seconds_of(pod["metadata"]["creationTimestamp"])),
                pod["metadata"]["uid"],
            )

        return sorted(pods, key=rank)[:count]

    def _pods_by_node(self, body: Json) -> dict[str, int]:
        """Count the active pods of all ReplicaSets of the same Deployment on each node."""
        owner = controller_of(body)
        siblings = self.store.owned(owner["uid"], REPLICASETS) if owner else [body]
        counts: dict[str, int] = {}
        for sibling in siblings:
            for pod in self.store.owned(sibling["metadata"]["uid"], PODS):
                if is_active(pod) and (node := pod["spec"].get("nodeName")):
                    counts[node] = counts.get(node, 0) + 1
        return counts

    def _write_status(self, key: Key) -> None:
        body = self.server.find(REPLICASETS, key)
        if body is None:
            return
        pods = [pod for pod in self.store.owned(body["metadata"]["uid"], PODS) if is_active(pod)]
        wait = body["spec"].get("minReadySeconds", 0)
        ready = [pod for pod in pods if is_ready(pod)]
        ages = [self.clock.now() - _ready_since(pod) for pod in ready] if wait else []
        available = sum(age >= wait for age in ages) if wait else len(ready)
        if waiting := [wait - age for age in ages if age < wait]:
            self.enqueue_again(key, min(waiting) + 0.001)
        status = {
            "replicas": len(pods),
            "fullyLabeledReplicas": len(pods),
            "readyReplicas": len(ready),
            "availableReplicas": available,
            "observedGeneration": body["metadata"]["generation"],
        }
        set_status(self, REPLICASETS, key, status)


class Deployments(Controller):
    """Rolls Deployments out. Source: kubernetes pkg/controller/deployment (rolling.go, recreate.go, sync.go)."""

    def observe(self, change: Change) -> None:
        """React to a Deployment's or one of its ReplicaSets' changes, and to a pod that is gone (Recreate)."""
        if change.resource == DEPLOYMENTS and change.type != "DELETED":
            self.enqueue(change.key)
        elif change.resource == REPLICASETS and (key := owner_key(change.body, "Deployment")) is not None:
            self.enqueue(key)
        elif change.resource == PODS and change.type == "DELETED":
            replicaset = owner_key(change.body, "ReplicaSet")
            owner = self.server.find(REPLICASETS, replicaset) if replicaset else None
            if owner is not None and (key := owner_key(owner, "Deployment")) is not None:
                self.enqueue(key)

    def reconcile(self, key: Key) -> None:
        """Take the next step of the roll-out or of scaling, then write the status."""
        body = self.server.find(DEPLOYMENTS, key)
        if body is None or is_deleting(body):
            return
        paused = bool(body["spec"].get("paused"))
        new = self._new_replicaset(body, create=not paused)
        old = [r for r in self._replicasets(body) if new is None or key_of(r) != key_of(new)]
        if paused or self._is_scaled(body):
            self._scale(body, new, old)
        elif new is not None and body["spec"]["strategy"]["type"] == "Recreate":
            self._recreate(body, new, old)
        elif new is not None:
            self._roll(body, new, old)
        self._write_status(key)
        self._tidy(key)

    def _replicasets(self, body: Json) -> list[Json]:
        owned = self.store.owned(body["metadata"]["uid"], REPLICASETS)
        return sorted(owned, key=lambda r: (r["metadata"]["creationTimestamp"], r["metadata"]["name"]))

    def _new_replicaset(self, body: Json, *, create: bool) -> Json | None:
        template = body["spec"]["template"]
        digest = template_hash(template)
        name = f"{body['metadata']['name']}-{digest}"
        namespace = body["metadata"]["namespace"]
        existing = self._replicasets(body)
        revision = max((int(_revision(r)) for r in existing), default=0) + 1
        found = next((r for r in existing if r["metadata"]["name"] == name), None)
        if found is not None and int(_revision(found)) == revision - 1:
            return found
        if found is not None:

            def renew(replicaset: Json) -> None:
                replicaset["metadata"]["annotations"][REVISION] = str(revision)

            return self.server.write(REPLICASETS, (namespace, name), renew)
        if not create:
            return None
        template = msgspec.json.decode(msgspec.json.encode(template))
        labels = template.setdefault("metadata", {}).setdefault("labels", {})
        labels[TEMPLATE_HASH] = digest
        selector = msgspec.json.decode(msgspec.json.encode(body["spec"]["selector"]))
        selector.setdefault("matchLabels", {})[TEMPLATE_HASH] = digest
        replicas = body["spec"]["replicas"]
        # The first size already respects the surge, so that a new set never starts above it.
        count = self._room_for_new(body, 0, existing) if existing else replicas
        if existing and body["spec"]["strategy"]["type"] == "Recreate":
            count = 0
        replicaset = {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": dict(labels),
                "annotations": {REVISION: str(revision), **_limits(body)},
                "ownerReferences": [owner_reference(body)],
            },
            "spec": {
                "replicas": count,
                "minReadySeconds": body["spec"].get("minReadySeconds", 0),
                "selector": selector,
                "template": template,
            },
        }
        try:
            self.server.create(REPLICASETS, namespace, replicaset)
        except Conflict:
            # The set of an older Deployment of this name is still being collected; the next turn finds it gone.
            self.enqueue_again(key_of(body), 1.0)
            return None

        def note(deployment: Json) -> None:
            deployment["metadata"].setdefault("annotations", {})[REVISION] = str(revision)

        self.server.write(DEPLOYMENTS, key_of(body), note)
        return self.server.find(REPLICASETS, (namespace, name))

    def _room_for_new(self, body: Json, present: int, replicasets: list[Json]) -> int:
        """Return the size that the new ReplicaSet may have. Source: deployment_util.go NewRSNewReplicas."""
        replicas: int = body["spec"]["replicas"]
        total: int = sum(r["spec"]["replicas"] for r in replicasets)
        most = replicas + surge_and_unavailable(body)[0]
        if total >= most:
            return present
        return present + min(most - total, max(0, replicas - present))

    def _is_scaled(self, body: Json) -> bool:
        """Tell whether the number of replicas changed since the ReplicaSets were sized."""
        wanted = str(body["spec"]["replicas"])
        return any(
            r["spec"]["replicas"] > 0 and (r["metadata"].get("annotations") or {}).get(_DESIRED, wanted) != wanted
            for r in self._replicasets(body)
        )

    def _scale(self, body: Json, new: Json | None, old: list[Json]) -> None:
        """Give the whole difference to the newest active set; the roll-out then evens it out."""
        everything = [*old, *([new] if new else [])]
        active = [r for r in everything if r["spec"]["replicas"] > 0] or everything[-1:]
        if not active:
            return
        wanted = body["spec"]["replicas"] + (surge_and_unavailable(body)[0] if len(active) > 1 else 0)
        total = sum(r["spec"]["replicas"] for r in active)
        for replicaset in reversed(active):
            size = replicaset["spec"]["replicas"]
            changed = max(0, size + wanted - total)
            total += changed - size
            self._resize(body, replicaset, changed)

    def _recreate(self, body: Json, new: Json, old: list[Json]) -> None:
        for replicaset in old:
            self._resize(body, replicaset, 0)
        standing = [pod for r in old for pod in self.store.owned(r["metadata"]["uid"], PODS)]
        if not any(pod["status"].get("phase") not in ("Succeeded", "Failed") for pod in standing):
            self._resize(body, new, body["spec"]["replicas"])

    def _roll(self, body: Json, new: Json, old: list[Json]) -> None:
        replicas = body["spec"]["replicas"]
        size = new["spec"]["replicas"]
        wanted = replicas if size > replicas else self._room_for_new(body, size, [*old, new])
        if self._resize(body, new, wanted):
            return
        if not any(r["spec"]["replicas"] for r in old):
            return
        floor = replicas - surge_and_unavailable(body)[1]
        total = sum(r["spec"]["replicas"] for r in [*old, new])
        unavailable = size - _available(new)
        budget = total - floor - unavailable
        if budget <= 0:
            return
        old = self._drop_unhealthy(body, old, budget)
        spare = sum(_available(r) for r in [*old, new]) - floor
        for replicaset in old:
            cut = min(replicaset["spec"]["replicas"], max(0, spare))
            if cut:
                self._resize(body, replicaset, replicaset["spec"]["replicas"] - cut)
                spare -= cut

    def _drop_unhealthy(self, body: Json, old: list[Json], budget: int) -> list[Json]:
        """Scale the old sets down by their unavailable pods first. Source: rolling.go cleanupUnhealthyReplicas."""
        left = []
        for replicaset in old:
            size = replicaset["spec"]["replicas"]
            cut = min(budget, size - _available(replicaset)) if size else 0
            if cut > 0:
                self._resize(body, replicaset, size - cut)
                budget -= cut
            left.append(self.server.find(REPLICASETS, key_of(replicaset)) or replicaset)
        return left

    def _resize(self, body: Json, replicaset: Json, replicas: int) -> bool:
        """Set a ReplicaSet's size; tells whether that changed it."""

        def change(found: Json) -> None:
            found["spec"]["replicas"] = replicas
            found["metadata"].setdefault("annotations", {}).update(_limits(body))

        self.server.write(REPLICASETS, key_of(replicaset), change)
        return bool(replicaset["spec"]["replicas"] != replicas)

    def _write_status(self, key: Key) -> None:
        body = self.server.find(DEPLOYMENTS, key)
        if body is None:
            return
        everything = self._replicasets(body)
        name = f"{key[1]}-{template_hash(body['spec']['template'])}"
        updated = sum(_count(r, "replicas") for r in everything if r["metadata"]["name"] == name)
        total, ready, available = (
            sum(_count(r, field) for r in everything) for field in ("replicas", "readyReplicas", "availableReplicas")
        )
        replicas = body["spec"]["replicas"]
        enough = available >= replicas - surge_and_unavailable(body)[1]
        complete = updated == total == available == replicas

        def change(found: Json) -> None:
            found["status"] |= {
                "observedGeneration": found["metadata"]["generation"],
                "replicas": total,
                "updatedReplicas": updated,
                "readyReplicas": ready,
                "availableReplicas": available,
                "unavailableReplicas": max(0, total - available),
            }
            now = self.clock.now()
            set_condition(found, "Available", "True" if enough else "False", now)
            reason = "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated"
            set_condition(found, "Progressing", "True", now, reason=reason)

        self.server.write(DEPLOYMENTS, key, change)

    def _tidy(self, key: Key) -> None:
        """Remove the oldest empty ReplicaSets beyond the history limit."""
        body = self.server.find(DEPLOYMENTS, key)
        if body is None:
            return
        name = f"{key[1]}-{template_hash(body['spec']['template'])}"
        empty = [
            r
            for r in self._replicasets(body)
            if r["metadata"]["name"] != name and not r["spec"]["replicas"] and not _count(r, "replicas")
        ]
        for replicaset in empty[: max(0, len(empty) - body["spec"]["revisionHistoryLimit"])]:
            self.server.remove(REPLICASETS, key_of(replicaset))


_DESIRED = "deployment.kubernetes.io/desired-replicas"
_MOST = "deployment.kubernetes.io/max-replicas"


def surge_and_unavailable(deployment: Json) -> tuple[int, int]:
    """Return maxSurge and maxUnavailable in pods. Source: deployment_util.go ResolveFenceposts."""
    strategy, replicas = deployment["spec"]["strategy"], deployment["spec"]["replicas"]
    if strategy["type"] == "Recreate":
        return 0, replicas
    surge = scaled(strategy["rollingUpdate"]["maxSurge"], replicas, round_up=True)
    unavailable = scaled(strategy["rollingUpdate"]["maxUnavailable"], replicas, round_up=False)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def _limits(deployment: Json) -> Json:
    replicas = deployment["spec"]["replicas"]
    surge = surge_and_unavailable(deployment)[0]
    return {_DESIRED: str(replicas), _MOST: str(replicas + surge)}


def _revision(replicaset: Json) -> str:
    revision: str = (replicaset["metadata"].get("annotations") or {}).get(REVISION, "0")
    return revision


def _available(replicaset: Json) -> int:
    # A set that was just made smaller has not written its status yet; a real one does so within milliseconds.
    return min(_count(replicaset, "availableReplicas"), int(replicaset["spec"]["replicas"]))


def _count(body: Json, field: str) -> int:
    count: int = (body.get("status") or {}).get(field, 0)
    return count


def _ready_since(pod: Json) -> float:
    found = condition(pod, "Ready")
    return seconds_of(found["lastTransitionTime"]) if found is not None else math.inf


def _age_class(seconds: float) -> int:
    """Return the order of magnitude of an age; the youngest class is deleted first, equal ones by uid."""
    return int(math.log2(seconds * 1e9)) if seconds > 0 else -1


def set_status(controller: Controller, resource: Resource, key: Key, status: Json) -> None:
    """Write an object's status, other fields of it kept."""

    def change(body: Json) -> None:
        body["status"] = (body.get("status") or {}) | status

    controller.server.write(resource, key, change)
