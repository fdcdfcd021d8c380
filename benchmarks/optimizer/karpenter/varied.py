"""Clusters without nodes by a seed: other machines, pods and rules each time, for Kinema and for Karpenter the same."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import yaml

from benchmarks.optimizer import dumps
from benchmarks.optimizer.cluster import HOSTNAME, ZONE, ZONES
from benchmarks.optimizer.dumps import Daemon, Object, Owner, pod_spec
from benchmarks.optimizer.karpenter.request import KarpenterPool, Kind, Offer, Request, daemons, pending, quantities
from benchmarks.optimizer.machines import REGION
from benchmarks.optimizer.shapes import MIB
from planner.cloud.gcp.machines import builtin_machines
from planner.model.machines import MachineType

THEMES = (
    *("mixed", "large", "memory", "tiny", "different", "gpu", "arch", "family", "zone", "spot"),
    *("zone-spread", "apart", "node-spread", "near", "daemons", "everything"),
)
"""What is special about the pods, or where they may run; seeds take them in turn."""

_GPU = "nvidia.com/gpu"
_ARCH = "kubernetes.io/arch"
_TYPE = "node.kubernetes.io/instance-type"
_SPOT = "cloud.google.com/gke-spot"
_CAPACITY_TYPE = "karpenter.sh/capacity-type"
_RULES = ("zone-spread", "apart", "node-spread", "near", "zone", "arch", "family")
_MOST_PODS = 600
_MOST_MACHINES = 60
"""Real NodePools are narrower than a whole cloud."""


@dataclass(frozen=True, slots=True)
class Case:
    """One of them; `demanding` names the workloads that must not run on spot nodes."""

    seed: int
    theme: str
    machines: tuple[MachineType, ...]
    zones: tuple[str, ...]
    owners: tuple[Owner, ...]
    daemons: tuple[Daemon, ...] = ()
    demanding: frozenset[str] = frozenset()
    spot: bool = False

    def objects(self) -> Iterator[Object]:
        """Return what the planner reads."""
        yield from map(dumps.daemonset, self.daemons)
        for owner in self.owners:
            yield from self._objects(replace(owner, spec=owner.spec | self._no_spot(owner)))

    def machines_csv(self) -> str:
        """Write the machines as `kinema plan --machines` reads them."""
        columns = "machine_type,cpu_millicores,memory_bytes,max_pods,price_usd_per_hour,spot_price_usd_per_hour,arch"
        lines = [f"{columns},zones,extended_resources"]
        for machine in self.machines:
            room = machine.allocatable
            extended = " ".join(f"{name}={count}" for name, count in room.extended)
            spot = machine.spot_price_nanousd_per_hour if self.spot else None
            prices = (_usd(machine.price_nanousd_per_hour), _usd(spot))
            fields = (machine.name, room.cpu_millicores, room.memory_bytes, room.pods, *prices, machine.arch)
            lines.append(",".join(map(str, (*fields, " ".join(self.zones), extended))))
        return "\n".join(lines) + "\n"

    def pools_yaml(self) -> str | None:
        """Return a pool for each way in which a machine is sold; None where everything is sold on demand."""
        if not self.spot:
            return None
        return yaml.safe_dump(
            {
                "pools": [
                    {"name": f"{machine.name}-{how}", "machineType": machine.name, "capacityType": how}
                    for machine in self.machines
                    for how, _ in _sold(machine, self.spot)
                ]
            }
        )

    def request(self) -> Request:
        """Return what Karpenter is asked."""
        kinds = []
        for machine in self.machines:
            room = machine.allocatable
            amounts = quantities(room.cpu_millicores, room.memory_bytes, room.pods)
            amounts |= {name: str(count) for name, count in room.extended}
            offers = tuple(Offer(zone, how, cost) for zone in self.zones for how, cost in _sold(machine, self.spot))
            kinds.append(Kind(machine.name, machine.arch, amounts, offers))
        objects: list[Object] = list(map(dumps.daemonset, self.daemons))
        for owner in self.owners:
            selector = dict(owner.spec.get("nodeSelector", {}))
            if owner.name in self.demanding:
                selector[_CAPACITY_TYPE] = "on-demand"
            objects += self._objects(replace(owner, spec=owner.spec | {"nodeSelector": selector}))
        return Request((KarpenterPool("all", tuple(kinds)),), pending(objects), daemons(objects))

    def _objects(self, owner: Owner) -> Iterator[Object]:
        yield from dumps.controllers(owner)
        for number in range(owner.replicas):
            yield dumps.pod(owner, f"{owner.name}-{number}", None)

    def _no_spot(self, owner: Owner) -> Object:
        if owner.name not in self.demanding:
            return {}
        affinity = dict(owner.spec.get("affinity", {}))
        affinity["nodeAffinity"] = _required_nodes({"key": _SPOT, "operator": "DoesNotExist"})
        return {"affinity": affinity}


def case_of(seed: int) -> Case:
    """Return the case of this seed."""
    chance = random.Random(seed)
    theme = THEMES[seed % len(THEMES)]
    whole = theme == "everything"
    machines = _machines(theme, chance)
    zones = ZONES if theme in ("zone", "zone-spread", "near", "spot") or whole else ZONES[: chance.choice((1, 1, 3))]
    # As many pods as one likes, few more often than many.
    count = round(2 ** chance.uniform(2, _MOST_PODS.bit_length() - 0.8))
    workloads = count if theme == "different" else chance.randint(1, max(1, min(40, count // 2)))
    owners, demanding = [], set()
    for number in range(workloads):
        name = f"w{number}"
        rule = theme if theme in _RULES else chance.choice(_RULES) if whole else ""
        if rule and chance.random() < 0.4:
            rule = ""
        spec = _spec(theme, machines, chance)
        if not _fits(spec, machines):
            continue
        spec |= _fields(rule, name, machines, spec, chance)
        replicas = max(1, count // workloads + chance.randint(-2, 2))
        if rule in ("apart", "node-spread"):
            replicas = min(replicas, 12)
        owners.append(Owner(name, replicas, spec))
        if theme == "spot" and chance.random() < 0.4:
            demanding.add(name)
    agents: tuple[Daemon, ...] = ()
    if theme == "daemons" or whole:
        agents = (Daemon("agent", pod_spec(chance.choice((50, 100, 300)), chance.choice((64, 256)) * MIB)),)
    return Case(seed, theme, machines, zones, tuple(owners), agents, frozenset(demanding), theme == "spot")


def _machines(theme: str, chance: random.Random) -> tuple[MachineType, ...]:
    known = [machine for machine in builtin_machines(REGION).values() if machine.price_nanousd_per_hour is not None]
    sizes = Counter(map(_family, known))
    families = sorted(family for family, types in sizes.items() if types > 1)
    if theme == "gpu":
        wanted = {"a2", "g2", *chance.sample(families, 2)}
    elif theme == "arch":
        wanted = {"n4a", *chance.sample(families, 2)}
    else:
        wanted = set(chance.sample(families, chance.choice((1, 2, 3, 8))))
    found = [machine for machine in known if _family(machine) in wanted]
    if len(found) > _MOST_MACHINES:
        found = chance.sample(found, _MOST_MACHINES)
    if theme == "spot":
        found = chance.sample(found, min(len(found), 25))
    return tuple(found)


def _spec(theme: str, machines: tuple[MachineType, ...], chance: random.Random) -> Object:
    draw: dict[str, Callable[[], tuple[int, int]]] = {
        "large": lambda: (chance.randrange(2000, 30_001, 500), chance.randrange(4, 128) * 1024),
        "memory": lambda: (chance.randrange(50, 1001, 50), chance.randrange(8, 64) * 1024),
        "tiny": lambda: (chance.randrange(5, 31, 5), chance.randrange(8, 65, 8)),
        "different": lambda: (chance.randrange(50, 4001), chance.randrange(64, 16_385)),
        "plain": lambda: (
            chance.choice((50, 100, 250, 500, 1000, 2000)) + 10 * chance.randrange(5),
            chance.choice((128, 256, 512, 1024, 2048, 4096, 8192)) + 16 * chance.randrange(5),
        ),
    }
    cpu, mebibytes = draw.get(theme, draw["plain"])()
    spec = pod_spec(cpu, mebibytes * MIB)
    most = max((count for machine in machines for _, count in machine.allocatable.extended), default=0)
    if theme == "gpu" and most and chance.random() < 0.5:
        requests = spec["containers"][0]["resources"]["requests"]
        requests[_GPU] = str(chance.choice([count for count in (1, 1, 1, 2, 4) if count <= most]))
        spec["containers"][0]["resources"]["limits"] = {_GPU: requests[_GPU]}
    return spec


def _fits(spec: Object, machines: tuple[MachineType, ...]) -> bool:
    """Say whether some machine surely holds the pod beside a DaemonSet's; others would only be left out by both."""
    requests = spec["containers"][0]["resources"]["requests"]
    need = int(requests["cpu"].removesuffix("m")) + 300, (int(requests["memory"].removesuffix("Mi")) + 256) * MIB
    gpus = int(requests.get(_GPU, 0))
    return any(
        need[0] <= machine.allocatable.cpu_millicores
        and need[1] <= machine.allocatable.memory_bytes
        and gpus <= dict(machine.allocatable.extended).get(_GPU, 0)
        for machine in machines
    )


