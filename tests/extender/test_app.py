"""The routes: answers, failing open, bad bodies, health and metrics."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from extender.app import create_app
from extender.nodes import Cache
from extender.settings import ExtenderSettings
from extender.state import State
from tests.extender.building import EXPIRES, HandClock, Json, cache, names_only, node, pod, state, target, whole_nodes

WEB = "shop/Deployment/web"


class Untrusted(Cache):
    """A cache that says what a test wants of its own trust."""

    def __init__(self, known: State, *, ready: bool = True, stale: bool = False) -> None:
        super().__init__(known, (), stale_seconds=1.0)
        self._says = (ready, stale)

    def is_ready(self) -> bool:
        return self._says[0]

    def is_stale(self) -> bool:
        return self._says[1]


class Broken(State):
    """A state with a bug."""

    def filter(self, *arguments: Any) -> Any:
        raise ZeroDivisionError("a bug")

    def prioritize(self, *arguments: Any) -> Any:
        raise ZeroDivisionError("a bug")


def client(source: Cache, **options: Any) -> FlaskClient:
    return create_app(ExtenderSettings(**options), source).test_client()


def planned() -> State:
    return state(HandClock(), node("a", target(WEB, 1)), node("b"), node("c", optimal="", expiring="i-1"))


def metric(asked: FlaskClient, line: str) -> float:
    text = asked.get("/metrics").get_data(as_text=True)
    found = [row.rpartition(" ")[2] for row in text.splitlines() if row.startswith(f"{line} ")]
    assert len(found) <= 1
    return float(found[0]) if found else 0.0


def test_filter_answers_names_with_the_planned_name() -> None:
    answer = client(cache(planned())).post("/filter", data=names_only(pod("p"), "a", "b", "c"))
    assert answer.status_code == 200
    assert answer.get_json() == {
        "NodeNames": ["a"],
        "FailedNodes": {
            "b": "kinema: the plan puts this pod on node a",
            "c": "kinema: the node will be removed soon",
        },
    }


def test_filter_answers_whole_nodes_with_the_planned_node() -> None:
    nodes = [{"metadata": {"name": name}, "spec": {"x": name}} for name in ("a", "b")]
    answer = client(cache(planned())).post("/filter", data=whole_nodes(pod("p"), *nodes)).get_json()
    assert answer["Nodes"] == {"items": [nodes[0]]}
    assert "NodeNames" not in answer


def test_prioritize_answers_a_bare_array_of_integers() -> None:
    answer = client(cache(planned())).post("/prioritize", data=names_only(pod("p"), "c", "a"))
    assert answer.get_json() == [{"Host": "c", "Score": 0}, {"Host": "a", "Score": 10}]


def test_a_pod_of_a_daemonset_gets_every_node_back_untouched() -> None:
    asked = client(cache(planned()))
    body = names_only(pod("p", "DaemonSet/agent"), "a", "b", "c")
    assert asked.post("/filter", data=body).get_json() == {"NodeNames": ["a", "b", "c"]}
    scores = asked.post("/prioritize", data=body).get_json()
    assert scores == [{"Host": name, "Score": 0} for name in ("a", "b", "c")]
    assert metric(asked, 'kinema_extender_requests_total{outcome="untouched",verb="filter"}') == 1


@pytest.mark.parametrize(
    ("source", "thing", "reason"),
    [
        pytest.param(Untrusted(planned(), ready=False), pod("p"), "not_ready", id="cache not whole"),
        pytest.param(Untrusted(planned(), stale=True), pod("p"), "stale_cache", id="cache too old"),
        pytest.param(cache(planned()), None, "unknown_pod", id="no pod"),
        pytest.param(cache(planned()), {"metadata": {"name": "p"}}, "unknown_pod", id="pod without uid"),
        pytest.param(cache(planned()), pod("p", "ReplicaSet/x"), "unknown_owner", id="owner never seen"),
        pytest.param(cache(Broken(HandClock().clock(), 60)), pod("p"), "bug", id="a bug"),
    ],
)
def test_every_doubt_lets_all_nodes_pass_and_is_counted_and_logged_once(
    source: Cache, thing: Json | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = client(source)
    body = json.dumps({"Pod": thing, "NodeNames": ["a", "b", "c"]})
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert asked.post("/filter", data=body).get_json() == {"NodeNames": ["a", "b", "c"]}
        assert [row["Score"] for row in asked.post("/prioritize", data=body).get_json()] == [0, 0, 0]
    # 3 filter calls + 1 prioritize call
    assert metric(asked, f'kinema_extender_fail_open_total{{reason="{reason}"}}') == 4
    assert metric(asked, 'kinema_extender_requests_total{outcome="fail_open",verb="filter"}') == 3
    assert [record.getMessage().count(reason) for record in caplog.records] == [1]


@pytest.mark.parametrize("path", ["/filter", "/prioritize"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"Pod":{}}', b'{"Pod":{"metadata":{"uid":"u"}},"NodeNames":[1]}'])
def test_garbage_gets_400_with_a_reason_and_no_trace(path: str, body: bytes) -> None:
    asked = client(cache(planned()))
    answer = asked.post(path, data=body)
    assert answer.status_code == 400
    assert answer.get_json()["Error"].startswith("kinema: ")
    assert b"Traceback" not in answer.data
    verb = path.removeprefix("/")
    assert metric(asked, f'kinema_extender_requests_total{{outcome="bad_request",verb="{verb}"}}') == 1


def test_a_body_over_the_limit_gets_413() -> None:
    asked = client(cache(planned()), body_limit_bytes=100)
    answer = asked.post("/filter", data=b" " * 101)
    assert (answer.status_code, answer.get_json()) == (413, {"Error": "kinema: the body is over the limit"})
    assert asked.post("/filter", data=b'{"NodeNames":["a"]}').status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/filter", 405), ("POST", "/preempt", 404), ("POST", "/bind", 404)]
)
def test_other_verbs_are_refused_in_json(method: str, path: str, status: int) -> None:
    answer = client(cache(planned())).open(path, method=method)
    assert (answer.status_code, answer.is_json) == (status, True)


def test_readiness_says_whether_answers_can_be_trusted() -> None:
    assert client(cache(planned())).get("/readyz").status_code == 200
    assert client(Untrusted(planned(), ready=False)).get("/readyz").status_code == 503
    assert client(Untrusted(planned(), stale=True)).get("/readyz").status_code == 503
    assert client(Untrusted(planned(), ready=False)).get("/healthz").status_code == 200


def test_metrics_show_reservations_and_open_targets_of_their_own_app() -> None:
    first, second = client(cache(planned())), client(cache(planned()))
    assert metric(first, "kinema_extender_open_targets") == 1
    first.post("/filter", data=names_only(pod("p"), "a", "b"))
    assert metric(first, "kinema_extender_reservations") == 1
    assert metric(first, "kinema_extender_open_targets") == 0
    assert metric(first, 'kinema_extender_requests_total{outcome="planned",verb="filter"}') == 1
    assert metric(first, 'kinema_extender_request_duration_seconds_count{verb="filter"}') == 1
    assert metric(second, 'kinema_extender_requests_total{outcome="planned",verb="filter"}') == 0
    assert metric(second, "kinema_extender_reservations") == 0


NAMES = ("a", "b", "c", "d", "e")
OWNERS = ("Deployment/web", "Deployment/api", "Deployment/unseen", "StatefulSet/db", "DaemonSet/x", "ReplicaSet/y", "")

targets = st.builds(
    target,
    st.sampled_from(("shop/Deployment/web", "shop/Deployment/api")),
    st.integers(0, 3),
    st.sampled_from(("all", "iteration")),
)
nodes = st.builds(
    lambda name, wants, optimal, expiring, room, expires: node(
        name, *wants, optimal=optimal, expiring=expiring, headroom=room, expires=expires
    ),
    st.sampled_from(NAMES),
    st.lists(targets, max_size=2),
    st.sampled_from(("", "i-1", "i-2")),
    st.sampled_from(("", "i-2")),
    st.none() | st.fixed_dictionaries({"cpu_millicores": st.integers(0, 300), "pods": st.integers(0, 2)}),
    st.sampled_from((EXPIRES, 0.0)),
)
bound_pods = st.builds(
    lambda number, owner, on, mark: pod(f"bound-{number}", owner, on=on, mark=mark),
    st.integers(0, 9),
    st.sampled_from(OWNERS),
    st.sampled_from(NAMES),
    st.sampled_from(("", "i-1")),
)
asking = st.builds(
    lambda number, owner, mark: pod(f"p{number}", owner, mark=mark),
    st.integers(0, 5),
    st.sampled_from(OWNERS),
    st.sampled_from(("", "i-1")),
)


@given(
    things=st.lists(nodes | bound_pods, max_size=10),
    asks=st.lists(
        st.tuples(asking, st.lists(st.sampled_from((*NAMES, "unknown")), max_size=6), st.booleans()), max_size=6
    ),
)
def test_an_answer_is_a_part_of_what_was_offered_and_never_empty(
    things: list[Json], asks: list[tuple[Json, list[str], bool]]
) -> None:
    asked = client(cache(state(HandClock(), *things)))
    for thing, names, whole in asks:
        offered = list(dict.fromkeys(names)) if whole else names
        items = [{"metadata": {"name": name}} for name in offered]
        body = whole_nodes(thing, *items) if whole else names_only(thing, *offered)
        answer = asked.post("/filter", data=body)
        assert answer.status_code == 200
        got = answer.get_json()
        allowed = [item["metadata"]["name"] for item in got["Nodes"]["items"]] if whole else got["NodeNames"]
        assert set(allowed) <= set(offered)
        assert bool(allowed) == bool(offered)
        assert not set(allowed) & set(got.get("FailedNodes", ()))
        assert set(got.get("FailedNodes", ())) <= set(offered)
        scored = asked.post("/prioritize", data=body).get_json()
        assert [row["Host"] for row in scored] == offered
        assert all(type(row["Score"]) is int and 0 <= row["Score"] <= 10 for row in scored)
    assert metric(asked, 'kinema_extender_fail_open_total{reason="bug"}') == 0


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(("Pod", "pod", "Nodes", "nodes", "NodeNames", "nodeNames", "metadata", "items", "spec", "uid"))
bodies = st.binary(max_size=60) | st.dictionaries(keys, values, max_size=4).map(lambda body: json.dumps(body).encode())


@settings(max_examples=300)
@given(body=bodies, cut=st.integers(0, 400))
def test_no_body_crashes_it(body: bytes, cut: int) -> None:
    whole = whole_nodes(pod("p"), node("a"), node("b"))
    asked = client(cache(planned()))
    for sent in (body, whole[:cut], whole[:cut] + body):
        for path in ("/filter", "/prioritize"):
            answer = asked.post(path, data=sent)
            assert answer.status_code in (200, 400)
            assert answer.is_json
    assert metric(asked, 'kinema_extender_fail_open_total{reason="bug"}') == 0
