"""Existing nodes of equal kind as one class, whatever they hold: many nodes become few knapsacks.

Of a pooled class any pod counts as if it were there already, so that no move on existing nodes is paid for: every plan
of the real problem is a plan of the pooled one that costs no more, and its bound holds. What is lost is at most the
price of one move for each pod that stays on or comes to an existing node. A packing of the pooled problem becomes one
of the real problem by giving every content the node on which most of it stands already.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from planner.optimizer.constraints import IntArray, Row
from planner.optimizer.packing import Packing
from planner.optimizer.problem import NodeClass, Problem


def pooled(problem: Problem) -> tuple[Problem, IntArray]:
    """Return the pooled problem, and for each class of the real one the class that it became, (classes,)."""
    rows = [row.coefficients for row in problem.rows if row.kind != "kept"]
    adds = np.array(rows, dtype=np.int64).reshape(len(rows), len(problem.classes)).T.copy()
    members: dict[tuple[object, ...], list[int]] = {}
    for k, c in enumerate(problem.classes):
        own = (k,) if c.role == "offering" else ()
        like = (
            *own, c.role, c.pool, c.zone, c.machine_type, c.capacity_type, c.cost, c.overlap,
            problem.room[k].tobytes(), problem.admissible[k].tobytes(), problem.displeasure[k].tobytes(),
            adds[k].tobytes(),
        )  # fmt: skip
        members.setdefault(like, []).append(k)
    became = np.zeros(len(problem.classes), dtype=np.int64)
    for index, ks in enumerate(members.values()):
        became[ks] = index
    firsts = np.array([ks[0] for ks in members.values()], dtype=np.int64)
    classes = [_merged([problem.classes[k] for k in ks]) for ks in members.values()]
    existing = np.array([c.role != "offering" for c in classes])
    present = np.where(existing[:, None], problem.counts[None, :], 0)
    return (
        replace(
            problem,
            classes=tuple(classes),
            room=problem.room[firsts],
            admissible=problem.admissible[firsts],
            present=present,
            displeasure=problem.displeasure[firsts],
            costs=problem.costs[firsts],
            limits=np.array([c.limit for c in classes], dtype=np.int64),
            rows=_merged_rows(problem.rows, became, firsts, len(classes)),
        ),
        became,
    )


def _merged(classes: list[NodeClass]) -> NodeClass:
    if len(classes) == 1:
        return classes[0]
    nodes = tuple(sorted(name for c in classes for name in c.nodes))
    return replace(classes[0], id=f"node/{nodes[0]}", nodes=nodes, limit=len(nodes))


def _merged_rows(rows: tuple[Row, ...], became: IntArray, firsts: IntArray, classes: int) -> tuple[Row, ...]:
    """Return the rows over pooled classes; the rows of kept nodes of one class become one."""
    found: list[Row] = []
    kept: dict[int, int] = {}
    for row in rows:
        if row.kind != "kept":
            found.append(replace(row, coefficients=row.coefficients[firsts]))
            continue
        (k,) = np.flatnonzero(row.coefficients)
        into = int(became[k])
        if into in kept:
            before = found[kept[into]]
            scopes = (*before.scopes, *row.scopes)
            found[kept[into]] = replace(before, scopes=scopes, rhs=before.rhs + row.rhs)
            continue
        kept[into] = len(found)
        unit = np.zeros(classes, dtype=np.int64)
        unit[into] = 1
        found.append(replace(row, coefficients=unit))
    return tuple(found)


def given_out(problem: Problem, became: IntArray, packing: Packing) -> Packing:
    """Return the packing of the pooled problem as one of the real problem: each content on the node most like it."""
    classes = packing.classes.copy()
    for into in np.unique(packing.classes):
        members = np.flatnonzero(became == into)
        which = np.flatnonzero(packing.classes == into)
        if problem.classes[members[0]].role == "offering":
            classes[which] = members[0]
            continue
        slots = np.repeat(members, problem.limits[members])
        there = np.array([np.minimum(packing.contents[i], problem.present[slots]).sum(axis=1) for i in which])
        chosen, taken = linear_sum_assignment(there, maximize=True)
        classes[which[chosen]] = slots[taken]
    return Packing(classes, packing.contents)
