"""A running cluster with every kind of constraint, badly packed: by a seed, valid in each of its constraints."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import yaml

from benchmarks.optimizer import dumps
from benchmarks.optimizer.dumps import Daemon, NodeFacts, Object, Owner, pod_spec
from benchmarks.optimizer.machines import Machine, table
from benchmarks.optimizer.shapes import MIB

ZONES = ("us-central1-a", "us-central1-b", "us-central1-c")
HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"

_CPU_SHARE, _MEMORY_SHARE = 0.72, 0.66
"""What the pods request of all nodes: about a fifth of the nodes is too much."""

_FULL_SHARES = (0.35, 0.93, 0.93, 0.93)
"""A quarter of the nodes is filled to about a third, the others nearly to the top."""

_CONSTRAINED_MOST = 40
"""Replicas of a workload that may have one or two pods on a node."""

_TRIES = 80


@dataclass(frozen=True, slots=True)
class Pool:
    """A node pool in every zone, how many of a thousand nodes are its, and how it marks them."""

    name: str
    machine_type: str
    share: int
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()
    managed: bool = True


_BATCH = {"dedicated": "batch"}
_SSD = {"disk": "ssd"}
_NO_SCHEDULE = ({"key": "dedicated", "value": "batch", "effect": "NoSchedule"},)
_TOLERATION = {"key": "dedicated", "operator": "Equal", "value": "batch", "effect": "NoSchedule"}

POOLS = (
    Pool("general-4", "e2-standard-4", 200),
    Pool("general-8", "e2-standard-8", 330),
    Pool("general-16", "e2-standard-16", 60),
    Pool("memory-8", "e2-highmem-8", 80),
    Pool("memory-4", "e2-highmem-4", 0),
    Pool("compute-8", "e2-highcpu-8", 0),
    Pool("ssd-8", "n2-standard-8", 120, _SSD),
    Pool("ssd-4", "n2-standard-4", 60, _SSD),
    Pool("batch-8", "e2-standard-8", 100, _BATCH, _NO_SCHEDULE),
    Pool("batch-16", "e2-standard-16", 40, _BATCH, _NO_SCHEDULE),
    Pool("legacy", "e2-standard-4", 10, managed=False),
)
"""Two of them are empty, and one is not in POOLS.yaml: its nodes keep their pods and receive none."""

_DAEMONS = (
    Daemon("agent", pod_spec(60, 96 * MIB, tolerations=[{"operator": "Exists"}])),
    Daemon("logs", pod_spec(40, 64 * MIB, tolerations=[{"operator": "Exists"}])),
    Daemon("scratch", pod_spec(25, 32 * MIB, nodeSelector=_BATCH, tolerations=[{"operator": "Exists"}])),
)

_KINDS = (
    *("plain",) * 36,
    *("zone",) * 8,
    *("machine",) * 6,
    *("batch",) * 10,
    *("ssd",) * 6,
    *("tolerant",) * 3,
    *("apart",) * 8,
    *("port",) * 3,
    *("zone-spread",) * 10,
    *("node-spread",) * 8,
    *("near",) * 2,
)
"""A hundred workloads by their constraint. Kept apart: hostname anti-affinity; near: in the zone of another's pods.
Of those that are near every other one is beside: on a node with one of those pods."""

_LEADER = "plain-0"
_FEW = ("apart", "port", "node-spread", "near", "beside")


@dataclass(frozen=True, slots=True)
class App:
    """A workload with its constraint, and what the generator must know of it."""

    owner: Owner
    kind: str
    cpu_millicores: int
    memory_bytes: int
    budget: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A pod on a node, or pending; `pinned` may not be evicted."""

    app: str
    name: str
    node: str | None
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes, workloads by key, and pods."""

    nodes: tuple[NodeFacts, ...]
    apps: Mapping[str, App]
    pods: tuple[Placed, ...]

    def objects(self) -> Iterator[Object]:
        """Return everything as Kubernetes has it."""
        for facts in self.nodes:
            yield dumps.node(facts)
        for daemon in _DAEMONS:
            yield dumps.daemonset(daemon)
            for facts in self.nodes:
                if runs_on(daemon, facts):
                    yield dumps.daemon_pod(daemon, facts.name)
        for app in self.apps.values():
            yield from dumps.controllers(app.owner)
            if app.budget is not None:
                yield dumps.budget(app.owner, **app.budget)
        for pod in self.pods:
            marks = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"} if pod.pinned else None
            yield dumps.pod(self.apps[pod.app].owner, pod.name, pod.node, marks)


def runs_on(daemon: Daemon, facts: NodeFacts) -> bool:
    """Say whether the DaemonSet has a pod on the node: they tolerate everything, so only their selector counts."""
    return all(facts.labels.get(key) == value for key, value in daemon.spec.get("nodeSelector", {}).items())


def machines() -> tuple[Machine, ...]:
    """Return the machine types of the pools' families."""
    return table("e2", "n2")


