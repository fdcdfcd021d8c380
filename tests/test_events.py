"""What a person reads with `kubectl get events`, on a simulated API server."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from planner import labels as keys
from planner.errors import CloudError, Forbidden
from planner.events import PATIENCE_SECONDS, Recorder
from planner.loop import Waiting, iterate, run
from planner.model.plan import Decision, MarkNode, Wait
from planner.ports import EVENTS, NODES, Resource
from simulator.port import SimulatedKubernetes
from simulator.world import World
from tests.iterating import APPLY, badly_placed, edges_of
from tests.simulator.worlds import ZONE, world

RECOMMEND = replace(APPLY, mode="recommend")


def recorder(cluster: World, kubernetes: SimulatedKubernetes | None = None) -> Recorder:
    return Recorder(kubernetes or cluster.kubernetes, cluster.clock, "kube-system", "planner-1")


def events(cluster: World) -> list[dict[str, Any]]:
    """Return the Events of the planner's namespace, oldest first."""
    return [e for e in cluster.server.store.bodies(EVENTS) if e["metadata"]["namespace"] == "kube-system"]


def told(cluster: World) -> list[tuple[str, str, int]]:
    return [(event["type"], event["reason"], event["count"]) for event in events(cluster)]


@dataclass
class WithoutEvents:
    """An API server that grants everything but Events."""

    inner: SimulatedKubernetes

    def __getattr__(self, verb: str) -> Any:
        return getattr(self.inner, verb)

    def create(self, resource: Resource, namespace: str, body: Mapping[str, object]) -> bytes:
        if resource == EVENTS:
            raise Forbidden("cannot create events: not granted")
        return self.inner.create(resource, namespace, body)


def test_a_plan_that_is_carried_out_is_told_at_both_ends() -> None:
    cluster = badly_placed()
    assert iterate(edges_of(cluster, recorder(cluster)), APPLY) == "carried-out"
    assert told(cluster) == [("Normal", "PlanAccepted", 1), ("Normal", "PlanCarriedOut", 1)]
    accepted, _ = events(cluster)
    # Three nodes at 0.2 $/h become one that holds a pod of each; the roll-out replaces 3 pods, 1 is evicted.
    says = "0.6 -> 0.2 $/h, 0 nodes to boot, 2 to remove, 4 pods to move"
    assert accepted["message"].endswith(f": {says}")
    assert accepted["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "namespace": "kube-system",
        "name": "kinema-plan",
    }
    assert accepted["source"] == {"component": "kinema-planner"}
    assert (accepted["reportingComponent"], accepted["reportingInstance"]) == ("kinema-planner", "planner-1")
    assert accepted["firstTimestamp"] == accepted["lastTimestamp"] == accepted["metadata"]["creationTimestamp"]


def test_a_plan_that_is_only_recommended_is_told_as_such() -> None:
    cluster = badly_placed()
    assert iterate(edges_of(cluster, recorder(cluster)), RECOMMEND) == "recommended"
    assert told(cluster) == [("Normal", "PlanRecommended", 1)]
    assert events(cluster)[0]["message"].endswith("4 pods to move; nothing is changed")


def test_a_cluster_that_stays_as_it_should_be_is_one_event_with_a_count() -> None:
    cluster = badly_placed()
    edges = edges_of(cluster, recorder(cluster))
    iterate(edges, APPLY)
    for _ in range(3):
        assert iterate(edges, APPLY) == "dropped"
        cluster.run(60)
    assert told(cluster)[2:] == [("Normal", "NothingToDo", 3)]
    again = events(cluster)[2]
    assert again["firstTimestamp"] < again["lastTimestamp"]


def test_a_plan_whose_machine_cannot_boot_is_told_as_abandoned_and_rolled_back() -> None:
    cluster = badly_placed(smaller=True)
    cluster.cloud.stockouts["small", ZONE] = "ZONE_RESOURCE_POOL_EXHAUSTED"
    assert iterate(edges_of(cluster, recorder(cluster)), APPLY) == "abandoned"
    assert told(cluster) == [
        ("Normal", "PlanAccepted", 1),
        ("Warning", "PlanAbandoned", 1),
        ("Normal", "PlanRolledBack", 1),
    ]
    _, abandoned, rolled_back = events(cluster)
    for event in (abandoned, rolled_back):
        assert "ZONE_RESOURCE_POOL_EXHAUSTED" in event["message"]
    assert not [n for n in cluster.server.store.bodies(NODES) if keys.EXPIRING in n["metadata"]["labels"]]


