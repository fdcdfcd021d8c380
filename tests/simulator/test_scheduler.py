"""The simulated scheduler, alone and with an extender."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from planner.ports import NODES
from simulator.api import condition
from simulator.extenders import Extender, ExtenderFault
from simulator.workloads import Workload
from simulator.world import World
from tests.simulator.worlds import ZONE, world


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
    ports = [{"containerPort": 80, "hostPort": 80}]
    container = {"name": "main", "image": "a", "ports": ports}
    web = Workload(name="web", replicas=3, spec={"containers": [container]})

    assert world([web]).nodes_of(web) == ["n1", "n2", "n3"]


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


def test_a_constraint_that_is_not_modelled_is_refused_rather_than_ignored() -> None:
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}

    with pytest.raises(NotImplementedError, match="does not model a constraint of pod default/web"):
        world([Workload(name="web", spec={"topologySpreadConstraints": [spread]})])


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
