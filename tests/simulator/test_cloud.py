"""Stock-outs and refusals of the simulated cloud; the rest is in the contract."""

from __future__ import annotations

import pytest

from planner.errors import InsufficientCapacity, QuotaExceeded
from planner.ports import NODES
from simulator.world import World
from tests.simulator.worlds import ZONE, world


def states(built: World) -> dict[str, tuple[str, str]]:
    return {i.name: (i.state, i.error) for i in built.cloud.instances()}


def test_a_machine_that_the_zone_does_not_have_fails_after_its_boot_time() -> None:
    built = world(nodes=0)
    built.cloud.stockouts["m4", ZONE] = "ZONE_RESOURCE_POOL_EXHAUSTED"

    built.cloud.boot("m4", ZONE, ["new"])
    assert states(built) == {"new": ("creating", "")}
    built.run(120)

    assert states(built) == {"new": ("failed", "ZONE_RESOURCE_POOL_EXHAUSTED")}
    assert built.server.store.bodies(NODES) == []


def test_a_failed_machine_is_tried_again_until_it_is_deleted() -> None:
    built = world(nodes=0)
    built.cloud.stockouts["m4", ZONE] = "ZONE_RESOURCE_POOL_EXHAUSTED"
    built.cloud.boot("m4", ZONE, ["kept", "given-up"])
    built.run(120)

    built.cloud.delete("m4", ZONE, ["given-up"])
    built.cloud.stockouts.clear()
    built.run(120)

    assert states(built) == {"kept": ("running", "")}
    assert [node["metadata"]["name"] for node in built.server.store.bodies(NODES)] == ["kept"]


@pytest.mark.parametrize("refusal", [InsufficientCapacity, QuotaExceeded])
def test_a_refusal_at_once_creates_nothing(refusal: type[InsufficientCapacity] | type[QuotaExceeded]) -> None:
    built = world(nodes=0)
    built.cloud.refusing["m4", ZONE] = refusal

    with pytest.raises(refusal):
        built.cloud.boot("m4", ZONE, ["new"])

    assert built.cloud.instances() == ()


def test_a_machine_deleted_while_it_boots_never_becomes_a_node() -> None:
    built = world(nodes=0)
    built.cloud.boot("m4", ZONE, ["new"])
    built.cloud.delete("m4", ZONE, ["new"])

    built.run(300)

    assert built.cloud.instances() == ()
    assert built.server.store.bodies(NODES) == []
