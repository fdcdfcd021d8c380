"""The simulated scheduler's filters and the real ones, asked about the same pods on every node of the same clusters."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator

import pytest

from planner.ports import CLAIMS, NODES, PODS, VOLUMES
from simulator.api import ApiServer
from simulator.clock import SimulatedClock
from simulator.scheduler import Scheduler
from tests.controlplane.build import FILTER_CHECK, build
from tests.filters.clusters import HOSTNAME, ZONE, generate
from tests.filters.scheduler import Filters, Object, State

PODS_OF_A_SEED = 8
_KEYS = (HOSTNAME, ZONE, "generation", "disk")


@pytest.fixture(scope="module")
def filters() -> Iterator[Filters]:
    """The running checker; where it can be neither found nor built the test fails."""
    with Filters(build().path(FILTER_CHECK)) as running:
        yield running


@pytest.mark.controlplane
@pytest.mark.parametrize("seed", range(30))
def test_the_simulated_filters_admit_a_pod_where_the_real_ones_do(seed: int, filters: Filters) -> None:
    state, chance = generate(seed, filters).state(), random.Random(seed)
    pods = [_of_all_namespaces(pod) for pod in state.pods]
    free = [index for index, pod in enumerate(pods) if not _is_daemon(pod)]
    for index in chance.sample(free, min(len(free), PODS_OF_A_SEED)):
        others = [pod for pod in pods if pod is not pods[index]]
        for pod in (_without_node(pods[index]), _with_rules(_without_node(pods[index]), chance)):
            simulated = {node: not refusal for node, refusal in _simulated(state, others, pod).items()}
            assert simulated == {node: _really(filters, state, others, pod, node) for node in simulated}, pod


def _really(filters: Filters, state: State, others: list[Object], pod: Object, node: str) -> bool:
    """Say whether the real filters admit the pod on the node."""
    there = {**pod, "spec": {**pod["spec"], "nodeName": node}}
    asked = State(state.nodes, [*others, there], state.volumes, state.claims, state.namespaces)
    return not filters.refusals(asked, [len(others)])


def _with_rules(pod: Object, chance: random.Random) -> Object:
    """Return a pod that fits nearly everywhere but for new rules about the pods around it."""
    made: Object = copy.deepcopy(pod)
    spec = made["spec"]
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        container["resources"] = {}
    if chance.random() < 0.3:
        # A port of an init container counts only where that runs on beside the others.
        ports = [{"containerPort": port, "hostPort": port, "protocol": "TCP"} for port in (8080, 9100, 9200)]
        policy = {"restartPolicy": "Always"} if chance.random() < 0.5 else {}
        spec["initContainers"] = [{"name": "first", "resources": {}, "ports": ports, **policy}]
    spec["tolerations"] = [{"operator": "Exists"}] if chance.random() < 0.7 else []
    made["metadata"]["labels"] |= {"tier": chance.choice(("web", "db", "cache"))}
    spec["topologySpreadConstraints"] = [_spread(chance, key) for key in chance.sample(_KEYS, chance.randint(0, 2))]
    affinity = {"nodeAffinity": spec.get("affinity", {}).get("nodeAffinity", {})} if chance.random() < 0.5 else {}
    for kind in ("podAffinity", "podAntiAffinity"):
        if chance.random() < 0.4:
            terms = [_term(chance) for _ in range(chance.randint(1, 2))]
            affinity[kind] = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
    spec["affinity"] = affinity
    return made


def _spread(chance: random.Random, key: str) -> Object:
    made: Object = {"topologyKey": key, "maxSkew": chance.randint(1, 3), "whenUnsatisfiable": "DoNotSchedule"}
    made["labelSelector"] = chance.choice([{}, *[{"matchLabels": {"tier": tier}} for tier in ("web", "db", "cache")]])
    if chance.random() < 0.3:
        made["minDomains"] = chance.randint(1, 4)
    if chance.random() < 0.4:
        made["nodeAffinityPolicy"] = chance.choice(("Honor", "Ignore"))
    if chance.random() < 0.4:
        made["nodeTaintsPolicy"] = chance.choice(("Honor", "Ignore"))
    return made


def _term(chance: random.Random) -> Object:
    tier = {
        "key": "tier",
        "operator": chance.choice(("In", "NotIn")),
        "values": [chance.choice(("web", "db", "cache"))],
    }
    made: Object = {"topologyKey": chance.choice(_KEYS), "labelSelector": {"matchExpressions": [tier]}}
    if chance.random() < 0.4:
        made["namespaces"] = chance.sample(("shop", "data"), chance.randint(1, 2))
    return made


def _simulated(state: State, others: list[Object], pod: Object) -> dict[str, str]:
    server = ApiServer(SimulatedClock(0.0), 0)
    for resource, bodies in (
        (NODES, state.nodes),
        (VOLUMES, state.volumes),
        (CLAIMS, state.claims),
        (PODS, [*others, pod]),
    ):
        for body in bodies:
            server.store.put(resource, copy.deepcopy(body))
    return Scheduler(server).refusals(pod)


def _of_all_namespaces(pod: Object) -> Object:
    """Return the pod with every namespaceSelector empty: the simulator knows no labels of namespaces."""
    made: Object = copy.deepcopy(pod)
    affinity = made["spec"].get("affinity", {})
    for kind in ("podAffinity", "podAntiAffinity"):
        for term in affinity.get(kind, {}).get("requiredDuringSchedulingIgnoredDuringExecution", ()):
            if "namespaceSelector" in term:
                term["namespaceSelector"] = {}
    return made


def _without_node(pod: Object) -> Object:
    made: Object = copy.deepcopy(pod)
    made["spec"].pop("nodeName", None)
    made["metadata"].pop("deletionTimestamp", None)
    return made


def _is_daemon(pod: Object) -> bool:
    return any(owner["kind"] == "DaemonSet" for owner in pod["metadata"].get("ownerReferences", ()))
