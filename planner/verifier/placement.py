"""The placement of a plan, its prices and what it says of each workload, checked against the inputs."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from planner.model.cap import objective_name
from planner.model.cluster import Workload, pod_key
from planner.model.companions import needs_company
from planner.model.inputs import PlanningInputs
from planner.model.machines import Offering
from planner.model.plan import Plan, PlannedNode, PlannedWorkload
from planner.model.resources import Resources
from planner.verifier.assignment import Demand, Supply, assign
from planner.verifier.coexistence import Coexistence, Present
from planner.verifier.displeasure import displeasure_range, present_displeasure
from planner.verifier.facts import Facts, Spot, adopted, gather, offering_key
from planner.verifier.limits import Tally, node_label, offering_label, tally_of
from planner.verifier.utilization import capped, within_cap_now

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Examination:
    """Checks the plans of the same inputs; what follows from the inputs alone is found once."""

    def __init__(self, inputs: PlanningInputs) -> None:
        self.inputs = inputs
        self._known: tuple[Facts, Present] | None = None

    def prepare(self) -> tuple[Facts, Present]:
        """Find what no plan is needed for, and return it; once is enough."""
        if self._known is None:
            self._known = _known(self.inputs)
        return self._known

    def problems(self, plan: Plan) -> tuple[str, ...]:
        """Return what `check_placement` says of the plan."""
        taken = adopted(plan, self.inputs)
        facts, present = self.prepare() if taken == self.inputs else _known(taken)
        return _problems(plan, self.inputs, facts, present)


def check_placement(plan: Plan, inputs: PlanningInputs) -> tuple[str, ...]:
    """Return what is wrong with the plan's nodes, pods, workloads and prices, each as a sentence; () is right."""
    return Examination(inputs).problems(plan)


def _known(inputs: PlanningInputs) -> tuple[Facts, Present]:
    facts = gather(inputs)
    return facts, Present(facts)


def _problems(plan: Plan, inputs: PlanningInputs, facts: Facts, present: Present) -> tuple[str, ...]:
    problems = list(_nodes(plan, facts))
    if problems:
        # What follows speaks of nodes that exist or can be booted.
        return tuple(problems)
    problems += _counts(plan, facts)
    problems += _pins(plan, facts)
    problems += _pool_limits(plan, facts)
    problems += _moved(plan, facts)
    problems += capped(plan, facts)
    tally = tally_of(plan, facts)
    problems += _further_limits(tally)
    if not problems:
        rules = Coexistence(plan, facts, present)
        problems += _capacity(plan, facts, _Growth(tally, rules))
        problems += rules.broken()
    problems += _workloads(plan, inputs, facts)
    problems += _money(plan, facts)
    return tuple(problems)


def _staying(plan: Plan) -> list[PlannedNode]:
    return [node for node in plan.nodes if node.state != "remove"]


def _spot(node: PlannedNode, facts: Facts) -> Spot:
    """Return the room of a planned node; a node to boot has that of its offering."""
    return facts.offers[offering_key(node)][1] if node.state == "boot" else facts.spots[node.name]


def _pending(facts: Facts) -> Counter[str]:
    return Counter(pod.workload for pods in facts.pods.values() for pod in pods if not facts.running(pod))


def _nodes(plan: Plan, facts: Facts) -> Iterator[str]:
    """Every node of the snapshot once, every other one a boot of something on offer, each as the inputs describe it."""
    if plan.iteration != facts.inputs.iteration:
        yield f"the plan is of iteration {plan.iteration}, the inputs of {facts.inputs.iteration}"
    for name, times in Counter(node.name for node in plan.nodes).items():
        if times > 1:
            yield f"node {name} is in the plan {times} times"
    planned = {node.name for node in plan.nodes}
    yield from (f"node {name} of the cluster is not in the plan" for name in facts.nodes if name not in planned)
    for node in plan.nodes:
        if node.state == "boot":
            yield from _boot(node, facts)
        elif node.name not in facts.nodes:
            yield f"node {node.name} is in the plan to {node.state}, but not in the cluster"
        else:
            yield from _existing(node, facts)
        for workload, count in node.pods.items():
            if count < 0:
                yield f"node {node.name}: {count} pods of {workload} is no count"


