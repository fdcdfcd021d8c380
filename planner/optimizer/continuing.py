"""What an earlier plan is good for: its nodes as a first plan, its prices of pods as a first bound."""

from __future__ import annotations

import numpy as np

from planner.model.plan import Plan, PlannedNode
from planner.optimizer.constraints import IntArray
from planner.optimizer.heuristics import fitting_content
from planner.optimizer.packing import Packing
from planner.optimizer.problem import Problem


def packing_as(plan: Plan, problem: Problem) -> Packing:
    """Return the plan's nodes with as many of its pods as still exist and fit; others are without a place.

    A planned node that exists by now is that node; one that was still to be booted is booted of the same offering,
    where that is still on offer.
    """
    by_node = {name: k for k, c in enumerate(problem.classes) for name in c.nodes}
    by_offer: dict[tuple[str, ...], int] = {
        (c.pool, c.zone, c.machine_type, c.capacity_type): k
        for k, c in enumerate(problem.classes)
        if c.role == "offering"
    }
    groups_of: dict[str, list[int]] = {}
    for g, group in enumerate(problem.groups):
        for workload in group.workloads:
            groups_of.setdefault(workload, []).append(g)
    left = problem.counts.copy()
    chosen: list[int] = []
    contents: list[IntArray] = []
    for node in plan.nodes:
        k = by_node.get(node.name)
        if k is None and node.state == "boot":
            k = by_offer.get((node.pool, node.zone, node.machine_type, node.capacity_type))
        if k is None or node.state == "remove":
            continue
        content = fitting_content(problem, k, _wanted(node, problem, k, groups_of, left))
        left = left - content
        chosen.append(k)
        contents.append(content)
    return Packing(
        np.array(chosen, dtype=np.int64), np.array(contents, dtype=np.int64).reshape(len(contents), left.size)
    )


def _wanted(node: PlannedNode, problem: Problem, k: int, groups_of: dict[str, list[int]], left: IntArray) -> IntArray:
    """Return the pods of the planned node by group, no more than there are; those that stand there first."""
    wanted = np.zeros(left.size, dtype=np.int64)
    for workload, count in sorted(node.pods.items()):
        rest = count
        for g in sorted(groups_of.get(workload, ()), key=lambda g: (-int(problem.present[k, g]), g)):
            if problem.admissible[k, g]:
                taken = min(rest, int(left[g] - wanted[g]))
                wanted[g] += taken
                rest -= taken
    return wanted


def prices_as(plan: Plan, problem: Problem, otherwise: IntArray) -> IntArray:
    """Return the plan's prices for groups of the same workloads, the mean of several, (groups,); else `otherwise`.

    Whatever they are, they prove a bound: where pods have changed their requests it is only a weaker one.
    """
    known: dict[str, list[int]] = {}
    for proven in plan.certificate.groups:
        for workload in proven.workloads:
            known.setdefault(workload, []).append(proven.price_nanousd_per_hour)
    prices = otherwise.copy()
    for g, group in enumerate(problem.groups):
        found = [price for workload in group.workloads for price in known.get(workload, ())]
        if found:
            prices[g] = sum(found) // len(found)
    return prices