def _fields(
    rule: str, name: str, machines: tuple[MachineType, ...], spec: Object, chance: random.Random
) -> dict[str, Any]:
    own = {"labelSelector": {"matchLabels": {"app": name}}}
    holding = [machine for machine in machines if _fits(spec, (machine,))]
    match rule:
        case "zone":
            return {"nodeSelector": {ZONE: chance.choice(ZONES)}}
        case "arch":
            return {"nodeSelector": {_ARCH: chance.choice(holding).arch}}
        case "family":
            family = _family(chance.choice(holding))
            names = [machine.name for machine in machines if _family(machine) == family]
            wanted = {"key": _TYPE, "operator": "In", "values": names}
            return {"affinity": {"nodeAffinity": _required_nodes(wanted)}}
        case "zone-spread" | "node-spread":
            key = ZONE if rule == "zone-spread" else HOSTNAME
            skew = chance.choice((1, 1, 2))
            spread = {"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", **own}
            return {"topologySpreadConstraints": [spread]}
        case "apart":
            return {"affinity": {"podAntiAffinity": _required([{"topologyKey": HOSTNAME, **own}])}}
        case "near":
            return {"affinity": {"podAffinity": _required([{"topologyKey": ZONE, **own}])}}
    return {}


def _required(terms: object) -> Object:
    return {"requiredDuringSchedulingIgnoredDuringExecution": terms}


def _required_nodes(expression: Object) -> Object:
    return _required({"nodeSelectorTerms": [{"matchExpressions": [expression]}]})


def _sold(machine: MachineType, spot: bool) -> Iterator[tuple[str, int]]:
    if machine.price_nanousd_per_hour is not None:
        yield "on-demand", machine.price_nanousd_per_hour
    if spot and machine.spot_price_nanousd_per_hour is not None:
        yield "spot", machine.spot_price_nanousd_per_hour


def _family(machine: MachineType) -> str:
    return machine.name.partition("-")[0]


def _usd(nanousd: int | None) -> str:
    return "" if nanousd is None else f"{Decimal(nanousd).scaleb(-9):f}"
