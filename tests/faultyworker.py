"""A child of `planner.solving` that goes wrong in the way that its solver's name says; run with `python -m`."""

from __future__ import annotations

import math
import os
import pickle
import signal
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from planner.model.effort import Effort, Progress, Watch
from planner.model.inputs import PlanningInputs
from planner.model.plan import Plan
from planner.optimizer import optimize
from planner.optimizer.master import Answer, CvxpySolver, Limits, Program
from planner.optimizer.planning import plan_with
from planner.solving import serve

ANSWERS = os.dup(1)
"""The pipe to the parent, as it is before `serve` keeps it for frames."""


@dataclass(frozen=True)
class Faulty:
    """A solver whose answers are changed before anyone sees them."""

    spoil: Callable[[Answer], Answer]

    def solve(self, program: Program, limits: Limits) -> Answer:
        return self.spoil(CvxpySolver("HIGHS").solve(program, limits))


def _nan(answer: Answer) -> Answer:
    return replace(answer, values=answer.values * np.nan)


def _nan_duals(answer: Answer) -> Answer:
    return replace(answer, duals=answer.duals * np.nan)


def _nothing_called_optimal(answer: Answer) -> Answer:
    return replace(answer, values=answer.values * 0.0, status="optimal")


def _optimize(inputs: PlanningInputs, effort: Effort, watch: Watch) -> Plan:
    healthy = replace(effort, solver="HIGHS")
    # Whoever started this learns which process to look for.
    watch.report(Progress(f"process {os.getpid()}", 0.0))
    match effort.solver:
        case "CRASH":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "EXIT":
            os._exit(7)
        case "HANG":
            threading.Event().wait()
        case "PATIENT":
            while not watch.hurried():
                time.sleep(0.01)
        case "GREED":
            np.ones(1 << 42)
        case "GARBAGE":
            # What a frame holds is no pickle.
            os.write(ANSWERS, struct.pack("!Q", 8) + b"not that")
            threading.Event().wait()
        case "STRANGER":
            body = pickle.dumps(("plan", "of great beauty"))
            os.write(ANSWERS, struct.pack("!Q", len(body)) + body)
            threading.Event().wait()
        case "CUT":
            # Half a frame, then the end.
            os.write(ANSWERS, struct.pack("!Q", 1 << 60) + b"only this")
            os._exit(0)
        case "BUG":
            raise ZeroDivisionError("a bug")
        case "NAN":
            return plan_with(Faulty(_nan), inputs, healthy, watch)
        case "NAN_DUALS":
            return plan_with(Faulty(_nan_duals), inputs, healthy, watch)
        case "LIAR":
            # A plan that is proven before the master is asked would not hear the lie.
            return plan_with(Faulty(_nothing_called_optimal), inputs, replace(healthy, target_gap=0.0), watch)
        case "FORGETFUL":
            plan = optimize(inputs, healthy, watch)
            return replace(plan, nodes=tuple(replace(node, pods={}) for node in plan.nodes))
        case "ELSEWHERE":
            # A right plan, but of a cluster that has one pod less.
            fewer = replace(inputs.snapshot, pods=inputs.snapshot.pods[1:])
            return optimize(replace(inputs, snapshot=fewer), healthy, watch)
        case "BOASTER":
            plan = optimize(inputs, healthy, watch)
            value = plan.objective.value_nanousd_per_hour
            return replace(plan, objective=replace(plan.objective, lower_bound_nanousd_per_hour=value + 1))
        case "NAN_BOUND" | "INFINITE_BOUND":
            plan = optimize(inputs, healthy, watch)
            bound: Any = math.nan if effort.solver == "NAN_BOUND" else -math.inf
            return replace(plan, objective=replace(plan.objective, lower_bound_nanousd_per_hour=bound))
        case "NAN_COST":
            plan = optimize(inputs, healthy, watch)
            cost: Any = math.nan
            return replace(plan, objective=replace(plan.objective, nodes_nanousd_per_hour=cost))
        case "CHATTER":
            print("Running a solver that prints where it likes", flush=True)  # noqa: T201
    return optimize(inputs, healthy, watch)


if __name__ == "__main__":
    serve(_optimize)
