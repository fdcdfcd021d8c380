"""HorizontalPodAutoscalers, with the utilizations that they measure."""

from __future__ import annotations

from collections.abc import Iterable

from planner.kube.collection import Objects
from planner.kube.objects import AutoscalerObject, Metric
from planner.model.cluster import Autoscaler, Utilization


def autoscalers(objects: Objects) -> tuple[Autoscaler, ...]:
    """Return the autoscalers of a reading."""
    return tuple(_autoscaler(item) for item in objects.of("HorizontalPodAutoscaler", AutoscalerObject).values())


def _autoscaler(item: AutoscalerObject) -> Autoscaler:
    meta, spec, status = item.metadata, item.spec, item.status
    current = _percentages(status.current_metrics if status else None)
    return Autoscaler(
        key=meta.key("HorizontalPodAutoscaler"),
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
