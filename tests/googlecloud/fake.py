"""Compute Engine and Kubernetes Engine on loopback, for Google's own clients.

`FakeGoogleCloud` serves the REST calls of managed instance groups and the gRPC calls of node pools. Deleting a
machine leaves its Kubernetes node alone, as in reality: a hook says that the machine is gone.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

# The test control plane forks while this server runs; gRPC would handle that, and crash the child.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from google.cloud import container_v1

from planner.settings import CloudSettings
from tests.googlecloud.machines import FakeGroup, FakeInstance, FakePool, Hook, Machines, Refusal

__all__ = ["Call", "FakeGoogleCloud", "FakeInstance", "FakePool", "Place"]

_GROUPS = re.compile(
    r"/compute/v1/projects/(?P<project>[^/]+)/zones/(?P<zone>[^/]+)"
    r"/(?P<collection>instanceGroupManagers|operations)(?:/(?P<name>[^/]+)(?:/(?P<verb>[^/]+))?)?"
)
_INSTANCE = re.compile(r"(?:.*/)?zones/[^/]+/instances/(?P<name>[^/]+)")
_SERVICE = "google.container.v1.ClusterManager"


@dataclass(frozen=True)
class Place:
    """Which cluster the fake is."""

    project: str = "kinema-test"
    location: str = "us-central1"
    cluster: str = "test"

    @property
    def path(self) -> str:
        return f"projects/{self.project}/locations/{self.location}"


@dataclass(frozen=True)
class Call:
    """One call that reached a server; `names` are the machines that it named."""

    method: str
    group: str = ""
    zone: str = ""
    request_id: str = ""
    names: tuple[str, ...] = ()


@dataclass
class _Fault:
    status: int
    reason: str
    message: str
    times: int


class FakeGoogleCloud:
    """A context manager that serves both APIs while it is open.

    Without a `clock` real time passes, and machines boot by themselves. With one the test moves time: what is due
    happens at the next call, or by `settle()`. The hooks `on_instance_created` and `on_instance_deleted` take
    (name, pool, zone, machine_type), once for each machine that has booted; machines that are there from the
    beginning call the first one never. What a hook raises is raised when the fake is left.
    """

    def __init__(
        self,
        pools: Sequence[FakePool],
        boot_seconds: float = 0.0,
        delete_seconds: float = 0.0,
        clock: Callable[[], float] | None = None,
        place: Place | None = None,
    ) -> None:
        self.place = place or Place()
        self.calls: list[Call] = []
        self.page_size = 500
        self.missing_zones: tuple[str, ...] = ()
        self._pools = {pool.name: pool for pool in pools}
        self._statuses = {pool.name: "RUNNING" for pool in pools}
        self._operations: list[container_v1.Operation] = []
        self._faults: dict[str, _Fault] = {}
        self._paced = clock is None
        groups = [self._group(pool, zone) for pool in pools for zone in pool.zones]
        self._machines = Machines(groups, clock or time.monotonic, boot_seconds, delete_seconds)
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._http = _HttpServer(self)
        self._executor = ThreadPoolExecutor(max_workers=4)
        self._grpc = grpc.server(self._executor, handlers=[_ClusterManager(self)])
        self._grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> FakeGoogleCloud:
        self._grpc.start()
        targets: list[Callable[[], None]] = [lambda: self._http.serve_forever(poll_interval=0.05)]
        if self._paced:
            targets.append(self._pace)
        self._threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        with self._machines.changed:
            self._machines.changed.notify_all()
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(grace=None).wait(5)
        self._executor.shutdown()
        for thread in self._threads:
            thread.join(5)
        if error is None and self._machines.hook_errors:
            raise self._machines.hook_errors[0]

    @property
    def compute_endpoint(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def container_endpoint(self) -> str:
        return f"127.0.0.1:{self._grpc_port}"

    def settings(self, pools: Sequence[str] | None = None, **more: Any) -> CloudSettings:
        """Return settings that reach the fake; all its pools are managed unless some are named."""
        return CloudSettings(
            provider="gcp",
            project=self.place.project,
            location=self.place.location,
            cluster=self.place.cluster,
            pools=tuple(self._pools if pools is None else pools),
            compute_endpoint=self.compute_endpoint,
            container_endpoint=self.container_endpoint,
            **more,
        )

    @property
    def on_instance_created(self) -> Hook:
        return self._machines.on_created

    @on_instance_created.setter
    def on_instance_created(self, hook: Hook) -> None:
        self._machines.on_created = hook

    @property
    def on_instance_deleted(self) -> Hook:
        return self._machines.on_deleted

    @on_instance_deleted.setter
    def on_instance_deleted(self, hook: Hook) -> None:
        self._machines.on_deleted = hook

    def settle(self) -> None:
        """Let happen what is due by the clock, hooks included."""
        self._machines.settle()

    def instances(self) -> tuple[FakeInstance, ...]:
        """Return every machine, those on their way in or out included."""
        return self._machines.all()

    def target_size(self, pool: str, zone: str) -> int:
        """Return the targetSize of the pool's group in the zone."""
        return self._machines.group(zone, self.group_name(pool, zone)).target_size

    def group_name(self, pool: str, zone: str) -> str:
        """Return the name of the pool's managed instance group in the zone."""
        return f"gke-{self.place.cluster}-{pool}-{zone[-1]}-grp"

    def stock_out(self, zone: str, machine_type: str, code: str = "ZONE_RESOURCE_POOL_EXHAUSTED") -> None:
        """From now on no machine of the type boots in the zone; CREATING meets the code, and tries for ever."""
        self._machines.set_shortage(zone, machine_type, code)

    def restock(self, zone: str, machine_type: str) -> None:
        """End a stockout: what is still CREATING boots."""
        self._machines.set_shortage(zone, machine_type, None)

    def set_quota(self, instances: int | None) -> None:
        """Let the project have so many machines; those beyond it stay CREATING with QUOTA_EXCEEDED."""
        self._machines.set_quota(instances)

    def refuse(
        self, method: str, status: int, reason: str, times: int = 1, message: str = "refused by the test"
    ) -> None:
        """Refuse the next calls of a method, such as createInstances (HTTP status, reason) or ListNodePools
        (`reason` is the gRPC status code's name)."""
        self._faults[method] = _Fault(status, reason, message, times)

    def fail_operation(self, method: str, code: str) -> None:
        """Accept the next call of createInstances or deleteInstances, and end its operation with this error."""
        self._machines.fail_next(method, code)

    def set_pool_status(self, pool: str, status: str) -> None:
        """Set the status of a node pool, such as RECONCILING."""
        self._statuses[pool] = status

    def start_operation(self, kind: str, pool: str | None = None, cluster: str | None = None) -> str:
        """Start an operation of Kubernetes Engine, such as UPGRADE_NODES, and return its name; it never ends."""
        target = f"https://container.googleapis.com/v1/{self.place.path}/clusters/{cluster or self.place.cluster}"
        operation = container_v1.Operation(
            name=f"operation-{kind.lower()}-{len(self._operations) + 1}",
            operation_type=kind,
            status="RUNNING",
            target_link=target + (f"/nodePools/{pool}" if pool else ""),
        )
        self._operations.append(operation)
        return str(operation.name)

    def methods(self) -> set[str]:
        """Return the names of all methods that were called."""
        return {call.method for call in self.calls}

    def record(self, call: Call) -> None:
        """Note the call, and refuse it where the test wants that."""
        self.calls.append(call)
        fault = self._faults.get(call.method)
        if fault is not None and fault.times > 0:
            fault.times -= 1
            raise Refusal(fault.status, fault.reason, fault.message)

    def answer(self, path: str, query: Mapping[str, str], body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a call of the Compute Engine API."""
        match = _GROUPS.fullmatch(path)
        if match is None or match["project"] != self.place.project:
            raise Refusal(404, "notFound", f"The requested URL {path} was not found on this server.")
        zone, name, verb = match["zone"], match["name"] or "", match["verb"] or ("get" if match["name"] else "list")
        if match["collection"] == "operations":
            self.record(Call(f"operations.{verb}", zone=zone))
            return self._machines.operation(name)
        request_id = query.get("requestId", "")
        names = _names(verb, body)
        self.record(Call(verb, name, zone, request_id, names))
        if verb == "list":
            return {"items": [self._describe(group) for group in self._machines.groups(zone)]}
        group = self._machines.group(zone, name)
        match verb:
            case "get":
                return self._describe(group)
            case "listManagedInstances":
                return self._members(group, int(query.get("pageToken") or 0))
            case "createInstances":
                return self._machines.create(group, names, request_id)
            case "deleteInstances":
                skip = bool(body.get("skipInstancesOnValidationError"))
                return self._machines.delete(group, names, skip, request_id)
        raise Refusal(501, "notImplemented", f"{verb} is recorded, and not done")

    def list_node_pools(self, request: container_v1.ListNodePoolsRequest) -> container_v1.ListNodePoolsResponse:
        if request.parent != f"{self.place.path}/clusters/{self.place.cluster}":
            raise Refusal(404, "NOT_FOUND", f"Not found: {request.parent}.")
        return container_v1.ListNodePoolsResponse(node_pools=[self._node_pool(pool) for pool in self._pools.values()])

    def list_operations(self, request: container_v1.ListOperationsRequest) -> container_v1.ListOperationsResponse:
        return container_v1.ListOperationsResponse(operations=self._operations, missing_zones=self.missing_zones)

    def _pace(self) -> None:
        """Settle whenever something falls due, as real time passes."""
        while not self._closing.is_set():
            self._machines.settle()
            with self._machines.changed:
                due = self._machines.next_due()
                if not self._closing.is_set():
                    self._machines.changed.wait(None if due is None else max(0.001, due - time.monotonic()))

    def _group(self, pool: FakePool, zone: str) -> FakeGroup:
        machines = {
            name: FakeInstance(name, pool.name, zone, pool.machine_type, "running", booted=True)
            for name in pool.instances.get(zone, ())
        }
        return FakeGroup(self.group_name(pool.name, zone), pool, zone, len(machines), machines)

    def _describe(self, group: FakeGroup) -> dict[str, Any]:
        return {"name": group.name, "zone": group.zone, "targetSize": group.target_size}

    def _members(self, group: FakeGroup, start: int) -> dict[str, Any]:
        self._machines.settle()
        with self._machines.changed:
            machines = list(group.machines.values())
        page = machines[start : start + self.page_size]
        more = {"nextPageToken": str(start + len(page))} if start + len(page) < len(machines) else {}
        return {"managedInstances": [self._managed_instance(machine) for machine in page]} | more

    def _managed_instance(self, machine: FakeInstance) -> dict[str, Any]:
        zone = f"projects/{self.place.project}/zones/{machine.zone}"
        described: dict[str, Any] = {
            "name": machine.name,
            "instance": f"https://www.googleapis.com/compute/v1/{zone}/instances/{machine.name}",
            "currentAction": {"creating": "CREATING", "running": "NONE", "deleting": "DELETING"}[machine.state],
        }
        if machine.booted:
            described["instanceStatus"] = "RUNNING" if machine.state == "running" else "STOPPING"
        if machine.error:
            error = {"code": machine.error, "message": f"{machine.machine_type} in {machine.zone}"}
            described["lastAttempt"] = {"errors": {"errors": [error]}}
        return described

    def _node_pool(self, pool: FakePool) -> container_v1.NodePool:
        fields: dict[str, Any] = {
            "name": pool.name,
            "status": self._statuses[pool.name],
            "locations": list(pool.zones),
            "instance_group_urls": [
                f"https://www.googleapis.com/compute/v1/projects/{self.place.project}/zones/{zone}"
                f"/instanceGroupManagers/{self.group_name(pool.name, zone)}"
                for zone in pool.zones
            ],
            "config": {
                "machine_type": pool.machine_type,
                "spot": pool.spot,
                "labels": dict(pool.labels),
                "image_type": "COS_CONTAINERD",
                "disk_size_gb": 100,
                "disk_type": "pd-balanced",
            }
            | dict(pool.config),
            "max_pods_constraint": {"max_pods_per_node": 110},
        }
        if pool.minimum is not None or pool.maximum is not None:
            limits = {"min_node_count": pool.minimum or 0, "max_node_count": pool.maximum or 1000}
            fields["autoscaling"] = {"enabled": True} | limits
        return container_v1.NodePool(fields | dict(pool.fields))


def _names(verb: str, body: Mapping[str, Any]) -> tuple[str, ...]:
    if verb == "createInstances":
        return tuple(config.get("name", "") for config in body.get("instances", ()))
    if verb != "deleteInstances":
        return ()
    found = [_INSTANCE.fullmatch(url) for url in body.get("instances", ())]
    return tuple(match["name"] if match else "" for match in found)


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, cloud: FakeGoogleCloud) -> None:
        super().__init__(("127.0.0.1", 0), _HttpHandler)
        self.cloud = cloud


class _HttpHandler(BaseHTTPRequestHandler):
    server: _HttpServer

    def do_GET(self) -> None:
        self._reply()

    def do_POST(self) -> None:
        self._reply()

    def log_message(self, *args: object) -> None:
        """Keep the tests' output clean: the calls are in `FakeGoogleCloud.calls`."""

    def _reply(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            status, answer = 200, self.server.cloud.answer(url.path, query, json.loads(text or b"{}"))
        except Refusal as refusal:
            details = [{"message": refusal.message, "domain": "global", "reason": refusal.reason}]
            status = refusal.status
            answer = {"error": {"code": status, "message": refusal.message, "errors": details}}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _ClusterManager(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc comes without types
    """The gRPC service, with the client library's own message classes."""

    def __init__(self, cloud: FakeGoogleCloud) -> None:
        self._cloud = cloud

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        match handler_call_details.method.removeprefix(f"/{_SERVICE}/"):
            case "ListNodePools":
                return self._unary("ListNodePools", self._cloud.list_node_pools)
            case "ListOperations":
                return self._unary("ListOperations", self._cloud.list_operations)
        return None

    def _unary(self, method: str, answer: Callable[[Any], Any]) -> grpc.RpcMethodHandler:
        def behaviour(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                self._cloud.record(Call(method))
                return answer(request)
            except Refusal as refusal:
                context.abort(grpc.StatusCode[refusal.reason], refusal.message)

        return grpc.unary_unary_rpc_method_handler(
            behaviour,
            request_deserializer=getattr(container_v1, f"{method}Request").deserialize,
            response_serializer=getattr(container_v1, f"{method}Response").serialize,
        )
