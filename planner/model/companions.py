"""Pods that must stand on a node with others: required pod affinity by host name.

Of running pods each stays or moves together with one of those that it looks for, as a party: `accompanied` names the
pod that leads it. The leader goes first, and the others follow when it has come (`planner.rescheduler.moves`). Those
that look for their own kind, or for pods that look for others in their turn, stay where they are, and so does whom they
need there: made anew one by one, they would only be let in where the others still are.

A waiting pod joins others where they stand and their node has room for it now (`Pod.beside`). Where it can join none,
waiting pods come to one node as a party (`find_parties`): each leader with as many of those that look for it as there
are for each leader, and pods that look for their own kind all in one.

Parties are a choice of the planner, and no bound rests on them. Source of the rule: kube-scheduler's plugin
InterPodAffinity, satisfyPodAffinity.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from planner.model.cluster import HOSTNAME, Node, Pod, free_room, pod_key
from planner.model.coexistence import Kind, kinds_of, text_of
from planner.model.resources import Resources
from planner.model.scheduling import NodeConstraints, PodRules


@dataclass(frozen=True, slots=True)
class Parties:
    """The party of each waiting pod that is in one, by "namespace/name"; or why there is none for it.

    A party is named after the pod that leads it.
    """

    of: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def needs_company(rules: PodRules) -> bool:
    """Say whether pods with these rules must stand on one node with others."""
    return any(term.topology_key == HOSTNAME for term in rules.affinity)


def accompanied(nodes: Sequence[Node], pods: Sequence[Pod]) -> tuple[Pod, ...]:
    """Return the pods with the parties of those that run, and the nodes where those that wait join others.

    Of several nodes with room a waiting pod takes the first by name, and those that it needs there are held. Where a
    rule over domains counts it as well, that is named as not modelled.
    """
    rules = {id(pod.rules): pod.rules for pod in pods}
    if not any(map(needs_company, rules.values())):
        return tuple(pods)
    found = _Meeting(nodes, pods)
    kinds = [kind for kind in found.kinds if needs_company(kind.rules)]
    for kind in kinds:
        found.stand(kind)
    # A pod may join one that joins another.
    while sum(found.join(kind) for kind in kinds):
        pass
    return tuple(found.told.get(id(pod), pod) for pod in pods)


def sought_by_workload(pods: Sequence[Pod]) -> dict[str, frozenset[str]]:
    """Return for each workload whose pods must stand on a node with others the workloads of those others."""
    rules = {id(pod.rules): pod.rules for pod in pods}
    if not any(map(needs_company, rules.values())):
        return {}
    kinds = kinds_of(pods)
    found: dict[str, frozenset[str]] = {}
    for kind in kinds:
        if needs_company(kind.rules):
            others = frozenset(pod.workload for o in kinds if o.sought_by(kind.rules) for pod in o.pods)
            for workload in {pod.workload for pod in kind.pods}:
                found[workload] = found.get(workload, frozenset()) | others - {workload}
    return found


def in_company(sought: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Name the workloads whose pods must stand on a node with others, and those of these others (`sought`)."""
    return frozenset(sought).union(*sought.values())


def _asks(pod: Pod) -> bool:
    """Say whether this is a waiting pod for which company is to be found."""
    return pod.node is None and pod.live and not pod.unmodelled and not pod.beside and needs_company(pod.rules)


def _rule(rules: PodRules) -> str:
    terms = " and ".join(text_of(t.selector) for t in rules.affinity if t.topology_key == HOSTNAME)
    return f"required podAffinity to {terms} by host name"


