"""Google's own clients against servers on loopback with Google's semantics."""

from __future__ import annotations

import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from planner.cloud.gcp.controller import GoogleCloud
from planner.errors import BadInput, BadSettings, CloudError, InstanceNotFound, InsufficientCapacity, QuotaExceeded
from planner.model.cluster import Instance
from planner.model.resources import Resources
from planner.model.scheduling import Taint
from tests.cloud.gcp.conftest import BOOT_SECONDS, DELETE_SECONDS, ZONES, Hand, Open
from tests.googlecloud.fake import FakeGoogleCloud, FakePool

A, B, C = ZONES


def states(cloud: GoogleCloud) -> dict[str, str]:
    return {i.name: f"{i.state} {i.error}".strip() for i in cloud.instances()}


def count(google: FakeGoogleCloud, method: str) -> int:
    return sum(call.method == method for call in google.calls)


def test_every_machine_of_the_managed_pools_is_listed_and_no_other(cloud: GoogleCloud) -> None:
    assert cloud.instances() == (
        Instance("old-1", "general", A, "running"),
        Instance("old-2", "general", A, "running"),
    )


def test_a_list_of_several_pages_is_read_whole(google: FakeGoogleCloud, cloud: GoogleCloud) -> None:
    google.page_size = 2
    cloud.boot("general", A, ["new-1", "new-2", "new-3"])
    assert sorted(states(cloud)) == ["new-1", "new-2", "new-3", "old-1", "old-2"]


def test_machines_boot_in_all_zones_at_the_same_time(google: FakeGoogleCloud, cloud: GoogleCloud, clock: Hand) -> None:
    with ThreadPoolExecutor(len(ZONES)) as executor:
        list(executor.map(lambda zone: cloud.boot("general", zone, [f"new-{zone}"]), ZONES))
    new = [f"new-{zone}" for zone in ZONES]
    assert {states(cloud)[name] for name in new} == {"creating"}
    clock.move(BOOT_SECONDS)
    assert {states(cloud)[name] for name in new} == {"running"}
    # 2 + 1 where machines were, 0 + 1 elsewhere.
    assert [google.target_size("general", zone) for zone in ZONES] == [3, 1, 1]


def test_booting_the_same_names_again_creates_nothing(google: FakeGoogleCloud, cloud: GoogleCloud) -> None:
    cloud.boot("general", B, ["new-1", "new-2"])
    cloud.boot("general", B, ["new-2", "new-1"])
    assert google.target_size("general", B) == 2
    assert count(google, "createInstances") == 1


def test_only_the_names_that_are_missing_are_created(google: FakeGoogleCloud, cloud: GoogleCloud) -> None:
    cloud.boot("general", B, ["new-1"])
    cloud.boot("general", B, ["new-1", "new-2", "new-3"])
    asked = [call.names for call in google.calls if call.method == "createInstances"]
    assert asked == [("new-1",), ("new-2", "new-3")]
    assert google.target_size("general", B) == 3


