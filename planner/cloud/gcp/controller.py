"""Google Cloud behind `ports.Cloud`: node pools of a GKE cluster, their machines by name."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import grpc
import requests
from google.api_core import exceptions as google_exceptions
from google.api_core.client_options import ClientOptions
from google.api_core.retry import Retry, if_exception_type
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import compute_v1, container_v1
from google.cloud.container_v1.services.cluster_manager.transports import ClusterManagerGrpcTransport

from planner.cloud.gcp.errors import translated
from planner.cloud.gcp.groups import Group, failure_of, instance_of
from planner.cloud.gcp.machines import GPU, builtin_machines, known_machines
from planner.cloud.gcp.pools import NodePool, node_pool_of, obstacle, operation_under_way
from planner.cloud.tables import read_machines
from planner.errors import BadSettings, CloudError
from planner.model.cluster import Instance
from planner.model.machines import Catalogue, MachineType, Offering
from planner.settings import CloudSettings

_log = logging.getLogger(__name__)

_CHUNK = 1000
"""Machines that one createInstances or deleteInstances may name."""

_REPLAYS = 5
"""How many earlier requests to delete the same machines may stand in the way of a new one."""

_PARALLEL_READS = 8
"""Lists under way at once. The API allows 20 calls a second."""

_REQUEST_IDS = uuid.UUID("6f0f3c34-6a1c-5f43-9d0e-4b1c7b0d9a55")

_TRANSIENT = (
    google_exceptions.InternalServerError,
    google_exceptions.BadGateway,
    google_exceptions.ServiceUnavailable,
    google_exceptions.GatewayTimeout,
    google_exceptions.TooManyRequests,
    requests.ConnectionError,
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for Google: one call, and how long a read is repeated after a passing error.

    A write is never repeated here: the loop looks again and asks again.
    """

    call_seconds: float = 30.0
    retry_seconds: float = 20.0


def open_controller(settings: CloudSettings) -> GoogleCloud:
    """Return the controller of a GKE cluster.

    Raises:
        BadSettings: no credentials were found, or the location is neither a zone nor a region.
    """
    return GoogleCloud(settings)


