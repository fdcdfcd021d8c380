"""Whether a plan is worth carrying out, and still fits the cluster that it was made for."""

from __future__ import annotations

from planner.model.cluster import Snapshot
from planner.model.disruption import planned_pods
from planner.model.plan import Decision, Plan, Verdict
from planner.settings import ProcessorSettings


def decide(plan: Plan, planned_on: Snapshot, current: Snapshot, settings: ProcessorSettings) -> Decision:
    """Accept the plan, or say with numbers why not.

    churn = pods and nodes that came, went or (a pod) got another node / all pods and nodes,
    saving = (present cost - cost) / present cost. Accepted are plans with churn < `churn_limit` that place pending
    pods, or relieve a node whose predicted CPU is above (1 + `relief_threshold`) · cap, or whose value without
    preferences is below the present cost and saving > `saving_threshold`.
    """
    churn = _churn(planned_on, current)
    present, cost = plan.current_cost_nanousd_per_hour, plan.cost_nanousd_per_hour
    saving = (present - cost) / present if present else 0.0

    def decision(verdict: Verdict, reason: str) -> Decision:
        return Decision(verdict, churn, saving, reason)

    if not _changes_anything(plan, planned_on):
        return decision("nothing-to-do", "the cluster is as the plan wants it")
    if churn >= settings.churn_limit:
        return decision(
            "stale",
            f"{_percent(churn)} of the pods and nodes changed while the plan was made; "
            f"the limit is below {_percent(settings.churn_limit)}",
        )
    if placed := _placed_pending_pods(plan, planned_on):
        return decision("accepted", f"{placed} pending {'pod gets' if placed == 1 else 'pods get'} a place")
    if relieved := _relieved_nodes(plan, settings.relief_threshold):
        what = "node is relieved that is" if relieved == 1 else "nodes are relieved that are"
        return decision("accepted", f"{relieved} {what} above the cap on predicted CPU")
    # What pods prefer shapes a plan and is no reason for one: money is saved, or nothing is.
    value = plan.objective.paid_nanousd_per_hour
    if value >= present:
        return decision(
            "too-small",
            f"with the price of its {plan.moves} moves the plan costs {value} nanodollars per hour, "
            f"standing still {present}",
        )
    if saving <= settings.saving_threshold:
        return decision(
            "too-small",
            f"the plan saves {_percent(saving)} of the present cost; it must be more than "
            f"{_percent(settings.saving_threshold)}",
        )
    return decision("accepted", f"the plan saves {_percent(saving)} of the present cost")


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _places(snapshot: Snapshot) -> dict[tuple[str, ...], str | None]:
    """Return what a plan is about: each node, and each planned pod with the node on which it is."""
    found: dict[tuple[str, ...], str | None] = {("node", node.uid, node.name): None for node in snapshot.nodes}
    return found | {("pod", pod.uid, pod.namespace, pod.name): pod.node for pod in planned_pods(snapshot)}


def _churn(before: Snapshot, after: Snapshot) -> float:
    """Return the share of pods and nodes that changed: (moved + the larger of gone and come) / the larger of both.

    So a pod that another one replaced counts once, as does one that is on another node than before.
    """
    old, new = _places(before), _places(after)
    moved = sum(old[key] != new[key] for key in old.keys() & new.keys())
    changed = moved + max(len(old.keys() - new.keys()), len(new.keys() - old.keys()))
    return changed / max(len(old), len(new)) if changed else 0.0


def _placed_pending_pods(plan: Plan, planned_on: Snapshot) -> int:
    """Count the pods without a node for which the plan has one."""
    names = {node.name for node in planned_on.nodes}
    pending = sum(pod.node not in names for pod in planned_pods(planned_on))
    return max(0, pending - sum(unplaced.count for unplaced in plan.unplaced.values()))


def _relieved_nodes(plan: Plan, threshold: float) -> int:
    """Count the nodes that are above the cap by more than the threshold and will use less, or be removed."""
    cap = plan.objective.cap
    if cap is None:
        return 0
    return sum(
        node.predicted_cpu_before_millicores > (1 + threshold) * cap.room_millicores(node.allocatable.cpu_millicores)
        and node.predicted_cpu_millicores < node.predicted_cpu_before_millicores
        for node in plan.nodes
        if node.predicted_cpu_before_millicores is not None and node.predicted_cpu_millicores is not None
    )


def _changes_anything(plan: Plan, planned_on: Snapshot) -> bool:
    """Say whether the plan boots or removes a node, moves a pod or places a pending one."""
    nodes = any(node.state != "keep" for node in plan.nodes)
    return nodes or plan.moves > 0 or _placed_pending_pods(plan, planned_on) > 0
