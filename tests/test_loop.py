"""Whole iterations on simulated clusters of many seeds; the real control plane has its own in tests/controlplane."""

from __future__ import annotations

import time

import pytest

from planner import labels as keys
from planner.cloud.gcp.machines import builtin_machines
from planner.kube.reader import read_snapshot
from planner.loop import Outcome, Report, iterate
from planner.model.plan import Wait
from planner.rescheduler import CARRIED_OUT
from planner.settings import MoveSettings, OptimizerSettings, Settings
from simulator.cloud import CloudTimes
from simulator.scenarios import badly_packed
from simulator.world import World
from tests.iterating import APPLY, badly_placed, edges_of
from tests.simulator.worlds import ZONE

SETTINGS = Settings(
    mode="apply",
    move=MoveSettings(steering="extender", poll_seconds=2),
    optimizer=OptimizerSettings(time_limit_seconds=8, target_gap=0.02),
)


class Dying:
    """Asks the planner to stop after every so many steps, as a crash between two rounds would."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.steps = 0

    def __call__(self) -> bool:
        return self.steps >= self.every

    def note(self, report: Report) -> None:
        self.steps += not isinstance(report, Wait)


def one_life(world: World, dying: Dying) -> Outcome:
    """Run a planner that knows nothing of its predecessors until the iteration ends or it dies."""
    dying.steps = 0
    return iterate(edges_of(world, dying.note, stopping=dying), SETTINGS)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_an_iteration_with_a_planner_that_keeps_dying_ends_as_planned(seed: int) -> None:
    world = World(badly_packed(builtin_machines("us-central1"), time.time(), seed))
    world.settle()
    outcome = one_life(world, Dying(40))
    lives = 1
    while outcome == "interrupted":
        outcome = one_life(world, Dying(40))
        lives += 1
    assert outcome == "carried-out"
    assert lives > 1
    assert world.availability.violations == []
    snapshot = read_snapshot(world.kubernetes, world.cloud, world.clock)
    assert snapshot.record is not None
    assert snapshot.record.reason == CARRIED_OUT
    wanted = {node.name for node in snapshot.record.plan.nodes if node.state != "remove"}
    assert {node.name for node in snapshot.nodes} == wanted
    assert {machine.name for machine in snapshot.instances or ()} == wanted
    assert not [node.name for node in snapshot.nodes if keys.EXPIRING in node.labels]


def test_the_metric_says_what_a_carry_out_waits_for_until_it_waits_no_more() -> None:
    world = badly_placed()
    seen: set[str] = set()

    def note(report: Report) -> None:
        waiting = {labels["reason"] for _, labels, _, *_ in edges.metrics.waiting.collect()[0].samples}
        assert waiting == (set(report.reasons) if isinstance(report, Wait) else set())
        seen.update(waiting)

    edges = edges_of(world, note)
    assert iterate(edges, APPLY) == "carried-out"
    assert "the machine n2 is being deleted" in seen


def test_two_iterations_of_the_same_second_have_different_names() -> None:
    world = badly_placed(smaller=True)
    # Everything but the solve, which takes no simulated time, is over at once.
    world.kubernetes.latency_seconds = 0.001
    world.cloud.times = CloudTimes(boot_seconds=(0.0, 0.0), delete_seconds=(0.0, 0.0), call_seconds=0.0)
    asked: list[str] = []
    world.cloud.listener = lambda event, machine: asked.append(machine.name) if event == "accepted" else None
    world.run(1.0 - world.clock.now() % 1.0)
    second = int(world.clock.now())
    world.cloud.stockouts["small", ZONE] = "ZONE_RESOURCE_POOL_EXHAUSTED"
    assert iterate(edges_of(world), APPLY) == "abandoned"
    assert int(world.clock.now()) == second
    del world.cloud.stockouts["small", ZONE]
    # A planner that was started again, and knows nothing of the first one's names.
    assert iterate(edges_of(world), APPLY) == "carried-out"
    assert len(asked) == 2
    assert asked[0] != asked[1]
