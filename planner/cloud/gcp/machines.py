"""Google's machine types: the built-in table of prices, and what GKE leaves of a machine for pods."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Literal

from planner.errors import BadInput
from planner.model.machines import MachineType
from planner.model.resources import Resources

MIB = 1024**2
GIB = 1024**3

GPU = "nvidia.com/gpu"

_TABLE_REGION = "us-central1"
_ARM_FAMILIES = ("t2a", "c4a", "n4a")

_G2_GPUS = {4: 1, 8: 1, 12: 1, 16: 1, 24: 2, 32: 1, 48: 4, 96: 8}
"""L4 GPUs of a g2-standard by its vCPUs. Source: Compute Engine, accelerator-optimized machine family."""

_SUSTAINED_MILLICORES = {"e2-micro": 250, "e2-small": 500, "e2-medium": 1000, "f1-micro": 200, "g1-small": 500}
"""What a shared-core machine may use all the time. Source: Compute Engine, shared-core machine types."""

Arch = Literal["amd64", "arm64"]


@dataclass(frozen=True, slots=True)
class NodeSystem:
    """What runs on a machine below the pods; the defaults are those of a new GKE node pool.

    `shared_core` marks e2-micro, e2-small and e2-medium. Ephemeral storage on local SSDs is not known here: with the
    boot disk's size less is planned with than there is.
    """

    image: Literal["cos", "ubuntu"] = "cos"
    arch: Arch = "amd64"
    max_pods: int = 110
    boot_disk_gib: int = 100
    shared_core: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """One row of the built-in table; prices in nanodollars per hour."""

    name: str
    family: str
    vcpus: int
    memory_gib: float
    shared_core: bool
    price_nanousd_per_hour: int
    spot_price_nanousd_per_hour: int | None

    @property
    def arch(self) -> Arch:
        return "arm64" if self.family in _ARM_FAMILIES else "amd64"

    @property
    def gpus(self) -> int:
        """GPUs that belong to the machine type and are in its price; what is attached to n1 is not."""
        if self.family == "g2":
            return _G2_GPUS[self.vcpus]
        named = re.fullmatch(r"a2-.*-(\d+)g", self.name)
        return int(named[1]) if named else 0

    @property
    def system(self) -> NodeSystem:
        """What runs on the machine in a pool with GKE's defaults."""
        return NodeSystem(arch=self.arch, shared_core=self.shared_core and self.family == "e2")

    def on(self, system: NodeSystem) -> MachineType:
        """Return the machine type as a node of this system.

        A shared-core machine is planned with what it may use all the time, also where its node reports more
        (e2-micro: 250m of 940m): a plan by the reported figure would give pods a quarter of what they request.
        """
        room = allocatable(self.vcpus, self.memory_gib, system)
        cpu = min(room.cpu_millicores, _SUSTAINED_MILLICORES.get(self.name, room.cpu_millicores))
        extended = ((GPU, self.gpus),) if self.gpus else ()
        return MachineType(
            name=self.name,
            allocatable=Resources(cpu, room.memory_bytes, room.pods, room.ephemeral_storage_bytes, extended),
            price_nanousd_per_hour=self.price_nanousd_per_hour,
            spot_price_nanousd_per_hour=self.spot_price_nanousd_per_hour,
            arch=self.arch,
        )


def allocatable(vcpus: int, memory_gib: float, system: NodeSystem | None = None) -> Resources:
    """Return what GKE leaves for pods of a machine of so many vCPUs and GiB.

    CPU: 6 % of the first core, 1 % of the second, 0.5 % of the third and fourth, 0.25 % of the others are reserved
    (4 vCPUs: 4000 - 60 - 10 - 2*5 = 3920), 1060m on shared-core e2, and 400m more above 110 pods.
    Memory: the kernel's part (`_kernel_bytes`), 25 % of the first 4 GiB, 20 % of the next 4, 10 % of the next 8,
    6 % of the next 112, 2 % of the rest (255 MiB in all below 1 GiB), and 100 MiB for eviction.
    Ephemeral storage: the operating system's part of the boot disk, min(50 %, 35 % + 6 GiB, 100 GiB) of the disk,
    and 10 % of what the file system holds for eviction.

    Sources: GKE, "Plan node sizes"; cluster-autoscaler, cloudprovider/gce/gce_reserved.go.
    """
    system = system or NodeSystem()
    memory = round(memory_gib * GIB)
    capacity = memory - _kernel_bytes(memory, system)
    return Resources(
        cpu_millicores=vcpus * 1000 - _reserved_millicores(vcpus, system),
        memory_bytes=max(0, capacity - _reserved_bytes(memory) - 100 * MIB),
        pods=system.max_pods,
        ephemeral_storage_bytes=_ephemeral_bytes(system),
    )


