"""DaemonSets, with what their pods take on a node."""

from __future__ import annotations

from collections.abc import Iterable

from planner.kube import specs
from planner.kube.collection import Objects
from planner.kube.objects import ControllerObject
from planner.kube.pods import ReadPod
from planner.model.cluster import DaemonSet
from planner.model.coexistence import port_shares
from planner.model.resources import Resources


def daemonsets(objects: Objects, pods: list[ReadPod]) -> Iterable[DaemonSet]:
    """Return the DaemonSets; each takes at least what its newest pod takes, which knows what admission added."""
    newest: dict[str, ReadPod] = {}
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
        key = item.metadata.key("DaemonSet")
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
