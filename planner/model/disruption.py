"""What may be disrupted: which pods are pinned, which nodes must stay, how a workload's pods can be moved.

The optimizer plans by these rules, the verifier checks by them, the rescheduler acts by them: each refusal is a
reason that a person can read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from planner import labels as keys
from planner.model.cluster import DisruptionBudget, LabelTally, Node, Pod, Snapshot, Workload, pod_key
from planner.model.coexistence import surge_hindrances
from planner.model.machines import Catalogue
from planner.model.resources import Resources
from planner.model.scheduling import Taint

REMOVAL_TAINTS = (
    "ToBeDeletedByClusterAutoscaler",
    "DeletionCandidateOfClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/unregistered",
    "cloud.google.com/impending-node-termination",
)
"""Taints by which others mark a node that they will remove."""

_GO_DURATION = re.compile(r"^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$")

NodeRole = Literal["removable", "kept", "frozen"]


@dataclass(frozen=True, slots=True)
class DisruptionRules:
    """The user's word on disruption.

    `unavailability_ceiling` is the largest fraction of a workload's replicas that may be unavailable at once
    (rounded down); `pin_local_storage` pins pods with emptyDir volumes on disk. `max_nodes_changed` is how many nodes
    one plan may boot and remove together, `max_pods_moved` how many pods it may move; None is no ceiling.
    """

    unavailability_ceiling: float = 0.5
    pin_local_storage: bool = False
    max_nodes_changed: int | None = None
    max_pods_moved: int | None = None


@dataclass(frozen=True, slots=True)
class Mobility:
    """How the pods of a workload may be moved: by roll-out, by eviction of at most `evictable` at once, or not.

    `budgets` are the disruption budgets over it ("namespace/name"), each with how many of its pods may be unavailable
    at once: other workloads under the same budget share in that.
    """

    rollout: bool
    evictable: int
    reason: str
    budgets: tuple[tuple[str, int], ...] = ()

    @property
    def movable(self) -> bool:
        return self.rollout or self.evictable > 0


@dataclass(frozen=True, slots=True)
class Assessment:
    """The rules applied to one snapshot.

    `pins`: reason by "namespace/name" of each pod that has a node and must stay there. `roles`: for each node
    whether it may be removed, is kept (and may receive pods), or is frozen (keeps its pods, receives none);
    `role_reasons` says why a node is not removable. `mobility`: by workload key.
    """

    pins: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, NodeRole] = field(default_factory=dict)
    role_reasons: Mapping[str, str] = field(default_factory=dict)
    mobility: Mapping[str, Mobility] = field(default_factory=dict)


def planned_pods(snapshot: Snapshot) -> tuple[Pod, ...]:
    """Return the pods that a plan is about: live, and not bound to their node's life (DaemonSet, mirror)."""
    return snapshot.planned


def foreign_taints(node: Node) -> tuple[Taint, ...]:
    """Return the node's taints without Kinema's own mark."""
    return tuple(t for t in node.taints if t.key != keys.EXPIRING)


def assess(
    snapshot: Snapshot, catalogue: Catalogue, rules: DisruptionRules, mobility: Mapping[str, Mobility]
) -> Assessment:
    """Say what may be moved and removed in this snapshot, each refusal with its reason.

    `mobility` is what the rules say of its workloads (`mobilities`).
    """
    pods = planned_pods(snapshot)
    workloads = {w.key: w for w in snapshot.workloads}
    roles: dict[str, NodeRole] = {}
    reasons: dict[str, str] = {}
    for node in snapshot.nodes:
        if reason := _frozen_reason(node, catalogue):
            roles[node.name], reasons[node.name] = "frozen", reason
        elif reason := _kept_reason(node, catalogue):
            roles[node.name], reasons[node.name] = "kept", reason
        else:
            roles[node.name] = "removable"
    for name in _overdrawn(snapshot):
        roles[name], reasons[name] = "frozen", "holds pods that request more than it can allocate"
    nodes = {node.name: (node, foreign_taints(node)) for node in snapshot.nodes}
    pins: dict[str, str] = {}
    for pod in pods:
        if pod.node is None or pod.node not in nodes:
            continue
        workload = workloads.get(pod.workload)
        reason = pin_reason(pod, workload, rules)
        if not reason and pod.workload not in mobility:
            reason = "its controller is not known"
        if not reason and not mobility[pod.workload].movable:
            reason = mobility[pod.workload].reason
        if not reason and roles.get(pod.node) == "frozen":
            reason = f"its node {reasons[pod.node]}"
        node, taints = nodes[pod.node]
        if not reason and not pod.constraints.admit(node.labels, node.name, taints):
            reason = "runs on a node that its own constraints exclude"
        if reason:
            pins[pod_key(pod)] = reason
            if roles.get(pod.node) == "removable":
                roles[pod.node] = "kept"
                reasons[pod.node] = f"holds the pinned pod {pod_key(pod)}: {reason}"
    return _whole(_without_partial_rollouts(Assessment(pins, roles, reasons, mobility), snapshot), snapshot)


