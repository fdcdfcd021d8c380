"""What a pod spec asks for, as kube-scheduler counts it: requests, constraints on nodes, and what is not modelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from planner.kube.objects import ContainerObject, Expression, PodSpec, PodStatus, Quantity, Requirements, Selector
from planner.kube.quantities import MILLI, parse_quantity
from planner.model.cluster import Container
from planner.model.resources import Resources
from planner.model.scheduling import LabelSelector, NodeConstraints, NodeSelectorTerm, Requirement, Toleration

Amounts = dict[str, int]

_FIELDS = {"cpu": "cpu_millicores", "memory": "memory_bytes", "ephemeral-storage": "ephemeral_storage_bytes"}
_HARMLESS_VOLUMES = frozenset({"name", "configMap", "secret", "projected", "downwardAPI", "nfs", "image"})
_POD_LEVEL = ("cpu", "memory")

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
    terms = None
    if affinity is not None:
        terms = tuple(
            NodeSelectorTerm(_requirements(term.match_expressions), _requirements(term.match_fields))
            for term in affinity.node_selector_terms or ()
        )
    tolerations = tuple(
        Toleration(t.key or "", t.operator or "Equal", t.value or "", t.effect or "")
        for t in spec.tolerations or ()
        # Comparisons such as Gt (alpha) are left out: a pod is then kept off nodes that it might tolerate.
        if t.operator in (None, "", "Equal", "Exists")
    )
    return NodeConstraints(tuple(sorted((spec.node_selector or {}).items())), terms, tolerations)


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


def unmodelled(spec: PodSpec) -> tuple[str, ...]:
    """Name each hard constraint of the pod that the optimizer does not know; soft ones do not count."""
    found = []
    if spec.affinity and spec.affinity.pod_affinity and spec.affinity.pod_affinity.required:
        found.append("required podAffinity")
    if spec.affinity and spec.affinity.pod_anti_affinity and spec.affinity.pod_anti_affinity.required:
        found.append("required podAntiAffinity")
    for spread in spec.topology_spread_constraints or ():
        if spread.when_unsatisfiable != "ScheduleAnyway":
            found.append(f"topologySpreadConstraints over {spread.topology_key}")
    for container in (*spec.containers, *(spec.init_containers or ())):
        for port in container.ports or ():
            if taken := port.host_port or (port.container_port if spec.host_network else 0):
                found.append(f"hostPort {taken}")
    for volume in spec.volumes or ():
        for source in sorted(volume.keys() - _HARMLESS_VOLUMES - {"emptyDir"}):
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