class _Meeting:
    """Who stands where, the room that is left there, and what is said of the pods so far (`told`, by id)."""

    def __init__(self, nodes: Sequence[Node], pods: Sequence[Pod]) -> None:
        self.kinds = kinds_of(pods)
        self.told: dict[int, Pod] = {}
        self._following: Counter[str] = Counter()
        self._nodes = {node.name: node for node in nodes}
        self._room = free_room(nodes, pods)

    def stand(self, kind: Kind) -> None:
        """Give each running pod of the kind a leader on its node; hold it, and whom it needs, where that cannot be."""
        sought = [other for other in self.kinds if other.sought_by(kind.rules)]
        led = not any(needs_company(other.rules) for other in sought)
        followers, leaders = _by_node([kind]), _by_node(sought)
        for name in sorted(followers.keys() & self._nodes.keys()):
            own = [pod for pod in leaders.get(name, ()) if not pod.stays_with_node]
            if led and own:
                self._lead(own, followers[name])
                continue
            for pod in followers[name]:
                self._hold([pod], _rule(pod.rules))
                self._hold([other for other in leaders.get(name, ()) if other is not pod], _needed_by(pod))

    def _lead(self, leaders: Sequence[Pod], followers: Sequence[Pod]) -> None:
        turns = [(self._following[pod_key(pod)], number) for number, pod in enumerate(leaders)]
        heapq.heapify(turns)
        for pod in followers:
            size, number = heapq.heappop(turns)
            leader = leaders[number]
            for member in (leader, pod):
                self.told[id(member)] = replace(self.told.get(id(member), member), party=pod_key(leader))
            self._following[pod_key(leader)] += 1
            heapq.heappush(turns, (size + 1, number))

    def join(self, kind: Kind) -> bool:
        """Let the waiting pods of the kind join others; say whether any did."""
        joined = False
        sought = [pod for other in self.kinds if other.sought_by(kind.rules) for pod in other.pods if pod.live]
        standing: dict[str, list[Pod]] = {}
        for pod in sought:
            where = self.told.get(id(pod), pod)
            if (at := where.node or where.beside) in self._nodes:
                standing.setdefault(at, []).append(pod)
        for pod in sorted(kind.pods, key=lambda pod: pod.name):
            if not _asks(self.told.get(id(pod), pod)):
                continue
            if pod.keeps:
                why = f"{_rule(pod.rules)} beside a rule over {', '.join(pod.keeps)}"
                self.told[id(pod)] = replace(pod, unmodelled=(why,))
            elif (name := self._open(pod, standing)) is not None:
                self._room[name] = self._room[name] - pod.requests
                self.told[id(pod)] = replace(pod, beside=name)
                self._hold(standing[name], _needed_by(pod))
                joined = True
        return joined

    def _open(self, pod: Pod, standing: Mapping[str, Sequence[Pod]]) -> str | None:
        for name in sorted(standing):
            node = self._nodes[name]
            if pod.constraints.admit(node.labels, name, node.taints) and pod.requests.fits_in(self._room[name]):
                return name
        return None

    def _hold(self, pods: Sequence[Pod], why: str) -> None:
        """Hold these pods, as far as they run."""
        for pod in pods:
            known = self.told.get(id(pod), pod)
            if known.node is not None and why not in known.unmodelled:
                self.told[id(pod)] = replace(known, unmodelled=(*known.unmodelled, why))


def _needed_by(pod: Pod) -> str:
    return f"required podAffinity of {pod.workload}, which needs it on its node"


def _by_node(kinds: Sequence[Kind]) -> dict[str, list[Pod]]:
    """Return the live pods of these kinds by node, in order of their names."""
    found: dict[str, list[Pod]] = {}
    for pod in sorted((pod for kind in kinds for pod in kind.pods if pod.live and pod.node), key=pod_key):
        found.setdefault(str(pod.node), []).append(pod)
    return found


@dataclass(slots=True)
class _Party:
    """Pods that come to one node: what they request together, and what they ask of it."""

    name: str
    requests: Resources
    constraints: NodeConstraints