def mobilities(snapshot: Snapshot, rules: DisruptionRules) -> dict[str, Mobility]:
    """Say for each workload that has planned pods how they may be moved."""
    pods = planned_pods(snapshot)
    samples = {pod.workload: pod for pod in reversed(pods)}  # one pod of each: all have their template's labels
    tally = LabelTally(pods, (budget.selector for budget in snapshot.budgets))
    slack: dict[str, list[tuple[DisruptionBudget, int]]] = {}
    for budget in snapshot.budgets:
        # So many of its pods may be unavailable at once: covered pods - desired healthy.
        spare = max(0, tally.count(budget.namespace, budget.selector) - budget.desired_healthy)
        slack.setdefault(budget.namespace, []).append((budget, spare))
    hindrances = surge_hindrances(snapshot.nodes, pods)
    found = {}
    for workload in snapshot.workloads:
        if (sample := samples.get(workload.key)) is not None:
            budgets = [item for item in slack.get(sample.namespace, ()) if item[0].covers(sample)]
            shared = tuple((f"{budget.namespace}/{budget.name}", spare) for budget, spare in budgets)
            own = _mobility(workload, budgets, rules, hindrances.get(workload.key, ""))
            found[workload.key] = replace(own, budgets=shared)
    return found


def with_held(assessment: Assessment, snapshot: Snapshot, held: Mapping[str, str]) -> Assessment:
    """Return the assessment with the pods of these workloads pinned too, each for the given reason."""
    return _whole(_with_pinned(assessment, snapshot, held), snapshot)


def _whole(found: Assessment, snapshot: Snapshot) -> Assessment:
    """Pin the pods of each party of which one is pinned, and so on with the workloads of those."""
    parties: dict[str, list[Pod]] = {}
    for pod in planned_pods(snapshot):
        if pod.party and pod.node in found.roles:
            parties.setdefault(pod.party, []).append(pod)
    while parties:
        pins, roles, reasons = dict(found.pins), dict(found.roles), dict(found.role_reasons)
        for members in parties.values():
            first = next((pod_key(pod) for pod in members if pod_key(pod) in found.pins), None)
            for pod in members if first else ():
                pins.setdefault(pod_key(pod), f"stands beside {first}, which stays: {found.pins[str(first)]}")
                if roles[str(pod.node)] == "removable":
                    roles[str(pod.node)] = "kept"
                    reasons[str(pod.node)] = f"holds the pinned pod {pod_key(pod)}: {pins[pod_key(pod)]}"
        if pins.keys() == found.pins.keys():
            break
        found = _without_partial_rollouts(replace(found, pins=pins, roles=roles, role_reasons=reasons), snapshot)
    return found


def _with_pinned(assessment: Assessment, snapshot: Snapshot, held: Mapping[str, str]) -> Assessment:
    pins, roles, reasons = dict(assessment.pins), dict(assessment.roles), dict(assessment.role_reasons)
    for pod in planned_pods(snapshot):
        # A pod whose node is gone has to be placed anew, whatever holds the others.
        if pod.node not in roles or pod.workload not in held:
            continue
        pins.setdefault(pod_key(pod), held[pod.workload])
        if roles.get(pod.node) == "removable":
            roles[pod.node] = "kept"
            reasons[pod.node] = f"holds the pinned pod {pod_key(pod)}: {held[pod.workload]}"
    return replace(assessment, pins=pins, roles=roles, role_reasons=reasons)


def _without_partial_rollouts(found: Assessment, snapshot: Snapshot) -> Assessment:
    """Forbid the roll-out of each workload of which some pods are pinned, for it would replace those as well.

    Where its pods cannot be evicted either, the others are pinned too.
    """
    running = [pod for pod in planned_pods(snapshot) if pod.node in found.roles]
    partly = {pod.workload for pod in running if pod_key(pod) in found.pins} & set(found.mobility)
    why = "its roll-out would also replace pods that must stay"
    mobility = dict(found.mobility)
    for key in partly:
        mobility[key] = replace(mobility[key], rollout=False, reason=mobility[key].reason or why)
    stuck = {key: why for key in sorted(partly) if not mobility[key].movable}
    return _with_pinned(replace(found, mobility=mobility), snapshot, stuck)


