"""The simulated scheduler, alone and with an extender."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from planner.ports import CLAIMS, NODES, PODS, VOLUMES
from simulator.extenders import Extender, ExtenderFault
from simulator.status import condition
from simulator.workloads import Workload
from simulator.world import World
from tests.simulator.worlds import OTHER_ZONE, ZONE, restart, two_zones, with_volume, world


class Scripted:
    """An extender that answers as the test says, and remembers what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def post(self, verb: str, body: bytes) -> bytes:
        self.asked.append((verb, msgspec.json.decode(body)))
        answer = self.answers[verb]
        if isinstance(answer, Exception):
            raise answer
        return msgspec.json.encode(answer)


def with_extender(transport: Scripted, *workloads: Workload) -> World:
    return world(workloads, extender=lambda _: Extender(transport))


def test_pods_go_where_most_is_free() -> None:
    heavy = Workload(name="heavy", cpu="3000m", on=("n1",))
    built = world([heavy], nodes=2)
    light = Workload(name="light")
    built.apply([light])
    built.settle()

    assert built.nodes_of(light) == ["n2"]


def test_equal_nodes_are_taken_by_name() -> None:
    assert world([web := Workload(name="web")]).nodes_of(web) == ["n1"]


def test_a_pod_that_fits_nowhere_says_why_and_goes_when_there_is_room() -> None:
    built = world(nodes=1)
    big = Workload(name="big", replicas=2, cpu="2500m")
    built.apply([big])
    built.run(30)

    waiting = [pod for pod in built.pods_of(big) if "nodeName" not in pod["spec"]]
    assert len(waiting) == 1, "2500m fits once into 4000m"
    found = condition(waiting[0], "PodScheduled")
    assert found is not None
    assert (found["status"], found["reason"]) == ("False", "Unschedulable")
    assert found["message"] == "0/1 nodes are available: 1 Insufficient cpu."

    built.cloud.boot("m4", ZONE, ["new"])
    built.settle()
    assert built.nodes_of(big) == ["n1", "new"]


def test_selectors_taints_and_cordons_hold() -> None:
    built = world(nodes=4)
    built.kubernetes.patch(NODES, "", "n1", {"metadata": {"labels": {"disk": "ssd"}}})
    taint = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
    built.kubernetes.patch(NODES, "", "n2", {"spec": {"taints": [taint]}})
    built.kubernetes.patch(NODES, "", "n3", {"spec": {"unschedulable": True}})
    picky = Workload(name="picky", spec={"nodeSelector": {"disk": "ssd"}})
    plain = Workload(name="plain", replicas=4)
    built.apply([picky, plain])
    built.settle()

    assert built.nodes_of(picky) == ["n1"]
    assert set(built.nodes_of(plain)) == {"n1", "n4"}


def test_required_anti_affinity_by_host_name_holds_both_ways() -> None:
    term = {"labelSelector": {"matchLabels": {"app": "lonely"}}, "topologyKey": "kubernetes.io/hostname"}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    lonely = Workload(name="lonely", replicas=3, spec={"affinity": affinity})

    assert world([lonely]).nodes_of(lonely) == ["n1", "n2", "n3"]


def test_host_ports_are_given_once_a_node() -> None:
    assert placed(world(), Workload(name="web", replicas=4, host_port=80)) == ["", "n1", "n2", "n3"]


def test_a_preferred_affinity_outweighs_free_room() -> None:
    preference = {"matchExpressions": [{"key": "kinema.io/optimal", "operator": "Exists"}]}
    preferred = [{"weight": 100, "preference": preference}]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    built = world([Workload(name="heavy", cpu="2", on=("n1",))], nodes=2)
    built.kubernetes.patch(NODES, "", "n1", {"metadata": {"labels": {"kinema.io/optimal": "i1"}}})
    web = Workload(name="web", spec={"affinity": affinity})
    built.apply([web])
    built.settle()

    assert built.nodes_of(web) == ["n1"]


def test_a_soft_taint_keeps_pods_away_while_another_node_has_room() -> None:
    built = world(nodes=2)
    taint = {"key": "kinema.io/expiring", "value": "i1", "effect": "PreferNoSchedule"}
    built.kubernetes.patch(NODES, "", "n1", {"spec": {"taints": [taint]}})
    web = Workload(name="web", replicas=2)
    built.apply([web])
    built.settle()

    assert built.nodes_of(web) == ["n2", "n2"]


