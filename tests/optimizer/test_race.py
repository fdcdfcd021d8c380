"""How good a plan must be to end the search for a better one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planner.model.effort import Effort, Watch
from planner.optimizer.certificate import Bound
from planner.optimizer.heuristics import fill, present_state
from planner.optimizer.master import CvxpySolver
from planner.optimizer.movement import movement_of
from planner.optimizer.packing import Packing
from planner.optimizer.race import Race
from planner.optimizer.search import Search
from planner.optimizer.settling import settle
from tests.building import catalogue, deployment, inputs, node, offering, pods_of, snapshot
from tests.optimizer.plans import planned


@pytest.mark.parametrize(
    ("earlier_gap", "target_gap", "enough"),
    [
        # No worse than the earlier plan by more than a tenth, and that only below 2 %.
        (0.010, 0.0005, 0.0110),
        (0.019, 0.0005, 0.0200),
        (0.030, 0.0005, 0.0300),
        # What was asked for is always enough.
        (0.001, 0.0050, 0.0050),
        (None, 0.0050, 0.0050),
    ],
)
def test_a_plan_that_goes_on_from_another_is_done_when_it_is_proven_nearly_as_well(
    earlier_gap: float | None, target_gap: float, enough: float
) -> None:
    web = deployment("web", 4, cpu=900, memory_gib=1)
    offers = catalogue(offering("m4", 1.0, pool="pool-a"))
    given = inputs(snapshot([node("n1", "m4", pool="pool-a")], [web], pods_of(web, {"n1": 4})), offers)
    if earlier_gap is not None:
        # The node costs 1 $/h, and nothing moves.
        earlier = planned(given)
        bound = round(1_000_000_000 * (1.0 - earlier_gap))
        given = replace(
            given, start=replace(earlier, objective=replace(earlier.objective, lower_bound_nanousd_per_hour=bound))
        )
    settled = settle(movement_of(given))
    race = Race(settled, Effort("HIGHS", 10.0, target_gap), Watch(lambda: 0.0, lambda _: None), 0.0)
    race.enter(fill(settled.problem, present_state(settled.problem), "best"))
    assert race.found().value == 1_000_000_000

    def proof(gap: float) -> Bound:
        none = np.zeros(0, dtype=np.int64)
        return Bound(round(1_000_000_000 * (1.0 - gap)), none, none)

    assert race.settled_by(proof(enough - 1e-6))
    assert not race.settled_by(proof(enough + 1e-6))
    race.bound(proof(enough + 1e-6))
    assert not race.won()
    race.bound(proof(enough - 1e-6))
    assert race.won()


def test_a_candidate_of_which_improving_came_to_an_end_is_not_improved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    web = deployment("web", 4, cpu=900, memory_gib=1)
    offers = catalogue(offering("m4", 1.0, pool="pool-a"))
    given = inputs(snapshot([node("n1", "m4", pool="pool-a")], [web], pods_of(web, {"n1": 4})), offers)
    settled = settle(movement_of(given))
    seconds = [0.0]
    race = Race(settled, Effort("HIGHS", 10.0), Watch(lambda: seconds[0], lambda _: None), 0.0)
    race.enter(fill(settled.problem, present_state(settled.problem), "best"))
    solver = CvxpySolver("HIGHS")
    search = Search(settled.problem, solver, race.left)
    search.generate(lambda proof, relaxed: True)
    takes, calls = iter([5.0, 1.0, 1.0]), []

    def improved(*_: object) -> list[Packing]:
        calls.append(seconds[0])
        seconds[0] += next(takes)
        return []

    monkeypatch.setattr("planner.optimizer.race.improved", improved)
    # The first is ended by its half of the ten seconds, the second comes to an end, and the third is not begun.
    race.improve(search, solver, 0.5)
    race.improve(search, solver)
    race.improve(search, solver)
    assert calls == [0.0, 5.0]