def test_two_planners_that_ask_for_the_same_names_send_the_same_request(
    google: FakeGoogleCloud, cloud: GoogleCloud, open_controller: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = open_controller(google.settings(["general"]))
    seen_before_the_first_asked: list[tuple[Instance, ...]] = [()]
    read = second._members
    monkeypatch.setattr(
        second,
        "_members",
        lambda group: seen_before_the_first_asked.pop() if seen_before_the_first_asked else read(group),
    )
    cloud.boot("general", B, ["new-1", "new-2"])
    second.boot("general", B, ["new-2", "new-1"])
    ids = [call.request_id for call in google.calls if call.method == "createInstances"]
    assert len(ids) == 2
    assert len(set(ids)) == 1
    assert google.target_size("general", B) == 2


def test_names_that_are_gone_again_are_not_awaited_for_ever(
    google: FakeGoogleCloud, cloud: GoogleCloud, clock: Hand
) -> None:
    cloud.boot("general", B, ["new-1"])
    clock.move(BOOT_SECONDS)
    cloud.delete("general", B, ["new-1"])
    clock.move(DELETE_SECONDS)
    with pytest.raises(CloudError, match="were created and deleted within the hour"):
        cloud.boot("general", B, ["new-1"])
    clock.move(3600.0)
    cloud.boot("general", B, ["new-1"])
    assert google.target_size("general", B) == 1


def test_a_thousand_machines_are_named_in_one_call_and_no_more(google: FakeGoogleCloud, cloud: GoogleCloud) -> None:
    names = [f"new-{index:04}" for index in range(1001)]
    cloud.boot("general", B, names)
    cloud.delete("general", B, names)
    sizes = [(c.method, len(c.names)) for c in google.calls if c.names]
    assert sizes == [
        ("createInstances", 1000),
        ("createInstances", 1),
        ("deleteInstances", 1000),
        ("deleteInstances", 1),
    ]
    assert google.target_size("general", B) == 0


def test_a_deletion_shrinks_the_target_by_what_it_deletes(
    google: FakeGoogleCloud, cloud: GoogleCloud, clock: Hand
) -> None:
    cloud.boot("general", A, ["new-1"])
    clock.move(BOOT_SECONDS)
    cloud.delete("general", A, ["old-1", "never-was"])
    assert google.target_size("general", A) == 2  # 2 + 1 - 1
    assert states(cloud) == {"old-1": "deleting", "old-2": "running", "new-1": "running"}
    clock.move(DELETE_SECONDS)
    assert states(cloud) == {"old-2": "running", "new-1": "running"}


def test_deleting_again_deletes_nothing_more(google: FakeGoogleCloud, cloud: GoogleCloud, clock: Hand) -> None:
    cloud.delete("general", A, ["old-1"])
    cloud.delete("general", A, ["old-1"])
    clock.move(DELETE_SECONDS)
    cloud.delete("general", A, ["old-1"])
    assert google.target_size("general", A) == 1  # 2 - 1
    assert count(google, "deleteInstances") == 1


def test_a_machine_that_came_back_under_its_name_is_deleted_again(
    google: FakeGoogleCloud, cloud: GoogleCloud, clock: Hand
) -> None:
    cloud.delete("general", A, ["old-1"])
    clock.move(DELETE_SECONDS)
    cloud.boot("general", A, ["old-1"])
    clock.move(BOOT_SECONDS)
    cloud.delete("general", A, ["old-1"])
    assert states(cloud) == {"old-1": "deleting", "old-2": "running"}
    assert google.target_size("general", A) == 1  # 2 - 1 + 1 - 1
    ids = [call.request_id for call in google.calls if call.method == "deleteInstances"]
    assert ids[0] == ids[1] != ids[2]


def test_a_boot_that_failed_after_it_was_accepted_says_why_when_it_is_asked_for_again(
    google: FakeGoogleCloud, cloud: GoogleCloud
) -> None:
    google.fail_operation("createInstances", "QUOTA_EXCEEDED")
    cloud.boot("general", B, ["new-1"])
    with pytest.raises(QuotaExceeded, match="QUOTA_EXCEEDED: failed by the test"):
        cloud.boot("general", B, ["new-1"])
    assert google.target_size("general", B) == 0


def test_a_deletion_that_failed_after_it_was_accepted_is_asked_for_anew(
    google: FakeGoogleCloud, cloud: GoogleCloud
) -> None:
    google.fail_operation("deleteInstances", "INTERNAL_ERROR")
    cloud.delete("general", A, ["old-1"])
    assert states(cloud) == {"old-1": "running", "old-2": "running"}
    cloud.delete("general", A, ["old-1"])
    assert states(cloud) == {"old-1": "deleting", "old-2": "running"}
    assert google.target_size("general", A) == 1  # 2 - 1


def test_a_stockout_is_told_and_ends_when_there_is_room_again(
    google: FakeGoogleCloud, cloud: GoogleCloud, clock: Hand
) -> None:
    google.stock_out(B, "e2-standard-4")
    cloud.boot("general", B, ["new-1"])
    assert states(cloud)["new-1"] == "failed ZONE_RESOURCE_POOL_EXHAUSTED"
    clock.move(10 * BOOT_SECONDS)
    assert states(cloud)["new-1"] == "failed ZONE_RESOURCE_POOL_EXHAUSTED"
    google.restock(B, "e2-standard-4")
    assert states(cloud)["new-1"] == "creating"
    clock.move(BOOT_SECONDS)
    assert states(cloud)["new-1"] == "running"


def test_a_machine_that_cannot_boot_is_cleared_away_by_name(
    google: FakeGoogleCloud, cloud: GoogleCloud, clock: Hand
) -> None:
    booted: list[str] = []
    google.on_instance_created = lambda name, pool, zone, machine_type: booted.append(name)
    google.stock_out(B, "e2-standard-4")
    cloud.boot("general", B, ["new-1", "new-2"])
    cloud.delete("general", B, ["new-1", "new-2"])
    clock.move(DELETE_SECONDS)
    google.restock(B, "e2-standard-4")
    clock.move(BOOT_SECONDS)
    assert states(cloud) == {"old-1": "running", "old-2": "running"}
    assert google.target_size("general", B) == 0  # 0 + 2 - 2
    assert booted == []


def test_machines_beyond_the_quota_are_told_apart_from_a_stockout(google: FakeGoogleCloud, cloud: GoogleCloud) -> None:
    google.set_quota(4)  # old-1, old-2, foreign and one more
    cloud.boot("general", B, ["new-1", "new-2"])
    found = states(cloud)
    assert sorted([found["new-1"], found["new-2"]]) == ["creating", "failed QUOTA_EXCEEDED"]


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (403, "quotaExceeded", QuotaExceeded),
        (503, "insufficientCapacity", InsufficientCapacity),
        (503, "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", InsufficientCapacity),
        (403, "rateLimitExceeded", CloudError),
        (403, "CONCURRENT_OPERATIONS_QUOTA_EXCEEDED", CloudError),
        (429, "quotaExceeded", CloudError),
        (403, "forbidden", CloudError),
        (500, "backendError", CloudError),
    ],
)
def test_a_refused_boot_says_what_is_lacking(
    google: FakeGoogleCloud, cloud: GoogleCloud, status: int, reason: str, kind: type[CloudError]
) -> None:
    google.refuse("createInstances", status, reason, message="two\nlines")
    with pytest.raises(CloudError) as caught:
        cloud.boot("general", B, ["new-1"])
    assert type(caught.value) is kind
    assert (
        str(caught.value) == f"cannot create 1 machines in gke-test-general-b-grp ({B}): {status} {reason}: two lines"
    )
    assert caught.value.__cause__ is not None
    assert count(google, "createInstances") == 1, "a write is never repeated by itself"


