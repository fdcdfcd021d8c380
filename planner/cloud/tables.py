"""What can be bought, from the user's own files: machine types with prices (CSV) and node pools (YAML)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import yaml

from planner.errors import BadInput
from planner.model.cluster import ARCH, INSTANCE_TYPE, NODE_POOL, SPOT_MARKS, ZONE, CapacityType, Snapshot
from planner.model.decoding import explain
from planner.model.machines import Catalogue, MachineType, Offering, SpotRule, TotalLimits
from planner.model.resources import Resources
from planner.model.scheduling import LabelSelector, Requirement, Taint
from planner.quantities import MILLI, parse_quantity
from planner.selectors import parse_selector
from planner.settings import Settings

_REGION = "topology.kubernetes.io/region"
_OS = "kubernetes.io/os"
_ZONE_OF_REGION = re.compile(r"(?P<region>.*\d)-?[a-z]")
"""europe-west3-a and eu-central-1a: the region is what stands before the letter."""

_REQUIRED = ("machine_type", "cpu_millicores", "memory_bytes", "max_pods", "price_usd_per_hour")
_LARGEST_AMOUNT = 2**63 - 1
_LARGEST_PRICE_USD = 10**6
_LARGEST_POOL = 100_000
"""Nodes of a pool in one zone: more than any cluster has."""

_PARTS = ("pools", "limits", "spot")
"""The keys of a file of pools that is a mapping."""

_OWN_COLUMNS = frozenset({"cpu", "memory", "pods", "ephemeral-storage", *Resources().amounts()})


@dataclass(frozen=True, slots=True)
class Pool:
    """A node pool of the user's file; `minimum` and `maximum` bound its nodes in each zone."""

    name: str
    machine_type: str
    capacity_type: CapacityType = "on-demand"
    zones: tuple[str, ...] = ()
    minimum: int = 0
    maximum: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()


def read_machines(path: str) -> dict[str, MachineType]:
    """Read machine types by name; a type that is sold as spot only has an empty price_usd_per_hour.

    Raises:
        BadInput: the file cannot be read, a column is missing or a value is wrong; names file, line, column, value.
    """
    text = _text_of(path)
    found: dict[str, MachineType] = {}
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    try:
        columns = [name.strip() for name in reader.fieldnames or ()]
        for name in _REQUIRED:
            if name not in columns:
                raise BadInput(f"{path}: line 1: the column {name} is missing; needed are {', '.join(_REQUIRED)}")
        if len(set(columns)) < len(columns):
            raise BadInput(f"{path}: line 1: a column is there twice: {', '.join(columns)}")
        reader.fieldnames = columns
        for values in reader:
            row = _Row(path, reader.line_num, values)
            machine = row.machine()
            if machine.name in found:
                raise row.refusal("machine_type", "a type that no earlier line has")
            found[machine.name] = machine
    except csv.Error as error:
        raise BadInput(f"{path}: line {reader.line_num}: is no CSV: {error}") from None
    if not found:
        raise BadInput(f"{path}: holds no machine type; one line each is needed after the line of column names")
    return found


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: cannot be read: is no text in UTF-8 (byte {error.start})") from None


def read_pools(path: str, machines: Mapping[str, MachineType]) -> tuple[Pool, ...]:
    """Read the node pools: a list, or a mapping with the list under `pools`.

    Raises:
        BadInput: the file cannot be read, a field is missing, unknown or wrong; names file, pool, field, value.
    """
    document = _yaml_of(path)
    entries = document.get("pools") if isinstance(document, dict) else document
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"{path}: must be a list of node pools, or a mapping with such a list under pools")
    if isinstance(document, dict) and (unknown := [key for key in document if key not in _PARTS]):
        raise BadInput(f"{path}: {unknown[0]} is unknown; a mapping has {', '.join(_PARTS)}")
    found: dict[str, Pool] = {}
    for index, entry in enumerate(entries):
        pool = _pool(entry, f"{path}: {_called(entry, index)}", machines)
        if pool.name in found:
            raise BadInput(f"{path}: {_called(entry, index)}: name must be one that no earlier pool has")
        found[pool.name] = pool
    return tuple(found.values())


def with_rules(bought: Catalogue, settings: Settings, path: str | None = None) -> Catalogue:
    """Return the catalogue with the limit on the total and the rule for spot nodes.

    They are those of the settings; what `limits` and `spot` in the file of pools say wins, key by key.

    Raises:
        BadInput: the file cannot be read, or a value in it is wrong.
    """
    document = _yaml_of(path) if path is not None else None
    given = document if isinstance(document, dict) else {}
    limits = _part(given.get("limits"), f"{path}: limits", _LimitsEntry)
    spot = _part(given.get("spot"), f"{path}: spot", _SpotEntry)
    return replace(bought, total=_total(limits, settings, f"{path}: "), spot=_spot(spot, settings, f"{path}: "))


def _yaml_of(path: str) -> object:
    try:
        return yaml.safe_load(_text_of(path))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise BadInput(f"{path}: {at}is no YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: is no YAML: {' '.join(str(error).split())}") from None


