"""Roll-outs put every pod where the plan wants it, whatever happens in the middle.

One by hand: `python -m tests.controlplane.fidelity --nodes 40 --pods 300 --only two-plans`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest

from tests.controlplane.build import Binaries
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.fidelity.field import Field, Figures
from tests.controlplane.fidelity.rollout import Size
from tests.controlplane.fidelity.scenarios import SCENARIOS, Scenario, played, without_extender

pytestmark = pytest.mark.controlplane

SMALL, LARGE = Size(40, 300), Size(200, 2000)
ALWAYS = (
    "short-of-room",
    "extender-killed-beside-two",
    "planner-killed",
    "two-plans",
    "node-deleted",
    "scaled-up-and-down",
)
"""Some 20 s each; the others are left to `make soak`."""


@pytest.fixture(scope="module")
def ground(control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """A control plane of its own, on which the roll-outs follow each other."""
    folder = tmp_path_factory.mktemp("fidelity")
    with ControlPlane(control_plane_binaries, folder / "control-plane") as cluster:
        field = Field(cluster, folder, "extender")
        field.install()
        yield field


@pytest.fixture(scope="module")
def baseline(ground: Field) -> Callable[[Size], Figures]:
    """What the roll-out of a size comes to without an extender, on this machine."""
    return functools.cache(lambda size: without_extender(ground, size))


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(scenario, id=scenario.name, marks=() if scenario.name in ALWAYS else pytest.mark.soak)
        for scenario in SCENARIOS
    ],
)
def test_every_pod_goes_where_the_plan_wants_it(
    ground: Field, baseline: Callable[[Size], Figures], scenario: Scenario
) -> None:
    report = played(scenario, ground, SMALL, baseline(SMALL))
    assert report.problems == [], str(report)


@pytest.mark.soak
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_two_thousand_pods_go_where_the_plan_wants_them(
    ground: Field, baseline: Callable[[Size], Figures], scenario: Scenario
) -> None:
    report = played(scenario, ground, LARGE, baseline(LARGE))
    assert report.problems == [], str(report)