def test_a_deletion_of_a_machine_that_google_does_not_know_is_told(google: FakeGoogleCloud, cloud: GoogleCloud) -> None:
    google.refuse("deleteInstances", 404, "notFound", message=f"'projects/p/zones/{A}/instances/old-1' was not found")
    with pytest.raises(InstanceNotFound):
        cloud.delete("general", A, ["old-1"])


def test_a_read_is_repeated_after_a_passing_error(google: FakeGoogleCloud, cloud: GoogleCloud) -> None:
    google.refuse("listManagedInstances", 503, "backendError")
    google.refuse("ListNodePools", 503, "UNAVAILABLE")
    assert len(cloud.instances()) == 2
    # Three groups and one repetition; one list of pools and one repetition.
    assert (count(google, "listManagedInstances"), count(google, "ListNodePools")) == (4, 2)


def test_a_read_that_stays_refused_gives_no_part_of_the_list(google: FakeGoogleCloud, cloud: GoogleCloud) -> None:
    google.refuse("listManagedInstances", 403, "forbidden", message="Required permission is missing")
    with pytest.raises(
        CloudError, match=r"^cannot list the machines of .*: 403 forbidden: Required permission is missing$"
    ):
        cloud.instances()
    google.refuse("ListNodePools", 403, "PERMISSION_DENIED", message="Required permission is missing")
    with pytest.raises(CloudError, match=r"^cannot list the node pools of .*: 403.*: Required permission is missing$"):
        cloud.instances()


def test_servers_that_are_not_there_are_one_line(google: FakeGoogleCloud, open_controller: Open) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{nobody.getsockname()[1]}"
        for settings in (
            replace(google.settings(["general"]), compute_endpoint=f"http://{dead}"),
            replace(google.settings(["general"]), container_endpoint=dead),
        ):
            with pytest.raises(CloudError) as caught:
                open_controller(settings).instances()
            assert str(caught.value).startswith("cannot list the ")
            assert "\n" not in str(caught.value)


def test_a_whole_life_needs_these_calls_and_never_resizes(
    google: FakeGoogleCloud, cloud: GoogleCloud, clock: Hand
) -> None:
    cloud.catalogue()
    cloud.operations()
    cloud.boot("general", B, ["new-1"])
    clock.move(BOOT_SECONDS)
    cloud.instances()
    cloud.delete("general", B, ["new-1", "old-1"])
    clock.move(DELETE_SECONDS)
    assert states(cloud) == {"old-1": "running", "old-2": "running"}  # old-1 is in another zone
    assert google.methods() == {
        "ListNodePools",
        "ListOperations",
        "listManagedInstances",
        "createInstances",
        "deleteInstances",
    }