def builtin_machines(region: str) -> dict[str, MachineType]:
    """Return the machine types of the built-in table as nodes of a default pool, by name.

    Machine price only: boot disks, local SSDs and GPUs attached to n1 are not in it. The families a3 and newer are
    not in the table.

    Raises:
        BadInput: the prices of this region are not built in.
    """
    return {name: machine.on(machine.system) for name, machine in known_machines(region).items()}


@cache
def known_machines(region: str) -> dict[str, Machine]:
    """Return the rows of the built-in table by name.

    Raises:
        BadInput: the prices of this region are not built in.
    """
    if region != _TABLE_REGION:
        raise BadInput(
            f"region {region!r}: only the prices of {_TABLE_REGION} are built in; "
            "give a table with this region's prices (--machines, or the setting cloud.machines)"
        )
    return {machine.name: machine for machine in _rows()}


def _rows() -> Iterator[Machine]:
    text = resources.files("planner.cloud.gcp").joinpath("machine_types.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        spot = row["spot_usd_per_hour"]
        yield Machine(
            name=row["name"],
            family=row["family"],
            vcpus=int(row["vcpus"]),
            memory_gib=float(row["memory_gib"]),
            shared_core=row["shared_core"] == "true",
            price_nanousd_per_hour=_nanousd(row["on_demand_usd_per_hour"]),
            spot_price_nanousd_per_hour=_nanousd(spot) if spot else None,
        )


def _nanousd(usd: str) -> int:
    return int(Decimal(usd) * 10**9)


def _reserved_millicores(vcpus: int, system: NodeSystem) -> int:
    more = 400 if system.max_pods > 110 else 0
    if system.shared_core:
        return 1060 + more
    tens_of_microcores = 0
    for core in range(vcpus):
        tens_of_microcores += (6000, 1000, 500, 500)[core] if core < 4 else 250
    return math.ceil(tens_of_microcores / 100) + more


def _reserved_bytes(memory: int) -> int:
    if memory < GIB:
        return 255 * MIB
    left, reserved = memory, 0
    for size_gib, percent in ((4, 25), (4, 20), (8, 10), (112, 6)):
        part = min(left, size_gib * GIB)
        reserved += part * percent // 100
        left -= part
    return reserved + left * 2 // 100


def _kernel_bytes(memory: int, system: NodeSystem) -> int:
    """RAM/64 + 16 MiB + 64 MiB above 3 GiB + 8 MiB up to 8 GiB + min(0.175 %, 248 MiB); Ubuntu 4 MiB more."""
    reserved = memory // 64 + 16 * MIB + int(min(0.00175 * memory, 248 * MIB))
    reserved += 64 * MIB if memory > 3 * GIB else 0
    reserved += 8 * MIB if memory <= 8 * GIB else 0
    if system.image == "ubuntu":
        return reserved + 4 * MIB
    return round(reserved * 0.9971) if system.arch == "arm64" else reserved


def _ephemeral_bytes(system: NodeSystem) -> int:
    disk = system.boot_disk_gib * GIB
    if system.image == "ubuntu":
        partitions = math.ceil(0.03083 * disk) + math.ceil(0.171 * GIB)
    else:
        partitions = math.ceil(0.015635 * disk) + math.ceil(4.148 * GIB) + (64 * MIB if system.arch == "arm64" else 0)
    capacity = disk - partitions - min(100 * MIB, math.ceil(0.001 * disk))
    reserved = min(disk // 2, disk * 35 // 100 + 6 * GIB, 100 * GIB)
    return max(0, capacity - math.ceil(capacity / 10) - reserved)
