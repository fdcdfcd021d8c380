"""Every fault planted in the JSON of an optimized plan is found, whatever the plan is about."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from planner.model.effort import Effort, Watch
from planner.model.inputs import PlanningInputs
from planner.model.plan_json import ContradictoryPlan, decode_plan, encode_plan
from planner.optimizer import optimize
from planner.verifier import verify
from tests.verifier.test_optimized_plans import cluster

Json = Any
Fault = Callable[[Json], object]
"""Changes a plan; raises StopIteration or IndexError where it has nothing of the kind."""

SEEDS = range(8)


@cache
def case(seed: int) -> tuple[PlanningInputs, bytes]:
    given = cluster(seed)
    return given, encode_plan(optimize(given, Effort(), Watch(now=lambda: 0.0, report=lambda _: None)))


def complaints(given: PlanningInputs, document: Json) -> tuple[str, ...]:
    try:
        plan = decode_plan(json.dumps(document).encode(), "plan.json")
    except ContradictoryPlan as error:
        return (str(error),)
    return verify(plan, given, 60.0, lambda: 0.0).problems


def staying(plan: Json) -> Json:
    """Return a node that stays and holds pods."""
    return next(n for n in plan["nodes"] if n["state"] != "remove" and n["pods"])


def of_state(plan: Json, state: str) -> Json:
    return next(n for n in plan["nodes"] if n["state"] == state)


def other(plan: Json, node: Json) -> Json:
    return next(n for n in plan["nodes"] if n["state"] != "remove" and n is not node)


def workload(plan: Json) -> Json:
    return next(iter(plan["workloads"].values()))


def moving(plan: Json) -> Json:
    return next(w for w in plan["workloads"].values() if w["moves"])


def add(place: Json, key: str, amount: float) -> None:
    place[key] = round(place[key] + amount, 9)


def give(node: Json, key: str, count: int) -> None:
    node["pods"][key] = node["pods"].get(key, 0) + count
    if not node["pods"][key]:
        del node["pods"][key]


def some_pod(node: Json) -> str:
    return str(next(iter(node["pods"])))


def left_out(plan: Json) -> None:
    node = staying(plan)
    key = some_pod(node)
    give(node, key, -1)
    plan["unplaced"].setdefault(key, {"count": 0, "reason": "no room"})["count"] += 1


def counted_twice(plan: Json) -> None:
    node = staying(plan)
    give(other(plan, node), some_pod(node), 1)


def all_on_one_node(plan: Json) -> None:
    target = staying(plan)
    sources = [n for n in plan["nodes"] if n["pods"] and n is not target]
    assert sources[0]  # IndexError where one node holds everything
    for node in sources:
        for key, count in node["pods"].items():
            give(target, key, count)
        node["pods"] = {}


def pinned_elsewhere(plan: Json) -> None:
    node = next(n for n in plan["nodes"] if n["pod_names"])
    target = other(plan, node)
    key = next(k for k in node["pods"] if k.split("/")[1] in ("Pod", "Job"))
    give(node, key, -1)
    give(target, key, 1)


def ghost(plan: Json) -> None:
    plan["nodes"].append(plan["nodes"][0] | {"name": "ghost", "state": "keep", "pods": {}, "pod_names": []})


def cheaper_everywhere(plan: Json) -> None:
    """Halve one node's price and everything that follows from it."""
    node = next(n for n in plan["nodes"] if n["state"] != "remove" and n["price_usd_per_hour"])
    half = round(node["price_usd_per_hour"] / 2, 9)
    add(node, "price_usd_per_hour", -half)
    add(plan, "cost_usd_per_hour", -half)
    add(plan["objective"]["terms"], "nodes", -half)
    add(plan["objective"], "value", -half)
    plan["objective"] |= {"lower_bound": 0, "status": "feasible"}


def first(plan: Json, part: str) -> Json:
    return plan["certificate"][part][0]


def dearer(plan: Json) -> None:
    """Price one group of pods so high that the certificate proves nothing any more."""
    first(plan, "groups")["price"] += 10**12


