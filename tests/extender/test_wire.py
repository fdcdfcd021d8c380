"""The messages: both forms, both cases of keys, and whatever else somebody may send."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.steering import Rule, Verdict
from extender.wire import (
    NAMED_LIMIT,
    BadRequest,
    NameCandidates,
    read_request,
    write_everything,
    write_scores,
    write_verdict,
)
from tests.extender.building import HandClock, names_only, node, pod, state, whole_nodes

AN_EMPTY_CLUSTER = state(HandClock())


def test_keys_in_capitals_and_in_lower_case_read_the_same() -> None:
    for pod_key, names_key in (("Pod", "NodeNames"), ("pod", "nodeNames"), ("pod", "nodenames")):
        body = json.dumps({pod_key: pod("p"), names_key: ["a"]}).encode()
        request = read_request(body)
        assert request.pod is not None
        assert (request.pod.metadata.uid, request.candidates.names()) == ("p", ("a",))


def test_whole_nodes_come_back_byte_for_byte() -> None:
    body = b'{"Pod":{},"Nodes":{"items":[{"metadata":{"name":"a"},"x":1.50},{"metadata": {"name":"b"}, "y":[ ]}]}}'
    request = read_request(body)
    assert request.candidates.names() == ("a", "b")
    answer = write_verdict(request, Verdict(Rule.PLANNED, ("b",), "why"), AN_EMPTY_CLUSTER)
    assert answer == b'{"Nodes":{"items":[{"metadata": {"name":"b"}, "y":[ ]}]},"FailedNodes":{"a":"why"}}'
    assert write_everything(request) == b'{"Nodes":' + body.partition(b'"Nodes":')[2]


def test_names_come_back_as_names_with_a_reason_for_the_others() -> None:
    request = read_request(names_only(pod("p"), "a", "b", "c"))
    known = state(HandClock(), node("c", expiring="i-1"))
    answer = json.loads(write_verdict(request, Verdict(Rule.PLANNED, ("b",), "why"), known))
    refused = {"a": "why", "c": "kinema: the node will be removed soon"}
    assert answer == {"NodeNames": ["b"], "FailedNodes": refused}


def test_reasons_are_given_for_a_bounded_number_of_nodes() -> None:
    names = [f"n{number}" for number in range(NAMED_LIMIT * 5)]
    request = read_request(names_only(pod("p"), *names))
    # One planned node, or the last half of all, as for a pod without a plan.
    for allowed in (("n0",), tuple(names[len(names) // 2 :])):
        answer = json.loads(write_verdict(request, Verdict(Rule.PLANNED, allowed, "why"), AN_EMPTY_CLUSTER))
        assert answer["NodeNames"] == list(allowed)
        assert len(answer["FailedNodes"]) == NAMED_LIMIT
        assert set(answer["FailedNodes"]) <= set(names) - set(allowed)


def test_a_name_is_found_undecoded_only_as_a_whole() -> None:
    candidates = NameCandidates(b'["node-10", "node-2"]')
    assert "node-10" in candidates
    assert "node-1" not in candidates
    assert "node-2" in candidates


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"Pod":{"metadata":{}}', "truncated"),
        (b'{"Pod":{},"NodeNames":null,"Nodes":null}', "neither Nodes nor NodeNames"),
        (b'{"Pod":7,"NodeNames":["a"]}', "Pod"),
        (b'{"Pod":{},"NodeNames":{"a":1}}', "NodeNames must be a list"),
        (b'{"Pod":{},"NodeNames":[ 1]}', "NodeNames must be a list"),
        (b'{"Pod":{},"Nodes":[]}', "Nodes must be an object"),
        (b"\xff\xfe", "extender/v1"),
        (b'{"Pod":{"metadata":{"name":"\xff"}},"NodeNames":["a"]}', "extender/v1"),
        (b'{"Pod":' + b"[" * 100_000, "extender/v1"),
        (b'{"Pod":{},"NodeNames":' + b"[" * 100_000, "extender/v1"),
    ],
)
def test_garbage_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        read_request(body)


@pytest.mark.parametrize(
    "body",
    [b'{"NodeNames":["a",1]}', b'{"NodeNames":["\xff"]}', b'{"Nodes":{"items":[{}]}}', b'{"Nodes":{"items":7}}'],
)
def test_candidates_are_checked_when_they_are_looked_at(body: bytes) -> None:
    request = read_request(body)
    with pytest.raises(BadRequest, match="must be a list"):
        request.candidates.names()


def test_an_empty_list_of_nodes_may_be_null() -> None:
    assert read_request(b'{"Nodes":{"items":null}}').candidates.names() == ()
    assert read_request(whole_nodes(pod("p"))).candidates.names() == ()


# What is looked for comes from the API server: node names are DNS subdomains. What is sent may be anything.
@given(
    names=st.lists(st.text(max_size=8) | st.text("ab.-", max_size=3), max_size=6),
    looked_for=st.text("ab.-", max_size=3),
)
def test_searching_the_bytes_finds_what_decoding_finds(names: list[str], looked_for: str) -> None:
    candidates = NameCandidates(json.dumps(names).encode())
    assert (looked_for in candidates) == (looked_for in names)
    assert tuple(candidates.first(4)) == tuple(names[:4])
    # After some searches everything is decoded, which must change no answer.
    assert [looked_for in candidates for _ in range(12)] == [looked_for in names] * 12
    assert candidates.names() == tuple(names)


@given(
    names=st.lists(st.text(max_size=8) | st.text("ab.-", max_size=3), max_size=6),
    scores=st.lists(st.integers(0, 10), min_size=6, max_size=6),
)
def test_scores_are_written_as_an_encoder_would(names: list[str], scores: list[int]) -> None:
    request = read_request(json.dumps({"NodeNames": names}).encode())
    expected = [{"Host": name, "Score": score} for name, score in zip(names, scores, strict=False)]
    assert json.loads(write_scores(request, scores[: len(names)])) == expected
    assert json.loads(write_scores(request, 7)) == [{"Host": name, "Score": 7} for name in names]


def test_equal_scores_of_very_many_nodes_are_left_out() -> None:
    names = [f"n{number}" for number in range(NAMED_LIMIT + 1)]
    many, few = read_request(names_only(pod("p"), *names)), read_request(names_only(pod("p"), *names[1:]))
    assert write_scores(many, 7) == write_scores(many, [7] * len(names)) == b"[]"
    assert len(json.loads(write_scores(few, 7))) == len(json.loads(write_scores(few, [7] * NAMED_LIMIT))) == NAMED_LIMIT
    assert len(json.loads(write_scores(many, [*[7] * NAMED_LIMIT, 8]))) == NAMED_LIMIT + 1
