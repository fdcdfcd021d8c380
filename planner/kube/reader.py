"""Kubernetes objects, from a dump or the API server, as one Snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from planner import ports
from planner.errors import BadInput, KubernetesError
from planner.kube import specs
from planner.kube.objects import (
    AutoscalerObject,
    BudgetObject,
    ClaimObject,
    ControllerObject,
    Head,
    IntOrPercent,
    JobObject,
    Meta,
    Metric,
    NodeObject,
    PodObject,
    PodSpec,
    VolumeObject,
    decode,
)
from planner.kube.record import read_record
from planner.model.cluster import (
    REGION,
    ZONE,
    Autoscaler,
    DaemonSet,
    DisruptionBudget,
    LabelTally,
    Node,
    Pod,
    Snapshot,
    Utilization,
    Workload,
)
from planner.model.coexistence import interpreted, port_shares
from planner.model.preferences import Company, Wishes
from planner.model.resources import Resources
from planner.model.scheduling import (
    LabelSelector,
    NodeConstraints,
    NodeSelectorTerm,
    PodRules,
    Requirement,
    Taint,
)

_SHAPES: dict[str, type[msgspec.Struct]] = {
    "Node": NodeObject,
    "Pod": PodObject,
    "Deployment": ControllerObject,
    "ReplicaSet": ControllerObject,
    "StatefulSet": ControllerObject,
    "DaemonSet": ControllerObject,
    "Job": JobObject,
    "HorizontalPodAutoscaler": AutoscalerObject,
    "PodDisruptionBudget": BudgetObject,
    "PersistentVolumeClaim": ClaimObject,
    "PersistentVolume": VolumeObject,
}
_KINDS = {kind.lower(): kind for kind in _SHAPES}
_LISTS = frozenset(("List", *(f"{kind}List" for kind in _SHAPES)))
_GROUPS = {resource.kind: resource.group for resource in ports.SNAPSHOT_RESOURCES}
_CLUSTER_WIDE = frozenset(r.kind for r in ports.SNAPSHOT_RESOURCES if not r.namespaced)
_MIRROR = "kubernetes.io/config.mirror"
_OLD_ZONE_LABELS = ("failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region")
_BETA = ("failure-domain.beta", "topology")
_ADDON_MODE = "addonmanager.kubernetes.io/mode"
_EXPECTED = "expected what `kubectl get nodes,pods,… -A -o json` prints"

_Object = (
    NodeObject | PodObject | ControllerObject | JobObject | AutoscalerObject | BudgetObject | ClaimObject | VolumeObject
)
_V = TypeVar("_V")


def read_dump(data: bytes, origin: str) -> Snapshot:
    """Read what `kubectl get nodes,pods,… -A -o json` prints, or any part of it; other kinds are skipped.

    Raises:
        BadInput: the data is no JSON or no list of objects, a field is missing or wrong; names origin, object,
            field, value and what would be right.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise BadInput(f"{origin}: is empty; {_EXPECTED}")
    try:
        head = msgspec.json.decode(data, type=Head)
    except msgspec.ValidationError as error:
        raise BadInput(f"{origin}: is no Kubernetes List ({error}); {_EXPECTED}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{origin}: is no JSON: {error}; {_EXPECTED}") from None
    objects = _Objects(origin)
    if not head.kind:
        raise BadInput(f"{origin}: the field kind is missing; {_EXPECTED}")
    if head.items is msgspec.UNSET:
        if head.kind.endswith("List"):
            raise BadInput(f"{origin}: the field items is missing from the {head.kind}; {_EXPECTED}")
        if head.kind not in _SHAPES:
            raise BadInput(f"{origin}: is no Kubernetes List, its kind is {head.kind!r}; {_EXPECTED}")
        objects.add(head.kind, head.api_version, data)
        return assemble(objects)
    if not head.kind.endswith("List"):
        raise BadInput(f"{origin}: is no Kubernetes List, its kind is {head.kind!r}; {_EXPECTED}")
    for index, item in enumerate(head.items or ()):
        try:
            own = msgspec.json.decode(item, type=Head)
        except msgspec.ValidationError as error:
            raise BadInput(f"{origin}: items[{index}] is no Kubernetes object ({error}); {_EXPECTED}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{origin}: items[{index}] is no JSON: {error}; {_EXPECTED}") from None
        kind = own.kind or head.kind.removesuffix("List")
        if not kind:
            raise BadInput(f"{origin}: items[{index}]: the field kind is missing; {_EXPECTED}")
        # What is skipped must be another kind for certain, or a cluster would look empty.
        if kind not in _SHAPES and (meant := _KINDS.get(kind.lower())):
            raise BadInput(f"{origin}: items[{index}]: kind must be {meant!r}, not {kind!r}")
        if kind in _LISTS:
            raise BadInput(f"{origin}: items[{index}] is a {kind}; expected the objects of all lists in one")
        objects.add(kind, own.api_version or head.api_version, item)
    return assemble(objects)


