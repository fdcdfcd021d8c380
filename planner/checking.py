"""What `verify` checks a plan against: the inputs, and what only the plan says of how it was made."""

from __future__ import annotations

from dataclasses import replace

from planner.model.cap import CpuCap
from planner.model.forecast import Forecast
from planner.model.inputs import ChangePrices, PlanningInputs
from planner.model.plan import Plan
from planner.model.preferences import PreferencePrices
from planner.model.utilization import predicted_usage
from planner.usage import read_usage


def checked_inputs(plan: Plan, inputs: PlanningInputs, *, cap_asked: bool, usage: str | None) -> PlanningInputs:
    """Return the inputs with the plan's own iteration, prices of change, held workloads, forecast and cap.

    `cap_asked`: the cap of the inputs was asked for, whatever the plan says. `usage` names a table of what pods use.

    Raises:
        BadInput: the table cannot be read.
    """
    objective = plan.objective
    # The plan says by which prices of change it was made; whether they are the user's own is seen in the plan.
    prices = ChangePrices(objective.payback_hours, objective.move_cost_nanousd, objective.boot_overlap_minutes)
    preferences = PreferencePrices(objective.preference_nanousd_per_hour, objective.preference_ceiling_nanousd_per_hour)
    # A pinned workload may be held by the planner's own choice (no order of stages could move it). That makes a plan
    # dearer, never wrong, and the bound is checked without it.
    held = {key: workload.reason for key, workload in plan.workloads.items() if workload.strategy == "pinned"}
    # What a forecast said is known from the plan alone; the check holds it against the cluster's containers.
    forecast = Forecast({key: workload.containers for key, workload in plan.workloads.items() if workload.containers})
    return replace(
        inputs,
        iteration=plan.iteration,
        prices=prices,
        preferences=preferences,
        held=held,
        forecast=forecast,
        cap=_checked_cap(plan, inputs, cap_asked, usage),
    )


def _checked_cap(plan: Plan, inputs: PlanningInputs, cap_asked: bool, usage: str | None) -> CpuCap | None:
    """Return the cap by which the plan is checked: its own, unless the arguments say which or what pods use."""
    said, cap = plan.objective.cap, inputs.cap if cap_asked else plan.objective.cap
    if cap is None:
        return None
    if usage is not None:
        predicted = predicted_usage(inputs.snapshot, read_usage(usage, inputs.snapshot))
    else:
        # What a prediction said is known from the plan alone; what it says nothing of uses what it requests.
        known = said.usage_millicores if said is not None else {}
        predicted = {key: known.get(key, own) for key, own in predicted_usage(inputs.snapshot, {}).items()}
    return CpuCap(cap.permille, cap.window, predicted)
