"""The plan with its certificate, the decision about it, and the steps that carry it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from planner.model.cap import CpuCap
from planner.model.resources import Resources

NodeState = Literal["keep", "boot", "remove"]
Strategy = Literal["rollout", "evict", "stay", "pinned"]
Status = Literal["optimal", "feasible"]


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """One node of the plan; `pods` counts by workload key what it holds in the end, without DaemonSets.

    A node whose machine type has no price is kept: its price is None and `reason` says why. A frozen node keeps
    its pods, receives none and is not touched. What all its pods are predicted to use, now and under the plan, is
    known where the objective caps it.
    """

    name: str
    state: NodeState
    pool: str
    machine_type: str
    zone: str
    capacity_type: str
    price_nanousd_per_hour: int | None
    allocatable: Resources
    pods: Mapping[str, int]
    pod_names: tuple[str, ...] = ()
    reason: str = ""
    frozen: bool = False
    predicted_cpu_before_millicores: int | None = None
    predicted_cpu_millicores: int | None = None


@dataclass(frozen=True, slots=True)
class PlannedWorkload:
    """What happens to one workload: `moves` pods are recreated, by `strategy`, for `reason`.

    Where two workloads want room on the same node, the one of the lower `stage` goes first.
    """

    uid: str
    replicas: int
    requests_before: Resources
    requests: Resources
    strategy: Strategy
    moves: int
    reason: str = ""
    containers: Mapping[str, Resources] = field(default_factory=dict)
    stage: int = 0


@dataclass(frozen=True, slots=True)
class Unplaced:
    """Pods of one workload that no node of the plan holds, and why."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Objective:
    """What was minimised, in nanodollars per hour: value = nodes + moves + boots + preferences >= lower_bound.

    `nodes` is the price of the plan's nodes; `moves` is moves x `move_cost_nanousd` / `payback_hours`;
    `boots` is `boot_overlap_hours` / `payback_hours` x the price of each removed node that held movable pods
    (it still runs while its replacement does); `preferences` is what it counts that pods are on nodes that they would
    rather avoid: `preference` for a pod that is wholly displeased, at most `preference_ceiling` for all of them. `name`
    is that of the `cap`, or cost where there is none.
    """

    name: str
    nodes_nanousd_per_hour: int
    moves_nanousd_per_hour: int
    boots_nanousd_per_hour: int
    lower_bound_nanousd_per_hour: int
    status: Status
    payback_hours: int
    move_cost_nanousd: int
    boot_overlap_minutes: int
    preferences_nanousd_per_hour: int = 0
    preference_nanousd_per_hour: int = 0
    preference_ceiling_nanousd_per_hour: int = 0
    cap: CpuCap | None = None

    @property
    def value_nanousd_per_hour(self) -> int:
        return self.paid_nanousd_per_hour + self.preferences_nanousd_per_hour

    @property
    def paid_nanousd_per_hour(self) -> int:
        """The value without what pods would rather have."""
        return self.nodes_nanousd_per_hour + self.moves_nanousd_per_hour + self.boots_nanousd_per_hour

    @property
    def relative_gap(self) -> float:
        """(value - lower bound) / value; 0 for a plan without any cost."""
        value = self.value_nanousd_per_hour
        return (value - self.lower_bound_nanousd_per_hour) / value if value else 0.0


@dataclass(frozen=True, slots=True)
class CertificateGroup:
    """Identical pods and their price (pi) in nanodollars per hour each; `count` of them have a place."""

    id: str
    workloads: tuple[str, ...]
    count: int
    requests: Resources
    price_nanousd_per_hour: int


@dataclass(frozen=True, slots=True)
class CertificateClass:
    """One kind of node, or one existing node (`node`), with its limit (u) and cost (c, nanodollars per hour)."""

    id: str
    pool: str
    zone: str
    machine_type: str
    capacity_type: str
    node: str | None
    limit: int
    cost_nanousd_per_hour: int


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """One further constraint, written as sum >= rhs, with its dual (lambda >= 0, nanodollars per hour)."""

    kind: str
    scope: str
    rhs: int
    dual_nanousd_per_hour: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """The Lagrangian proof of the lower bound; docs/model.md has the formula."""

    groups: tuple[CertificateGroup, ...] = ()
    classes: tuple[CertificateClass, ...] = ()
    rows: tuple[CertificateRow, ...] = ()
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The cheapest set of nodes that was found, where every pod goes, and the proof how good that is."""

    iteration: str
    objective: Objective
    current_cost_nanousd_per_hour: int
    cost_nanousd_per_hour: int
    nodes: tuple[PlannedNode, ...]
    workloads: Mapping[str, PlannedWorkload]
    unplaced: Mapping[str, Unplaced] = field(default_factory=dict)
    certificate: Certificate = field(default_factory=Certificate)
    timings_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def moves(self) -> int:
        """How many pods are recreated."""
        return sum(workload.moves for workload in self.workloads.values())


Phase = Literal["carrying-out", "abandoning", "done"]


@dataclass(frozen=True, slots=True)
class Mending:
    """Pods made until `made_until` that came astray are moved once more; both times in seconds since the epoch.

    `began_at` is by the planner's clock, `made_until` by the API server's, which stamps the pods.
    """

    began_at: float
    made_until: float


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """The plan that the cluster remembers, so that a restarted planner carries on.

    `accepted_at` is in seconds since the epoch; `reason` says why it was abandoned, or how it ended. `mending` is
    set when all else is done.
    """

    plan: Plan
    phase: Phase
    accepted_at: float
    mode: str = "apply"
    reason: str = ""
    mending: Mending | None = None


Verdict = Literal["accepted", "stale", "too-small", "nothing-to-do"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a plan, with the numbers that decided.

    `churn` is the share of pods and nodes that changed since the plan's snapshot; `saving` the share of the
    present cost that the plan saves. Both are fractions.
    """

    verdict: Verdict
    churn: float
    saving: float
    reason: str

    @property
    def accepted(self) -> bool:
        return self.verdict == "accepted"


@dataclass(frozen=True, slots=True)
class BootNodes:
    """Create these instances in one pool and zone, at once."""

    pool: str
    zone: str
    names: tuple[str, ...]
    iteration: str


@dataclass(frozen=True, slots=True)
class MarkNode:
    """Set (or with None remove) labels and annotations of a node, and the effect of Kinema's expiring taint.

    `taint_value` None removes the taint.
    """

    node: str
    uid: str
    labels: Mapping[str, str | None] = field(default_factory=dict)
    annotations: Mapping[str, str | None] = field(default_factory=dict)
    taint_value: str | None = None
    taint_effect: str = ""


@dataclass(frozen=True, slots=True)
class RollOut:
    """Start the rolling update of a Deployment, with new requests by container where the plan has some."""

    workload: str
    uid: str
    iteration: str
    containers: Mapping[str, Resources] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvictPod:
    """Evict one pod through the Eviction API; its uid is the precondition."""

    namespace: str
    name: str
    uid: str
    workload: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteInstances:
    """Delete the machines of drained nodes, by name."""

    pool: str
    zone: str
    names: tuple[str, ...]
    iteration: str


@dataclass(frozen=True, slots=True)
class DeleteNode:
    """Delete the Node object of a machine that is gone; its uid is the precondition."""

    node: str
    uid: str


@dataclass(frozen=True, slots=True)
class SavePlan:
    """Write what the cluster remembers of the plan."""

    record: PlanRecord


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until the cluster has moved on; `reasons` say what is waited for."""

    reasons: tuple[str, ...]


Step = BootNodes | MarkNode | RollOut | EvictPod | DeleteInstances | DeleteNode | SavePlan | Wait