def test_a_pool_that_was_not_given_is_not_touched(google: FakeGoogleCloud, cloud: GoogleCloud) -> None:
    with pytest.raises(CloudError, match="node pool other is not among the pools that Kinema was given"):
        cloud.boot("other", A, ["new-1"])
    with pytest.raises(CloudError, match="node pool other is not among the pools that Kinema was given"):
        cloud.delete("other", A, ["foreign"])
    assert google.calls == []


def test_a_zone_without_a_group_boots_nothing_and_has_nothing_to_delete(
    google: FakeGoogleCloud, cloud: GoogleCloud
) -> None:
    with pytest.raises(CloudError, match="node pool general has 0 instance groups in zone us-central1-f, not one"):
        cloud.boot("general", "us-central1-f", ["new-1"])
    cloud.delete("general", "us-central1-f", ["new-1"])
    assert google.methods() == {"ListNodePools"}


def test_nothing_boots_while_a_blue_green_upgrade_has_two_groups_in_a_zone(open_controller: Open) -> None:
    urls = [f"https://www.googleapis.com/compute/v1/projects/p/zones/{A}/instanceGroupManagers/{n}" for n in "12"]
    pools = [FakePool("general", "e2-standard-4", [A], fields={"instance_group_urls": urls})]
    with FakeGoogleCloud(pools) as google:
        cloud = open_controller(google.settings())
        with pytest.raises(CloudError, match="node pool general has 2 instance groups in zone us-central1-a, not one"):
            cloud.boot("general", A, ["new-1"])
        assert "createInstances" not in google.methods()


def test_a_pool_that_the_cluster_does_not_have_is_answered_with_those_it_has(
    google: FakeGoogleCloud, open_controller: Open
) -> None:
    with pytest.raises(BadSettings, match="has no node pool generel; it has: general, other"):
        open_controller(google.settings(["generel"])).instances()


def test_nothing_under_way_is_an_empty_answer(google: FakeGoogleCloud, cloud: GoogleCloud) -> None:
    google.set_pool_status("other", "RECONCILING")
    google.set_pool_status("general", "RUNNING_WITH_ERROR")
    google.start_operation("UPGRADE_NODES", pool="other")
    google.start_operation("UPGRADE_MASTER", cluster="another")
    assert cloud.operations() == ()


def test_what_is_under_way_is_named(google: FakeGoogleCloud, cloud: GoogleCloud) -> None:
    google.set_pool_status("general", "RECONCILING")
    upgrade = google.start_operation("UPGRADE_NODES", pool="general")
    control_plane = google.start_operation("UPGRADE_MASTER")
    assert cloud.operations() == (
        "node pool general is RECONCILING",
        f"UPGRADE_NODES of node pool general is RUNNING ({upgrade})",
        f"UPGRADE_MASTER of cluster test is RUNNING ({control_plane})",
    )


def test_a_zone_that_does_not_answer_is_no_quiet_zone(google: FakeGoogleCloud, cloud: GoogleCloud) -> None:
    google.missing_zones = (C,)
    with pytest.raises(CloudError, match="no answer from us-central1-c"):
        cloud.operations()


def test_the_catalogue_offers_each_managed_pool_in_each_of_its_zones(open_controller: Open) -> None:
    taint = {"key": "dedicated", "value": "batch", "effect": "NO_SCHEDULE"}
    pools = [
        FakePool("general", "e2-standard-4", [A, B], minimum=1, maximum=7),
        FakePool("batch", "n2-standard-4", [C], spot=True, labels={"team": "batch"}, config={"taints": [taint]}),
        FakePool("other", "e2-standard-8", [A]),
    ]
    with FakeGoogleCloud(pools) as google:
        catalogue = open_controller(google.settings(["general", "batch"])).catalogue()
    assert catalogue.managed_pools == frozenset({"general", "batch"})
    assert catalogue.limits() == {("general", A): (1, 7), ("general", B): (1, 7)}
    in_a, _, batch = catalogue.offerings
    assert [(o.pool, o.zone, o.capacity_type) for o in catalogue.offerings] == [
        ("general", A, "on-demand"),
        ("general", B, "on-demand"),
        ("batch", C, "spot"),
    ]
    assert in_a.price_nanousd_per_hour == 134_020_000  # 0.13402 $/h
    assert in_a.allocatable.cpu_millicores == 3920  # 4000 - 60 - 10 - 2*5
    assert in_a.taints == ()
    assert in_a.labels["topology.kubernetes.io/zone"] == A
    assert "cloud.google.com/gke-spot" not in in_a.labels
    assert batch.price_nanousd_per_hour == catalogue.machines["n2-standard-4"].spot_price_nanousd_per_hour
    assert batch.taints == (Taint("dedicated", "batch", "NoSchedule"),)
    assert batch.labels["team"] == "batch"
    assert batch.labels["cloud.google.com/gke-spot"] == "true"
    assert batch.labels["cloud.google.com/gke-nodepool"] == "batch"
    assert (batch.minimum, batch.maximum) == (0, None)


