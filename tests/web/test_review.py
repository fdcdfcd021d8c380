"""The node-pool webhook without HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import BadInput
from planner.model.plan import PlanRecord
from planner.rescheduler import CARRIED_OUT
from planner.settings import Settings
from planner.web.review import PoolRequest, Review, parse_request, review
from tests.web.plans import NOW, record_of

APPLY = Settings(mode="apply")


def asked(present: int, least: int = 0, greatest: int = 10, pool: str = "a", zone: str = "z1") -> PoolRequest:
    return PoolRequest("uid-1", pool, zone, present, least, greatest)


def answer(request: PoolRequest, record: PlanRecord | None, existing: int, settings: Settings = APPLY) -> Review:
    return review(request, record, existing, settings, NOW)


def test_size_is_what_the_plan_wants_where_that_is_more_than_there_is() -> None:
    found = answer(asked(present=2), record_of(keep=2, boot=3), existing=2)

    assert (found.outcome, found.size, found.advice, found.iteration) == ("planned", 5, 5, "it-1")  # 2 kept + 3 booted


def test_size_is_never_below_the_nodes_that_still_exist() -> None:
    found = answer(asked(present=4), record_of(keep=1, remove=3), existing=4)

    assert (found.outcome, found.size, found.advice) == ("held", 4, 1)
    assert "only Kinema removes nodes" in found.reason


def test_size_is_never_below_the_present_size_since_the_caller_would_choose_the_victim() -> None:
    # Two machines have no Node object yet: they may be booting, or the nodes may be a few seconds old.
    found = answer(asked(present=4), record_of(keep=1, remove=1), existing=2)

    assert (found.outcome, found.size) == ("held", 4)


def test_size_follows_once_kinema_has_removed_the_nodes() -> None:
    found = answer(asked(present=1), record_of(keep=1, remove=3), existing=1)

    assert (found.outcome, found.size) == ("planned", 1)


@pytest.mark.parametrize(
    ("least", "greatest", "size"),
    [(0, 3, 3), (8, 10, 8), (5, 5, 5)],  # the plan wants 5: cut to 3, raised to 8, left alone
)
def test_size_stays_within_the_callers_bounds(least: int, greatest: int, size: int) -> None:
    found = answer(asked(present=2, least=least, greatest=greatest), record_of(keep=2, boot=3), existing=2)

    assert (found.size, found.advice) == (size, size)


def test_nodes_that_exist_weigh_more_than_the_greatest_size() -> None:
    found = answer(asked(present=6, greatest=4), record_of(keep=2, remove=4), existing=6)

    assert (found.outcome, found.size, found.advice) == ("held", 6, 2)


@pytest.mark.parametrize("where", ["record", "settings"])
def test_recommend_mode_leaves_the_size_and_gives_the_advice(where: str) -> None:
    record = record_of(keep=2, boot=3, mode="recommend" if where == "record" else "apply")

    found = answer(asked(present=2), record, 2, Settings(mode="recommend" if where == "settings" else "apply"))

    assert (found.outcome, found.size, found.advice, found.iteration) == ("advised", 2, 5, "it-1")


def test_present_size_stays_without_a_plan() -> None:
    assert answer(asked(present=3), None, 3) == Review("no_plan", 3, "there is no plan")


def test_present_size_stays_while_the_plan_is_abandoned() -> None:
    found = answer(asked(present=2), record_of(keep=2, boot=3, phase="abandoning", reason="no such machines"), 2)

    assert (found.outcome, found.size) == ("no_plan", 2)
    assert "no such machines" in found.reason


@pytest.mark.parametrize(("age_seconds", "size"), [(86400.0, 5), (86401.0, 2)])
def test_plan_counts_for_a_day_after_it_was_accepted(age_seconds: float, size: int) -> None:
    record = record_of(keep=2, boot=3, accepted_at=NOW - age_seconds)

    assert answer(asked(present=2), record, 2).size == size


def test_plan_that_was_carried_out_still_says_the_size() -> None:
    assert answer(asked(present=2), record_of(keep=2, boot=3, phase="done", reason=CARRIED_OUT), 2).size == 5


def test_present_size_stays_after_the_plan_was_abandoned() -> None:
    found = answer(asked(present=2), record_of(keep=2, boot=3, phase="done", reason="boots took too long"), 2)

    assert (found.outcome, found.size) == ("no_plan", 2)
    assert "boots took too long" in found.reason


@pytest.mark.parametrize(("pool", "zone"), [("b", "z1"), ("a", "z2")])
def test_pool_that_the_plan_does_not_know_keeps_its_size(pool: str, zone: str) -> None:
    found = answer(asked(present=7, pool=pool, zone=zone), record_of(keep=2, boot=3), 7)

    assert (found.outcome, found.size, found.advice) == ("unknown_pool", 7, None)
    assert repr(pool) in found.reason
    assert repr(zone) in found.reason


@given(
    counts=st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)),
    present=st.integers(0, 20),
    existing=st.integers(0, 20),
    bounds=st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted),
    mode=st.sampled_from(["recommend", "apply"]),
)
def test_no_answer_ever_shrinks_a_pool(
    counts: tuple[int, int, int], present: int, existing: int, bounds: list[int], mode: str
) -> None:
    keep, boot, remove = counts
    record = record_of(keep=keep, boot=boot, remove=remove, mode=mode)

    found = answer(asked(present, *bounds), record, existing)

    assert found.size >= present
    if found.outcome in ("planned", "held"):
        assert found.size >= existing
        assert found.size == max(min(max(keep + boot, bounds[0]), bounds[1]), present, existing)
    else:
        assert found.size == present


GOOD: dict[str, Any] = {"uid": "u", "pool": "a", "zone": "z1", "present": 2, "least": 0, "greatest": 5}


def test_request_is_read_and_further_fields_are_left_alone() -> None:
    body = json.dumps({"apiVersion": "x", "request": GOOD | {"later": 1}}).encode()

    assert parse_request(body) == PoolRequest("u", "a", "z1", 2, 0, 5)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("uid", "", 'request.uid must be a text that is not empty, not ""'),
        ("pool", 7, "request.pool must be a text that is not empty, not 7"),
        ("present", -1, "request.present must be a whole number of nodes, 0 or more, not -1"),
        ("present", 1.5, "not 1.5"),
        ("least", True, "request.least must be a whole number of nodes, 0 or more, not true"),
        ("greatest", "5", 'not "5"'),
        ("least", 6, "request.least must be at most request.greatest (5), not 6"),
    ],
)
def test_wrong_field_is_named_with_its_value_and_what_would_be_right(field: str, value: object, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_request(json.dumps({"request": GOOD | {field: value}}).encode())

    assert said in str(caught.value)


@pytest.mark.parametrize("field", sorted(GOOD))
def test_missing_field_is_named(field: str) -> None:
    with pytest.raises(BadInput, match=rf"request\.{field} must be .*, not missing"):
        parse_request(json.dumps({"request": {k: v for k, v in GOOD.items() if k != field}}).encode())


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"7", b'{"request": []}', b"[" * 100_000])
def test_body_that_is_no_review_is_refused(body: bytes) -> None:
    with pytest.raises(BadInput, match="the body must be"):
        parse_request(body)