def _boot(node: PlannedNode, facts: Facts) -> Iterator[str]:
    if node.name in facts.nodes:
        yield f"node {node.name} is in the plan to boot, but the cluster has a node of this name"
    if not _DNS_LABEL.fullmatch(node.name):
        yield f"node {node.name}: the name must be a DNS label of at most 63 characters"
    if node.frozen:
        yield f"node {node.name} is in the plan to boot and marked frozen"
    if offering_key(node) not in facts.offers:
        yield (
            f"node {node.name}: nothing on offer is pool {node.pool!r}, zone {node.zone!r}, machine type "
            f"{node.machine_type!r}, {node.capacity_type}"
        )
        return
    offering, _ = facts.offers[offering_key(node)]
    yield from _differences(node, offering.price_nanousd_per_hour, offering.allocatable)


def _existing(node: PlannedNode, facts: Facts) -> Iterator[str]:
    present = facts.nodes[node.name]
    role = facts.role(node.name)
    catalogue = facts.inputs.catalogue
    for what, said, right in (
        ("pool", node.pool, catalogue.pool_of(present)),
        ("zone", node.zone, present.zone),
        ("machine type", node.machine_type, present.machine_type),
        ("capacity type", node.capacity_type, present.capacity_type),
        ("frozen", str(node.frozen), str(role == "frozen")),
    ):
        if said != right:
            yield f"node {node.name}: {what} is {said!r} in the plan, {right!r} in the cluster"
    yield from _differences(node, catalogue.price(present), present.allocatable)
    if node.state == "remove" and role != "removable":
        yield f"node {node.name} must not be removed: it {facts.assessment.role_reasons[node.name]}"
    if node.state == "remove" and any(node.pods.values()):
        yield f"node {node.name} is to be removed, but the plan puts {sum(node.pods.values())} pods on it"
    if node.state == "keep" and node.price_nanousd_per_hour is None and not node.reason:
        yield f"node {node.name} has no price, and no reason says why"


def _differences(node: PlannedNode, price: int | None, allocatable: Resources) -> Iterator[str]:
    if node.price_nanousd_per_hour != price:
        said_price = node.price_nanousd_per_hour
        yield f"node {node.name}: the price is {said_price}, the catalogue says {price} nanodollars per hour"
    said = node.allocatable.amounts()
    for name, amount in allocatable.amounts().items():
        if said.get(name, 0) != amount:
            yield f"node {node.name}: allocatable {name} is {said.get(name, 0)} in the plan, {amount} in truth"
    for name in said.keys() - allocatable.amounts().keys():
        yield f"node {node.name}: allocatable {name} is {said[name]} in the plan, 0 in truth"


def _counts(plan: Plan, facts: Facts) -> Iterator[str]:
    """Every planned pod is on one node or unplaced, and only pending pods are unplaced."""
    present = Counter({key: len(pods) for key, pods in facts.pods.items()})
    pending = _pending(facts)
    placed: Counter[str] = Counter()
    for node in plan.nodes:
        placed.update(dict(node.pods))
    for workload in sorted(present.keys() | placed.keys() | plan.unplaced.keys()):
        left_out = plan.unplaced[workload].count if workload in plan.unplaced else 0
        total = placed[workload] + left_out
        if total != present[workload]:
            what = "misses" if total < present[workload] else "invents"
            yield (
                f"the plan {what} {abs(total - present[workload])} pods of {workload}: it places "
                f"{placed[workload]} and leaves out {left_out}, the cluster has {present[workload]}"
            )
        if workload in plan.unplaced and not 0 < left_out <= pending[workload]:
            yield (
                f"the plan leaves out {left_out} pods of {workload}, of which {pending[workload]} are pending: "
                "a running pod is never left out"
            )
        if workload in plan.unplaced and not plan.unplaced[workload].reason:
            yield f"the plan leaves out pods of {workload} without a reason"


