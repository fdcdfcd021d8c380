"""What the extender knows: nodes, pods and owners from the watches, reservations from its own answers.

Every question of steering is answered from an index. A change marks its node; marked nodes are recounted
before the next answer, so a request costs what changed since the last one, not the size of the cluster.
Nothing here waits, reads or writes: the lock is held for microseconds.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from extender.objects import (
    Node,
    Owner,
    PodObject,
    ReplicaSet,
    belongs_to_node,
    controller,
    is_live,
    requests_of,
)
from extender.ranking import Ranking
from extender.steering import Candidates, Knowledge, Pod, Verdict, allow, matches, score
from planner.labels import Placement, Target, decode_placement

_SHAPES_KEPT: Final = 32
"""Shapes of pods whose holding nodes are kept; a change of a node is checked against each of them."""

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Clock:
    """The two clocks: wall time for the expiry of plans, monotonic time for ages; both in seconds."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Workload:
    """An owner of pods: "namespace/Kind/name" and its uid, empty where it is not known."""

    name: str
    uid: str


class _Known(msgspec.Struct, frozen=True, gc=False):
    """A live pod that the watch has shown; `node` is empty while it is unbound.

    `replicaset` is the uid of the ReplicaSet that controls it, None where something else does.
    """

    pod: Pod
    node: str
    is_overhead: bool
    replicaset: str | None


@dataclass(frozen=True, slots=True)
class _Reservation:
    """A place that an answer gave away and that the watch has not confirmed yet."""

    pod: Pod
    node: str
    made_at: float


@dataclass(slots=True)
class _Node:
    """A node, the pods on it, and what they leave of its placement.

    `settled` are the pods that were there when the iteration's placement was first seen: the plan knew
    them, so they take nothing from its headroom. None until that moment.
    """

    text: str = ""
    placement: Placement | None = None
    settled: Set[str] | None = None
    pods: dict[str, _Known] = field(default_factory=dict)
    reserved: dict[str, Pod] = field(default_factory=dict)
    open: tuple[tuple[Target, int], ...] = ()
    taken: Counter[str] = field(default_factory=Counter)


class _Kind(NamedTuple):
    """What besides the workload makes two targets admit the same pods: `mark` is None where every pod counts."""

    uid: str
    mark: str | None

    @classmethod
    def of(cls, target: Target, placement: Placement) -> _Kind:
        """Return the kind of a target of the placement."""
        return cls(target.uid, None if target.count == "all" else placement.iteration)

    def admits(self, pod: Pod) -> bool:
        """Tell whether such a target admits the pod, as `steering.matches` does."""
        return _same_uid(self.uid, pod.workload_uid) and (self.mark is None or self.mark == pod.iteration)


