"""Amounts of the things that a scheduler counts: CPU, memory, pods, ephemeral storage, extended resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_FIELDS = ("cpu_millicores", "memory_bytes", "pods", "ephemeral_storage_bytes")


@dataclass(frozen=True, slots=True)
class Resources:
    """A vector of whole amounts; `extended` holds (name, count) sorted by name, without zeros.

    The same type says what a pod requests (`pods` is 1) and what a node can allocate.
    """

    cpu_millicores: int = 0
    memory_bytes: int = 0
    pods: int = 0
    ephemeral_storage_bytes: int = 0
    extended: tuple[tuple[str, int], ...] = ()

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
        if not self.extended:
            return True
        has = dict(room.extended)
        return all(amount <= has.get(name, 0) for name, amount in self.extended)

    def _combine(self, other: Resources, sign: int) -> Resources:
        extended = self.extended
        if other.extended:
            total = dict(self.extended)
            for name, amount in other.extended:
                total[name] = total.get(name, 0) + sign * amount
            extended = tuple(sorted((name, amount) for name, amount in total.items() if amount))
        return Resources(
            self.cpu_millicores + sign * other.cpu_millicores,
            self.memory_bytes + sign * other.memory_bytes,
            self.pods + sign * other.pods,
            self.ephemeral_storage_bytes + sign * other.ephemeral_storage_bytes,
            extended,
        )
