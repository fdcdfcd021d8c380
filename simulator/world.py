"""A whole simulated world: cluster, cloud and clock behind the ports, built from short descriptions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from planner.model.machines import Catalogue, MachineType, Offering
from planner.model.resources import Resources
from planner.ports import DAEMONSETS, DEPLOYMENTS, PODS, STATEFULSETS
from simulator.api import ApiServer
from simulator.availability import Availability
from simulator.budgets import Budgets
from simulator.clock import SimulatedClock
from simulator.cloud import SimulatedCloud
from simulator.controllers import Deployments, ReplicaSets
from simulator.extenders import Extender
from simulator.kubelet import Collector, Kubelets, KubeletTimes, NodeLifecycle
from simulator.port import SimulatedKubernetes
from simulator.scheduler import Scheduler
from simulator.sets import DaemonSets, Jobs, StatefulSets
from simulator.status import is_deleting, is_ready
from simulator.store import Json
from simulator.workloads import Workload

DEFAULT_START_SECONDS: Final = 1_767_600_000.0
"""2026-01-05 08:00 UTC, a Monday."""

GIB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class ExistingNode:
    """A node that runs from the start, of one of the catalogue's pools."""

    name: str
    pool: str
    zone: str = "europe-west3-a"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a world is built from. `schedulers` are the names that pods may carry; the extender serves all."""

    catalogue: Catalogue
    nodes: tuple[ExistingNode, ...] = ()
    workloads: tuple[Workload, ...] = ()
    schedulers: tuple[str, ...] = ("default-scheduler", "kinema-scheduler")
    start_seconds: float = DEFAULT_START_SECONDS
    seed: int = 0
    kubelet_times: KubeletTimes = field(default_factory=KubeletTimes)


class World:
    """A simulated cluster with everything that acts in it; nothing happens but while time passes."""

    def __init__(self, scenario: Scenario, extender: Callable[[ApiServer], Extender] | None = None) -> None:
        """Build the world, nodes Ready and workloads applied; call `settle` to let the pods start.

        `extender` makes the extender that the schedulers ask, for example
        `simulator.embedded.embedded_extender`; None is none.
        """
        self.scenario: Final = scenario
        self.clock: Final = SimulatedClock(scenario.start_seconds)
        self.server: Final = ApiServer(self.clock, scenario.seed)
        self.kubernetes: Final = SimulatedKubernetes(self.server)
        kubelets = Kubelets(self.server, scenario.kubelet_times, scenario.seed)
        lifecycle = NodeLifecycle(self.server, kubelets)
        self.cloud: Final = SimulatedCloud(self.server, kubelets, lifecycle, scenario.catalogue, scenario.seed)
        self.availability: Final = Availability(self.server)
        self._controllers = (
            ReplicaSets(self.server),
            Deployments(self.server),
            StatefulSets(self.server),
            DaemonSets(self.server),
            Jobs(self.server),
            Budgets(self.server),
            Collector(self.server),
        )
        self.extender: Final = extender(self.server) if extender else None
        self.schedulers: Final[Mapping[str, Scheduler]] = {
            name: Scheduler(self.server, name, self.extender) for name in scenario.schedulers
        }
        for node in scenario.nodes:
            self.cloud.add_running(node.name, node.pool, node.zone)
        self.apply(scenario.workloads)

    def apply(self, workloads: Iterable[Workload]) -> None:
        """Create workloads as a user would."""
        for workload in workloads:
            if workload.on:
                scheduler = self.schedulers[workload.spec.get("schedulerName", "default-scheduler")]
                scheduler.seat(f"{workload.namespace}/{workload.name}", workload.on)
            for resource, body in workload.objects():
                self.server.create(resource, workload.namespace, body)

    def run(self, seconds: float) -> None:
        """Let simulated time pass."""
        self.clock.sleep(seconds)

    def run_until(self, holds: Callable[[], bool], timeout_seconds: float = 600.0) -> None:
        """Let time pass until the condition holds, asked after everything that happens.

        Raises:
            TimeoutError: it did not within so many simulated seconds.
        """
        deadline = self.clock.now() + timeout_seconds
        while not holds():
            if self.clock.now() >= deadline:
                raise TimeoutError(f"not within {timeout_seconds:g} simulated seconds")
            self.clock.step(deadline)

    def settle(self, timeout_seconds: float = 600.0) -> None:
        """Run until every workload has all its pods Ready, then begin to record availability.

        Raises:
            TimeoutError: some pods did not become Ready; says which and why.
        """
        try:
            self.run_until(self.is_settled, timeout_seconds)
        except TimeoutError as error:
            waiting = [_describe(pod) for pod in self.server.store.bodies(PODS) if not _is_done(pod)]
            raise TimeoutError(f"{error}: {'; '.join(waiting[:5])}") from None
        # The last status of the controllers and the budgets follows within a second.
        self.run(1.0)
        self.availability.begin()

    def is_settled(self) -> bool:
        """Tell whether every pod runs, none is on its way out, and every controller has seen its pods Ready."""
        store = self.server.store
        return (
            all(_is_done(pod) for pod in store.bodies(PODS))
            and all(_has_ready(body, "replicas") for body in store.bodies(DEPLOYMENTS))
            and all(_has_ready(body, "replicas") for body in store.bodies(STATEFULSETS))
            and all(_has_daemons(body) for body in store.bodies(DAEMONSETS))
        )

    def pods_of(self, workload: Workload) -> list[Json]:
        """Return the pods that carry a workload's label, by name."""
        found = [
            pod
            for pod in self.server.store.bodies(PODS)
            if pod["metadata"]["namespace"] == workload.namespace
            and (pod["metadata"].get("labels") or {}).get("app") == workload.name
        ]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def nodes_of(self, workload: Workload) -> list[str]:
        """Return the nodes of a workload's live pods, sorted, one entry a pod ("" for a pod without)."""
        return sorted(pod["spec"].get("nodeName", "") for pod in self.pods_of(workload))


