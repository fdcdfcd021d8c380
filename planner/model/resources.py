"""Amounts of the things that a scheduler counts: CPU, memory, pods, ephemeral storage, extended resources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

_FIELDS = ("cpu_millicores", "memory_bytes", "pods", "ephemeral_storage_bytes")

BEARER, TARGET = " (bearer)", " (target)"
"""How the names of the two sides end that never share a node, while each side is welcome to itself."""

PREDICTED_CPU = "kinema.io/predicted-cpu-millicores"
"""The CPU that a pod is predicted to use: an amount like others while an objective caps it (`planner.model.cap`)."""

WHOLE_NODE = 720720
"""All shares of one node (see `Resources.shares`): divisible by every number to 16, so that n pods of a share of
WHOLE_NODE // n fit and n + 1 do not, for every n up to 848."""


@dataclass(frozen=True, slots=True)
class Resources:
    """A vector of whole amounts; `extended` holds (name, count) sorted by name, without zeros.

    The same type says what a pod requests (`pods` is 1) and what a node can allocate.

    `shares` are what pods that exclude each other take of a node: a host port, a required anti-affinity, a place
    under a maximum skew (`planner.model.coexistence`). Every node has WHOLE_NODE of each by nature, so that a node's
    own `shares` are empty, and what is left of it holds what was taken as negative numbers. Public formats are without.
    The share of a side (BEARER, TARGET) is no amount but a mark: it fits where nothing of the other side is.
    """

    cpu_millicores: int = 0
    memory_bytes: int = 0
    pods: int = 0
    ephemeral_storage_bytes: int = 0
    extended: tuple[tuple[str, int], ...] = ()
    shares: tuple[tuple[str, int], ...] = ()

    @classmethod
    def from_amounts(cls, amounts: Mapping[str, int]) -> Resources:
        """Build from amounts keyed by field name; every other key is an extended resource."""
        extended = tuple(sorted((k, v) for k, v in amounts.items() if k not in _FIELDS and v))
        cpu, memory, pods, storage = (amounts.get(field, 0) for field in _FIELDS)
        return cls(cpu, memory, pods, storage, extended)

    def amounts(self) -> dict[str, int]:
        """Return every amount by name, the four fields first (zeros too), then the extended resources."""
        named = {field: getattr(self, field) for field in _FIELDS}
        return named | dict(self.extended)

    def requested(self) -> dict[str, int]:
        """Return every amount by name, and every share."""
        return self.amounts() | dict(self.shares)

    def left(self, names: Iterable[str]) -> tuple[int, ...]:
        """Return how much of each resource or share of these names a node has left, with this as its room."""
        has, taken = self.amounts(), dict(self.shares)
        return tuple(WHOLE_NODE + taken.get(name, 0) if is_share(name) else has.get(name, 0) for name in names)

    @property
    def plain(self) -> Resources:
        """The same amounts without shares, as a public format has them."""
        return self.scheduled.with_shares(())

    @property
    def scheduled(self) -> Resources:
        """The same without the predicted CPU: what kube-scheduler counts."""
        if not self.extended or self.predicted_cpu_millicores == 0:
            return self
        return replace(self, extended=tuple(item for item in self.extended if item[0] != PREDICTED_CPU))

    @property
    def predicted_cpu_millicores(self) -> int:
        """What is predicted to be used, or may be; 0 while no objective caps it."""
        return next((amount for name, amount in self.extended if name == PREDICTED_CPU), 0)

    def with_predicted_cpu(self, millicores: int) -> Resources:
        """Return the same amounts with this predicted CPU instead of that which they have."""
        return replace(self.scheduled, extended=_combined(self.scheduled.extended, ((PREDICTED_CPU, millicores),), 1))

    @property
    def as_it_stands(self) -> Resources:
        """The same amounts without marks of sides: what pods that stand beside each other already take together."""
        return self.with_shares(tuple((name, amount) for name, amount in self.shares if other_side(name) is None))

    def with_shares(self, shares: tuple[tuple[str, int], ...]) -> Resources:
        """Return the same amounts with these shares of a node."""
        return self if shares == self.shares else replace(self, shares=shares)

    def __add__(self, other: Resources) -> Resources:
        return self._combine(other, 1)

    def __sub__(self, other: Resources) -> Resources:
        return self._combine(other, -1)

    def __mul__(self, count: int) -> Resources:
        return Resources(
            self.cpu_millicores * count,
            self.memory_bytes * count,
            self.pods * count,
            self.ephemeral_storage_bytes * count,
            tuple((name, amount * count) for name, amount in self.extended) if count else (),
            tuple((name, amount * count) for name, amount in self.shares) if count else (),
        )

    def fits_in(self, room: Resources) -> bool:
        """Say whether every requested amount is at most the room's; what is not requested may be overdrawn.

        As kube-scheduler's NodeResourcesFit: a node that is already over its allocatable memory still takes a
        pod that requests no memory. `pods` is always compared.
        """
        if self.pods > room.pods:
            return False
        if 0 < self.cpu_millicores > room.cpu_millicores or 0 < self.memory_bytes > room.memory_bytes:
            return False
        if 0 < self.ephemeral_storage_bytes > room.ephemeral_storage_bytes:
            return False
        if self.extended:
            has = dict(room.extended)
            if any(amount > has.get(name, 0) for name, amount in self.extended):
                return False
        return not self.shares or self._shares_fit(dict(room.shares))

    def many_in(self, room: Resources, most: int) -> int:
        """Return how many times, at most so many, these requests fit into the room together."""
        if most > 0 and (self * most).fits_in(room):
            return most
        return next((n for n in range(most) if not (self * (n + 1)).fits_in(room)), max(0, most))

    def _shares_fit(self, taken: Mapping[str, int]) -> bool:
        own = dict(self.shares)
        for name, amount in self.shares:
            other = other_side(name)
            if other is None:
                if amount > WHOLE_NODE + taken.get(name, 0):
                    return False
            elif other in own or taken.get(other, 0):
                return False
        return True

    def _combine(self, other: Resources, sign: int) -> Resources:
        return Resources(
            self.cpu_millicores + sign * other.cpu_millicores,
            self.memory_bytes + sign * other.memory_bytes,
            self.pods + sign * other.pods,
            self.ephemeral_storage_bytes + sign * other.ephemeral_storage_bytes,
            _combined(self.extended, other.extended, sign),
            _combined(self.shares, other.shares, sign),
        )


def _combined(
    own: tuple[tuple[str, int], ...], other: tuple[tuple[str, int], ...], sign: int
) -> tuple[tuple[str, int], ...]:
    if not other:
        return own
    total = dict(own)
    for name, amount in other:
        total[name] = total.get(name, 0) + sign * amount
    return tuple(sorted((name, amount) for name, amount in total.items() if amount))


def is_share(name: str) -> bool:
    """Tell the name of a share from that of a resource: it has a space, which no name of Kubernetes may have."""
    return " " in name


def other_side(name: str) -> str | None:
    """Return the share of the side that never shares a node with this one; None where the share is an amount."""
    if name.endswith(BEARER):
        return name.removesuffix(BEARER) + TARGET
    return name.removesuffix(TARGET) + BEARER if name.endswith(TARGET) else None