def _overdrawn(snapshot: Snapshot) -> list[str]:
    """Name the nodes whose pods (not finished, not being deleted) request more than the node can allocate."""
    requested = {node.name: Resources() for node in snapshot.nodes}
    for pod in snapshot.pods:
        if pod.live and pod.node in requested:
            requested[pod.node] = requested[pod.node] + pod.requests
    return [node.name for node in snapshot.nodes if not requested[node.name].as_it_stands.fits_in(node.allocatable)]


def _frozen_reason(node: Node, catalogue: Catalogue) -> str:
    if node.deleting:
        return "is being deleted"
    if not node.ready:
        return "is not ready"
    if node.unschedulable:
        return "is cordoned"
    for taint in node.taints:
        if taint.key in REMOVAL_TAINTS:
            return f"carries the taint {taint.key}"
    if catalogue.managed_pools is not None and node.pool not in catalogue.managed_pools:
        return f"belongs to the pool {node.pool!r}, which Kinema was not given"
    return ""


def _kept_reason(node: Node, catalogue: Catalogue) -> str:
    if catalogue.price(node) is None:
        return f"has the machine type {node.machine_type!r} ({node.capacity_type}), which has no price"
    for key in (
        keys.DO_NOT_DISRUPT,
        "karpenter.sh/do-not-disrupt",
        "cluster-autoscaler.kubernetes.io/scale-down-disabled",
    ):
        if node.annotations.get(key) == "true":
            return f'is annotated {key}: "true"'
    return ""


def pin_reason(pod: Pod, workload: Workload | None, rules: DisruptionRules) -> str:
    """Return why this pod stays where it runs, whatever its workload may do; "" where nothing pins it."""
    if pod.unmodelled:
        return "not modelled yet: " + ", ".join(pod.unmodelled)
    if pod.kind == "Pod":
        return "has no controller that would recreate it"
    if pod.kind not in ("Deployment", "ReplicaSet", "StatefulSet"):
        return f"belongs to a {pod.kind}, which is never moved"
    for notes in (pod.annotations, workload.annotations if workload else {}):
        if reason := _opted_out(notes):
            return reason
    if rules.pin_local_storage and pod.local_storage:
        return "has an emptyDir volume, and the settings pin those"
    return ""


def _opted_out(annotations: Mapping[str, str]) -> str:
    if not annotations:
        return ""
    if annotations.get(keys.DO_NOT_DISRUPT) == "true":
        return f'is annotated {keys.DO_NOT_DISRUPT}: "true"'
    karpenter = annotations.get("karpenter.sh/do-not-disrupt", "")
    if karpenter == "true" or _GO_DURATION.match(karpenter):
        return f'is annotated karpenter.sh/do-not-disrupt: "{karpenter}"'
    if annotations.get("cluster-autoscaler.kubernetes.io/safe-to-evict") == "false":
        return 'is annotated cluster-autoscaler.kubernetes.io/safe-to-evict: "false"'
    return ""


def _mobility(
    workload: Workload, budgets: list[tuple[DisruptionBudget, int]], rules: DisruptionRules, hindrance: str
) -> Mobility:
    """Resolve the workload's own strategy, its budgets and the ceiling of unavailability.

    Rolling updates are not limited by budgets, so one that is looser than a budget or the ceiling is not used.
    `hindrance` says why new pods cannot stand beside old ones, "" where they can.
    """
    ceiling = math.floor(rules.unavailability_ceiling * workload.replicas + 1e-9)
    slack = min((s for _, s in budgets), default=workload.replicas)
    limit = min(ceiling, slack)
    rolling = workload.kind == "Deployment" and workload.update == "RollingUpdate"
    by_strategy = workload.max_unavailable if rolling else 1
    evictable = min(by_strategy, limit) if len(budgets) <= 1 else 0
    rollout = (
        rolling
        and workload.known
        and workload.max_surge >= 1
        and workload.max_unavailable <= limit
        and not workload.paused
        and workload.owner is None
        and not hindrance
    )
    if rollout or evictable:
        return Mobility(rollout, evictable, "")
    if len(budgets) > 1:
        names = ", ".join(sorted(b.name for b, _ in budgets))
        why = f"several disruption budgets cover it ({names}), so the Eviction API refuses"
    elif slack == 0:
        why = f"the disruption budget {budgets[0][0].name} allows no disruption"
    elif ceiling == 0:
        why = (
            f"{workload.replicas} replicas without surge would be unavailable while they move "
            f"(ceiling of unavailability {rules.unavailability_ceiling:g})"
        )
    elif hindrance:
        why = f"{hindrance}, and its strategy allows no unavailable pod"
    elif workload.owner is not None:
        why = f"{workload.owner} owns it and would revert a roll-out, and its strategy allows no unavailable pod"
    else:
        why = "its strategy allows neither a surge nor an unavailable pod"
    return Mobility(False, 0, why)
