"""Fixtures of every test that needs the real control plane; tests/conftest.py makes them known."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controlplane.build import Binaries, build, unavailable
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.processes import Process


def require_binaries() -> Binaries:
    """Return the programs, built on first use; without Go skip the test, or fail it in CI (CI=true)."""
    if reason := unavailable():
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(reason)
        pytest.skip(reason)
    return build()


@pytest.fixture(scope="session")
def control_plane_binaries() -> Binaries:
    """The programs of the control plane."""
    return require_binaries()


@pytest.fixture(scope="session")
def running_control_plane(
    control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """One control plane for the whole run; tests ask for `control_plane`, which cleans up behind them."""
    with ControlPlane(control_plane_binaries, tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@pytest.fixture
def control_plane(running_control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The shared control plane, without nodes, workloads and scheduler; cleared again after the test."""
    yield running_control_plane
    running_control_plane.clear()


@pytest.fixture
def new_control_plane(control_plane_binaries: Binaries, tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane of the test's own, for tests that change what `control_plane` would keep."""
    with ControlPlane(control_plane_binaries, tmp_path / "control-plane") as running:
        yield running


@pytest.fixture
def default_scheduler(control_plane: ControlPlane) -> Iterator[Process]:
    """The default scheduler, without extender, on the shared control plane during one test."""
    scheduler = control_plane.start_scheduler()
    yield scheduler
    scheduler.stop()
