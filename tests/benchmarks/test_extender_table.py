"""The extender's benchmark compares arms repeat by repeat, and says how sure the ratio is."""

from __future__ import annotations

import math

import pytest

from benchmarks.extender.population import Size, node_name, nodes, wanted
from benchmarks.extender.table import ratio, throughput_table
from benchmarks.extender.throughput import Run
from planner.labels import PLACEMENT, decode_placement


def run(arm: str, repeat: int, rate: float) -> Run:
    return Run(arm, repeat, 100, rate, 1.0, 1.0 if arm == "planned" else None, {}, None)


def test_a_ratio_is_the_geometric_mean_with_students_interval() -> None:
    runs = [run("none", 0, 100), run("none", 1, 100), run("planned", 0, 50), run("planned", 1, 200)]
    found = ratio(runs, "planned", ["none"])
    assert found is not None
    # √(0.5 · 2) = 1. The logarithms are ±ln 2, s = √2·ln 2, half = 12.706 · s / √2 = 12.706 · ln 2.
    assert found.value == pytest.approx(1)
    assert math.log(found.high) == pytest.approx(12.706 * math.log(2), rel=1e-4)
    assert math.log(found.low) == pytest.approx(-12.706 * math.log(2), rel=1e-4)


def test_several_arms_beside_it_count_by_their_mean_in_the_same_repeat() -> None:
    runs = [run("none", 0, 100), run("none again", 0, 300), run("planned", 0, 100), run("planned", 1, 7)]
    found = ratio(runs, "planned", ["none", "none again"])
    assert found is not None
    # 100 / ((100 + 300) / 2); the second repeat has nothing to compare with, and one repeat has no interval.
    assert (found.value, found.low, found.high) == (pytest.approx(0.5), 0, math.inf)
    assert ratio(runs, "Go echo", ["none"]) is None


def test_the_table_shows_what_ran() -> None:
    runs = [run("none", 0, 100), run("none again", 0, 80), run("planned", 0, 90)]
    text = throughput_table(Size(1000, 30_000, 2000), runs)
    assert "1,000 nodes, 30,000 bound pods, 2,000 more, 1 repeats" in text
    # 90 / ((100 + 80) / 2) = 1, and for the A/A arm 80 / 100 = 0.8
    (planned,) = [line for line in text.splitlines() if line.startswith("| planned")]
    assert [cell.strip() for cell in planned.split("|")[2:4]] == ["90.0", "1.00"]
    (again,) = [line for line in text.splitlines() if line.startswith("| none again")]
    assert [cell.strip() for cell in again.split("|")[2:4]] == ["80.0", "0.80"]
    assert "Go echo  " not in text


def test_the_plan_wants_every_waiting_pod_on_at_most_half_of_the_nodes() -> None:
    size = Size(nodes=20, bound=0, pods=35)
    places = wanted(size)
    assert sum(places.values()) == 35
    assert len(places) == 10
    made = {body["metadata"]["name"]: body for _, _, body in nodes(size) if body}
    assert set(made) == {node_name(index) for index in range(20)}
    for name, body in made.items():
        placement = decode_placement(body["metadata"]["annotations"][PLACEMENT])
        assert sum(target.want for target in placement.targets) == places.get(name, 0)
