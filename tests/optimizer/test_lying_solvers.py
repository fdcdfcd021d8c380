"""A solver of cvxpy that lies about its status or its numbers: a right plan by other means, or a reason, never a wrong
plan.

The lies are told where cvxpy hands over what the solver said; everything else is the real thing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import cvxpy
import numpy as np
import pytest

from planner.errors import SolverError
from planner.model.effort import Effort, Watch
from planner.model.inputs import PlanningInputs
from planner.optimizer import optimize
from planner.verifier import verify
from tests.optimizer.plans import mixed_cluster
from tests.optimizer.test_limited_clusters import limited_cluster

Lie = Callable[[cvxpy.Problem], None]

PLAIN = mixed_cluster(1)
"""About twenty continuous programs, of which the first ones are about cut pods, and one integer program."""

LIMITED = limited_cluster(26)
"""Minimums and maximums of pools, limits on the total, the share of spot and changed nodes: rows of every kind."""


def _values(change: Callable[[Any], Any]) -> Lie:
    def lie(problem: cvxpy.Problem) -> None:
        for variable in problem.variables():
            variable.save_value(None if variable.value is None else change(variable.value))

    return lie


def _duals(change: Callable[[Any], Any]) -> Lie:
    def lie(problem: cvxpy.Problem) -> None:
        for row in problem.constraints:
            for dual in row.dual_variables:
                dual.save_value(None if dual.value is None else change(dual.value))

    return lie


def _status(status: str, *, values: bool) -> Lie:
    def lie(problem: cvxpy.Problem) -> None:
        problem._status = status  # cvxpy offers no other place where a status could be changed.
        if not values:
            _values(lambda _: None)(problem)
            _duals(lambda _: None)(problem)

    return lie


def _inaccurate(problem: cvxpy.Problem) -> None:
    # Some programs of a dive have no answer, and an inaccurate one is one.
    if problem.status == cvxpy.OPTIMAL:
        _status(cvxpy.OPTIMAL_INACCURATE, values=True)(problem)


def _noise(values: Any) -> Any:
    return (
        np.random.default_rng(7).uniform(-1.0, 1.0, np.shape(values)) * 1000.0 * (1 + np.abs(values).max(initial=0.0))
    )


def _raise(problem: cvxpy.Problem) -> None:
    raise cvxpy.SolverError("the licence has expired")


REFUSED: dict[str, tuple[Lie, str]] = {
    "nan": (_values(lambda x: x * np.nan), "answered with NaN"),
    "infinity": (_values(lambda x: x + np.inf), "answered with NaN or infinity"),
    "duals nan": (_duals(lambda y: y * np.nan), "answered with NaN"),
    "duals infinite": (_duals(lambda y: y + np.inf), "answered with NaN or infinity"),
    "optimal but nothing placed": (_values(lambda x: x * 0.0), "called an answer optimal that breaks the constraints"),
    "optimal but negative": (_values(lambda x: x - 1.0), "called an answer optimal that breaks the constraints"),
    "optimal but too many nodes": (
        _values(lambda x: x + 100.0),
        "called an answer optimal that breaks the constraints",
    ),
    "optimal but far too many nodes": (
        _values(lambda x: x + 1e300),
        "called an answer optimal that breaks the constraints",
    ),
    "optimal without values": (_status(cvxpy.OPTIMAL, values=False), "ended with the status 'optimal', and"),
    "unbounded": (_status(cvxpy.UNBOUNDED, values=False), "ended with the status 'unbounded', and"),
    "solver error": (_status(cvxpy.SOLVER_ERROR, values=False), "ended with the status 'solver_error', and"),
    "a word of its own": (_status("splendid", values=True), "ended with the status 'splendid', and"),
    "raises": (_raise, "the licence has expired"),
}
HARMLESS: dict[str, Lie] = {
    "infeasible though feasible": _status(cvxpy.INFEASIBLE, values=False),
    "time limit without values": _status(cvxpy.USER_LIMIT, values=False),
    "inaccurate": _inaccurate,
    "duals zero": _duals(lambda y: y * 0.0),
    "duals negative": _duals(lambda y: -y),
    "duals beyond all money": _duals(lambda y: y * 1e30 + 1e300),
    "duals large": _duals(lambda y: y * 1e9 + 1e9),
    "duals noise": _duals(_noise),
}


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Lie, Callable[[int, bool], bool]], list[bool]]]:
    """Let the solver lie whenever `when` says so of the number of the program and whether it is an integer one."""
    honest = cvxpy.Problem.solve

    def begin(lie: Lie, when: Callable[[int, bool], bool]) -> list[bool]:
        asked: list[bool] = []

        def solve(problem: cvxpy.Problem, **options: Any) -> Any:
            answer = honest(problem, **options)
            asked.append(problem.is_mixed_integer())
            if when(len(asked) - 1, asked[-1]):
                lie(problem)
            return answer

        monkeypatch.setattr(cvxpy.Problem, "solve", solve)
        return asked

    yield begin
    monkeypatch.undo()


def outcome(given: PlanningInputs) -> str:
    """Return the reason of a refusal, or "right" where the plan passes every check; fail where it does not."""
    try:
        plan = optimize(given, Effort("HIGHS", 20.0), Watch(time.monotonic, lambda _: None))
    except SolverError as error:
        return str(error)
    verdict = verify(plan, given, 60.0, time.monotonic)
    assert verdict.right, (verdict.problems, verdict.undecided)
    return "right"


@pytest.mark.parametrize("first", [0, 2, 12])
@pytest.mark.parametrize(("lie", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_an_answer_that_is_none_ends_the_solve_with_a_reason(lying: Any, lie: Lie, reason: str, first: int) -> None:
    lying(lie, lambda number, _: number >= first)
    assert reason in outcome(PLAIN)


@pytest.mark.parametrize("first", [0, 1, 2, 12])
@pytest.mark.parametrize("lie", HARMLESS.values(), ids=HARMLESS.keys())
@pytest.mark.parametrize("given", [PLAIN, LIMITED], ids=["plain", "limited"])
def test_a_lie_that_could_be_true_costs_quality_at_most(
    lying: Any, given: PlanningInputs, lie: Lie, first: int
) -> None:
    lying(lie, lambda number, _: number >= first)
    assert outcome(given) == "right"


INTEGER: dict[str, tuple[Lie, str]] = {
    "fractional": (_values(lambda x: x + 0.5), "called an answer optimal that breaks the constraints"),
    "too little": (_values(lambda x: x * 0.0), "called an answer optimal that breaks the constraints"),
    "nan": (_values(lambda x: x * np.nan), "answered with NaN"),
    "a huge number": (_values(lambda x: x * 0.0 + 1e300), "called an answer optimal that breaks the constraints"),
    "infeasible": (_status(cvxpy.INFEASIBLE, values=False), "right"),
    "at its limit, and fractional": (
        lambda problem: (_values(lambda x: x + 0.5)(problem), _status(cvxpy.USER_LIMIT, values=True)(problem))[1],
        "right",
    ),
}


@pytest.mark.parametrize(("lie", "reason"), INTEGER.values(), ids=INTEGER.keys())
def test_a_lie_about_the_integer_program_does_no_harm(lying: Any, lie: Lie, reason: str) -> None:
    asked = lying(lie, lambda _, integer: integer)
    assert reason in outcome(PLAIN)
    # It is asked early, after all dives where nothing was wrong, and for neighborhoods of the plan.
    assert sum(asked) >= 1
