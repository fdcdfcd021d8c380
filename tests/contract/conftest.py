"""The subjects as fixtures; the real ones are skipped where there is no Go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.subjects import (
    POOLS,
    ZONES,
    CloudSubject,
    Cluster,
    RealCluster,
    RealClusterWithCloud,
    SimulatedCluster,
)
from tests.googlecloud.fake import FakeGoogleCloud, FakePool

SUBJECTS = ("simulator", pytest.param("control plane", marks=pytest.mark.controlplane))


@pytest.fixture(params=SUBJECTS)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """A cluster without nodes and pods."""
    if request.param == "simulator":
        return SimulatedCluster()
    control_plane = request.getfixturevalue("control_plane")
    request.getfixturevalue("default_scheduler")
    return RealCluster(control_plane)


@pytest.fixture(params=SUBJECTS)
def clouded(request: pytest.FixtureRequest) -> Iterator[CloudSubject]:
    """A cluster without nodes, and a cloud without machines."""
    if request.param == "simulator":
        yield SimulatedCluster()
        return
    control_plane = request.getfixturevalue("control_plane")
    pools = [FakePool(name, kind, ZONES) for name, kind in POOLS.items()]
    with FakeGoogleCloud(pools, boot_seconds=0.5, delete_seconds=0.5) as fake:
        subject = RealClusterWithCloud(control_plane, fake)
        yield subject
        subject.google.close()
