"""Homes with a place: no pending pod is counted in a domain where there is no room for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from planner.model.plan import Unplaced
from planner.optimizer import heuristics
from planner.optimizer.assembly import obstacles
from planner.optimizer.census import Census, census_of
from planner.optimizer.movement import NOWHERE, GroupKey, Movement
from planner.optimizer.problem import Problem
from planner.optimizer.unplaceable import laid_out

_PATIENT_TURNS = 30
"""After so many turns a home that has too few places counts as one that has none, so that the end comes soon."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The problem with a home for every pending pod that needs one and has one; the others are left out.

    `unplaceable` names them by workload, `left_out` counts them by group.
    """

    census: Census
    problem: Problem
    unplaceable: Mapping[str, Unplaced]
    left_out: Mapping[GroupKey, int]


def settle(movement: Movement) -> Settled:
    """Give pending pods other homes until the present state, filled up, has a place for all of them.

    Of a party without a place half of those that follow are left out, until who leads it comes alone.

    The rules over domains count pods: one that is counted where it finds no place would leave others where they may
    not be. Each turn lowers how many pods some home is taken to have places for, so there is a last one.
    """
    most: dict[GroupKey, tuple[int, str]] = {}
    turn = 0
    while True:
        census = census_of(movement)
        problem, unplaceable, left_out = laid_out(census)
        lacking = dict(_without_a_place(problem, left_out))
        if not lacking:
            return Settled(census, problem, unplaceable, left_out)
        if apart := {key: places for key, places in lacking.items() if key.members}:
            for key, (places, why) in apart.items():
                waiting = set(movement.parties.of.values())
                parties = [party for party in sorted(waiting) if census.party_groups[party] == key]
                reason = f"required podAffinity by host name, and {why} beside such a pod"
                movement = movement.thinned(parties[places:], reason)
            continue
        turn += 1
        most |= {key: (places if turn <= _PATIENT_TURNS else 0, why) for key, (places, why) in lacking.items()}
        movement = movement.crowded(most)


def _without_a_place(problem: Problem, left_out: Mapping[GroupKey, int]) -> Iterator[tuple[GroupKey, tuple[int, str]]]:
    """Yield the groups of pods that lack places at home, how many there are, and why there are no more."""
    yield from ((key, (0, "")) for key in left_out if key.home not in ((), NOWHERE))
    yield from ((key, (0, "no node holds it")) for key in left_out if key.members)
    if not any(group.pending and (group.key.home or group.key.members) for group in problem.groups):
        return
    packing = heuristics.fill(problem, heuristics.present_state(problem), "best")
    for g, missing in enumerate(packing.unplaced(problem).tolist()):
        group = problem.groups[g]
        if (group.key.home or group.key.members) and (lacking := min(missing, group.pending)):
            limits = " and ".join(sorted(obstacles(problem, packing, g)))
            why = f"a node that would hold it is beyond {limits}" if limits else "no node has room for it"
            where = ", ".join(domain for _, domain in group.key.home)
            yield group.key, (group.pending - lacking, f"in {where} {why}" if where else why)
