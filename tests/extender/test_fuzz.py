"""Bodies that nobody should send: whatever comes, an answer is a part of what was offered, or an error with a reason.

Each body is a good one that was changed a few times. Where every change was harmless the answer must be that to a
good body; `make soak` tries 100,000 of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extender.app import create_app
from extender.settings import ExtenderSettings
from tests.extender.building import HandClock, cache, names_only, node, pod, state, target, whole_nodes

NODES: Final = (
    node("a", target("shop/Deployment/web", 2)),
    node("b", target("shop/Deployment/api", 1)),
    node("c"),
    node("d", optimal=""),
    node("e", optimal="", expiring="i-1"),
)
NAMES: Final = ("a", "b", "c", "d", "e")
OWNERS: Final = ("Deployment/web", "Deployment/api", "StatefulSet/db", "DaemonSet/agent", "ReplicaSet/stranger", "")
GOOD: Final = tuple(
    body for owner in OWNERS for body in (names_only(pod("p", owner), *NAMES), whole_nodes(pod("p", owner), *NODES))
)

ODD_VALUES: Final = (
    *(b"null", b"true", b"0", b"-1", b"1e999", b"NaN", b"Infinity", b"12345678901234567890123", b'""', b'"\\u0000"'),
    *(b"[]", b"{}", b"[[]]", b'{"":{}}', b'"\xff"', b'"\\ud800"', b'"\\u00e9\\n"', '"é"'.encode(), b"'a'", b'"a'),
    *(b"[" * 2000 + b"]" * 2000, b'{"a":' * 2000 + b"1" + b"}" * 2000, b'"' + b"x" * 5000 + b'"'),
)


@dataclass(frozen=True)
class Change:
    """One change of a body at a place between 0 and 1; harmless ones leave a good body good."""

    name: str
    change: Callable[[bytes, float, int], bytes]
    harmless: bool = False


def cut(body: bytes, at: float, _: int) -> bytes:
    return body[: int(len(body) * at)]


def put_byte(body: bytes, at: float, choice: int) -> bytes:
    place = int(len(body) * at)
    return body[:place] + bytes([choice % 256]) + body[place + 1 :]


def put_value(body: bytes, at: float, choice: int) -> bytes:
    """Replace what follows some colon or comma, up to the next end of a value, by an odd one."""
    places = [place for place, byte in enumerate(body) if byte in b":,"]
    if not places:
        return body
    start = places[int((len(places) - 1) * at)] + 1
    end = next((place for place in range(start, len(body)) if body[place] in b",}]"), len(body))
    return body[:start] + ODD_VALUES[choice % len(ODD_VALUES)] + body[end:]


def double(body: bytes, at: float, choice: int) -> bytes:
    start, end = int(len(body) * at), int(len(body) * at) + choice % 50
    return body[:end] + body[start:]


def lower_keys(body: bytes, _: float, __: int) -> bytes:
    for key in (b"Pod", b"Nodes", b"NodeNames"):
        body = body.replace(b'"' + key + b'":', b'"' + key[:1].lower() + key[1:] + b'":')
    return body


def unknown_field(body: bytes, _: float, choice: int) -> bytes:
    values = (b"1", b'"x"', b"[1,{}]", b'{"uid":"other"}', b"null", b'"NodeNames\\":["')
    return body.replace(b"{", b'{"unknown":' + values[choice % len(values)] + b",", 1)


def more_space(body: bytes, _: float, choice: int) -> bytes:
    space = (b" ", b"\n", b"\t \r\n")[choice % 3]
    return space + body.replace(b'": ', b'"' + space + b":" + space) + space


def foreign_names(body: bytes, _: float, choice: int) -> bytes:
    more = (b'"foreign", ', b'"a", ', b'"e", "e", ', '"ä\\"\\\\", '.encode(), b'"x,y", ', b'"", ')
    return body.replace(b'"NodeNames": [', b'"NodeNames": [' + more[choice % len(more)])


def escaped(body: bytes, _: float, __: int) -> bytes:
    return body.replace(b'["a", ', b'["\\u0061", ')


CHANGES: Final = (
    Change("cut", cut),
    Change("put_byte", put_byte),
    Change("put_value", put_value),
    Change("double", double),
    Change("lower_keys", lower_keys, harmless=True),
    Change("unknown_field", unknown_field, harmless=True),
    Change("more_space", more_space, harmless=True),
    Change("foreign_names", foreign_names, harmless=True),
    Change("escaped", escaped, harmless=True),
)

bodies = st.tuples(
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.sampled_from(CHANGES), st.floats(0, 1), st.integers(0, 255)), max_size=4),
)


def offered(body: bytes) -> tuple[str, list[str]] | None:
    """Return the form of a body and the names that it offers, by the standard library; None where it is no message.

    Go writes the keys in capitals; in lower case they mean the same, and capitals win where both are there.
    """
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(sent, dict):
        return None
    names = next((sent[key] for key in ("NodeNames", "nodeNames", "nodenames") if sent.get(key) is not None), None)
    if names is not None:
        return "NodeNames", names
    nodes = next((sent[key] for key in ("Nodes", "nodes") if sent.get(key) is not None), None)
    if nodes is None:
        return None
    return "Nodes", [item["metadata"]["name"] for item in nodes.get("items") or ()]


def judge(asked: FlaskClient, body: bytes, *, good: bool) -> None:
    answer = asked.post("/filter", data=body)
    scored = asked.post("/prioritize", data=body)
    for one in (answer, scored):
        assert one.status_code in ((200,) if good else (200, 400))
        assert b"Traceback" not in one.data
        if one.status_code == 400:
            assert json.loads(one.data)["Error"].startswith("kinema: ")
    if answer.status_code == 200 and (known := readable(body)) is not None:
        form, names = known
        got = json.loads(answer.data)
        assert {"Nodes", "NodeNames"} & got.keys() == {form}
        left = (
            got[form] if form == "NodeNames" else [item["metadata"]["name"] for item in got["Nodes"].get("items") or ()]
        )
        # In the order of the request, nothing foreign, and never nothing.
        assert [name for name in dict.fromkeys(names) if name in set(left)] == list(dict.fromkeys(left))
        assert bool(left) == bool(names)
        assert set(got.get("FailedNodes", ())) == set(names) - set(left)
        assert not got.get("Error")
    if scored.status_code == 200 and (known := readable(body)) is not None:
        rows = json.loads(scored.data)
        assert [row["Host"] for row in rows] == (known[1] if known[0] == "NodeNames" else list(dict.fromkeys(known[1])))
        assert all(type(row["Score"]) is int and 0 <= row["Score"] <= 10 for row in rows)


def readable(body: bytes) -> tuple[str, list[str]] | None:
    """Return what `offered` does where all of it are names; an untouched pod's are sent back unread."""
    try:
        known = offered(body)
    except (KeyError, TypeError, AttributeError):
        return None
    if known is None or not all(isinstance(name, str) and name.isprintable() for name in known[1]):
        return None
    if known[0] == "Nodes" and len(set(known[1])) < len(known[1]):
        return None
    return known


