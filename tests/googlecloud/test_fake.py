"""The fake keeps Google's semantics, seen through Google's own client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1

from tests.googlecloud.fake import FakeGoogleCloud, FakePool

ZONE = "us-central1-a"
GROUP = {"project": "kinema-test", "zone": ZONE, "instance_group_manager": "gke-test-general-a-grp"}


@pytest.fixture
def google() -> Iterator[FakeGoogleCloud]:
    pools = [FakePool("general", "e2-standard-4", [ZONE], {ZONE: ["old-1", "old-2"]})]
    with FakeGoogleCloud(pools, boot_seconds=0.02) as fake:
        yield fake


@pytest.fixture
def groups(google: FakeGoogleCloud) -> Iterator[Any]:
    with client_of(google) as client:
        yield client


def client_of(google: FakeGoogleCloud) -> Any:
    options = ClientOptions(api_endpoint=google.compute_endpoint)
    return compute_v1.InstanceGroupManagersClient(credentials=AnonymousCredentials(), client_options=options)


def create(*names: str) -> dict[str, Any]:
    instances = [{"name": name} for name in names]
    return GROUP | {"instance_group_managers_create_instances_request_resource": {"instances": instances}}


def delete(skip: bool, *names: str) -> dict[str, Any]:
    urls = [f"zones/{ZONE}/instances/{name}" for name in names]
    resource = {"instances": urls, "skip_instances_on_validation_error": skip}
    return GROUP | {"instance_group_managers_delete_instances_request_resource": resource}


def test_a_machine_boots_by_itself_and_its_hooks_are_told(google: FakeGoogleCloud, groups: Any) -> None:
    told: list[tuple[str, ...]] = []
    born, gone = threading.Event(), threading.Event()

    def created(*machine: str) -> None:
        told.append(("created", *machine))
        born.set()

    def deleted(*machine: str) -> None:
        told.append(("deleted", *machine))
        gone.set()

    google.on_instance_created, google.on_instance_deleted = created, deleted
    groups.create_instances_unary(create("new-1"))
    assert born.wait(10)
    groups.delete_instances_unary(delete(False, "new-1"))
    assert gone.wait(10)
    machine = ("new-1", "general", ZONE, "e2-standard-4")
    assert told == [("created", *machine), ("deleted", *machine)]
    assert [instance.name for instance in google.instances()] == ["old-1", "old-2"]


def test_an_operation_that_is_done_only_means_scheduled(google: FakeGoogleCloud, groups: Any) -> None:
    google.stock_out(ZONE, "e2-standard-4")
    name = groups.create_instances_unary(create("new-1")).name
    options = ClientOptions(api_endpoint=google.compute_endpoint)
    with compute_v1.ZoneOperationsClient(credentials=AnonymousCredentials(), client_options=options) as operations:
        operation = operations.wait(project="kinema-test", zone=ZONE, operation=name)
    assert operation.status == compute_v1.Operation.Status.DONE
    assert [(i.name, i.state) for i in google.instances()][-1] == ("new-1", "creating")
    assert groups.get(GROUP).target_size == 3  # 2 + 1


def test_a_repeated_request_id_is_done_once(google: FakeGoogleCloud, groups: Any) -> None:
    request = create("new-1") | {"request_id": "4c1a8d5e-1d5b-4d9e-8a2a-7c3c3e0f7b11"}
    first, second = groups.create_instances_unary(request), groups.create_instances_unary(request)
    assert (first.name, first.status.name, second.status.name) == (second.name, "RUNNING", "DONE")
    assert google.target_size("general", ZONE) == 3  # 2 + 1


def test_a_name_that_exists_is_refused(groups: Any) -> None:
    with pytest.raises(exceptions.Conflict):
        groups.create_instances_unary(create("old-1"))


def test_an_unknown_name_is_refused_unless_it_may_be_skipped(google: FakeGoogleCloud, groups: Any) -> None:
    with pytest.raises(exceptions.BadRequest, match="never-was is no member"):
        groups.delete_instances_unary(delete(False, "old-1", "never-was"))
    assert google.target_size("general", ZONE) == 2
    groups.delete_instances_unary(delete(True, "old-1", "never-was"))
    assert google.target_size("general", ZONE) == 1  # 2 - 1


def test_a_resize_is_seen(google: FakeGoogleCloud, groups: Any) -> None:
    with pytest.raises(exceptions.GoogleAPICallError):
        groups.resize_unary(GROUP | {"size": 1})
    assert google.methods() == {"resize"}


def test_what_a_hook_raises_is_not_lost() -> None:
    def broken(name: str, pool: str, zone: str, machine_type: str) -> None:
        raise ValueError(f"no node for {name}")

    pools = [FakePool("general", "e2-standard-4", [ZONE], {ZONE: ["old-1"]})]

    def live() -> None:
        with FakeGoogleCloud(pools) as fake:
            fake.on_instance_deleted = broken
            with client_of(fake) as client:
                client.delete_instances_unary(delete(False, "old-1"))
            fake.settle()

    with pytest.raises(ValueError, match="no node for old-1"):
        live()
