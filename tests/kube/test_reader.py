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
from planner.model.cluster import Instance, Snapshot
from planner.model.plan import Objective, Plan, PlanRecord
from planner.model.resources import Resources
from tests.kube.documents import Json, budget, changed, container, controller, dump, node, pod, read


def refusal(data: bytes) -> str:
    with pytest.raises(BadInput) as caught:
        read_dump(data, "dump.json")
    text = str(caught.value)
    assert text.startswith("dump.json: ")
    assert "\n" not in text
    return text


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
