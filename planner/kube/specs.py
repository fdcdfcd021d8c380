"""What a pod spec asks for, as kube-scheduler counts it: requests, constraints on nodes, and what is not modelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from planner import labels as keys
from planner.kube.objects import (
    ContainerObject,
    Expression,
    IntOrPercent,
    NodeTerm,
    NodeTerms,
    PodSpec,
    PodStatus,
    Quantity,
    Requirements,
    Selector,
)
from planner.kube.objects import PodTerm as ObjectTerm
from planner.model.cluster import HOSTNAME, Container
from planner.model.preferences import Company, Wish, Wishes
from planner.model.resources import Resources
from planner.model.scheduling import (
    LabelSelector,
    NodeConstraints,
    NodeSelectorTerm,
    PodRules,
    PodTerm,
    Requirement,
    Spread,
    Toleration,
)
from planner.quantities import MILLI, parse_quantity

Amounts = dict[str, int]

_FIELDS = {"cpu": "cpu_millicores", "memory": "memory_bytes", "ephemeral-storage": "ephemeral_storage_bytes"}
_HARMLESS_VOLUMES = frozenset({"name", "configMap", "secret", "projected", "downwardAPI", "nfs", "image"})
_POD_LEVEL = ("cpu", "memory")
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_NOTHING = LabelSelector((Requirement("", "In", ()),))
"""Matches no pod: what a spread without a selector counts."""

DAEMON_TOLERATIONS = (
    Toleration("node.kubernetes.io/not-ready", "Exists", effect="NoExecute"),
    Toleration("node.kubernetes.io/unreachable", "Exists", effect="NoExecute"),
    Toleration("node.kubernetes.io/disk-pressure", "Exists", effect="NoSchedule"),
    Toleration("node.kubernetes.io/memory-pressure", "Exists", effect="NoSchedule"),
    Toleration("node.kubernetes.io/pid-pressure", "Exists", effect="NoSchedule"),
    Toleration("node.kubernetes.io/unschedulable", "Exists", effect="NoSchedule"),
)
"""What the DaemonSet controller adds to its pods. Source: pkg/controller/daemon/util/daemonset_util.go."""

HOST_NETWORK_TOLERATION = Toleration("node.kubernetes.io/network-unavailable", "Exists", effect="NoSchedule")


class FieldError(ValueError):
    """A field of an object has a wrong value; the text names the field, the value and what would be right."""


def scaled(value: IntOrPercent, whole: int, path: str, up: bool) -> int:
    """Resolve a count or a percentage of a whole, rounded `up` or down.

    Raises:
        FieldError: it is neither.
    """
    if isinstance(value, int):
        if value < 0:
            raise FieldError(f"{path} must be 0 or more, not {value}")
        return value
    percent = value.removesuffix("%")
    if percent == value or not percent.isascii() or not percent.isdigit():
        raise FieldError(f'{path} must be a whole number or a percentage such as "25%", not {value!r}')
    product = int(percent) * whole
    return -(-product // 100) if up else product // 100


def amounts(quantities: Mapping[str, Quantity] | None, path: str) -> Amounts:
    """Read a map of quantities, keyed as in Kubernetes: CPU in millicores, everything else whole.

    Raises:
        FieldError: a value is no quantity.
    """
    found: Amounts = {}
    for name, value in (quantities or {}).items():
        try:
            found[name] = parse_quantity(value, MILLI if name == "cpu" else 1)
        except ValueError as error:
            raise FieldError(f"{path}.{name} {error}") from None
    return found


def resources(counted: Amounts, pods: int = 0) -> Resources:
    """Turn amounts keyed as in Kubernetes into the model's."""
    return Resources.from_amounts({_FIELDS.get(name, name): value for name, value in counted.items()} | {"pods": pods})


