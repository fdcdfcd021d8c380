"""What can be bought in the benchmark: Google's machine types with GKE's allocatable amounts, as a table of our own.

The baselines know machines from here alone, so that they and the planner work on the same amounts and prices.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from planner.cloud.gcp.machines import builtin_machines

REGION = "us-central1"
"""Whose prices the built-in table has."""

Amounts = tuple[int, int, int]
"""CPU in millicores, memory in bytes, pods."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine type: what it has for pods, and its price in nanodollars per hour."""

    name: str
    cpu_millicores: int
    memory_bytes: int
    pods: int
    price_nanousd_per_hour: int
    arch: str = "amd64"

    @property
    def amounts(self) -> Amounts:
        return self.cpu_millicores, self.memory_bytes, self.pods


def table(*families: str) -> tuple[Machine, ...]:
    """Return the machine types of these families, or of all of them, that are sold on demand."""
    found = []
    for name, machine in builtin_machines(REGION).items():
        if families and name.partition("-")[0] not in families:
            continue
        if machine.price_nanousd_per_hour is not None:
            room = machine.allocatable
            amounts = (room.cpu_millicores, room.memory_bytes, room.pods)
            found.append(Machine(name, *amounts, machine.price_nanousd_per_hour, machine.arch))
    return tuple(found)


def undominated(machines: Iterable[Machine]) -> tuple[Machine, ...]:
    """Return the machines, cheapest first, without those that another one beats in every amount at no higher price."""
    kept: list[Machine] = []
    for machine in sorted(machines, key=lambda m: (m.price_nanousd_per_hour, *(-amount for amount in m.amounts))):
        if not any(all(a >= b for a, b in zip(k.amounts, machine.amounts, strict=True)) for k in kept):
            kept.append(machine)
    return tuple(kept)


def machines_csv(machines: Iterable[Machine]) -> str:
    """Write the machines as `kinema plan --machines` reads them."""
    lines = ["machine_type,cpu_millicores,memory_bytes,max_pods,price_usd_per_hour,arch"]
    for m in machines:
        price = Decimal(m.price_nanousd_per_hour).scaleb(-9)
        lines.append(f"{m.name},{m.cpu_millicores},{m.memory_bytes},{m.pods},{price:f},{m.arch}")
    return "\n".join(lines) + "\n"
