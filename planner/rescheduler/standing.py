"""Leaves where they are what no order of stages can move, in the plan itself, without another solve.

Their nodes stay, and hold them. Pods that were to have that room go to other nodes of the plan, or to further new ones;
a new node for which nothing is left is not booted. Whether what comes of it is right is for the check to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from planner.model.cluster import Node, Pod
from planner.model.companions import in_company, needs_company
from planner.model.inputs import PlanningInputs
from planner.model.plan import Plan, PlannedNode, PlannedWorkload
from planner.model.resources import Resources
from planner.rescheduler.rehearsal import Ending, with_booted
from planner.rescheduler.spares import Domains, Yard, domains_kept, with_room_for, with_spare_nodes

MOST_FOLLOWERS = 50
"""Of so many more workloads at the most the moves are given up because those that stay are in their way."""


def mended(plan: Plan, inputs: PlanningInputs, ending: Ending) -> Plan | None:
    """Return the plan with further new nodes for what is stuck where its moves end: for its own pods, or for others'.

    Where pods are evicted that can move in no order, those come to new nodes, and others may find room then. A roll-out
    replaces all pods at once, and pods that need others beside them go nowhere alone. Where nothing else is stuck these
    get room on their planned nodes, and what else was to come there comes to new ones; or else they stay where they
    are, with whom they stand beside. None where there is no such plan.
    """
    standing = _with_company(ending.stuck, plan, inputs)
    if alone := [key for key in ending.stuck if key not in standing]:
        return with_spare_nodes(plan, alone, inputs, ending)
    return with_room_for(plan, inputs, ending) or left_standing(plan, standing, inputs, apart=True)


def _with_company(stuck: Mapping[str, str], plan: Plan, inputs: PlanningInputs) -> dict[str, str]:
    """Return those of the stuck workloads whose pods cannot go alone, and all that move with them, with reasons."""
    sought = inputs.sought
    bound = in_company(sought)
    found = {key: why for key, why in stuck.items() if plan.workloads[key].strategy == "rollout" or key in bound}
    while True:
        beside = {other for key, others in sought.items() for other in (key, *others) if {key, *others} & found.keys()}
        more = {key for key in beside - found.keys() if key in plan.workloads and plan.workloads[key].moves}
        if not more:
            return found
        found |= dict.fromkeys(sorted(more), "others that stay stand beside it")


def left_standing(plan: Plan, stuck: Mapping[str, str], inputs: PlanningInputs, *, apart: bool = False) -> Plan | None:
    """Return the plan with these workloads where they are; each comes with the reason why it cannot move.

    Waiting pods that lose their places by that, and have room on no other node of the plan, come to further new nodes.
    So do moving ones where they are to come `apart`; otherwise their workloads stay as well. None where it cannot be
    done: their requests change, the objective caps what nodes use, or some pod would have no place.
    """
    if inputs.cap is not None or any(plan.workloads[key].containers or key in plan.unplaced for key in stuck):
        return None
    standing = dict(stuck)
    while True:
        layout = _Layout(plan, inputs)
        for key in standing:
            layout.put_back(key)
        followers = layout.make_room(apart=apart)
        if not followers:
            break
        standing |= dict.fromkeys(followers, "others that stay stand in its way")
        if len(standing) > len(stuck) + MOST_FOLLOWERS or any(plan.workloads[k].containers for k in followers):
            return None
    homeless = layout.place_homeless()
    if not homeless:
        return layout.plan(standing)
    return _with_nodes_for(homeless, layout.plan(standing), inputs)


def _with_nodes_for(homeless: Sequence[tuple[Pod, Domains]], plan: Plan, inputs: PlanningInputs) -> Plan | None:
    """Return the plan with new nodes for these pods; None where nothing is on offer that holds one of them."""
    if any(needs_company(pod.rules) for pod, _ in homeless):
        return None
    yard = Yard(plan, inputs)
    for pod, domains in homeless:
        if not yard.seat(pod.workload, pod, domains, 1):
            return None
    return yard.plan()


@dataclass(frozen=True, slots=True)
class _Homeless:
    """A pod that lost the place to which it was to come, and the node where that was, whose domains it keeps."""

    pod: Pod
    origin: str


class _Layout:
    """What each node of a plan holds, and what is free there: in the end, and before anything has left."""

    def __init__(self, plan: Plan, inputs: PlanningInputs) -> None:
        self._plan, self._inputs = plan, inputs
        ready = with_booted(plan, inputs.snapshot, inputs.catalogue)
        self._nodes: dict[str, Node] = {node.name: node for node in ready.nodes}
        self._planned = {node.name: node for node in plan.nodes if not node.frozen and node.name in self._nodes}
        self._contents = {name: Counter(node.pods) for name, node in self._planned.items()}
        self._here: dict[str, Counter[str]] = {}
        self._waiting: dict[str, list[Pod]] = {}
        self._samples: dict[str, Pod] = {}
        existing = {node.name for node in inputs.snapshot.nodes}
        for pod in inputs.snapshot.planned:
            if pod.node in existing:
                self._here.setdefault(pod.workload, Counter())[pod.node] += 1
            else:
                self._waiting.setdefault(pod.workload, []).append(pod)
            self._samples.setdefault(pod.workload, pod)
        self._free: dict[str, Resources] = {}
        self._now: dict[str, Resources] = {}
        pods_on = ready.pods_on()
        for name in self._planned:
            bound, others = Resources(), Resources()
            for pod in pods_on[name]:
                if pod.stays_with_node:
                    bound = bound + pod.requests
                else:
                    others = others + pod.requests
            room = self._nodes[name].allocatable - bound
            self._free[name], self._now[name] = room, room - others
            for key, count in self._contents[name].items():
                self._free[name] = self._free[name] - self._each(key) * count
        self._homeless: list[_Homeless] = []
        self._displaced: set[int] = set()

    def _each(self, key: str) -> Resources:
        planned, sample = self._plan.workloads[key], self._samples[key]
        return planned.requests.with_shares(sample.requests.shares) if planned.containers else sample.requests

    def _shift(self, node: str, key: str, count: int) -> None:
        self._contents[node][key] += count
        self._free[node] = self._free[node] - self._each(key) * count

    def put_back(self, key: str) -> None:
        """Let the workload's running pods be where they are; its waiting ones lose their places."""
        here = self._here.get(key, Counter())
        for name in self._planned:
            more = self._contents[name][key] - here[name]
            if more:
                self._shift(name, key, -more)
            for pod in self._settled(key)[: max(0, more)]:
                self._displace(pod, name)

    def _settled(self, key: str) -> list[Pod]:
        """Return the workload's waiting pods that have not lost their places."""
        return [pod for pod in self._waiting.get(key, ()) if id(pod) not in self._displaced]

    def _displace(self, pod: Pod, origin: str) -> None:
        self._homeless.append(_Homeless(pod, origin))
        self._displaced.add(id(pod))

    def make_room(self, *, apart: bool) -> set[str]:
        """Take pods that were to come from nodes that hold too much; return the workloads that cannot come there.

        Pods that wait go first, and those that move only where they come `apart` from what they were to stand beside.
        """
        followers: set[str] = set()
        for name in self._planned:
            if self._holds(name):
                continue
            arriving = [
                (key, count - self._here.get(key, Counter())[name])
                for key, count in sorted(self._contents[name].items())
                if count > self._here.get(key, Counter())[name]
            ]
            for key, count in arriving:
                if self._plan.workloads[key].moves:
                    continue
                for pod in self._settled(key)[:count]:
                    if self._holds(name):
                        break
                    self._shift(name, key, -1)
                    self._displace(pod, name)
            for key, count in arriving if apart else ():
                if self._plan.workloads[key].moves and not needs_company(self._samples[key].rules):
                    for _ in range(count):
                        if self._holds(name):
                            break
                        self._shift(name, key, -1)
                        self._homeless.append(_Homeless(self._samples[key], name))
            if not self._holds(name):
                followers |= {key for key, _ in arriving if self._plan.workloads[key].moves}
        return followers

    def _holds(self, name: str) -> bool:
        """Say whether what the node is to hold fits: nothing is overdrawn, shares of the node included."""
        free = self._free[name]
        return all(left >= 0 for left in free.left((*free.amounts(), *(share for share, _ in free.shares))))

    def place_homeless(self) -> list[tuple[Pod, Domains]]:
        """Find a node for every pod that lost its place, with room for it from the start.

        Returns those without one, and the domains that they keep.
        """
        without: list[tuple[Pod, Domains]] = []
        for homeless in self._homeless:
            target = next(self._open(homeless), None)
            if target is None:
                without.append((homeless.pod, domains_kept(homeless.pod, self._nodes[homeless.origin])))
                continue
            self._shift(target, homeless.pod.workload, 1)
            self._now[target] = self._now[target] - homeless.pod.requests
        return without

    def _open(self, homeless: _Homeless) -> Iterator[str]:
        pod, home = homeless.pod, self._nodes[homeless.origin].labels
        each = self._each(pod.workload)
        barred = self._inputs.catalogue.spot.bars(pod)
        for name, planned in self._planned.items():
            node = self._nodes[name]
            if planned.state == "remove" or (barred and planned.capacity_type == "spot"):
                continue
            if not (each.fits_in(self._free[name]) and pod.requests.fits_in(self._now[name])):
                continue
            keeps = all(node.labels.get(key) == home.get(key) for key in pod.keeps)
            if keeps and pod.constraints.admit(node.labels, name, node.taints):
                yield name

    def _wanted(self, key: str, name: str) -> int:
        return self._contents[name][key] if name in self._contents else 0

    def plan(self, standing: Mapping[str, str]) -> Plan:
        """Return the plan that this is."""
        nodes: list[PlannedNode] = []
        overlap = self._plan.objective.boots_nanousd_per_hour
        for node in self._plan.nodes:
            if node.name not in self._planned:
                nodes.append(node)
                continue
            pods = dict(sorted((+self._contents[node.name]).items()))
            if node.state == "boot" and node.pods and not pods:
                continue
            state = node.state
            if state == "remove" and pods:
                state = "keep"
                overlap -= self._inputs.prices.overlap_nanousd_per_hour(node.price_nanousd_per_hour or 0)
            nodes.append(replace(node, state=state, pods=pods))
        workloads: dict[str, PlannedWorkload] = dict(self._plan.workloads)
        for key, why in standing.items():
            reason = f"no order of stages could move it: {why}"
            workloads[key] = replace(workloads[key], strategy="stay", moves=0, reason=reason)
        for key in {homeless.pod.workload for homeless in self._homeless}:
            # Who goes elsewhere may find room where another of its pods was to leave.
            if workloads[key].strategy == "evict":
                moves = sum(max(0, n - self._wanted(key, name)) for name, n in self._here[key].items())
                workloads[key] = replace(workloads[key], moves=moves, strategy="evict" if moves else "stay")
        cost = sum(node.price_nanousd_per_hour or 0 for node in nodes if node.state != "remove")
        moves = self._inputs.prices.moves_nanousd_per_hour(sum(workload.moves for workload in workloads.values()))
        objective = replace(
            self._plan.objective,
            nodes_nanousd_per_hour=cost,
            moves_nanousd_per_hour=moves,
            boots_nanousd_per_hour=overlap,
            status="feasible",
        )
        return replace(
            self._plan,
            nodes=tuple(nodes),
            workloads=workloads,
            objective=objective,
            cost_nanousd_per_hour=cost,
        )