class _Host:
    """Makes the parties of waiting pods, those first whom others look for."""

    def __init__(
        self,
        pods: Sequence[Pod],
        requests: Callable[[Pod], Resources],
        holds: Callable[[Resources, NodeConstraints], bool],
    ) -> None:
        self._kinds = kinds_of(pods)
        self._requests, self._fits = requests, holds
        self._parties: dict[str, _Party] = {}
        self._known: dict[tuple[Resources, NodeConstraints], bool] = {}
        self.of: dict[str, str] = {}
        self.refused: dict[str, str] = {}

    def receive(self) -> None:
        """Find a party for every pod that asks for one, or say why there is none."""
        sought = {
            id(kind): [other for other in self._kinds if other.sought_by(kind.rules)]
            for kind in self._kinds
            if needs_company(kind.rules) and any(map(_asks, kind.pods))
        }
        todo = [kind for kind in self._kinds if id(kind) in sought]
        while todo:
            free = (k for k in todo if not any(o is not k and o in todo for o in sought[id(k)]))
            kind = next(free, None) or next((k for k in todo if k in sought[id(k)]), None)
            if kind is None:
                for pod in (pod for other in todo for pod in other.pods if _asks(pod)):
                    self.refused[pod_key(pod)] = (
                        f"{_rule(pod.rules)}, and those look for others that wait in their turn"
                    )
                return
            todo.remove(kind)
            self._seat(kind, sought[id(kind)])

    def _seat(self, kind: Kind, sought: Sequence[Kind]) -> None:
        alike: dict[tuple[Resources, NodeConstraints], list[Pod]] = {}
        for pod in sorted(filter(_asks, kind.pods), key=pod_key):
            alike.setdefault((self._requests(pod), pod.constraints), []).append(pod)
        # While there is no such pod anywhere, one that is such a pod itself may come first.
        first = kind in sought and not any(pod.node for other in sought for pod in other.pods)
        for (requests, constraints), pods in alike.items():
            turns = count()
            leaders = list(self._leading(kind, sought))
            open_ = [(0, next(turns), party) for party in leaders]
            for pod in pods:
                party = None
                while open_:
                    size, _, candidate = heapq.heappop(open_)
                    if self._admits(candidate, requests, constraints):
                        party = candidate
                        heapq.heappush(open_, (size + 1, next(turns), party))
                        break
                if party is not None:
                    party.requests, party.constraints = party.requests + requests, party.constraints & constraints
                elif first and not leaders:
                    party = self._begin(pod)
                    leaders.append(party)
                    open_.append((1, next(turns), party))
                else:
                    why = "no node holds it beside such a pod" if sought else "there is no such pod"
                    self.refused[pod_key(pod)] = f"{_rule(pod.rules)}, and {why}"
                    continue
                self._parties[party.name] = party
                self.of[pod_key(pod)] = party.name

    def _leading(self, kind: Kind, sought: Sequence[Kind]) -> Iterator[_Party]:
        """Yield the parties that pods of this kind may join, be it that one waiting pod alone would lead."""
        seen: set[str] = set()
        for other in sought:
            for pod in sorted(other.pods, key=pod_key):
                party = self.of.get(pod_key(pod))
                if party is None and (other is kind or not _leads(pod) or pod_key(pod) in self.refused):
                    continue
                name = party or pod_key(pod)
                if name not in seen:
                    seen.add(name)
                    yield self._parties.get(name) or self._begin(pod)

    def _begin(self, pod: Pod) -> _Party:
        return _Party(pod_key(pod), self._requests(pod), pod.constraints)

    def _admits(self, party: _Party, requests: Resources, constraints: NodeConstraints) -> bool:
        both = (party.requests + requests, party.constraints & constraints)
        if both not in self._known:
            self._known[both] = self._fits(*both)
        return self._known[both]


def _leads(pod: Pod) -> bool:
    """Say whether others may follow this waiting pod, which comes where it likes."""
    return pod.node is None and pod.live and not (pod.unmodelled or pod.beside or needs_company(pod.rules))


def find_parties(
    pods: Sequence[Pod],
    requests: Callable[[Pod], Resources],
    holds: Callable[[Resources, NodeConstraints], bool],
) -> Parties:
    """Return the parties of the waiting pods; `holds` says whether any node may hold pods of these requests together.

    Of those for which a leader's party has no more room each goes to the next one, and is left out at last.
    """
    if not any(map(_asks, pods)):
        return Parties()
    host = _Host(pods, requests, holds)
    host.receive()
    followed = {party for name, party in host.of.items() if name != party}
    # A pod whom nobody joins comes as it likes.
    guests = {name: party for name, party in host.of.items() if party in followed}
    return Parties(guests | {party: party for party in followed}, host.refused)
