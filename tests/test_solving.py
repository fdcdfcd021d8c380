"""Whatever the solver's process does: a right plan or a reason, and no process left behind."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from planner.errors import BadSettings, SolverError
from planner.model.effort import Progress
from planner.model.inputs import PlanningInputs
from planner.settings import OptimizerSettings
from planner.solving import Child, Worker, solve
from planner.verifier import Examination, verify
from tests.building import catalogue, deployment, inputs, node, offering, pods_of, snapshot

FAULTY = Worker("tests.faultyworker", grace_seconds=1.0)


def examination() -> Examination:
    return Examination(badly_packed())


def badly_packed() -> PlanningInputs:
    web = deployment("web", 4, cpu=1000)
    return inputs(
        snapshot([node("a"), node("b")], [web], pods_of(web, {"a": 2, "b": 2})),
        catalogue(offering("m4"), offering("m2")),
    )


def ended(pid: int) -> bool:
    """Say whether the process is gone, or dead and only not yet waited for by whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def solved_by(fault: str, time_limit_seconds: float = 30.0) -> tuple[str, list[Progress]]:
    """Return what became of a solve whose child has the fault: the error's text or "plan", and its progress."""
    told: list[Progress] = []
    settings = OptimizerSettings(solver=fault, time_limit_seconds=time_limit_seconds)
    try:
        solve(examination(), settings, told.append, child=Child(FAULTY))
    except SolverError as error:
        outcome = str(error)
    else:
        outcome = "plan"
    assert ended(int(told[0].stage.split()[1]))
    return outcome, told


def test_plan_comes_back_with_its_progress_and_without_loading_cvxpy_here() -> None:
    code = (
        "import sys; from tests.test_solving import *; told = [];"
        "plan = solve(examination(), OptimizerSettings(), told.append);"
        "print(sum(n.state != 'remove' for n in plan.nodes), len(told) > 0, 'cvxpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    # 4 pods of 1 CPU on one node of 4 CPU.
    assert done.stdout.split() == ["1", "True", "False"]


def test_solver_that_is_not_installed_is_a_matter_of_settings() -> None:
    with pytest.raises(BadSettings, match=r"'CPLEX'.*HIGHS"):
        solve(examination(), OptimizerSettings(solver="CPLEX"), lambda progress: None)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("CRASH", "ended by SIGSEGV without a plan"),
        ("EXIT", "ended with exit code 7 without a plan"),
        ("GREED", r"ran out of memory \(optimizer.memory_limit_bytes is 2147483648\)"),
        ("BUG", "ZeroDivisionError: a bug"),
        ("NAN", "answered with NaN"),
        ("NAN_DUALS", "answered with NaN"),
        ("LIAR", "called an answer optimal that breaks the constraints"),
        ("GARBAGE", "gave an answer that is none"),
        ("STRANGER", "gave an answer that is none"),
        ("CUT", "ended with exit code 0 without a plan"),
        ("ELSEWHERE", "fails the independent check: .*web"),
        # One node of 0.2 $/h, four moves at a thousandth over 24 h, one overlap of a quarter of an hour over 24 h.
        ("BOASTER", "claims a lower bound of 202250000 nanodollars per hour for a plan of 202249999"),
        ("NAN_BOUND", "claims a lower bound of nan"),
        ("INFINITE_BOUND", "claims a lower bound of -inf"),
        ("NAN_COST", "nan"),
        ("FORGETFUL", "fails the independent check: the plan misses 4 pods"),
    ],
)
def test_fault_ends_without_a_plan_and_with_a_reason(fault: str, reason: str) -> None:
    outcome, _ = solved_by(fault)
    assert re.search(reason, outcome), outcome


def test_hang_ends_at_the_deadline() -> None:
    outcome, _ = solved_by("HANG", time_limit_seconds=6.0)
    assert outcome == "the solver gave no answer within its time limit and was ended"


def test_a_plan_that_is_wanted_at_once_is_the_best_so_far() -> None:
    told: list[Progress] = []
    patient = OptimizerSettings(solver="PATIENT", time_limit_seconds=60.0)
    # The child goes on until it hears of the hurry, which begins with its first word; then nothing but plans that
    # need no solver are left to it: all four pods on one of the nodes.
    plan = solve(examination(), patient, told.append, lambda: bool(told), Child(FAULTY))
    assert sorted(sum(n.pods.values()) for n in plan.nodes if n.state != "remove") == [4]
    objective = plan.objective
    assert 0 < objective.lower_bound_nanousd_per_hour < objective.value_nanousd_per_hour
    assert verify(plan, badly_packed(), 10.0, time.monotonic).right


def test_a_child_that_does_not_hear_of_the_hurry_is_ended_after_the_grace() -> None:
    told: list[Progress] = []
    began = time.monotonic()
    with pytest.raises(SolverError, match="gave no answer"):
        solve(examination(), OptimizerSettings(solver="HANG"), told.append, lambda: bool(told), Child(FAULTY))
    # Far from the time limit of 60 s: a second of grace, and the start of a Python.
    assert time.monotonic() - began < 20


def test_chatter_of_a_solver_does_not_disturb_the_answer() -> None:
    outcome, _ = solved_by("CHATTER")
    assert outcome == "plan"


def test_a_child_that_is_never_asked_ends_with_its_parent() -> None:
    code = "import os; from planner.solving import Child; print(Child()._process.pid, flush=True); os._exit(0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    deadline = time.monotonic() + 30
    while not ended(int(done.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def start_hanging() -> tuple[subprocess.Popen[str], int]:
    """Start a planner whose solve hangs; return it and the id of its child."""
    code = (
        # A shell's background job, as this test may be one, ignores interrupts, and its children inherit that.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from tests.test_solving import *;"
        "hanging = OptimizerSettings(solver='HANG');"
        "solve(examination(), hanging, lambda p: print(p.stage, flush=True), child=Child(FAULTY))"
    )
    planner = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert planner.stdout is not None
    return planner, int(planner.stdout.readline().split()[1])


def test_interrupt_ends_the_child_first() -> None:
    planner, child = start_hanging()
    assert not ended(child)
    os.kill(planner.pid, signal.SIGINT)
    _, complaints = planner.communicate(timeout=30)
    assert complaints.rstrip().endswith("KeyboardInterrupt")
    assert ended(child)


def test_child_of_a_killed_planner_ends_by_itself() -> None:
    planner, child = start_hanging()
    watched = os.pidfd_open(child)
    os.kill(planner.pid, signal.SIGKILL)
    planner.communicate(timeout=30)
    assert select.select([watched], [], [], 30.0)[0]
    os.close(watched)
