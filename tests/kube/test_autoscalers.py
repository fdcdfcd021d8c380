"""Autoscalers as they are read."""

from __future__ import annotations

from planner.model.cluster import Utilization
from tests.kube.documents import Json, meta, read


def test_an_autoscaler_pairs_current_and_target_utilization() -> None:
    def utilization(of: str, kind: str, percent: int, **more: str) -> Json:
        return {"name": of, kind: {"averageUtilization": percent}, **more}

    item = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": meta("h"),
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            "maxReplicas": 9,
            "metrics": [
                {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"value": "3"}}},
                {"type": "Resource", "resource": utilization("cpu", "target", 60)},
                {
                    "type": "ContainerResource",
                    "containerResource": utilization("cpu", "target", 70, container="main"),
                },
                {"type": "Resource", "resource": utilization("memory", "target", 80)},
            ],
        },
        "status": {
            "currentReplicas": 2,
            "desiredReplicas": 3,
            "currentMetrics": [
                {"type": "Resource", "resource": utilization("cpu", "current", 90)},
                {
                    "type": "ContainerResource",
                    "containerResource": utilization("cpu", "current", 50, container="main"),
                },
            ],
        },
    }
    (found,) = read(item).autoscalers
    assert (found.workload, found.current_replicas, found.desired_replicas) == ("default/Deployment/web", 2, 3)
    assert found.utilizations == (Utilization("cpu", 90.0, 60.0), Utilization("main/cpu", 50.0, 70.0))
