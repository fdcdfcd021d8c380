"""DaemonSets as they are read."""

from __future__ import annotations

from planner.model.resources import Resources
from planner.model.scheduling import Taint
from tests.kube.documents import Json, container, controller, pod, read

MIB = 1024**2


def test_a_daemonset_takes_what_its_newest_pod_takes_if_that_is_more() -> None:
    (found,) = read(
        controller("DaemonSet", "agent", template={"containers": [container("main", "100m", "2Mi")]}),
        pod("agent-1", container("main", "150m", "1Mi"), owner=("DaemonSet", "agent"), on="n"),
    ).daemonsets
    assert found.key == "default/DaemonSet/agent"
    assert found.requests == Resources(150, 2 * MIB, 1)
    assert found.constraints.tolerate((Taint("node.kubernetes.io/unschedulable", "", "NoSchedule"),))


def test_an_absent_daemonset_is_inferred_without_its_pods_node_names() -> None:
    def daemon_pod(on: str) -> Json:
        field = {"key": "metadata.name", "operator": "In", "values": [on]}
        terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
        return pod(
            f"agent-{on}",
            container("main", "50m"),
            owner=("DaemonSet", "agent"),
            on=on,
            nodeSelector={"kubernetes.io/os": "linux"},
            affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
        )

    found = read(daemon_pod("a"), daemon_pod("b"))
    (daemonset,) = found.daemonsets
    assert daemonset.requests.cpu_millicores == 50
    assert daemonset.constraints.required_terms is None
    assert daemonset.constraints.select({"kubernetes.io/os": "linux"}, "a-new-node")
    assert found.workloads == ()
