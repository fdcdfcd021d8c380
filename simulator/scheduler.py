"""A scheduler: filters, then its extender as kube-scheduler asks it, then least allocated with fixed tie-breaking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from planner.model.resources import Resources
from planner.model.scheduling import Taint
from planner.ports import CLAIMS, NODES, PODS, VOLUMES
from simulator.api import ApiServer
from simulator.constraints import allocatable_of, constraints_of, preferences_of, requests_of, taints_of
from simulator.extenders import Extender, ExtenderFault
from simulator.neighbours import Neighbours
from simulator.status import condition, is_active, is_deleting, set_condition
from simulator.store import Change, Json, Key, controller_of

CYCLE_SECONDS: Final = 0.005
"""Time of one scheduling cycle; the real scheduler binds about 200 pods a second."""

FIRST_BACKOFF_SECONDS: Final = 1.0
LAST_BACKOFF_SECONDS: Final = 10.0
FLUSH_SECONDS: Final = 300.0
"""When a pod that waits is tried again without any event. Source: scheduling_queue.go."""


@dataclass(slots=True)
class _Waiting:
    """A pod without a node: how often it was tried, and from when on it may be tried again."""

    attempts: int = 0
    not_before: float = 0.0
    parked: bool = False


@dataclass(frozen=True, slots=True)
class _Considered:
    """A node with its free room, and why the pod in question may not be put there; "" if it may."""

    node: Json
    room: Resources
    refusal: str


class Scheduler:
    """Puts the pods that name it on nodes, one after the other in the order of their arrival.

    Not modelled: preemption, and what pods only prefer of other pods (soft spreading and affinity).
    """

    def __init__(self, server: ApiServer, name: str = "default-scheduler", extender: Extender | None = None) -> None:
        """Schedule the pods of this scheduler name."""
        self._server = server
        self._store = server.store
        self._clock = server.clock
        self._name = name
        self._waiting: dict[Key, _Waiting] = {}
        self._awake = False
        self._seats: dict[str, list[str]] = {}
        self._requests: dict[str, Resources] = {}
        self.extender: Final = extender
        server.store.subscribe(self.observe)

    def seat(self, workload: str, nodes: Sequence[str]) -> None:
        """Put the next pods of a workload ("namespace/name" of its controller) on these nodes, whatever fits better.

        So a test or a scenario says where pods stand at its start.
        """
        self._seats.setdefault(workload, []).extend(nodes)

    def observe(self, change: Change) -> None:
        """Queue new pods, and wake waiting ones when something happened that may help them."""
        if change.resource == PODS:
            pod, key = change.body, change.key
            mine = pod["spec"].get("schedulerName") == self._name
            if change.type == "DELETED":
                self._requests.pop(pod["metadata"]["uid"], None)
            if change.type == "DELETED" or pod["spec"].get("nodeName") or not is_active(pod):
                if self._waiting.pop(key, None) is None or change.type != "DELETED":
                    self._wake_parked()
            elif mine and key not in self._waiting:
                self._waiting[key] = _Waiting()
                self._wake(CYCLE_SECONDS)
        elif change.resource in (NODES, CLAIMS, VOLUMES) and change.type != "DELETED" and _relevant(change):
            self._wake_parked()

    def _wake_parked(self) -> None:
        now = self._clock.now()
        soonest = None
        for waiting in self._waiting.values():
            if waiting.parked:
                waiting.parked = False
                delay = max(CYCLE_SECONDS, waiting.not_before - now)
                soonest = delay if soonest is None else min(soonest, delay)
        if soonest is not None:
            self._wake(soonest)

    def _wake(self, seconds: float) -> None:
        if not self._awake:
            self._awake = True
            self._clock.call_after(seconds, self._cycle)

    def _cycle(self) -> None:
        """Try one pod, then sleep until the next one's turn."""
        self._awake = False
        now = self._clock.now()
        due = [key for key, w in self._waiting.items() if not w.parked and w.not_before <= now]
        if due:
            key = min(due, key=self._order)
            self._try(key)
        starts = [w.not_before for w in self._waiting.values() if not w.parked]
        if starts:
            self._wake(max(CYCLE_SECONDS, min(starts) - now))

    def _order(self, key: Key) -> tuple[int, int]:
        pod = self._server.find(PODS, key)
        priority = 0 if pod is None else int(pod["spec"].get("priority") or 0)
        return -priority, list(self._waiting).index(key)

    def _try(self, key: Key) -> None:
        pod = self._server.find(PODS, key)
        if pod is None or pod["spec"].get("nodeName"):
            self._waiting.pop(key, None)
            return
        node, message = self._choose(pod)
        if node is not None:
            self._waiting.pop(key)
            self._server.bind(key, node)
            return
        waiting = self._waiting[key]
        waiting.attempts += 1
        backoff = min(LAST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (waiting.attempts - 1))
        waiting.not_before = self._clock.now() + backoff
        waiting.parked = True
        self._clock.call_after(FLUSH_SECONDS, self._wake_parked)
        found = condition(pod, "PodScheduled")
        if found is None or found.get("message") != message:
            now = self._clock.now()
            self._server.write(
                PODS,
                key,
                lambda body: set_condition(body, "PodScheduled", "False", now, reason="Unschedulable", message=message),
            )

    def _choose(self, pod: Json) -> tuple[str | None, str]:
        """Return the best node, or None and why there is none."""
        if (seat := self._take_seat(pod)) is not None:
            return seat, ""
        considered = self._consider(pod)
        reasons = Counter(each.refusal for each in considered.values() if each.refusal)
        names = [name for name, each in considered.items() if not each.refusal]
        if names and self.extender is not None:
            try:
                filtered = self.extender.filter(pod, names)
                names = [name for name in names if name in filtered.names]
                reasons.update(filtered.failed.values())
            except ExtenderFault:
                pass  # ignorable: true, as in Kinema's configuration of the scheduler
        if not names:
            detail = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
            return None, f"0/{len(considered)} nodes are available: {detail}."
        if len(names) == 1:
            return names[0], ""
        scores = {name: _score(pod, considered[name].node, considered[name].room) for name in names}
        _normalize_preferences(pod, {name: considered[name].node for name in names}, scores)
        if self.extender is not None:
            try:
                for name, score in self.extender.prioritize(pod, names).items():
                    scores[name] += score
            except ExtenderFault:
                pass  # as above
        return min(names, key=lambda name: (-scores[name], name)), ""

    def refusals(self, pod: Json) -> dict[str, str]:
        """Return for each node why the filters keep the pod off it, in the scheduler's words; "" where they do not."""
        return {name: each.refusal for name, each in self._consider(pod).items()}

    def _consider(self, pod: Json) -> dict[str, _Considered]:
        neighbours = Neighbours(self._store, pod)
        found = {}
        for node in self._store.bodies(NODES):
            room = self._room(node)
            refusal = self._refusal(pod, node, room) or neighbours.refusal(node)
            found[node["metadata"]["name"]] = _Considered(node, room, refusal)
        return found

    def _take_seat(self, pod: Json) -> str | None:
        owner = controller_of(pod)
        if owner is None or not self._seats:
            return None
        name = owner["name"]
        template = pod["metadata"].get("labels", {}).get("pod-template-hash")
        if owner["kind"] == "ReplicaSet" and template:
            name = name.removesuffix(f"-{template}")
        seats = self._seats.get(f"{pod['metadata']['namespace']}/{name}")
        return seats.pop(0) if seats else None

    def _room(self, node: Json) -> Resources:
        room = allocatable_of(node)
        for pod in self._store.pods_on(node["metadata"]["name"]):
            if pod["status"].get("phase") not in ("Succeeded", "Failed"):
                room = room - self._requested(pod)
        return room

    def _requested(self, pod: Json) -> Resources:
        """Return a pod's requests, which nobody changes in its life."""
        uid = pod["metadata"]["uid"]
        found = self._requests.get(uid)
        if found is None:
            found = self._requests[uid] = requests_of(pod["spec"])
        return found

    def _refusal(self, pod: Json, node: Json, room: Resources) -> str:
        """Return why the pod may not run on the node, in the scheduler's words; "" if it may."""
        spec, name = pod["spec"], node["metadata"]["name"]
        constraints, taints = constraints_of(spec), taints_of(node)
        if is_deleting(node):
            return "node(s) were being deleted"
        if not constraints.tolerate(taints):
            return "node(s) had untolerated taint(s)"
        if not constraints.select(node["metadata"].get("labels") or {}, name):
            return "node(s) didn't match Pod's node affinity/selector"
        if not self._requested(pod).fits_in(room):
            return _shortage(self._requested(pod), room)
        return ""


