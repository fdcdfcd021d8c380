"""What the resources of a node are worth in its fractional knapsack: the best multipliers of a surrogate constraint.

    max Σ price·x   over real x, 0 <= x <= count, Σ weights·x <= capacity

by the simplex method for bounded variables. The basis has one column for each resource, so that an iteration is a few
sums over the items. It runs in floating point: any multipliers >= 0 give a right bound once they are whole numbers, and
better ones a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_MOST_ITERATIONS = 1000
_GAIN = 1e-12
_PIVOT = 1e-11

Row = list[float]


def best_multipliers(prices: Sequence[int], shares: Sequence[Sequence[float]], counts: Sequence[int]) -> list[float]:
    """Return the dual price of each resource, for prices in units of the highest one.

    `shares` says for each item which part of each resource one of it takes, so that every capacity is 1. Where the
    iterations run out, the prices of the last basis are returned.
    """
    resources = range(len(shares[0]))
    top = max(prices)
    columns = [list(share) for share in shares] + [_unit(r, len(resources)) for r in resources]
    gains = [price / top for price in prices] + [0.0 for _ in resources]
    most = [float(count) for count in counts] + [math.inf for _ in resources]
    at_most = [False] * len(columns)
    basis = list(range(len(prices), len(columns)))
    inverse = [_unit(r, len(resources)) for r in resources]
    amounts = [1.0 for _ in resources]
    duals = [0.0 for _ in resources]
    for _ in range(_MOST_ITERATIONS):
        duals = [sum(gains[j] * inverse[k][r] for k, j in enumerate(basis)) for r in resources]
        entering = _best_entry(gains, columns, duals, at_most, basis)
        if entering is None:
            break
        column = [_product(row, columns[entering]) for row in inverse]
        sign = -1.0 if at_most[entering] else 1.0
        step, leaving, at_its_most = most[entering], None, False
        for k, part in enumerate(column):
            if sign * part > _PIVOT:
                reach, upper = amounts[k] / (sign * part), False
            elif sign * part < -_PIVOT:
                reach, upper = (most[basis[k]] - amounts[k]) / (-sign * part), True
            else:
                continue
            if reach < step:
                step, leaving, at_its_most = reach, k, upper
        amounts = [amount - sign * step * part for amount, part in zip(amounts, column, strict=True)]
        if leaving is None:
            at_most[entering] = not at_most[entering]
            continue
        at_most[basis[leaving]] = at_its_most
        amounts[leaving] = (most[entering] if at_most[entering] else 0.0) + sign * step
        at_most[entering] = False
        basis[leaving] = entering
        pivot = [value / column[leaving] for value in inverse[leaving]]
        inverse = [
            pivot if k == leaving else [a - column[k] * b for a, b in zip(row, pivot, strict=True)]
            for k, row in enumerate(inverse)
        ]
    return [max(0.0, dual) for dual in duals]


def _best_entry(
    gains: Row, columns: Sequence[Row], duals: Row, at_most: Sequence[bool], basis: Sequence[int]
) -> int | None:
    """Return the column outside the basis of which a change by one is worth most; None where no change is worth any."""
    best, entering = _GAIN, None
    for j, (worth, column) in enumerate(zip(gains, columns, strict=True)):
        gain = worth
        for dual, share in zip(duals, column, strict=True):
            gain -= dual * share
        if at_most[j]:
            gain = -gain
        if gain > best and j not in basis:
            best, entering = gain, j
    return entering


def _product(left: Row, right: Row) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def _unit(one: int, length: int) -> Row:
    return [1.0 if r == one else 0.0 for r in range(length)]
