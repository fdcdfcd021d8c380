"""Generated clusters with every rule mixed reach their plan by Kinema's own hand, on a real control plane.

One seed by hand: `python -m tests.controlplane.generated SEED --out FOLDER`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controlplane.build import Binaries
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.generated import Ground, opened
from tests.controlplane.installation import Steering

pytestmark = pytest.mark.controlplane

BLOCK = 10
SEEDS = 30
SOAKED_SEEDS = 1_000
STEERINGS: tuple[Steering, ...] = ("extender", "scheduler")


@pytest.fixture
def ground(control_plane_binaries: Binaries, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ground]:
    """A control plane of its own, on which the clusters of a block follow each other."""
    steering: Steering = STEERINGS[request.getfixturevalue("first") // BLOCK % len(STEERINGS)]
    with (
        ControlPlane(control_plane_binaries, tmp_path / "control-plane") as cluster,
        opened(cluster, tmp_path, steering) as running,
    ):
        yield running


@pytest.mark.parametrize(
    "first",
    [
        *range(0, SEEDS, BLOCK),
        *(
            pytest.param(first, marks=pytest.mark.soak, id=f"soak-{first}")
            for first in range(SEEDS, SEEDS + SOAKED_SEEDS, BLOCK)
        ),
    ],
)
def test_ten_generated_clusters_reach_their_plans(ground: Ground, first: int) -> None:
    trials = list(ground.trials(range(first, first + BLOCK)))
    assert [str(trial) for trial in trials if trial.problems] == []
    # What proves nothing must not pass for a proof: a cluster may stand well already, most must not.
    outcomes = Counter(trial.outcome for trial in trials)
    assert outcomes["carried-out"] >= BLOCK // 2, outcomes
    assert sum(trial.moved for trial in trials) >= 2 * BLOCK