class State(Knowledge):
    """Indexes over the cluster, safe to use from the watches' threads and the requests' threads."""

    def __init__(self, clock: Clock, reservation_seconds: float) -> None:
        self._clock = clock
        self._reservation_seconds = reservation_seconds
        self._lock = threading.RLock()
        self._whole = False
        self._nodes: dict[str, _Node] = {}
        self._known: dict[str, _Known] = {}
        self._replicasets: dict[str, _Workload] = {}
        self._pods_of_replicaset: dict[str, set[str]] = {}
        self._reservations: dict[str, _Reservation] = {}
        self._optimal: set[str] = set()
        self._expiring: set[str] = set()
        self._published: set[str] = set()
        self._unfilled: set[str] = set()
        self._targeted: dict[str, Counter[str]] = {}
        self._open: dict[str, dict[_Kind, Ranking]] = {}
        self._marked: set[str] = set()
        self._next_expiry = float("inf")
        self._open_targets = 0
        self._holding: dict[tuple[tuple[str, int], ...], set[str]] = {}

    # Changes, from the watches.

    def put_node(self, seen: Node) -> str | None:
        """Take in a node; returns why its placement cannot be read, if so."""
        name, labels, annotations = seen.metadata.name, seen.metadata.labels, seen.metadata.annotations
        text = (annotations.placement if annotations else None) or ""
        with self._lock:
            self._mark_member(self._optimal, name, labels is not None and labels.optimal is not None)
            self._mark_member(self._expiring, name, labels is not None and labels.expiring is not None)
            node = self._node(name)
            if text == node.text:
                return None
            complaint = None
            try:
                placement = decode_placement(text) if text else None
            except ValueError as error:
                placement, complaint = None, f"node {name}: {error}"
            self._place(name, node, placement)
            node.text = text
            return complaint

    def drop_node(self, name: str) -> None:
        """Forget a node that is gone; its pods follow by their own events."""
        with self._lock:
            self._mark_member(self._optimal, name, False)
            self._mark_member(self._expiring, name, False)
            node = self._nodes.get(name)
            if node is not None:
                self._place(name, node, None)
                node.text = ""
                self._tidy(name)

    def retain_nodes(self, names: Set[str]) -> None:
        """Forget every node that a whole list did not show."""
        with self._lock:
            for name in set(self._nodes) - names:
                self.drop_node(name)

    def put_pod(self, seen: PodObject) -> None:
        """Take in a pod; one that is being deleted or has finished counts as gone."""
        uid = seen.metadata.uid
        with self._lock:
            if not is_live(seen):
                self.drop_pod(uid)
                return
            before = self._known.get(uid)
            pod = self._identify(seen)
            if pod is None:
                # Until its ReplicaSet is seen it is nobody's: it takes room, and counts for no target.
                pod = _pod(seen, _Workload("", ""))
            owner = controller(seen.metadata.owner_references)
            key = owner.uid if owner is not None and owner.kind == "ReplicaSet" else None
            now = _Known(pod, sys.intern(seen.spec.node_name or ""), belongs_to_node(seen.metadata), key)
            if now == before:
                return
            if before is not None:
                self._unlink(before)
            self._link(now)
            if now.node:
                self._release(uid)

    def drop_pod(self, uid: str) -> None:
        """Forget a pod that is gone, and the place reserved for it."""
        with self._lock:
            self._release(uid)
            known = self._known.pop(uid, None)
            if known is not None:
                self._unlink(known)

    def retain_pods(self, uids: Set[str]) -> None:
        """Forget every pod that a whole list did not show.

        A reservation for a pod that was never seen stays: the pod may be younger than the list.
        """
        with self._lock:
            for uid in set(self._known) - uids:
                self.drop_pod(uid)

    def put_replicaset(self, seen: ReplicaSet) -> None:
        """Take in a ReplicaSet's owner, and give it to the pods that came before it."""
        metadata = seen.metadata
        owner = controller(metadata.owner_references)
        if owner is None:
            owner = Owner("ReplicaSet", metadata.name, metadata.uid)
        workload = _Workload(f"{metadata.namespace}/{owner.kind}/{owner.name}", owner.uid)
        with self._lock:
            if self._replicasets.get(metadata.uid) == workload:
                return
            self._replicasets[metadata.uid] = workload
            for uid in tuple(self._pods_of_replicaset.get(metadata.uid, ())):
                known = self._known[uid]
                pod = replace(known.pod, workload=workload.name, workload_uid=workload.uid)
                self._unlink(known)
                self._link(replace(known, pod=pod))

    def drop_replicaset(self, uid: str) -> None:
        """Forget a ReplicaSet; pods that still stand keep the workload that was found through it."""
        with self._lock:
            self._replicasets.pop(uid, None)

    def retain_replicasets(self, uids: Set[str]) -> None:
        """Forget every ReplicaSet that a whole list did not show."""
        with self._lock:
            for uid in self._replicasets.keys() - uids:
                del self._replicasets[uid]

    def settle(self) -> None:
        """Note that every list has been read whole: the pods that stand now are those that the plan knew."""
        with self._lock:
            if self._whole:
                return
            self._whole = True
            for name, node in self._nodes.items():
                if node.placement is not None:
                    node.settled = frozenset(node.pods)
                    self._marked.add(name)
            self._recount()

    # Answers, for the requests.

    def filter(self, seen: PodObject, candidates: Candidates) -> Verdict | None:
        """Answer a filter request and reserve the place when the answer is one node.

        None: the pod's owner is not known yet. Raises what `candidates` raises; nothing is reserved then.
        """
        with self._lock:
            pod = self._identify(seen)
            if pod is None:
                return None
            earlier = self._release(pod.uid)
            self._recount()
            verdict = allow(pod, candidates, self, earlier)
            if verdict.allowed is not None and len(verdict.allowed) == 1:
                self._reserve(pod, verdict.allowed[0])
            return verdict

    def prioritize(self, seen: PodObject, candidates: Candidates) -> list[int] | int | None:
        """Answer a prioritize request as `steering.score` does; None where the pod's owner is not known yet."""
        with self._lock:
            pod = self._identify(seen)
            if pod is None:
                return None
            self._recount()
            return score(pod, candidates, self)

    def reservations(self) -> int:
        """Return how many places are reserved."""
        with self._lock:
            self._recount()
            return len(self._reservations)

    def open_targets(self) -> int:
        """Return how many pods the plans still wait for, over all nodes."""
        with self._lock:
            self._recount()
            return self._open_targets

    # Knowledge for steering; asked while the lock is held.

    @property
    def optimal(self) -> Set[str]:
        """Nodes that carry the label of a plan."""
        return self._optimal

    @property
    def expiring(self) -> Set[str]:
        """Nodes that will be removed."""
        return self._expiring

    @property
    def published(self) -> Set[str]:
        """Nodes whose placement counts."""
        return self._published

    @property
    def unfilled(self) -> Set[str]:
        """Nodes with open targets."""
        return self._unfilled

    def in_plan(self, pod: Pod) -> bool:
        """Tell whether any placement names the pod's workload."""
        return any(_same_uid(uid, pod.workload_uid) for uid in self._targeted.get(pod.workload, ()))

    def open_places(self, pod: Pod) -> Ranking:
        """Return the nodes with open places for the pod, the most first, equals by name."""
        found = [ranking for kind, ranking in self._open.get(pod.workload, {}).items() if kind.admits(pod)]
        return found[0] if len(found) == 1 else Ranking.sum_of(found)

    def holding(self, pod: Pod) -> Set[str]:
        """Return the nodes whose headroom holds the pod.

        The answer is kept for the last few shapes of pods, and kept true node by node.
        """
        requests = pod.requests
        names = self._holding.pop(requests, None)
        if names is None:
            if len(self._holding) >= _SHAPES_KEPT:
                del self._holding[next(iter(self._holding))]
            names = {name for name in self._published if _holds(self._nodes[name], requests)}
        self._holding[requests] = names
        return names

    # Bookkeeping; the lock is held.

    def _identify(self, seen: PodObject) -> Pod | None:
        """Tell whose pod it is: its own, its owner's, or its ReplicaSet's owner's; None where nobody can tell."""
        metadata = seen.metadata
        owner = controller(metadata.owner_references)
        if owner is None:
            return _pod(seen, _Workload(f"{metadata.namespace}/Pod/{metadata.name}", metadata.uid))
        if owner.kind != "ReplicaSet":
            return _pod(seen, _Workload(f"{metadata.namespace}/{owner.kind}/{owner.name}", owner.uid))
        if (workload := self._replicasets.get(owner.uid)) is not None:
            return _pod(seen, workload)
        # Its ReplicaSet may be gone before it: what was known of the pod still holds.
        before = self._known.get(metadata.uid)
        if before is not None and before.pod.workload_uid:
            return _pod(seen, _Workload(before.pod.workload, before.pod.workload_uid))
        # A new ReplicaSet's first pods can be faster than its own watch event. The Deployment controller
        # names it "<deployment>-<pod-template-hash>", so the Deployment's name needs no waiting.
        template_hash = metadata.labels.template_hash if metadata.labels else None
        if template_hash and owner.name.endswith(f"-{template_hash}"):
            deployment = owner.name.removesuffix(f"-{template_hash}")
            return _pod(seen, _Workload(f"{metadata.namespace}/Deployment/{deployment}", ""))
        return None

    def _node(self, name: str) -> _Node:
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = _Node()
        return node

    def _place(self, name: str, node: _Node, placement: Placement | None) -> None:
        """Give a node another placement."""
        for target in node.placement.targets if node.placement is not None else ():
            uids = self._targeted[target.workload]
            uids[target.uid] -= 1
            if not uids[target.uid]:
                del uids[target.uid]
            if not uids:
                del self._targeted[target.workload]
        for target in placement.targets if placement is not None else ():
            self._targeted.setdefault(target.workload, Counter())[target.uid] += 1
        before = node.placement.iteration if node.placement is not None else None
        if placement is None:
            node.settled = None
        elif placement.iteration != before and self._whole:
            node.settled = frozenset(node.pods)
        # Targets that were open go with the old placement, before it is forgotten.
        self._close(name, node)
        node.placement = placement
        self._marked.add(name)

    def _mark_member(self, members: set[str], name: str, is_member: bool) -> None:
        if (name in members) == is_member:
            return
        (members.add if is_member else members.discard)(name)
        self._marked.add(name)

    def _link(self, known: _Known) -> None:
        self._known[known.pod.uid] = known
        if known.replicaset is not None:
            self._pods_of_replicaset.setdefault(known.replicaset, set()).add(known.pod.uid)
        if known.node:
            self._node(known.node).pods[known.pod.uid] = known
            self._marked.add(known.node)

    def _unlink(self, known: _Known) -> None:
        if known.replicaset is not None:
            _discard(self._pods_of_replicaset, known.replicaset, known.pod.uid)
        if known.node:
            self._nodes[known.node].pods.pop(known.pod.uid, None)
            self._marked.add(known.node)
            self._tidy(known.node)

    def _reserve(self, pod: Pod, name: str) -> None:
        known = self._known.get(pod.uid)
        if known is not None and known.node:
            return
        self._reservations[pod.uid] = _Reservation(pod, name, self._clock.monotonic())
        self._node(name).reserved[pod.uid] = pod
        self._marked.add(name)

    def _release(self, uid: str) -> str | None:
        """End a reservation; returns the node that it was for."""
        reservation = self._reservations.pop(uid, None)
        if reservation is None:
            return None
        self._nodes[reservation.node].reserved.pop(uid, None)
        self._marked.add(reservation.node)
        self._tidy(reservation.node)
        return reservation.node

    def _tidy(self, name: str) -> None:
        """Drop a node that nothing is known of any more."""
        node = self._nodes[name]
        if name in self._optimal or name in self._expiring or node.text or node.pods or node.reserved:
            return
        self._recount_node(name, node)
        self._marked.discard(name)
        del self._nodes[name]

    def _recount(self) -> None:
        """Bring every marked node up to date, after old reservations and expired placements were let go."""
        oldest = self._clock.monotonic() - self._reservation_seconds
        # Reservations stand in the order of their making.
        while self._reservations:
            uid, reservation = next(iter(self._reservations.items()))
            if reservation.made_at > oldest:
                break
            self._release(uid)
        if self._clock.wall() > self._next_expiry:
            self._next_expiry = float("inf")
            self._marked.update(name for name, node in self._nodes.items() if node.placement is not None)
        for name in self._marked:
            node = self._nodes.get(name)
            if node is not None:
                self._recount_node(name, node)
        self._marked.clear()

    def _recount_node(self, name: str, node: _Node) -> None:
        self._close(name, node)
        node.taken = Counter()
        placement = node.placement
        # Whoever will be removed receives nobody, whatever an older iteration wrote on it.
        if placement is None or placement.expires < self._clock.wall() or name in self._expiring:
            self._published.discard(name)
            for names in self._holding.values():
                names.discard(name)
            return
        self._published.add(name)
        self._next_expiry = min(self._next_expiry, placement.expires)
        left = {index: target.want for index, target in enumerate(placement.targets)}
        for pod in _standing(node):
            self._count(node, placement, left, pod)
        node.open = tuple((placement.targets[index], places) for index, places in left.items() if places > 0)
        for target, places in node.open:
            kinds = self._open.setdefault(target.workload, {})
            kinds.setdefault(_Kind.of(target, placement), Ranking()).add(name, places)
            self._open_targets += places
        if node.open:
            self._unfilled.add(name)
        for requests, names in self._holding.items():
            (names.add if _holds(node, requests) else names.discard)(name)

    def _count(self, node: _Node, placement: Placement, left: dict[int, int], pod: Pod) -> None:
        """Count a pod against the targets, or else against the headroom unless the plan knew it."""
        wanted = False
        for index, target in enumerate(placement.targets):
            if matches(target, placement, pod):
                wanted = wanted or left[index] > 0
                left[index] -= 1
        if not wanted and (node.settled is None or pod.uid not in node.settled):
            for key, amount in pod.requests:
                node.taken[key] += amount

    def _close(self, name: str, node: _Node) -> None:
        """Take the node's open targets out of the indexes."""
        for target, places in node.open:
            assert node.placement is not None  # nothing is open without it
            kind, kinds = _Kind.of(target, node.placement), self._open[target.workload]
            kinds[kind].add(name, -places)
            if not kinds[kind]:
                del kinds[kind]
            if not kinds:
                del self._open[target.workload]
            self._open_targets -= places
        node.open = ()
        self._unfilled.discard(name)