def _pins(plan: Plan, facts: Facts) -> Iterator[str]:
    """Pinned pods stay at their node; a frozen node keeps what it has and receives nothing."""
    nodes = {node.name: node for node in plan.nodes}
    by_key = {pod_key(pod): pod for pods in facts.pods.values() for pod in pods}
    for key, reason in facts.assessment.pins.items():
        pod = by_key[key]
        if pod.node is not None and key not in nodes[pod.node].pod_names:
            yield f"pod {key} is pinned to node {pod.node} ({reason}), but the plan does not name it there"
    for name, pinned in facts.pinned.items():
        for workload, count in pinned.items():
            if (there := nodes[name].pods.get(workload, 0)) < count:
                yield f"node {name}: {count} pinned pods of {workload} must stay, the plan has {there} there"
    for node in plan.nodes:
        named: Counter[str] = Counter()
        for key in node.pod_names:
            if key not in by_key or by_key[key].node != node.name:
                yield f"node {node.name}: the plan names the pod {key}, which does not run there"
            else:
                named[by_key[key].workload] += 1
        for workload, count in named.items():
            if node.pods.get(workload, 0) < count:
                yield (
                    f"node {node.name}: {count} pods of {workload} are named, "
                    f"but it counts {node.pods.get(workload, 0)}"
                )
        if len(set(node.pod_names)) < len(node.pod_names):
            yield f"node {node.name}: a pod is named twice"
        if node.state == "keep" and facts.role(node.name) == "frozen":
            stuck = facts.pinned.get(node.name, {})
            for workload, count in node.pods.items():
                if count > stuck.get(workload, 0):
                    yield (
                        f"node {node.name} {facts.assessment.role_reasons[node.name]} and must receive nothing, but "
                        f"the plan puts {count} pods of {workload} there, which has {stuck.get(workload, 0)}"
                    )


def _further_limits(tally: Tally) -> Iterator[str]:
    """All nodes together are within the limits on the total, on the share of spot and on change."""
    for (kind, scope), limit in tally.limits.items():
        if kind in ("total-maximum", "spot-share", "nodes-changed") and (total := tally.sums[kind, scope]) < limit.rhs:
            yield f"the plan breaks {limit.says} ({kind} {scope}): {total} is below {limit.rhs}"


def _moved(plan: Plan, facts: Facts) -> Iterator[str]:
    """No more pods move than one plan may move."""
    ceiling = facts.inputs.rules.max_pods_moved
    if ceiling is not None and plan.moves > ceiling:
        yield f"the plan moves {plan.moves} pods, above the ceiling of {ceiling} pods moved"


def _pool_limits(plan: Plan, facts: Facts) -> Iterator[str]:
    """Each pool has its minimum and at most its maximum of nodes in each zone; what is there now may exceed it."""
    sizes = Counter((node.pool, node.zone) for node in _staying(plan))
    for (pool, zone), (_, maximum) in facts.inputs.catalogue.limits().items():
        size = sizes[(pool, zone)]
        if size < (minimum := facts.least(pool, zone)):
            yield f"pool {pool} in {zone}: {size} nodes are below the minimum of {minimum}"
        if maximum is not None and size > (most := facts.most(pool, zone, maximum)):
            yield f"pool {pool} in {zone}: {size} nodes are above the maximum of {most}"


@dataclass(frozen=True, slots=True)
class _Growth:
    """What stands against one more node beside those of the plan."""

    tally: Tally
    rules: Coexistence

    def allows(self, offering: Offering) -> bool:
        """Say whether the limits allow one more of the offering, and no spread depends on there being none."""
        return self.tally.allows(offering_label(offering)) and not self.rules.bars(offering)


def _capacity(plan: Plan, facts: Facts, growth: _Growth) -> Iterator[str]:
    """Every node admits and holds what the plan puts there; what is left out fits nowhere in the plan."""
    movable: dict[str, dict[str, int]] = {}
    for node in _staying(plan):
        pinned = facts.pinned.get(node.name, {})
        content = {w: count - pinned.get(w, 0) for w, count in node.pods.items() if count > pinned.get(w, 0)}
        if content:
            movable[node.name] = content
    spots = {node.name: _spot(node, facts) for node in _staying(plan)}
    supplies = [
        Supply(workload, index, group.key, group.running.get(workload, {}), group.pending.get(workload, 0))
        for index, group in enumerate(facts.groups)
        for workload in sorted(group.workloads)
    ]
    found = assign(Demand(movable, spots), supplies)
    yield from found.problems
    if found.problems:
        return
    for supply, count in found.left_over:
        # Room alone is no place for pods whose rules reach beyond a node, no domain may be open to them, nor for those
        # that must find others on theirs.
        if count and not any(pod.keeps or needs_company(pod.rules) for pod in facts.pods[supply.workload]):
            yield from _could_be_placed(plan, facts, growth, supply, found.room)


