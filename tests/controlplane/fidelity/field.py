"""One control plane on which roll-outs follow each other: each populated anew, carried out by the planner, measured."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, TypeVar

from planner.kube import record as records
from planner.model.plan import Plan, PlanRecord
from tests.controlplane.admin import ApiError
from tests.controlplane.fidelity.beside import PATIENT_TIMEOUT, SKIPPED, Extender, running
from tests.controlplane.fidelity.history import History, Life
from tests.controlplane.fidelity.rollout import (
    MACHINE_TYPE,
    NAMESPACE,
    POOL,
    ZONE,
    Size,
    deployments,
    make_plan,
    wanted,
)
from tests.controlplane.installation import BASE, Installation, finish
from tests.controlplane.kwok import FakeNode
from tests.controlplane.processes import Process
from tests.controlplane.site import machine_node
from tests.googlecloud.fake import FakeGoogleCloud, FakePool

Json = dict[str, Any]
_T = TypeVar("_T")

DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
CONFIGMAPS = "/api/v1/namespaces/kube-system/configmaps"
PATIENCE_SECONDS = 300.0
"""How long a step of 2,000 pods may take on a loaded machine; on two idle cores none takes a minute."""

FIRST, SECOND = "i-1", "i-2"


@dataclass(frozen=True)
class Arm:
    """What stands beside each other: schedulers, each with an extender or without; the settings of moves.

    `room` is the CPU of a node beside what the plan puts on one on average; None is what the machine type has. Pods
    that are doubled need 3/2 of it.
    """

    schedulers: tuple[str, ...] = ("default-scheduler",)
    extended: bool = True
    skew_seconds: float = 0.0
    ttl_seconds: float = 86400.0
    room: float | None = None


class Field(Installation):
    """A control plane with Kinema's rights, on which nothing runs yet."""

    http_timeout: str | None = PATIENT_TIMEOUT
    """How long a scheduler waits for the extender's answer; None as the manifests say."""

    def install(self) -> None:
        """Authorize the parts; schedulers and extenders come with each roll-out."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cluster.apply(BASE / "rbac.yaml", namespace="kube-system")
        self.cluster.create_namespace(NAMESPACE)

    @contextmanager
    def populated(self, size: Size, arm: Arm) -> Iterator[RollOut]:
        """Yield a cluster whose pods are spread over all nodes, and take it away again."""
        if arm.room is not None:
            size = replace(size, node_cpu_millicores=round(arm.room * size.planned_cpu_millicores))
        with ExitStack() as stack:
            stack.callback(self._reset)
            pool = FakePool(POOL, MACHINE_TYPE, [ZONE], {ZONE: size.node_names}, minimum=0, maximum=size.nodes)
            cloud = stack.enter_context(FakeGoogleCloud([pool], boot_seconds=0.3, delete_seconds=0.1))
            identity = self.cluster.kubeconfig_for("kube-system", "kinema-extender")
            extenders = [Extender(identity, arm.skew_seconds) for _ in arm.schedulers if arm.extended]
            self.cluster.add_node(*(_node(name, size) for name in size.node_names))
            schedulers = [
                stack.enter_context(running(self.cluster, name, extender, self.http_timeout))
                for name, extender in zip_longest(arm.schedulers, extenders)
            ]
            uids = {
                body["metadata"]["name"]: self.cluster.request("POST", DEPLOYMENTS, body)["metadata"]["uid"]
                for body in deployments(size, arm.schedulers)
            }
            everyone = size.replicas * size.workloads
            self.cluster.eventually(lambda: self._available() == everyone, "every pod to run", PATIENCE_SECONDS)
            history = stack.enter_context(History(self.cluster))
            rollout = RollOut(self, size, arm, cloud, schedulers, extenders, history, uids)
            stack.callback(rollout.stop_planner)
            yield rollout

    def _available(self) -> int:
        return sum(body.get("status", {}).get("availableReplicas", 0) for body in self.cluster.items(DEPLOYMENTS))

    def _reset(self) -> None:
        self.cluster.empty()
        if self.record() is not None:
            self.cluster.request("DELETE", f"{CONFIGMAPS}/{records.NAME}")


@dataclass
class RollOut:
    """A populated cluster, what runs beside it, and the plans that were given to the planner."""

    ground: Field
    size: Size
    arm: Arm
    cloud: FakeGoogleCloud
    schedulers: Sequence[Process]
    extenders: Sequence[Extender]
    history: History
    uids: dict[str, str]
    plans: list[Plan] = field(default_factory=list)
    planner: subprocess.Popen[str] | None = None
    output: str = ""

    # What the planner does

    def accept(self, iteration: str = FIRST, seed: int = 0, expires_in_seconds: float | None = None) -> Plan:
        """Let the cluster remember a plan in the place of an earlier one, accepted just now unless it is to expire."""
        plan = make_plan(self.size, self.uids, iteration, seed)
        age = 0.0 if expires_in_seconds is None else self.arm.ttl_seconds - expires_in_seconds
        body = records.encode_record(PlanRecord(plan, "carrying-out", time.time() - age), "kube-system")
        try:
            self.ground.cluster.request("POST", CONFIGMAPS, body)
        except ApiError as error:
            if error.status != 409:
                raise
            self.ground.cluster.request("PUT", f"{CONFIGMAPS}/{records.NAME}", body)
        self.plans.append(plan)
        return plan

    def start_planner(self) -> None:
        """Start the planner, which carries on with what the cluster remembers."""
        settings = self.ground.settings(self.cloud)
        settings["move"]["plan_ttl_seconds"] = self.arm.ttl_seconds
        if self.extenders:
            settings["move"]["extender_url"] = f"http://127.0.0.1:{self.extenders[0].port}"
        self.planner = self.ground.launch(settings)

    def finish_planner(self) -> None:
        """Wait until the plan is carried out."""
        assert self.planner is not None
        self.output += finish(self.planner, 2 * PATIENCE_SECONDS)
        self.planner = None

    def kill_planner(self) -> None:
        """End it at once."""
        assert self.planner is not None
        self.planner.send_signal(signal.SIGKILL)
        self.output += self.planner.communicate()[0]
        self.planner = None

    def stop_planner(self) -> None:
        """Ask it to end, whatever it does; it gives its Lease back."""
        if self.planner is not None:
            self.planner.terminate()
            self.output += self.planner.communicate(timeout=60)[0]
            self.planner = None

    def told_divergence(self) -> dict[str, float]:
        """Return the metric of a planner that looks at the cluster again and again, by reason."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.planner = self.ground.launch(self.ground.settings(self.cloud) | {"metrics_port": port}, once=False)
        found = self.wait_for(lambda: _metric(port, "kinema_plan_divergence"), "the planner to tell the divergence")
        self.stop_planner()
        return found

    def skipped(self) -> int:
        """Count the calls that a scheduler went on without, for want of an answer in time."""
        return sum(scheduler.log.read_text().count(SKIPPED) for scheduler in self.schedulers)

    # What happens meanwhile

    def wait_for(self, check: Callable[[], _T], what: str, timeout_seconds: float = PATIENCE_SECONDS) -> _T:
        """Ask until the check is true, and fail early where the history is broken."""

        def ask() -> _T | None:
            assert not self.history.failures, self.history.failures
            return check() or None

        return self.ground.cluster.eventually(ask, what, timeout_seconds)

    def wait_for_share(self, share: float, iteration: str = FIRST) -> None:
        """Wait until so many of the pods that the roll-out makes are bound."""
        least = share * self.size.replicas * self.size.workloads
        self.wait_for(lambda: len(self.history.bound(iteration)) >= least, f"{share:.0%} of the pods to be bound")

    def wait_for_end(self, iteration: str = FIRST) -> None:
        """Wait until every Deployment has rolled."""
        self.wait_for(lambda: self._rolled(iteration), "every Deployment to have rolled")

    def scale(self, factor: float) -> None:
        """Give every Deployment so many times its replicas, as an autoscaler does."""
        for app in self.size.apps:
            self.scale_one(app, round(self.size.replicas * factor))

    def scale_one(self, app: str, replicas: int) -> None:
        """Give one Deployment so many replicas."""
        self.ground.cluster.request("PATCH", f"{DEPLOYMENTS}/{app}", {"spec": {"replicas": replicas}})

    def cordon(self) -> None:
        """Let no node take any further pod."""
        for node in self.ground.cluster.items("/api/v1/nodes"):
            path = f"/api/v1/nodes/{node['metadata']['name']}"
            self.ground.cluster.request("PATCH", path, {"spec": {"unschedulable": True}})

    def delete_pod(self, life: Life, grace_seconds: int = 1) -> None:
        """Delete one pod, if it still stands."""
        body = {"gracePeriodSeconds": grace_seconds, "preconditions": {"uid": life.uid}}
        try:
            self.ground.cluster.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/{life.name}", body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    def delete_node(self, name: str) -> None:
        """Delete a node and, as the collector of orphaned pods does a minute later, the pods on it."""
        self.ground.cluster.request("DELETE", f"/api/v1/nodes/{name}")
        for life in self.history.standing():
            if life.node == name:
                self.delete_pod(life, 0)

    def _rolled(self, iteration: str) -> bool:
        standing = self.history.standing()
        done = Counter(life.workload for life in standing if life.iteration == iteration and life.node)
        return done.total() == len(standing) and self._replicas_reached(done)

    def _replicas_reached(self, done: Counter[str]) -> bool:
        bodies = self.ground.cluster.items(DEPLOYMENTS)
        wanted_pods = sum(body["spec"]["replicas"] for body in bodies)
        updated = sum(body.get("status", {}).get("updatedReplicas", 0) for body in bodies)
        return bool(done.total() == wanted_pods == updated)


