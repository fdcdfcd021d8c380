"""What the server fills into objects and refuses in them: defaults, admission, fields that may not change."""

from __future__ import annotations

from typing import Final

from planner.errors import KubernetesError
from planner.ports import BUDGETS, DAEMONSETS, DEPLOYMENTS, JOBS, NODES, PODS, REPLICASETS, STATEFULSETS, Resource
from simulator.selectors import selects
from simulator.status import is_ready
from simulator.store import Json, controller_of

NOT_READY: Final = "node.kubernetes.io/not-ready"
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
WITH_STATUS: Final = frozenset({NODES, PODS, DEPLOYMENTS, REPLICASETS, STATEFULSETS, DAEMONSETS, JOBS, BUDGETS})
"""Kinds whose status only controllers write."""

_WITH_TEMPLATE: Final = frozenset({DEPLOYMENTS, REPLICASETS, STATEFULSETS, DAEMONSETS, JOBS})
_DAEMON_TOLERATED: Final = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}


def admit(resource: Resource, body: Json) -> None:
    """Fill in what the server's defaults and admission add, as far as anything here reads it."""
    if resource == NODES:
        spec = body.setdefault("spec", {})
        body.setdefault("status", {})
        if not is_ready(body):
            # Admission TaintNodesByCondition: a new node takes no pods until it has reported.
            taints = spec.setdefault("taints", [])
            if not any(taint["key"] == NOT_READY for taint in taints):
                taints.append({"key": NOT_READY, "effect": "NoSchedule"})
        return
    if resource in WITH_STATUS:
        body["status"] = {}
    if resource == PODS:
        _default_pod_spec(body["spec"])
        body["status"] = {"phase": "Pending"}
        tolerations = body["spec"].setdefault("tolerations", [])
        for key in (NOT_READY, UNREACHABLE):
            if not any(t.get("key") in (None, "", key) and t.get("effect") != "NoSchedule" for t in tolerations):
                tolerations.append({"key": key, **_DAEMON_TOLERATED})
        if controller_of(body) is None:
            body["metadata"].setdefault("labels", {})
    if resource in _WITH_TEMPLATE:
        spec = body["spec"]
        _default_pod_spec(spec["template"]["spec"])
        if resource in (DEPLOYMENTS, REPLICASETS, STATEFULSETS):
            spec.setdefault("replicas", 1)
        if resource == DEPLOYMENTS:
            _default_deployment(spec)
        if resource in (STATEFULSETS, DAEMONSETS):
            spec.setdefault("updateStrategy", {"type": "RollingUpdate"})
            spec.setdefault("revisionHistoryLimit", 10)
        if resource == STATEFULSETS:
            spec.setdefault("podManagementPolicy", "OrderedReady")
        if resource == JOBS:
            spec.setdefault("completions", 1)
            spec.setdefault("parallelism", 1)
        _check_selector(resource, body)


def check_immutable(resource: Resource, old: Json, new: Json) -> None:
    """Refuse a change of what nobody may change.

    Raises:
        KubernetesError: 422, with the field.
    """
    name = new["metadata"]["name"]
    if resource == PODS and _fixed_part(old["spec"]) != _fixed_part(new.get("spec", {})):
        raise KubernetesError(f'422: Pod "{name}" is invalid: spec: Forbidden: pod updates may not change these fields')
    if resource in (DEPLOYMENTS, REPLICASETS, STATEFULSETS, DAEMONSETS, JOBS):
        if old["spec"].get("selector") != new.get("spec", {}).get("selector"):
            raise KubernetesError(f'422: {resource.kind} "{name}" is invalid: spec.selector: field is immutable')
        _check_selector(resource, new)


def _fixed_part(spec: Json) -> Json:
    """Return what nobody may change of a pod's spec."""
    changeable = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations")
    fixed = {key: value for key, value in spec.items() if key not in changeable}
    for field in ("containers", "initContainers"):
        if field in fixed:
            fixed[field] = [{k: v for k, v in c.items() if k != "image"} for c in fixed[field]]
    return fixed


def _check_selector(resource: Resource, body: Json) -> None:
    if resource == JOBS:
        return
    spec = body["spec"]
    if not selects(spec.get("selector"), {"metadata": spec["template"].get("metadata") or {}}):
        raise KubernetesError(
            f'422: {resource.kind} "{body["metadata"]["name"]}" is invalid: spec.template.metadata.labels: '
            "`selector` does not match template `labels`"
        )


def _default_deployment(spec: Json) -> None:
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", "25%")
        rolling.setdefault("maxUnavailable", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def _default_pod_spec(spec: Json) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    for container in [*spec.get("containers", ()), *spec.get("initContainers", ())]:
        resources = container.setdefault("resources", {})
        for name, quantity in (resources.get("limits") or {}).items():
            resources.setdefault("requests", {}).setdefault(name, quantity)