def catalogue(machines: Mapping[str, MachineType], pools: Iterable[Pool] | None, snapshot: Snapshot) -> Catalogue:
    """Return what can be booted: the pools, or without pools every machine type in every zone without limit.

    A pool without zones is in the zones of its machine type, else in those of the cluster's nodes, else in the
    zone "". Spot machines can only come from pools: what a pool's label promises cannot be guessed.
    """
    regions = {node.zone: node.labels[_REGION] for node in snapshot.nodes if _REGION in node.labels}
    zones = tuple(sorted({node.zone for node in snapshot.nodes if node.zone})) or ("",)
    given = tuple(pools) if pools is not None else None
    offered = given if given is not None else tuple(Pool(name, name) for name in machines)
    offerings = []
    for pool in offered:
        machine = machines[pool.machine_type]
        price = machine.price(pool.capacity_type)
        if price is None:
            continue
        for zone in pool.zones or machine.zones or zones:
            labels = _labels(machine, pool, zone, regions)
            if given is not None:
                labels[NODE_POOL] = pool.name
            offerings.append(
                Offering(
                    pool=pool.name,
                    zone=zone,
                    machine_type=machine.name,
                    capacity_type=pool.capacity_type,
                    price_nanousd_per_hour=price,
                    allocatable=machine.allocatable,
                    labels=labels | dict(pool.labels),
                    taints=pool.taints,
                    minimum=pool.minimum,
                    maximum=pool.maximum,
                )
            )
    managed = None if given is None else frozenset(pool.name for pool in given)
    return Catalogue(machines, tuple(offerings), managed)


def _labels(machine: MachineType, pool: Pool, zone: str, regions: Mapping[str, str]) -> dict[str, str]:
    found = {INSTANCE_TYPE: machine.name, ARCH: machine.arch, _OS: "linux"}
    if zone:
        found[ZONE] = zone
        derived = _ZONE_OF_REGION.fullmatch(zone)
        if region := regions.get(zone) or (derived["region"] if derived else ""):
            found[_REGION] = region
    if pool.capacity_type == "spot":
        found[SPOT_MARKS[0]] = "true"
    return found


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the table of machine types."""

    path: str
    line: int
    values: Mapping[str | None, Any]

    def machine(self) -> MachineType:
        if None in self.values or None in self.values.values():
            raise BadInput(f"{self.path}: line {self.line}: has not as many values as there are columns")
        name = self._text("machine_type")
        if not name:
            raise self.refusal("machine_type", "a name such as e2-standard-4")
        price, spot = self._price("price_usd_per_hour"), self._price("spot_price_usd_per_hour")
        if price is None and spot is None:
            raise self.refusal(
                "price_usd_per_hour", "an amount such as 0.134 (drop the line if the machine is not sold)"
            )
        return MachineType(
            name=name,
            allocatable=Resources(
                cpu_millicores=self._whole("cpu_millicores", least=1),
                memory_bytes=self._whole("memory_bytes", least=1),
                pods=self._whole("max_pods", least=1),
                ephemeral_storage_bytes=self._whole("ephemeral_storage_bytes", least=0, default=0),
                extended=self._extended(),
            ),
            price_nanousd_per_hour=price,
            spot_price_nanousd_per_hour=spot,
            zones=tuple(dict.fromkeys(self._text("zones").split())),
            arch=self._text("arch") or "amd64",
        )

    def refusal(self, column: str, right: str) -> BadInput:
        """Return the error about one value: file, line, column, value, what would be right."""
        value = self._text(column)
        return BadInput(
            f"{self.path}: line {self.line}: {column} must be {right}, " + (f"not {value!r}" if value else "not empty")
        )

    def _text(self, column: str) -> str:
        return str(self.values.get(column) or "").strip()

    def _whole(self, column: str, least: int, default: int | None = None) -> int:
        text = self._text(column)
        if not text and default is not None:
            return default
        amount = _count(text)
        if amount is None or amount < least:
            raise self.refusal(column, f"a whole number of {least} or more, at most {_LARGEST_AMOUNT}")
        return amount

    def _price(self, column: str) -> int | None:
        """Return nanodollars; None where the cell is empty or the column is not there."""
        text = self._text(column)
        if not text:
            return None
        try:
            # Python would also read 1_000, and digits of other scripts.
            price = Decimal(text if text.isascii() and "_" not in text else "")
        except InvalidOperation:
            raise self.refusal(column, "an amount such as 0.134") from None
        if not price.is_finite() or not 0 <= price <= _LARGEST_PRICE_USD:
            raise self.refusal(column, f"an amount between 0 and {_LARGEST_PRICE_USD} USD")
        nanousd = price.scaleb(9)
        if nanousd != nanousd.to_integral_value():
            raise self.refusal(column, "an amount with at most 9 decimals")
        return int(nanousd)

    def _extended(self) -> tuple[tuple[str, int], ...]:
        found: dict[str, int] = {}
        for part in self._text("extended_resources").split():
            name, _, text = part.partition("=")
            count = _count(text)
            if not name or count is None:
                raise self.refusal("extended_resources", "pairs such as nvidia.com/gpu=1")
            if name in found or name in _OWN_COLUMNS:
                raise self.refusal("extended_resources", "resources that have no column of their own, each once")
            found[name] = count
        return tuple(sorted((name, count) for name, count in found.items() if count))


def _count(text: str) -> int | None:
    """Return the whole number of a text; None where it is none, or beyond 64 bits."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_LARGEST_AMOUNT))):
        return None
    return int(text) if int(text) <= _LARGEST_AMOUNT else None


