"""What the simulated API server does that the contract does not cover, since no port shows it."""

from __future__ import annotations

import json

import pytest

from planner.errors import KubernetesError
from planner.ports import CONFIGMAPS, DEPLOYMENTS, NODES, PODS
from simulator.selectors import fields_match
from simulator.status import is_true
from simulator.workloads import Workload
from simulator.world import World
from tests.simulator.worlds import world


def test_every_call_takes_simulated_time() -> None:
    built = world()
    before = built.clock.now()

    built.kubernetes.list(NODES)

    assert built.clock.now() - before == pytest.approx(built.kubernetes.latency_seconds, abs=1e-5)


def test_what_is_written_is_not_changed_by_its_author_afterwards() -> None:
    built = world()
    body = {"metadata": {"name": "a"}, "data": {"key": "before"}}
    built.kubernetes.create(CONFIGMAPS, "default", body)

    body["data"]["key"] = "after"

    assert json.loads(built.kubernetes.get(CONFIGMAPS, "default", "a"))["data"] == {"key": "before"}


def test_a_new_node_takes_no_pods_until_it_has_reported() -> None:
    built = world(nodes=0)
    created = json.loads(built.kubernetes.create(NODES, "", {"metadata": {"name": "late"}}))
    assert [taint["key"] for taint in created["spec"]["taints"]] == ["node.kubernetes.io/not-ready"]

    built.run(10)

    node = built.server.find(NODES, ("", "late"))
    assert node is not None
    assert is_true(node, "Ready")
    assert "taints" not in node["spec"]


def test_a_deployment_whose_selector_misses_its_template_is_refused() -> None:
    manifest = Workload(name="web").manifest()
    manifest["spec"]["selector"] = {"matchLabels": {"app": "other"}}

    with pytest.raises(KubernetesError, match="`selector` does not match template `labels`"):
        world().kubernetes.create(DEPLOYMENTS, "default", manifest)


def test_what_a_limit_says_is_the_request_where_none_is_given() -> None:
    built = world()
    container = {"name": "main", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}
    body = {"metadata": {"name": "bare"}, "spec": {"containers": [container]}}

    created = json.loads(built.kubernetes.create(PODS, "default", body))

    assert created["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}


def test_field_selectors_compare_paths() -> None:
    pod = {"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}

    assert fields_match("", pod)
    assert fields_match("spec.nodeName=n1,status.phase!=Failed", pod)
    assert not fields_match("spec.nodeName==n2", pod)
    assert not fields_match("spec.nodeName!=n1", pod)


def history(seed: int) -> list[tuple[str, str, int]]:
    """Return every change of a world that rolls, scales and boots."""
    web = Workload(name="web", replicas=5, budget={"minAvailable": 3})
    built: World = world([web, Workload(name="db", kind="StatefulSet", replicas=2)], seed=seed)
    seen: list[tuple[str, str, int]] = []
    built.server.store.subscribe(lambda c: seen.append((c.type, c.raw.decode(), c.version)))
    patch = {"spec": {"replicas": 7, "template": {"metadata": {"annotations": {"a": "b"}}}}}
    built.kubernetes.patch(DEPLOYMENTS, "default", "web", patch)
    built.cloud.boot("m4", "europe-west3-a", ["new"])
    built.run(120)
    return seen


def test_equal_seeds_make_equal_histories_and_other_seeds_others() -> None:
    first = history(1)

    assert len(first) > 20
    assert first == history(1)
    assert first != history(2)
