"""StatefulSets, DaemonSets and Jobs of the simulated cluster."""

from __future__ import annotations

from planner.ports import DAEMONSETS, JOBS, NODES, PODS, STATEFULSETS
from simulator.kubelet import RUN_SECONDS
from simulator.status import is_ready
from simulator.store import Change
from simulator.workloads import Workload
from tests.simulator.worlds import names, uids, world


def test_a_statefulset_starts_its_pods_one_after_the_other() -> None:
    db = Workload(name="db", kind="StatefulSet", replicas=3)
    built = world()
    unready_before: list[int] = []

    def watch(change: Change) -> None:
        if change.resource == PODS and change.type == "ADDED":
            unready_before.append(sum(not is_ready(p) for p in built.pods_of(db)) - 1)

    built.server.store.subscribe(watch)
    built.apply([db])
    built.settle()

    assert names(built.pods_of(db)) == ["db-0", "db-1", "db-2"]
    assert unready_before == [0, 0, 0]


def test_an_evicted_pod_of_a_statefulset_comes_back_under_its_name() -> None:
    db = Workload(name="db", kind="StatefulSet", replicas=3, budget={"maxUnavailable": 1})
    built = world([db])
    before = uids(built.pods_of(db))

    built.kubernetes.evict("default", "db-1", before[1])
    built.run(30)

    after = uids(built.pods_of(db))
    assert names(built.pods_of(db)) == ["db-0", "db-1", "db-2"]
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] != before[1]


def test_a_changed_template_of_a_statefulset_rolls_from_the_highest_down() -> None:
    db = Workload(name="db", kind="StatefulSet", replicas=3)
    built = world([db])
    deleted: list[str] = []
    built.server.store.subscribe(
        lambda c: deleted.append(c.key[1]) if c.resource == PODS and c.type == "DELETED" else None
    )

    template = {"metadata": {"annotations": {"a": "b"}}}
    built.kubernetes.patch(STATEFULSETS, "default", "db", {"spec": {"template": template}})
    built.run(120)

    assert deleted == ["db-2", "db-1", "db-0"]
    assert built.availability.lowest[db.key].ready == 2


def test_a_daemonset_runs_on_every_node_that_it_selects_also_on_new_ones() -> None:
    agent = Workload(name="agent", kind="DaemonSet", spec={"nodeSelector": {"kubernetes.io/os": "linux"}})
    other = Workload(name="other", kind="DaemonSet", spec={"nodeSelector": {"kubernetes.io/os": "windows"}})
    built = world([agent, other], nodes=2)

    built.cloud.boot("m4", "europe-west3-a", ["new"])
    built.run(120)

    assert built.nodes_of(agent) == ["n1", "n2", "new"]
    assert built.nodes_of(other) == []
    body = built.server.find(DAEMONSETS, ("default", "agent"))
    assert body is not None
    assert body["status"]["numberReady"] == body["status"]["desiredNumberScheduled"] == 3


def test_a_daemonset_stays_on_a_cordoned_node_and_keeps_off_an_untolerated_taint() -> None:
    agent = Workload(name="agent", kind="DaemonSet")
    built = world([agent], nodes=2)

    built.kubernetes.patch(NODES, "", "n1", {"spec": {"unschedulable": True}})
    built.run(30)
    assert built.nodes_of(agent) == ["n1", "n2"]

    built.cloud.boot("m4", "europe-west3-a", ["new"])
    built.run_until(lambda: built.server.find(NODES, ("", "new")) is not None, 120)
    taint = {"key": "dedicated", "effect": "NoSchedule"}
    built.kubernetes.patch(NODES, "", "new", {"spec": {"taints": [taint]}})
    built.run(30)
    assert built.nodes_of(agent) == ["n1", "n2"]


def test_a_job_ends_when_enough_pods_have_succeeded() -> None:
    job = Workload(name="job", kind="Job", replicas=2, pod_annotations={RUN_SECONDS: "5"})
    built = world([job])

    built.run(60)

    body = built.server.find(JOBS, ("default", "job"))
    assert body is not None
    assert (body["status"]["active"], body["status"]["succeeded"]) == (0, 2)
    assert [pod["status"]["phase"] for pod in built.pods_of(job)] == ["Succeeded", "Succeeded"]
