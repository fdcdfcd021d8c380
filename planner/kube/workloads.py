"""Controllers as the model's workloads, their strategies resolved against their replicas."""

from __future__ import annotations

from collections.abc import Iterable

from planner.kube import specs
from planner.kube.collection import Objects
from planner.kube.objects import ControllerObject, IntOrPercent, JobObject, Meta
from planner.kube.pods import ReadPod
from planner.model.cluster import Workload

_ADDON_MODE = "addonmanager.kubernetes.io/mode"


def controllers(objects: Objects) -> list[Workload]:
    """Return the Deployments, StatefulSets and ReplicaSets without an owner.

    Raises:
        BadInput: a field is wrong.
    """
    found = []
    for kind in ("Deployment", "StatefulSet", "ReplicaSet"):
        for item in objects.of(kind, ControllerObject).values():
            replicas = 1 if item.spec.replicas is None else item.spec.replicas
            # A Deployment's ReplicaSets are its own affair; those of other owners are counted by their pods.
            if kind == "ReplicaSet" and (replicas == 0 or item.metadata.controller is not None):
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
        key=meta.key(kind),
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
    if owner := meta.controller:
        return f"{owner[0]}/{owner[1]}"
    if (meta.labels or {}).get(_ADDON_MODE) == "Reconcile":
        return "the add-on manager"
    return None


def _resolve(value: IntOrPercent | None, replicas: int, name: str, up: bool) -> int:
    """Resolve a bound of a rolling update, as the Deployment controller does; 25 % where it is not set."""
    return specs.scaled("25%" if value is None else value, replicas, f"spec.strategy.rollingUpdate.{name}", up)


def jobs(objects: Objects) -> Iterable[Workload]:
    """Yield the Jobs that have active pods, as many replicas as those.

    Raises:
        BadInput: a request is wrong.
    """
    for item in objects.of("Job", JobObject).values():
        active = (item.status.active or 0) if item.status else 0
        if not active:
            continue
        template = item.spec.template
        with objects.naming("Job", item.metadata):
            requests = specs.pod_requests(template.spec, "spec.template.spec")
        yield Workload(
            key=item.metadata.key("Job"),
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


def inferred_workloads(pods: list[ReadPod], known: set[str]) -> Iterable[Workload]:
    """Return a workload for each group of live pods whose controller was not read."""
    groups: dict[str, list[ReadPod]] = {}
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
