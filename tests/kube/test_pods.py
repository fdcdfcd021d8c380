"""Pods as they are read: their owners, their volumes and the rules between them."""

from __future__ import annotations

from typing import Any

import pytest

from planner.model.cluster import ZONE
from planner.model.resources import WHOLE_NODE
from tests.kube.documents import Json, changed, claim, container, controller, node, pod, read, terms, volume


class TestOwners:
    def test_a_pod_of_a_deployment_belongs_to_it_through_its_replicaset(self) -> None:
        found = read(
            controller("Deployment", "web"),
            controller("ReplicaSet", "web-1", owner=("Deployment", "web")),
            pod("web-1-x", owner=("ReplicaSet", "web-1")),
        )
        assert (found.pods[0].workload, found.pods[0].workload_uid) == ("default/Deployment/web", "uid-web")
        assert [w.key for w in found.workloads] == ["default/Deployment/web"]

    def test_without_the_replicaset_a_pod_belongs_to_it_and_its_workload_is_inferred(self) -> None:
        found = read(*(pod(f"web-1-{i}", owner=("ReplicaSet", "web-1"), on="n") for i in range(2)))
        (workload,) = found.workloads
        assert (workload.key, workload.replicas, workload.ready_replicas) == ("default/ReplicaSet/web-1", 2, 2)
        assert not workload.known

    def test_a_replicaset_of_another_uid_is_not_the_owner(self) -> None:
        gone = changed(controller("ReplicaSet", "web-1", owner=("Deployment", "web")), "metadata.uid", "newer")
        assert read(gone, pod("p", owner=("ReplicaSet", "web-1"))).pods[0].workload == "default/ReplicaSet/web-1"

    def test_a_deployment_that_was_not_read_is_inferred_from_its_pods(self) -> None:
        found = read(
            controller("ReplicaSet", "web-1", owner=("Deployment", "web")),
            pod("web-1-x", container("main", "1"), owner=("ReplicaSet", "web-1")),
        )
        (workload,) = found.workloads
        assert (workload.key, workload.known) == ("default/Deployment/web", False)
        assert workload.requests.cpu_millicores == 1000

    @pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "Job", "Rollout"])
    def test_other_controllers_own_their_pods_directly(self, kind: str) -> None:
        assert read(pod("p", owner=(kind, "x"))).pods[0].workload == f"default/{kind}/x"

    def test_a_bare_pod_is_its_own_workload(self) -> None:
        found = read(pod("p"))
        assert (found.pods[0].workload, found.pods[0].workload_uid) == ("default/Pod/p", "uid-p")
        assert [w.key for w in found.workloads] == ["default/Pod/p"]

    def test_a_mirror_pod_stays_with_its_node(self) -> None:
        static = pod("p", owner=("Node", "n"), on="n", annotations={"kubernetes.io/config.mirror": "1"})
        found = read(node("n"), static)
        assert (found.pods[0].workload, found.pods[0].stays_with_node) == ("default/Pod/p", True)
        assert found.workloads == ()

    def test_a_reference_that_is_no_controller_owns_nothing(self) -> None:
        item = pod("p", owner=("ReplicaSet", "r"))
        item["metadata"]["ownerReferences"][0]["controller"] = False
        assert read(item).pods[0].workload == "default/Pod/p"

    def test_finished_pods_make_no_workload(self) -> None:
        done = changed(pod("p", owner=("Job", "j"), on="n"), "status.phase", "Succeeded")
        assert read(done).workloads == ()

    def test_replicasets_that_are_empty_or_owned_are_no_workloads(self) -> None:
        found = read(
            controller("ReplicaSet", "old", 0),
            controller("ReplicaSet", "owned", 2, owner=("Deployment", "web")),
            controller("ReplicaSet", "own", 2),
        )
        assert [w.key for w in found.workloads] == ["default/ReplicaSet/own"]

    def test_who_would_revert_a_change_is_named(self) -> None:
        by_operator = controller("Deployment", "a", owner=("Prometheus", "main"))
        by_addons = controller("Deployment", "b", labels={"addonmanager.kubernetes.io/mode": "Reconcile"})
        once = controller("Deployment", "c", labels={"addonmanager.kubernetes.io/mode": "EnsureExists"})
        owners = [w.owner for w in read(by_operator, by_addons, once).workloads]
        assert owners == ["Prometheus/main", "the add-on manager", None]


