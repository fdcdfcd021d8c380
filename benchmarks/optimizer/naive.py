"""The integer program that comes to mind first: one binary for each pod and node. Run as a process of its own.

    minimise    Σ_nt price_t y_nt
    subject to  Σ_n x_pn = 1                          every pod p is on one node
                Σ_p need_p x_pn ≤ Σ_t room_t y_nt     for each resource
                Σ_t y_nt ≤ 1                          a node n is of one machine type t, or is not there

with as many nodes as pods, which is the only number that is certainly enough. Machine types that another one beats
in everything are left out, which is a present to it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.optimizer.machines import Machine, undominated
from benchmarks.optimizer.shapes import Shape


@dataclass(frozen=True, slots=True)
class NaiveAnswer:
    """What the solver said in the end: its status, and the price of its best answer, if it has one."""

    status: str
    price_nanousd_per_hour: int | None
    seconds: float


def solve_naive(shapes: Sequence[Shape], machines: Sequence[Machine], limit_seconds: float) -> NaiveAnswer:
    """State the program with cvxpy and let HiGHS solve it until the limit."""
    import cvxpy

    began = time.perf_counter()
    useful = undominated(machines)
    needs = np.array([shape.amounts for shape in shapes for _ in range(shape.count)], dtype=float)
    room = np.array([machine.amounts for machine in useful], dtype=float)
    scale = room.max(axis=0)
    # Scaled like the amounts, or cheap machines drown in the solver's tolerances.
    prices = np.array([machine.price_nanousd_per_hour for machine in useful], dtype=float)
    prices /= prices.max()
    x = cvxpy.Variable((len(needs), len(needs)), boolean=True)
    y = cvxpy.Variable((len(needs), len(useful)), boolean=True)
    problem = cvxpy.Problem(
        cvxpy.Minimize(cvxpy.sum(y @ prices)),
        [cvxpy.sum(x, axis=1) == 1, x.T @ (needs / scale) <= y @ (room / scale), cvxpy.sum(y, axis=1) <= 1],
    )
    try:
        # One thread, as the planner has: HiGHS keeps the number with which it began in a process, and refuses others.
        problem.solve(solver="HIGHS", time_limit=limit_seconds, threads=1)
    except cvxpy.error.SolverError:
        return NaiveAnswer("no answer", None, time.perf_counter() - began)
    price = None
    # Ended early, a solver may show an incumbent that places nobody.
    if x.value is not None and y.value is not None and ((x.value > 0.5).sum(axis=1) == 1).all():
        kinds = (y.value > 0.5).sum(axis=0)
        price = sum(int(n) * m.price_nanousd_per_hour for n, m in zip(kinds, useful, strict=True))
    return NaiveAnswer(str(problem.status), price, time.perf_counter() - began)


def main() -> None:
    """Read shapes, machines and limit as JSON from standard input; print the answer as JSON."""
    request = json.load(sys.stdin)
    answer = solve_naive(
        [Shape(**shape) for shape in request["shapes"]],
        [Machine(**machine) for machine in request["machines"]],
        request["limit_seconds"],
    )
    print(json.dumps(asdict(answer)))


if __name__ == "__main__":
    main()
