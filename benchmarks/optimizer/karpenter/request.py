"""What Karpenter is asked: pods, DaemonSets, and node pools with what is sold for them, as main.go reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from benchmarks.optimizer.cluster import POOLS, ZONES
from benchmarks.optimizer.dumps import Object
from benchmarks.optimizer.instances import Problem
from benchmarks.optimizer.machines import Machine
from planner.quantities import MILLI, parse_quantity

ANYWHERE = "anywhere"
"""The zone of what is sold without any: Karpenter's offerings need one."""

LARGEST_CORES = (4, 8, 16, 32)
"""Up to which size people let NodePools go, so that losing one node is no disaster."""


@dataclass(frozen=True, slots=True)
class Offer:
    """How a machine type is sold."""

    zone: str
    capacity_type: str
    price_nanousd_per_hour: int


@dataclass(frozen=True, slots=True)
class Kind:
    """A machine type with the quantities that its node can allocate."""

    name: str
    arch: str
    allocatable: Mapping[str, str]
    offerings: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class KarpenterPool:
    """A NodePool without limits. Of several that admit a pod Karpenter takes the first."""

    name: str
    machines: tuple[Kind, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that Karpenter is asked, and the price of the nodes that stay without it."""

    pools: tuple[KarpenterPool, ...]
    pods: tuple[Object, ...]
    daemons: tuple[Object, ...] = ()
    staying_nanousd_per_hour: int = 0

    def body(self, limit_seconds: float) -> Object:
        """Return the JSON that the program reads."""
        return {
            "limit_seconds": limit_seconds,
            "pools": [asdict(pool) for pool in self.pools],
            "pods": self.pods,
            "daemons": self.daemons,
        }


def request_of(problem: Problem) -> Request:
    """Return a problem as Karpenter sees it.

    A running cluster is asked for from nothing: all pods on nodes of managed pools are pending and those nodes are
    gone, so that Karpenter may place anew what Kinema has to move. Nodes that Kinema does not manage stay with their
    pods and cost what they cost.
    """
    objects = list(problem.objects())
    if problem.cluster is None:
        kinds = tuple(kind_of(machine, (ANYWHERE,)) for machine in problem.machines)
        return Request((KarpenterPool("all", kinds),), pending(objects))
    managed = {pool.name for pool in POOLS if pool.managed}
    staying = {node.name: node.machine_type for node in problem.cluster.nodes if node.pool not in managed}
    prices = {machine.name: machine.price_nanousd_per_hour for machine in problem.machines}
    return Request(
        _pools(problem.machines),
        pending(objects, staying),
        daemons(objects),
        sum(prices[machine] for machine in staying.values()),
    )


def narrowed(asked: Request) -> Iterator[tuple[str, Request]]:
    """Yield what a person might allow the NodePools instead of everything, the most likely first.

    One family, machines up to a size, a NodePool for each family with the cheapest cores first, one family up to a
    size; all of that once more with a NodePool for spot before one for on-demand, where there is spot; none in which a
    pod is larger than every machine. Left alone Karpenter fills the largest machines that are
    sold, at any price, so this matters more to it than to the others.
    """
    needs = {tuple(sorted(amounts(pod["spec"]).items())) for pod in asked.pods}
    mixed = {offer.capacity_type for pool in asked.pools for kind in pool.machines for offer in kind.offerings}
    found = [*_narrowed(asked)]
    if len(mixed) > 1:
        found += [(f"{name}, spot apart", _apart(request)) for name, request in (("everything", asked), *found)]
    for name, request in found:
        rooms = [room(kind) for pool in request.pools for kind in pool.machines]
        if all(any(all(a <= holds.get(resource, 0) for resource, a in need) for holds in rooms) for need in needs):
            yield name, request


def _narrowed(asked: Request) -> Iterator[tuple[str, Request]]:
    kinds = [kind for pool in asked.pools for kind in pool.machines]
    families = sorted({_family(kind) for kind in kinds}, key=lambda name: _price_of_core(kinds, name))
    for family in families:
        yield f"{family} alone", _with(asked, kinds, (family,), None)
    for cores in LARGEST_CORES:
        yield f"up to {cores} cores", _with(asked, kinds, families, cores)
    parts = [pool for family in families for pool in _with(asked, kinds, (family,), None).pools]
    ranked = tuple(replace(pool, name=f"{pool.name}-{rank}") for rank, pool in enumerate(parts))
    yield "a pool for each family", replace(asked, pools=ranked)
    for family in families:
        for cores in LARGEST_CORES:
            yield f"{family} up to {cores} cores", _with(asked, kinds, (family,), cores)


def _with(asked: Request, kinds: Sequence[Kind], families: Sequence[str], cores: int | None) -> Request:
    allowed = {kind.name for kind in kinds if _family(kind) in families and _is_within(kind, cores)}
    pools = [replace(pool, machines=tuple(m for m in pool.machines if m.name in allowed)) for pool in asked.pools]
    return replace(asked, pools=tuple(pool for pool in pools if pool.machines))


def _apart(asked: Request) -> Request:
    """Return the NodePools with one for spot before each for on-demand: a node for both kinds of pods is never spot."""
    pools = []
    for pool in asked.pools:
        for how in ("spot", "on-demand"):
            kinds = [
                replace(m, offerings=tuple(o for o in m.offerings if o.capacity_type == how)) for m in pool.machines
            ]
            pools.append(replace(pool, name=f"{pool.name}-{how}", machines=tuple(m for m in kinds if m.offerings)))
    return replace(asked, pools=tuple(pool for pool in pools if pool.machines))


def _is_within(kind: Kind, cores: int | None) -> bool:
    return cores is None or _millicores(kind) <= 1000 * cores


def _price_of_core(kinds: Sequence[Kind], family: str) -> float:
    """Return the least price of a millicore in nanodollars per hour."""
    return min(
        offer.price_nanousd_per_hour / _millicores(kind)
        for kind in kinds
        if _family(kind) == family
        for offer in kind.offerings
    )


def _family(kind: Kind) -> str:
    return kind.name.partition("-")[0]


def _millicores(kind: Kind) -> int:
    return int(kind.allocatable["cpu"].removesuffix("m"))


def kind_of(machine: Machine, zones: Sequence[str]) -> Kind:
    """Return a machine type that is sold on demand at the same price in each zone."""
    allocatable = quantities(*machine.amounts)
    offers = tuple(Offer(zone, "on-demand", machine.price_nanousd_per_hour) for zone in zones)
    return Kind(machine.name, machine.arch, allocatable, offers)


def quantities(cpu_millicores: int, memory_bytes: int, pods: int) -> dict[str, str]:
    """Return amounts as Kubernetes writes them."""
    return {"cpu": f"{cpu_millicores}m", "memory": str(memory_bytes), "pods": str(pods)}


def pending(objects: Sequence[Object], staying: Mapping[str, object] | None = None) -> tuple[Object, ...]:
    """Return the pods as if they ran nowhere, but for those of DaemonSets and those on nodes that stay."""
    found = []
    for item in objects:
        if item["kind"] == "Pod" and not _is_daemon(item) and item["spec"].get("nodeName") not in (staying or {}):
            spec = {key: value for key, value in item["spec"].items() if key != "nodeName"}
            found.append({"metadata": _named(item["metadata"]), "spec": spec, "status": {"phase": "Pending"}})
    return tuple(found)


def daemons(objects: Sequence[Object]) -> tuple[Object, ...]:
    """Return one pod of each DaemonSet."""
    return tuple(
        {"metadata": _named(item["metadata"]), "spec": item["spec"]["template"]["spec"]}
        for item in objects
        if item["kind"] == "DaemonSet"
    )


def _is_daemon(pod: Object) -> bool:
    return any(owner["kind"] == "DaemonSet" for owner in pod["metadata"].get("ownerReferences", ()))


def _named(metadata: Object) -> Object:
    return {key: metadata[key] for key in ("name", "namespace", "labels") if key in metadata}


def _pools(machines: Sequence[Machine]) -> tuple[KarpenterPool, ...]:
    """Return the benchmark's pools as Karpenter would have them: one for all with the same labels and taints.

    Those without labels come first, as they do in the table of pools.
    """
    sold = {machine.name: machine for machine in machines}
    found: dict[tuple[object, ...], KarpenterPool] = {}
    for pool in POOLS:
        if pool.managed:
            marks = (tuple(pool.labels.items()), tuple(tuple(taint.items()) for taint in pool.taints))
            before = found.get(marks)
            kind = kind_of(sold[pool.machine_type], ZONES)
            kinds = (*(before.machines if before else ()), kind)
            name = before.name if before else pool.name
            found[marks] = KarpenterPool(name, kinds, pool.labels, pool.taints)
    return tuple(found.values())


def amounts(spec: Object) -> dict[str, int]:
    """Return what a pod of plain containers requests, in thousandths, and the one place that it takes."""
    total: Counter[str] = Counter(pods=MILLI)
    for container in spec["containers"]:
        for resource, quantity in container["resources"]["requests"].items():
            total[resource] += parse_quantity(quantity, MILLI)
    return dict(total)


def room(kind: Kind) -> dict[str, int]:
    """Return what a node of the machine type can allocate, in thousandths."""
    return {resource: parse_quantity(quantity, MILLI) for resource, quantity in kind.allocatable.items()}
