"""The contract of the port to Kubernetes: where the simulator differs from the real control plane, it is wrong."""

from __future__ import annotations

import json

import pytest

from planner.errors import Conflict, Gone, KubernetesError, NotFound, TooManyRequests
from planner.ports import (
    BUDGETS,
    CONFIGMAPS,
    DAEMONSETS,
    DEPLOYMENTS,
    JOBS,
    LEASES,
    NODES,
    PODS,
    STATEFULSETS,
    Resource,
)
from tests.contract.subjects import (
    Cluster,
    Json,
    apply,
    everything,
    evict,
    find,
    is_true,
    pods,
    ready_pods,
    workload,
)

OTHER_UID = "00000000-0000-4000-8000-000000000000"


THINGS = Resource("contract.kinema.io", "v1", "things", "Thing")
KINDS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)


def kind_definition() -> Json:
    version = {
        "name": THINGS.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
    }
    names = {"kind": THINGS.kind, "plural": THINGS.plural, "singular": "thing"}
    return {
        "metadata": {"name": f"{THINGS.plural}.{THINGS.group}"},
        "spec": {"group": THINGS.group, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def configmap(name: str = "note", **data: str) -> Json:
    return {"metadata": {"name": name}, "data": data}


def create(cluster: Cluster, body: Json, resource: Resource = CONFIGMAPS) -> Json:
    created: Json = json.loads(cluster.kubernetes.create(resource, cluster.namespace, body))
    return created


# Reading


def test_a_list_has_every_object_and_a_version_to_watch_from(cluster: Cluster) -> None:
    for name in ("a", "b"):
        create(cluster, configmap(name))

    listing = cluster.kubernetes.list(CONFIGMAPS)

    assert {"a", "b"} <= {json.loads(item)["metadata"]["name"] for item in listing.items}
    assert int(listing.resource_version) > 0


def test_the_objects_of_a_list_name_neither_kind_nor_version(cluster: Cluster) -> None:
    create(cluster, configmap())

    for item in cluster.kubernetes.list(CONFIGMAPS).items:
        assert not {"kind", "apiVersion"} & json.loads(item).keys()
    assert find(cluster, CONFIGMAPS, "note")["kind"] == "ConfigMap"


def test_a_field_selector_narrows_a_list(cluster: Cluster) -> None:
    cluster.add_nodes("n1", "n2")
    web = workload(cluster, "web", replicas=3)
    apply(cluster, web)

    on_n1 = cluster.kubernetes.list(PODS, "spec.nodeName=n1").items

    expected = {p["metadata"]["name"] for p in pods(cluster, web) if p["spec"]["nodeName"] == "n1"}
    assert {json.loads(item)["metadata"]["name"] for item in on_n1} == expected


def test_a_watch_tells_every_change_after_its_version_in_order(cluster: Cluster) -> None:
    create(cluster, configmap("before"))
    version = cluster.kubernetes.list(CONFIGMAPS).resource_version
    uid = create(cluster, configmap(a="1"))["metadata"]["uid"]
    cluster.kubernetes.patch(CONFIGMAPS, cluster.namespace, "note", {"data": {"a": "2"}})
    cluster.kubernetes.delete(CONFIGMAPS, cluster.namespace, "note", uid)

    events = [
        (event.type, json.loads(event.object))
        for event in cluster.kubernetes.watch(CONFIGMAPS, version, timeout_seconds=1)
    ]

    seen = [(kind, body["data"]["a"]) for kind, body in events if body["metadata"].get("name") == "note"]
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]
    assert "before" not in [body["metadata"].get("name") for _, body in events]
    versions = [int(body["metadata"]["resourceVersion"]) for _, body in events]
    assert versions == sorted(versions)
    assert versions[0] > int(version)


def test_a_watch_ends_after_its_time(cluster: Cluster) -> None:
    # Nobody but a test makes Jobs; ConfigMaps of a namespace that is just going would be told of.
    version = cluster.kubernetes.list(JOBS).resource_version

    events = list(cluster.kubernetes.watch(JOBS, version, timeout_seconds=1))

    # A quiet watch may tell how far it has come.
    assert {event.type for event in events} <= {"BOOKMARK"}


def test_a_watch_from_a_version_that_is_too_old_is_gone(cluster: Cluster) -> None:
    # The server's memory of a kind begins when the kind does: every older version is too old.
    body = kind_definition()
    uid = json.loads(cluster.kubernetes.create(KINDS, "", body))["metadata"]["uid"]

    def served() -> bool:
        try:
            cluster.kubernetes.list(THINGS)
        except NotFound:
            return False
        return True

    try:
        cluster.eventually(served, "the new kind")
        with pytest.raises(Gone):
            list(cluster.kubernetes.watch(THINGS, "1", timeout_seconds=1))
    finally:
        cluster.kubernetes.delete(KINDS, "", body["metadata"]["name"], uid)


@pytest.mark.parametrize("resource", [CONFIGMAPS, PODS, DEPLOYMENTS])
def test_what_is_not_there_is_not_found(cluster: Cluster, resource: Resource) -> None:
    kubernetes = cluster.kubernetes
    with pytest.raises(NotFound):
        kubernetes.get(resource, cluster.namespace, "absent")
    with pytest.raises(NotFound):
        kubernetes.patch(resource, cluster.namespace, "absent", {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(NotFound):
        kubernetes.delete(resource, cluster.namespace, "absent", OTHER_UID)
    with pytest.raises(NotFound):
        kubernetes.evict(cluster.namespace, "absent", OTHER_UID)


# Writing


def test_a_name_is_taken_once(cluster: Cluster) -> None:
    create(cluster, configmap(a="1"))

    with pytest.raises(Conflict):
        create(cluster, configmap(a="2"))
    assert find(cluster, CONFIGMAPS, "note")["data"] == {"a": "1"}


def test_a_replacement_by_a_stale_version_is_a_conflict(cluster: Cluster) -> None:
    stale = create(cluster, configmap(a="1"))
    cluster.kubernetes.replace(CONFIGMAPS, cluster.namespace, "note", configmap(a="2"))

    with pytest.raises(Conflict):
        cluster.kubernetes.replace(CONFIGMAPS, cluster.namespace, "note", stale | {"data": {"a": "3"}})
    assert find(cluster, CONFIGMAPS, "note")["data"] == {"a": "2"}


def test_a_replacement_with_another_uid_is_a_conflict(cluster: Cluster) -> None:
    created = create(cluster, configmap(a="1"))
    created["metadata"]["uid"] = OTHER_UID

    with pytest.raises(Conflict):
        cluster.kubernetes.replace(CONFIGMAPS, cluster.namespace, "note", created)


def test_a_replacement_of_what_is_not_there_is_not_found(cluster: Cluster) -> None:
    with pytest.raises(NotFound):
        cluster.kubernetes.replace(CONFIGMAPS, cluster.namespace, "note", configmap())


def test_a_lease_is_replaced_only_by_its_version(cluster: Cluster) -> None:
    lease: Json = {"metadata": {"name": "leader"}, "spec": {"holderIdentity": "a"}}
    created = create(cluster, lease, LEASES)

    taken = created | {"spec": {"holderIdentity": "b"}}
    cluster.kubernetes.replace(LEASES, cluster.namespace, "leader", taken)
    with pytest.raises(Conflict):
        cluster.kubernetes.replace(LEASES, cluster.namespace, "leader", taken | {"spec": {"holderIdentity": "c"}})
    with pytest.raises(KubernetesError):
        cluster.kubernetes.replace(LEASES, cluster.namespace, "leader", lease)
    assert find(cluster, LEASES, "leader")["spec"]["holderIdentity"] == "b"


def test_a_patch_has_the_version_and_the_uid_as_preconditions(cluster: Cluster) -> None:
    created = create(cluster, configmap(a="1"))
    version, uid = created["metadata"]["resourceVersion"], created["metadata"]["uid"]
    cluster.kubernetes.patch(
        CONFIGMAPS,
        cluster.namespace,
        "note",
        {"metadata": {"resourceVersion": version, "uid": uid}, "data": {"a": "2"}},
    )

    for wrong in ({"resourceVersion": version}, {"uid": OTHER_UID}):
        with pytest.raises(Conflict):
            cluster.kubernetes.patch(CONFIGMAPS, cluster.namespace, "note", {"metadata": wrong, "data": {"a": "3"}})
    assert find(cluster, CONFIGMAPS, "note")["data"] == {"a": "2"}


def test_a_patch_that_changes_nothing_keeps_the_version(cluster: Cluster) -> None:
    before = create(cluster, configmap(a="1"))["metadata"]["resourceVersion"]

    cluster.kubernetes.patch(CONFIGMAPS, cluster.namespace, "note", {"data": {"a": "1"}})

    assert find(cluster, CONFIGMAPS, "note")["metadata"]["resourceVersion"] == before


def test_null_in_a_merge_patch_removes_a_key(cluster: Cluster) -> None:
    create(cluster, configmap(a="1", b="2"))

    cluster.kubernetes.patch(CONFIGMAPS, cluster.namespace, "note", {"data": {"a": None, "c": "3"}})

    assert find(cluster, CONFIGMAPS, "note")["data"] == {"b": "2", "c": "3"}


def test_a_strategic_patch_changes_one_container_and_keeps_the_rest(cluster: Cluster) -> None:
    manifest = workload(cluster, "web", replicas=0).manifest()
    side = {"name": "side", "image": "registry.example/side:1"}
    manifest["spec"]["template"]["spec"]["containers"].append(side)
    create(cluster, manifest, DEPLOYMENTS)

    change = {"containers": [{"name": "main", "resources": {"requests": {"cpu": "250m"}}}]}
    cluster.kubernetes.patch(
        DEPLOYMENTS, cluster.namespace, "web", {"spec": {"template": {"spec": change}}}, "strategic"
    )

    containers = find(cluster, DEPLOYMENTS, "web")["spec"]["template"]["spec"]["containers"]
    assert {c["name"] for c in containers} == {"main", "side"}
    [main] = [c for c in containers if c["name"] == "main"]
    assert main["resources"]["requests"] == {"cpu": "250m", "memory": "64Mi"}
    assert main["image"] == "registry.example/app:1"


@pytest.mark.parametrize("kind", ["merge", "strategic"])
def test_a_patch_replaces_the_taints_of_a_node_as_a_whole(cluster: Cluster, kind: str) -> None:
    cluster.add_nodes("n1")
    first = [{"key": "a", "value": "1", "effect": "NoSchedule"}, {"key": "b", "effect": "PreferNoSchedule"}]
    second = [{"key": "c", "effect": "NoSchedule"}]

    for taints in (first, second):
        cluster.kubernetes.patch(NODES, "", "n1", {"spec": {"taints": taints}}, kind)  # type: ignore[arg-type]
        assert find(cluster, NODES, "n1")["spec"]["taints"] == taints


def test_a_user_does_not_write_a_status(cluster: Cluster) -> None:
    create(cluster, workload(cluster, "web", replicas=0).manifest(), DEPLOYMENTS)

    cluster.kubernetes.patch(DEPLOYMENTS, cluster.namespace, "web", {"status": {"readyReplicas": 7}})

    assert find(cluster, DEPLOYMENTS, "web")["status"].get("readyReplicas", 0) == 0


def test_the_spec_of_a_running_pod_is_fixed(cluster: Cluster) -> None:
    cluster.add_nodes("n1")
    web = workload(cluster, "web")
    apply(cluster, web)
    [pod] = pods(cluster, web)

    with pytest.raises(KubernetesError):
        cluster.kubernetes.patch(PODS, cluster.namespace, pod["metadata"]["name"], {"spec": {"nodeName": "n2"}})


def test_an_object_of_another_uid_is_not_deleted(cluster: Cluster) -> None:
    uid = create(cluster, configmap())["metadata"]["uid"]

    with pytest.raises(Conflict):
        cluster.kubernetes.delete(CONFIGMAPS, cluster.namespace, "note", OTHER_UID)
    cluster.kubernetes.delete(CONFIGMAPS, cluster.namespace, "note", uid)
    with pytest.raises(NotFound):
        cluster.kubernetes.get(CONFIGMAPS, cluster.namespace, "note")


def test_a_generation_counts_the_changes_of_a_spec(cluster: Cluster) -> None:
    create(cluster, workload(cluster, "web", replicas=0).manifest(), DEPLOYMENTS)
    assert find(cluster, DEPLOYMENTS, "web")["metadata"]["generation"] == 1

    cluster.kubernetes.patch(DEPLOYMENTS, cluster.namespace, "web", {"metadata": {"labels": {"a": "b"}}})
    assert find(cluster, DEPLOYMENTS, "web")["metadata"]["generation"] == 1
    cluster.kubernetes.patch(DEPLOYMENTS, cluster.namespace, "web", {"spec": {"minReadySeconds": 1}})
    assert find(cluster, DEPLOYMENTS, "web")["metadata"]["generation"] == 2
    cluster.kubernetes.patch(DEPLOYMENTS, cluster.namespace, "web", {"metadata": {"annotations": {"a": "b"}}})
    assert find(cluster, DEPLOYMENTS, "web")["metadata"]["generation"] == 3


# Evictions


def test_a_budget_lets_as_many_pods_go_as_it_may_and_refuses_the_next(cluster: Cluster) -> None:
    cluster.add_nodes("n1")
    web = workload(cluster, "web", replicas=3, budget={"minAvailable": 2})
    apply(cluster, web)
    cluster.eventually(lambda: find(cluster, BUDGETS, "web")["status"]["disruptionsAllowed"] == 1, "the budget")
    first, second, _ = pods(cluster, web)
    # A successor that is Ready at once would give the budget its room back.
    cluster.kubernetes.patch(NODES, "", "n1", {"spec": {"unschedulable": True}})

    evict(cluster, first)
    with pytest.raises(TooManyRequests):
        evict(cluster, second)

    cluster.kubernetes.patch(NODES, "", "n1", {"spec": {"unschedulable": False}})
    cluster.eventually(lambda: len(ready_pods(cluster, web)) == 3, "the evicted pod's successor")
    assert first["metadata"]["uid"] not in {p["metadata"]["uid"] for p in ready_pods(cluster, web)}


def test_a_pod_without_a_budget_goes_at_once(cluster: Cluster) -> None:
    cluster.add_nodes("n1")
    web = workload(cluster, "web")
    apply(cluster, web)
    [pod] = pods(cluster, web)

    evict(cluster, pod)

    cluster.eventually(
        lambda: [p["metadata"]["uid"] for p in ready_pods(cluster, web)] not in ([], [pod["metadata"]["uid"]]),
        "another pod",
    )


def test_the_eviction_of_another_uid_is_a_conflict(cluster: Cluster) -> None:
    cluster.add_nodes("n1")
    web = workload(cluster, "web")
    apply(cluster, web)
    [pod] = pods(cluster, web)

    with pytest.raises(Conflict):
        cluster.kubernetes.evict(cluster.namespace, pod["metadata"]["name"], OTHER_UID)
    assert [p["metadata"]["uid"] for p in ready_pods(cluster, web)] == [pod["metadata"]["uid"]]


def test_two_budgets_over_one_pod_are_an_error_and_no_refusal(cluster: Cluster) -> None:
    cluster.add_nodes("n1")
    web = workload(cluster, "web", replicas=2, budget={"minAvailable": 1})
    apply(cluster, web)
    second = web.budget_manifest()
    assert second is not None
    second["metadata"]["name"] = "second"
    create(cluster, second, BUDGETS)
    cluster.eventually(lambda: len(everything(cluster, BUDGETS)) == 2, "both budgets")

    with pytest.raises(KubernetesError) as refused:
        evict(cluster, pods(cluster, web)[0])
    assert not isinstance(refused.value, TooManyRequests)


def test_a_pod_that_does_not_run_yet_is_evicted_past_its_budget(cluster: Cluster) -> None:
    web = workload(cluster, "web", budget={"minAvailable": 1})
    for resource, body in web.objects():
        create(cluster, body, resource)
    cluster.eventually(lambda: len(pods(cluster, web)) == 1, "the pod")
    [pod] = pods(cluster, web)

    evict(cluster, pod)

    cluster.eventually(
        lambda: pod["metadata"]["uid"] not in {p["metadata"]["uid"] for p in pods(cluster, web)}, "its deletion"
    )


# What the controllers and the scheduler do


def test_a_roll_out_replaces_every_pod_and_reports_it(cluster: Cluster) -> None:
    cluster.add_nodes("n1", "n2")
    web = workload(cluster, "web", replicas=4)
    apply(cluster, web)
    before = {p["metadata"]["uid"] for p in pods(cluster, web)}

    template = {"metadata": {"annotations": {"kinema.io/iteration": "i1"}}}
    cluster.kubernetes.patch(DEPLOYMENTS, cluster.namespace, "web", {"spec": {"template": template}})

    def rolled() -> bool:
        body = find(cluster, DEPLOYMENTS, "web")
        status = body["status"]
        counts = [status.get(f) for f in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")]
        return status["observedGeneration"] == body["metadata"]["generation"] and counts == [4, 4, 4, 4]

    cluster.eventually(rolled, "the roll-out")
    after = ready_pods(cluster, web)
    assert not before & {p["metadata"]["uid"] for p in after}
    assert {p["metadata"]["annotations"]["kinema.io/iteration"] for p in after} == {"i1"}
    assert {p["metadata"]["ownerReferences"][0]["kind"] for p in after} == {"ReplicaSet"}


def test_an_evicted_pod_of_a_statefulset_returns_under_its_name(cluster: Cluster) -> None:
    cluster.add_nodes("n1")
    db = workload(cluster, "db", kind="StatefulSet", replicas=2)
    apply(cluster, db)
    first, second = pods(cluster, db)
    assert [first["metadata"]["name"], second["metadata"]["name"]] == ["db-0", "db-1"]

    evict(cluster, first)

    cluster.eventually(
        lambda: (
            {p["metadata"]["uid"] for p in ready_pods(cluster, db)}
            not in ({first["metadata"]["uid"], second["metadata"]["uid"]}, {second["metadata"]["uid"]})
        ),
        "db-0 again",
    )
    assert [p["metadata"]["name"] for p in ready_pods(cluster, db)] == ["db-0", "db-1"]
    cluster.eventually(lambda: find(cluster, STATEFULSETS, "db")["status"].get("readyReplicas") == 2, "its status")


def test_a_daemonset_has_a_pod_on_every_node_and_names_it_by_affinity(cluster: Cluster) -> None:
    cluster.add_nodes("n1", "n2")
    agent = workload(cluster, "agent", kind="DaemonSet", replicas=2)
    apply(cluster, agent)

    found = ready_pods(cluster, agent)
    assert sorted(p["spec"]["nodeName"] for p in found) == ["n1", "n2"]
    for pod in found:
        required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        field = {"key": "metadata.name", "operator": "In", "values": [pod["spec"]["nodeName"]]}
        assert required == {"nodeSelectorTerms": [{"matchFields": [field]}]}
    cluster.eventually(lambda: find(cluster, DAEMONSETS, "agent")["status"]["numberReady"] == 2, "its status")


def test_a_pod_that_fits_nowhere_says_so_and_goes_to_the_next_node_that_comes(cluster: Cluster) -> None:
    big = workload(cluster, "big", cpu="3")
    cluster.add_nodes("n1")
    apply(cluster, workload(cluster, "first", cpu="3"))
    create(cluster, big.manifest(), DEPLOYMENTS)

    def refused() -> bool:
        found = [c for p in pods(cluster, big) for c in p["status"].get("conditions") or ()]
        return any(c["type"] == "PodScheduled" and c.get("reason") == "Unschedulable" for c in found)

    cluster.eventually(refused, "the refusal")
    cluster.add_nodes("n2")

    cluster.eventually(lambda: ready_pods(cluster, big), "the pod")
    assert [p["spec"]["nodeName"] for p in ready_pods(cluster, big)] == ["n2"]


def test_a_cordoned_node_carries_a_taint_and_takes_no_pods(cluster: Cluster) -> None:
    cluster.add_nodes("n1", "n2")
    cluster.kubernetes.patch(NODES, "", "n1", {"spec": {"unschedulable": True}})
    taint = "node.kubernetes.io/unschedulable"
    cluster.eventually(
        lambda: taint in {t["key"] for t in find(cluster, NODES, "n1")["spec"].get("taints", ())}, "the taint"
    )

    web = workload(cluster, "web", replicas=3)
    apply(cluster, web)

    assert {p["spec"]["nodeName"] for p in ready_pods(cluster, web)} == {"n2"}


def test_a_new_node_is_ready_and_free_of_taints_after_a_while(cluster: Cluster) -> None:
    cluster.add_nodes("n1")
    cluster.eventually(lambda: not find(cluster, NODES, "n1")["spec"].get("taints"), "no taints")

    assert is_true(find(cluster, NODES, "n1"), "Ready")


def test_a_deleted_deployment_takes_its_pods_along(cluster: Cluster) -> None:
    cluster.add_nodes("n1")
    web = workload(cluster, "web", replicas=2)
    apply(cluster, web)

    uid = find(cluster, DEPLOYMENTS, "web")["metadata"]["uid"]
    cluster.kubernetes.delete(DEPLOYMENTS, cluster.namespace, "web", uid)

    cluster.eventually(lambda: not pods(cluster, web), "the pods to go")
