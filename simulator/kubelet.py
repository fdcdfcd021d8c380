"""What lives on nodes: every kubelet, the node lifecycle, and the collectors of what nobody owns any more."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from planner.ports import NODES, PODS
from simulator.admission import NOT_READY, UNREACHABLE
from simulator.api import ApiServer
from simulator.constraints import UNSCHEDULABLE
from simulator.queues import Controller
from simulator.status import is_deleting, is_ready, set_condition, stamp
from simulator.store import Change, Json, Key, key_of
from simulator.volumes import waits_for_volume

RUN_SECONDS: Final = "simulator.kinema.io/run-seconds"
"""Pod annotation: the pod succeeds after so many seconds (a Job's pods)."""

STARTUP_SECONDS: Final = "simulator.kinema.io/startup-seconds"
"""Pod annotation: so many seconds from the binding to Ready, instead of a drawn time."""

NODE_MONITOR_GRACE_SECONDS: Final = 40.0
"""How long a silent node stays Ready. Source: kube-controller-manager --node-monitor-grace-period."""

ORPHAN_SECONDS: Final = 75.0
"""How long pods of a deleted Node object stay, as measured on a real control plane."""


@dataclass(frozen=True, slots=True)
class KubeletTimes:
    """How long things take on a node: least and greatest seconds, drawn for each pod from the seed.

    A container that handles SIGTERM stops within a few seconds; it is killed at the end of its grace.
    """

    pod_startup_seconds: tuple[float, float] = (2.0, 8.0)
    pod_stop_seconds: tuple[float, float] = (1.0, 5.0)
    node_ready_seconds: tuple[float, float] = (1.0, 3.0)


class Kubelets:
    """Starts and stops the pods on every node whose machine runs."""

    def __init__(self, server: ApiServer, times: KubeletTimes, seed: int) -> None:
        """Draw every time from the seed and the pod's name."""
        self.server: Final = server
        self.clock: Final = server.clock
        self._times = times
        self._seed = seed
        self._dead: set[str] = set()
        self._begun: set[str] = set()
        self._stopping: set[str] = set()
        server.store.subscribe(self.observe)

    def stop(self, node: str) -> None:
        """The machine is gone: from now on nothing on this node reports any more."""
        self._dead.add(node)

    def revive(self, node: str) -> None:
        """A machine of this name runs (again), and its kubelet reports soon."""
        self._dead.discard(node)
        seconds = self._draw(f"node/{node}", self._times.node_ready_seconds)
        self.clock.call_after(seconds, lambda: self._report(node))

    def is_dead(self, node: str) -> bool:
        """Tell whether the machine of a node is gone."""
        return node in self._dead

    def observe(self, change: Change) -> None:
        """React to pods that are bound or being deleted, and to new nodes."""
        if change.resource == PODS:
            uid = change.body["metadata"]["uid"]
            if change.type == "DELETED":
                self._begun.discard(uid)
                self._stopping.discard(uid)
            elif change.body["spec"].get("nodeName"):
                self._take_up(change.body)
        elif change.resource == NODES and change.type == "ADDED":
            name = change.key[1]
            seconds = self._draw(f"node/{name}", self._times.node_ready_seconds)
            self.clock.call_after(seconds, lambda: self._report(name))

    def _take_up(self, pod: Json) -> None:
        uid, key = pod["metadata"]["uid"], key_of(pod)
        if is_deleting(pod):
            if uid not in self._stopping:
                self._stopping.add(uid)
                grace = pod["metadata"].get("deletionGracePeriodSeconds", 30)
                seconds = min(float(grace), self._draw(uid, self._times.pod_stop_seconds))
                self.clock.call_after(seconds, lambda: self._ended(key, uid))
        elif uid not in self._begun:
            self._begun.add(uid)
            annotations = pod["metadata"].get("annotations") or {}
            drawn = self._draw(uid, self._times.pod_startup_seconds)
            seconds = float(annotations.get(STARTUP_SECONDS, drawn))
            self.clock.call_after(seconds, lambda: self._started(key, uid))
            if RUN_SECONDS in annotations:
                self.clock.call_after(seconds + float(annotations[RUN_SECONDS]), lambda: self._succeeded(key, uid))

    def _started(self, key: Key, uid: str) -> None:
        pod = self._present(key, uid)
        if pod is None or is_deleting(pod):
            return
        if not self._node_is_ready(pod) or waits_for_volume(self.server.store, pod):
            # The node has not joined yet, or a volume cannot be attached yet: the pod starts as soon as that is over.
            self.clock.call_after(1.0, lambda: self._started(key, uid))
            return
        now = self.clock.now()

        def change(body: Json) -> None:
            body["status"] |= {"phase": "Running", "startTime": stamp(now)}
            for kind in ("Initialized", "ContainersReady", "Ready"):
                set_condition(body, kind, "True", now)
            body["status"]["containerStatuses"] = [
                {"name": c["name"], "ready": True, "restartCount": 0, "state": {"running": {"startedAt": stamp(now)}}}
                for c in body["spec"].get("containers", ())
            ]

        self.server.write(PODS, key, change)

    def _succeeded(self, key: Key, uid: str) -> None:
        pod = self._present(key, uid)
        if pod is None or is_deleting(pod):
            return
        now = self.clock.now()

        def change(body: Json) -> None:
            body["status"]["phase"] = "Succeeded"
            for kind in ("ContainersReady", "Ready"):
                set_condition(body, kind, "False", now, reason="PodCompleted")

        self.server.write(PODS, key, change)

    def _ended(self, key: Key, uid: str) -> None:
        if self._present(key, uid) is not None:
            self.server.remove(PODS, key)

    def _present(self, key: Key, uid: str) -> Json | None:
        """Return the pod if it is still the same and its machine still runs."""
        pod = self.server.find(PODS, key)
        if pod is None or pod["metadata"]["uid"] != uid or pod["spec"]["nodeName"] in self._dead:
            return None
        return pod

    def _node_is_ready(self, pod: Json) -> bool:
        node = self.server.find(NODES, ("", pod["spec"]["nodeName"]))
        return node is not None and is_ready(node)

    def _report(self, name: str) -> None:
        node = self.server.find(NODES, ("", name))
        if node is None or name in self._dead:
            return
        now = self.clock.now()

        def change(body: Json) -> None:
            for kind in ("MemoryPressure", "DiskPressure", "PIDPressure"):
                set_condition(body, kind, "False", now)
            set_condition(body, "Ready", "True", now, reason="KubeletReady")

        self.server.write(NODES, ("", name), change)

    def _draw(self, name: str, bounds: tuple[float, float]) -> float:
        return random.Random(f"{self._seed}/{name}").uniform(*bounds)


class NodeLifecycle(Controller):
    """Taints nodes by their conditions, and notes machines that fell silent."""

    def __init__(self, server: ApiServer, kubelets: Kubelets) -> None:
        """Watch the nodes whose kubelets are given."""
        super().__init__(server)
        self._kubelets = kubelets

    def observe(self, change: Change) -> None:
        """React to every change of a node."""
        if change.resource == NODES and change.type != "DELETED":
            self.enqueue(change.key)

    def fell_silent(self, node: str) -> None:
        """Note a machine that is gone; its node becomes NotReady after the grace."""
        self._kubelets.stop(node)
        self.clock.call_after(NODE_MONITOR_GRACE_SECONDS, lambda: self._mark_unknown(node))

    def reconcile(self, key: Key) -> None:
        """Set and remove the taints that follow from conditions and the cordon."""
        node = self.server.find(NODES, key)
        if node is None:
            return
        ready = next((c["status"] for c in node["status"].get("conditions", ()) if c["type"] == "Ready"), None)
        wanted = []
        if ready in ("False", None):
            wanted.append((NOT_READY, "NoSchedule"))
        if ready == "Unknown":
            wanted += [(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]
        if node["spec"].get("unschedulable"):
            wanted.append((UNSCHEDULABLE, "NoSchedule"))

        def change(body: Json) -> None:
            owned = (NOT_READY, UNREACHABLE, UNSCHEDULABLE)
            taints = [t for t in body["spec"].get("taints") or () if t["key"] not in owned]
            taints += [{"key": k, "effect": effect} for k, effect in wanted]
            body["spec"].pop("taints", None)
            if taints:
                body["spec"]["taints"] = taints

        self.server.write(NODES, key, change)

    def _mark_unknown(self, name: str) -> None:
        if self.server.find(NODES, ("", name)) is None or not self._kubelets.is_dead(name):
            return
        now = self.clock.now()

        def change(body: Json) -> None:
            set_condition(body, "Ready", "Unknown", now, reason="NodeStatusUnknown")

        self.server.write(NODES, ("", name), change)
        for pod in self.store.pods_on(name):
            if is_ready(pod):
                self.server.write(PODS, key_of(pod), lambda body: set_condition(body, "Ready", "False", now))


class Collector:
    """Removes dependents of deleted owners, and pods of deleted nodes."""

    def __init__(self, server: ApiServer) -> None:
        """Watch the server's deletions."""
        self.server: Final = server
        self.store: Final = server.store
        self.clock: Final = server.clock
        server.store.subscribe(self.observe)

    def observe(self, change: Change) -> None:
        """React to deletions."""
        if change.type != "DELETED":
            return
        uid = change.body["metadata"]["uid"]
        if self.store.dependents(uid):
            self.clock.call_after(0.1, lambda: self._collect_dependents(uid))
        if change.resource == NODES:
            name = change.key[1]
            self.clock.call_after(ORPHAN_SECONDS, lambda: self._collect_orphans(name))

    def _collect_dependents(self, uid: str) -> None:
        for resource, key in self.store.dependents(uid):
            self.server.delete(resource, key, "")

    def _collect_orphans(self, node: str) -> None:
        if self.server.find(NODES, ("", node)) is None:
            for pod in self.store.pods_on(node):
                self.server.remove(PODS, key_of(pod))