def _could_be_placed(
    plan: Plan, facts: Facts, growth: _Growth, supply: Supply, rooms: Mapping[str, Resources]
) -> Iterator[str]:
    """Find a place that the plan itself leaves for a pod that it leaves out."""
    for node in plan.nodes:
        if node.frozen or (node.state == "remove" and not growth.tally.allows(node_label(node.name))):
            continue
        spot = _spot(node, facts)
        if replace(spot, room=rooms.get(node.name, spot.room)).takes(supply.key):
            yield f"a pod of {supply.workload} is left out, but node {node.name} has room for it"
            return
    for offering, spot in facts.offers.values():
        if spot.takes(supply.key) and growth.allows(offering):
            yield (
                f"a pod of {supply.workload} is left out, but a new {offering.machine_type} of pool "
                f"{offering.pool} in {offering.zone} would hold it"
            )
            return


def _workloads(plan: Plan, inputs: PlanningInputs, facts: Facts) -> Iterator[str]:
    """What the plan says of each workload: requests, strategy and moves that its pods and mobility allow."""
    missing = sorted(facts.pods.keys() - plan.workloads.keys())
    yield from (f"workload {key} is not in the plan's workloads" for key in missing)
    placed: dict[str, dict[str, int]] = defaultdict(dict)
    for node in plan.nodes:
        for key, count in node.pods.items():
            placed[key][node.name] = count
    for key, planned in plan.workloads.items():
        if key not in facts.pods:
            yield f"workload {key} of the plan has no pods in the cluster"
            continue
        yield from _requests(key, planned, inputs, facts)
        yield from _moves(key, planned, placed[key], plan, facts)


def _requests(key: str, planned: PlannedWorkload, inputs: PlanningInputs, facts: Facts) -> Iterator[str]:
    """The requests change as the forecast says, or not at all."""
    workload = facts.workloads.get(key)
    pods = facts.pods[key]
    uids = {pod.workload_uid for pod in pods} | ({workload.uid} if workload is not None else set())
    if planned.uid not in uids:
        yield f"workload {key}: the uid is {planned.uid}, the cluster says {', '.join(sorted(uids))}"
    replicas = workload.replicas if workload is not None else len(pods)
    if planned.replicas != replicas:
        yield f"workload {key}: replicas is {planned.replicas}, the cluster says {replicas}"
    if planned.requests_before not in [pod.requests.plain for pod in pods] and (
        workload is None or planned.requests_before != workload.requests
    ):
        yield f"workload {key}: requests_before is what none of its pods requests"
    forecast = inputs.forecast.requests.get(key, {})
    if planned.containers and dict(planned.containers) != dict(forecast):
        yield f"workload {key}: the plan changes the requests of its containers otherwise than the forecast"
        return
    if forecast and not planned.containers and not planned.reason:
        yield f"workload {key}: the plan leaves its forecast out without a reason"
    yield from _new_requests(key, planned, workload)
    change = Resources()
    for container in workload.containers if workload is not None else ():
        if container.name in planned.containers:
            new, old = planned.containers[container.name], container.requests
            change = change + Resources(new.cpu_millicores, new.memory_bytes)
            change = change - Resources(old.cpu_millicores, old.memory_bytes)
    if planned.requests != planned.requests_before + change:
        yield f"workload {key}: its planned requests are not its requests before with the change of its containers"


def _new_requests(key: str, planned: PlannedWorkload, workload: Workload | None) -> Iterator[str]:
    """Only CPU and memory of the template's own containers change, and what changes stays above 0."""
    present = {container.name: container.requests for container in workload.containers} if workload is not None else {}
    for name, new in planned.containers.items():
        named = f"workload {key}: the plan changes the requests of the container {name}"
        if name not in present:
            yield f"{named}, which its template does not have"
            continue
        if new != Resources(new.cpu_millicores, new.memory_bytes):
            yield f"{named} in more than CPU and memory"
        old = present[name]
        for what, after, before in (
            ("cpu_millicores", new.cpu_millicores, old.cpu_millicores),
            ("memory_bytes", new.memory_bytes, old.memory_bytes),
        ):
            if after <= 0 and after != before:
                yield f"{named}: {what} must be above 0, not {after}"