class _TaintEntry(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    value: str = ""


class _PoolEntry(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    name: str
    machine_type: str
    zones: tuple[str, ...] = ()
    capacity_type: CapacityType = "on-demand"
    minimum: int = msgspec.field(default=0, name="min")
    maximum: int | None = msgspec.field(default=None, name="max")
    labels: dict[str, str] = {}
    taints: tuple[_TaintEntry, ...] = ()


class _LimitsEntry(msgspec.Struct, forbid_unknown_fields=True):
    nodes: int | None = None
    cpu: str | int | float | None = None
    memory: str | int | float | None = None


class _SpotEntry(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    workloads: str | None = None
    max_share: int | float | None = None


_Entry = TypeVar("_Entry", _LimitsEntry, _SpotEntry)


def _part(entry: object, origin: str, shape: type[_Entry]) -> _Entry:
    try:
        return msgspec.convert({} if entry is None else entry, shape)
    except msgspec.ValidationError as error:
        raise BadInput(f"{origin}: {explain(error, entry, shape)}") from None


def _total(entry: _LimitsEntry, settings: Settings, origin: str) -> TotalLimits:
    own = settings.limits
    nodes = own.nodes or None if entry.nodes is None else entry.nodes
    if nodes is not None and nodes < 1:
        raise BadInput(f"{origin}limits.nodes must be 1 or more, not {nodes}")
    cpu, memory = own.cpu_millicores, own.memory_bytes
    if entry.cpu is not None:
        cpu = _quantity(entry.cpu, MILLI, f"{origin}limits.cpu", "100 or 64000m")
    if entry.memory is not None:
        memory = _quantity(entry.memory, 1, f"{origin}limits.memory", "400Gi")
    return TotalLimits(nodes, cpu, memory)


def _quantity(value: str | int | float, scale: int, name: str, example: str) -> int:
    try:
        amount = parse_quantity(value, scale)
    except ValueError:
        amount = 0
    if amount < 1:
        raise BadInput(f"{name} must be a quantity above 0 such as {example}, not {value!r}")
    return amount


def _spot(entry: _SpotEntry, settings: Settings, origin: str) -> SpotRule:
    text = settings.spot.workloads if entry.workloads is None else entry.workloads
    try:
        expressions = parse_selector(text)
    except ValueError as error:
        raise BadInput(f"{origin}spot.workloads {error}") from None
    permille = settings.spot.max_share_permille
    if (share := entry.max_share) is not None:
        permille = round(share * 1000) if 0 <= share <= 1 else -1
        if permille < 0 or abs(share * 1000 - permille) > 1e-9:
            raise BadInput(f"{origin}spot.maxShare must be between 0 and 1, with at most three decimals, not {share}")
    selected = LabelSelector(tuple(Requirement(*expression) for expression in expressions)) if expressions else None
    return SpotRule(selected, permille)


def _pool(entry: object, origin: str, machines: Mapping[str, MachineType]) -> Pool:
    try:
        read = msgspec.convert(entry, _PoolEntry)
    except msgspec.ValidationError as error:
        raise BadInput(f"{origin}: {explain(error, entry, _PoolEntry)}") from None
    if not read.name:
        raise BadInput(f"{origin}: name must not be empty")
    if read.machine_type not in machines:
        some = ", ".join(sorted(machines)[:5]) + (", …" if len(machines) > 5 else "")
        raise BadInput(f"{origin}: machineType must be one of the machine types ({some}), not {read.machine_type!r}")
    if read.minimum < 0:
        raise BadInput(f"{origin}: min must be 0 or more, not {read.minimum}")
    for name, limit in (("min", read.minimum), ("max", read.maximum)):
        if limit is not None and limit > _LARGEST_POOL:
            raise BadInput(f"{origin}: {name} must be at most {_LARGEST_POOL}, not {limit}")
    if read.maximum is not None and read.maximum < read.minimum:
        raise BadInput(f"{origin}: max must be at least min ({read.minimum}), not {read.maximum}")
    return Pool(
        name=read.name,
        machine_type=read.machine_type,
        capacity_type=read.capacity_type,
        zones=tuple(dict.fromkeys(read.zones)),
        minimum=read.minimum,
        maximum=read.maximum,
        labels=read.labels,
        taints=tuple(Taint(t.key, t.value, t.effect) for t in read.taints),
    )


def _called(entry: object, index: int) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    return f"pool {name!r}" if isinstance(name, str) and name else f"pools[{index}]"
