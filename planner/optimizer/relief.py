"""Nodes above the cap on predicted CPU: which of them may stay so, and what every node of a plan will use.

A node that is above the cap gives pods away until it is not. Pods that fit no node under the cap stay, and so do those
for which no place is found at all; nothing comes to their node then. So the present state is a plan in the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from planner.model.cap import CpuCap
from planner.model.inputs import PlanningInputs, offering_room
from planner.model.machines import Offering
from planner.model.plan import PlannedNode
from planner.model.resources import PREDICTED_CPU
from planner.optimizer import heuristics
from planner.optimizer.census import census_of, missing_daemons
from planner.optimizer.movement import Movement, movement_of
from planner.optimizer.problem import BoolArray, Problem
from planner.optimizer.unplaceable import laid_out

_CHOOSY_TURNS = 4
"""So often only nodes that hold pods without a place are let be; each turn lays the whole problem out again."""


def with_allowances(inputs: PlanningInputs) -> tuple[PlanningInputs, PlanningInputs]:
    """Return the inputs twice, with what each node may use above the cap: the least, and what surely is enough.

    The least is what pods use that fit no node under the cap. It is enough where first fit or best fit then finds a
    place for every running pod; both are the same then. Where they find none, what nodes use now is enough.
    """
    if inputs.cap is None:
        return inputs, inputs
    least, problem = _allowing(inputs, {})
    if not _crowded(problem):
        return least, least
    hopeless: BoolArray = np.logical_not((problem.caps > 0).any(axis=0))
    if allowed := _present_use(problem, _limits(least), hopeless, hopeless):
        least, problem = _allowing(inputs, allowed)
    enough, turn = least, 0
    while (crowded := _crowded(problem)) and (stuck := _stuck(problem)).any():
        # What a crowded node uses now makes room for all that it holds: with each turn there are fewer of them.
        every: BoolArray = np.ones(stuck.size, dtype=np.bool_)
        for asked in (stuck, every)[turn >= _CHOOSY_TURNS :]:
            uses = _present_use(problem, _limits(enough), asked, every)
            if found := {name: used for name, used in uses.items() if name in crowded}:
                allowed = allowed | found
                break
        turn += 1
        enough, problem = _allowing(inputs, allowed)
    return least, enough


def _allowing(inputs: PlanningInputs, allowed: Mapping[str, int]) -> tuple[PlanningInputs, Problem]:
    assert inputs.cap is not None
    given = replace(inputs, cap=replace(inputs.cap, allowed_millicores=dict(allowed)))
    problem, _, _ = laid_out(census_of(movement_of(given)))
    return given, problem


def with_predicted_cpu(movement: Movement, nodes: Sequence[PlannedNode]) -> tuple[PlannedNode, ...]:
    """Return the nodes with what all their pods are predicted to use, now and under the plan, where a cap asks."""
    inputs = movement.inputs
    if inputs.cap is None:
        return tuple(nodes)
    usage = inputs.cap.usage_millicores
    pods_on = inputs.snapshot.pods_on()
    present = {node.name: node for node in inputs.snapshot.nodes}
    offers: dict[tuple[str, ...], Offering] = {
        (o.pool, o.zone, o.machine_type, o.capacity_type): o for o in inputs.catalogue.offerings
    }
    found = []
    for planned in nodes:
        content = sum(count * usage[workload] for workload, count in planned.pods.items())
        if planned.state == "boot":
            offer = offers[planned.pool, planned.zone, planned.machine_type, planned.capacity_type]
            room = offer.allocatable - offering_room(inputs, offer)
            found.append(_using(planned, 0, content + room.predicted_cpu_millicores))
            continue
        pods = pods_on[planned.name]
        daemons = missing_daemons(inputs, present[planned.name], pods).predicted_cpu_millicores
        daemons += sum(usage[pod.workload] for pod in pods if pod.stays_with_node)
        before = daemons + sum(usage[pod.workload] for pod in pods if pod.live and not pod.stays_with_node)
        found.append(_using(planned, before, 0 if planned.state == "remove" else daemons + content))
    return tuple(found)


def _using(node: PlannedNode, before: int, after: int) -> PlannedNode:
    return replace(node, predicted_cpu_before_millicores=before, predicted_cpu_millicores=after)


def above_cap(cap: CpuCap, nodes: Sequence[PlannedNode]) -> dict[str, int]:
    """Return what the nodes that stay above the cap will use, in millicores; frozen ones are no part of the plan."""
    return {
        node.name: node.predicted_cpu_millicores
        for node in nodes
        if node.state == "keep" and not node.frozen and node.predicted_cpu_millicores is not None
        if node.predicted_cpu_millicores > cap.room_millicores(node.allocatable.cpu_millicores)
    }


def _limits(inputs: PlanningInputs) -> dict[str, int]:
    """Return what the pods of each node may use, by name, in millicores."""
    assert inputs.cap is not None
    nodes = inputs.snapshot.nodes
    return {n.name: inputs.cap.limit_millicores(n.name, n.allocatable.cpu_millicores) for n in nodes}


def _crowded(problem: Problem) -> frozenset[str]:
    """Name the existing nodes that hold more than their room of predicted CPU."""
    if PREDICTED_CPU not in problem.resources:
        return frozenset()
    r = problem.resources.index(PREDICTED_CPU)
    used = problem.present @ problem.requests[:, r]
    above = np.flatnonzero((used > problem.room[:, r]) & (used > 0))
    return frozenset(name for k in above for name in problem.classes[k].nodes)


def _stuck(problem: Problem) -> BoolArray:
    """Say which groups have running pods that find no place, (groups); none where any known plan places them all."""
    least: BoolArray | None = None
    fits: tuple[heuristics.Fit, ...] = ("best", "first")
    for start in (heuristics.present_state(problem), heuristics.empty_cluster(problem)):
        for fit in fits:
            packing = heuristics.fill(problem, start, fit)
            if not packing.faults(problem):
                return np.zeros(len(problem.groups), dtype=np.bool_)
            missing: BoolArray = packing.unplaced(problem) > problem.pending
            if least is None:
                least = missing
    assert least is not None
    return least


def _present_use(problem: Problem, limits: Mapping[str, int], asked: BoolArray, staying: BoolArray) -> dict[str, int]:
    """Return what each node that holds pods of the groups `asked` uses now with those of the `staying` ones alone."""
    if PREDICTED_CPU not in problem.resources:
        return {}
    r = problem.resources.index(PREDICTED_CPU)
    # The limit less the room is what its DaemonSets and pinned pods use.
    return {
        name: limits[name] - int(problem.room[k, r]) + int(problem.present[k, staying] @ problem.requests[staying, r])
        for k in np.flatnonzero((problem.present[:, asked] > 0).any(axis=1))
        for name in problem.classes[k].nodes
    }
