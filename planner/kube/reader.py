"""Kubernetes objects, from a dump or the API server, as one Snapshot."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from planner import ports
from planner.errors import BadInput, KubernetesError
from planner.kube.autoscalers import autoscalers
from planner.kube.budgets import budgets
from planner.kube.collection import SHAPES, Objects
from planner.kube.daemonsets import daemonsets
from planner.kube.nodes import nodes
from planner.kube.objects import Head
from planner.kube.pods import owned_pods, with_rules_among
from planner.kube.record import read_record
from planner.kube.workloads import controllers, inferred_workloads, jobs
from planner.model.cluster import Pod, Snapshot

_KINDS = {kind.lower(): kind for kind in SHAPES}
_LISTS = frozenset(("List", *(f"{kind}List" for kind in SHAPES)))
_EXPECTED = "expected what `kubectl get nodes,pods,… -A -o json` prints"


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
    objects = Objects(origin)
    if not head.kind:
        raise BadInput(f"{origin}: the field kind is missing; {_EXPECTED}")
    if head.items is msgspec.UNSET:
        if head.kind.endswith("List"):
            raise BadInput(f"{origin}: the field items is missing from the {head.kind}; {_EXPECTED}")
        if head.kind not in SHAPES:
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
        if kind not in SHAPES and (meant := _KINDS.get(kind.lower())):
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
    objects = Objects("the cluster", live=True)
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
    objects = Objects("the cluster", live=True)
    try:
        for item in listing.items:
            objects.add("Pod", "", item)
        return tuple(found.pod for found in owned_pods(objects))
    except BadInput as error:
        raise KubernetesError(str(error)) from None


def assemble(objects: Objects) -> Snapshot:
    """Build the snapshot: owners resolved, strategies resolved against replicas, absent controllers inferred."""
    found_nodes = nodes(objects)
    known = [*controllers(objects), *jobs(objects)]
    templates = {workload.key: workload.template_labels for workload in known}
    pods = with_rules_among(found_nodes, owned_pods(objects), templates)
    return Snapshot(
        nodes=found_nodes,
        pods=tuple(found.pod for found in pods),
        workloads=(*known, *inferred_workloads(pods, {workload.key for workload in known})),
        daemonsets=tuple(daemonsets(objects, pods)),
        budgets=tuple(budgets(objects, [found.pod for found in pods])),
        autoscalers=autoscalers(objects),
    )
