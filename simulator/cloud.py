"""A cloud in memory: pools, boot times, stock-outs; its machines become Ready nodes of the simulated cluster."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from planner.errors import CloudError, Conflict, InsufficientCapacity, QuotaExceeded
from planner.model.cluster import ARCH, HOSTNAME, INSTANCE_TYPE, NODE_POOL, SPOT_MARKS, ZONE, Instance, InstanceState
from planner.model.machines import Catalogue, Offering
from planner.model.resources import Resources
from planner.ports import NODES
from simulator.api import ApiServer
from simulator.kubelet import Kubelets, NodeLifecycle
from simulator.store import Json

RETRY_SECONDS: Final = 30.0
"""Between two attempts to create a machine that the zone does not have."""


@dataclass(frozen=True, slots=True)
class CloudTimes:
    """How long machines take: least and greatest seconds, drawn for each machine from the seed.

    `boot_seconds` is from the call to the node's registration (30 to 60 s is what GKE needs), `delete_seconds`
    from the call until the machine is gone.
    """

    boot_seconds: tuple[float, float] = (30.0, 60.0)
    delete_seconds: tuple[float, float] = (20.0, 40.0)
    call_seconds: float = 0.2


class SimulatedCloud:
    """Implements `planner.ports.Cloud` on a simulated cluster.

    Set `stockouts[(pool, zone)]` to a cloud's error code and machines that should boot there fail, and are tried
    again until it is removed; add a (pool, zone) to `refusing` and calls raise at once; `other_operations` are what
    else is under way.
    """

    def __init__(
        self, server: ApiServer, kubelets: Kubelets, lifecycle: NodeLifecycle, catalogue: Catalogue, seed: int
    ) -> None:
        """Sell what the catalogue offers, each offering with the labels that its nodes will have."""
        self._server = server
        self._clock = server.clock
        self._kubelets = kubelets
        self._lifecycle = lifecycle
        self._catalogue = replace(
            catalogue, offerings=tuple(replace(o, labels=_labels_of(o)) for o in catalogue.offerings)
        )
        self._offerings = {(o.pool, o.zone): o for o in self._catalogue.offerings}
        # Drawn in the order of the calls, not by name: names carry the iteration, which follows from the time.
        self._random = random.Random(f"{seed}/cloud")
        self._instances: dict[str, Instance] = {}
        self._accepted_at: dict[str, float] = {}
        self.times = CloudTimes()
        self.stockouts: dict[tuple[str, str], str] = {}
        self.refusing: dict[tuple[str, str], type[InsufficientCapacity] | type[QuotaExceeded]] = {}
        self.other_operations: tuple[str, ...] = ()
        self.listener: Callable[[str, Instance], None] = lambda _event, _instance: None
        self.project: Final = "simulated"

    def catalogue(self) -> Catalogue:
        """Return what can be booted."""
        return self._catalogue

    def instances(self) -> tuple[Instance, ...]:
        """Return every machine."""
        self._clock.sleep(self.times.call_seconds)
        return tuple(self._instances.values())

    def operations(self) -> tuple[str, ...]:
        """Return what else is under way."""
        return self.other_operations

    def boot(self, pool: str, zone: str, names: Sequence[str]) -> None:
        """Accept machines to be created."""
        self._clock.sleep(self.times.call_seconds)
        offering = self._offering(pool, zone)
        if (refusal := self.refusing.get((pool, zone))) is not None:
            raise refusal(f"{pool} in {zone}: no {offering.machine_type} now")
        for name in names:
            existing = self._instances.get(name)
            if existing is None:
                self._accept(name, offering)
            elif (existing.pool, existing.zone) != (pool, zone):
                raise CloudError(f"an instance {name} exists in {existing.pool} ({existing.zone})")

    def delete(self, pool: str, zone: str, names: Sequence[str]) -> None:
        """Accept machines to be deleted; what is not there (any more) is left out."""
        self._clock.sleep(self.times.call_seconds)
        if pool not in {offering.pool for offering in self._catalogue.offerings}:
            raise CloudError(f"there is no pool {pool!r}")
        for name in names:
            found = self._instances.get(name)
            if found is None or found.state == "deleting" or (found.pool, found.zone) != (pool, zone):
                continue
            self._set(name, "deleting")
            self._lifecycle.fell_silent(name)
            seconds = self._random.uniform(*self.times.delete_seconds)
            self._clock.call_after(seconds, functools.partial(self._gone, name))

    def add_running(self, name: str, pool: str, zone: str) -> None:
        """Put a machine there that has been running for long, with its Ready node."""
        offering = self._offering(pool, zone)
        self._instances[name] = Instance(name, pool, zone, "running")
        self._kubelets.revive(name)
        body = node_of(name, offering, self.project)
        body["status"]["conditions"] = [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]
        self._server.create(NODES, "", body)

    def _offering(self, pool: str, zone: str) -> Offering:
        offering = self._offerings.get((pool, zone))
        if offering is None:
            raise CloudError(f"there is no pool {pool!r} in zone {zone!r}")
        return offering

    def _accept(self, name: str, offering: Offering) -> None:
        self._instances[name] = Instance(name, offering.pool, offering.zone, "creating")
        self._accepted_at[name] = accepted = self._clock.now()
        self.listener("accepted", self._instances[name])
        seconds = self._random.uniform(*self.times.boot_seconds)
        self._clock.call_after(seconds, lambda: self._booted(name, offering, accepted))

    def _booted(self, name: str, offering: Offering, accepted: float) -> None:
        found = self._instances.get(name)
        if found is None or found.state == "deleting" or self._accepted_at[name] != accepted:
            return
        if error := self.stockouts.get((offering.pool, offering.zone)):
            # A managed instance group tries for ever; only deleting the machine ends it.
            self._set(name, "failed", error)
            self._clock.call_after(RETRY_SECONDS, lambda: self._booted(name, offering, accepted))
            return
        self._set(name, "running")
        self._kubelets.revive(name)
        try:
            self._server.create(NODES, "", node_of(name, offering, self.project))
        except Conflict:
            # A Node object of this name stands there still: its kubelet, revived, reports again.
            return

    def _gone(self, name: str) -> None:
        found = self._instances.pop(name, None)
        if found is not None:
            self.listener("gone", found)

    def _set(self, name: str, state: InstanceState, error: str = "") -> None:
        self._instances[name] = replace(self._instances[name], state=state, error=error)
        self.listener(state, self._instances[name])


def node_of(name: str, offering: Offering, project: str) -> Json:
    """Return the Node that a machine of an offering registers, as GKE labels it."""
    labels = {HOSTNAME: name} | _labels_of(offering)
    quantities = quantities_of(offering.allocatable)
    taints = [{"key": t.key, "value": t.value, "effect": t.effect} for t in offering.taints]
    return {
        "metadata": {"name": name, "labels": labels, "annotations": {}},
        "spec": {
            "providerID": f"gce://{project}/{offering.zone}/{name}",
            **({"taints": taints} if taints else {}),
        },
        "status": {"capacity": quantities, "allocatable": dict(quantities)},
    }


def _labels_of(offering: Offering) -> dict[str, str]:
    """Return the labels of an offering's nodes that are known before one is there: its own and those that GKE adds."""
    labels = {
        ARCH: "amd64",
        "kubernetes.io/os": "linux",
        INSTANCE_TYPE: offering.machine_type,
        ZONE: offering.zone,
        "topology.kubernetes.io/region": offering.zone.rpartition("-")[0],
        NODE_POOL: offering.pool,
    }
    if offering.capacity_type == "spot":
        labels[SPOT_MARKS[0]] = "true"
    return labels | dict(offering.labels)


def quantities_of(resources: Resources) -> dict[str, str]:
    """Return amounts as Kubernetes quantities."""
    quantities = {
        "cpu": f"{resources.cpu_millicores}m",
        "memory": str(resources.memory_bytes),
        "pods": str(resources.pods),
    }
    if resources.ephemeral_storage_bytes:
        quantities["ephemeral-storage"] = str(resources.ephemeral_storage_bytes)
    return quantities | {name: str(amount) for name, amount in resources.extended}
