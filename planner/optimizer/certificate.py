"""The Lagrangian lower bound and the certificate that proves it.

    LB = constant - m sum_g pending_g + sum_g count_g pi_g + sum_rows rhs lambda - sum_k u_k max(0, V_k - c_k)

with V_k the best content of one node of class k at the pods' prices pi, less m for each pod that arrives and less what
pods cost there that would rather be elsewhere, plus the rows' lambda; m is the price of one move. It holds for any
integers pi, lambda >= 0 (relax the rows that tie nodes together, then every node is best on its own). Shrinking all
prices by theta <= 1 shrinks V at least as much, V(theta pi, theta lambda) <= theta V(pi, lambda), which turns the
prices of an unfinished column generation into a good bound. Source: A. A. Farley, Operations Research 38 (1990).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planner.model.plan import Certificate, CertificateClass, CertificateGroup, CertificateRow
from planner.optimizer.constraints import IntArray
from planner.optimizer.problem import Problem


@dataclass(frozen=True, slots=True)
class Bound:
    """Integer prices of pods (groups) and rows (rows), and the lower bound that they prove."""

    value: int
    pod_prices: IntArray
    row_prices: IntArray


def bound(problem: Problem, pod_prices: IntArray, row_prices: IntArray, upper: IntArray) -> Bound:
    """Return the bound of these prices, shrunk where that helps; `upper` (classes) >= the best content without rows.

    A dual of a row with large coefficients was rounded down by much: a nanodollar for each MiB of a node. Where such a
    row limits what may be there, one more for each unit makes it right again, at the price of the right-hand side.
    """
    proofs = _plain_and_shrunk(problem, pod_prices, row_prices, upper)
    coarse = [
        bool((row.coefficients < -1).any()) and price > 0 for row, price in zip(problem.rows, row_prices, strict=True)
    ]
    if any(coarse):
        proofs += _plain_and_shrunk(problem, pod_prices, row_prices + np.array(coarse, dtype=np.int64), upper)
    return max(proofs, key=lambda b: b.value)


def _plain_and_shrunk(problem: Problem, pod_prices: IntArray, row_prices: IntArray, upper: IntArray) -> list[Bound]:
    worth = upper + _row_parts(problem, row_prices)
    shrink = Fraction(1)
    for k, c in enumerate(problem.classes):
        if c.role == "offering" and worth[k] > c.cost > 2:
            # Two nanodollars below the cost leave room for the rounding of the prices.
            shrink = min(shrink, Fraction(c.cost - 2, int(worth[k])))
    plain = Bound(_value(problem, pod_prices, row_prices, upper), pod_prices, row_prices)
    if shrink == 1:
        return [plain]
    pods = np.array([int(p) * shrink.numerator // shrink.denominator for p in pod_prices], dtype=np.int64)
    rows = np.array([int(p) * shrink.numerator // shrink.denominator for p in row_prices], dtype=np.int64)
    shrunk = np.array([-(-int(v) * shrink.numerator // shrink.denominator) for v in upper], dtype=np.int64)
    return [plain, Bound(_value(problem, pods, rows, shrunk), pods, rows)]


def _row_parts(problem: Problem, row_prices: IntArray) -> IntArray:
    parts = np.zeros(len(problem.classes), dtype=np.int64)
    for row, price in zip(problem.rows, row_prices, strict=True):
        parts += row.coefficients * price
    return parts


def _value(problem: Problem, pod_prices: IntArray, row_prices: IntArray, upper: IntArray) -> int:
    """Return the formula's value in Python's unbounded integers."""
    parts = _row_parts(problem, row_prices)
    total = problem.constant - problem.placement_cost
    total += sum(int(n) * int(p) for n, p in zip(problem.counts, pod_prices, strict=True))
    total += sum(row.rhs * int(p) for row, p in zip(problem.rows, row_prices, strict=True))
    return total - sum(c.limit * max(0, int(upper[k]) + int(parts[k]) - c.cost) for k, c in enumerate(problem.classes))


def certificate(problem: Problem, proof: Bound) -> Certificate:
    """Write the proof down: every class on its own, one for each existing node."""
    classes = []
    for c in problem.classes:
        if c.role == "offering":
            classes.append(
                CertificateClass(c.id, c.pool, c.zone, c.machine_type, c.capacity_type, None, c.limit, c.cost)
            )
        classes += [
            CertificateClass(f"node/{name}", c.pool, c.zone, c.machine_type, c.capacity_type, name, 1, c.cost)
            for name in c.nodes
        ]
    rows = []
    for row, price in zip(problem.rows, proof.row_prices, strict=True):
        # A row over several interchangeable kept nodes is one row for each of them.
        rhs = row.rhs // len(row.scopes)
        rows += [CertificateRow(row.kind, scope, rhs, int(price)) for scope in row.scopes]
    return Certificate(
        groups=tuple(
            CertificateGroup(g.id, g.workloads, g.count, g.requests.with_shares(()), int(p))
            for g, p in zip(problem.groups, proof.pod_prices, strict=True)
        ),
        classes=tuple(classes),
        rows=tuple(rows),
        dropped=problem.dropped,
    )
