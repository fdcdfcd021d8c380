"""What the extender reads of pods: quantities, requests, and who is left alone."""

from __future__ import annotations

import gc
from decimal import Decimal

import msgspec
import pytest

from extender.objects import PodObject, PodSpec, is_live, passes_untouched, quantity, requests_of
from tests.extender.building import Json, pod


@pytest.mark.parametrize(
    ("text", "value"),
    [("100m", "0.1"), ("2", "2"), ("1Gi", "1073741824"), ("1e3", "1000"), ("1.5k", "1500"), ("2E", "2e18"), ("0", "0")],
)
def test_a_quantity_is_read_as_kubernetes_writes_it(text: str, value: str) -> None:
    assert quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "12x", "1 Gi", "NaN", "Infinity", "1e999999999", "Gi", "1mi", "--1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        quantity(text)


def test_requests_add_containers_sidecars_and_overhead_or_take_the_greatest_start() -> None:
    def asks(cpu: str, **more: str) -> Json:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    spec = msgspec.convert(
        {
            "containers": [asks("100m"), asks("200m")],
            "initContainers": [asks("50m", restartPolicy="Always"), asks("500m"), asks("10m", restartPolicy="Always")],
            "overhead": {"cpu": "7m", "memory": "1Mi"},
        },
        PodSpec,
    )
    # Running: 100 + 200 + 50 + 10 = 360. Starting: 500 + 50 = 550. The greater plus 7 of overhead.
    assert requests_of(spec) == (("cpu_millicores", 557), ("memory_bytes", 1 << 20), ("pods", 1))


def test_a_request_of_the_whole_pod_replaces_its_containers() -> None:
    spec = {
        "containers": [{"resources": {"requests": {"cpu": "4", "nvidia.com/gpu": 1}}}],
        "resources": {"requests": {"cpu": "1"}},
    }
    found = requests_of(msgspec.convert(spec, PodSpec))
    assert found == (("cpu_millicores", 1000), ("nvidia.com/gpu", 1), ("pods", 1))


def test_cpu_below_a_millicore_is_rounded_up() -> None:
    spec = {"containers": [{"resources": {"requests": {"cpu": "100001u"}}}]}
    # 100.001 millicores
    assert requests_of(msgspec.convert(spec, PodSpec)) == (("cpu_millicores", 101), ("pods", 1))


def mirror() -> Json:
    thing = pod("static", "")
    thing["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    return thing


def named(app: str, namespace: str) -> Json:
    thing = pod("planner", "Deployment/planner", namespace=namespace)
    thing["metadata"]["labels"]["app.kubernetes.io/name"] = app
    return thing


def on_one_node(key: str, operator: str = "In", *others: str) -> Json:
    """Return a pod with a required affinity to a field of node a, or else of others, one term each."""
    thing = pod("chosen", "")
    fields = [{"key": key, "operator": operator, "values": [name]} for name in ("a", *others)]
    terms = {"nodeSelectorTerms": [{"matchFields": [field]} for field in fields]}
    thing["spec"]["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    return thing


@pytest.mark.parametrize(
    ("thing", "untouched"),
    [
        pytest.param(pod("agent", "DaemonSet/agent"), True, id="of a DaemonSet"),
        pytest.param(pod("static", "Node/a"), True, id="static"),
        pytest.param(mirror(), True, id="mirror"),
        pytest.param(named("kinema", "kube-system"), True, id="Kinema's own"),
        pytest.param(named("kinema-planner", "kube-system"), True, id="Kinema's planner"),
        pytest.param(named("kinematics", "kube-system"), False, id="another system pod"),
        pytest.param(named("kinema", "shop"), False, id="a tenant's pod with Kinema's name"),
        pytest.param(pod("bound", on="a"), True, id="with its node"),
        pytest.param(on_one_node("metadata.name"), True, id="with required affinity to a node's name"),
        pytest.param(on_one_node("metadata.other"), False, id="with another field"),
        pytest.param(on_one_node("metadata.name", "NotIn"), False, id="kept off one node"),
        pytest.param(on_one_node("metadata.name", "In", "b"), False, id="with two nodes to choose from"),
        pytest.param(pod("web-1"), False, id="of a Deployment"),
    ],
)
def test_pods_of_a_node_and_of_kinema_are_left_alone(thing: Json, untouched: bool) -> None:
    assert passes_untouched(msgspec.convert(thing, PodObject)) is untouched


@pytest.mark.parametrize(("phase", "live"), [("Running", True), ("Pending", True), ("Failed", False)])
def test_a_finished_pod_is_not_live(phase: str, live: bool) -> None:
    assert is_live(msgspec.convert({"status": {"phase": phase}}, PodObject)) is live


def test_the_garbage_collector_visits_nothing_of_a_pod_but_its_tuples() -> None:
    # 30,000 pods are read at the start; with their structs tracked, collections take a third of that time.
    seen = msgspec.convert(pod("p"), PodObject)
    assert not any(gc.is_tracked(part) for part in (seen, seen.metadata, seen.spec, seen.status, seen.metadata.labels))
    assert seen.spec.containers is not None
    assert not gc.is_tracked(seen.spec.containers[0])
    assert not gc.is_tracked(seen.spec.containers[0].resources)


def test_equal_requests_are_one_value() -> None:
    first, second = (msgspec.convert(pod(name, cpu="123m"), PodObject) for name in ("p", "q"))
    assert requests_of(first.spec) is requests_of(second.spec)
