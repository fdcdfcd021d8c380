"""Requests as the scheduler counts them, and every hard constraint by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from planner.kube import specs
from planner.kube.objects import PodSpec, PodStatus, decode
from planner.model.preferences import Company, Wish
from planner.model.resources import Resources
from planner.model.scheduling import (
    LabelSelector,
    NodeConstraints,
    NodeSelectorTerm,
    PodRules,
    PodTerm,
    Requirement,
    Spread,
    Taint,
)
from tests.kube.documents import Json, container

MIB = 1024**2


def spec(*containers: Json, **more: Any) -> PodSpec:
    body = {"containers": list(containers) or [container()], **more}
    return decode(json.dumps(body).encode(), PodSpec, "Pod", "test")


def requests(*containers: Json, **more: Any) -> Resources:
    return specs.pod_requests(spec(*containers, **more), "spec")


def sidecar(name: str, cpu: str) -> Json:
    return container(name, cpu, restartPolicy="Always")


def test_containers_add_up_and_the_pod_counts_as_one() -> None:
    # 100m + 250m, 64Mi + 0
    assert requests(container("a", "100m", "64Mi"), container("b", "250m")) == Resources(350, 64 * MIB, 1)


def test_a_pod_without_requests_counts_as_one_pod() -> None:
    assert requests() == Resources(pods=1)


def test_a_limit_alone_is_the_request() -> None:
    only = {"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "200m"}}}
    assert requests(only) == Resources(200, 1024 * MIB, 1)


def test_the_largest_init_container_counts_where_it_exceeds_the_sum() -> None:
    init = [container("one", "700m"), container("two", "300m")]
    # max(100 + 100, 700, 300)
    assert requests(container("a", "100m"), container("b", "100m"), initContainers=init).cpu_millicores == 700


def test_sidecars_count_with_the_containers_and_with_later_init_containers() -> None:
    init = [container("early", "500m"), sidecar("proxy", "200m"), container("late", "400m")]
    # while running 300 + 200 = 500; early alone 500; late beside the proxy 400 + 200 = 600
    assert requests(container("a", "300m"), initContainers=init).cpu_millicores == 600


def test_an_init_container_before_a_sidecar_does_not_carry_it() -> None:
    init = [container("early", "500m"), sidecar("proxy", "200m")]
    # max(100 + 200, 500)
    assert requests(container("a", "100m"), initContainers=init).cpu_millicores == 500


def test_overhead_is_added_last() -> None:
    init = [container("one", "700m")]
    # max(100, 700) + 50
    assert requests(container("a", "100m"), initContainers=init, overhead={"cpu": "50m"}).cpu_millicores == 750


def test_requests_of_the_whole_pod_replace_the_sum_and_overhead_comes_on_top() -> None:
    found = requests(
        container("a", "100m", "64Mi"),
        resources={"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}},
        overhead={"cpu": "10m"},
    )
    # the pod's 1 core + 10m; memory as the container requests it, since the pod has a limit only
    assert found == Resources(1010, 64 * MIB, 1)


def test_a_limit_of_the_whole_pod_counts_where_nothing_is_requested() -> None:
    assert requests(resources={"limits": {"cpu": "2"}}).cpu_millicores == 2000


def test_extended_resources_and_storage_are_counted_by_name() -> None:
    asked = {"nvidia.com/gpu": "1", "hugepages-2Mi": "4Mi", "ephemeral-storage": "1k", "example.com/none": "0"}
    found = requests({"name": "a", "resources": {"limits": asked}})
    assert found == Resources(0, 0, 1, 1000, (("hugepages-2Mi", 4 * MIB), ("nvidia.com/gpu", 1)))


def test_a_container_that_is_resized_counts_with_the_largest_of_its_states() -> None:
    status = {
        "containerStatuses": [
            {
                "name": "a",
                "resources": {"requests": {"cpu": "300m", "memory": "1Mi"}},
                "allocatedResources": {"cpu": "200m"},
            }
        ]
    }
    state = decode(json.dumps(status).encode(), PodStatus, "Pod", "test")
    assert specs.pod_requests(spec(container("a", "100m", "2Mi")), "spec", state) == Resources(300, 2 * MIB, 1)


def test_a_wrong_quantity_names_its_field() -> None:
    with pytest.raises(specs.FieldError, match=r"^spec\.containers\[1\]\.resources\.requests\.memory must be .*'12x'$"):
        requests(container("a", "1"), container("b", "1", "12x"))


def test_node_constraints_are_read_without_preferences() -> None:
    found = specs.constraints(
        spec(
            nodeSelector={"b": "2", "a": "1"},
            tolerations=[
                {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
                {"operator": "Gt", "key": "speed", "value": "3"},
            ],
            affinity={
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]},
                            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
                        ]
                    },
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {"weight": 1, "preference": {"matchExpressions": [{"key": "x", "operator": "Exists"}]}}
                    ],
                }
            },
        )
    )
    assert found.node_selector == (("a", "1"), ("b", "2"))
    assert found.required_terms == (
        NodeSelectorTerm((Requirement("zone", "In", ("a", "b")),)),
        NodeSelectorTerm(fields=(Requirement("metadata.name", "In", ("n",)),)),
    )
    # The comparison (alpha) is left out: the pod is kept off such nodes.
    assert [t.key for t in found.tolerations] == ["gpu"]


def preferring(weight: int, *expressions: Json) -> Json:
    return {"weight": weight, "preference": {"matchExpressions": list(expressions)}}


def wishing(*preferred: Json) -> PodSpec:
    return spec(affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": list(preferred)}})


def test_preferred_terms_are_wishes_but_for_those_of_our_own_steering() -> None:
    ssd = {"key": "disk", "operator": "In", "values": ["ssd"]}
    ours = {"key": "kinema.io/optimal", "operator": "Exists"}
    found = specs.wishes(wishing(preferring(100, ours), preferring(70, ssd), {"weight": 5, "preference": {}}), "spec")
    # An empty preferred term is no wish: kube-scheduler skips it too.
    assert found == (Wish(70, NodeSelectorTerm((Requirement("disk", "In", ("ssd",)),))),)
    assert specs.wishes(spec(), "spec") == ()


def test_preferred_pod_terms_and_soft_spreads_are_wishes_for_company() -> None:
    pod = spec(
        affinity={"podAffinity": PREFERRED, "podAntiAffinity": REQUIRED | PREFERRED},
        topologySpreadConstraints=[SPREAD, {**SPREAD, "maxSkew": 2, "whenUnsatisfiable": "ScheduleAnyway"}],
    )
    found = specs.company(pod, "default", {}, "spec")
    term = PodTerm("kubernetes.io/hostname", frozenset({"default"}), selector(("app", "x")))
    assert found == Company(near=((1, term),), apart=((1, term),), spreads=(Spread("zone", 2, LabelSelector()),))
    assert [s.max_skew for s in specs.rules(pod, "default", {}).spreads] == [1]
    assert specs.company(spec(), "default", {}, "spec") == Company()


@pytest.mark.parametrize("weight", [0, 101])
def test_a_weight_out_of_range_names_its_field(weight: int) -> None:
    exists = {"key": "disk", "operator": "Exists"}
    field = r"spec\.affinity\.nodeAffinity\.preferredDuringSchedulingIgnoredDuringExecution\[1\]\.weight"
    with pytest.raises(specs.FieldError, match=rf"^{field} must be between 1 and 100, not {weight}$"):
        specs.wishes(wishing(preferring(1, exists), preferring(weight, exists)), "spec")
    pod = spec(affinity={"podAffinity": {FIELD: [{"weight": weight, "podAffinityTerm": TERM}]}})
    with pytest.raises(
        specs.FieldError, match=rf"^spec\.affinity\.podAffinity\.{FIELD}\[0\]\.weight must be .* {weight}$"
    ):
        specs.company(pod, "default", {}, "spec")


FIELD = "preferredDuringSchedulingIgnoredDuringExecution"
PORT = {"ports": [{"containerPort": 80, "hostPort": 8080}]}
NETWORK_PORT = {"ports": [{"containerPort": 9100}]}
RULES = "requiredDuringSchedulingIgnoredDuringExecution"
TERM: Json = {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
REQUIRED = {RULES: [TERM]}
PREFERRED = {FIELD: [{"weight": 1, "podAffinityTerm": TERM}]}
SPREAD = {"maxSkew": 1, "topologyKey": "zone", "labelSelector": {}}


@pytest.mark.parametrize(
    ("pod", "names"),
    [
        (spec(affinity={"podAntiAffinity": REQUIRED}), ()),
        (spec(affinity={"podAffinity": REQUIRED}), ()),
        (
            spec(affinity={"podAffinity": {RULES: [{**TERM, "namespaceSelector": {}}]}}),
            ("a namespaceSelector in its required podAffinity",),
        ),
        (spec(volumes=[{"name": "e", "ephemeral": {"volumeClaimTemplate": {}}}]), ("ephemeral volume e",)),
        (spec(volumes=[{"name": "h", "hostPath": {"path": "/x"}}]), ("hostPath volume h",)),
        (spec(volumes=[{"name": "d", "gcePersistentDisk": {"pdName": "x"}}]), ("gcePersistentDisk volume d",)),
        (
            spec(
                volumes=[
                    {"name": "a", "configMap": {}},
                    {"name": "b", "secret": {}},
                    {"name": "c", "projected": {}},
                    {"name": "d", "downwardAPI": {}},
                    {"name": "e", "emptyDir": {}},
                ]
            ),
            (),
        ),
        (spec(resourceClaims=[{"name": "gpu"}]), ("resourceClaims",)),
        (spec(schedulingGates=[{"name": "wait"}]), ("schedulingGates",)),
    ],
)
def test_every_hard_constraint_that_is_not_modelled_is_named(pod: PodSpec, names: tuple[str, ...]) -> None:
    assert specs.unmodelled(pod) == names


def selector(*requirements: tuple[str, str]) -> LabelSelector:
    return LabelSelector(tuple(Requirement(key, "In", (value,)) for key, value in requirements))


def test_required_terms_are_rules_and_preferences_are_not() -> None:
    pod = spec(
        affinity={
            "podAffinity": {RULES: [{**TERM, "topologyKey": "zone", "namespaces": ["shop"]}]},
            "podAntiAffinity": REQUIRED | PREFERRED,
        }
    )
    near = PodTerm("zone", frozenset({"shop"}), selector(("app", "x")))
    apart = PodTerm("kubernetes.io/hostname", frozenset({"default"}), selector(("app", "x")))
    assert specs.rules(pod, "default", {}) == PodRules(affinity=(near,), anti_affinity=(apart,))
    assert specs.rules(spec(affinity={"podAffinity": PREFERRED}), "default", {}) == PodRules()


def test_label_keys_of_a_term_add_the_pods_own_values() -> None:
    keys = {"matchLabelKeys": ["pod-template-hash", "absent"], "mismatchLabelKeys": ["tenant"]}
    pod = spec(affinity={"podAntiAffinity": {RULES: [{**TERM, **keys, "namespaceSelector": {}}]}})
    (term,) = specs.rules(pod, "default", {"pod-template-hash": "abc", "tenant": "t"}).anti_affinity
    assert term.namespaces is None
    assert term.matches("any", {"app": "x", "pod-template-hash": "abc"})
    assert not term.matches("any", {"app": "x", "pod-template-hash": "old"})
    assert not term.matches("any", {"app": "x", "pod-template-hash": "abc", "tenant": "t"})


def test_hard_spreads_are_rules_with_their_policies() -> None:
    hard = {**SPREAD, "whenUnsatisfiable": "DoNotSchedule"}
    policies = {"minDomains": 3, "nodeAffinityPolicy": "Ignore", "nodeTaintsPolicy": "Honor"}
    pod = spec(
        topologySpreadConstraints=[hard, {**hard, **policies}, {**SPREAD, "whenUnsatisfiable": "ScheduleAnyway"}]
    )
    assert specs.rules(pod, "default", {}).spreads == (
        Spread("zone", 1, LabelSelector()),
        Spread("zone", 1, LabelSelector(), 3, honors_affinity=False, honors_taints=True),
    )


def test_each_hard_spread_knows_the_labels_that_the_others_ask_of_a_node() -> None:
    hard = {"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    keys = ("zone", "rack", "kubernetes.io/hostname")
    pod = spec(topologySpreadConstraints=[{**hard, "topologyKey": key} for key in keys])
    found = specs.rules(pod, "default", {}).spreads
    assert [spread.beside for spread in found] == [("rack",), ("zone",), ("zone", "rack")]
    assert not found[0].regards(NodeConstraints(), {"zone": "a"}, "n", ())
    assert found[0].regards(NodeConstraints(), {"zone": "a", "rack": "r"}, "n", ())


def test_a_spread_without_a_selector_counts_no_pod() -> None:
    hard = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    (spread,) = specs.rules(spec(topologySpreadConstraints=[hard]), "default", {}).spreads
    assert [spread.selector.matches(labels) for labels in ({}, {"app": "x"})] == [False, False]


@pytest.mark.parametrize(
    ("pod", "ports"),
    [
        (spec(container("a", **PORT)), (("TCP", 8080),)),
        (spec(container("a", **NETWORK_PORT)), ()),
        (spec(container("a", **NETWORK_PORT), hostNetwork=True), (("TCP", 9100),)),
        (spec(container("a", ports=[{"containerPort": 53, "hostPort": 53, "protocol": "UDP"}])), (("UDP", 53),)),
        # Only an init container that runs as long as the pod keeps its port.
        (spec(initContainers=[container("a", **PORT)]), ()),
        (spec(initContainers=[container("a", restartPolicy="Always", **PORT)]), (("TCP", 8080),)),
    ],
)
def test_host_ports_are_rules(pod: PodSpec, ports: tuple[tuple[str, int], ...]) -> None:
    assert specs.rules(pod, "default", {}).host_ports == ports


@pytest.mark.parametrize(
    ("empty_dir", "on_disk"), [({}, True), ({"sizeLimit": "1Gi"}, True), ({"medium": "Memory"}, False)]
)
def test_an_empty_dir_on_disk_is_local_storage(empty_dir: Json, on_disk: bool) -> None:
    assert specs.local_storage(spec(volumes=[{"name": "v", "emptyDir": empty_dir}])) is on_disk


@pytest.mark.parametrize(
    ("taint", "effect", "host_network", "tolerated"),
    [
        ("not-ready", "NoExecute", False, True),
        ("unreachable", "NoExecute", False, True),
        ("disk-pressure", "NoSchedule", False, True),
        ("memory-pressure", "NoSchedule", False, True),
        ("pid-pressure", "NoSchedule", False, True),
        ("unschedulable", "NoSchedule", False, True),
        ("network-unavailable", "NoSchedule", False, False),
        ("network-unavailable", "NoSchedule", True, True),
        ("out-of-service", "NoExecute", True, False),
    ],
)
def test_daemon_pods_tolerate_what_their_controller_adds(
    taint: str, effect: str, host_network: bool, tolerated: bool
) -> None:
    found = specs.daemon_constraints(spec(hostNetwork=host_network))
    assert found.tolerate((Taint(f"node.kubernetes.io/{taint}", "", effect),)) is tolerated