FAULTS: dict[str, Fault] = {
    "missing pod": lambda p: give(n := staying(p), some_pod(n), -1),
    "extra pod": lambda p: give(n := staying(p), some_pod(n), 1),
    "pod counted twice": counted_twice,
    "running or placed pod left out": left_out,
    "pod of an unknown workload": lambda p: give(staying(p), "default/Deployment/ghost", 1),
    "overfull node": all_on_one_node,
    "pinned pod elsewhere": pinned_elsewhere,
    "named pod that does not exist": lambda p: staying(p)["pod_names"].append("default/ghost-0"),
    "kept node removed": lambda p: next(n for n in p["nodes"] if n["pod_names"]).update(state="remove"),
    "removed node kept": lambda p: of_state(p, "remove").update(state="keep"),
    "unknown node": ghost,
    "node missing": lambda p: p["nodes"].remove(next(n for n in p["nodes"] if n["state"] != "boot")),
    "boot missing": lambda p: p["nodes"].remove(of_state(p, "boot")),
    "node twice": lambda p: p["nodes"].append(p["nodes"][0]),
    "wrong price": lambda p: add(p["nodes"][0], "price_usd_per_hour", 1e-9),
    "wrong price, added up rightly": cheaper_everywhere,
    "no price": lambda p: p["nodes"][0].update(price_usd_per_hour=None, reason="unknown"),
    "wrong cost": lambda p: add(p, "cost_usd_per_hour", 0.01),
    "wrong present cost": lambda p: add(p, "current_cost_usd_per_hour", 0.01),
    "wrong value": lambda p: add(p["objective"], "value", 0.01),
    "wrong sum of nodes": lambda p: (
        add(p["objective"]["terms"], "nodes", 0.01),
        add(p["objective"], "value", 0.01),
    ),
    # By more than a bound may stay below what its prices prove.
    "bound too high": lambda p: add(p["objective"], "lower_bound", 0.05),
    "optimal without proof": lambda p: p["objective"].update(lower_bound=0, status="optimal"),
    "wrong allocatable": lambda p: add(p["nodes"][0]["allocatable"], "memory_bytes", 1),
    "wrong machine type": lambda p: p["nodes"][0].update(machine_type="m16"),
    "wrong zone": lambda p: p["nodes"][0].update(zone="zone-z"),
    "wrong pool": lambda p: p["nodes"][0].update(pool="other"),
    "boot of a type not on offer": lambda p: of_state(p, "boot").update(machine_type="m16"),
    "frozen flag": lambda p: p["nodes"][0].update(frozen=not p["nodes"][0].get("frozen", False)),
    "wrong requests": lambda p: add(workload(p)["requests"], "cpu_millicores", 10),
    "wrong requests before and after": lambda p: (
        add(workload(p)["requests"], "cpu_millicores", 7),
        add(workload(p)["requests_before"], "cpu_millicores", 7),
    ),
    "wrong replicas": lambda p: add(workload(p), "replicas", 1),
    "wrong uid": lambda p: workload(p).update(uid="uid-of-another"),
    "fewer moves": lambda p: add(moving(p), "moves", -1),
    "more moves": lambda p: add(workload(p), "moves", 99),
    "moving but said to stay": lambda p: moving(p).update(strategy="stay", moves=0),
    "workload missing": lambda p: p["workloads"].pop(next(iter(p["workloads"]))),
    "price of a group": dearer,
    "negative price of a group": lambda p: first(p, "groups").update(price=-1),
    "count of a group": lambda p: add(first(p, "groups"), "count", 1),
    "group missing": lambda p: p["certificate"]["groups"].remove(first(p, "groups")),
    "requests of a group": lambda p: add(first(p, "groups")["requests"], "cpu_millicores", -1),
    "cost of a class": lambda p: add(first(p, "classes"), "cost", -1),
    "limit of a class": lambda p: add(first(p, "classes"), "limit", 1),
    "class missing": lambda p: p["certificate"]["classes"].remove(first(p, "classes")),
    "class twice": lambda p: p["certificate"]["classes"].append(first(p, "classes")),
    "place of a class": lambda p: first(p, "classes").update(zone="zone-z"),
    "right-hand side of a row": lambda p: add(first(p, "rows"), "rhs", 1),
    "negative dual of a row": lambda p: first(p, "rows").update(dual=-1),
    "row twice": lambda p: p["certificate"]["rows"].append(first(p, "rows")),
    "row that is no constraint": lambda p: p["certificate"]["rows"].append(
        {"kind": "kept", "scope": "ghost", "rhs": 1, "dual": 5}
    ),
}


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_planted_in_any_plan_is_found(fault: str) -> None:
    planted = 0
    for seed in SEEDS:
        given, text = case(seed)
        document = json.loads(text)
        try:
            FAULTS[fault](document)
        except (StopIteration, IndexError):
            continue
        planted += 1
        assert complaints(given, document), f"seed {seed}"
    assert planted


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_found_where_nothing_was_planted(seed: int) -> None:
    given, text = case(seed)
    assert complaints(given, json.loads(text)) == ()
