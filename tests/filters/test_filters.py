"""Every pod of a plan, offered alone to the real kube-scheduler's filters on the plan's final cluster.

One seed by hand: `python -m tests.filters SEED --out FOLDER`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from planner.errors import SolverError
from tests.controlplane.build import FILTER_CHECK, build
from tests.filters.clusters import ARCH, GPU, HOSTNAME, ZONE, Case, bind, generate
from tests.filters.judging import judge
from tests.filters.scheduler import Filters, Object, State

SEEDS = 30
REFUSED_ONCE = (84, 261, 333, 374, 414, 445, 477, 695, 706, 791, 902, 3006, 3792, 4029, 4108, 6315, 6737, 7528)
"""Seeds of which an earlier planner's plans were refused, a few of each kind."""

SOAKED_SEEDS = 10_000
BLOCK = 100


@pytest.fixture(scope="module")
def filters() -> Iterator[Filters]:
    """The running checker; where it can be neither found nor built the test fails."""
    with Filters(build().path(FILTER_CHECK)) as running:
        yield running


@pytest.mark.controlplane
@pytest.mark.parametrize("seed", [*range(SEEDS), *REFUSED_ONCE])
def test_the_real_filters_admit_every_pod_where_the_plan_puts_it(seed: int, filters: Filters) -> None:
    assert judge(generate(seed, filters), filters).faults == []


@pytest.mark.soak
@pytest.mark.controlplane
@pytest.mark.parametrize("first", range(SEEDS, SEEDS + SOAKED_SEEDS, BLOCK))
def test_the_real_filters_admit_every_pod_of_a_hundred_plans(first: int, filters: Filters) -> None:
    found = []
    for seed in range(first, first + BLOCK):
        try:
            verdict = judge(generate(seed, filters), filters)
        except SolverError as error:
            found.append(f"seed {seed}: {error}")
        else:
            found += [f"seed {seed}: {fault}" for fault in verdict.faults]
    assert found == []


def a_node(name: str, **fields: Object) -> Object:
    """Return a node in zone-a with two CPUs and 4 GiB; `labels` and `spec` are added."""
    labels = {HOSTNAME: name, ZONE: "zone-a", ARCH: "amd64"} | fields.get("labels", {})
    allocatable = {"cpu": "2", "memory": "4Gi", "pods": "10", "ephemeral-storage": "10Gi"}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": fields.get("spec", {}),
        "status": {"allocatable": allocatable},
    }


def a_pod(name: str, node: str, **spec: object) -> Object:
    """Return a running pod of the app "web" that requests one CPU."""
    container = {"name": "main", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}
    pod: Object = {
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"containers": [container]} | spec,
    }
    bind(pod, node)
    return pod


