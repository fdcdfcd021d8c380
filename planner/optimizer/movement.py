"""Who may move how: the rules of disruption, and what follows from them for whole workloads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from planner.model.cluster import Pod, Workload
from planner.model.disruption import Assessment, planned_pods, pod_key, with_held
from planner.model.inputs import PlanningInputs
from planner.model.resources import Resources

_ONLY_EVICTION = "some of its pods are pinned, so it cannot be rolled out, and none of the others may be evicted"


@dataclass(frozen=True, slots=True)
class Movement:
    """The rules as the plan keeps them, and as the bound may use them.

    `assessment` holds every pin of the plan: those of the rules, of `held` (together `ruled`), and the pods that have
    no way to move. The bound uses only what the rules themselves say (`provable`), which anyone can recount.
    `rollable` names the workloads that a roll-out may replace as a whole; only their requests change.
    """

    inputs: PlanningInputs
    assessment: Assessment
    ruled: Assessment
    provable: Assessment
    rollable: frozenset[str]
    workloads: Mapping[str, Workload]

    def requests(self, pod: Pod) -> Resources:
        """Return what the pod will request under the plan: the forecast's change needs a roll-out."""
        if pod.workload not in self.rollable:
            return pod.requests
        return self.inputs.planned_requests(pod, self.workloads.get(pod.workload))


def movement_of(inputs: PlanningInputs) -> Movement:
    """Apply the rules, `held`, and the consequence that a roll-out would replace pinned pods too.

    A workload with pinned and other pods is evicted from where that is allowed; else all its pods are pinned.
    """
    plain = PlanningInputs(inputs.snapshot, inputs.catalogue, inputs.iteration, rules=inputs.rules).assessment()
    held = with_held(plain, inputs.snapshot, inputs.held) if inputs.held else plain
    names = {node.name for node in inputs.snapshot.nodes}
    running = Counter(p.workload for p in planned_pods(inputs.snapshot) if p.node in names)
    pinned = Counter(p.workload for p in planned_pods(inputs.snapshot) if pod_key(p) in held.pins)
    stuck = {
        key: _ONLY_EVICTION
        for key, count in sorted(pinned.items())
        if count < running[key] and key in held.mobility and not held.mobility[key].evictable
    }
    rollable = frozenset(key for key, m in held.mobility.items() if m.rollout and running[key] and not pinned[key])
    return Movement(
        inputs=inputs,
        assessment=with_held(held, inputs.snapshot, stuck) if stuck else held,
        ruled=held,
        provable=plain,
        rollable=rollable,
        workloads={w.key: w for w in inputs.snapshot.workloads},
    )
