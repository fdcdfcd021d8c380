"""Pods that wait and have no room on any node now: new nodes for them, so that nobody has to leave first.

kube-scheduler binds a waiting pod to whatever node has room first. What makes room for one by moving others has it
taken by another, so that no order of stages may rely on it (`planner.rescheduler.rehearsal`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from planner.model.cluster import Pod, free_room, pod_key
from planner.model.disruption import foreign_taints
from planner.model.domains import Home
from planner.model.resources import Resources
from planner.optimizer import constraints
from planner.optimizer.census import missing_daemons
from planner.optimizer.movement import Movement
from planner.optimizer.packing import Packing
from planner.optimizer.problem import BoolArray, IntArray, Problem


def seated(movement: Movement) -> Movement:
    """Return the same in which each waiting pod comes to new nodes or to those with room for it now.

    Those for which nothing is left come to new nodes only: the largest take room first, each on the fullest node that
    holds it. Parties, and pods that join others, are left out.
    """
    hall = _Hall(movement)
    waiting = sorted(_waiting(movement), key=lambda p: (-p.requests.cpu_millicores, -p.requests.memory_bytes, p.name))
    return replace(movement, seats={pod_key(pod): hall.seats(pod) for pod in waiting})


def seated_together(problem: Problem, packing: Packing) -> Packing:
    """Return the packing with pods that come at once where they have room together, before anybody leaves.

    What a node has too many of goes to new nodes of the packing, or to those with room for it now; the fullest first.
    Who finds none stays.
    """
    at_once = np.array([group.key.at_once for group in problem.groups], dtype=np.bool_)
    if not at_once.any():
        return packing
    contents, asks, classes = packing.contents.copy(), problem.requests, packing.classes
    new = np.array([problem.classes[k].role == "offering" for k in classes], dtype=np.bool_)
    left = problem.room[classes] - contents @ asks
    now = problem.room[classes] - problem.present[classes] @ asks - contents[:, at_once] @ asks[at_once]
    now[new] = left[new]
    wanted = asks > 0
    moved = False
    for n, g in np.argwhere((contents > 0) & at_once & ~new[:, None]).tolist():
        while contents[n, g] and (now[n, wanted[g]] < 0).any():
            open_ = problem.admissible[classes, g] & (left >= asks[g])[:, wanted[g]].all(axis=1)
            open_ &= (now >= asks[g])[:, wanted[g]].all(axis=1)
            if problem.sides[g]:
                more = contents.copy()
                more[:, g] += 1
                open_ &= constraints.one_side_of_each(problem.sides, more)
            able = np.flatnonzero(open_)
            if not able.size:
                break
            to = able[np.lexsort((able, left[able, 0]))[0]]
            for node, count in ((n, -1), (to, 1)):
                contents[node, g] += count
                left[node] -= count * asks[g]
                now[node] -= count * asks[g]
            moved = True
    return Packing(classes, contents) if moved else packing


def _waiting(movement: Movement) -> Iterator[Pod]:
    names = {node.name for node in movement.inputs.snapshot.nodes}
    for pod in movement.inputs.snapshot.planned:
        free = not (pod.unmodelled or pod.beside or movement.party(pod))
        if pod.node not in names and free and pod_key(pod) not in movement.homes.refused:
            yield pod


class _Hall:
    """The nodes that may receive pods, and what room is left on each."""

    def __init__(self, movement: Movement) -> None:
        inputs, roles = movement.inputs, movement.assessment.roles
        pods_on, free = inputs.snapshot.pods_on(), free_room(inputs.snapshot.nodes, inputs.snapshot.pods)
        for pod in inputs.snapshot.planned:
            if pod.beside:
                free[pod.beside] = free[pod.beside] - pod.requests
        self._movement = movement
        self._nodes = sorted((n for n in inputs.snapshot.nodes if roles[n.name] != "frozen"), key=lambda n: n.name)
        self._rooms: list[Resources] = [
            free[node.name] - missing_daemons(inputs, node, pods_on[node.name]) for node in self._nodes
        ]
        self._left: IntArray = np.array([_amounts(room) for room in self._rooms], dtype=np.int64).reshape(-1, 3)
        self._open: dict[tuple[object, ...], BoolArray] = {}
        self._vain: set[tuple[object, ...]] = set()

    def seats(self, pod: Pod) -> bool:
        """Take the pod's room on the fullest node that holds it now, and say whether there is one."""
        home = self._movement.homes.homes.get(pod_key(pod), ())
        where = (pod.constraints, home, self._movement.inputs.catalogue.spot.bars(pod))
        if (pod.requests, where) in self._vain:
            return False
        if where not in self._open:
            self._open[where] = self._admitting(pod, home, barred=where[2])
        holding = np.flatnonzero((self._left >= _amounts(pod.requests)).all(axis=1) & self._open[where])
        for index in holding[np.argsort(self._left[holding, 0], kind="stable")].tolist():
            if pod.requests.fits_in(self._rooms[index]):
                self._rooms[index] = self._rooms[index] - pod.requests
                self._left[index] = _amounts(self._rooms[index])
                return True
        self._vain.add((pod.requests, where))
        return False

    def _admitting(self, pod: Pod, home: Home, *, barred: bool) -> BoolArray:
        return np.array(
            [
                not (barred and node.capacity_type == "spot")
                and all(node.labels.get(key) == domain for key, domain in home)
                and pod.constraints.admit(node.labels, node.name, foreign_taints(node))
                for node in self._nodes
            ],
            dtype=np.bool_,
        )


def _amounts(room: Resources) -> tuple[int, int, int]:
    return room.cpu_millicores, room.memory_bytes, room.pods
