"""Which controller the settings open."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from planner.cloud.controller import open_cloud
from planner.errors import BadSettings
from planner.settings import CloudSettings

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
