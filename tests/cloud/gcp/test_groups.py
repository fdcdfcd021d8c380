"""What the entries of listManagedInstances mean."""

from __future__ import annotations

from typing import Any

import pytest
from google.cloud import compute_v1

from planner.cloud.gcp.groups import Group, failure_of, group_of, instance_of
from planner.errors import CloudError, InsufficientCapacity, QuotaExceeded

GROUP = Group("general", "p", "us-central1-a", "g")


def managed(action: str, status: str = "", *codes: str) -> Any:
    errors = {"errors": [{"code": code, "message": "…"} for code in codes]}
    url = "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a/instances/m"
    fields = {"instance": url, "current_action": action, "last_attempt": {"errors": errors}}
    return compute_v1.ManagedInstance(fields | ({"instance_status": status} if status else {}))


@pytest.mark.parametrize(
    ("entry", "state", "error"),
    [
        (managed("CREATING"), "creating", ""),
        (managed("CREATING", "STAGING"), "creating", ""),
        (managed("VERIFYING", "RUNNING"), "creating", ""),
        (managed("NONE", "RUNNING"), "running", ""),
        (managed("REFRESHING", "RUNNING"), "running", ""),
        (managed("NONE", "PROVISIONING"), "creating", ""),
        (managed("NONE", "TERMINATED"), "failed", "TERMINATED"),
        (managed("DELETING", "STOPPING"), "deleting", ""),
        (managed("DELETING", "", "QUOTA_EXCEEDED"), "deleting", ""),
        (managed("ABANDONING", "RUNNING"), "deleting", ""),
        (managed("NONE", "RUNNING", "QUOTA_EXCEEDED"), "running", ""),
        (managed("CREATING", "", "IP_SPACE_EXHAUSTED"), "failed", "IP_SPACE_EXHAUSTED"),
        (managed("CREATING", "", "PERMISSIONS_ERROR"), "failed", "PERMISSIONS_ERROR"),
        (managed("CREATING", "", "CONDITION_NOT_MET", "QUOTA_EXCEEDED"), "failed", "QUOTA_EXCEEDED"),
        (managed("RECREATING", "", "RESOURCE_POOL_EXHAUSTED"), "failed", "RESOURCE_POOL_EXHAUSTED"),
    ],
)
def test_state_follows_the_action_then_the_machine(entry: Any, state: str, error: str) -> None:
    instance = instance_of(GROUP, entry)
    assert (instance.name, instance.pool, instance.zone) == ("m", "general", "us-central1-a")
    assert (instance.state, instance.error) == (state, error)


def test_the_url_of_a_group_is_read() -> None:
    url = "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a/instanceGroupManagers/g"
    assert group_of("general", url) == GROUP


def test_a_url_of_another_form_is_refused() -> None:
    with pytest.raises(CloudError, match="'regions/us-central1/g' is no URL of a zone's instance group"):
        group_of("general", "regions/us-central1/g")


def test_an_operation_that_failed_says_why() -> None:
    error = {"errors": [{"code": "QUOTA_EXCEEDED", "message": "Quota 'CPUS'\nexceeded."}]}
    failure = failure_of("boot", compute_v1.Operation(status="DONE", error=error))
    assert type(failure) is QuotaExceeded
    assert str(failure) == "cannot boot: QUOTA_EXCEEDED: Quota 'CPUS' exceeded."
    error = {"errors": [{"code": "ZONE_RESOURCE_POOL_EXHAUSTED", "message": ""}]}
    assert type(failure_of("boot", compute_v1.Operation(error=error))) is InsufficientCapacity
    bare = compute_v1.Operation(http_error_status_code=404, http_error_message="NOT FOUND")
    assert str(failure_of("boot", bare)) == "cannot boot: 404: NOT FOUND"


def test_an_operation_under_way_has_not_failed() -> None:
    assert failure_of("boot", compute_v1.Operation(status="RUNNING")) is None