class TestPods:
    def test_a_pod_has_its_own_requests_not_its_templates(self) -> None:
        found = read(
            controller("StatefulSet", "s", 1, {"containers": [container("main", "1")]}),
            pod("s-0", container("main", "2"), owner=("StatefulSet", "s"), on="n"),
        )
        assert found.pods[0].requests.cpu_millicores == 2000
        assert found.workloads[0].requests.cpu_millicores == 1000

    def test_state_comes_from_phase_and_conditions(self) -> None:
        waiting = pod("p", priority=7, schedulerName="other")
        waiting["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
        gated = pod("g", schedulingGates=[{"name": "x"}])
        gated["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]
        leaving = pod("q", on="n")
        leaving["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z"
        g, p, q = read(waiting, gated, leaving).pods
        assert (p.phase, p.ready, p.unschedulable, p.node) == ("Pending", False, True, None)
        assert (p.priority, p.scheduler_name) == (7, "other")
        assert (g.unschedulable, g.unmodelled) == (False, ("schedulingGates",))
        assert (q.phase, q.ready, q.deleting, q.node, q.live) == ("Running", True, True, "n", False)

    def test_pods_of_equal_constraints_share_one_value(self) -> None:
        a, b = read(pod("a", nodeSelector={"x": "y"}), pod("b", nodeSelector={"x": "y"})).pods
        assert a.constraints is b.constraints

    def test_a_template_that_names_a_node_is_not_modelled(self) -> None:
        found = read(
            controller("StatefulSet", "s", 1, {"containers": [container()], "nodeName": "n"}),
            pod("s-0", owner=("StatefulSet", "s"), on="n"),
        )
        assert found.pods[0].unmodelled == ("nodeName n in its template",)

    def test_a_pod_that_another_repels_and_the_carriers_take_shares_of_a_node(self) -> None:
        def repelling(name: str, **term: Any) -> Json:
            rule = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname", **term}
            affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [rule]}}
            return pod(name, labels={"app": "db"}, affinity=affinity)

        victim = pod("victim", labels={"app": "db"})
        elsewhere = pod("elsewhere", labels={"app": "db"}, namespace="shop")
        other = pod("other", labels={"app": "web"})
        found = {p.name: p.requests.shares for p in read(repelling("one"), victim, elsewhere, other).pods}
        name = "anti-affinity to app In (db) in default"
        assert found == {"one": ((name, WHOLE_NODE),), "victim": ((name, 1),), "elsewhere": (), "other": ()}
        # Every namespace, or a named one, reaches further.
        for term in ({"namespaceSelector": {}}, {"namespaces": ["shop"]}):
            shares = {p.name: bool(p.requests.shares) for p in read(repelling("one", **term), elsewhere).pods}
            assert shares == {"one": True, "elsewhere": True}

    def test_a_claim_binds_its_pod_to_where_its_volume_can_be_reached(self) -> None:
        claims = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
        own = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms("disk", "ssd", "hdd")}}
        (found,) = read(pod("p", volumes=claims, affinity=own), claim("data", "v"), volume("v", zones=["a"])).pods
        assert found.unmodelled == ()
        assert found.rules.holds_volume
        assert found.constraints.select({"disk": "hdd", ZONE: "a"}, "n")
        assert not found.constraints.select({"disk": "hdd", ZONE: "b"}, "n")
        assert not found.constraints.select({ZONE: "a"}, "n")

    def test_a_spread_does_not_look_at_where_the_volume_is(self) -> None:
        # kube-scheduler's PodTopologySpread reads nodeSelector and node affinity of the pod, and no volumes.
        claims = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
        spreads = [{"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"}]
        spec: Any = {"topologySpreadConstraints": spreads, "nodeSelector": {"disk": "ssd"}}
        bound, free = pod("bound", volumes=claims, **spec), pod("free", **spec)
        found = read(bound, free, claim("data", "v"), volume("v", zones=["a"])).pods
        for one in found:
            (spread,) = one.rules.spreads
            regarded = [
                spread.regards(one.constraints, labels, "n", ())
                for labels in ({"disk": "ssd", ZONE: "a"}, {"disk": "ssd", ZONE: "b"}, {ZONE: "a"})
            ]
            assert regarded == [True, True, False]

    def test_a_volume_of_many_nodes_may_be_labelled_with_several_zones(self) -> None:
        claims = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
        shared = volume("v", modes=["ReadWriteMany"], labels={ZONE: "a__b"})
        (found,) = read(pod("p", volumes=claims), claim("data", "v"), shared).pods
        assert not found.rules.holds_volume
        assert [found.constraints.select({ZONE: zone}, "n") for zone in "abc"] == [True, True, False]

    @pytest.mark.parametrize(
        ("objects", "reason"),
        [
            ([], "persistentVolumeClaim data, of which no bound volume was read"),
            (["unbound"], "persistentVolumeClaim data, of which no bound volume was read"),
            (["bound", "second user"], "persistentVolumeClaim data, which several pods share on one node"),
        ],
    )
    def test_a_claim_that_says_too_little_is_named(self, objects: list[str], reason: str) -> None:
        claims = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
        also = {
            "unbound": [claim("data", None)],
            "bound": [claim("data", "v"), volume("v", zones=["a"])],
            "second user": [pod("q", volumes=claims)],
        }
        found = read(pod("p", volumes=claims), *(item for name in objects for item in also[name])).pods
        assert found[0].unmodelled == (reason,)

    def test_a_finished_pod_repels_nobody(self) -> None:
        rule = {"labelSelector": {}, "topologyKey": "kubernetes.io/hostname"}
        done = pod(
            "done",
            on="n",
            affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [rule]}},
        )
        done["status"]["phase"] = "Succeeded"
        assert read(done, pod("p")).pods[1].requests.shares == ()


