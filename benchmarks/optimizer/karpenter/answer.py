"""What Karpenter would launch, read from the program's JSON and held against what was asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from benchmarks.optimizer.karpenter.request import Request, amounts, room


class Launched(msgspec.Struct, frozen=True):
    """A node: the cheapest offering of the machine types that Karpenter left for its pods."""

    pool: str
    machine: str
    zone: str
    capacity_type: str
    price_nanousd_per_hour: int
    machines_left: int
    pods: tuple[str, ...]


class _Said(msgspec.Struct):
    ended: bool
    seconds: float
    nodes: tuple[Launched, ...] | None
    unplaced: dict[str, str]


@dataclass(frozen=True, slots=True)
class Schedule:
    """What came out: nodes, why pods have no place, and how many pods it never came to before the limit."""

    nodes: tuple[Launched, ...]
    unplaced: dict[str, str]
    never_tried: int
    ended: bool
    seconds: float
    price_nanousd_per_hour: int


def schedule_of(asked: Request, text: bytes) -> Schedule:
    """Read the program's answer.

    Raises:
        msgspec.ValidationError: it is not what the program writes.
    """
    said = msgspec.json.decode(text, type=_Said)
    nodes = said.nodes or ()
    placed = sum(len(node.pods) for node in nodes)
    return Schedule(
        nodes=nodes,
        unplaced=said.unplaced,
        never_tried=len(asked.pods) - placed - len(said.unplaced),
        ended=said.ended,
        seconds=said.seconds,
        price_nanousd_per_hour=asked.staying_nanousd_per_hour + sum(node.price_nanousd_per_hour for node in nodes),
    )


def faults(asked: Request, found: Schedule) -> Iterator[str]:
    """Say what is wrong with a schedule: pods in two places, nodes that are not sold so or hold more than they can."""
    sold = {
        (pool.name, kind.name, offer.zone, offer.capacity_type): (kind, offer)
        for pool in asked.pools
        for kind in pool.machines
        for offer in kind.offerings
    }
    needs = {pod["metadata"]["name"]: amounts(pod["spec"]) for pod in asked.pods}
    times = Counter(name for node in found.nodes for name in node.pods)
    times.update(found.unplaced.keys())
    yield from (f"pod {name} is there {count} times" for name, count in times.items() if count > 1)
    for number, node in enumerate(found.nodes):
        kind, offer = sold[node.pool, node.machine, node.zone, node.capacity_type]
        if offer.price_nanousd_per_hour != node.price_nanousd_per_hour:
            yield f"node {number} costs {offer.price_nanousd_per_hour}, not {node.price_nanousd_per_hour}"
        used: Counter[str] = Counter()
        for name in node.pods:
            used.update(needs[name])
        holds = room(kind)
        for resource, amount in used.items():
            if amount > holds.get(resource, 0):
                yield f"node {number}, a {node.machine}, has not {amount}m of {resource}"
