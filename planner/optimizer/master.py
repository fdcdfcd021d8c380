"""The master program over contents of nodes, stated in cvxpy, and the check of every answer of a solver.

    min  sum_p cost_p z_p + sum_g penalty_g unplaced_g    subject to the rows of `constraints`,  z >= 0

Continuous it prices pods and rows (its duals); integer it picks among the known contents.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, Protocol

import cvxpy
import numpy as np
import scipy.sparse as sparse
from cvxpy.reductions.solvers.defines import INSTALLED_MI_SOLVERS

from planner.errors import BadSettings, SolverError
from planner.optimizer import constraints
from planner.optimizer.constraints import FloatArray, IntArray
from planner.optimizer.problem import BoolArray, Problem

_FEASIBILITY = 1e-5
# HiGHS works to 1e-7: with a typical node at 1,000 units that is 1e-10 of a node's price.
_TYPICAL_COST = 1000.0
_MOST_NODES = 2.0**31

HIGHEST_PRICE = 2.0**56
"""In nanodollars per hour: no true dual comes near it, and sums of a few such prices stay within 64 bits."""


@dataclass(frozen=True, slots=True)
class Program:
    """min costs.x subject to matrix x >= rhs, x >= 0, and x integer where `integer`."""

    costs: FloatArray
    matrix: Any
    rhs: FloatArray
    integer: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a solver said. `status` "limit" is an answer at the time limit; `duals` (rows) only of a continuous one."""

    status: Literal["optimal", "limit", "none"]
    values: FloatArray
    duals: FloatArray


@dataclass(frozen=True, slots=True)
class Limits:
    """When a solver stops: seconds, and (where it can count them) nodes of its search, which every run repeats."""

    seconds: float
    nodes: int | None = None


class Solver(Protocol):
    """Anything that solves a program within limits."""

    def solve(self, program: Program, limits: Limits) -> Answer:
        """Return the answer as the solver gives it, unchecked."""
        ...


class CvxpySolver:
    """A mixed-integer solver of cvxpy by name; one without duals leaves continuous programs to another.

    Raises:
        BadSettings: no such solver is installed; the text names those that are.
    """

    def __init__(self, name: str) -> None:
        if name not in INSTALLED_MI_SOLVERS:
            known = ", ".join(sorted(INSTALLED_MI_SOLVERS))
            raise BadSettings(
                f"optimizer.solver: {name!r} is no installed mixed-integer solver of cvxpy; these are: {known}"
            )
        self._integer = name
        installed = cvxpy.installed_solvers()
        gives_duals = {"GLPK_MI": "GLPK", "HIGHS": "HIGHS"}
        self._continuous = gives_duals.get(name) or next(s for s in ("HIGHS", "GLPK", "CLARABEL") if s in installed)

    def solve(self, program: Program, limits: Limits) -> Answer:
        """State the program in cvxpy, solve it, and return status, values and duals as they come."""
        if not program.costs.size:
            # Nothing to decide (every node is frozen and nothing is on offer), which cvxpy does not take for a program.
            return Answer("optimal", np.zeros(0), np.zeros(program.rhs.size))
        x = cvxpy.Variable(program.costs.size, nonneg=True, integer=program.integer)
        rows = [program.matrix @ x >= program.rhs]
        problem = cvxpy.Problem(cvxpy.Minimize(program.costs @ x), rows)
        name = self._integer if program.integer else self._continuous
        try:
            with warnings.catch_warnings():
                # cvxpy warns of answers at a limit; the status is read below, and every answer is checked.
                warnings.simplefilter("ignore")
                problem.solve(solver=name, **_options(name, limits))
        except cvxpy.SolverError as error:
            raise SolverError(f"{name} failed: {error}") from error
        empty = np.zeros(0)
        final = (cvxpy.OPTIMAL,) if program.integer else (cvxpy.OPTIMAL, cvxpy.OPTIMAL_INACCURATE)
        if problem.status in final and x.value is not None:
            duals = empty if program.integer else np.asarray(rows[0].dual_value, dtype=np.float64).ravel()
            return Answer("optimal", np.asarray(x.value, dtype=np.float64).ravel(), duals)
        if program.integer and problem.status in (cvxpy.OPTIMAL_INACCURATE, cvxpy.USER_LIMIT) and x.value is not None:
            return Answer("limit", np.asarray(x.value, dtype=np.float64).ravel(), empty)
        # Some of the contents alone, or what a dive has left of the limits, may admit no plan at all.
        nothing = problem.status in (cvxpy.INFEASIBLE, cvxpy.settings.INFEASIBLE_OR_UNBOUNDED)
        if problem.status == cvxpy.USER_LIMIT or nothing or (program.integer and name == "GLPK_MI"):
            return Answer("none", empty, empty)
        raise SolverError(f"{name} ended with the status {problem.status!r}, and this program always has an answer")