class TestEqualSpecs:
    """What is read once for equal specs must not be taken for what another pod asks for."""

    def test_pods_of_one_template_share_one_value_of_what_they_ask_for(self) -> None:
        first, second = read(*(pod(f"p-{i}", container("main", "1"), on=f"n-{i}") for i in range(2))).pods
        assert first.requests is second.requests
        assert first.constraints is second.constraints

    def test_a_pod_that_is_being_resized_counts_with_what_it_has(self) -> None:
        status = [{"name": "main", "allocatedResources": {"cpu": "3"}}]
        resized = changed(pod("b", container("main", "1")), "status.containerStatuses", status)
        found = read(pod("a", container("main", "1")), resized, pod("c", container("main", "1"))).pods
        assert [p.requests.cpu_millicores for p in found] == [1000, 3000, 1000]

    def test_selectors_that_take_their_values_from_the_pods_labels_follow_each_pod(self) -> None:
        spread = {
            "maxSkew": 1,
            "topologyKey": ZONE,
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}},
            "matchLabelKeys": ["version"],
        }
        pods = [
            changed(
                changed(pod(name), "spec.topologySpreadConstraints", [spread]),
                "metadata.labels",
                {"app": "web", "version": name},
            )
            for name in ("blue", "green")
        ]
        selected = [p.rules.spreads[0].selector.requirements[-1].values for p in read(*pods).pods]
        assert selected == [("blue",), ("green",)]

    def test_pods_of_two_namespaces_look_for_others_in_their_own(self) -> None:
        term = {"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": "web"}}}
        apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        here = changed(pod("here"), "spec.affinity", apart)
        there = changed(changed(pod("there"), "spec.affinity", apart), "metadata.namespace", "other")
        found = {p.name: p.rules.anti_affinity[0].namespaces for p in read(here, there).pods}
        assert found == {"here": frozenset({"default"}), "there": frozenset({"other"})}
