"""What the cloud sells: machine types with prices, and the node pools in which they can be booted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from planner.model.cluster import CapacityType, Node, Pod
from planner.model.resources import Resources
from planner.model.scheduling import LabelSelector, Taint

WHOLE_SHARE_PERMILLE = 1000


@dataclass(frozen=True, slots=True)
class MachineType:
    """A machine type with what its node can allocate; prices in nanodollars (1e-9 USD) per hour.

    `zones` is empty where the table does not restrict them; a price is None where it is not sold so.
    """

    name: str
    allocatable: Resources
    price_nanousd_per_hour: int | None
    spot_price_nanousd_per_hour: int | None = None
    zones: tuple[str, ...] = ()
    arch: str = "amd64"

    def price(self, capacity_type: CapacityType) -> int | None:
        """Return the price of this capacity type in nanodollars per hour, None where there is none."""
        return self.spot_price_nanousd_per_hour if capacity_type == "spot" else self.price_nanousd_per_hour


@dataclass(frozen=True, slots=True)
class Offering:
    """A kind of node that can be booted: a machine type in one pool, zone and capacity type.

    `minimum` and `maximum` bound the nodes of the pool in this zone, existing ones included; a maximum of
    None is no limit, and one below the present number restricts growth alone. `labels` and `taints` are those of a
    node fresh from the pool, the zone's included.
    """

    pool: str
    zone: str
    machine_type: str
    capacity_type: CapacityType
    price_nanousd_per_hour: int
    allocatable: Resources
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    minimum: int = 0
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class TotalLimits:
    """How much all managed nodes together may be, by what they can allocate; None is no limit.

    A limit restricts growth: what is there already may stay.
    """

    nodes: int | None = None
    cpu_millicores: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class SpotRule:
    """Which pods may come to spot nodes, and how much of the managed nodes' CPU may be spot.

    `workloads` selects pods by their labels; None is every pod that the scheduler lets there. A pod that is not
    selected may stay on the spot node where it is. `max_share_permille` of 1000 is no ceiling; it restricts growth.
    """

    workloads: LabelSelector | None = None
    max_share_permille: int = WHOLE_SHARE_PERMILLE

    def bars(self, pod: Pod) -> bool:
        """Say whether the pod may not come to a spot node."""
        return self.workloads is not None and not self.workloads.matches(pod.labels)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that can be bought, and what the nodes that exist cost.

    `managed_pools` names the pools that Kinema was given; None means every node whose machine type has a
    price (no pools were named). `total` and `spot` say how much of it, and for whom.
    """

    machines: Mapping[str, MachineType]
    offerings: tuple[Offering, ...]
    managed_pools: frozenset[str] | None = None
    total: TotalLimits = field(default_factory=TotalLimits)
    spot: SpotRule = field(default_factory=SpotRule)

    def price(self, node: Node) -> int | None:
        """Return what an existing node costs in nanodollars per hour, None where the table has no price."""
        machine = self.machines.get(node.machine_type)
        return None if machine is None else machine.price(node.capacity_type)

    def pool_of(self, node: Node) -> str:
        """Return the pool of an existing node: its label, or its machine type where no pools were named."""
        return node.pool if self.managed_pools is not None else node.machine_type

    def manages(self, node: Node) -> bool:
        """Say whether the node is of a pool that Kinema was given."""
        return self.managed_pools is None or node.pool in self.managed_pools

    def due(self, nodes: Iterable[Node]) -> tuple[Offering, ...]:
        """Return the offerings, with a minimum for those alone of whose pool and zone too few of these nodes are."""
        sizes = Counter((self.pool_of(node), node.zone) for node in nodes)
        return tuple(replace(o, minimum=0) if sizes[o.pool, o.zone] >= o.minimum else o for o in self.offerings)

    def limits(self) -> dict[tuple[str, str], tuple[int, int | None]]:
        """Return (minimum, maximum) of the nodes of each (pool, zone), where it restricts anything."""
        return {(o.pool, o.zone): (o.minimum, o.maximum) for o in self.offerings if o.minimum or o.maximum is not None}
