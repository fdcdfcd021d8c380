"""The log says what happens in words, and what is waited for once."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from planner import labels as keys
from planner.journal import Journal, line_of
from planner.loop import Report, Waiting
from planner.model.cap import CpuCap
from planner.model.effort import Progress
from planner.model.plan import BootNodes, DeleteInstances, DeleteNode, EvictPod, MarkNode, RollOut, Wait
from planner.model.resources import Resources
from tests.web.plans import record_of


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (Progress("bound", 1.0, None, None), ""),
        (BootNodes("web", "zone-a", ("n1", "n2"), "i1"), "booting in pool web, zone zone-a: n1, n2"),
        (MarkNode("n1", "u", {keys.OPTIMAL: "i1"}), "marking n1: it is in the plan"),
        (MarkNode("n1", "u", {keys.EXPIRING: "i1"}, {}, "i1", "PreferNoSchedule"), "marking n1: it expires"),
        (
            MarkNode("n1", "u", {keys.OPTIMAL: None}, {}, "i1", "NoSchedule"),
            "closing n1: nothing may be scheduled there any more",
        ),
        (MarkNode("n1", "u", {}, {keys.PLACEMENT: "{…}"}), "opening targets on n1"),
        (MarkNode("n1", "u", {keys.OPTIMAL: None}, {keys.PLACEMENT: None}), "taking marks back from n1"),
        (RollOut("shop/Deployment/web", "u", "i1"), "rolling out shop/Deployment/web"),
        (
            RollOut("shop/Deployment/web", "u", "i1", {"main": Resources(250, 1)}),
            "rolling out shop/Deployment/web with new requests of main",
        ),
        (
            EvictPod("shop", "db-0", "u", "shop/StatefulSet/db", "n1", "the plan puts it on n2"),
            "evicting shop/db-0 from n1: the plan puts it on n2",
        ),
        (DeleteInstances("web", "zone-a", ("n1",), "i1"), "deleting machines of pool web, zone zone-a: n1"),
        (DeleteNode("n1", "u"), "deleting the node n1, whose machine is gone"),
    ],
)
def test_each_step_is_a_line_in_words(report: Report, line: str) -> None:
    assert line_of(report) == line


def test_where_a_solve_stands_is_said_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(pause_seconds=10.0)
    with caplog.at_level(logging.INFO):
        for seconds, value, bound in (
            (0.5, 250_000_000, None),
            (10.2, 220_000_000, None),
            (19.0, 215_000_000, 190_000_000),
            (20.4, 200_000_000, 190_000_000),
            # The next solve.
            (4.0, 210_000_000, None),
            (12.0, None, None),
            # One in which nothing changed for long.
            (1.0, 210_000_000, None),
            (15.0, 205_000_000, None),
        ):
            journal(Progress("plan", seconds, value, bound))
    assert caplog.messages == [
        "solving for 10 s: best plan 0.2200 $/h, no bound yet",
        # 1 - 190 / 200
        "solving for 20 s: best plan 0.2000 $/h, bound 0.1900 $/h, gap 5.00%",
        "solving for 12 s: no plan yet",
        "solving for 15 s: best plan 0.2050 $/h, no bound yet",
    ]


def test_what_is_waited_for_is_said_again_only_after_something_else(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal()
    with caplog.at_level(logging.INFO):
        for report in (Wait(("a",)), Wait(("a",)), Wait(("a", "b")), DeleteNode("n1", "u"), Waiting(("a", "b"))):
            journal(report)
    assert caplog.messages == [
        "waiting: a",
        "waiting: a; b",
        "deleting the node n1, whose machine is gone",
        "waiting: a; b",
    ]


def test_a_plan_under_a_cap_names_objective_and_window() -> None:
    plan = record_of(keep=1, remove=1).plan
    cap = CpuCap(700, "office")
    assert line_of(plan).startswith("plan it-1: 0.2 -> 0.1 $/h, gap ")
    under_cap = replace(plan, objective=replace(plan.objective, cap=cap))
    says = "plan it-1 (cost under cpu utilization <= 0.7, window office): 0.2 -> 0.1 $/h, gap "
    assert line_of(under_cap).startswith(says)