def selected(**rule: object) -> Object:
    """Return a rule about the pods of the app "web" on one node."""
    return {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": {"app": "web"}}, **rule}


def required(kind: str, rule: object) -> Object:
    """Return an affinity with one required rule."""
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": rule}}}


def of_port(number: int) -> Object:
    """Return containers that take a port of the host and no CPU."""
    ports = [{"containerPort": number, "hostPort": number, "protocol": "TCP"}]
    return {"containers": [{"name": "main", "ports": ports}]}


def with_volume(*nodes: Object, pods: list[Object], **volume: object) -> State:
    """Return a state in which the claim "data" is bound to one volume."""
    claim: Object = {
        "metadata": {
            "name": "data",
            "namespace": "shop",
            "annotations": {"pv.kubernetes.io/bind-completed": "yes"},
        },
        "spec": {"volumeName": "pv", "accessModes": ["ReadWriteOnce"]},
        "status": {"phase": "Bound"},
    }
    meta = {"name": "pv", "labels": volume.pop("labels", {})}
    made: Object = {"metadata": meta, "spec": {"accessModes": ["ReadWriteOnce"], **volume}}
    return State(nodes, pods, [made], [claim])


CLAIMING: Object = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}
ELSEWHERE: Object = {
    "nodeAffinity": {
        "required": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["zone-b"]}]}]
        }
    }
}
TAINTED: Object = {"taints": [{"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}]}
BY_NAME = {"key": "metadata.name", "operator": "In", "values": ["other"]}


@pytest.mark.controlplane
@pytest.mark.parametrize(
    ("plugin", "refused", "state"),
    [
        ("NodeUnschedulable", 1, State([a_node("n", spec={"unschedulable": True})], [a_pod("p", "n")])),
        ("TaintToleration", 1, State([a_node("n", spec=TAINTED)], [a_pod("p", "n")])),
        ("NodeAffinity", 1, State([a_node("n")], [a_pod("p", "n", nodeSelector={ARCH: "arm64"})])),
        (
            "NodeAffinity",
            1,
            State(
                [a_node("n"), a_node("other")],
                [a_pod("p", "n", **required("nodeAffinity", {"nodeSelectorTerms": [{"matchFields": [BY_NAME]}]}))],
            ),
        ),
        ("NodePorts", 2, State([a_node("n")], [a_pod(name, "n", **of_port(8080)) for name in "pq"])),
        ("NodeResourcesFit", 3, State([a_node("n")], [a_pod(name, "n") for name in "pqr"])),
        (
            "NodeResourcesFit",
            1,
            State(
                [a_node("n")],
                [a_pod("p", "n", containers=[{"name": "main", "resources": {"requests": {GPU: "1"}}}])],
            ),
        ),
        (
            "InterPodAffinity",
            2,
            State([a_node("n")], [a_pod("p", "n", **required("podAntiAffinity", [selected()])), a_pod("q", "n")]),
        ),
        (
            "InterPodAffinity",
            1,
            State(
                [a_node("n"), a_node("m")],
                [a_pod("p", "n", **required("podAffinity", [selected()])), a_pod("q", "m")],
            ),
        ),
        (
            "PodTopologySpread",
            2,
            State(
                [a_node("n"), a_node("m")],
                [
                    a_pod(
                        name,
                        "n",
                        topologySpreadConstraints=[selected(maxSkew=1, whenUnsatisfiable="DoNotSchedule")],
                    )
                    for name in "pq"
                ],
            ),
        ),
        ("VolumeBinding", 1, with_volume(a_node("n"), pods=[a_pod("p", "n", **CLAIMING)], **ELSEWHERE)),
        ("VolumeZone", 1, with_volume(a_node("n"), pods=[a_pod("p", "n", **CLAIMING)], labels={ZONE: "zone-b"})),
    ],
)
def test_each_filter_refuses_what_it_is_there_for(plugin: str, refused: int, state: State, filters: Filters) -> None:
    assert [refusal.plugin for refusal in filters.refusals(state)] == [plugin] * refused


@pytest.mark.controlplane
def test_a_pod_is_asked_about_without_itself(filters: Filters) -> None:
    # Two pods fill the node; each fits where the other one alone stands.
    state = State([a_node("n")], [a_pod("p", "n"), a_pod("q", "n")])
    assert filters.refusals(state) == []


@pytest.mark.controlplane
def test_pods_are_placed_one_after_the_other(filters: Filters) -> None:
    pods = [a_pod(name, "n") for name in "pqr"]
    for pod in pods:
        del pod["spec"]["nodeName"]
    state = State([a_node("n"), a_node("m")], pods)
    assert filters.place(state, [(0, ["n"]), (2, ["n"]), (1, ["n", "m"])]) == ["n", "n", "m"]


def standing_of(case: Case) -> list[Object]:
    """Return the pods that have a node."""
    return [pod for pod in case.of("Pod") if pod["spec"].get("nodeName")]


@pytest.mark.controlplane
def test_a_seed_always_means_the_same_cluster(filters: Filters) -> None:
    one, other = generate(7, filters), generate(7, filters)
    assert one.dump() == other.dump()
    assert (one.table(), one.pools) == (other.table(), other.pools)
    assert one.dump() != generate(8, filters).dump()


HAS: dict[str, Callable[[Object], object]] = {
    "init containers": lambda spec: spec.get("initContainers"),
    "overhead": lambda spec: spec.get("overhead"),
    "GPUs": lambda spec: any(GPU in c["resources"]["requests"] for c in spec["containers"]),
    "host ports": lambda spec: any("ports" in c for c in spec["containers"]),
    "volumes": lambda spec: spec.get("volumes"),
    "node selectors": lambda spec: spec.get("nodeSelector"),
    "tolerations": lambda spec: spec.get("tolerations"),
    "node affinity": lambda spec: "nodeAffinity" in spec.get("affinity", {}),
    "pod affinity": lambda spec: "podAffinity" in spec.get("affinity", {}),
    "pod anti-affinity": lambda spec: "podAntiAffinity" in spec.get("affinity", {}),
    "spreads": lambda spec: spec.get("topologySpreadConstraints"),
}


@pytest.mark.controlplane
def test_the_clusters_hold_every_constraint(filters: Filters) -> None:
    running = [pod["spec"] for seed in range(SEEDS) for pod in standing_of(generate(seed, filters))]
    assert {name: sum(map(bool, map(has, running))) >= 5 for name, has in HAS.items()} == dict.fromkeys(HAS, True)