def pod_requests(spec: PodSpec, path: str, status: PodStatus | None = None) -> Resources:
    """Return what the scheduler counts for a pod.

    max(containers + sidecars, each init container + the sidecars started before it) + overhead; a request that
    is set for the whole pod replaces the sum. A container that is being resized in place counts with the largest
    of what it should get, was allocated and has.
    Source: k8s.io/component-helpers/resource/helpers.go, PodRequests.

    Raises:
        FieldError: a value is no quantity.
    """
    actual: dict[str, list[Amounts]] = {}
    for index, state in enumerate(status.container_statuses or () if status else ()):
        at = f"status.containerStatuses[{index}]"
        have = state.resources.requests if state.resources else None
        actual[state.name] = [
            amounts(have, f"{at}.resources.requests"),
            amounts(state.allocated_resources, f"{at}.allocatedResources"),
        ]
    total: Amounts = {}
    for index, container in enumerate(spec.containers):
        wanted = container_requests(container, f"{path}.containers[{index}]")
        _combine(total, _largest(wanted, *actual.get(container.name, ())), int.__add__)
    sidecars: Amounts = {}
    peak: Amounts = {}
    for index, container in enumerate(spec.init_containers or ()):
        wanted = container_requests(container, f"{path}.initContainers[{index}]")
        if container.restart_policy == "Always":
            _combine(total, wanted, int.__add__)
            _combine(sidecars, wanted, int.__add__)
            _combine(peak, sidecars, max)
        else:
            _combine(wanted, sidecars, int.__add__)
            _combine(peak, wanted, max)
    _combine(total, peak, max)
    if spec.resources:
        total |= _pod_level(spec.resources, total, f"{path}.resources")
    _combine(total, amounts(spec.overhead, f"{path}.overhead"), int.__add__)
    return resources(total, pods=1)


def container_requests(container: ContainerObject, path: str) -> Amounts:
    """Return a container's requests; where only a limit is given, that is the request.

    Raises:
        FieldError: a value is no quantity.
    """
    if container.resources is None:
        return {}
    limits = amounts(container.resources.limits, f"{path}.resources.limits")
    return limits | amounts(container.resources.requests, f"{path}.resources.requests")


def containers(spec: PodSpec, path: str) -> tuple[Container, ...]:
    """Return a template's containers with the CPU and memory that each requests."""
    found = []
    for index, container in enumerate(spec.containers):
        wanted = container_requests(container, f"{path}.containers[{index}]")
        found.append(Container(container.name, Resources(wanted.get("cpu", 0), wanted.get("memory", 0))))
    return tuple(found)


def constraints(spec: PodSpec) -> NodeConstraints:
    """Return which nodes the pod may run on."""
    affinity = spec.affinity.node_affinity.required if spec.affinity and spec.affinity.node_affinity else None
    tolerations = tuple(
        Toleration(t.key or "", t.operator or "Equal", t.value or "", t.effect or "")
        for t in spec.tolerations or ()
        # Comparisons such as Gt (alpha) are left out: a pod is then kept off nodes that it might tolerate.
        if t.operator in (None, "", "Equal", "Exists")
    )
    required = terms(affinity) if affinity is not None else None
    return NodeConstraints(tuple(sorted((spec.node_selector or {}).items())), required, tolerations)


def wishes(spec: PodSpec, path: str) -> Wishes:
    """Return what the pod prefers of its node; terms about Kinema's own marks steer, and empty ones say nothing.

    Raises:
        FieldError: a weight is not between 1 and 100.
    """
    preferred = spec.affinity.node_affinity.preferred if spec.affinity and spec.affinity.node_affinity else None
    found = []
    for index, item in enumerate(preferred or ()):
        _check_weight(item.weight, f"{path}.affinity.nodeAffinity.{_PREFERRED}[{index}]")
        term = _term(item.preference)
        marks = any(requirement.key in (keys.OPTIMAL, keys.EXPIRING) for requirement in term.expressions)
        if term != NodeSelectorTerm() and not marks:
            found.append(Wish(item.weight, term))
    return tuple(found)


def daemon_constraints(spec: PodSpec) -> NodeConstraints:
    """Return which nodes a DaemonSet of this template runs on: its constraints and the controller's tolerations."""
    own = constraints(spec)
    added = (*DAEMON_TOLERATIONS, HOST_NETWORK_TOLERATION) if spec.host_network else DAEMON_TOLERATIONS
    tolerations = own.tolerations + tuple(t for t in added if t not in own.tolerations)
    return NodeConstraints(own.node_selector, own.required_terms, tolerations)