def read_snapshot(
    kubernetes: ports.Kubernetes, cloud: ports.Cloud | None, clock: ports.Clock, namespace: str = "kube-system"
) -> Snapshot:
    """Read the whole cluster, the plan that it remembers (in `namespace`) and the cloud's machines, or raise.

    Raises:
        KubernetesError: a list could not be read whole, or an object cannot be understood.
        CloudError: the cloud did not answer.
    """
    now = clock.now()
    objects = _Objects("the cluster", live=True)
    try:
        # The order matters: whatever owns a pod is older than the pod, so it is in the lists that are read later.
        for resource in ports.SNAPSHOT_RESOURCES:
            for item in kubernetes.list(resource).items:
                objects.add(resource.kind, "", item)
        found = assemble(objects)
    except BadInput as error:
        raise KubernetesError(str(error)) from None
    record = read_record(kubernetes, namespace)
    instances = cloud.instances() if cloud is not None else None
    operations = cloud.operations() if cloud is not None else ()
    return replace(found, record=record, instances=instances, operations=operations, taken_at=now)


def read_pods(listing: ports.Listing) -> tuple[Pod, ...]:
    """Read a list of pods alone; a ReplicaSet's pods then belong to it, whoever owns the ReplicaSet.

    Raises:
        KubernetesError: a pod cannot be understood.
    """
    objects = _Objects("the cluster", live=True)
    try:
        for item in listing.items:
            objects.add("Pod", "", item)
        return tuple(found.pod for found in _pods(objects, _Owners(objects)))
    except BadInput as error:
        raise KubernetesError(str(error)) from None


@dataclass(slots=True)
class _Objects:
    """The decoded objects of one reading, by kind; `live` where they come from an API server."""

    origin: str
    live: bool = False
    by_kind: dict[str, dict[tuple[str, str], _Object]] = field(default_factory=dict)

    def add(self, kind: str, api_version: str, raw: bytes | msgspec.Raw) -> None:
        shape = _SHAPES.get(kind)
        if shape is None or (api_version and api_version.rpartition("/")[0] not in (_GROUPS[kind], "")):
            return
        item = decode(raw, shape, kind, self.origin)
        assert isinstance(item, _Object)
        meta = item.metadata
        if not meta.name:
            raise BadInput(f"{self.origin}: {kind} without a name: metadata.name must not be empty")
        for path, name in (
            ("metadata.name", meta.name),
            ("metadata.namespace", meta.namespace),
            *((f"metadata.ownerReferences[{i}].name", o.name) for i, o in enumerate(meta.owner_references or ())),
        ):
            if "/" in name:
                raise BadInput(f'{self.origin}: {kind} {_name(meta)}: {path} must be a name without "/", not {name!r}')
        if not meta.namespace and kind not in _CLUSTER_WIDE:
            raise BadInput(f"{self.origin}: {kind} {meta.name}: the field metadata.namespace is missing")
        known = self.by_kind.setdefault(kind, {})
        earlier = known.get((meta.namespace, meta.name))
        if earlier is not None and earlier.metadata.uid != meta.uid:
            raise BadInput(
                f"{self.origin}: {kind} {_name(meta)} is there twice, with the uids {earlier.metadata.uid!r} "
                f"and {meta.uid!r}; expected one reading of one cluster"
            )
        known[(meta.namespace, meta.name)] = item

    def of(self, kind: str, shape: type[_V]) -> dict[tuple[str, str], _V]:
        """Return the objects of a kind by namespace and name, in that order, so that no list's order means anything."""
        return {key: item for key, item in sorted(self.by_kind.get(kind, {}).items()) if isinstance(item, shape)}

    @contextmanager
    def naming(self, kind: str, meta: Meta) -> Iterator[None]:
        """Say in the error of a field which object it belongs to."""
        try:
            yield
        except specs.FieldError as error:
            raise BadInput(f"{self.origin}: {kind} {_name(meta)}: {error}") from None


