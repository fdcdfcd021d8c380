"""Prices of pods by what they request: a lower bound that needs no content of any node.

    max  sum_g count_g pi_g - sum_k limit_k s_k       with  pi_g = sum_r lambda_sr request_gr, s the signature of g
    sum_r rho_Ar room_kr - s_k <= cost_k              with  A the pattern of class k (s_k = 0 for offerings)
    lambda_sr <= rho_Ar                               for every signature s that pattern A admits;  all >= 0

Groups of one signature are admitted by the same classes, classes of one pattern admit the same signatures. No content
of a node is then worth more than rho_A . room_k <= cost_k + s_k. Where a node holds many pods this is close to the best
prices there are: column generation starts from it, and so does the plan that is built node by node. Kept nodes are
paid for whatever they hold, so that their cost counts as 0 here (the dual of their row gives it back).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse

from planner.optimizer.constraints import IntArray
from planner.optimizer.master import Limits, Program, Solver
from planner.optimizer.pricing import FloatArray
from planner.optimizer.problem import Problem

_HIGHEST = 1000.0


@dataclass(frozen=True, slots=True)
class Volume:
    """Prices of pods (groups), rows (rows) and limits (classes) in nanodollars per hour, and what a unit of each
    resource is worth on a node of each class that was asked about (asked classes, whole resources).
    """

    pods: IntArray
    rows: IntArray
    limits: FloatArray
    multipliers: FloatArray


def volume_prices(problem: Problem, classes: IntArray, solver: Solver, seconds: float) -> Volume:
    """Return the prices; all of them 0 where the solver has no answer.

    `classes` are those that no other one dominates. Pods of groups that are pending as a whole are worth the price of
    their move on top, since they pay it wherever they go.
    """
    rows = np.zeros(len(problem.rows), dtype=np.int64)
    for index, row in enumerate(problem.rows):
        if row.kind == "kept":
            rows[index] = max(0, int(problem.costs[row.coefficients > 0].max(initial=0)))
    nothing = Volume(
        np.zeros(len(problem.groups), dtype=np.int64),
        rows,
        np.zeros(len(problem.classes)),
        np.zeros((classes.size, problem.whole)),
    )
    useful = np.flatnonzero((problem.counts @ problem.requests)[: problem.whole] > 0)
    if not useful.size or not classes.size:
        return nothing
    admits = problem.admissible[classes]
    signatures, signature_of = np.unique(admits, axis=1, return_inverse=True)
    patterns, pattern_of = np.unique(signatures, axis=0, return_inverse=True)
    signature_of, pattern_of = signature_of.ravel(), pattern_of.ravel()
    # In units of a large node, and money in those of a dear one, so that all numbers are near 1.
    unit = np.maximum(problem.room[classes][:, useful].max(axis=0), 1).astype(np.float64)
    money = max(1.0, float(np.abs(problem.costs[classes]).max()))
    room = np.maximum(problem.room[classes][:, useful], 0) / unit
    kept = np.array([problem.classes[k].role == "kept" for k in classes])
    costs = np.where(kept, 0.0, np.maximum(problem.costs[classes], 0) / money)
    limited = np.flatnonzero([problem.classes[k].role != "offering" for k in classes])
    own, many = useful.size, classes.size
    lambdas, rhos = signatures.shape[1] * own, patterns.shape[0] * own
    pairs = np.argwhere(patterns)
    above = (pairs[:, :1] * own + np.arange(own) + lambdas).ravel()
    below = (pairs[:, 1:] * own + np.arange(own)).ravel()
    links = np.arange(above.size)
    envelope = sparse.csr_matrix(
        (np.repeat([1.0, -1.0], above.size), (np.tile(links, 2), np.concatenate([above, below]))),
        shape=(above.size, lambdas + rhos + limited.size),
    )
    at = (lambdas + pattern_of[:, None] * own + np.arange(own)).ravel()
    priced = sparse.csr_matrix(
        (
            np.concatenate([-room.ravel(), np.ones(limited.size)]),
            (
                np.concatenate([np.repeat(np.arange(many), own), limited]),
                np.concatenate([at, lambdas + rhos + np.arange(limited.size)]),
            ),
        ),
        shape=(many, lambdas + rhos + limited.size),
    )
    gain = np.zeros((signatures.shape[1], own))
    np.add.at(gain, signature_of, problem.counts[:, None] * problem.requests[:, useful] / unit)
    # Nothing bounds the price of pods that no class admits.
    gain[~signatures.any(axis=0)] = 0.0
    scale = max(1.0, float(gain.max()))
    limits = problem.limits[classes][limited].astype(np.float64)
    objective = np.concatenate([-gain.ravel(), np.zeros(rhos), limits]) / scale
    # Where pods outnumber the room there is, no price is too high: that of a large node ends at so many dear ones.
    ceiling = sparse.hstack([-sparse.eye(lambdas), sparse.csr_matrix((lambdas, rhos + limited.size))])
    rhs = np.concatenate([np.zeros(above.size), -costs, np.full(lambdas, -_HIGHEST)])
    program = Program(objective, sparse.vstack([envelope, priced, ceiling]).tocsr(), rhs, integer=False)
    answer = solver.solve(program, Limits(seconds))
    if answer.status != "optimal" or answer.values.size != objective.size or not np.isfinite(answer.values).all():
        return nothing
    # No best answer is beyond these, whatever a solver says.
    highest = np.append(np.full(lambdas + rhos, _HIGHEST), np.full(limits.size, own * _HIGHEST))
    values = np.clip(answer.values, 0.0, highest)
    by_signature = values[:lambdas].reshape(-1, own) * money / unit
    by_pattern = values[lambdas : lambdas + rhos].reshape(-1, own) * money / unit
    pods = np.floor((problem.requests[:, useful] * by_signature[signature_of]).sum(axis=1)).astype(np.int64)
    waiting = problem.pending == problem.counts
    found = np.zeros(len(problem.classes))
    found[classes[limited]] = values[lambdas + rhos :] * money
    multipliers = np.zeros((many, problem.whole))
    multipliers[:, useful] = by_pattern[pattern_of]
    return Volume(pods + np.where(waiting, problem.move_price, 0), rows, found, multipliers)
