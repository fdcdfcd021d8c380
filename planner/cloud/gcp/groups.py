"""Managed instance groups: one for each pool and zone, whose machines are created and deleted by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from planner.cloud.gcp.errors import kind_of
from planner.errors import CloudError
from planner.model.cluster import Instance, InstanceState

_URL = re.compile(r"projects/(?P<project>[^/]+)/zones/(?P<zone>[^/]+)/instanceGroup(?:Manager)?s/(?P<name>[^/]+)$")

_COMING = {
    "CREATING",
    "CREATING_WITHOUT_RETRIES",
    "RECREATING",
    "RESTARTING",
    "RESUMING",
    "STARTING",
    "VERIFYING",
}
_GOING = {"DELETING", "ABANDONING", "STOPPING", "SUSPENDING"}
_BOOTING = {"", "PENDING", "PROVISIONING", "STAGING", "REPAIRING"}


@dataclass(frozen=True, slots=True)
class Group:
    """A managed instance group of a pool in a zone."""

    pool: str
    project: str
    zone: str
    name: str

    @property
    def path(self) -> dict[str, str]:
        """The fields that name the group in every request."""
        return {"project": self.project, "zone": self.zone, "instance_group_manager": self.name}


def group_of(pool: str, url: str) -> Group:
    """Read a URL of a node pool's `instance_group_urls`.

    Raises:
        CloudError: the URL has another form.
    """
    if (match := _URL.search(url)) is None:
        raise CloudError(f"node pool {pool}: {url!r} is no URL of a zone's instance group")
    return Group(pool, **match.groupdict())


def instance_of(group: Group, managed: Any) -> Instance:
    """Return what one entry of listManagedInstances means.

    The group tries CREATING for ever, also after a stockout: an attempt that met an error is "failed" with its
    code, and only a delete by name ends it. NONE means that the group has nothing left to do: the machine's own status
    then decides, and a machine that stopped by itself is "failed".
    """
    name = managed.name or managed.instance.rsplit("/", 1)[-1]
    state, error = _state(managed)
    return Instance(name, group.pool, group.zone, state, error)


def failure_of(action: str, operation: Any) -> CloudError | None:
    """Return why an operation failed, None where it did not (or not yet)."""
    errors = [(entry.code, entry.message) for entry in operation.error.errors]
    if not errors and not operation.http_error_status_code:
        return None
    code, message = errors[0] if errors else (str(operation.http_error_status_code), operation.http_error_message)
    return kind_of(code)(f"cannot {action}: {code}: {' '.join(message.split())}")


def _state(managed: Any) -> tuple[InstanceState, str]:
    action, status = managed.current_action, managed.instance_status
    if action in _GOING:
        return "deleting", ""
    if action in _COMING:
        codes = [entry.code for entry in managed.last_attempt.errors.errors]
        # Several errors of one attempt: the one that says what is lacking comes before a general one.
        codes.sort(key=lambda code: kind_of(code) is CloudError)
        return ("failed", codes[0] or "UNKNOWN") if codes else ("creating", "")
    if status == "RUNNING":
        return "running", ""
    return ("creating", "") if status in _BOOTING else ("failed", status)
