"""Dumps and API servers read into one snapshot, and each fault of them said in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from planner import ports
from planner.errors import BadInput, Forbidden, KubernetesError, NotFound
from planner.kube.reader import read_dump, read_pods, read_snapshot
from planner.kube.record import encode_record
from planner.model.cluster import ZONE, DisruptionBudget, Instance, Snapshot, Utilization, Workload
from planner.model.plan import Objective, Plan, PlanRecord
from planner.model.resources import WHOLE_NODE, Resources
from planner.model.scheduling import LabelSelector, Requirement, Taint
from tests.kube.documents import Json, budget, claim, container, controller, dump, meta, node, pod, terms, volume

MIB = 1024**2


def read(*items: Json) -> Snapshot:
    return read_dump(dump(*items), "dump.json")


def refusal(data: bytes) -> str:
    with pytest.raises(BadInput) as caught:
        read_dump(data, "dump.json")
    text = str(caught.value)
    assert text.startswith("dump.json: ")
    assert "\n" not in text
    return text


def changed(item: Json, path: str, value: object) -> Json:
    """Return a copy with another value at a path such as "spec.containers.0.name"; None deletes the field."""
    copy: Any = json.loads(json.dumps(item))
    place = copy
    *steps, last = path.split(".")
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return copy


class TestForms:
    def test_a_list_a_typed_list_and_a_single_object_are_read(self) -> None:
        a, b = node("a"), node("b")
        assert [n.name for n in read(a, b).nodes] == ["a", "b"]
        typed = {"apiVersion": "v1", "kind": "NodeList", "items": [changed(a, "kind", None)]}
        assert [n.name for n in read_dump(json.dumps(typed).encode(), "x").nodes] == ["a"]
        assert [n.name for n in read_dump(json.dumps(b).encode(), "x").nodes] == ["b"]

    def test_an_empty_list_is_an_empty_cluster(self) -> None:
        assert read() == Snapshot()
        assert read_dump(b'{"kind": "PodList", "items": null}', "x") == Snapshot()

    def test_other_kinds_and_other_groups_are_skipped(self) -> None:
        other = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
        foreign = {"apiVersion": "example.com/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": 7}
        assert read(other, foreign) == Snapshot()

    def test_a_byte_order_mark_is_skipped(self) -> None:
        assert len(read_dump(b"\xef\xbb\xbf" + dump(node("a")), "x").nodes) == 1

    def test_the_order_of_the_objects_means_nothing(self) -> None:
        repelling = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {}}]}}
        pods = [pod(name, affinity=repelling) for name in ("a", "b", "c")]
        items = [
            *pods,
            node("x"),
            node("y"),
            controller("Deployment", "d"),
            controller("Deployment", "c"),
            controller("DaemonSet", "e"),
            budget("f", "g"),
        ]
        assert read(*items) == read(*reversed(items))

    def test_an_object_that_is_listed_twice_counts_once(self) -> None:
        assert len(read(node("a"), node("a")).nodes) == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (b"", "is empty"),
            (b"nodes: []", "is no JSON"),
            (dump(node("a"))[:-9], "is no JSON"),
            (b"\xff\xfe{}", "is no JSON"),
            (b"[1, 2]", "is no Kubernetes List"),
            (b'"text"', "is no Kubernetes List"),
            (b'{"kind": "Status", "status": "Failure"}', "its kind is 'Status'"),
            (b'{"items": []}', "the field kind is missing"),
            (b'{"kind": "List"}', "the field items is missing"),
            (b'{"kind": "List", "items": [3]}', "items[0] is no Kubernetes object"),
            (b'{"kind": "List", "items": [{}]}', "items[0]: the field kind is missing"),
        ],
    )
    def test_what_is_no_list_says_what_would_be_right(self, data: bytes, says: str) -> None:
        text = refusal(data)
        assert says in text
        assert "kubectl get nodes,pods" in text

    @pytest.mark.parametrize(
        ("item", "path", "says"),
        [
            (node("n"), "metadata", "Node without a name: the field metadata is missing"),
            (node("n"), "metadata.name", "Node without a name: the field metadata.name is missing"),
            (node("n"), "status", "Node n: the field status.allocatable.cpu is missing"),
            (node("n"), "status.allocatable.memory", "Node n: the field status.allocatable.memory is missing"),
            (node("n"), "status.allocatable.pods", "Node n: the field status.allocatable.pods is missing"),
            (pod("p"), "spec", "Pod default/p: the field spec is missing"),
            (pod("p"), "spec.containers", "Pod default/p: the field spec.containers is missing"),
            (pod("p"), "spec.containers.0.name", "Pod default/p: the field spec.containers[0].name is missing"),
            (pod("p"), "metadata.namespace", "Pod p: the field metadata.namespace is missing"),
            (
                controller("Deployment", "d"),
                "spec.template",
                "Deployment default/d: the field spec.template is missing",
            ),
            (budget("b", "x"), "spec", "PodDisruptionBudget default/b: the field spec is missing"),
        ],
    )
    def test_a_missing_field_is_named_with_its_object(self, item: Json, path: str, says: str) -> None:
        assert refusal(dump(changed(item, path, None))) == f"dump.json: {says}"

    @pytest.mark.parametrize(
        ("item", "says"),
        [
            (changed(node("n"), "kind", "node"), "items[0]: kind must be 'Node', not 'node'"),
            (
                {"kind": "PodList", "items": [pod("p")]},
                "items[0] is a PodList; expected the objects of all lists in one",
            ),
            (changed(node("n"), "metadata.name", ""), "Node without a name: metadata.name must not be empty"),
            (pod("a/b"), "Pod default/a/b: metadata.name must be a name without \"/\", not 'a/b'"),
            (
                pod("p", owner=("Job", "a/b")),
                "Pod default/p: metadata.ownerReferences[0].name must be a name without \"/\", not 'a/b'",
            ),
            (controller("Deployment", "d", -1), "Deployment default/d: spec.replicas must be 0 or more, not -1"),
        ],
    )
    def test_what_kubernetes_never_writes_is_refused(self, item: Json, says: str) -> None:
        assert refusal(dump(item)) == f"dump.json: {says}"

    def test_a_bad_quantity_is_named_with_file_object_field_and_value(self) -> None:
        wrong = pod("p", container("main", "1", "12x"), namespace="shop")
        assert refusal(dump(wrong)) == (
            "dump.json: Pod shop/p: spec.containers[0].resources.requests.memory must be a quantity such as "
            '"250m", "2", "1.5Gi" or "12e3", not \'12x\''
        )

    def test_a_bad_quantity_of_a_template_or_a_node_is_named_too(self) -> None:
        wrong = controller("Deployment", "d", template={"containers": [container("main", "12x")]})
        assert "Deployment default/d: spec.template.spec.containers[0].resources.requests.cpu" in refusal(dump(wrong))
        assert "Node n: status.allocatable.memory must be a quantity" in refusal(dump(node("n", memory="12x")))

    def test_a_value_of_the_wrong_type_is_shown(self) -> None:
        wrong = changed(pod("p"), "spec.nodeName", 7)
        assert refusal(dump(wrong)) == "dump.json: Pod default/p: spec.nodeName is 7: expected `str | null`, got `int`"

    def test_a_bad_bound_of_a_strategy_is_named(self) -> None:
        wrong = controller("Deployment", "d", strategy={"rollingUpdate": {"maxSurge": "a few"}})
        assert "spec.strategy.rollingUpdate.maxSurge must be a whole number or a percentage" in refusal(dump(wrong))

    def test_two_objects_of_one_name_are_refused(self) -> None:
        other = changed(node("n"), "metadata.uid", "another")
        assert "Node n is there twice" in refusal(dump(node("n"), other))


class TestNodes:
    def test_a_node_is_read_with_taints_and_state(self) -> None:
        taint = {"key": "gpu", "effect": "NoSchedule"}
        item = node("n", "3920m", "1Gi", taints=[taint], unschedulable=True, providerID="gce://p/z/n")
        item["status"]["allocatable"] |= {"nvidia.com/gpu": "2", "ephemeral-storage": "10", "hugepages-1Gi": "0"}
        item["metadata"]["creationTimestamp"] = "1970-01-01T00:01:00Z"
        (found,) = read(item).nodes
        assert found.allocatable == Resources(3920, 1024 * MIB, 110, 10, (("nvidia.com/gpu", 2),))
        assert found.taints == (Taint("gpu", "", "NoSchedule"),)
        assert (found.ready, found.unschedulable, found.deleting) == (True, True, False)
        assert (found.provider_id, found.created_at, found.zone) == ("gce://p/z/n", 60.0, "zone-a")

    @pytest.mark.parametrize("status", ["False", "Unknown"])
    def test_a_node_is_ready_only_where_its_condition_says_so(self, status: str) -> None:
        (found,) = read(changed(node("n"), "status.conditions.0.status", status)).nodes
        assert not found.ready


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


def strategy(**bounds: object) -> Json:
    return {"type": "RollingUpdate", "rollingUpdate": bounds}


class TestWorkloads:
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
        self, replicas: int, given: Json, surge: int, unavailable: int
    ) -> None:
        (found,) = read(controller("Deployment", "d", replicas, strategy=given)).workloads
        assert (found.max_surge, found.max_unavailable, found.update) == (surge, unavailable, given["type"])

    def test_a_deployment_is_read_with_its_template_and_status(self) -> None:
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

    def test_a_statefulset_is_updated_by_its_own_strategy(self) -> None:
        plain = controller("StatefulSet", "a", 2)
        by_hand = controller("StatefulSet", "b", 2, updateStrategy={"type": "OnDelete"})
        assert [(w.update, w.max_unavailable) for w in read(plain, by_hand).workloads] == [
            ("RollingUpdate", 0),
            ("OnDelete", 0),
        ]

    def test_a_job_counts_while_it_has_active_pods(self) -> None:
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


class TestDaemonSets:
    def test_a_daemonset_takes_what_its_newest_pod_takes_if_that_is_more(self) -> None:
        (found,) = read(
            controller("DaemonSet", "agent", template={"containers": [container("main", "100m", "2Mi")]}),
            pod("agent-1", container("main", "150m", "1Mi"), owner=("DaemonSet", "agent"), on="n"),
        ).daemonsets
        assert found.key == "default/DaemonSet/agent"
        assert found.requests == Resources(150, 2 * MIB, 1)
        assert found.constraints.tolerate((Taint("node.kubernetes.io/unschedulable", "", "NoSchedule"),))

    def test_an_absent_daemonset_is_inferred_without_its_pods_node_names(self) -> None:
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


class TestBudgetsAndAutoscalers:
    def test_a_budgets_status_is_taken_where_there_is_one(self) -> None:
        (found,) = read(budget("b", "x", {"desiredHealthy": 3, "disruptionsAllowed": 2}, minAvailable=1)).budgets
        selector = LabelSelector((Requirement("app", "In", ("x",)),))
        assert found == DisruptionBudget("default", "b", selector, 3, 2)

    @pytest.mark.parametrize(
        ("spec", "desired", "allowed"),
        [
            # five pods match, four of them ready
            ({"minAvailable": 3}, 3, 1),
            ({"minAvailable": "50%"}, 3, 1),  # 2.5 up
            ({"maxUnavailable": 1}, 4, 0),
            ({"maxUnavailable": "30%"}, 3, 1),  # 5 - 1.5 up
            ({"minAvailable": 9}, 9, 0),
        ],
    )
    def test_without_status_a_budget_is_computed_from_its_pods(self, spec: Json, desired: int, allowed: int) -> None:
        pods = [pod(f"p{i}", labels={"app": "x"}, on="n") for i in range(4)] + [pod("p4", labels={"app": "x"})]
        (found,) = read(budget("b", "x", **spec), *pods, pod("other", labels={"app": "y"}, on="n")).budgets
        assert (found.desired_healthy, found.disruptions_allowed) == (desired, allowed)

    def test_an_empty_selector_covers_the_namespace_and_none_covers_nothing(self) -> None:
        everything, nothing = budget("all", "x"), budget("none", "x")
        everything["spec"]["selector"] = {}
        del nothing["spec"]["selector"]
        found = read(everything, nothing, pod("p"), pod("q", namespace="shop"))
        (only,) = found.budgets
        assert [only.covers(p) for p in found.pods] == [True, False]

    def test_an_autoscaler_pairs_current_and_target_utilization(self) -> None:
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


class FakeKubernetes:
    """Lists and a ConfigMap; every write fails the test."""

    def __init__(self, *items: Json, forbidden: str = "") -> None:
        self.items = items
        self.forbidden = forbidden
        self.configmap: Mapping[str, object] | None = None

    def list(self, resource: ports.Resource, field_selector: str = "") -> ports.Listing:
        if resource.plural == self.forbidden:
            raise Forbidden(f"cannot list {resource.plural}: forbidden")
        # The API server leaves kind and apiVersion out of the items of a list.
        found = [i for i in self.items if i["kind"] == resource.kind]
        plain = [{k: v for k, v in i.items() if k not in ("kind", "apiVersion")} for i in found]
        return ports.Listing(tuple(json.dumps(i).encode() for i in plain), "7")

    def get(self, resource: ports.Resource, namespace: str, name: str) -> bytes:
        assert (resource, namespace, name) == (ports.CONFIGMAPS, "kinema", "kinema-plan")
        if self.configmap is None:
            raise NotFound("cannot get it")
        return json.dumps(self.configmap).encode()

    def watch(self, *_: object) -> Iterator[ports.WatchEvent]:
        raise AssertionError("a snapshot watches nothing")

    def _write(self, *_: object, **__: object) -> Any:
        raise AssertionError("a snapshot writes nothing")

    create = replace = patch = evict = delete = _write


class FakeCloud:
    def catalogue(self) -> Any:
        raise AssertionError("a snapshot needs no catalogue")

    def instances(self) -> tuple[Instance, ...]:
        return (Instance("vm", "pool", "zone-a", "running"),)

    def operations(self) -> tuple[str, ...]:
        return ("upgrade of pool",)

    def boot(self, *_: object) -> None:
        raise AssertionError("a snapshot boots nothing")

    delete = boot


class FakeClock:
    def now(self) -> float:
        return 1234.5

    def sleep(self, seconds: float) -> None:
        raise AssertionError("a snapshot does not wait")


CLUSTER = (
    node("n"),
    controller("Deployment", "web", 1),
    controller("ReplicaSet", "web-1", 1, owner=("Deployment", "web")),
    pod("web-1-x", container("main", "1"), owner=("ReplicaSet", "web-1"), on="n"),
    budget("b", "x"),
)


class TestLiveClusters:
    def test_a_live_cluster_reads_as_its_dump(self) -> None:
        live = read_snapshot(FakeKubernetes(*CLUSTER), None, FakeClock(), "kinema")
        assert live == replace(read(*CLUSTER), taken_at=1234.5)
        assert len(live.pods) == len(live.nodes) == len(live.workloads) == 1
        assert live.instances is None

    def test_machines_operations_and_the_remembered_plan_are_read(self) -> None:
        objective = Objective("cost", 5, 0, 0, 5, "optimal", 24, 0, 15)
        record = PlanRecord(Plan("i1", objective, 9, 5, (), {}), "carrying-out", 100.25)
        kubernetes = FakeKubernetes(*CLUSTER)
        kubernetes.configmap = encode_record(record, "kinema")
        found = read_snapshot(kubernetes, FakeCloud(), FakeClock(), "kinema")
        assert found.record == record
        assert found.instances == (Instance("vm", "pool", "zone-a", "running"),)
        assert found.operations == ("upgrade of pool",)

    @pytest.mark.parametrize("plural", [resource.plural for resource in ports.SNAPSHOT_RESOURCES])
    def test_one_refused_list_refuses_the_whole_snapshot(self, plural: str) -> None:
        with pytest.raises(Forbidden, match=f"cannot list {plural}"):
            read_snapshot(FakeKubernetes(*CLUSTER, forbidden=plural), None, FakeClock(), "kinema")

    def test_an_object_that_cannot_be_understood_is_the_servers_fault(self) -> None:
        with pytest.raises(KubernetesError, match=r"the cluster: Pod default/p: .* not '12x'"):
            read_snapshot(FakeKubernetes(pod("p", container("a", "12x"))), None, FakeClock(), "kinema")

    def test_a_node_that_just_registers_is_not_ready_and_has_no_room(self) -> None:
        fresh = {**node("n"), "status": {}}
        (found,) = read_snapshot(FakeKubernetes(fresh), None, FakeClock(), "kinema").nodes
        assert (found.ready, found.allocatable) == (False, Resources())

    def test_a_list_of_pods_alone_says_who_stays_with_the_node(self) -> None:
        agent = pod("agent-1", owner=("DaemonSet", "agent"), on="n")
        items = tuple(json.dumps(i).encode() for i in (agent, pod("p", on="n")))
        found = read_pods(ports.Listing(items, "1"))
        assert [(p.name, p.stays_with_node, p.node) for p in found] == [("agent-1", True, "n"), ("p", False, "n")]


def test_an_inferred_workload_is_never_rolled_out() -> None:
    (found,) = read(pod("p", owner=("ReplicaSet", "r"))).workloads
    assert isinstance(found, Workload)
    assert (found.update, found.max_surge, found.known) == ("OnDelete", 0, False)