def _moves(key: str, planned: PlannedWorkload, placed: Mapping[str, int], plan: Plan, facts: Facts) -> Iterator[str]:
    """The strategy is one that the workload allows, and it pays for every pod that it recreates.

    `placed` counts by node those that the plan puts there.
    """
    pods = facts.pods[key]
    running = Counter(pod.node for pod in pods if facts.running(pod))
    movable = sum(facts.running(pod) and pod_key(pod) not in facts.assessment.pins for pod in pods)
    left_out = plan.unplaced[key].count if key in plan.unplaced else 0
    arriving = sum(max(0, count - running[name]) for name, count in placed.items())
    displaced = arriving - (len(pods) - sum(running.values()) - left_out)
    mobility = facts.assessment.mobility.get(key)
    changed = bool(planned.containers)
    named = f"workload {key} ({planned.strategy})"
    if planned.strategy in ("stay", "pinned"):
        if displaced > 0:
            yield f"{named}: the plan displaces {displaced} of its pods"
        if planned.moves != 0:
            yield f"{named}: {planned.moves} moves are none to count"
        if changed and running:
            yield f"{named}: new requests need a roll-out"
        if planned.strategy == "pinned" and movable:
            yield f"{named}: {movable} of its running pods are not pinned"
        return
    if not displaced <= planned.moves <= movable:
        yield f"{named}: {planned.moves} moves; {displaced} pods are displaced and {movable} can be moved"
    if planned.strategy == "rollout":
        if mobility is None or not mobility.rollout:
            why = mobility.reason if mobility is not None else "its controller is not known"
            yield f"{named}: it cannot be rolled out: {why or 'its own strategy or its budgets forbid it'}"
        if planned.moves != movable:
            yield f"{named}: {planned.moves} moves, but a roll-out recreates all of its {movable} running pods"
    else:
        if mobility is None or mobility.evictable < 1:
            yield f"{named}: its pods cannot be evicted"
        if changed:
            yield f"{named}: new requests need a roll-out"


def _money(plan: Plan, facts: Facts) -> Iterator[str]:
    """Costs and the terms of the objective are what nodes, moves and removals cost; standing still is no cheaper."""
    prices, wishes, objective = facts.inputs.prices, facts.inputs.preferences, plan.objective
    cost = sum(node.price_nanousd_per_hour or 0 for node in _staying(plan))
    current = sum(facts.price_nanousd_per_hour(name) for name in facts.nodes)
    moves = prices.moves_nanousd_per_hour(plan.moves)
    boots = sum(facts.exit_cost_nanousd_per_hour(node.name) for node in plan.nodes if node.state == "remove")
    for what, said, right in (
        ("the objective's name", objective.name, objective_name(facts.inputs.cap)),
        ("the cost", plan.cost_nanousd_per_hour, cost),
        ("the present cost", plan.current_cost_nanousd_per_hour, current),
        ("the objective's nodes", objective.nodes_nanousd_per_hour, cost),
        ("the objective's moves", objective.moves_nanousd_per_hour, moves),
        ("the objective's boots", objective.boots_nanousd_per_hour, boots),
        ("payback_hours", objective.payback_hours, prices.payback_hours),
        ("move_cost_nanousd", objective.move_cost_nanousd, prices.move_cost_nanousd),
        ("boot_overlap_minutes", objective.boot_overlap_minutes, prices.boot_overlap_minutes),
        ("preference_nanousd_per_hour", objective.preference_nanousd_per_hour, wishes.pod_nanousd_per_hour),
        (
            "preference_ceiling_nanousd_per_hour",
            objective.preference_ceiling_nanousd_per_hour,
            wishes.ceiling_nanousd_per_hour,
        ),
    ):
        if said != right:
            yield f"{what} is {said} in the plan, {right} recomputed"
    least, most = displeasure_range(plan, facts)
    if not least <= objective.preferences_nanousd_per_hour <= most:
        right = f"{least}" if least == most else f"{least} to {most}"
        yield f"the objective's preferences is {objective.preferences_nanousd_per_hour} in the plan, {right} recomputed"
    standing_still = current + present_displeasure(facts)
    if objective.value_nanousd_per_hour > standing_still and _may_stay(plan, facts):
        yield (
            f"the plan's value {objective.value_nanousd_per_hour} is worse than standing still, "
            f"which costs {standing_still} nanodollars per hour"
        )


def _may_stay(plan: Plan, facts: Facts) -> bool:
    """Say whether changing nothing is a plan too.

    Nothing is to be placed, no requests change, no pool is below its minimum, and no node above the cap.
    """
    placed_pending = any(
        pending > (plan.unplaced[key].count if key in plan.unplaced else 0) for key, pending in _pending(facts).items()
    )
    if placed_pending or any(workload.containers for workload in plan.workloads.values()):
        return False
    return within_cap_now(facts) and all(
        len(facts.existing(pool, zone)) >= facts.least(pool, zone) for pool, zone in facts.inputs.catalogue.limits()
    )
