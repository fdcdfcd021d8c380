"""The cap on predicted CPU, checked on every node of a plan by adding up what its pods will use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from planner.model.cap import CpuCap
from planner.model.disruption import planned_pods
from planner.model.plan import Plan, PlannedNode
from planner.verifier.facts import Facts, offering_key


def capped(plan: Plan, facts: Facts) -> Iterator[str]:
    """Name each node whose pods will use more than the cap and more than now, and each number that is not so.

    A node that is above the cap may stay there where the plan says so; what comes to it must use nothing.
    """
    cap, said = facts.inputs.cap, plan.objective.cap
    if cap is None or said is None:
        if cap is not None or said is not None:
            yield "the plan has a cap on predicted CPU" if cap is None else "the plan has no cap on predicted CPU"
        return
    yield from _differences(said, cap)
    before = _present(facts, cap.usage_millicores)
    names = {node.name for node in plan.nodes if node.state == "keep" and not node.frozen}
    for name, allowed in said.allowed_millicores.items():
        if name not in names:
            yield f"node {name} may stay above the cap by the plan, but it keeps no such node"
        elif allowed > before[name]:
            yield f"node {name} may come to use {allowed} millicores by the plan, and uses {before[name]} now"
    for node in plan.nodes:
        yield from _node(node, cap, before.get(node.name, 0), _after(node, facts, cap.usage_millicores))


def within_cap_now(facts: Facts) -> bool:
    """Say whether every node that is no part of a frozen rest is under the cap, or may be above it, as it stands."""
    cap = facts.inputs.cap
    if cap is None:
        return True
    before = _present(facts, cap.usage_millicores)
    return all(
        facts.role(name) == "frozen" or before[name] <= cap.limit_millicores(name, node.allocatable.cpu_millicores)
        for name, node in facts.nodes.items()
    )


def _differences(said: CpuCap, cap: CpuCap) -> Iterator[str]:
    if (said.permille, said.window) != (cap.permille, cap.window):
        yield (
            f"the cap is {said.permille} thousandths (window {said.window!r}) in the plan, "
            f"{cap.permille} (window {cap.window!r}) by the inputs"
        )
    for key in sorted(said.usage_millicores.keys() | cap.usage_millicores.keys()):
        claimed, right = said.usage_millicores.get(key), cap.usage_millicores.get(key)
        if claimed != right:
            yield f"workload {key}: a pod uses {claimed} millicores by the plan, {right} by the inputs"


def _present(facts: Facts, usage: Mapping[str, int]) -> dict[str, int]:
    """Return what the pods on each node use, in millicores; those that end with it or are to come with it included."""
    found = {name: overhead.predicted_cpu_millicores for name, overhead in facts.overheads.items()}
    for pod in planned_pods(facts.inputs.snapshot):
        if pod.node in found:
            found[pod.node] += usage.get(pod.workload, 0)
    return found


def _after(node: PlannedNode, facts: Facts, usage: Mapping[str, int]) -> int:
    if node.state == "remove":
        return 0
    content = sum(count * usage.get(workload, 0) for workload, count in node.pods.items())
    if node.state == "keep":
        return content + facts.overheads[node.name].predicted_cpu_millicores
    offering, _ = facts.offers[offering_key(node)]
    daemons = [d for d in facts.inputs.snapshot.daemonsets if d.constraints.admit(offering.labels, "", offering.taints)]
    return content + sum(usage.get(daemonset.key, 0) for daemonset in daemons)


def _node(node: PlannedNode, cap: CpuCap, before: int, after: int) -> Iterator[str]:
    said = (node.predicted_cpu_before_millicores, node.predicted_cpu_millicores)
    if said != (before, after):
        yield (
            f"node {node.name}: its pods use {said[0]} millicores and will use {said[1]} by the plan, "
            f"{before} and {after} recomputed"
        )
    limit = cap.limit_millicores(node.name, node.allocatable.cpu_millicores)
    if node.state != "remove" and not node.frozen and after > limit:
        percent = 100 * after / max(1, node.allocatable.cpu_millicores)
        yield (
            f"node {node.name} will use {after} of {node.allocatable.cpu_millicores} millicores ({percent:.1f} %), "
            f"which is above the cap: at most {limit}"
        )