def without_node_name(found: NodeConstraints) -> NodeConstraints:
    """Return a DaemonSet pod's constraints without the name of its node, which the controller put there.

    The controller replaces every required term by one on metadata.name, so what the template required is lost.
    """
    if found.required_terms is None:
        return found
    terms = []
    for term in found.required_terms:
        fields = tuple(f for f in term.fields if f.key != "metadata.name")
        if not term.expressions and not fields:
            return NodeConstraints(found.node_selector, None, found.tolerations)
        terms.append(NodeSelectorTerm(term.expressions, fields))
    return NodeConstraints(found.node_selector, tuple(terms), found.tolerations)


def label_selector(selector: Selector) -> LabelSelector:
    """Return a label selector; an empty one matches everything."""
    exact = tuple(Requirement(key, "In", (value,)) for key, value in sorted((selector.match_labels or {}).items()))
    return LabelSelector(exact + _requirements(selector.match_expressions))


def rules(spec: PodSpec, namespace: str, labels: Mapping[str, str]) -> PodRules:
    """Return what a pod of this namespace and these labels demands of the pods around it.

    A namespaceSelector of an anti-affinity counts as all namespaces: at worst two pods stand apart that need not.
    Two ports on different addresses of a host count as one.
    """
    affinity = spec.affinity
    near = affinity.pod_affinity.required or () if affinity and affinity.pod_affinity else ()
    apart = affinity.pod_anti_affinity.required or () if affinity and affinity.pod_anti_affinity else ()
    sidecars = (c for c in spec.init_containers or () if c.restart_policy == "Always")
    # As kube-scheduler counts them. Source: pkg/scheduler/util/utils.go, GetHostPorts.
    ports = {
        (port.protocol or "TCP", taken)
        for container in (*spec.containers, *sidecars)
        for port in container.ports or ()
        if (taken := port.host_port or (port.container_port if spec.host_network else 0))
    }
    return PodRules(
        affinity=tuple(_pod_term(term, namespace, labels) for term in near),
        anti_affinity=tuple(_pod_term(term, namespace, labels) for term in apart),
        spreads=_spreads(spec, labels, soft=False),
        host_ports=tuple(sorted(ports)),
    )


def company(spec: PodSpec, namespace: str, labels: Mapping[str, str], path: str) -> Company:
    """Return what a pod of this namespace and these labels would like of the pods around it.

    Raises:
        FieldError: a weight is not between 1 and 100.
    """
    affinity = spec.affinity
    near = affinity.pod_affinity.preferred or () if affinity and affinity.pod_affinity else ()
    apart = affinity.pod_anti_affinity.preferred or () if affinity and affinity.pod_anti_affinity else ()
    for kind, items in (("podAffinity", near), ("podAntiAffinity", apart)):
        for index, item in enumerate(items):
            _check_weight(item.weight, f"{path}.affinity.{kind}.{_PREFERRED}[{index}]")
    return Company(
        tuple((item.weight, _pod_term(item.pod_affinity_term, namespace, labels)) for item in near),
        tuple((item.weight, _pod_term(item.pod_affinity_term, namespace, labels)) for item in apart),
        _spreads(spec, labels, soft=True),
    )


def _check_weight(weight: int, at: str) -> None:
    if not 1 <= weight <= 100:
        raise FieldError(f"{at}.weight must be between 1 and 100, not {weight}")


def _spreads(spec: PodSpec, labels: Mapping[str, str], *, soft: bool) -> tuple[Spread, ...]:
    every = spec.topology_spread_constraints or ()
    spreads = [spread for spread in every if (spread.when_unsatisfiable == "ScheduleAnyway") == soft]
    keys = dict.fromkeys(spread.topology_key for spread in spreads if spread.topology_key != HOSTNAME)
    return tuple(
        Spread(
            topology_key=spread.topology_key,
            max_skew=spread.max_skew,
            selector=_selector_with(spread.label_selector, labels, spread.match_label_keys, ()) or _NOTHING,
            min_domains=spread.min_domains or 1,
            honors_affinity=spread.node_affinity_policy != "Ignore",
            honors_taints=spread.node_taints_policy == "Honor",
            beside=tuple(key for key in keys if key != spread.topology_key),
        )
        for spread in spreads
    )


