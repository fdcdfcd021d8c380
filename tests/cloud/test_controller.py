"""Which controller the settings open."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from planner.cloud.controller import open_catalogue, open_cloud
from planner.errors import BadInput, BadSettings
from planner.model.cluster import ZONE
from planner.settings import CloudSettings
from tests.building import node, snapshot
from tests.simulator.worlds import world

GCP = CloudSettings(
    provider="gcp",
    project="kinema-test",
    location="us-central1",
    cluster="test",
    compute_endpoint="http://127.0.0.1:1",
    container_endpoint="127.0.0.1:1",
)


def test_no_provider_opens_no_cloud() -> None:
    assert open_cloud(CloudSettings()) is None


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadSettings, match=r"cloud\.provider must be one of gcp, none, not 'aws'"):
        open_cloud(CloudSettings(provider="aws"))  # type: ignore[arg-type]  # what a file could say


@pytest.mark.parametrize("package", ["google.cloud", "grpc", "requests"])
def test_missing_client_libraries_are_answered_with_the_extra_that_brings_them(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in [n for n in sys.modules if n.startswith("planner.cloud.gcp.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BadSettings) as caught:
        open_cloud(GCP)
    assert "pip install 'kinema[gcp]'" in str(caught.value)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_location_that_is_no_zone_and_no_region_is_refused() -> None:
    with pytest.raises(
        BadSettings, match=r"cloud\.location must be a zone or a region such as us-central1, not 'Iowa'"
    ):
        open_cloud(replace(GCP, location="Iowa"))


def test_missing_credentials_are_answered_with_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(BadSettings, match="no Google credentials: use Workload Identity"):
        open_cloud(replace(GCP, compute_endpoint="", container_endpoint=""))


TABLE = "machine_type,cpu_millicores,memory_bytes,max_pods,price_usd_per_hour\nsmall,1000,1000,10,0.1\n"


def test_without_a_cloud_the_table_is_sold_in_the_zones_of_the_cluster(tmp_path: Path) -> None:
    table = tmp_path / "machines.csv"
    table.write_text(TABLE)
    catalogue = open_catalogue(CloudSettings(machines=str(table)), None)
    table.unlink()  # it was read when it was opened
    there = snapshot([node("a", labels={ZONE: "z1"}), node("b", labels={ZONE: "z2"})])
    assert [(o.pool, o.zone, o.price_nanousd_per_hour) for o in catalogue(there).offerings] == [
        ("small", "z1", 100_000_000),
        ("small", "z2", 100_000_000),
    ]


def test_pools_bound_what_a_table_sells(tmp_path: Path) -> None:
    table, pools = tmp_path / "machines.csv", tmp_path / "pools.yaml"
    table.write_text(TABLE)
    pools.write_text("[{name: web, machineType: small, zones: [z3], max: 2}]")
    catalogue = open_catalogue(CloudSettings(machines=str(table)), None, str(pools))(snapshot([node("a")]))
    assert catalogue.limits() == {("web", "z3"): (0, 2)}


def test_a_cloud_is_asked_anew_for_every_snapshot() -> None:
    cloud = world().cloud
    catalogue = open_catalogue(CloudSettings(machines="/absent"), cloud)
    assert catalogue(snapshot([])) is cloud.catalogue()


def test_neither_cloud_nor_table_is_refused_with_both_ways_out() -> None:
    with pytest.raises(BadSettings, match=r"cloud\.machines must be a CSV file .* or set cloud\.provider to gcp"):
        open_catalogue(CloudSettings(), None)
    with pytest.raises(BadInput, match="/absent: cannot be read"):
        open_catalogue(CloudSettings(machines="/absent"), None)