def _pod(seen: PodObject, workload: _Workload) -> Pod:
    metadata = seen.metadata
    iteration = (metadata.annotations.iteration if metadata.annotations else None) or ""
    try:
        requests = requests_of(seen.spec)
    except ValueError:
        # No API server lets such a quantity in. The pod still counts as one of its workload.
        requests = (("pods", 1),)
    return Pod(metadata.uid, workload.name, workload.uid, sys.intern(iteration), requests)


def _holds(node: _Node, requests: tuple[tuple[str, int], ...]) -> bool:
    """Tell whether what is left of the node's headroom holds the requests.

    A resource that the headroom does not name is left to the scheduler's own filter.
    """
    headroom = node.placement.headroom if node.placement is not None else {}
    return all(amount <= headroom[key] - node.taken[key] for key, amount in requests if amount > 0 and key in headroom)


def _standing(node: _Node) -> Iterable[Pod]:
    """Return the pods that count on the node: live ones and reservations, none that is part of the node."""
    yield from (known.pod for known in node.pods.values() if not known.is_overhead)
    yield from node.reserved.values()


def _same_uid(wanted: str, uid: str) -> bool:
    return not wanted or not uid or wanted == uid


def _discard(index: dict[_Key, set[str]], key: _Key, member: str) -> None:
    members = index.get(key)
    if members is not None:
        members.discard(member)
        if not members:
            del index[key]
