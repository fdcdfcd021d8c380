"""The benchmark says what was measured: goals met and missed, what was not run and why."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import asdict, replace

from benchmarks.optimizer.instances import Goals, instances
from benchmarks.optimizer.plot import growth_plot
from benchmarks.optimizer.runs import Figures, Judged, Measured, Rival, Row, judged
from benchmarks.optimizer.table import table

PLANNED = Measured(seconds=12.0, peak_bytes=2**29, exit_code=0, ended=False, message="")
FIGURES = Figures(
    cost=10.0,
    value=10.0,
    lower_bound=9.9,
    relative_gap=0.01,
    status="feasible",
    present_cost=20.0,
    nodes=3,
    unplaced=0,
    moved=20,
    moved_share=0.2,
    timings_seconds={},
)
ROW = Row("shapes-100", "100 pods", ("growth",), pods=100, plan=PLANNED, figures=FIGURES)


def test_goals_are_met_and_missed() -> None:
    found = judged(Goals(gap=0.02, seconds=10, moved_share=0.3), PLANNED, FIGURES, None)

    # 1 % of 2 %, 12 of 10 seconds, half of 1 GiB, 20 % of 30 %.
    assert {item.goal: item.met for item in found} == {
        "gap": True,
        "seconds": False,
        "memory_gib": True,
        "moved_share": True,
    }


def test_a_plan_that_did_not_come_meets_no_goal() -> None:
    found = judged(Goals(gap=0.02, seconds=20), replace(PLANNED, exit_code=1), None, None)

    assert {item.met for item in found} == {False}


def test_time_from_a_start_is_held_against_the_time_of_the_first_plan() -> None:
    goals = Goals(gap=0.02, seconds=15, part_of_before=1 / 3)

    assert Judged("seconds", 4.0, 3.9, True) in judged(goals, replace(PLANNED, seconds=3.9), FIGURES, ROW)
    assert Judged("seconds", 4.0, None, None) in judged(goals, None, None, ROW)


def test_table_says_what_was_not_run_and_why() -> None:
    missing = Row(
        "b", "nothing", ("goals",), note="kinema plan has no --start", goals=(Judged("gap", 0.02, None, None),)
    )
    rivals = (Rival("ffd", 11.0, 0.1, 1.0, ""), Rival("naive", None, None, 60.0, "no answer"))
    text = table([replace(ROW, rivals=rivals), missing])

    row = next(line for line in text.splitlines() if line.startswith("| shapes-100"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:8] == ["20.00", "10.00", "1.000%", "12.0", "512", "20.0%"]
    assert cells[10] == "+10.0%"
    assert cells[15] == "none in 60 s"
    assert "gap ≤ 2 % not run" in text
    assert "b: kinema plan has no --start" in text


def test_table_says_where_a_baseline_is_cheaper() -> None:
    text = table([replace(ROW, rivals=(Rival("bfd", 9.5, -0.05, 1.0, ""), Rival("ffd", 10.0, 0.0, 1.0, "")))])

    assert "shapes-100: bfd is cheaper than the plan: 9.500000 $/h against 10.000000" in text
    assert "ffd is cheaper" not in text


def test_plot_is_a_picture_with_a_point_for_each_size() -> None:
    rows = [asdict(replace(ROW, pods=pods)) for pods in (100, 1000, 150_000)]

    picture = ET.fromstring(growth_plot(rows))

    assert len(picture.findall("{http://www.w3.org/2000/svg}circle")) == 3


def test_instances_have_names_of_their_own_and_continue_one_that_is_there() -> None:
    found = instances(None)
    names = [item.name for item in found]

    assert len(set(names)) == len(names)
    for item in found:
        assert item.after is None or item.after in names[: names.index(item.name)]
