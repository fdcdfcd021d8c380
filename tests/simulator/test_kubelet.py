"""Pods and nodes whose machines come and go."""

from __future__ import annotations

import pytest

from planner.ports import NODES, PODS
from simulator.kubelet import NODE_MONITOR_GRACE_SECONDS, ORPHAN_SECONDS, STARTUP_SECONDS
from simulator.status import condition, is_deleting, is_ready
from simulator.store import key_of
from simulator.workloads import Workload
from tests.simulator.worlds import uids, with_volume, world


def test_a_pod_takes_its_start_up_time_to_become_ready() -> None:
    built = world()
    slow = Workload(name="slow", pod_annotations={STARTUP_SECONDS: "30"})
    built.apply([slow])

    built.run(29)
    assert not is_ready(built.pods_of(slow)[0])
    built.run(3)
    assert is_ready(built.pods_of(slow)[0])


def test_a_deleted_pod_stops_within_its_grace() -> None:
    quick = Workload(name="quick", spec={"terminationGracePeriodSeconds": 1})
    built = world([quick])
    pod = built.pods_of(quick)[0]

    built.kubernetes.delete(PODS, "default", pod["metadata"]["name"], pod["metadata"]["uid"])
    assert is_deleting(built.server.find(PODS, key_of(pod)) or {})
    built.run(1.1)

    assert built.server.find(PODS, key_of(pod)) is None


def test_a_pod_starts_once_its_volume_is_free_of_the_pod_on_another_node() -> None:
    built = world()
    first, second = with_volume(built, "ReadWriteOnce", "first", "second")
    for workload in (first, second):
        built.apply([workload])
        built.run(60)
    assert built.nodes_of(first) + built.nodes_of(second) == ["n1", "n2"]
    assert is_ready(built.pods_of(first)[0])
    assert not is_ready(built.pods_of(second)[0])

    built.kubernetes.delete(PODS, "default", "first", "")
    built.run(7)  # It stops within 5 s, and the volume is asked for every second.
    assert is_ready(built.pods_of(second)[0])


@pytest.mark.parametrize(("mode", "node"), [("ReadWriteOnce", "n1"), ("ReadWriteMany", "")])
def test_pods_of_one_node_or_with_a_volume_of_many_share_it(mode: str, node: str) -> None:
    built = world()
    for workload in (both := with_volume(built, mode, "first", "second", node=node)):
        built.apply([workload])
        built.run(60)

    assert [is_ready(pod) for workload in both for pod in built.pods_of(workload)] == [True, True]


def test_a_node_whose_machine_is_gone_becomes_unreachable_after_the_grace_and_stays() -> None:
    built = world(nodes=2)
    built.cloud.delete("m4", "europe-west3-a", ["n1"])

    built.run(NODE_MONITOR_GRACE_SECONDS - 1)
    node = built.server.find(NODES, ("", "n1"))
    assert node is not None
    assert is_ready(node)
    built.run(300)

    node = built.server.find(NODES, ("", "n1"))
    assert node is not None
    ready = condition(node, "Ready")
    assert ready is not None
    assert ready["status"] == "Unknown"
    assert {taint["key"] for taint in node["spec"]["taints"]} == {"node.kubernetes.io/unreachable"}


def test_pods_of_a_deleted_node_stay_a_while_and_are_then_made_anew_elsewhere() -> None:
    web = Workload(name="web", on=("n1",))
    built = world([web], nodes=2)
    old = uids(built.pods_of(web))
    built.cloud.delete("m4", "europe-west3-a", ["n1"])
    node = built.server.find(NODES, ("", "n1"))
    assert node is not None
    built.kubernetes.delete(NODES, "", "n1", node["metadata"]["uid"])

    built.run(ORPHAN_SECONDS - 1)
    assert uids(built.pods_of(web)) == old
    built.run(20)

    assert built.nodes_of(web) == ["n2"]
    assert uids(built.pods_of(web)) != old