def _options(name: str, limits: Limits) -> dict[str, Any]:
    seconds = max(limits.seconds, 0.05)
    match name:
        case "HIGHS":
            options = {"time_limit": seconds, "threads": 1, "output_flag": False}
            return options if limits.nodes is None else options | {"mip_max_nodes": limits.nodes}
        case "GLPK":
            return {"glpk": {"tm_lim": int(seconds * 1000)}}
        case "GLPK_MI":
            return {"tm_lim": int(seconds * 1000)}
        case "SCIPY":
            return {"scipy_options": {"time_limit": seconds}}
        case "SCIP":
            return {"scip_params": {"limits/time": seconds}}
    return {}


class Columns:
    """The contents known so far: class, pods by group, and cost of each; none twice.

    They are told apart by a digest, which takes a three hundredth of the memory where there are six hundred groups.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._known: set[tuple[int, bytes]] = set()
        self.classes: IntArray = np.zeros(0, dtype=np.int64)
        self.contents: IntArray = np.zeros((0, len(problem.groups)), dtype=np.int64)
        self.costs: IntArray = np.zeros(0, dtype=np.int64)

    def add(self, classes: IntArray, contents: IntArray) -> int:
        """Add those that are new; return how many were."""
        fresh = []
        for i, (k, content) in enumerate(zip(classes.tolist(), contents, strict=True)):
            key = _key(k, content)
            if key not in self._known:
                self._known.add(key)
                fresh.append(i)
        if fresh:
            self.classes = np.append(self.classes, classes[fresh])
            self.contents = np.vstack([self.contents, contents[fresh]])
            self.costs = np.append(self.costs, self._problem.column_costs(classes[fresh], contents[fresh]))
        return len(fresh)

    def keep(self, some: IntArray) -> None:
        """Forget all but some."""
        self.classes, self.contents, self.costs = self.classes[some], self.contents[some], self.costs[some]
        self._known = {_key(k, content) for k, content in zip(self.classes.tolist(), self.contents, strict=True)}


def _key(k: int, content: IntArray) -> tuple[int, bytes]:
    return k, blake2b(content.tobytes(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Remainder:
    """What is still to be decided: pods left by group, nodes left by existing class, right-hand sides left."""

    counts: IntArray
    limits: IntArray
    rhs: IntArray

    @classmethod
    def of(cls, problem: Problem) -> Remainder:
        return cls(problem.counts, problem.limits, np.array([row.rhs for row in problem.rows], dtype=np.int64))

    def after(self, problem: Problem, classes: IntArray, contents: IntArray) -> Remainder:
        """Return what remains once these nodes have these contents."""
        counts = np.maximum(self.counts - contents.sum(axis=0), 0)
        limits = self.limits - np.bincount(classes, minlength=self.limits.size)
        met = [int(row.coefficients[classes].sum()) for row in problem.rows]
        return Remainder(counts, limits, self.rhs - np.array(met, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Relaxed:
    """The continuous optimum: value, `amounts` (columns), `swapped` (exchanges, where there are any), and the duals.

    Value and duals in nanodollars per hour.
    """

    value: float
    amounts: FloatArray
    unplaced: FloatArray
    pod_prices: FloatArray
    limit_prices: FloatArray
    row_prices: FloatArray
    swapped: FloatArray


class Master:
    """Solves the master over the known columns, continuous or integer, and checks what comes back."""

    def __init__(self, problem: Problem, columns: Columns, solver: Solver, left: Callable[[], float]) -> None:
        self._problem, self.columns, self._solver, self._left = problem, columns, solver, left
        offers = [c.cost for c in problem.classes if c.cost > 0]
        self._unit = (sum(offers) / len(offers) if offers else 1.0) / _TYPICAL_COST
        # A pod may stay without a place only where nothing else is possible: each costs more than any node.
        # Running pods cost another factor, so that pending ones yield first.
        dearest = max([1, *offers]) + int(problem.move_prices.max(initial=0)) + int(problem.displeasure.max(initial=0))
        self._penalty = np.where(problem.pending > 0, 4.0, 40.0) * dearest / self._unit
        self.swaps = exchanges(problem)
        # The smaller pod may have to move where the larger one would have stayed.
        stays: BoolArray = np.any(problem.present > 0, axis=0)
        moves = np.where(stays[self.swaps[:, 0]], problem.move_prices[self.swaps[:, 0]], 0)
        self._swap_costs = (moves + _more_displeased(problem, self.swaps)) / self._unit
        self._limited = np.flatnonzero([c.role != "offering" for c in problem.classes])
        # In an optimal dual no pod is worth more than what it costs to leave it out. Lower prices prove a bound as
        # well, so that whatever a solver says for a dual is cut to what the arithmetic of whole numbers can hold.
        limits = np.full(self._limited.size, HIGHEST_PRICE)
        self._highest = np.append(self._penalty, np.append(limits, highest_row_prices(problem)) / self._unit)

    def relax(self, remainder: Remainder, usable: IntArray, exchanging: bool = False) -> Relaxed | None:
        """Solve over the usable columns without integrality; None where the time is over.

        With `exchanging` a place for a pod may be had by a smaller one (`exchanges`), which keeps prices in order while
        few contents are known.

        Raises:
            SolverError: the solver failed, or its answer is not one.
        """
        program = self._program(remainder, usable, integer=False, exchanging=exchanging)
        answer = self._solver.solve(program, Limits(self._left()))
        if answer.status == "none":
            return None
        x, duals = answer.values, answer.duals
        if x.size != program.costs.size or duals.size != program.rhs.size:
            raise SolverError("the solver's answer has the wrong size")
        if not (np.isfinite(x).all() and np.isfinite(duals).all()):
            raise SolverError("the solver answered with NaN or infinity")
        groups, columns = len(self._problem.groups), usable.size
        tolerance = _FEASIBILITY * (1.0 + np.abs(program.rhs))
        if (x < -_FEASIBILITY).any() or (program.matrix @ x < program.rhs - tolerance).any():
            raise SolverError("the solver called an answer optimal that breaks the constraints")
        amounts = np.zeros(self.columns.classes.size)
        amounts[usable] = np.maximum(x[:columns], 0.0)
        duals = np.clip(duals, 0.0, self._highest) * self._unit
        limit_prices = np.zeros(len(self._problem.classes))
        limit_prices[self._limited] = duals[groups : groups + self._limited.size]
        return Relaxed(
            value=float(program.costs @ x) * self._unit,
            amounts=amounts,
            unplaced=np.maximum(x[columns : columns + groups], 0.0),
            pod_prices=duals[:groups],
            limit_prices=limit_prices,
            row_prices=duals[groups + self._limited.size :],
            swapped=np.maximum(x[columns + groups :], 0.0),
        )

    def pick(self, remainder: Remainder, usable: IntArray, seconds: float, nodes: int) -> IntArray | None:
        """Solve over the usable columns in integers; return how often each of all columns is taken, or None.

        Raises:
            SolverError: the solver failed, or called an answer optimal that breaks the constraints.
        """
        program = self._program(remainder, usable, integer=True)
        answer = self._solver.solve(program, Limits(min(seconds, self._left()), nodes))
        if answer.status == "none":
            return None
        if answer.values.size != program.costs.size or not np.isfinite(answer.values).all():
            raise SolverError("the solver answered with NaN, infinity or the wrong size")
        whole = np.clip(np.rint(answer.values), -_MOST_NODES, _MOST_NODES)
        met = program.matrix.astype(np.int64) @ whole.astype(np.int64) >= program.rhs.astype(np.int64)
        if (np.abs(whole - answer.values) > 1e-4).any() or (whole < 0).any() or not met.all():
            if answer.status == "optimal":
                raise SolverError("the solver called an answer optimal that breaks the constraints")
            return None
        amounts = np.zeros(self.columns.classes.size, dtype=np.int64)
        amounts[usable] = whole[: usable.size].astype(np.int64)
        return amounts

    def _program(self, remainder: Remainder, usable: IntArray, integer: bool, exchanging: bool = False) -> Program:
        problem, groups = self._problem, len(self._problem.groups)
        classes, contents = self.columns.classes[usable], self.columns.contents[usable]
        blocks = [
            constraints.every_pod_has_a_place(contents),
            constraints.no_more_nodes_than_exist(classes, self._limited),
            *(row.coefficients[classes][None, :] for row in problem.rows),
        ]
        # Sparse from the beginning: of 50,000 contents of 600 groups each block would take hundreds of megabytes.
        nodes = sparse.vstack([sparse.csr_matrix(block) for block in blocks])
        more = nodes.shape[0] - groups
        slack = sparse.vstack([sparse.identity(groups), sparse.csr_matrix((more, groups))])
        parts = [nodes, slack]
        if exchanging:
            before, after = self.swaps.T
            each = np.arange(self.swaps.shape[0])
            ones = np.ones(each.size)
            place = (np.append(-ones, ones), (np.append(before, after), np.append(each, each)))
            parts.append(sparse.csr_matrix(place, shape=(nodes.shape[0], each.size)))
        matrix = sparse.csr_matrix(sparse.hstack(parts))
        rhs = np.concatenate([remainder.counts, -remainder.limits[self._limited], remainder.rhs]).astype(np.float64)
        costs = np.concatenate([self.columns.costs[usable] / self._unit, self._penalty])
        if exchanging:
            costs = np.append(costs, self._swap_costs)
        return Program(costs, matrix, rhs, integer)


def highest_row_prices(problem: Problem) -> FloatArray:
    """Return beyond which price of each row sums over rows of price x coefficient might overflow, (rows)."""
    steepest = [max(1.0, float(np.abs(row.coefficients).max())) * len(problem.rows) for row in problem.rows]
    highest: FloatArray = HIGHEST_PRICE / np.array(steepest, dtype=np.float64)
    return highest


def _more_displeased(problem: Problem, swaps: IntArray) -> IntArray:
    """Return by how much more the second group of each pair may be displeased where the first one was, (pairs,)."""
    more = np.zeros(swaps.shape[0], dtype=np.int64)
    for k in np.flatnonzero(problem.displeasure.any(axis=1)):
        first, second = swaps.T
        costs = np.where(
            problem.admissible[k, first], problem.displeasure[k, second] - problem.displeasure[k, first], 0
        )
        more = np.maximum(more, costs)
    return more


def exchanges(problem: Problem) -> IntArray:
    """Return pairs of groups (pairs, 2): on every node that holds one of the first, one of the second could stand.

    price of the first >= price of the second in some best dual solution, so these columns do not change the
    continuous optimum. Pairs that follow from others are left out. Source: J. M. Valério de Carvalho, "Using extra
    dual cuts to accelerate column generation", INFORMS Journal on Computing 17 (2005).
    """
    groups = len(problem.groups)
    smaller = ~np.eye(groups, dtype=np.bool_)
    for asks in problem.requests.T:
        smaller &= asks[:, None] >= asks[None, :]
    admitted = problem.admissible.astype(np.float32)
    smaller &= admitted.T @ (1.0 - admitted) == 0
    smaller &= (problem.sides[None, :] & ~problem.sides[:, None]) == 0
    # Of two that could stand in for each other the first one is taken for the larger.
    smaller &= ~(smaller.T & (np.arange(groups)[:, None] > np.arange(groups)[None, :]))
    steps = smaller.astype(np.float32)
    pairs: IntArray = np.argwhere(smaller & (steps @ steps == 0)).astype(np.int64)
    return pairs
