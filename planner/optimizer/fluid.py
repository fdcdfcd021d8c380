"""The relaxation in which pods and nodes may be cut, as one linear program: prices and a plan to begin with.

    min  sum_k cost_k z_k + sum_kg move_price_g arriving_gk + penalty_g unplaced_g
         + sum_kg displeasure_gk (staying_gk + arriving_gk)
    sum_k (staying_gk + arriving_gk) + unplaced_g >= count_g             every pod has a place
    sum_g requests_gr (staying_gk + arriving_gk) <= room_kr z_k          capacity of the nodes of a kind together
    staying_gk <= present_gk z_k
    z_k <= limit_k for existing nodes, z_k >= limit_k for kept ones, and the other rows of `constraints`

A kind is an offering, or all existing nodes of one pool, zone, machine type and role, with their mean room, content and
cost. Other classes may have whole contents p instead, with z_p nodes each: cost_p z_p joins the objective, content_gp
z_p the places of every pod. Such a mixed relaxation proves more where small nodes waste what no pod fits into.

The duals price pods by what they request, where those of a master with few contents price them by chance: on
150,000 pods of 100 shapes they prove 1,243.0 $/h at once, the master's own 1,162 after a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse

from planner.optimizer.constraints import FloatArray, IntArray
from planner.optimizer.master import HIGHEST_PRICE, Columns, Limits, Program, Solver, highest_row_prices
from planner.optimizer.problem import Problem

_LARGEST = 60_000
_TYPICAL_COST = 1000.0
_UNPLACED = 40.0


@dataclass(frozen=True, slots=True)
class Fluid:
    """Prices of pods (groups), rows (rows) and limits (classes) in nanodollars per hour, and the cut plan.

    `kinds` names the classes of each kind, `nodes` (kinds) is how many of its nodes there are, `shares` (kinds, groups)
    the pods on them.
    """

    pods: FloatArray
    rows: FloatArray
    limits: FloatArray
    kinds: tuple[IntArray, ...]
    nodes: FloatArray
    shares: FloatArray


@dataclass(frozen=True, slots=True)
class _Kinds:
    """Means over the nodes of each kind: `room` (kinds, resources), `here`, `displeasure` and `open` (kinds, groups),
    the others (kinds); `members` names the classes of each, and `of` the first one.
    """

    members: tuple[IntArray, ...]
    of: IntArray
    cost: FloatArray
    limit: FloatArray
    room: FloatArray
    here: FloatArray
    displeasure: FloatArray
    open: Any

    @classmethod
    def among(cls, problem: Problem, classes: IntArray) -> _Kinds:
        members: dict[tuple[object, ...], list[int]] = {}
        for k in classes.tolist():
            c = problem.classes[k]
            like = (k,) if c.role == "offering" else (c.pool, c.zone, c.machine_type, c.capacity_type, c.role)
            members.setdefault(like, []).append(k)
        kinds = list(members.values())
        caps = problem.caps
        room, here = np.maximum(problem.room, 0), np.minimum(problem.present, caps)

        def mean(values: IntArray) -> FloatArray:
            return np.array([np.average(values[ks], axis=0, weights=problem.limits[ks]) for ks in kinds])

        some = [problem.limits[ks].sum() for ks in kinds]
        return cls(
            tuple(np.array(ks) for ks in kinds), np.array([ks[0] for ks in kinds]), mean(problem.costs),
            np.array(some, dtype=float), mean(room), mean(here), mean(problem.displeasure),
            np.array([(caps[ks] > 0).any(axis=0) for ks in kinds]),
        )  # fmt: skip


def fluid(
    problem: Problem,
    classes: IntArray,
    solver: Solver,
    seconds: float,
    filled: float = 1.0,
    whole: Columns | None = None,
) -> Fluid | None:
    """Return the prices and the plan of the relaxation over these classes, of which no other one dominates any.

    Only this share of the nodes' room is `filled`. Beside them stand any number of nodes with the contents of `whole`,
    all of offerings. None where the program is too large, or the time is over.
    """
    groups, classes = len(problem.groups), classes[problem.limits[classes] > 0]
    if not groups or not classes.size:
        return None
    kinds = _Kinds.among(problem, classes)
    kinds.room[:, : problem.whole] *= filled
    stays, arrives = np.argwhere(kinds.here > 0), np.argwhere(kinds.open)
    count = kinds.of.size
    if not arrives.size or stays.shape[0] + arrives.shape[0] > _LARGEST:
        return None
    k_of, g_of = np.vstack([stays, arrives]).T
    contents = Columns(problem) if whole is None else whole
    total = count + k_of.size + groups + contents.classes.size
    nodes, pods = np.arange(count), count + np.arange(k_of.size)

    def block(rows: IntArray, *terms: tuple[IntArray, IntArray, Any]) -> Any:
        parts = [(v, (r, c)) for r, c, v in terms]
        return sum(sparse.csr_matrix(part, shape=(rows.size, total)) for part in parts)

    unplaced = count + k_of.size + np.arange(groups)
    uncut = count + k_of.size + groups + np.arange(contents.classes.size)
    each = np.arange(groups)
    held, has = np.nonzero(contents.contents)
    blocks = [
        block(
            each,
            (g_of, pods, np.ones(pods.size)),
            (each, unplaced, np.ones(groups)),
            (has, uncut[held], contents.contents[held, has]),
        )
    ]
    for r in range(kinds.room.shape[1]):
        binds = np.flatnonzero(kinds.room[:, r] > 0)
        place = np.full(count, -1)
        place[binds] = np.arange(binds.size)
        asks = np.flatnonzero((place[k_of] >= 0) & (problem.requests[g_of, r] > 0))
        share = problem.requests[g_of[asks], r] / kinds.room[k_of[asks], r]
        blocks.append(block(binds, (place[binds], binds, np.ones(binds.size)), (place[k_of[asks]], pods[asks], -share)))
    some = np.arange(stays.shape[0])
    blocks.append(
        block(some, (some, stays[:, 0], kinds.here[tuple(stays.T)]), (some, pods[: some.size], -np.ones(some.size)))
    )
    free = sum(b.shape[0] for b in blocks) - groups
    role = np.array([problem.classes[k].role for k in kinds.of])
    existing, kept = np.flatnonzero(role != "offering"), np.flatnonzero(role == "kept")
    blocks.append(block(existing, (np.arange(existing.size), existing, -np.ones(existing.size))))
    blocks.append(block(kept, (np.arange(kept.size), kept, np.ones(kept.size))))
    pools = [i for i, row in enumerate(problem.rows) if row.kind != "kept"]
    for i in pools:
        coefficients = problem.rows[i].coefficients
        blocks.append(
            block(
                nodes[:1],
                (np.zeros(count, dtype=np.int64), nodes, coefficients[kinds.of]),
                (np.zeros(uncut.size, dtype=np.int64), uncut, coefficients[contents.classes]),
            )
        )
    unit = max(1.0, float(np.abs(kinds.cost).mean())) / _TYPICAL_COST
    dearest = (
        float(problem.costs.max(initial=1))
        + float(problem.move_prices.max(initial=0))
        + float(problem.displeasure.max(initial=0))
    )
    costs = np.concatenate(
        [
            kinds.cost,
            kinds.displeasure[tuple(stays.T)],
            problem.move_prices[arrives[:, 1]] + kinds.displeasure[tuple(arrives.T)],
            np.full(groups, _UNPLACED * dearest),
            contents.costs,
        ]
    )
    rhs = np.concatenate(
        [
            problem.counts,
            np.zeros(free),
            -kinds.limit[existing],
            kinds.limit[kept],
            np.array([problem.rows[i].rhs for i in pools], dtype=float),
        ]
    )
    answer = solver.solve(Program(costs / unit, sparse.vstack(blocks).tocsr(), rhs, integer=False), Limits(seconds))
    if answer.status == "none" or answer.duals.size != rhs.size or answer.values.size != costs.size:
        return None
    if not (np.isfinite(answer.duals).all() and np.isfinite(answer.values).all()):
        return None
    # What a solver says is cut to what it can be: a pod is worth no more than what it costs to leave it out.
    highest = np.full(rhs.size, HIGHEST_PRICE / unit)
    highest[:groups] = _UNPLACED * dearest / unit
    highest[rhs.size - len(pools) :] = highest_row_prices(problem)[pools] / unit
    duals = np.clip(answer.duals, 0.0, highest) * unit
    values = np.clip(answer.values, 0.0, float(problem.counts.sum() + problem.limits.sum()))
    rows = np.array([_whole_cost(problem, row.coefficients) if row.kind == "kept" else 0.0 for row in problem.rows])
    rows[pools] = duals[duals.size - len(pools) :]
    limits = np.zeros(len(problem.classes))
    at_most, at_least = np.split(duals[groups + free :][: existing.size + kept.size], [existing.size])
    for kind, price in zip(existing, at_most, strict=True):
        limits[kinds.members[kind]] = price
    for kind, price in zip(kept, at_least, strict=True):
        # What such a node is worth: its cost is in the price of its row.
        limits[kinds.members[kind]] += kinds.cost[kind] - price
    shares = np.zeros((count, groups))
    np.add.at(shares, (k_of, g_of), values[pods])
    return Fluid(duals[:groups], rows, limits, kinds.members, values[nodes], shares)


def _whole_cost(problem: Problem, kept: IntArray) -> float:
    """Return the price of the row of a kept node: it is paid for whatever it holds, so that nothing is lost by it."""
    return float(max(0, int(problem.costs[kept > 0].max(initial=0))))