def _relevant(change: Change) -> bool:
    """Tell whether a change may help a waiting pod; a new status condition of a node alone may not."""
    if change.before is None or change.resource != NODES:
        return True
    old, new = change.before, change.body
    return any(old["metadata"].get(f) != new["metadata"].get(f) for f in ("labels", "annotations")) or any(
        (old[part].get(field) != new[part].get(field))
        for part, field in (("spec", "taints"), ("spec", "unschedulable"), ("status", "allocatable"))
    )


def _shortage(requests: Resources, room: Resources) -> str:
    has = room.amounts()
    short = sorted(name for name, amount in requests.amounts().items() if amount > has.get(name, 0))
    words = {"cpu_millicores": "cpu", "memory_bytes": "memory", "ephemeral_storage_bytes": "ephemeral-storage"}
    if short == ["pods"]:
        return "Too many pods"
    return "Insufficient " + ", ".join(words.get(name, name) for name in short)


def _score(pod: Json, node: Json, room: Resources) -> float:
    """Return NodeResourcesFit's least-allocated score, 0 to 100: the mean free share after the pod."""
    allocatable, left = allocatable_of(node), room - requests_of(pod["spec"])
    shares = [
        max(0, free) / total
        for free, total in (
            (left.cpu_millicores, allocatable.cpu_millicores),
            (left.memory_bytes, allocatable.memory_bytes),
        )
        if total
    ]
    return 100 * sum(shares) / len(shares) if shares else 0.0


def _normalize_preferences(pod: Json, nodes: dict[str, Json], scores: dict[str, float]) -> None:
    """Add NodeAffinity (weight 2) and TaintToleration (weight 3), each 0 to 100 over the nodes that are left."""
    terms = preferences_of(pod["spec"])
    if terms:
        sums = {
            name: sum(w for w, term in terms if term.matches(node["metadata"].get("labels") or {}, name))
            for name, node in nodes.items()
        }
        most = max(sums.values())
        for name, total in sums.items():
            scores[name] += 2 * 100 * total / most if most else 0.0
    tolerations = constraints_of(pod["spec"]).tolerations

    def soft(taint: Taint) -> bool:
        return taint.effect == "PreferNoSchedule" and not any(t.tolerates(taint) for t in tolerations)

    bad = {name: sum(soft(taint) for taint in taints_of(node)) for name, node in nodes.items()}
    worst = max(bad.values())
    for name, count in bad.items():
        scores[name] += 3 * (100 - 100 * count / worst if worst else 100.0)