def test_a_dropped_plan_is_told_with_verdict_and_reason() -> None:
    cluster = world()
    tell = recorder(cluster)
    tell(Decision("accepted", 0.0, 0.5, "the plan saves 50 % of the present cost"))
    tell(Decision("stale", 0.2, 0.5, "20 % of the pods and nodes changed"))
    assert [(e["reason"], e["message"]) for e in events(cluster)] == [
        ("PlanDropped", "stale: 20 % of the pods and nodes changed")
    ]


def test_why_no_iteration_begins_is_told_once_for_each_change_of_the_reasons() -> None:
    cluster = world()
    tell = recorder(cluster)
    for reasons in (("a rolls out",), ("a rolls out",), ("a rolls out", "b scales"), ("a rolls out", "b scales")):
        tell(Waiting(reasons))
    assert [(e["message"], e["count"]) for e in events(cluster)] == [("a rolls out", 2), ("a rolls out; b scales", 2)]


def test_a_carry_out_that_waits_is_told_once_the_same_has_lasted() -> None:
    cluster = world()
    tell = recorder(cluster)
    began = cluster.clock.now()
    while cluster.clock.now() < began + 2.5 * PATIENCE_SECONDS:
        tell(Wait(("n1 is being drained: 1 pods left",)))
        cluster.run(5)
    # After 120 s and after 240 s, the second time as a count.
    assert told(cluster) == [("Normal", "Waiting", 2)]


def test_a_carry_out_that_moves_on_is_not_told_as_waiting() -> None:
    cluster = world()
    tell = recorder(cluster)
    for number in range(60):
        tell(Wait((f"web: {number} of 60 pods rolled out",)))
        cluster.run(5)
    for _ in range(60):
        tell(Wait(("the machine n1 is being deleted",)))
        cluster.run(5)
        tell(MarkNode("n2", "uid"))  # something was done between
    assert told(cluster) == []


def test_an_event_that_the_server_has_forgotten_is_told_anew() -> None:
    cluster = world()
    tell = recorder(cluster)
    tell(Waiting(("a rolls out",)))
    (first,) = events(cluster)
    cluster.server.delete(EVENTS, ("kube-system", first["metadata"]["name"]), "")
    tell(Waiting(("a rolls out",)))
    tell(Waiting(("a rolls out",)))
    (second,) = events(cluster)
    assert (second["message"], second["count"]) == ("a rolls out", 2)


def test_two_events_of_one_moment_are_two() -> None:
    cluster = world()
    tell = recorder(cluster, SimulatedKubernetes(cluster.server, latency_seconds=0.0))
    tell(Waiting(("a",)))
    tell(Waiting(("b",)))
    assert [event["message"] for event in events(cluster)] == ["a", "b"]


def test_a_long_list_of_reasons_is_cut_to_what_an_event_may_hold() -> None:
    cluster = world()
    recorder(cluster)(Waiting(tuple(f"workload {number} rolls out" for number in range(500))))
    message = events(cluster)[0]["message"]
    assert len(message) == 1024
    assert message.startswith("workload 0 rolls out; workload 1 rolls out; ")
    assert message.endswith(" …")


def test_a_failed_iteration_is_told_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = badly_placed()

    def refuse() -> None:
        raise CloudError("cannot list the machines: 403 forbidden")

    monkeypatch.setattr(cluster.cloud, "instances", refuse)
    with pytest.raises(CloudError):
        run(edges_of(cluster, recorder(cluster)), APPLY, once=True)
    assert [(e["type"], e["reason"], e["message"]) for e in events(cluster)] == [
        ("Warning", "IterationFailed", "cannot list the machines: 403 forbidden")
    ]


def test_events_that_are_not_granted_are_logged_and_stop_nothing(caplog: pytest.LogCaptureFixture) -> None:
    cluster = badly_placed()
    unwilling: Any = WithoutEvents(cluster.kubernetes)
    with caplog.at_level(logging.WARNING, logger="planner.events"):
        assert iterate(edges_of(cluster, recorder(cluster, unwilling)), APPLY) == "carried-out"
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("no Event could be written of PlanAccepted (plan i")
    assert caplog.messages[0].endswith("): cannot create events: not granted")
