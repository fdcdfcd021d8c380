"""Controllers as they are read, their strategies resolved."""

from __future__ import annotations

import pytest

from planner.model.cluster import Workload
from planner.model.resources import Resources
from tests.kube.documents import Json, container, controller, meta, pod, read

MIB = 1024**2


def strategy(**bounds: object) -> Json:
    return {"type": "RollingUpdate", "rollingUpdate": bounds}


@pytest.mark.parametrize(
    ("replicas", "given", "surge", "unavailable"),
    [
        (10, strategy(), 3, 2),  # 25 % of 10: 2.5 up, 2.5 down
        (1, strategy(), 1, 0),
        (10, strategy(maxSurge="15%", maxUnavailable="15%"), 2, 1),
        (10, strategy(maxSurge=3, maxUnavailable=0), 3, 0),
        (3, strategy(maxSurge=0, maxUnavailable="10%"), 0, 1),  # 0.3 down is 0; both 0 becomes 1 unavailable
        (0, strategy(), 0, 1),
        (5, {"type": "Recreate"}, 0, 0),
    ],
)
def test_a_strategy_is_resolved_as_the_deployment_controller_does(
    replicas: int, given: Json, surge: int, unavailable: int
) -> None:
    (found,) = read(controller("Deployment", "d", replicas, strategy=given)).workloads
    assert (found.max_surge, found.max_unavailable, found.update) == (surge, unavailable, given["type"])


def test_a_deployment_is_read_with_its_template_and_status() -> None:
    item = controller(
        "Deployment",
        "d",
        3,
        {
            "containers": [container("a", "100m", "1Mi"), container("b", "50m")],
            "initContainers": [container("i", "1")],
            "schedulerName": "kinema-scheduler",
            "nodeSelector": {"disk": "ssd"},
        },
        generation=4,
        paused=True,
        status={"readyReplicas": 2, "updatedReplicas": 1, "observedGeneration": 3},
    )
    item["metadata"]["annotations"] = {"k": "v"}
    item["spec"]["template"]["metadata"] = {"labels": {"app": "d"}, "annotations": {"kinema.io/iteration": "i"}}
    (found,) = read(item).workloads
    assert (found.replicas, found.ready_replicas, found.updated_replicas) == (3, 2, 1)
    assert found.requests == Resources(1000, MIB, 1)  # max(100m + 50m, the init container's 1)
    assert [(c.name, c.requests) for c in found.containers] == [("a", Resources(100, MIB)), ("b", Resources(50))]
    assert found.constraints.node_selector == (("disk", "ssd"),)
    assert (found.annotations, found.template_labels) == ({"k": "v"}, {"app": "d"})
    assert found.template_annotations == {"kinema.io/iteration": "i"}
    assert (found.scheduler_name, found.paused, found.observed) == ("kinema-scheduler", True, False)


def test_a_statefulset_is_updated_by_its_own_strategy() -> None:
    plain = controller("StatefulSet", "a", 2)
    by_hand = controller("StatefulSet", "b", 2, updateStrategy={"type": "OnDelete"})
    assert [(w.update, w.max_unavailable) for w in read(plain, by_hand).workloads] == [
        ("RollingUpdate", 0),
        ("OnDelete", 0),
    ]


def test_a_job_counts_while_it_has_active_pods() -> None:
    def job(name: str, status: Json) -> Json:
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": meta(name),
            "spec": {"template": {"spec": {"containers": [container("main", "1")]}}},
            "status": status,
        }

    (found,) = read(job("done", {"succeeded": 1}), job("busy", {"active": 2, "ready": 1})).workloads
    assert (found.key, found.replicas, found.ready_replicas) == ("default/Job/busy", 2, 1)


def test_an_inferred_workload_is_never_rolled_out() -> None:
    (found,) = read(pod("p", owner=("ReplicaSet", "r"))).workloads
    assert isinstance(found, Workload)
    assert (found.update, found.max_surge, found.known) == ("OnDelete", 0, False)