def test_limits_in_total_are_shared_out_around_what_is_there(open_controller: Open) -> None:
    scaling = {"enabled": True, "total_min_node_count": 2, "total_max_node_count": 11}
    there = {A: ["a-1", "a-2", "a-3"], B: ["b-1"]}
    pools = [FakePool("general", "e2-standard-4", ZONES, there, fields={"autoscaling": scaling})]
    with FakeGoogleCloud(pools) as google:
        limits = open_controller(google.settings()).catalogue().limits()
    # 4 machines: each zone may grow by floor((11-4)/3) = 2 and shrink by floor((4-2)/3) = 0.
    # Zone c has none and so no minimum. Greatest sum 5+3+2 = 10 <= 11, least 3+1+0 = 4 >= 2.
    assert limits == {("general", A): (3, 5), ("general", B): (1, 3), ("general", C): (0, 2)}


def test_a_pool_without_a_price_or_with_unknown_room_is_not_offered_and_named(
    open_controller: Open, caplog: pytest.LogCaptureFixture
) -> None:
    gpus = [{"accelerator_count": 1, "accelerator_type": "nvidia-tesla-t4"}]
    l4 = [{"accelerator_count": 1, "accelerator_type": "nvidia-l4"}]
    pools = [
        FakePool("tpu", "ct5lp-hightpu-4t", [A]),
        FakePool("t4", "n1-standard-4", [A], config={"accelerators": gpus}),
        FakePool("l4", "g2-standard-4", [A], config={"accelerators": l4}),
        FakePool("windows", "e2-standard-4", [A], config={"image_type": "WINDOWS_LTSC_CONTAINERD"}),
    ]
    with FakeGoogleCloud(pools) as google, caplog.at_level(logging.WARNING):
        offerings = open_controller(google.settings()).catalogue().offerings
    assert [(o.pool, o.allocatable.extended) for o in offerings] == [("l4", (("nvidia.com/gpu", 1),))]
    assert caplog.messages == [
        "node pool tpu is not offered: there is no on-demand price of ct5lp-hightpu-4t",
        "node pool t4 is not offered: 1 GPUs are attached and 0 are in the machine's price",
        "node pool windows is not offered: its nodes run Windows",
    ]


def test_a_table_of_the_users_replaces_the_built_in_one(
    google: FakeGoogleCloud, open_controller: Open, tmp_path: Path
) -> None:
    table = tmp_path / "machines.csv"
    table.write_text(
        "machine_type,cpu_millicores,memory_bytes,max_pods,price_usd_per_hour,zones\n"
        f"e2-standard-4,3900,13000000000,200,0.1,{A} {C}\n"
    )
    catalogue = open_controller(google.settings(["general"], machines=str(table))).catalogue()
    assert list(catalogue.machines) == ["e2-standard-4"]
    # The pool allows 110 pods where the table says 200, and the table has no price for zone b.
    assert [(o.zone, o.price_nanousd_per_hour, o.allocatable) for o in catalogue.offerings] == [
        (A, 100_000_000, Resources(3900, 13_000_000_000, 110)),
        (C, 100_000_000, Resources(3900, 13_000_000_000, 110)),
    ]


def test_a_region_without_built_in_prices_asks_for_a_table(google: FakeGoogleCloud, open_controller: Open) -> None:
    pools = [FakePool("general", "e2-standard-4", ["europe-west3-a"])]
    place = replace(google.place, location="europe-west3-a")
    with FakeGoogleCloud(pools, place=place) as german, pytest.raises(BadInput, match=r"'europe-west3'.*--machines"):
        open_controller(german.settings()).catalogue()
