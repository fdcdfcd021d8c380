"""Clusters by seed, with every constraint that a plan respects mixed in: populated, misplaced, some pods pending.

The pods are put on their nodes one after the other where the real filters admit them, the nodes in random order;
now and then one is forced where they do not, and now and then a node is cordoned afterwards.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.filters.scheduler import Filters, Object, State

ZONE: Final = "topology.kubernetes.io/zone"
HOSTNAME: Final = "kubernetes.io/hostname"
HASH: Final = "pod-template-hash"
ARCH: Final = "kubernetes.io/arch"
MACHINE_TYPE: Final = "node.kubernetes.io/instance-type"
POOL: Final = "cloud.google.com/gke-nodepool"
GPU: Final = "nvidia.com/gpu"
SPOT: Final = "cloud.google.com/gke-spot"

_NAMESPACES: Final = ("shop", "data")
_TIERS: Final = ("web", "db", "cache")
_MIB: Final = 1024**2
_GIB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class Machine:
    """One line of the machine table."""

    name: str
    cpu_millicores: int
    memory_gib: int
    price_usd: float
    pods: int = 110
    arch: str = "amd64"
    storage_gib: int = 50
    gpus: int = 0


_MACHINES: Final = (
    Machine("m2", 1930, 6, 0.067),
    Machine("m4", 3920, 13, 0.134),
    Machine("m8", 7910, 29, 0.268, pods=12),
    Machine("r4", 3920, 28, 0.180, storage_gib=20),
    Machine("a4", 3900, 14, 0.090, arch="arm64"),
    Machine("g4", 3920, 13, 0.450, gpus=2),
)


@dataclass(slots=True)
class Case:
    """A cluster as a dump, and what can be bought; `objects` are in no particular order.

    `spot_tiers` are the tiers whose pods may come to spot nodes; without any all may.
    """

    seed: int
    machines: tuple[Machine, ...]
    pools: list[Object]
    spot_tiers: tuple[str, ...] = ()
    objects: list[Object] = field(default_factory=list)

    def of(self, kind: str) -> list[Object]:
        """Return the objects of one kind."""
        return [item for item in self.objects if item["kind"] == kind]

    def dump(self) -> Object:
        """Return what `kubectl get … -A -o json` would print."""
        return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": self.objects}

    def table(self) -> str:
        """Return MACHINES.csv."""
        head = (
            "machine_type,cpu_millicores,memory_bytes,max_pods,price_usd_per_hour,arch,ephemeral_storage_bytes,"
            "extended_resources,spot_price_usd_per_hour"
        )
        return "\n".join([head, *map(_line, self.machines)]) + "\n"

    def state(self) -> State:
        """Return the present state, as the filters see it."""
        return State(
            self.of("Node"),
            standing(self.of("Pod")),
            self.of("PersistentVolume"),
            self.of("PersistentVolumeClaim"),
            self.of("Namespace"),
        )


def standing(pods: Sequence[Object]) -> list[Object]:
    """Return the pods that have not finished."""
    return [pod for pod in pods if pod["status"]["phase"] not in ("Succeeded", "Failed")]


def generate(seed: int, filters: Filters) -> Case:
    """Return the cluster of a seed."""
    return _Builder(seed).build(filters)


def _line(machine: Machine) -> str:
    return (
        f"{machine.name},{machine.cpu_millicores},{machine.memory_gib * _GIB},{machine.pods},{machine.price_usd},"
        f"{machine.arch},{machine.storage_gib * _GIB},{f'{GPU}={machine.gpus}' if machine.gpus else ''},"
        f"{machine.price_usd * 0.4:.4f}"
    )


class _Builder:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        # What came to the clusters later has a source of its own, so that every seed still means what it meant.
        self._later = random.Random(f"later {seed}")
        self._zones = self._random.sample(["zone-a", "zone-b", "zone-c"], self._random.choice([1, 2, 2, 3, 3]))
        machines = self._random.sample(_MACHINES, self._random.randint(2, 4))
        self._case = Case(seed, tuple(machines), [])
        self._uids = 0
        self._apps = [f"w{number}" for number in range(self._random.randint(3, 9))]
        # With few constraints for each workload most pods can move; with many, most rules meet each other.
        self._density = self._random.choice([0.1, 0.2, 0.35])

    def build(self, filters: Filters) -> Case:
        self._namespaces()
        if self._chance(0.5):
            self._pools()
        self._nodes()
        for number in range(self._random.choice([0, 1, 1, 2])):
            self._daemonset(number)
        for app in self._apps:
            self._workload(app)
        for number in range(self._random.choice([0, 0, 1, 2])):
            self._budget(number)
        self._settle(filters)
        self._disturb()
        self._random.shuffle(self._case.objects)
        return self._case

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _add(self, api: str, kind: str, name: str, namespace: str = "", **fields: object) -> Object:
        self._uids += 1
        meta: Object = {"name": name, "uid": f"uid-{self._uids}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        if namespace:
            meta["namespace"] = namespace
        meta |= dict(fields.pop("meta", {}))  # type: ignore[call-overload]
        made = {"apiVersion": api, "kind": kind, "metadata": meta, **fields}
        self._case.objects.append(made)
        return made

    def _namespaces(self) -> None:
        for name in (*_NAMESPACES, "kube-system"):
            labels = {"kubernetes.io/metadata.name": name, "team": "blue" if name == "shop" else "green"}
            self._add("v1", "Namespace", name, meta={"labels": labels})

    def _pools(self) -> None:
        for machine in self._case.machines:
            pool: Object = {"name": f"pool-{machine.name}", "machineType": machine.name}
            pool["zones"] = self._random.sample(self._zones, self._random.randint(1, len(self._zones)))
            if self._chance(0.3):
                pool["max"] = self._random.randint(1, 4)
            if self._chance(0.15):
                pool["min"] = 1
                pool.pop("max", None)
            if self._chance(0.3):
                pool["labels"] = {"disk": "ssd", "generation": str(self._random.randint(1, 4))}
            if self._chance(0.25):
                effect = self._random.choice(["NoSchedule", "NoExecute", "PreferNoSchedule"])
                pool["taints"] = [{"key": "dedicated", "value": "batch", "effect": effect}]
            if self._later.random() < 0.2:
                pool["capacityType"] = "spot"
            self._case.pools.append(pool)
        if self._later.random() < 0.5:
            self._case.spot_tiers = tuple(self._later.sample(_TIERS, 1))

    def _nodes(self) -> None:
        pools = {pool["machineType"]: pool for pool in self._case.pools}
        for number in range(self._random.randint(3, 10)):
            machine = self._random.choice(self._case.machines)
            pool = pools.get(machine.name)
            name = f"n{number}"
            labels = {
                MACHINE_TYPE: machine.name,
                HOSTNAME: name,
                ARCH: machine.arch,
                "kubernetes.io/os": "linux",
                ZONE: self._random.choice(pool["zones"] if pool else self._zones),
            }
            taints = []
            if pool:
                labels |= {POOL: pool["name"]} | pool.get("labels", {})
                labels |= {SPOT: "true"} if pool.get("capacityType") == "spot" else {}
                taints += pool.get("taints", [])
            elif self._chance(0.2):
                labels |= {"disk": "ssd", "generation": str(self._random.randint(1, 4))}
            if self._chance(0.06):
                taints.append({"key": "spoilt", "value": "yes", "effect": "NoSchedule"})
            if self._chance(0.03):
                del labels[ZONE]
            allocatable = {
                "cpu": f"{machine.cpu_millicores}m",
                "memory": f"{machine.memory_gib}Gi",
                "pods": str(machine.pods),
                "ephemeral-storage": f"{machine.storage_gib}Gi",
            }
            if machine.gpus:
                allocatable[GPU] = str(machine.gpus)
            status = {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]}
            spec = {"taints": taints} if taints else {}
            self._add("v1", "Node", name, meta={"labels": labels}, spec=spec, status=status)

    def _daemonset(self, number: int) -> None:
        name = f"agent-{number}"
        labels = {"app": name, "tier": self._random.choice(_TIERS)} if self._chance(0.2) else {"app": name}
        container: Object = {"name": "main", "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}}}
        if self._chance(0.3):
            container["ports"] = [_port((8080, 9100)[number])]
        spec: Object = {"containers": [container]}
        if self._chance(0.5):
            spec["tolerations"] = [{"operator": "Exists"}]
        if self._chance(0.2):
            spec["nodeSelector"] = {ARCH: "amd64"}
        if self._chance(0.1):
            spec["nodeSelector"] = {ZONE: self._random.choice(self._zones)}
        template = {"metadata": {"labels": labels}, "spec": spec}
        self._add(
            "apps/v1",
            "DaemonSet",
            name,
            "kube-system",
            spec={"selector": {"matchLabels": {"app": name}}, "template": template},
            status={},
        )
        made = self._case.objects[-1]
        for node in self._case.of("Node"):
            self._case.objects.append(daemon_pod(made, node["metadata"]["name"]))

    def _budget(self, number: int) -> None:
        spec: Object = {"selector": {"matchLabels": self._labels_wanted()}}
        spec[self._random.choice(["minAvailable", "maxUnavailable"])] = self._random.choice([1, 1, 2, "50%"])
        self._add("policy/v1", "PodDisruptionBudget", f"budget-{number}", self._random.choice(_NAMESPACES), spec=spec)

    def _labels_wanted(self) -> dict[str, str]:
        if self._chance(0.5):
            return {"tier": self._random.choice(_TIERS)}
        return {"app": self._random.choice(self._apps)}

    def _workload(self, app: str) -> None:
        namespace = self._random.choice(_NAMESPACES)
        kind = self._random.choice(["Deployment"] * 6 + ["StatefulSet"] * 3 + ["ReplicaSet", "Job", "Pod"])
        replicas = 1 if kind == "Pod" else self._random.choice([1, 2, 3, 4, 4, 6, 8, 12])
        labels = {"app": app, "tier": self._random.choice(_TIERS)}
        spec = self._pod_spec(app, namespace, kind)
        template = {"metadata": {"labels": labels}, "spec": spec}
        claims = kind == "StatefulSet" and self._chance(0.35)
        status = {"replicas": replicas, "readyReplicas": replicas, "updatedReplicas": replicas}
        own: Object = {"replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": template}
        labels = dict(labels)
        owner: tuple[str, str, str] | None = None
        if kind == "Deployment":
            own["strategy"] = self._strategy()
            made = self._add("apps/v1", kind, app, namespace, spec=own, status=status)
            labels[HASH] = f"hash{app}"
            inner = copy.deepcopy({"metadata": {"labels": labels}, "spec": spec})
            meta = {"ownerReferences": [_owner(kind, app, made["metadata"]["uid"])], "labels": labels}
            of = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": inner}
            name = f"{app}-{labels[HASH]}"
            made = self._add("apps/v1", "ReplicaSet", name, namespace, meta=meta, spec=of, status=status)
            owner = ("ReplicaSet", name, made["metadata"]["uid"])
        elif kind in ("StatefulSet", "ReplicaSet"):
            made = self._add("apps/v1", kind, app, namespace, spec=own, status=status)
            owner = (kind, app, made["metadata"]["uid"])
        elif kind == "Job":
            of = {"parallelism": replicas, "template": template}
            made = self._add("batch/v1", kind, app, namespace, spec=of, status={"active": replicas})
            owner = (kind, app, made["metadata"]["uid"])
        for number in range(replicas):
            name = app if owner is None else f"{app}-{number}"
            pod = self._add("v1", "Pod", name, namespace, spec=_defaulted(spec, labels), status={"phase": "Pending"})
            pod["metadata"]["labels"] = dict(labels)
            if owner is not None:
                pod["metadata"]["ownerReferences"] = [_owner(*owner)]
            if claims:
                self._volume(pod)

    def _strategy(self) -> Object:
        if self._chance(0.1):
            return {"type": "Recreate"}
        bounds = {
            "maxSurge": self._random.choice(["25%", "25%", 1, 0, "100%"]),
            "maxUnavailable": self._random.choice(["25%", 0, 1, "50%"]),
        }
        return {"type": "RollingUpdate", "rollingUpdate": bounds}

    def _volume(self, pod: Object) -> None:
        """Give the pod a claim of its own, bound to a volume of one zone, seldom of one node."""
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        key, value = ZONE, self._random.choice(self._zones)
        if self._chance(0.1):
            key, value = HOSTNAME, self._random.choice(self._case.of("Node"))["metadata"]["name"]
        claim, volume = f"data-{name}", f"pv-{namespace}-{name}"
        labels = {ZONE: value} if key == ZONE and self._chance(0.3) else {}
        affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [_in(key, value)]}]}}
        modes = ["ReadWriteOnce"]
        ref = {"kind": "PersistentVolumeClaim", "namespace": namespace, "name": claim}
        spec = {"accessModes": modes, "capacity": {"storage": "1Gi"}, "nodeAffinity": affinity, "claimRef": ref}
        self._add("v1", "PersistentVolume", volume, meta={"labels": labels}, spec=spec, status={"phase": "Bound"})
        self._add(
            "v1",
            "PersistentVolumeClaim",
            claim,
            namespace,
            meta={"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            spec={"accessModes": modes, "volumeName": volume},
            status={"phase": "Bound"},
        )
        pod["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]

    def _pod_spec(self, app: str, namespace: str, kind: str) -> Object:
        containers = [self._container(f"c{number}") for number in range(self._random.choice([1, 1, 1, 2]))]
        spec: Object = {"containers": containers}
        if self._chance(0.15):
            first = self._container("init")
            if self._chance(0.5):
                first["restartPolicy"] = "Always"
            second = [self._container("init-2")] if self._chance(0.3) else []
            spec["initContainers"] = [first, *second]
        if self._chance(0.07):
            spec["overhead"] = {"cpu": "100m", "memory": "64Mi"}
        if self._chance(0.08):
            containers[0]["resources"]["requests"]["ephemeral-storage"] = self._random.choice(["1Gi", "9Gi"])
        if self._chance(0.08) and any(machine.gpus for machine in self._case.machines):
            containers[0]["resources"] = {
                "requests": {**containers[0]["resources"]["requests"], GPU: "1"},
                "limits": {GPU: "1"},
            }
        if self._chance(self._density / 2):
            containers[0]["ports"] = [_port(self._random.choice([8080, 9100, 9200]))]
            if self._chance(0.2):
                containers[0]["ports"][0]["hostIP"] = self._random.choice(["127.0.0.1", "0.0.0.0"])
            if self._chance(0.2):
                containers[0]["ports"][0]["protocol"] = "UDP"
        if self._chance(self._density):
            spec["tolerations"] = [
                self._random.choice(
                    [
                        {"operator": "Exists"},
                        {"key": "dedicated", "operator": "Equal", "value": "batch", "effect": "NoSchedule"},
                        {"key": "dedicated", "operator": "Exists"},
                    ]
                )
            ]
        self._choose_nodes(spec)
        affinity = spec.setdefault("affinity", {})
        if self._chance(self._density):
            affinity["podAntiAffinity"] = _required(
                [self._term(app, namespace, kind) for _ in range(self._random.choice([1, 1, 2]))]
            )
        if self._chance(self._density * 0.8):
            terms = [self._term(app, namespace, kind, near=True)]
            if self._later.random() < 0.3:
                tiers = {"key": "tier", "operator": "In", "values": self._later.sample(_TIERS, 2)}
                key = self._later.choice([HOSTNAME, ZONE, ZONE])
                terms.append({"topologyKey": key, "labelSelector": {"matchExpressions": [tiers]}})
            affinity["podAffinity"] = _required(terms)
        if self._chance(self._density):
            spec["topologySpreadConstraints"] = [
                self._spread(app, kind, key)
                for key in self._random.sample([ZONE, HOSTNAME], self._random.choice([1, 1, 2]))
            ]
            if self._later.random() < 0.15:
                selector = {"matchLabels": {"app": app}}
                spec["topologySpreadConstraints"].append(
                    {"maxSkew": 2, "topologyKey": "generation", "whenUnsatisfiable": "DoNotSchedule"}
                    | {"labelSelector": selector}
                )
        if not affinity:
            del spec["affinity"]
        return spec

    def _container(self, name: str) -> Object:
        cpu = self._random.choice([50, 100, 250, 250, 400, 700, 1100])
        memory = self._random.choice([64, 128, 256, 512, 1024, 2048])
        return {"name": name, "resources": {"requests": {"cpu": f"{cpu}m", "memory": f"{memory}Mi"}}}

    def _choose_nodes(self, spec: Object) -> None:
        zone = self._random.choice(self._zones)
        if self._chance(self._density / 2):
            spec["nodeSelector"] = self._random.choice([{ZONE: zone}, {ARCH: "amd64"}, {"disk": "ssd"}])
        if not self._chance(self._density / 2):
            return
        choices: list[list[Object]] = [
            [{"matchExpressions": [_in(ZONE, zone)]}],
            [{"matchExpressions": [{"key": ZONE, "operator": "NotIn", "values": [zone]}]}],
            [{"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]}],
            [
                {"matchExpressions": [{"key": "generation", "operator": "Gt", "values": ["2"]}]},
                {"matchExpressions": [{"key": ARCH, "operator": "Exists"}, _in(ZONE, zone)]},
            ],
            [
                {"matchExpressions": [{"key": "generation", "operator": "Lt", "values": ["3"]}]},
                {"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]},
            ],
            [{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n0"]}]}],
        ]
        required = {"nodeSelectorTerms": self._random.choice(choices)}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}

    def _term(self, app: str, namespace: str, kind: str, near: bool = False) -> Object:
        selector: Object = {"matchLabels": {"app": app} if self._chance(0.5) else self._labels_wanted()}
        if self._chance(0.15):
            expression = {"key": "tier", "operator": "In", "values": self._random.sample(_TIERS, 2)}
            selector = {"matchExpressions": [expression]}
        if not near and self._chance(0.05):
            selector = {}
        term: Object = {"topologyKey": self._random.choice([HOSTNAME, HOSTNAME, ZONE]), "labelSelector": selector}
        if self._chance(0.25):
            term["namespaces"] = self._random.choice([["shop", "data"], ["shop"], ["data"]])
        elif self._chance(0.15):
            term["namespaceSelector"] = self._random.choice([{}, {"matchLabels": {"team": "blue"}}])
        if kind == "Deployment" and self._chance(0.15):
            term[self._random.choice(["matchLabelKeys", "mismatchLabelKeys"])] = [HASH]
        return term

    def _spread(self, app: str, kind: str, key: str) -> Object:
        spread: Object = {
            "maxSkew": self._random.choice([1, 1, 2, 3]),
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway" if self._chance(0.1) else "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": app} if self._chance(0.75) else self._labels_wanted()},
        }
        if spread["whenUnsatisfiable"] == "DoNotSchedule" and self._chance(0.2):
            spread["minDomains"] = self._random.choice([2, 3, 4])
        if self._chance(0.15):
            spread["nodeAffinityPolicy"] = "Ignore"
        if self._chance(0.25):
            spread["nodeTaintsPolicy"] = "Honor"
        if kind == "Deployment" and self._chance(0.2):
            spread["matchLabelKeys"] = [HASH]
        return spread

    def _settle(self, filters: Filters) -> None:
        """Put the pods on nodes one after the other where the filters admit them, most to one of a few nodes first."""
        state = self._case.state()
        names = [node["metadata"]["name"] for node in state.nodes]
        order = [index for index, pod in enumerate(state.pods) if not pod["spec"].get("nodeName")]
        self._random.shuffle(order)
        wishes = []
        for index in order:
            if self._chance(0.93):
                wishes.append((index, self._random.sample(names, len(names))))
        for (index, _), admitted in zip(wishes, filters.place(state, wishes), strict=True):
            forced = self._random.choice(names) if not admitted and self._chance(0.03) else ""
            if node := admitted or forced:
                bind(state.pods[index], node)
        for index in order:
            pod = state.pods[index]
            if not pod["spec"].get("nodeName"):
                refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
                pod["status"]["conditions"] = [refused]

    def _disturb(self) -> None:
        for node in self._case.of("Node"):
            if self._chance(0.04):
                node["spec"]["unschedulable"] = True
                cordon = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
                node["spec"]["taints"] = [*node["spec"].get("taints", []), cordon]
        for pod in self._case.of("Pod"):
            if self._chance(0.01):
                pod["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
            elif self._chance(0.01):
                pod["metadata"].setdefault("annotations", {})["kinema.io/do-not-disrupt"] = "true"
            elif self._later.random() < 0.02 and pod["spec"].get("nodeName"):
                pod["metadata"]["labels"] |= {"tier": self._later.choice(_TIERS)}


def bind(pod: Object, node: str) -> None:
    """Let the pod run on the node."""
    pod["spec"]["nodeName"] = node
    conditions = [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]
    pod["status"] = {"phase": "Running", "conditions": conditions}


def daemon_pod(daemonset: Object, node: str) -> Object:
    """Return the pod of a DaemonSet on one node, as its controller makes it, bound and running."""
    meta, template = daemonset["metadata"], copy.deepcopy(daemonset["spec"]["template"])
    spec = template["spec"]
    field_ = {"key": "metadata.name", "operator": "In", "values": [node]}
    required = {"nodeSelectorTerms": [{"matchFields": [field_]}]}
    spec.setdefault("affinity", {})["nodeAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": required}
    pressures = ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")
    spec["tolerations"] = [
        *spec.get("tolerations", []),
        *(_tolerated(f"node.kubernetes.io/{key}", "NoExecute") for key in ("not-ready", "unreachable")),
        *(_tolerated(f"node.kubernetes.io/{key}", "NoSchedule") for key in pressures),
    ]
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{meta['name']}-{node}",
            "namespace": meta["namespace"],
            "uid": f"{meta['uid']}-{node}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": template["metadata"]["labels"],
            "ownerReferences": [_owner("DaemonSet", meta["name"], meta["uid"])],
        },
        "spec": spec,
        "status": {},
    }
    bind(pod, node)
    return pod


def _defaulted(spec: Object, labels: dict[str, str]) -> Object:
    """Return a pod's spec as the API server stores it: matchLabelKeys are written into the selectors."""
    made: Object = copy.deepcopy(spec)
    affinity = made.get("affinity", {})
    terms = [
        term
        for kind in ("podAffinity", "podAntiAffinity")
        for term in affinity.get(kind, {}).get("requiredDuringSchedulingIgnoredDuringExecution", ())
    ]
    for rule in (*terms, *made.get("topologySpreadConstraints", ())):
        added = [
            {"key": key, "operator": operator, "values": [labels[key]]}
            for field_, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn"))
            for key in rule.get(field_, ())
        ]
        if added:
            selector = rule["labelSelector"]
            selector["matchExpressions"] = [*selector.get("matchExpressions", ()), *added]
    return made


def _owner(kind: str, name: str, uid: str) -> Object:
    return {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": True}


def _tolerated(key: str, effect: str) -> Object:
    return {"key": key, "operator": "Exists", "effect": effect}


def _in(key: str, *values: str) -> Object:
    return {"key": key, "operator": "In", "values": list(values)}


def _port(number: int) -> Object:
    return {"containerPort": number, "hostPort": number, "protocol": "TCP"}


def _required(terms: list[Object]) -> Object:
    return {"requiredDuringSchedulingIgnoredDuringExecution": terms}