@dataclass(frozen=True)
class Figures:
    """What a roll-out came to, counted from outside; times in seconds.

    `placed` are the pods bound to a node on which the plan of their iteration wants their workload, `overfilled` those
    of them that found as many there already as it wants; `surplus` and `missing` count by node and workload the live
    pods beyond and below what the last plan wants.
    """

    moved: int
    placed: int
    overfilled: int
    surplus: int
    missing: int
    pending: int
    unschedulable: int
    seconds: float
    waits: tuple[float, ...]

    @classmethod
    def of(cls, rollout: RollOut, lives: Sequence[Life] | None = None) -> Figures:
        """Count; `lives` are the pods to judge, by default all that the roll-outs made."""
        bound = rollout.history.bound() if lives is None else lives
        by_iteration = {plan.iteration: wanted(plan) for plan in rollout.plans}
        placed = sum((life.node, life.workload) in by_iteration[life.iteration] for life in bound)
        want, live = Counter(wanted(rollout.plans[-1])), rollout.history.counts()
        times = [life.bound_at for life in bound if life.bound_at is not None]
        return cls(
            moved=len(bound),
            placed=placed,
            overfilled=_overfilled(rollout, bound, by_iteration),
            surplus=(live - want).total(),
            missing=(want - live).total(),
            pending=sum(1 for life in rollout.history.standing() if not life.node),
            unschedulable=sum(1 for life in rollout.history.marked() if life.unschedulable),
            seconds=max(times) - min(life.made_at for life in bound) if times else 0.0,
            waits=tuple(sorted((life.waited_seconds or 0.0 for life in bound), reverse=True)),
        )

    @property
    def share_placed(self) -> float:
        return self.placed / self.moved if self.moved else 1.0

    def longer_than(self, other: Figures) -> float:
        """Return by how much a pod waited longer than the one of its rank in the other roll-out, at the most."""
        return max((own - others for own, others in zip(self.waits, other.waits, strict=False)), default=0.0)

    def __str__(self) -> str:
        longest = self.waits[0] if self.waits else 0.0
        median = self.waits[len(self.waits) // 2] if self.waits else 0.0
        return (
            f"{self.moved} moved in {self.seconds:.1f} s, {self.share_placed:.2%} on planned nodes, "
            f"{self.overfilled} of them beyond their targets, in the end "
            f"{self.surplus} too many and {self.missing} missing by node, {self.pending} pending, "
            f"{self.unschedulable} once without room, waits: median {median:.2f} s, longest {longest:.2f} s"
        )


def _overfilled(
    rollout: RollOut, bound: Sequence[Life], by_iteration: Mapping[str, Mapping[tuple[str, str], int]]
) -> int:
    """Count the pods that came to a target when it was full."""
    at_place: dict[tuple[str, str, str], list[Life]] = {}
    for life in rollout.history.bound():
        at_place.setdefault((life.node, life.workload, life.iteration), []).append(life)
    found = 0
    for life in bound:
        want = by_iteration[life.iteration].get((life.node, life.workload), 0)
        others = at_place[life.node, life.workload, life.iteration]
        found += 0 < want <= sum(other.stood_at(life.bound_at or 0.0) for other in others)
    return found


def _node(name: str, size: Size) -> FakeNode:
    node = machine_node(name, POOL, MACHINE_TYPE)
    return replace(node, allocatable={**node.allocatable, "cpu": f"{size.node_cpu_millicores}m"})


def _metric(port: int, name: str) -> dict[str, float]:
    """Return the values of a metric by its only label; empty while nobody tells it."""
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    except OSError:
        return {}
    return {label: float(value) for label, value in re.findall(rf'^{name}{{\w+="(.*?)"}} (\S+)$', text, re.MULTILINE)}