def assemble(objects: _Objects) -> Snapshot:
    """Build the snapshot: owners resolved, strategies resolved against replicas, absent controllers inferred."""
    owners = _Owners(objects)
    nodes = tuple(_node(objects, item) for item in objects.of("Node", NodeObject).values())
    known = [*_controllers(objects), *_jobs(objects)]
    pods = _among_each_other(nodes, _pods(objects, owners), {w.key: w.template_labels for w in known})
    workloads = [*known, *_inferred_workloads(pods, {w.key for w in known})]
    return Snapshot(
        nodes=nodes,
        pods=tuple(found.pod for found in pods),
        workloads=tuple(workloads),
        daemonsets=tuple(_daemonsets(objects, pods)),
        budgets=tuple(_budgets(objects, [found.pod for found in pods])),
        autoscalers=tuple(
            _autoscaler(item) for item in objects.of("HorizontalPodAutoscaler", AutoscalerObject).values()
        ),
    )


def _name(meta: Meta) -> str:
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


def _key(meta: Meta, kind: str) -> str:
    return f"{meta.namespace}/{kind}/{meta.name}"


def _controller_of(meta: Meta) -> tuple[str, str, str] | None:
    """Return (kind, name, uid) of the object's controller."""
    for reference in meta.owner_references or ():
        if reference.controller:
            return reference.kind, reference.name, reference.uid
    return None


def _seconds(meta: Meta) -> float:
    return meta.creation_timestamp.timestamp() if meta.creation_timestamp else 0.0


@dataclass(frozen=True, slots=True)
class _Read:
    """A pod with what only the assembly needs of it."""

    pod: Pod
    spec: PodSpec


class _Owners:
    """Finds what would recreate a pod."""

    def __init__(self, objects: _Objects) -> None:
        self._replicasets = objects.of("ReplicaSet", ControllerObject)
        self._controllers = {
            kind: objects.of(kind, ControllerObject)
            for kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet")
        }

    def of_pod(self, meta: Meta) -> tuple[str, str]:
        """Return key and uid of the pod's final owner, or of the pod itself."""
        owner = _controller_of(meta)
        # A mirror pod is "controlled" by its Node, which recreates nothing elsewhere.
        if owner is None or owner[0] == "Node":
            return _key(meta, "Pod"), meta.uid
        kind, name, uid = owner
        if kind == "ReplicaSet":
            replicaset = self._replicasets.get((meta.namespace, name))
            if replicaset is not None and uid in ("", replicaset.metadata.uid):
                kind, name, uid = _controller_of(replicaset.metadata) or owner
        return f"{meta.namespace}/{kind}/{name}", uid

    def template_of(self, key: str) -> PodSpec | None:
        """Return the pod spec of a controller's template, where the controller is known."""
        namespace, kind, name = key.split("/")
        found = self._controllers.get(kind, {}).get((namespace, name))
        return found.spec.template.spec if found else None


