"""Which pods of a workload go where, when a plan only counts them.

Pods of one workload are nearly always identical, and then there is nothing to find. Where they differ (a
roll-out half done, requests changed in place) a plan is right if any assignment of them fits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.model.resources import Resources
from planner.verifier.facts import GroupKey, Spot

_STEPS_LIMIT = 200_000


@dataclass(frozen=True, slots=True)
class Demand:
    """How many movable pods of each workload the plan wants on each node, and what the nodes can take."""

    content: Mapping[str, Mapping[str, int]]
    spots: Mapping[str, Spot]


@dataclass(frozen=True, slots=True)
class Supply:
    """The pods of one workload in one group: the running ones by node, and the pending ones."""

    workload: str
    group: int
    key: GroupKey
    here: Mapping[str, int]
    pending: int

    @property
    def count(self) -> int:
        return sum(self.here.values()) + self.pending


@dataclass(frozen=True, slots=True)
class Assignment:
    """The room that is left on each node and the pods that are left out; or why there is no assignment."""

    problems: tuple[str, ...]
    room: Mapping[str, Resources]
    left_over: tuple[tuple[Supply, int], ...]


def assign(demand: Demand, supplies: Sequence[Supply]) -> Assignment:
    """Give each demanded pod a group; workloads of one group first, then the mixed ones by search."""
    by_workload: dict[str, list[Supply]] = {}
    for supply in supplies:
        by_workload.setdefault(supply.workload, []).append(supply)
    loads = {name: Resources() for name in demand.spots}
    problems: list[str] = []
    left_over: list[tuple[Supply, int]] = []
    slots: list[tuple[str, str]] = []
    demanded: dict[str, int] = {}
    for name in sorted(demand.content):
        spot = demand.spots[name]
        for workload, count in sorted(demand.content[name].items()):
            demanded[workload] = demanded.get(workload, 0) + count
            kinds = by_workload.get(workload, [])
            if len(kinds) != 1:
                slots += [(name, workload)] * count
                continue
            loads[name] = loads[name] + kinds[0].key.requests * count
            if not kinds[0].key.constraints.admit(spot.labels, spot.name, spot.taints):
                problems.append(f"node {name} does not admit the pods of {workload}: selector, affinity or taints")
            if count > (most := _most(kinds[0], name, spot, count)):
                problems.append(
                    f"node {name} is a spot node, to which pods of {workload} may not come: {most} are there"
                )
    for name, load in loads.items():
        problems += _overfull(name, load, demand.spots[name])
    for workload, kinds in by_workload.items():
        if len(kinds) == 1:
            left_over.append((kinds[0], kinds[0].count - demanded.get(workload, 0)))
            if left_over[-1][1] < 0:
                problems.append(f"the plan places pods of {workload} whose constraints are not modelled")
        elif workload not in demanded:
            left_over += [(supply, supply.count) for supply in kinds]
    if problems or not slots:
        rest = {name: demand.spots[name].room - loads[name] for name in loads}
        return Assignment(tuple(problems), rest, tuple(left_over))
    return _search(demand, by_workload, loads, slots, left_over)


def _most(supply: Supply, name: str, spot: Spot, count: int) -> int:
    """Return how many of so many pods may be on the node: of those that may not come to spot nodes the ones there."""
    return min(count, supply.here.get(name, 0)) if supply.key.barred and spot.preemptible else count


def _may_join(supply: Supply, name: str, spot: Spot, settled: Mapping[tuple[str, str, int], int]) -> bool:
    """Say whether one more pod may be on the node beside those that were put there."""
    count = settled[name, supply.workload, supply.group] + 1
    return count <= _most(supply, name, spot, count)


def _overfull(name: str, load: Resources, spot: Spot) -> list[str]:
    if load == Resources() or load.fits_in(spot.room):
        return []
    asked = load.requested()
    over = [
        f"node {name} is overfull: {amount} of {room} {resource}"
        for (resource, amount), room in zip(asked.items(), spot.room.left(asked), strict=True)
        if amount > 0 and amount > room
    ]
    return over or [f"node {name} has pods that stand apart: {', '.join(share for share, _ in load.shares)}"]


def _search(
    demand: Demand,
    by_workload: Mapping[str, Sequence[Supply]],
    loads: Mapping[str, Resources],
    slots: Sequence[tuple[str, str]],
    left_over: Sequence[tuple[Supply, int]],
) -> Assignment:
    """Go through the slots (node, workload), pods that are there already first, and step back where nothing fits."""
    mixed = {workload for _, workload in slots}
    stock = {(s.workload, s.group): s.count for w in mixed for s in by_workload.get(w, ())}
    room = {name: demand.spots[name].room - load for name, load in loads.items()}
    options: list[list[Supply]] = []
    for name, workload in slots:
        spot = demand.spots[name]
        kinds = [
            s for s in by_workload.get(workload, ()) if s.key.constraints.admit(spot.labels, spot.name, spot.taints)
        ]
        options.append(sorted(kinds, key=lambda s: (-s.here.get(name, 0), s.group)))
    # Every running pod needs a slot; of those of its workload so many are left to be filled, this one included.
    unseated = {w: sum(s.count - s.pending for s in by_workload.get(w, ())) for w in mixed}
    open_slots = Counter(workload for _, workload in slots)

    def settles(supply: Supply) -> bool:
        """Say whether the next pod of the supply is a running one."""
        return stock[(supply.workload, supply.group)] > supply.pending

    # chosen[i] is the option that slot i has now; equal slots take options in order, so no order is tried twice.
    chosen: list[int] = []
    settled: Counter[tuple[str, str, int]] = Counter()
    start = 0
    steps = 0
    while len(chosen) < len(slots):
        steps += 1
        index = len(chosen)
        name, workload = slots[index]
        pick = next(
            (
                o
                for o in range(start, len(options[index]))
                if stock[(workload, options[index][o].group)] > 0
                and (settles(options[index][o]) or unseated[workload] < open_slots[workload])
                and options[index][o].key.requests.fits_in(room[name])
                and _may_join(options[index][o], name, demand.spots[name], settled)
            ),
            None,
        )
        if pick is not None:
            supply = options[index][pick]
            unseated[workload] -= settles(supply)
            open_slots[workload] -= 1
            stock[(workload, supply.group)] -= 1
            settled[name, workload, supply.group] += 1
            room[name] = room[name] - supply.key.requests
            chosen.append(pick)
            start = pick if len(chosen) < len(slots) and slots[len(chosen)] == slots[index] else 0
            continue
        if not chosen or steps > _STEPS_LIMIT:
            names = ", ".join(sorted(mixed))
            why = "no assignment of them to their nodes fits" if not chosen else "none was found that fits"
            return Assignment((f"the pods of {names} differ, and {why}",), room, ())
        back = chosen.pop()
        name, workload = slots[len(chosen)]
        supply = options[len(chosen)][back]
        stock[(workload, supply.group)] += 1
        unseated[workload] += settles(supply)
        open_slots[workload] += 1
        settled[name, workload, supply.group] -= 1
        room[name] = room[name] + supply.key.requests
        start = back + 1
    rest = [(s, stock[(s.workload, s.group)]) for w in mixed for s in by_workload.get(w, ())]
    return Assignment((), room, (*left_over, *rest))
