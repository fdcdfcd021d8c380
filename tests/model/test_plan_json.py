"""A plan survives its public format exactly, and what is no plan is refused in one line."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import BadInput
from planner.model.plan import (
    Certificate,
    CertificateClass,
    CertificateGroup,
    CertificateRow,
    Objective,
    Plan,
    PlannedNode,
    PlannedWorkload,
    Unplaced,
)
from planner.model.plan_json import ContradictoryPlan, decode_plan, encode_plan, usd
from planner.model.resources import Resources

money = st.integers(0, 10**18)
counts = st.integers(0, 10**6)
texts = st.text(max_size=8)
keys = st.from_regex(r"[a-z]{1,4}/Deployment/[a-z]{1,4}", fullmatch=True)
resources = st.builds(
    Resources,
    money,
    money,
    counts,
    money,
    st.dictionaries(st.sampled_from(["nvidia.com/gpu", "hugepages-2Mi"]), st.integers(1, 99)).map(
        lambda found: tuple(sorted(found.items()))
    ),
)
nodes = st.builds(
    PlannedNode,
    name=texts,
    state=st.sampled_from(["keep", "boot", "remove"]),
    pool=texts,
    machine_type=texts,
    zone=texts,
    capacity_type=st.sampled_from(["on-demand", "spot"]),
    price_nanousd_per_hour=st.none() | money,
    allocatable=resources,
    pods=st.dictionaries(keys, counts, max_size=3),
    pod_names=st.lists(texts, max_size=2).map(tuple),
    reason=texts,
    frozen=st.booleans(),
)
workloads = st.builds(
    PlannedWorkload,
    uid=texts,
    replicas=counts,
    requests_before=resources,
    requests=resources,
    strategy=st.sampled_from(["rollout", "evict", "stay", "pinned"]),
    moves=counts,
    reason=texts,
    containers=st.dictionaries(texts, resources, max_size=2),
)
certificates = st.builds(
    Certificate,
    groups=st.lists(
        st.builds(CertificateGroup, texts, st.lists(keys, max_size=2).map(tuple), counts, resources, money), max_size=2
    ).map(tuple),
    classes=st.lists(
        st.builds(CertificateClass, texts, texts, texts, texts, texts, st.none() | texts, counts, money), max_size=2
    ).map(tuple),
    rows=st.lists(st.builds(CertificateRow, texts, texts, st.integers(-99, 99), money), max_size=2).map(tuple),
    dropped=st.lists(texts, max_size=2).map(tuple),
)
plans = st.builds(
    Plan,
    iteration=texts,
    objective=st.builds(
        Objective,
        texts,
        money,
        money,
        money,
        money,
        st.sampled_from(["optimal", "feasible"]),
        st.integers(1, 10**6),  # of no hours a price of change cannot be paid back
        money,
        counts,
        money,
        money,
        money,
    ),
    current_cost_nanousd_per_hour=money,
    cost_nanousd_per_hour=money,
    nodes=st.lists(nodes, max_size=3).map(tuple),
    workloads=st.dictionaries(keys, workloads, max_size=3),
    unplaced=st.dictionaries(keys, st.builds(Unplaced, counts, texts), max_size=2),
    certificate=certificates,
    timings_seconds=st.dictionaries(texts, st.floats(0, 1e6), max_size=2),
)


@settings(max_examples=60)
@given(plans)
def test_every_plan_is_read_back_as_it_was_written(plan: Plan) -> None:
    assert decode_plan(encode_plan(plan), "plan.json") == plan


@given(st.integers(-(10**20), 10**20))
def test_money_is_written_exactly_with_at_most_nine_decimals(nanousd: int) -> None:
    text = usd(nanousd)
    assert Decimal(text).scaleb(9) == nanousd
    assert len(text.partition(".")[2]) <= 9
    assert not text.endswith(".")


PLAN = Plan(
    iteration="p1",
    # 0.1 + 0.2 + 0.000000001 cannot be said in floats: 0.30000000100000004
    objective=Objective(
        "cost", 100_000_000, 200_000_000, 1, 250_000_000, "feasible", 24, 1_000_000, 15, 0, 10_000, 1_000_000
    ),
    current_cost_nanousd_per_hour=12_345_678_901_234_567,
    cost_nanousd_per_hour=100_000_000,
    nodes=(
        PlannedNode(
            "n1", "keep", "p", "m4", "zone-a", "spot", 67_010_000, Resources(3920, 2**33, 110), {"a/Deployment/b": 3}
        ),
        PlannedNode("n2", "keep", "p", "odd", "zone-a", "on-demand", None, Resources(1, 2, 3), {}, reason="no price"),
    ),
    workloads={
        "a/Deployment/b": PlannedWorkload("u", 3, Resources(1000, 5, 1), Resources(900, 5, 1), "rollout", 3, "cheaper")
    },
    unplaced={"a/Deployment/c": Unplaced(1, "fits nowhere")},
)


def document() -> Any:
    return json.loads(encode_plan(PLAN), parse_float=Decimal)


def test_the_format_is_the_public_one() -> None:
    found = document()
    assert list(found) == [
        "apiVersion",
        "kind",
        "iteration",
        "objective",
        "current_cost_usd_per_hour",
        "cost_usd_per_hour",
        "nodes",
        "workloads",
        "unplaced",
        "certificate",
        "timings_seconds",
    ]
    assert (found["apiVersion"], found["kind"], found["iteration"]) == ("kinema.io/v1alpha1", "Plan", "p1")
    assert found["objective"] == {
        "name": "cost",
        "value": Decimal("0.300000001"),
        "terms": {
            "nodes": Decimal("0.1"),
            "moves": Decimal("0.2"),
            "boots": Decimal("0.000000001"),
            "preferences": Decimal("0"),
        },
        "payback_hours": 24,
        "move_cost_usd": Decimal("0.001"),
        "boot_overlap_minutes": 15,
        "preference_usd_per_hour": Decimal("0.00001"),
        "preference_ceiling_usd_per_hour": Decimal("0.001"),
        "lower_bound": Decimal("0.25"),
        # (0.300000001 - 0.25) / 0.300000001
        "relative_gap": Decimal("0.166666669"),
        "status": "feasible",
    }
    assert found["current_cost_usd_per_hour"] == Decimal("12345678.901234567")
    assert found["nodes"][0] == {
        "name": "n1",
        "state": "keep",
        "pool": "p",
        "machine_type": "m4",
        "zone": "zone-a",
        "capacity_type": "spot",
        "price_usd_per_hour": Decimal("0.06701"),
        "allocatable": {"cpu_millicores": 3920, "memory_bytes": 2**33, "pods": 110},
        "pods": {"a/Deployment/b": 3},
        "pod_names": [],
    }
    assert (found["nodes"][1]["price_usd_per_hour"], found["nodes"][1]["reason"]) == (None, "no price")
    assert found["unplaced"] == {"a/Deployment/c": {"count": 1, "reason": "fits nowhere"}}


def test_fields_that_are_not_known_are_skipped() -> None:
    text = encode_plan(PLAN).replace(b'"kind": "Plan"', b'"kind": "Plan", "later": {"x": [1]}')
    assert decode_plan(text, "x") == PLAN


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"kind": "Plan"', '"kind": "List"', "kind must be 'Plan', not 'List'"),
        ("kinema.io/v1alpha1", "kinema.io/v9", "apiVersion must be 'kinema.io/v1alpha1', not 'kinema.io/v9'"),
        ('"iteration": "p1",', "", "the field iteration is missing"),
        ('"state": "keep"', '"state": "kept"', "nodes[0].state is \"kept\": invalid enum value 'kept'"),
        ('"lower_bound": 0.25', '"lower_bound": "none"', 'objective.lower_bound is "none": '),
        (
            '"lower_bound": 0.25',
            '"lower_bound": 1e-10',
            "objective.lower_bound must have at most 9 decimals, not 1E-10",
        ),
        ('"lower_bound": 0.25', '"lower_bound": 1e999', "objective.lower_bound must be an amount in USD, not 1E+999"),
        ('"lower_bound": 0.25', '"lower_bound": "NaN"', "objective.lower_bound must be an amount in USD, not NaN"),
        (
            '"price_usd_per_hour": 0.06701',
            '"price_usd_per_hour": 0.0670100001',
            "nodes[0].price_usd_per_hour must have at most 9 decimals, not 0.0670100001",
        ),
    ],
)
def test_what_is_no_plan_names_file_field_and_value(old: str, new: str, says: str) -> None:
    text = encode_plan(PLAN).decode()
    assert old in text
    with pytest.raises(BadInput) as caught:
        decode_plan(text.replace(old, new, 1).encode(), "plan.json")
    assert str(caught.value).startswith(f"plan.json: {says}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff"])
def test_what_is_no_json_object_says_what_would_be_right(data: bytes) -> None:
    with pytest.raises(BadInput, match=r"^plan\.json: "):
        decode_plan(data, "plan.json")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"value": 0.300000001', '"value": 0.3', "value is 0.3, but its terms add up to 0.300000001"),
        # (0.300000001 - 0.25) / 0.300000001
        (
            '"relative_gap": 0.166666669',
            '"relative_gap": 0.16',
            "relative_gap is 0.160000000, but (value - lower_bound) / value is 0.166666669",
        ),
        ('"relative_gap": 0.166666669', '"relative_gap": 1e400', "relative_gap is inf, but "),
        (
            '"relative_gap": 0.166666669',
            '"relative_gap": null',
            "relative_gap must be (value - lower_bound) / value, not null",
        ),
        (
            '"relative_gap": 0.166666669',
            '"relative_gap": "NaN"',
            "relative_gap must be (value - lower_bound) / value, not NaN",
        ),
        ('"payback_hours": 24', '"payback_hours": 0', "payback_hours must be 1 or more"),
        ('"move_cost_usd": 0.001', '"move_cost_usd": -0.001', "move_cost_usd must be 0 or more"),
        ('"boot_overlap_minutes": 15', '"boot_overlap_minutes": -1', "boot_overlap_minutes must be 0 or more"),
    ],
)
def test_numbers_that_do_not_add_up_are_a_contradiction(old: str, new: str, says: str) -> None:
    text = encode_plan(PLAN).decode()
    assert old in text
    with pytest.raises(ContradictoryPlan) as caught:
        decode_plan(text.replace(old, new, 1).encode(), "plan.json")
    assert str(caught.value).startswith(f"plan.json: objective.{says}")