def _node(objects: _Objects, item: NodeObject) -> Node:
    meta, spec, status = item.metadata, item.spec, item.status
    ready = any(c.type == "Ready" and c.status == "True" for c in (status.conditions or () if status else ()))
    quantities = status.allocatable if status else None
    # A node that registers with a live cluster has no status for a moment; it is not ready, so nothing is lost.
    if not (objects.live and not ready and not quantities):
        for name in ("cpu", "memory", "pods"):
            if name not in (quantities or {}):
                raise BadInput(f"{objects.origin}: Node {meta.name}: the field status.allocatable.{name} is missing")
    with objects.naming("Node", meta):
        allocatable = specs.amounts(quantities, "status.allocatable")
    return Node(
        name=meta.name,
        uid=meta.uid,
        labels=meta.labels or {},
        annotations=meta.annotations or {},
        taints=tuple(Taint(t.key, t.value or "", t.effect) for t in (spec.taints or () if spec else ())),
        allocatable=specs.resources(allocatable, pods=allocatable.pop("pods", 0)),
        ready=ready,
        unschedulable=bool(spec and spec.unschedulable),
        deleting=meta.deletion_timestamp is not None,
        provider_id=(spec.provider_id or "") if spec else "",
        created_at=_seconds(meta),
    )


def _pods(objects: _Objects, owners: _Owners) -> list[_Read]:
    found = []
    volumes = _Volumes(objects)
    # Pods of one workload share their constraints; one value for all makes grouping them later a matter of identity.
    shared: dict[NodeConstraints, NodeConstraints] = {}
    shared_rules: dict[PodRules, PodRules] = {}
    shared_wishes: dict[Wishes, Wishes] = {}
    shared_company: dict[Company, Company] = {}
    for item in objects.of("Pod", PodObject).values():
        meta, spec, status = item.metadata, item.spec, item.status
        workload, uid = owners.of_pod(meta)
        with objects.naming("Pod", meta):
            requests = specs.pod_requests(spec, "spec", status)
            wishes = specs.wishes(spec, "spec")
            company = specs.company(spec, meta.namespace, meta.labels or {}, "spec")
        conditions = {c.type: c for c in (status.conditions or () if status else ())}
        scheduled, ready = conditions.get("PodScheduled"), conditions.get("Ready")
        template = owners.template_of(workload)
        required, holds_volume, unmodelled_volumes = volumes.of_pod(meta, spec)
        own = specs.constraints(spec).within(required)
        rules = replace(specs.rules(spec, meta.namespace, meta.labels or {}), holds_volume=holds_volume)
        if required:
            before = specs.constraints(spec)
            rules = replace(rules, spreads=tuple(replace(spread, own=before) for spread in rules.spreads))
        unmodelled = (*specs.unmodelled(spec), *unmodelled_volumes)
        if template is not None and template.node_name:
            unmodelled = (*unmodelled, f"nodeName {template.node_name} in its template")
        pod = Pod(
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            workload=workload,
            workload_uid=uid,
            requests=requests,
            constraints=shared.setdefault(own, own),
            labels=meta.labels or {},
            annotations=meta.annotations or {},
            node=spec.node_name or None,
            phase=(status.phase if status else None) or "Pending",
            ready=ready is not None and ready.status == "True",
            deleting=meta.deletion_timestamp is not None,
            unschedulable=scheduled is not None and scheduled.status == "False" and scheduled.reason == "Unschedulable",
            mirror=_MIRROR in (meta.annotations or {}),
            local_storage=specs.local_storage(spec),
            rules=shared_rules.setdefault(rules, rules),
            wishes=shared_wishes.setdefault(wishes, wishes),
            company=shared_company.setdefault(company, company),
            unmodelled=unmodelled,
            created_at=_seconds(meta),
            scheduler_name=spec.scheduler_name or "default-scheduler",
            priority=spec.priority or 0,
        )
        found.append(_Read(pod, spec))
    return found


def _among_each_other(
    nodes: tuple[Node, ...], pods: list[_Read], templates: Mapping[str, Mapping[str, str]]
) -> list[_Read]:
    """Return the pods with what follows from the rules between them."""
    told = interpreted(nodes, [found.pod for found in pods], templates)
    return [replace(found, pod=pod) for found, pod in zip(pods, told, strict=True)]


