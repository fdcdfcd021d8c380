"""Plans of one pool, as the webhook sees them."""

from __future__ import annotations

from typing import Any

from planner.model.plan import NodeState, Objective, Plan, PlannedNode, PlanRecord
from tests.building import nanousd, resources

NOW = 1_000_000.0


def record_of(keep: int = 0, boot: int = 0, remove: int = 0, **fields: Any) -> PlanRecord:
    """Return the record of a plan for pool "a" in zone "z1", whose nodes cost 0.1 $/h each."""
    states: tuple[NodeState, ...] = ("keep",) * keep + ("boot",) * boot + ("remove",) * remove
    nodes = tuple(
        PlannedNode(f"n{i}", state, "a", "m4", "z1", "on-demand", nanousd(0.1), resources(4000, 16, 110), {})
        for i, state in enumerate(states)
    )
    plan = Plan(
        iteration="it-1",
        objective=Objective(
            name="cost",
            nodes_nanousd_per_hour=nanousd(0.1) * (keep + boot),
            moves_nanousd_per_hour=0,
            boots_nanousd_per_hour=0,
            lower_bound_nanousd_per_hour=nanousd(0.075) * (keep + boot),
            status="feasible",
            payback_hours=24,
            move_cost_nanousd=0,
            boot_overlap_minutes=15,
        ),
        current_cost_nanousd_per_hour=nanousd(0.1) * (keep + remove),
        cost_nanousd_per_hour=nanousd(0.1) * (keep + boot),
        nodes=nodes,
        workloads={},
    )
    return PlanRecord(plan, fields.pop("phase", "carrying-out"), fields.pop("accepted_at", NOW - 60), **fields)