def pools_yaml() -> str:
    """Return the pools that may be changed, as `kinema plan --pools` reads them."""
    listed = []
    for pool in POOLS:
        if pool.managed:
            own: dict[str, object] = {"name": pool.name, "machineType": pool.machine_type, "zones": list(ZONES)}
            if pool.labels:
                own["labels"] = dict(pool.labels)
            if pool.taints:
                own["taints"] = [dict(taint) for taint in pool.taints]
            listed.append(own)
    return yaml.safe_dump({"pools": listed}, sort_keys=False)


def node_of(pool: Pool, name: str, zone: str) -> NodeFacts:
    """Return a node as the pool makes it."""
    machine = next(machine for machine in machines() if machine.name == pool.machine_type)
    return NodeFacts(
        name, machine.name, pool.name, zone, machine.amounts, machine.arch, pool.labels, tuple(pool.taints)
    )


def crowded(nodes: int, pods: int, workloads: int, seed: int) -> Cluster:
    """Return a cluster of so many nodes, pods (20 of them without a controller) and workloads.

    About a quarter of the nodes is mostly empty. Each constraint holds: what a scheduler could have done.
    """
    chance = random.Random(seed)
    facts = _nodes(nodes, chance)
    bare = min(20, pods // 10)
    apps = _apps(workloads, pods - bare, facts, chance)
    for number in range(bare):
        owner = Owner(f"bare-{number}", 1, pod_spec(100, 256 * MIB), "Pod")
        apps.append(App(owner, "plain", 100, 256 * MIB))
    filling = _Filling(facts, chance)
    placed: list[Placed] = []
    # Whatever has few places goes first, as after years of running; near goes after what it is near to.
    for app in sorted(
        apps, key=lambda app: (app.kind in ("near", "beside"), app.kind not in _FEW, app.kind == "plain")
    ):
        placed += filling.place(app)
    pinned = {chance.randrange(len(placed)) for _ in range(pods // 3000)}
    placed = [replace(pod, pinned=index in pinned) for index, pod in enumerate(placed)]
    return Cluster(facts, {app.owner.key: app for app in apps}, tuple(placed))


def _nodes(nodes: int, chance: random.Random) -> tuple[NodeFacts, ...]:
    total = sum(pool.share for pool in POOLS)
    found = []
    for pool in POOLS:
        for number in range(max(math.ceil(pool.share * nodes / total), min(pool.share, 3))):
            found.append(node_of(pool, f"{pool.name}-{number:03d}", ZONES[number % 3]))
    # Rounding up made a few too many; one of the largest pool is missed least.
    largest = max(POOLS, key=lambda pool: pool.share).name
    surplus = len(found) - nodes
    kept = [item for item in found if item.pool != largest]
    kept += [item for item in found if item.pool == largest][surplus:]
    chance.shuffle(kept)
    return tuple(kept)


def _apps(workloads: int, pods: int, nodes: tuple[NodeFacts, ...], chance: random.Random) -> list[App]:
    kinds = [_KINDS[index * len(_KINDS) // workloads] for index in range(workloads)]
    few = max(2, min(_CONSTRAINED_MOST, pods // workloads))
    sizes = [chance.randint(2, few) if kind in _FEW else 0 for kind in kinds]
    weights = [0.0 if size else chance.lognormvariate(0, 0.8) for size in sizes]
    left = pods - sum(sizes)
    for index, weight in enumerate(weights):
        if not sizes[index]:
            sizes[index] = max(1, int(left * weight / sum(weights)))
    sizes[0] += pods - sum(sizes)  # the first is plain
    wishes = [(chance.lognormvariate(0, 0.7), chance.choice((1.5, 2.5, 3.5, 3.5, 5.0))) for _ in sizes]
    # What all nodes have is shared out by these wishes.
    cpu = _CPU_SHARE * sum(n.amounts[0] for n in nodes) / sum(s * w for s, (w, _) in zip(sizes, wishes, strict=True))
    memory = _MEMORY_SHARE * sum(n.amounts[1] for n in nodes)
    memory /= sum(s * w * ratio for s, (w, ratio) in zip(sizes, wishes, strict=True))
    found: list[App] = []
    near = [index for index, kind in enumerate(kinds) if kind == "near"]
    kinds = ["beside" if index in near[1::2] else kind for index, kind in enumerate(kinds)]
    for index, (kind, size, (weight, ratio)) in enumerate(zip(kinds, sizes, wishes, strict=True)):
        # In steps, as people write them, so that some workloads have the same size.
        millicores = min(2000, max(10, 10 * round(cpu * weight / 10)))
        mebibytes = min(8192, max(32, 32 * round(memory * weight * ratio / MIB / 32)))
        found.append(_app(index, kind, size, (millicores, mebibytes * MIB), chance))
    return found


def _app(index: int, kind: str, replicas: int, size: tuple[int, int], chance: random.Random) -> App:
    name = f"{kind}-{index}"
    fields = _fields(kind, name, index, chance)
    spec = pod_spec(*size, **fields)
    if kind == "port":
        spec["containers"][0]["ports"] = [{"containerPort": 8080, "hostPort": 9000 + index}]
    controller = chance.choices(("Deployment", "StatefulSet", "Job"), (80, 12, 8))[0]
    if not index:  # others want to be near it
        controller = "Deployment"
    if kind in ("plain", "batch") or controller != "Job":
        budget = chance.choice((None, None, {"maxUnavailable": "10%"}, {"maxUnavailable": 1}, {"minAvailable": "80%"}))
    else:
        controller, budget = "Deployment", None
    return App(Owner(name, replicas, spec, controller), kind, *size, None if controller == "Job" else budget)


def _fields(kind: str, name: str, index: int, chance: random.Random) -> Object:
    """Return the fields of a pod spec that make its constraint."""
    own = {"labelSelector": {"matchLabels": {"app": name}}}
    match kind:
        case "zone":
            return {"nodeSelector": {ZONE: chance.choice(ZONES)}}
        case "machine":
            large = {"key": "node.kubernetes.io/instance-type", "operator": "NotIn", "values": ["e2-standard-4"]}
            terms = {"nodeSelectorTerms": [{"matchExpressions": [large]}]}
            return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}
        case "batch":
            return {"nodeSelector": _BATCH, "tolerations": [_TOLERATION]}
        case "ssd":
            return {"nodeSelector": _SSD}
        case "tolerant":
            return {"tolerations": [_TOLERATION]}
        case "apart":
            terms_apart = [{"topologyKey": HOSTNAME, **own}]
            return {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms_apart}}}
        case "zone-spread" | "node-spread":
            key, skew = (ZONE, 1) if kind == "zone-spread" else (HOSTNAME, 1 + index % 2)
            spread = {"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", **own}
            return {"topologySpreadConstraints": [spread]}
        case "near" | "beside":
            key = ZONE if kind == "near" else HOSTNAME
            friend = {"labelSelector": {"matchLabels": {"app": _LEADER}}, "topologyKey": key}
            return {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [friend]}}}
    return {}


class _Filling:
    """Puts pods on nodes at random, as far as each node is to be filled."""

    def __init__(self, nodes: tuple[NodeFacts, ...], chance: random.Random) -> None:
        self._nodes = nodes
        self._chance = chance
        self._leaders: set[str] = set()
        self._free: dict[str, list[int]] = {}
        self._wanted: dict[str, list[int]] = {}
        for facts in nodes:
            full = chance.choice(_FULL_SHARES)
            free = list(facts.amounts)
            for daemon in _DAEMONS:
                if runs_on(daemon, facts):
                    requests = daemon.spec["containers"][0]["resources"]["requests"]
                    free[0] -= int(requests["cpu"].removesuffix("m"))
                    free[1] -= int(requests["memory"].removesuffix("Mi")) * MIB
                    free[2] -= 1
            self._free[facts.name] = free
            self._wanted[facts.name] = [int((1 - full) * facts.amounts[0]), int((1 - full) * facts.amounts[1])]

    def place(self, app: App) -> Iterator[Placed]:
        """Place every pod of the workload; one for which no node has room stays pending."""
        allowed: dict[str, list[NodeFacts]] = defaultdict(list)
        for facts in self._nodes:
            if _admits(facts, app) and (app.kind != "beside" or facts.name in self._leaders):
                allowed[facts.zone].append(facts)
        everywhere = [facts for found in allowed.values() for facts in found]
        skews = [spread["maxSkew"] for spread in app.owner.spec.get("topologySpreadConstraints", ())]
        most = {"apart": 1, "port": 1, "node-spread": skews[0] if skews else 0}.get(app.kind, app.owner.replicas)
        own: Counter[str] = Counter()
        for number in range(app.owner.replicas):
            zone = ZONES[number % 3] if app.kind == "zone-spread" else None
            found = self._find(app, allowed[zone] if zone else everywhere, own, most)
            if found is not None:
                own[found] += 1
                if app.owner.name == _LEADER:
                    self._leaders.add(found)
                room = self._free[found]
                for index, amount in enumerate((app.cpu_millicores, app.memory_bytes, 1)):
                    room[index] -= amount
            name = app.owner.name if app.owner.kind == "Pod" else f"{app.owner.name}-{number}"
            yield Placed(app.owner.key, name, found)

    def _find(self, app: App, nodes: list[NodeFacts], own: Mapping[str, int], most: int) -> str | None:
        def holds(name: str, keep: list[int]) -> bool:
            cpu, memory, pods = self._free[name]
            fits = cpu - app.cpu_millicores >= keep[0] and memory - app.memory_bytes >= keep[1] and pods > 0
            return fits and own.get(name, 0) < most

        for _ in range(_TRIES):
            name = self._chance.choice(nodes).name
            if holds(name, self._wanted[name]):
                return name
        return next((facts.name for facts in nodes if holds(facts.name, [0, 0])), None)


def _admits(facts: NodeFacts, app: App) -> bool:
    """Say whether the workload's selectors, affinity and tolerations admit the node."""
    spec = app.owner.spec
    if facts.taints and "tolerations" not in spec:
        return False
    if app.kind == "machine" and facts.machine_type == "e2-standard-4":
        return False
    return all(facts.all_labels.get(key) == value for key, value in spec.get("nodeSelector", {}).items())
