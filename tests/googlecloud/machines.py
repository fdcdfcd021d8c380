"""Managed instance groups as Compute Engine keeps them: machines that come and go on a clock, by name."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Hook = Callable[[str, str, str, str], None]
"""Takes name, pool, zone and machine type."""

State = Literal["creating", "running", "deleting"]

REQUEST_ID_SECONDS = 3600.0
"""How long the API takes a second call of the same request id for a repetition."""


@dataclass(frozen=True)
class FakePool:
    """A node pool; `instances` are the names that run from the beginning, by zone.

    `minimum` and `maximum` switch autoscaling on, per zone; `config` and `fields` are further fields of
    google.container.v1.NodeConfig and NodePool.
    """

    name: str
    machine_type: str
    zones: Sequence[str]
    instances: Mapping[str, Sequence[str]] = field(default_factory=dict)
    spot: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    minimum: int | None = None
    maximum: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FakeInstance:
    """A machine; `error` is the code of its last attempt to be created, `due` when the present step ends."""

    name: str
    pool: str
    zone: str
    machine_type: str
    state: State
    error: str = ""
    due: float = 0.0
    booted: bool = False


@dataclass
class FakeGroup:
    """A managed instance group: targetSize follows what is asked for, at once."""

    name: str
    pool: FakePool
    zone: str
    target_size: int = 0
    machines: dict[str, FakeInstance] = field(default_factory=dict)


class Refusal(Exception):
    """An answer of the API other than 200."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


