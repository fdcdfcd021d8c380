"""Pending pods that nothing can hold, each with the reason that a person needs."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from planner.model import resources
from planner.model.cluster import Pod, pod_key
from planner.model.inputs import offering_room
from planner.model.plan import Unplaced
from planner.optimizer.census import Census
from planner.optimizer.movement import GroupKey, Movement
from planner.optimizer.problem import Problem, build_problem
from planner.optimizer.refusals import labels_asked, not_admitted

_GIB = 1024**3


def laid_out(census: Census) -> tuple[Problem, dict[str, Unplaced], dict[GroupKey, int]]:
    """Return the problem without the pending pods that cannot be planned.

    Those are counted by workload, each with a reason, and (those that are modelled) by group.
    """
    problem = build_problem(census, {})
    named, left_out = _unplaceable(census, problem)
    return build_problem(census, left_out) if left_out else problem, named, left_out


def _unplaceable(census: Census, problem: Problem) -> tuple[dict[str, Unplaced], dict[GroupKey, int]]:
    movement = census.movement
    names = frozenset(node.name for node in movement.inputs.snapshot.nodes)
    pending = [p for p in movement.inputs.snapshot.planned if p.node not in names]
    if not pending:
        return {}, {}
    holds: list[bool] = np.asarray((problem.caps > 0).any(axis=0)).tolist()
    hopeless = {g.key for g, possible in zip(problem.groups, holds, strict=True) if not possible}
    reasons: dict[str, list[str]] = defaultdict(list)
    left_out: Counter[GroupKey] = Counter()
    for pod in pending:
        key = census.group_of(pod)
        if pod.unmodelled:
            reasons[pod.workload].append("not modelled yet: " + ", ".join(pod.unmodelled))
        elif why := movement.homes.refused.get(pod_key(pod), ""):
            reasons[pod.workload].append(f"no domain is open to it: {why}")
            left_out[key] += 1
        elif why := movement.parties.refused.get(pod_key(pod), ""):
            reasons[pod.workload].append(why)
            left_out[key] += 1
        elif key in hopeless:
            reasons[pod.workload].append(_reason(movement, pod, key))
            # A party counts as one.
            left_out[key] += movement.party(pod) in ("", pod_key(pod))
    named = {w: Unplaced(len(r), "; ".join(sorted(set(r)))) for w, r in sorted(reasons.items())}
    return named, dict(left_out)


def _reason(movement: Movement, pod: Pod, group: GroupKey) -> str:
    """Name the resource of which even the largest offering that admits the pod has too little."""
    inputs, requests = movement.inputs, group.requests
    if group.beside:
        return f"required podAffinity by host name lets it come to {group.beside} only, which has no place for it"
    if group.members:
        return "required podAffinity by host name: no node that may be had holds it beside those that it comes with"
    offers = [o for o in inputs.catalogue.offerings if pod.constraints.admit(o.labels, "", o.taints)]
    admitting = [(offering.machine_type, offering_room(inputs, offering)) for offering in offers]
    if admitting and inputs.catalogue.spot.bars(pod):
        admitting = [(o.machine_type, offering_room(inputs, o)) for o in offers if o.capacity_type != "spot"]
        if not admitting:
            return "spot.workloads bars it from spot nodes, and no other offering admits it"
    if not admitting:
        return not_admitted(inputs.catalogue.offerings, pod.constraints)
    for offering in offers:
        barred = offering.capacity_type == "spot" and inputs.catalogue.spot.bars(pod)
        if not barred and requests.fits_in(offering_room(inputs, offering)) and (why := movement.shut(offering)):
            return why
    for name, amount in requests.amounts().items():
        room, machine_type = max((room.amounts().get(name, 0), kind) for kind, room in admitting)
        if amount > room and name == resources.PREDICTED_CPU:
            return (
                f"is predicted to use {amount / 1000:g} CPU; under the cap the largest offering that admits it, "
                f"{machine_type}, has {room / 1000:g} left"
            )
        if amount > room:
            asked = f"requests {_amount(name, amount)}{labels_asked(pod.constraints)}"
            if not any(o.allocatable.amounts().get(name, 0) for o in offers):
                return f"{asked}; no offering that admits it has any of that"
            return (
                f"{asked}; the largest offering that admits it, {machine_type}, "
                f"has {_amount(name, room, unit=False)} free"
            )
    wanted = " and ".join(
        _amount(name, amount) for name, amount in requests.amounts().items() if amount and name != "pods"
    )
    wanted += labels_asked(pod.constraints)
    return f"requests {wanted}; no offering that admits it has all of that free"


def _amount(name: str, amount: int, unit: bool = True) -> str:
    match name:
        case "cpu_millicores":
            return f"{amount / 1000:g}" + (" CPU" if unit else "")
        case resources.PREDICTED_CPU:
            return f"{amount / 1000:g} CPU of predicted use" + (" under the cap" if unit else "")
        case "memory_bytes":
            return f"{amount / _GIB:.3g} GiB" + (" of memory" if unit else "")
        case "ephemeral_storage_bytes":
            return f"{amount / _GIB:.3g} GiB" + (" of ephemeral storage" if unit else "")
    return f"{amount}" + (f" {name}" if unit else "")