class _Volumes:
    """Finds from which nodes a pod's volumes can be reached."""

    def __init__(self, objects: _Objects) -> None:
        self._claims = objects.of("PersistentVolumeClaim", ClaimObject)
        self._volumes = objects.of("PersistentVolume", VolumeObject)
        self._users = Counter(
            (item.metadata.namespace, claim)
            for item in objects.of("Pod", PodObject).values()
            if not (item.status and item.status.phase in ("Succeeded", "Failed"))
            for claim in dict.fromkeys(specs.claims(item.spec))
        )

    def of_pod(self, meta: Meta, spec: PodSpec) -> tuple[list[tuple[NodeSelectorTerm, ...]], bool, list[str]]:
        """Return the terms of each volume (one of which must hold), whether one is bound to one node, and what is
        not modelled.
        """
        required: list[tuple[NodeSelectorTerm, ...]] = []
        single = False
        unmodelled = []
        for name in specs.claims(spec):
            claim = self._claims.get((meta.namespace, name))
            volume = self._volumes.get(("", claim.spec.volume_name or "")) if claim else None
            if volume is None:
                unmodelled.append(f"persistentVolumeClaim {name}, of which no bound volume was read")
                continue
            if not set(volume.spec.access_modes or ()) & {"ReadWriteMany", "ReadOnlyMany"}:
                single = True
                if self._users[(meta.namespace, name)] > 1:
                    unmodelled.append(f"persistentVolumeClaim {name}, which several pods share on one node")
            if volume.spec.node_affinity and volume.spec.node_affinity.required:
                required.append(specs.terms(volume.spec.node_affinity.required))
            for key in (ZONE, REGION, *_OLD_ZONE_LABELS):
                if value := (volume.metadata.labels or {}).get(key):
                    # A volume of several zones has all of them in its label.
                    at = Requirement(key.replace(*_BETA), "In", tuple(sorted(value.split("__"))))
                    required.append((NodeSelectorTerm((at,)),))
        return required, single, unmodelled


def _controllers(objects: _Objects) -> list[Workload]:
    found = []
    for kind in ("Deployment", "StatefulSet", "ReplicaSet"):
        for item in objects.of(kind, ControllerObject).values():
            replicas = 1 if item.spec.replicas is None else item.spec.replicas
            # A Deployment's ReplicaSets are its own affair; those of other owners are counted by their pods.
            if kind == "ReplicaSet" and (replicas == 0 or _controller_of(item.metadata) is not None):
                continue
            with objects.naming(kind, item.metadata):
                if replicas < 0:
                    raise specs.FieldError(f"spec.replicas must be 0 or more, not {replicas}")
                found.append(_controller(item, kind, replicas))
    return found


def _controller(item: ControllerObject, kind: str, replicas: int) -> Workload:
    meta, spec, status = item.metadata, item.spec, item.status
    strategy = spec.strategy if kind == "Deployment" else spec.update_strategy
    update = (strategy.type if strategy else None) or ("OnDelete" if kind == "ReplicaSet" else "RollingUpdate")
    surge, unavailable = 0, 0
    if kind == "Deployment" and update == "RollingUpdate":
        bounds = strategy.rolling_update if strategy else None
        surge = _resolve(bounds.max_surge if bounds else None, replicas, "maxSurge", up=True)
        unavailable = _resolve(bounds.max_unavailable if bounds else None, replicas, "maxUnavailable", up=False)
        if surge == 0 and unavailable == 0:
            unavailable = 1
    template = spec.template
    labels = template.metadata.labels if template.metadata else None
    annotations = template.metadata.annotations if template.metadata else None
    return Workload(
        key=_key(meta, kind),
        uid=meta.uid,
        replicas=replicas,
        ready_replicas=(status.ready_replicas or 0) if status else 0,
        updated_replicas=(status.updated_replicas or 0) if status else 0,
        update=update,
        max_surge=surge,
        max_unavailable=unavailable,
        requests=specs.pod_requests(template.spec, "spec.template.spec"),
        constraints=specs.constraints(template.spec),
        containers=specs.containers(template.spec, "spec.template.spec"),
        annotations=meta.annotations or {},
        template_annotations=annotations or {},
        template_labels=labels or {},
        scheduler_name=template.spec.scheduler_name or "default-scheduler",
        owner=_reverting_owner(meta),
        paused=bool(spec.paused),
        observed=((status.observed_generation or 0) if status else 0) >= meta.generation,
    )