def spread(skew: int = 1, key: str = "rack", app: str = "web", **more: Any) -> dict[str, Any]:
    """Return the spec of pods that spread themselves, hard, over a label of the nodes."""
    selector = {"matchLabels": {"app": app}}
    constraint = {"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}
    return {"topologySpreadConstraints": [constraint | more]}


def racks(*names: str, nodes: int = 3) -> World:
    """Return a world in whose order of nodes each stands in the rack of this name, "" for none."""
    built = world(nodes=nodes)
    for number, rack in enumerate(names):
        if rack:
            built.kubernetes.patch(NODES, "", f"n{number + 1}", {"metadata": {"labels": {"rack": rack}}})
    return built


def relation(kind: str, app: str, key: str = "rack", **more: Any) -> dict[str, Any]:
    """Return the spec of pods with a required podAffinity or podAntiAffinity to an app."""
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key} | more
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def placed(built: World, workload: Workload, seconds: float = 20) -> list[str]:
    """Apply a workload and return where its pods are some time later, "" for one that waits."""
    built.apply([workload])
    built.run(seconds)
    return built.nodes_of(workload)


def message_of(built: World, workload: Workload) -> str:
    """Return why the first pod of a workload waits."""
    waiting = next(pod for pod in built.pods_of(workload) if "nodeName" not in pod["spec"])
    found = condition(waiting, "PodScheduled")
    return "" if found is None else str(found["message"])


def test_a_hard_spread_holds_in_the_domains_of_its_key_and_nowhere_else() -> None:
    built = racks("a", "b")  # n3, of no rack, is as empty as n1
    built.apply([Workload(name="heavy", cpu="3", on=("n2",))])
    built.settle()
    web = Workload(name="web", replicas=4, spec=spread())

    # Two pods of 500m fill b, so that of further ones a takes one.
    assert placed(built, web) == ["n1", "n1", "n2", "n2"]
    big = Workload(name="big", replicas=2, cpu="1100m", spec=spread(app="big"))
    assert placed(built, big) == ["", "n1"]
    assert message_of(built, big) == (
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints, "
        "1 node(s) didn't match pod topology spread constraints (missing required label)."
    )


def test_with_fewer_domains_than_wanted_the_emptiest_counts_as_empty() -> None:
    web = Workload(name="web", replicas=3, spec=spread(minDomains=3))

    assert placed(racks("a", "b", "b"), web) == ["", "n1", "n2"]


@pytest.mark.parametrize(("policy", "nodes"), [({}, ["n1", "n1"]), ({"nodeAffinityPolicy": "Ignore"}, ["", "n1"])])
def test_a_spread_counts_domains_that_its_pods_may_not_select_only_where_told(
    policy: dict[str, str], nodes: list[str]
) -> None:
    web = Workload(name="web", replicas=2, spec=spread(**policy) | {"nodeSelector": {"rack": "a"}})

    assert placed(racks("a", "b"), web) == nodes


@pytest.mark.parametrize(("policy", "nodes"), [({}, ["", "n1"]), ({"nodeTaintsPolicy": "Honor"}, ["n1", "n1"])])
def test_a_spread_counts_domains_of_tainted_nodes_unless_told(policy: dict[str, str], nodes: list[str]) -> None:
    built = racks("a", "b", nodes=2)
    taint = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
    built.kubernetes.patch(NODES, "", "n2", {"spec": {"taints": [taint]}})

    assert placed(built, Workload(name="web", replicas=2, spec=spread(**policy))) == nodes


def test_a_spread_counts_no_pods_on_their_way_out() -> None:
    built = racks("a", "b", nodes=2)
    built.apply([Workload(name="web", kind="Pod", spec={"nodeSelector": {"rack": "a"}})])
    built.settle()
    built.kubernetes.delete(PODS, "default", "web", "")

    web = Workload(name="web", spec=spread(nodeAffinityPolicy="Ignore") | {"nodeSelector": {"rack": "a"}})
    # Counted, it would make two in a and none in b.
    assert placed(built, web, 0.5) == ["n1", "n1"]


def test_a_spread_counts_no_pods_of_other_namespaces() -> None:
    built = racks("a", "b", nodes=2)
    built.apply([Workload(name="web", namespace="other", replicas=3, on=("n1",) * 3)])
    built.settle()

    web = Workload(name="web", spec=spread(nodeAffinityPolicy="Ignore") | {"nodeSelector": {"rack": "a"}})
    assert placed(built, web) == ["n1"]


