"""Everything that a plan is made from, and checked against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from planner.model.cap import CpuCap
from planner.model.cluster import Pod, Snapshot, Workload
from planner.model.companions import sought_by_workload
from planner.model.disruption import (
    Assessment,
    DisruptionRules,
    Mobility,
    assess,
    mobilities,
    planned_pods,
    with_held,
)
from planner.model.forecast import Forecast
from planner.model.machines import Catalogue, Offering
from planner.model.plan import Plan
from planner.model.preferences import PreferencePrices
from planner.model.resources import Resources
from planner.model.utilization import under_cap


@dataclass(frozen=True, slots=True)
class ChangePrices:
    """What change costs: per moved pod, and per removed node for the time that it still runs.

    Per hour: moves x `move_cost_nanousd` / `payback_hours`, and for each removed node that held movable pods
    its price x `boot_overlap_minutes` / 60 / `payback_hours`.
    """

    payback_hours: int = 24
    move_cost_nanousd: int = 1_000_000
    boot_overlap_minutes: int = 15

    @property
    def move_nanousd_per_hour(self) -> int:
        """The price of one move in nanodollars per hour, rounded down (so that a bound stays a bound)."""
        return self.move_cost_nanousd // self.payback_hours

    def moves_nanousd_per_hour(self, moves: int) -> int:
        """The price of so many moves in nanodollars per hour, rounded down once."""
        return moves * self.move_cost_nanousd // self.payback_hours

    def overlap_nanousd_per_hour(self, price_nanousd_per_hour: int) -> int:
        """The price of removing one node of this price, in nanodollars per hour, rounded down."""
        return price_nanousd_per_hour * self.boot_overlap_minutes // (60 * self.payback_hours)


@dataclass(frozen=True)
class PlanningInputs:
    """The values from which a plan follows.

    `held` names workloads whose running pods stay where they are beyond what the rules pin, each with a reason
    (no order of stages could move them). `fresh` names workloads that may stand on new nodes only: their roll-out
    found no room beside its old pods. With `seated` pods that wait may come only where they have room before others
    move. All three are the planner's own choice and no part of the problem, so a plan that was made with any of them is
    proven by the bound without them. `start` is an earlier plan to go on from; it changes how soon a plan is found and
    which of several, and nothing about what is right. `cap` is the active objective's; without one the objective is
    cost alone.
    """

    snapshot: Snapshot
    catalogue: Catalogue
    iteration: str
    forecast: Forecast = field(default_factory=Forecast)
    rules: DisruptionRules = field(default_factory=DisruptionRules)
    prices: ChangePrices = field(default_factory=ChangePrices)
    preferences: PreferencePrices = field(default_factory=PreferencePrices)
    held: Mapping[str, str] = field(default_factory=dict)
    fresh: frozenset[str] = frozenset()
    seated: bool = False
    start: Plan | None = None
    cap: CpuCap | None = None

    @cached_property
    def mobility(self) -> Mapping[str, Mobility]:
        """How the rules of disruption let each workload be moved, by its key."""
        return mobilities(self.snapshot, self.rules)

    @cached_property
    def assessment(self) -> Assessment:
        """What the rules of disruption, and `held`, let be moved and removed."""
        found = assess(self.snapshot, self.catalogue, self.rules, self.mobility)
        return with_held(found, self.snapshot, self.held) if self.held else found

    @cached_property
    def sought(self) -> Mapping[str, frozenset[str]]:
        """Which others the pods of a workload must stand on a node with, by its key (`sought_by_workload`)."""
        return sought_by_workload(self.snapshot.pods)

    def under_cap(self) -> PlanningInputs:
        """Return the inputs with the predicted CPU as a resource; themselves where nothing caps it.

        Whoever asks what is over its allocatable amounts (`assessment`) asks the inputs without.
        """
        if self.cap is None:
            return self
        snapshot, catalogue = under_cap(self.snapshot, self.catalogue, self.cap)
        return replace(self, snapshot=snapshot, catalogue=catalogue)

    def displeasure_nanousd_per_hour(self) -> int:
        """Return what one wholly displeased pod costs in this cluster."""
        return self.preferences.each_nanousd_per_hour(len(planned_pods(self.snapshot)))

    def planned_requests(self, pod: Pod, workload: Workload | None) -> Resources:
        """Return what the pod will request: its present requests, with the forecast's change of its containers."""
        changes = self.forecast.requests.get(pod.workload)
        if not changes or workload is None:
            return pod.requests
        total = pod.requests
        for container in workload.containers:
            if container.name in changes:
                new, old = changes[container.name], container.requests
                total = total + Resources(new.cpu_millicores, new.memory_bytes)
                total = total - Resources(old.cpu_millicores, old.memory_bytes)
        return total


def offering_room(inputs: PlanningInputs, offering: Offering) -> Resources:
    """Return what a fresh node of the offering has left beside its DaemonSets."""
    room = offering.allocatable
    for daemon in inputs.snapshot.daemonsets:
        if daemon.constraints.admit(offering.labels, "", offering.taints):
            room = room - daemon.requests
    return room
