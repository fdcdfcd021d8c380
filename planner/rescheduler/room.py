"""What is free on the nodes of a plan, while its pods are on their way."""

from __future__ import annotations

import copy
from collections.abc import Callable

from planner.model.cluster import Pod, Snapshot
from planner.model.plan import Plan
from planner.model.resources import Resources
from planner.rescheduler.placement import opened


class Room:
    """What is free on each node of the plan, less what is promised to pods that are on their way.

    What is `claimed` is free, and kept for a workload of an earlier stage that does not find all its room yet.
    `opened` is what each node's placement asks for by workload; a node without a placement of this iteration is not in.
    Where it does not keep claims (`keeps_claims`), what is free goes to whoever comes first.
    """

    def __init__(self, plan: Plan, snapshot: Snapshot, *, keeps_claims: bool = True) -> None:
        pods = snapshot.pods_on()
        ready = {node.name: node for node in snapshot.nodes if node.ready and not node.unschedulable}
        self.free: dict[str, Resources] = {}
        for planned in plan.nodes:
            if planned.state == "remove" or planned.frozen or planned.name not in ready:
                continue
            free = ready[planned.name].allocatable
            for pod in pods.get(planned.name, []):
                free = free - pod.requests
            self.free[planned.name] = free
        self._nodes = ready
        self._suits: dict[tuple[tuple[object, ...], str], bool] = {}
        self._labels = {node.name: node.labels for node in snapshot.nodes}
        asked = {name: opened(ready[name], plan.iteration) for name in self.free}
        self.opened = {name: targets for name, targets in asked.items() if targets is not None}
        self.claimed = {name: Resources() for name in self.free}
        self._keeps_claims = keeps_claims

    def holds(self, node: str, requests: Resources) -> bool:
        if node not in self.free:
            return False
        claimed = self.claimed[node]
        # Whoever claims any room claims it for a pod.
        return requests.fits_in(self.free[node] - claimed if claimed.pods else self.free[node])

    def place(self, pod: Pod, admits: Callable[[str], bool] | None = None, *, claimed_too: bool = False) -> str | None:
        """Return a node with room for the pod that its constraints admit, in the domains that it keeps; or None.

        `admits` says what else must hold. Room that others have claimed counts only with `claimed_too`.
        """
        holds = self.would_hold if claimed_too else self.holds
        for name in self.free:
            if not holds(name, pod.requests) or (admits is not None and not admits(name)):
                continue
            if pod.constraints.tolerate(self._nodes[name].taints) and self.suits(pod, name):
                return name
        return None

    def suits(self, pod: Pod, node: str) -> bool:
        """Say whether the pod may move to the node: its constraints select it, in the domains that the pod keeps."""
        return self.suit(self.kind_of(pod), pod, node)

    def suit(self, kind: tuple[object, ...], pod: Pod, node: str) -> bool:
        """Say whether the pods of a kind (`kind_of`), of which this is one, may move to the node."""
        if (found := self._suits.get((kind, node))) is None:
            home, labels = self._labels.get(pod.node or "", {}), self._labels.get(node, {})
            at_home = all(labels.get(key) == home.get(key) for key in pod.keeps)
            found = self._suits[kind, node] = at_home and pod.constraints.select(labels, node)
        return found

    def kind_of(self, pod: Pod) -> tuple[object, ...]:
        """Return what decides which nodes suit the pod; pods of one reading share equal constraints."""
        home = self._labels.get(pod.node or "", {})
        return (id(pod.constraints), *((key, home.get(key)) for key in pod.keeps))

    def would_hold(self, node: str, requests: Resources) -> bool:
        """Say whether the node had room if nobody before had claimed any."""
        return node in self.free and requests.fits_in(self.free[node])

    def many(self, node: str, requests: Resources, most: int) -> int:
        """Return for how many pods of these requests, at most so many, the node had room if nobody had claimed any."""
        return requests.many_in(self.free[node], most) if node in self.free else 0

    def promise(self, node: str, requests: Resources) -> None:
        if node in self.free:
            self.free[node] = self.free[node] - requests

    def claim(self, node: str, requests: Resources) -> None:
        if self._keeps_claims and node in self.claimed:
            self.claimed[node] = self.claimed[node] + requests

    def release(self, pod: Pod) -> None:
        """Give back what a pod took that has left its node."""
        if pod.node in self.free:
            self.free[pod.node] = self.free[pod.node] + pod.requests

    def copy(self, *, with_claims: bool = False) -> Room:
        """Return the same room, to be changed on its own; without claims unless it is to have them too."""
        other = copy.copy(self)
        other.free = dict(self.free)
        other.claimed = dict(self.claimed) if with_claims else dict.fromkeys(self.free, Resources())
        return other