def _reverting_owner(meta: Meta) -> str | None:
    """Name who would take back a change of the workload's template."""
    if owner := _controller_of(meta):
        return f"{owner[0]}/{owner[1]}"
    if (meta.labels or {}).get(_ADDON_MODE) == "Reconcile":
        return "the add-on manager"
    return None


def _resolve(value: IntOrPercent | None, replicas: int, name: str, up: bool) -> int:
    """Resolve a bound of a rolling update, as the Deployment controller does; 25 % where it is not set."""
    return _scaled("25%" if value is None else value, replicas, f"spec.strategy.rollingUpdate.{name}", up)


def _scaled(value: IntOrPercent, whole: int, path: str, up: bool) -> int:
    if isinstance(value, int):
        if value < 0:
            raise specs.FieldError(f"{path} must be 0 or more, not {value}")
        return value
    percent = value.removesuffix("%")
    if percent == value or not percent.isascii() or not percent.isdigit():
        raise specs.FieldError(f'{path} must be a whole number or a percentage such as "25%", not {value!r}')
    product = int(percent) * whole
    return -(-product // 100) if up else product // 100


def _jobs(objects: _Objects) -> Iterable[Workload]:
    for item in objects.of("Job", JobObject).values():
        active = (item.status.active or 0) if item.status else 0
        if not active:
            continue
        template = item.spec.template
        with objects.naming("Job", item.metadata):
            requests = specs.pod_requests(template.spec, "spec.template.spec")
        yield Workload(
            key=_key(item.metadata, "Job"),
            uid=item.metadata.uid,
            replicas=active,
            ready_replicas=(item.status.ready or 0) if item.status else 0,
            updated_replicas=active,
            update="OnDelete",
            requests=requests,
            constraints=specs.constraints(template.spec),
            annotations=item.metadata.annotations or {},
            template_annotations=(template.metadata.annotations if template.metadata else None) or {},
            template_labels=(template.metadata.labels if template.metadata else None) or {},
            scheduler_name=template.spec.scheduler_name or "default-scheduler",
            owner=_reverting_owner(item.metadata),
        )


def _inferred_workloads(pods: list[_Read], known: set[str]) -> Iterable[Workload]:
    """Return a workload for each group of live pods whose controller was not read."""
    groups: dict[str, list[_Read]] = {}
    for found in pods:
        if found.pod.live and not found.pod.stays_with_node and found.pod.workload not in known:
            groups.setdefault(found.pod.workload, []).append(found)
    for key, members in groups.items():
        first = members[0].pod
        yield Workload(
            key=key,
            uid=first.workload_uid,
            replicas=len(members),
            ready_replicas=sum(m.pod.ready for m in members),
            updated_replicas=len(members),
            update="OnDelete",
            requests=first.requests,
            constraints=first.constraints,
            template_labels=first.labels,
            scheduler_name=first.scheduler_name,
            known=False,
        )


def _daemonsets(objects: _Objects, pods: list[_Read]) -> Iterable[DaemonSet]:
    """Return the DaemonSets; each takes at least what its newest pod takes, which knows what admission added."""
    newest: dict[str, _Read] = {}
    for found in pods:
        key = found.pod.workload
        if (
            found.pod.kind == "DaemonSet"
            and found.pod.live
            and not (key in newest and newest[key].pod.created_at >= found.pod.created_at)
        ):
            newest[key] = found
    for item in objects.of("DaemonSet", ControllerObject).values():
        spec = item.spec.template.spec
        key = _key(item.metadata, "DaemonSet")
        with objects.naming("DaemonSet", item.metadata):
            wanted = specs.pod_requests(spec, "spec.template.spec")
        sample = newest.pop(key, None)
        if sample is not None:
            wanted = _larger(wanted, sample.pod.requests).with_shares(sample.pod.requests.shares)
        else:
            ports = port_shares(specs.rules(spec, item.metadata.namespace, {}))
            wanted = wanted.with_shares(tuple(sorted(ports.items())))
        yield DaemonSet(key, item.metadata.uid, wanted, specs.daemon_constraints(spec))
    for key, found in newest.items():
        constraints = specs.without_node_name(specs.daemon_constraints(found.spec))
        yield DaemonSet(key, found.pod.workload_uid, found.pod.requests, constraints)


def _larger(one: Resources, other: Resources) -> Resources:
    a, b = one.amounts(), other.amounts()
    return Resources.from_amounts({name: max(a.get(name, 0), b.get(name, 0)) for name in a | b})


def _budgets(objects: _Objects, pods: list[Pod]) -> list[DisruptionBudget]:
    # A budget without a selector covers no pod; an empty one covers all of its namespace.
    items = [item for item in objects.of("PodDisruptionBudget", BudgetObject).values() if item.spec.selector]
    selectors = [specs.label_selector(item.spec.selector) for item in items if item.spec.selector]
    live = [pod for pod in pods if pod.live]
    covered, healthy = LabelTally(live, selectors), LabelTally((p for p in live if p.ready), selectors)
    found = []
    for item, selector in zip(items, selectors, strict=True):
        namespace = item.metadata.namespace
        with objects.naming("PodDisruptionBudget", item.metadata):
            counts = covered.count(namespace, selector), healthy.count(namespace, selector)
            found.append(_budget(item, selector, *counts))
    return found


def _budget(item: BudgetObject, selector: LabelSelector, covered: int, healthy: int) -> DisruptionBudget:
    meta, spec, status = item.metadata, item.spec, item.status
    budget = DisruptionBudget(meta.namespace, meta.name, selector, desired_healthy=0, disruptions_allowed=0)
    if status is not None and status.desired_healthy is not None:
        return replace(
            budget, desired_healthy=status.desired_healthy, disruptions_allowed=status.disruptions_allowed or 0
        )
    # Percentages round up, of both kinds. Source: pkg/controller/disruption/disruption.go, getExpectedPodCount.
    if spec.max_unavailable is not None:
        tolerated = _scaled(spec.max_unavailable, covered, "spec.maxUnavailable", up=True)
        desired = max(0, covered - tolerated)
    else:
        desired = _scaled(spec.min_available or 0, covered, "spec.minAvailable", up=True)
    return replace(budget, desired_healthy=desired, disruptions_allowed=max(0, healthy - desired))


def _autoscaler(item: AutoscalerObject) -> Autoscaler:
    meta, spec, status = item.metadata, item.spec, item.status
    current = _percentages(status.current_metrics if status else None)
    return Autoscaler(
        key=_key(meta, "HorizontalPodAutoscaler"),
        workload=f"{meta.namespace}/{spec.scale_target_ref.kind}/{spec.scale_target_ref.name}",
        current_replicas=(status.current_replicas or 0) if status else 0,
        desired_replicas=(status.desired_replicas or 0) if status else 0,
        max_replicas=spec.max_replicas,
        utilizations=tuple(
            Utilization(name, current[name], target)
            for name, target in _percentages(spec.metrics).items()
            if name in current
        ),
    )


def _percentages(metrics: Iterable[Metric] | None) -> dict[str, float]:
    """Return the utilizations among the metrics: of a resource by its name, of one container by both names."""
    found: dict[str, float] = {}
    for metric in metrics or ():
        source = metric.resource or metric.container_resource
        value = source and (source.target or source.current)
        if source and value and value.average_utilization is not None:
            name = f"{source.container}/{source.name}" if source.container else source.name
            found[name] = float(value.average_utilization)
    return found
