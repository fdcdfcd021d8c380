"""The plan in its ConfigMap survives, and nothing else is taken for one."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from typing import Any

import pytest

from planner.errors import KubernetesError
from planner.kube.record import decode_record, encode_record
from planner.model.plan import Mending, Objective, Plan, PlannedNode, PlanRecord
from planner.model.resources import Resources

PLAN = Plan(
    iteration="i7",
    objective=Objective("cost", 10**9, 5, 7, 10**9, "feasible", 24, 10**6, 15),
    current_cost_nanousd_per_hour=2 * 10**9,
    cost_nanousd_per_hour=10**9,
    nodes=(PlannedNode("n", "keep", "p", "m", "z", "spot", 10**9, Resources(1, 2, 3), {"a/Deployment/b": 2}),),
    workloads={},
)
RECORD = PlanRecord(PLAN, "abandoning", 1700000000.125, mode="recommend", reason="no room")


def stored(**changes: Any) -> bytes:
    body: dict[str, Any] = json.loads(json.dumps(encode_record(RECORD, "kube-system")))
    for field, values in changes.items():
        body[field] = {**body[field], **values} if values is not None else None
    return json.dumps(body).encode()


def packed(text: bytes) -> dict[str, str]:
    return {"plan.json.gz": base64.b64encode(gzip.compress(text)).decode()}


def test_a_record_is_read_back_as_it_was_written() -> None:
    assert decode_record(stored()) == RECORD


def test_a_record_says_when_mending_began_and_until_when_the_pods_were_made() -> None:
    mending = replace(RECORD, mending=Mending(began_at=1764000060.5, made_until=1764000000.25))
    assert decode_record(json.dumps(encode_record(mending, "x")).encode()) == mending


def test_equal_records_are_equal_configmaps() -> None:
    assert encode_record(RECORD, "x") == encode_record(RECORD, "x")
    assert encode_record(RECORD, "x")["metadata"] == {"name": "kinema-plan", "namespace": "x"}


@pytest.mark.parametrize(
    "raw",
    [
        b"no json",
        stored(data=None),
        stored(binaryData=None),
        stored(data={"phase": "dreaming"}),
        stored(data={"acceptedAt": "yesterday"}),
        stored(binaryData={"plan.json.gz": "%%%"}),
        stored(binaryData={"plan.json.gz": base64.b64encode(b"no gzip").decode()}),
        stored(binaryData={"plan.json.gz": base64.b64encode(gzip.compress(b"{}")[:-4]).decode()}),
        stored(binaryData=packed(b"{}")),
        stored(binaryData=packed(b'{"apiVersion": "kinema.io/v1alpha1", "kind": "Plan"}')),
    ],
)
def test_half_a_plan_is_refused_with_one_clear_line(raw: bytes) -> None:
    with pytest.raises(KubernetesError) as caught:
        decode_record(raw)
    text = str(caught.value)
    assert text.startswith("the ConfigMap kinema-plan holds no plan that can be read: ")
    assert "\n" not in text