def _pod_term(term: ObjectTerm, namespace: str, labels: Mapping[str, str]) -> PodTerm:
    return PodTerm(
        topology_key=term.topology_key,
        namespaces=None if term.namespace_selector is not None else frozenset(term.namespaces or (namespace,)),
        selector=_selector_with(term.label_selector, labels, term.match_label_keys, term.mismatch_label_keys),
    )


def _selector_with(
    selector: Selector | None, labels: Mapping[str, str], same: Iterable[str] | None, other: Iterable[str] | None
) -> LabelSelector | None:
    """Return the selector with what matchLabelKeys and mismatchLabelKeys add to it; without one nothing matches."""
    if selector is None:
        return None
    found = label_selector(selector).requirements
    added = [Requirement(key, "In", (labels[key],)) for key in same or () if key in labels]
    added += [Requirement(key, "NotIn", (labels[key],)) for key in other or () if key in labels]
    return LabelSelector(found + tuple(r for r in added if r not in found))


def claims(spec: PodSpec) -> tuple[str, ...]:
    """Name the PersistentVolumeClaims that the pod uses."""
    found = []
    for volume in spec.volumes or ():
        source = volume.get("persistentVolumeClaim")
        if isinstance(source, dict) and isinstance(source.get("claimName"), str):
            found.append(source["claimName"])
    return tuple(found)


def terms(affinity: NodeTerms) -> tuple[NodeSelectorTerm, ...]:
    """Return the terms of a required node affinity, one of which must hold."""
    return tuple(_term(term) for term in affinity.node_selector_terms or ())


def _term(term: NodeTerm) -> NodeSelectorTerm:
    return NodeSelectorTerm(_requirements(term.match_expressions), _requirements(term.match_fields))


def unmodelled(spec: PodSpec) -> tuple[str, ...]:
    """Name each hard constraint of the pod that the optimizer does not know; soft ones do not count.

    What is demanded of other pods, and claims of volumes, are looked at where all pods and volumes are known.
    """
    found = []
    near = spec.affinity.pod_affinity.required or () if spec.affinity and spec.affinity.pod_affinity else ()
    if any(term.namespace_selector is not None for term in near):
        found.append("a namespaceSelector in its required podAffinity")
    for volume in spec.volumes or ():
        for source in sorted(volume.keys() - _HARMLESS_VOLUMES - {"emptyDir", "persistentVolumeClaim"}):
            if volume[source] is not None:
                found.append(f"{source} volume {volume.get('name', '')}".rstrip())
    if spec.resource_claims:
        found.append("resourceClaims")
    if spec.scheduling_gates:
        found.append("schedulingGates")
    return tuple(dict.fromkeys(found))


def local_storage(spec: PodSpec) -> bool:
    """Say whether the pod has an emptyDir volume on the node's disk."""
    for volume in spec.volumes or ():
        empty = volume.get("emptyDir")
        if isinstance(empty, dict) and empty.get("medium") != "Memory":
            return True
    return False


def _requirements(expressions: Iterable[Expression] | None) -> tuple[Requirement, ...]:
    return tuple(Requirement(e.key, e.operator, e.values or ()) for e in expressions or ())


def _pod_level(own: Requirements, summed: Amounts, path: str) -> Amounts:
    """Return the requests of the whole pod; a limit without a request counts where no container requests any."""
    limits = amounts(own.limits, f"{path}.limits")
    wanted = {name: value for name, value in limits.items() if name not in summed}
    wanted |= amounts(own.requests, f"{path}.requests")
    return {name: value for name, value in wanted.items() if name in _POD_LEVEL or name.startswith("hugepages-")}


def _largest(*several: Amounts) -> Amounts:
    found: Amounts = {}
    for one in several:
        _combine(found, one, max)
    return found


def _combine(total: Amounts, more: Amounts, how: Callable[[int, int], int]) -> None:
    for name, value in more.items():
        total[name] = how(total.get(name, 0), value)