class GoogleCloud:
    """Implements `ports.Cloud` on the managed instance groups of the node pools that the settings name.

    Nothing is remembered between calls but which groups the pools had when they were last listed.
    """

    def __init__(self, settings: CloudSettings, patience: Patience | None = None) -> None:
        self._settings = settings
        self._patience = patience or Patience()
        self._managed = frozenset(settings.pools)
        self._region = _region_of(settings.location)
        self._location = f"projects/{settings.project}/locations/{settings.location}"
        self._known_pools: dict[str, NodePool] | None = None
        try:
            self._groups = _compute_client(settings.compute_endpoint)
            self._clusters = _container_client(settings.container_endpoint)
        except DefaultCredentialsError as error:
            raise BadSettings(
                "cloud.provider is gcp, but there are no Google credentials: use Workload Identity in a cluster, "
                "or `gcloud auth application-default login` outside"
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._groups.transport.close()
        self._clusters.transport.close()

    def catalogue(self) -> Catalogue:
        """Return the machine types with their prices, and an offering for each managed pool and zone.

        Prices are the machine's alone: the boot disk (100 GB of pd-balanced: 0.0139 $/h) is left out, since the
        price of an existing node is looked up by its machine type, and both must mean the same. A pool whose
        nodes are not known well enough is left out of the offerings, with a warning that says why.

        Raises:
            BadInput: the table of machine types cannot be read, or there is none for the region.
        """
        pools = self._read_pools()
        types = self._machine_types()
        offerings = tuple(offering for pool in pools.values() for offering in self._offerings(pool, types))
        return Catalogue(types, offerings, self._managed)

    def instances(self) -> tuple[Instance, ...]:
        """Return every machine of every managed pool, as its instance group sees it."""
        groups = [group for pool in self._read_pools().values() for group in pool.groups]
        return tuple(instance for members in self._in_parallel(groups) for instance in members)

    def operations(self) -> tuple[str, ...]:
        """Name what GKE does to the managed pools or to the whole cluster."""
        states = [pool.under_way() for pool in self._read_pools().values()]
        with translated(f"list the operations in {self._location}"):
            answer = self._clusters.list_operations({"parent": self._location}, **self._read_options())
        if answer.missing_zones:
            # Nothing is done on incomplete knowledge: a zone that does not answer may be upgrading.
            zones = ", ".join(answer.missing_zones)
            raise CloudError(f"cannot list the operations in {self._location}: no answer from {zones}")
        cluster = self._settings.cluster
        running = [operation_under_way(operation, cluster, self._managed) for operation in answer.operations]
        return tuple(sentence for sentence in states + running if sentence)

    def boot(self, pool: str, zone: str, names: Sequence[str]) -> None:
        """Create machines of these names; returns once Google has accepted the request.

        Names that the group has already are left out. The request id derives from what is asked, so that Google
        itself drops a repetition within the hour.

        Raises:
            CloudError: also where these names were created within the hour and are gone again: Google would take
                the request for a repetition, and never answer it.
        """
        group = self._only_group(pool, zone)
        present = {instance.name for instance in self._members(group)}
        for chunk in _chunks(set(names) - present):
            action = f"create {len(chunk)} machines in {group.name} ({zone})"
            request = {
                **group.path,
                "request_id": _request_id("boot", group, chunk),
                "instance_group_managers_create_instances_request_resource": {
                    "instances": [{"name": name} for name in chunk]
                },
            }
            operation = self._ask(action, self._groups.create_instances_unary, request)
            if (failure := failure_of(action, operation)) is not None:
                raise failure
            # A new request is not done at once; one that is may be the answer to an earlier one.
            if _is_done(operation) and not set(chunk) & {i.name for i in self._members(group)}:
                raise CloudError(f"cannot {action}: machines of these names were created and deleted within the hour")

    def delete(self, pool: str, zone: str, names: Sequence[str]) -> None:
        """Delete machines by name, never by size; one that is gone or going is left out."""
        for group in self._groups_of(pool, zone):
            for chunk in _chunks(set(names) & self._deletable(group)):
                self._delete(group, chunk)

    def _delete(self, group: Group, names: Sequence[str]) -> None:
        action = f"delete {len(names)} machines of {group.name} ({group.zone})"
        earlier, failure = "", None
        for _ in range(_REPLAYS):
            request = {
                **group.path,
                "request_id": _request_id(f"delete{earlier}", group, names),
                "instance_group_managers_delete_instances_request_resource": {
                    "instances": [f"projects/{group.project}/zones/{group.zone}/instances/{name}" for name in names],
                    "skip_instances_on_validation_error": True,
                },
            }
            operation = self._ask(action, self._groups.delete_instances_unary, request)
            if not _is_done(operation) or not set(names) & self._deletable(group):
                return
            # The answer was that of an earlier request for the same names, which failed, or after which they came
            # back: ask under an id that follows from that request, so that whoever repeats this asks for the same.
            earlier, failure = operation.name, failure_of(action, operation)
        raise failure or CloudError(f"cannot {action}: they came back {_REPLAYS} times within the hour")

    def _ask(self, action: str, call: Callable[..., Any], request: Mapping[str, Any]) -> Any:
        """Return the operation that the answer names: accepted, not done, unless it is that of an earlier request."""
        with translated(action):
            return call(request, retry=None, timeout=self._patience.call_seconds)

    def _read_options(self) -> dict[str, Any]:
        retry = Retry(if_exception_type(*_TRANSIENT), initial=0.2, maximum=2.0, timeout=self._patience.retry_seconds)
        return {"retry": retry, "timeout": self._patience.call_seconds}

    def _read_pools(self) -> dict[str, NodePool]:
        cluster = f"{self._location}/clusters/{self._settings.cluster}"
        with translated(f"list the node pools of {cluster}"):
            answer = self._clusters.list_node_pools({"parent": cluster}, **self._read_options())
        if missing := self._managed - {message.name for message in answer.node_pools}:
            there = ", ".join(sorted(message.name for message in answer.node_pools)) or "none"
            raise BadSettings(f"cloud.pools: {cluster} has no node pool {', '.join(sorted(missing))}; it has: {there}")
        self._known_pools = {
            message.name: node_pool_of(message) for message in answer.node_pools if message.name in self._managed
        }
        return self._known_pools

    def _groups_of(self, pool: str, zone: str) -> tuple[Group, ...]:
        if pool not in self._managed:
            raise CloudError(f"node pool {pool} is not among the pools that Kinema was given (cloud.pools)")
        pools = self._known_pools if self._known_pools is not None else self._read_pools()
        return tuple(group for group in pools[pool].groups if group.zone == zone)

    def _only_group(self, pool: str, zone: str) -> Group:
        groups = self._groups_of(pool, zone)
        if len(groups) != 1:
            # A blue-green upgrade has two of them, of which one is about to go.
            raise CloudError(f"node pool {pool} has {len(groups)} instance groups in zone {zone}, not one")
        return groups[0]

    def _in_parallel(self, groups: Sequence[Group]) -> list[tuple[Instance, ...]]:
        with ThreadPoolExecutor(max_workers=_PARALLEL_READS) as executor:
            return list(executor.map(self._members, groups))

    def _members(self, group: Group) -> tuple[Instance, ...]:
        with translated(f"list the machines of {group.name} ({group.zone})"):
            pages = self._groups.list_managed_instances(group.path, **self._read_options())
            return tuple(instance_of(group, managed) for managed in pages)

    def _deletable(self, group: Group) -> set[str]:
        return {instance.name for instance in self._members(group) if instance.state != "deleting"}

    def _machine_types(self) -> dict[str, MachineType]:
        if self._settings.machines:
            return read_machines(self._settings.machines)
        return builtin_machines(self._region)

    def _offerings(self, pool: NodePool, types: Mapping[str, MachineType]) -> Iterator[Offering]:
        machine = self._machine_of(pool, types)
        price = None if machine is None else machine.price(pool.capacity_type)
        if machine is None or price is None:
            what = f"{pool.capacity_type} price of {pool.machine_type}"
            _log.warning("node pool %s is not offered: there is no %s", pool.name, what)
            return
        if reason := obstacle(pool, dict(machine.allocatable.extended).get(GPU, 0)):
            _log.warning("node pool %s is not offered: %s", pool.name, reason)
            return
        sizes: dict[str, int] = {}
        if pool.needs_sizes():
            for instance in (i for members in self._in_parallel(pool.groups) for i in members if i.state != "deleting"):
                sizes[instance.zone] = sizes.get(instance.zone, 0) + 1
        limits = pool.limits(sizes)
        for zone in pool.zones:
            if machine.zones and zone not in machine.zones:
                continue
            minimum, maximum = limits[zone]
            yield Offering(
                pool=pool.name,
                zone=zone,
                machine_type=pool.machine_type,
                capacity_type=pool.capacity_type,
                price_nanousd_per_hour=price,
                allocatable=machine.allocatable,
                labels=pool.labels(zone, machine.arch),
                taints=pool.taints,
                minimum=minimum,
                maximum=maximum,
            )

    def _machine_of(self, pool: NodePool, types: Mapping[str, MachineType]) -> MachineType | None:
        """Return the pool's machine type with what its nodes can allocate.

        By the built-in table that follows from the pool's image, boot disk and limit of pods; a table of the
        user's says it itself, and only the limit of pods is the pool's where that is lower.
        """
        if pool.machine_type not in types:
            return None
        if not self._settings.machines:
            machine = known_machines(self._region)[pool.machine_type]
            return machine.on(pool.system(machine.system))
        given = types[pool.machine_type]
        room = replace(given.allocatable, pods=min(given.allocatable.pods, pool.max_pods))
        return replace(given, allocatable=room)


def _region_of(location: str) -> str:
    if (match := re.fullmatch(r"([a-z]+-[a-z]+[0-9]+)(-[a-z])?", location)) is None:
        raise BadSettings(f"cloud.location must be a zone or a region such as us-central1, not {location!r}")
    return match[1]


def _compute_client(endpoint: str) -> Any:
    if endpoint.startswith("http://"):
        options = ClientOptions(api_endpoint=endpoint)
        return compute_v1.InstanceGroupManagersClient(credentials=AnonymousCredentials(), client_options=options)
    options = ClientOptions(api_endpoint=endpoint or None)
    return compute_v1.InstanceGroupManagersClient(client_options=options)


def _container_client(endpoint: str) -> Any:
    if not endpoint or endpoint.startswith("https://"):
        host = endpoint.removeprefix("https://")
        return container_v1.ClusterManagerClient(client_options=ClientOptions(api_endpoint=host or None))
    channel = grpc.insecure_channel(endpoint.removeprefix("http://"))
    return container_v1.ClusterManagerClient(transport=ClusterManagerGrpcTransport(channel=channel))


def _is_done(operation: Any) -> bool:
    return bool(operation.status == compute_v1.Operation.Status.DONE)


def _request_id(verb: str, group: Group, names: Sequence[str]) -> str:
    """Return the UUID that follows from what is asked; the API takes two calls of one id for one call."""
    asked = "/".join((verb, group.project, group.zone, group.name, *names))
    return str(uuid.uuid5(_REQUEST_IDS, asked))


def _chunks(names: set[str]) -> Iterator[list[str]]:
    ordered = sorted(names)
    for start in range(0, len(ordered), _CHUNK):
        yield ordered[start : start + _CHUNK]