@pytest.mark.parametrize(("name", "nodes"), [("new", ["n1"]), ("web", ["n1", ""])])
def test_a_pod_adds_to_its_spread_only_if_that_counts_it(name: str, nodes: list[str]) -> None:
    built = racks("a", "b", nodes=2)
    built.apply([Workload(name="web", kind="Pod", spec={"nodeSelector": {"rack": "a"}})])
    built.settle()

    # One stands in a, none in b; a skew of 1 allows it, a second one would make it 2.
    new = Workload(name=name, spec=spread(nodeAffinityPolicy="Ignore") | {"nodeSelector": {"rack": "a"}})
    assert sorted(placed(built, new)) == sorted(nodes)


def test_a_spread_counts_only_nodes_that_every_spread_of_the_pod_reaches() -> None:
    built = racks("a", "b", nodes=2)
    built.kubernetes.patch(NODES, "", "n1", {"metadata": {"labels": {"row": "1"}}})
    both = spread()["topologySpreadConstraints"] + spread(key="row")["topologySpreadConstraints"]

    # Rack b, of no row, is no domain: a alone may have any number, and row 1 too.
    assert placed(built, Workload(name="web", replicas=2, spec={"topologySpreadConstraints": both})) == ["n1", "n1"]


def test_match_label_keys_count_only_pods_of_the_same_roll_out() -> None:
    built = racks("a", "b", nodes=2)
    web = Workload(name="web", replicas=2, spec=spread(matchLabelKeys=["pod-template-hash"]))
    built.apply([Workload(name="filler", cpu="2", on=("n2",))])
    built.settle()
    assert placed(built, web) == ["n1", "n2"]
    restart(built, web)
    built.settle()

    assert built.nodes_of(web) == ["n1", "n2"]


def test_an_empty_selector_of_a_spread_counts_nothing() -> None:
    web = Workload(name="web", replicas=2, cpu="100m", spec=spread(labelSelector={}))
    built = racks("a", "b", nodes=2)
    built.apply([Workload(name="filler", cpu="3500m", on=("n2",))])
    built.settle()

    assert placed(built, web) == ["n1", "n1"]


def test_required_affinity_follows_its_pods_into_their_domain() -> None:
    built = racks("a", "b", "b")
    web = Workload(name="web", replicas=2, spec=relation("podAffinity", "db"))
    assert placed(built, web) == ["", ""]
    assert message_of(built, web) == "0/3 nodes are available: 3 node(s) didn't match pod affinity rules."

    built.apply([Workload(name="db", on=("n2",))])
    built.settle()
    assert set(built.nodes_of(web)) <= {"n2", "n3"}


def test_the_first_pod_of_a_group_that_stands_together_goes_where_the_key_is() -> None:
    built = racks("", "a", "b")
    web = Workload(name="web", replicas=3, spec=relation("podAffinity", "web"))

    assert placed(built, web) == ["n2", "n2", "n2"]


def test_several_required_affinities_are_about_pods_that_match_them_all() -> None:
    built = racks("a", "b", nodes=2)
    terms = [
        {"labelSelector": {"matchLabels": labels}, "topologyKey": "rack"} for labels in ({"app": "db"}, {"tier": "one"})
    ]
    spec = {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}
    tiered = {"metadata": {"name": "tiered", "labels": {"tier": "one"}}, "spec": {"containers": [{"name": "main"}]}}
    built.kubernetes.create(PODS, "default", tiered)
    built.apply([Workload(name="db", replicas=2, on=("n1", "n2"))])
    built.settle()
    assert placed(built, web := Workload(name="web", spec=spec)) == [""]

    db = built.pods_of(Workload(name="db"))[0]["metadata"]["name"]
    built.kubernetes.patch(PODS, "default", db, {"metadata": {"labels": {"tier": "one"}}})
    built.run(20)
    assert built.nodes_of(web) == ["n1"]


def test_anti_affinity_holds_both_ways_in_the_domain_of_its_key() -> None:
    built = racks("a", "a", "b")
    lonely = Workload(name="lonely", spec=relation("podAntiAffinity", "web") | {"nodeSelector": {"rack": "a"}})
    assert placed(built, lonely) == ["n1"]

    web = Workload(name="web", replicas=2)
    assert placed(built, web) == ["n3", "n3"]
    other = Workload(name="other", spec=relation("podAntiAffinity", "web") | {"nodeSelector": {"rack": "b"}})
    assert placed(built, other) == [""]
    assert "1 node(s) didn't match pod anti-affinity rules" in message_of(built, other)
    held = Workload(name="web", kind="Pod", spec={"nodeSelector": {"rack": "a"}})
    assert placed(built, held).count("") == 1
    assert "2 node(s) didn't satisfy existing pods anti-affinity rules" in message_of(built, held)