def machine(name: str, cpu_millicores: int, memory_gib: float, price_usd_per_hour: float) -> MachineType:
    """Return a machine type of so much allocatable room for 110 pods; spot costs 40 % of the price."""
    price = round(price_usd_per_hour * 10**9)
    room = Resources(cpu_millicores, int(memory_gib * GIB), 110)
    return MachineType(name, room, price, price * 2 // 5)


def catalogue(
    machines: Iterable[MachineType], zones: Iterable[str] = ("europe-west3-a",), maximum: int | None = None
) -> Catalogue:
    """Return a catalogue with one on-demand pool for every machine type, named after it, in every zone."""
    table = {m.name: m for m in machines}
    offerings = tuple(pool(m, m.name, zone, maximum=maximum) for m in table.values() for zone in zones)
    return Catalogue(table, offerings, frozenset(table))


def pool(machine_type: MachineType, name: str, zone: str, **more: object) -> Offering:
    """Return an offering of a machine type; `more` are further fields of it.

    Raises:
        ValueError: the machine type has no price.
    """
    price = machine_type.price_nanousd_per_hour
    if price is None:
        raise ValueError(f"machine type {machine_type.name} has no price")
    plain = Offering(name, zone, machine_type.name, "on-demand", price, machine_type.allocatable)
    return dataclasses.replace(plain, **more)  # type: ignore[arg-type]  # fields of Offering, checked by replace


def _is_done(pod: Json) -> bool:
    return not is_deleting(pod) and (is_ready(pod) or pod["status"].get("phase") in ("Succeeded", "Failed"))


def _has_ready(body: Json, size: str) -> bool:
    status = body.get("status") or {}
    seen = status.get("observedGeneration") == body["metadata"]["generation"]
    wanted = body["spec"][size]
    return bool(seen and status["readyReplicas"] == status["updatedReplicas"] == status["replicas"] == wanted)


def _has_daemons(body: Json) -> bool:
    status = body.get("status") or {}
    return bool(status) and status["numberReady"] == status["desiredNumberScheduled"]


def _describe(pod: Json) -> str:
    conditions = pod["status"].get("conditions") or [{}]
    reason = conditions[0].get("message") or pod["status"].get("phase")
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']} on {pod['spec'].get('nodeName')}: {reason}"