class Machines:
    """All groups of a project. Every method first lets happen what is due by the clock."""

    def __init__(self, groups: Sequence[FakeGroup], clock: Callable[[], float], boot: float, delete: float) -> None:
        self.clock = clock
        self.boot_seconds = boot
        self.delete_seconds = delete
        self.on_created: Hook = lambda name, pool, zone, machine_type: None
        self.on_deleted: Hook = lambda name, pool, zone, machine_type: None
        self.hook_errors: list[Exception] = []
        self.changed = threading.Condition(threading.RLock())
        self._groups = {(group.zone, group.name): group for group in groups}
        self._short: dict[tuple[str, str], str] = {}
        self._quota: int | None = None
        self._operations: dict[str, dict[str, Any]] = {}
        self._failing: dict[str, str] = {}
        self._requests: dict[str, tuple[str, float]] = {}
        self._events: deque[tuple[Hook, FakeInstance]] = deque()
        self._hooks_lock = threading.RLock()

    def groups(self, zone: str) -> list[FakeGroup]:
        return [group for (its_zone, _), group in self._groups.items() if its_zone == zone]

    def group(self, zone: str, name: str) -> FakeGroup:
        if (group := self._groups.get((zone, name))) is None:
            raise Refusal(404, "notFound", f"The resource 'zones/{zone}/instanceGroupManagers/{name}' was not found")
        return group

    def all(self) -> tuple[FakeInstance, ...]:
        self.settle()
        with self.changed:
            return tuple(machine for group in self._groups.values() for machine in group.machines.values())

    def set_shortage(self, zone: str, machine_type: str, code: str | None) -> None:
        with self.changed:
            if code is None:
                self._short.pop((zone, machine_type), None)
            else:
                self._short[zone, machine_type] = code
            self.changed.notify_all()
        self.settle()

    def set_quota(self, instances: int | None) -> None:
        with self.changed:
            self._quota = instances
            self.changed.notify_all()
        self.settle()

    def fail_next(self, kind: str, code: str) -> None:
        with self.changed:
            self._failing[kind] = code

    def create(self, group: FakeGroup, names: Sequence[str], request_id: str) -> dict[str, Any]:
        """createInstances: accepted at once, then tried for ever."""
        self.settle()
        with self.changed:
            if (repeated := self._repeated(request_id)) is not None:
                return repeated
            taken = {name for other in self.groups(group.zone) for name in other.machines}
            if existing := sorted(taken.intersection(names)):
                raise Refusal(409, "alreadyExists", f"The resource 'zones/{group.zone}/instances/{existing[0]}' exists")
            if not names or len(set(names)) != len(names) or len(names) > 1000:
                raise Refusal(400, "invalid", "between 1 and 1000 different names are needed")
            if (failed := self._failed(group, "createInstances", request_id)) is not None:
                return failed
            due = self.clock() + self.boot_seconds
            for name in names:
                group.machines[name] = FakeInstance(
                    name, group.pool.name, group.zone, group.pool.machine_type, "creating", "", due
                )
            group.target_size += len(names)
            operation = self._operation(group, "createInstances", request_id)
            self.changed.notify_all()
        self.settle()
        return operation

    def delete(self, group: FakeGroup, names: Sequence[str], skip_invalid: bool, request_id: str) -> dict[str, Any]:
        """deleteInstances: targetSize shrinks by what is deleted."""
        self.settle()
        with self.changed:
            if (repeated := self._repeated(request_id)) is not None:
                return repeated
            if not names or len(names) > 1000:
                raise Refusal(400, "invalid", "between 1 and 1000 names are needed")
            members = [n for n in names if n in group.machines and group.machines[n].state != "deleting"]
            if len(members) != len(names) and not skip_invalid:
                strange = next(name for name in names if name not in members)
                raise Refusal(
                    400, "invalid", f"zones/{group.zone}/instances/{strange} is no member or is being deleted"
                )
            if (failed := self._failed(group, "deleteInstances", request_id)) is not None:
                return failed
            due = self.clock() + self.delete_seconds
            for name in members:
                group.machines[name] = replace(group.machines[name], state="deleting", error="", due=due)
            group.target_size -= len(members)
            operation = self._operation(group, "deleteInstances", request_id)
            self.changed.notify_all()
        self.settle()
        return operation

    def operation(self, name: str) -> dict[str, Any]:
        """Return an operation as it is when asked again: DONE, which only means that the machines are scheduled."""
        with self.changed:
            if name not in self._operations:
                raise Refusal(404, "notFound", f"The resource 'operations/{name}' was not found")
            return self._operations[name] | {"status": "DONE", "progress": 100}

    def settle(self) -> None:
        """Let happen what is due, then call the hooks, in order and one at a time."""
        with self.changed:
            now = self.clock()
            # Machines that are on their way out still count; those on their way in come last.
            count = sum(m.state != "creating" for group in self._groups.values() for m in group.machines.values())
            for group in self._groups.values():
                for machine in list(group.machines.values()):
                    count += machine.state == "creating"
                    over_quota = self._quota is not None and count > self._quota
                    self._step(group, machine, now, over_quota)
        with self._hooks_lock:
            while self._events:
                hook, machine = self._events.popleft()
                try:
                    hook(machine.name, machine.pool, machine.zone, machine.machine_type)
                except Exception as error:  # noqa: BLE001  # raised again when the fake is left, in the test's own thread
                    self.hook_errors.append(error)

    def next_due(self) -> float | None:
        """Return when something happens next, None for never."""
        with self.changed:
            waiting = [m for g in self._groups.values() for m in g.machines.values() if m.state != "running"]
            return min((machine.due for machine in waiting if not machine.error), default=None)

    def _step(self, group: FakeGroup, machine: FakeInstance, now: float, over_quota: bool) -> None:
        if machine.state == "creating":
            error = self._short.get((machine.zone, machine.machine_type), "QUOTA_EXCEEDED" if over_quota else "")
            if error:
                group.machines[machine.name] = replace(machine, error=error)
            elif machine.error:
                # The group tries again by itself: from now on the machine needs its time to boot.
                group.machines[machine.name] = replace(machine, error="", due=now + self.boot_seconds)
                self.changed.notify_all()
            elif machine.due <= now:
                group.machines[machine.name] = replace(machine, state="running", booted=True)
                self._events.append((self.on_created, machine))
        elif machine.state == "deleting" and machine.due <= now:
            del group.machines[machine.name]
            if machine.booted:
                self._events.append((self.on_deleted, machine))

    def _failed(self, group: FakeGroup, kind: str, request_id: str) -> dict[str, Any] | None:
        """Accept a request whose operation ends with an error and changes nothing, where the test wants one."""
        if (code := self._failing.pop(kind, None)) is None:
            return None
        accepted = self._operation(group, kind, request_id)
        error = {"errors": [{"code": code, "message": "failed by the test"}]}
        self._operations[accepted["name"]] |= {"error": error}
        return accepted

    def _repeated(self, request_id: str) -> dict[str, Any] | None:
        name, asked_at = self._requests.get(request_id, ("", 0.0))
        return self.operation(name) if name and self.clock() - asked_at < REQUEST_ID_SECONDS else None

    def _operation(self, group: FakeGroup, kind: str, request_id: str) -> dict[str, Any]:
        name = f"operation-{len(self._operations) + 1}"
        self._operations[name] = {
            "kind": "compute#operation",
            "name": name,
            "zone": group.zone,
            "operationType": kind,
            "targetLink": f"zones/{group.zone}/instanceGroupManagers/{group.name}",
        }
        if request_id:
            self._requests[request_id] = (name, self.clock())
        return self._operations[name] | {"status": "RUNNING", "progress": 0}