@pytest.mark.parametrize(
    ("more", "node"), [({}, "n1"), ({"namespaces": ["other"]}, "n2"), ({"namespaceSelector": {}}, "n2")]
)
def test_anti_affinity_is_about_the_pods_of_its_namespaces(more: dict[str, Any], node: str) -> None:
    built = racks("a", "b", nodes=2)
    built.apply([Workload(name="web", namespace="other", cpu="100m", on=("n1",)), Workload(name="x", on=("n2",))])
    built.settle()

    assert placed(built, Workload(name="lonely", spec=relation("podAntiAffinity", "web", **more))) == [node]


def test_a_volume_keeps_its_pod_in_its_zone_and_a_claim_without_one_keeps_it_waiting() -> None:
    built = two_zones()
    store = Workload(name="store", kind="StatefulSet", replicas=3, volume_zones=(OTHER_ZONE,))
    assert placed(built, store, 60) == ["n2", "n2", "n2"]

    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "mine"}}]
    one = Workload(name="one", spec={"volumes": volumes})
    assert placed(built, one) == [""]
    assert message_of(built, one) == '0/2 nodes are available: 2 persistentvolumeclaim "mine" not found.'
    built.kubernetes.create(CLAIMS, "default", {"metadata": {"name": "mine"}, "spec": {"volumeName": "v"}})
    built.run(20)
    assert message_of(built, one).endswith("2 pod has unbound immediate PersistentVolumeClaims.")
    old = {"failure-domain.beta.kubernetes.io/zone": OTHER_ZONE}
    built.kubernetes.create(VOLUMES, "", {"metadata": {"name": "v", "labels": old}, "spec": {}})
    built.run(20)
    assert built.nodes_of(one) == ["n2"]


def test_a_volume_of_a_single_pod_keeps_the_next_one_waiting_until_that_is_gone() -> None:
    built = world(nodes=2)
    first, second = with_volume(built, "ReadWriteOncePod", "first", "second")
    assert [placed(built, first), placed(built, second)] == [["n1"], [""]]
    assert message_of(built, second) == (
        "0/2 nodes are available: 2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode "
        "already in-use by another pod."
    )

    built.kubernetes.delete(PODS, "default", "first", "")
    built.run(20)
    assert built.nodes_of(second) == ["n1"]


def test_the_extender_is_asked_with_names_only_and_not_for_scores_of_a_single_node() -> None:
    transport = Scripted(filter={"NodeNames": ["n2"]})
    built = with_extender(transport, web := Workload(name="web"))

    assert built.nodes_of(web) == ["n2"]
    [(verb, arguments)] = transport.asked
    assert verb == "filter"
    assert arguments["Nodes"] is None
    assert arguments["NodeNames"] == ["n1", "n2", "n3"]
    assert arguments["Pod"]["metadata"]["labels"]["app"] == "web"


def test_the_extenders_scores_outweigh_the_schedulers_own() -> None:
    names = ["n1", "n2", "n3"]
    scores = [{"Host": name, "Score": 10 if name == "n3" else 0} for name in names]
    built = with_extender(
        Scripted(filter={"NodeNames": names}, prioritize=scores), web := Workload(name="web", replicas=3)
    )

    assert built.nodes_of(web) == ["n3", "n3", "n3"]


@pytest.mark.parametrize(
    "answer", [ExtenderFault("HTTP 500"), {"Error": "no"}, {"NodeNames": ["unknown"]}, ["no object"]]
)
def test_an_extender_that_fails_is_skipped(answer: Any) -> None:
    transport = Scripted(filter=answer, prioritize=answer)
    built = with_extender(transport, web := Workload(name="web"))

    assert built.nodes_of(web) == ["n1"]
    assert built.extender is not None
    assert built.extender.faults == 2  # filter and prioritize


def test_no_names_reject_the_pod_until_something_changes() -> None:
    transport = Scripted(filter={"NodeNames": [], "FailedNodes": {"n1": "kinema: not now"}}, prioritize=[])
    built = world(nodes=1, extender=lambda _: Extender(transport))
    web = Workload(name="web")
    built.apply([web])
    built.run(20)
    assert built.nodes_of(web) == [""]
    found = condition(built.pods_of(web)[0], "PodScheduled")
    assert found is not None
    assert found["message"] == "0/1 nodes are available: 1 kinema: not now."

    transport.answers["filter"] = {"NodeNames": ["n1"]}
    built.kubernetes.patch(NODES, "", "n1", {"metadata": {"annotations": {"touched": "now"}}})
    built.run(20)

    assert built.nodes_of(web) == ["n1"]
