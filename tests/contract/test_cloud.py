"""The contract of the port to the cloud, on the simulator and on Google's clients with the fake cloud."""

from __future__ import annotations

import pytest

from planner.errors import CloudError
from planner.model.cluster import Instance
from planner.ports import NODES
from tests.contract.subjects import POOLS, ZONES, CloudSubject, everything, find, is_true

ZONE = ZONES[0]


def instances(clouded: CloudSubject) -> dict[str, Instance]:
    return {instance.name: instance for instance in clouded.cloud.instances()}


def booted(clouded: CloudSubject, pool: str, *names: str) -> None:
    """Boot machines and wait for their Ready nodes."""
    clouded.cloud.boot(pool, ZONE, names)

    def stand() -> bool:
        nodes = {n["metadata"]["name"]: n for n in everything(clouded, NODES)}
        return all(name in nodes and is_true(nodes[name], "Ready") for name in names)

    clouded.eventually(stand, f"nodes {names}")


def gone(clouded: CloudSubject, name: str) -> None:
    clouded.eventually(lambda: name not in instances(clouded), f"{name} to be gone")


def test_the_catalogue_offers_every_pool_in_every_zone_at_its_price(clouded: CloudSubject) -> None:
    catalogue = clouded.cloud.catalogue()

    assert catalogue.managed_pools == frozenset(POOLS)
    assert {(o.pool, o.zone, o.machine_type) for o in catalogue.offerings} == {
        (pool, zone, kind) for pool, kind in POOLS.items() for zone in ZONES
    }
    # e2-standard-4: 0.13402 $/h, 4 vCPUs of which GKE leaves 3920m.
    [blue] = [o for o in catalogue.offerings if (o.pool, o.zone) == ("blue", ZONE)]
    assert blue.price_nanousd_per_hour == 134_020_000
    assert blue.allocatable.cpu_millicores == 3920
    assert catalogue.machines["e2-standard-4"].price_nanousd_per_hour == 134_020_000


def test_a_machine_is_created_and_becomes_a_node_of_its_pool(clouded: CloudSubject) -> None:
    clouded.cloud.boot("blue", ZONE, ["gke-new"])
    assert instances(clouded)["gke-new"].state in ("creating", "running")

    booted(clouded, "blue", "gke-new")

    found = instances(clouded)["gke-new"]
    assert (found.pool, found.zone, found.state, found.error) == ("blue", ZONE, "running", "")
    labels = find(clouded, NODES, "gke-new")["metadata"]["labels"]
    assert labels["cloud.google.com/gke-nodepool"] == "blue"
    assert labels["node.kubernetes.io/instance-type"] == "e2-standard-4"
    assert labels["topology.kubernetes.io/zone"] == ZONE
    assert labels["kubernetes.io/hostname"] == "gke-new"
    provider_id = find(clouded, NODES, "gke-new")["spec"]["providerID"]
    assert provider_id.startswith("gce://")
    assert provider_id.endswith(f"/{ZONE}/gke-new")


def test_booting_the_same_names_again_creates_only_what_is_missing(clouded: CloudSubject) -> None:
    booted(clouded, "blue", "gke-a")

    booted(clouded, "blue", "gke-a", "gke-b")

    assert sorted(instances(clouded)) == ["gke-a", "gke-b"]


def test_a_name_that_another_pool_uses_is_refused(clouded: CloudSubject) -> None:
    booted(clouded, "blue", "gke-a")

    with pytest.raises(CloudError):
        clouded.cloud.boot("green", ZONE, ["gke-a"])
    assert instances(clouded)["gke-a"].pool == "blue"


def test_a_deleted_machine_goes_and_leaves_its_node_object(clouded: CloudSubject) -> None:
    booted(clouded, "blue", "gke-a", "gke-b")

    clouded.cloud.delete("blue", ZONE, ["gke-a"])
    assert instances(clouded).get("gke-a") is None or instances(clouded)["gke-a"].state == "deleting"
    gone(clouded, "gke-a")

    assert sorted(instances(clouded)) == ["gke-b"]
    uid = find(clouded, NODES, "gke-a")["metadata"]["uid"]
    clouded.kubernetes.delete(NODES, "", "gke-a", uid)
    assert [n["metadata"]["name"] for n in everything(clouded, NODES)] == ["gke-b"]


def test_deleting_again_and_deleting_what_never_was_is_no_error(clouded: CloudSubject) -> None:
    booted(clouded, "blue", "gke-a")

    for _ in range(2):
        clouded.cloud.delete("blue", ZONE, ["gke-a", "gke-never"])
    gone(clouded, "gke-a")
    clouded.cloud.delete("blue", ZONE, ["gke-a"])

    assert instances(clouded) == {}


def test_a_machine_of_another_pool_or_zone_is_not_deleted(clouded: CloudSubject) -> None:
    booted(clouded, "blue", "gke-a")

    clouded.cloud.delete("green", ZONE, ["gke-a"])
    clouded.cloud.delete("blue", ZONES[1], ["gke-a"])

    assert instances(clouded)["gke-a"].state == "running"


def test_a_pool_that_was_not_given_is_refused(clouded: CloudSubject) -> None:
    with pytest.raises(CloudError):
        clouded.cloud.boot("purple", ZONE, ["gke-a"])
    with pytest.raises(CloudError):
        clouded.cloud.delete("purple", ZONE, ["gke-a"])
    with pytest.raises(CloudError):
        clouded.cloud.boot("blue", "us-central1-z", ["gke-a"])


def test_a_stock_out_fails_the_machine_with_the_clouds_code_until_it_is_deleted(clouded: CloudSubject) -> None:
    clouded.stock_out("blue", ZONE)
    clouded.cloud.boot("blue", ZONE, ["gke-a"])

    clouded.eventually(lambda: instances(clouded)["gke-a"].state == "failed", "the failure")
    assert instances(clouded)["gke-a"].error == "ZONE_RESOURCE_POOL_EXHAUSTED"
    assert everything(clouded, NODES) == []

    clouded.cloud.delete("blue", ZONE, ["gke-a"])
    gone(clouded, "gke-a")


def test_operations_name_what_is_under_way(clouded: CloudSubject) -> None:
    assert clouded.cloud.operations() == ()

    clouded.begin_operation("blue")

    [sentence] = clouded.cloud.operations()
    assert "blue" in sentence