def metric(asked: FlaskClient, line: str) -> float:
    rows = asked.get("/metrics").get_data(as_text=True).splitlines()
    return sum(float(row.rpartition(" ")[2]) for row in rows if row.startswith(f"{line} "))


@pytest.fixture(scope="module")
def asked() -> FlaskClient:
    return create_app(ExtenderSettings(), cache(state(HandClock(), *NODES))).test_client()


def check(asked: FlaskClient, sent: tuple[bytes, list[tuple[Change, float, int]]]) -> None:
    body, changes = sent
    for change, at, choice in changes:
        body = change.change(body, at, choice)
    judge(asked, body, good=all(change.harmless for change, _, _ in changes))


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=bodies)
def test_changed_bodies_get_a_part_of_what_they_offer_or_a_reason(asked: FlaskClient, sent: Any) -> None:
    check(asked, sent)
    assert metric(asked, 'kinema_extender_fail_open_total{reason="bug"}') == 0


@pytest.mark.soak
@settings(max_examples=100_000, deadline=None, database=None)
@given(sent=bodies)
def test_a_hundred_thousand_changed_bodies(asked: FlaskClient, sent: Any) -> None:
    check(asked, sent)


@pytest.mark.parametrize("body", GOOD)
@pytest.mark.parametrize("change", [change for change in CHANGES if change.harmless], ids=lambda change: change.name)
def test_harmless_changes_leave_a_good_body_good(asked: FlaskClient, body: bytes, change: Change) -> None:
    for choice in range(6):
        judge(asked, change.change(body, 0.5, choice), good=True)
    assert metric(asked, 'kinema_extender_fail_open_total{reason="bug"}') == 0
