"""In which domain (a zone, a rack) each pod stays whose rules, or those of others about it, reach beyond one node.

Running pods keep the domain of their node. Pending ones are given one, one after the other as kube-scheduler would
place them: where every rule holds, their own and those of the pods that are there, and there the domain with the
fewest of the pods that the spread counts. Those with an affinity come last, and before them those with a spread, so
that they find whom they look for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from planner.model.cluster import HOSTNAME, Node, Pod, pod_key
from planner.model.coexistence import Kind, Views, counted_on, excess, kinds_of, text_of
from planner.model.machines import Offering
from planner.model.scheduling import NodeConstraints, PodTerm, Spread, Taint

Home: TypeAlias = tuple[tuple[str, str], ...]
"""Topology keys with the domain of each: labels that the pod's node must have; () is anywhere."""


@dataclass(frozen=True, slots=True)
class Closure:
    """A domain in which no node may be booted that the spread counts: with a first one it would not hold elsewhere."""

    domain: tuple[str, str]
    workload: str
    spread: Spread
    constraints: NodeConstraints

    def __str__(self) -> str:
        key, domain = self.domain
        return f"a first node in {domain} would break the spread of {self.workload} over {key}"

    def bars(self, labels: Mapping[str, str], taints: tuple[Taint, ...]) -> bool:
        """Say whether a node of these labels and taints would be such a first one."""
        key, domain = self.domain
        return labels.get(key) == domain and self.spread.regards(self.constraints, labels, "", taints)


@dataclass(frozen=True, slots=True)
class Homes:
    """The home of each pod that keeps any, by "namespace/name"; or why there is none for a pending one.

    A reason is "" where every rule holds in some domain, and nothing there could hold such a pod.
    """

    homes: Mapping[str, Home] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    closed: tuple[Closure, ...] = ()


@dataclass(frozen=True, slots=True)
class Crowding:
    """For how many pending pods a home has places, as far as that was found out.

    `alike` tells the pods apart that need not take the same places. `most` has, by that and the home, for how many
    there are places and why not for more; "" where nothing there holds such a pod.
    """

    alike: Callable[[Pod], Hashable]
    most: Mapping[tuple[Hashable, Home], tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    """A node that exists or could be booted: what a pod's constraints and a rule's topology ask of it.

    One of which a pool needs some comes whatever else is planned (`certain`), as one that exists.
    """

    labels: Mapping[str, str]
    name: str
    taints: tuple[Taint, ...]
    certain: bool


def find_homes(
    nodes: Sequence[Node], offerings: Sequence[Offering], pods: Sequence[Pod], crowding: Crowding | None = None
) -> Homes:
    """Return where the pods stay; `nodes` are those that pods may be on, pods of other nodes count as pending."""
    if not any(pod.keeps for pod in pods if not pod.finished):
        return Homes()
    existing = [_Place(node.labels, node.name, node.taints, certain=True) for node in nodes]
    kinds = kinds_of(pods)
    closed: dict[Closure, None] = {}
    while True:
        open_ = (o for o in offerings if o.minimum or not any(c.bars(o.labels, o.taints) for c in closed))
        seen = dict.fromkeys((tuple(sorted(o.labels.items())), o.taints, o.minimum > 0) for o in open_)
        places = existing + [_Place(dict(pairs), "", taints, certain) for pairs, taints, certain in seen]
        found, taken = _homes_at(places, _Board(kinds, nodes, places), nodes, crowding)
        # A home in a domain that should have stayed closed is none; without it others may have to be closed too.
        in_vain = any(closure.domain in taken for closure in found.closed if closure not in closed)
        closed |= dict.fromkeys(found.closed)
        if not in_vain:
            return replace(found, closed=tuple(closed))


def upset_by_minimums(nodes: Sequence[Node], offerings: Sequence[Offering], pods: Sequence[Pod]) -> dict[str, str]:
    """Return the workloads whose spread will not hold any longer in a domain that a pool's minimum opens, and why.

    There is no way round: the pool must have a node there. Their pods are not sent away, but would not be let in again.
    """
    certain = [_Place(dict(o.labels), "", o.taints, certain=True) for o in offerings if o.minimum]
    kinds = kinds_of(pods) if certain else []
    existing = [_Place(node.labels, node.name, node.taints, certain=True) for node in nodes]
    before, after = _Board(kinds, nodes, existing), _Board(kinds, nodes, [*existing, *certain])
    found = {}
    for (kind, spread, counts), (_, _, then) in zip(before.spreads(), after.spreads(), strict=True):
        # A pod whose node was tainted later stands in a domain that its spread does not count.
        own = before.domains_of(kind, spread) & counts.keys()
        if any(excess(spread, counts, d) <= 0 < excess(spread, then, d) for d in own):
            why = f"its spread over {spread.topology_key} does not hold beside a node that a pool's minimum asks for"
            found.update(dict.fromkeys((pod.workload for pod in kind.pods), why))
    return found


def _homes_at(
    places: Sequence[_Place], board: _Board, nodes: Sequence[Node], crowding: Crowding | None
) -> tuple[Homes, set[tuple[str, str]]]:
    """Return the homes at these places, and the domains that pending pods were given."""
    labels = {node.name: node.labels for node in nodes}
    homes: dict[str, Home] = {}
    refused: dict[str, str] = {}
    waiting: list[tuple[Kind, Pod]] = []
    for kind in board.kinds:
        for pod in kind.pods:
            if not pod.keeps or not pod.live:
                continue
            if pod.node in labels:
                here = labels[pod.node]
                homes[pod_key(pod)] = tuple((key, here[key]) for key in pod.keeps if key in here)
            elif not pod.unmodelled:
                waiting.append((kind, pod))
    options: dict[tuple[int, object], list[Home]] = {}
    settled: Counter[tuple[Hashable, Home]] = Counter()
    taken: set[tuple[str, str]] = set()
    for kind, pod in sorted(waiting, key=_turn):
        like = (id(kind), pod.constraints)
        if like not in options:
            options[like] = sorted({home for place in places if (home := _home_at(place, pod)) is not None})
        crowded: dict[Home, str] = {}
        alike = crowding.alike(pod) if crowding else None
        for home in options[like] if crowding else ():
            most, why = crowding.most.get((alike, home), (None, "")) if crowding else (None, "")
            if most is not None and settled[alike, home] >= most:
                crowded[home] = why
        chosen, why = board.choose(kind, pod, options[like], crowded)
        if chosen is None:
            refused[pod_key(pod)] = why
            continue
        homes[pod_key(pod)] = chosen
        settled[alike, chosen] += 1
        taken.update(chosen)
        board.add(kind, chosen)
    return Homes(homes, refused, tuple(board.closed())), taken


def _turn(waiting: tuple[Kind, Pod]) -> tuple[bool, bool, str, str]:
    kind, pod = waiting
    return bool(kind.rules.affinity), bool(kind.rules.spreads), pod.workload, pod.name


def _home_at(place: _Place, pod: Pod) -> Home | None:
    """Return the domains of a place that the pod's own constraints admit; None where they do not, or one is missing."""
    if not all(key in place.labels for key in pod.keeps):
        return None
    if not pod.constraints.admit(place.labels, place.name, place.taints):
        return None
    return tuple((key, place.labels[key]) for key in pod.keeps)


class _Board:
    """How many pods of each kind stand in each domain."""

    def __init__(self, kinds: list[Kind], nodes: Sequence[Node], places: Sequence[_Place]) -> None:
        self.kinds = kinds
        self._views = Views(nodes)
        self._places = places
        self._labels = labels = {node.name: node.labels for node in nodes}
        keys = {key for kind in kinds for pod in kind.pods[:1] for key in pod.keeps}
        self._counts: dict[int, Counter[tuple[str, str]]] = {id(kind): Counter() for kind in kinds}
        for kind in kinds:
            for pod in kind.pods:
                here = labels.get(pod.node or "", {}) if not pod.deleting else {}
                self._counts[id(kind)].update((key, here[key]) for key in keys if key in here)
        self._matched: dict[PodTerm, list[Kind]] = {}
        self._counted: dict[tuple[Spread, str], list[Kind]] = {}
        self._domains: dict[Hashable, list[str]] = {}
        self._aside: dict[tuple[Spread, NodeConstraints, str], Counter[str]] = {}
        self._against: dict[int, list[tuple[str, Kind]]] = {}
        self._counting: dict[int, list[tuple[Spread, Kind]]] = {}
        self._leaning: dict[int, list[Kind]] = {}
        self._settled = Counter({id(kind): kind.on.total() for kind in kinds})

    def add(self, kind: Kind, home: Home) -> None:
        """Let one more pod of the kind stand at home."""
        self._counts[id(kind)].update(home)
        self._settled[id(kind)] += 1

    def choose(
        self, kind: Kind, pod: Pod, options: Sequence[Home], crowded: Mapping[Home, str]
    ) -> tuple[Home | None, str]:
        """Return the home where all rules hold with the fewest pods there; or None, and what stands against.

        `crowded` says of homes why they have no place for the pod; "" where they never had one.
        """
        if not options:
            return None, f"no node or offering that admits it has the labels {', '.join(pod.keeps)}"
        best: tuple[tuple[int, int], Home] | None = None
        rules: list[str] = []
        spreads = [s for s in kind.rules.spreads if s.topology_key != HOSTNAME]
        counts = [self._spread_counts(s, kind, pod) for s in spreads]
        asides = [self._standing_aside(s, kind, pod) for s in spreads]
        for home in options:
            if home in crowded:
                continue
            at = dict(home)
            why = self._refusal(kind, at)
            for spread, count, aside in zip(spreads, counts, asides, strict=True):
                here = at[spread.topology_key]
                # Those that stand aside may move to where they count.
                for more in {0, aside[here]}:
                    fewest = min({**count, here: count[here] + more}.values())
                    if count[here] + more + 1 - (fewest if len(count) >= spread.min_domains else 0) > spread.max_skew:
                        why = why or f"its spread over {spread.topology_key} with maxSkew {spread.max_skew}"
            if why := why or self._upset(kind, at):
                rules.append(why)
                continue
            there = (
                sum(count[at[spread.topology_key]] for spread, count in zip(spreads, counts, strict=True)),
                sum(self._counts[id(kind)][pair] for pair in home),
            )
            if best is None or there < best[0]:
                best = (there, home)
        return (best[1], "") if best else (None, next(filter(None, (*crowded.values(), *rules)), ""))

    def _refusal(self, kind: Kind, at: Mapping[str, str]) -> str:
        for term in kind.rules.anti_affinity:
            rule = f"its required podAntiAffinity to {text_of(term.selector)} by {term.topology_key}"
            if term.topology_key in at and self._any(term, at):
                return rule
            everywhere = (p.workload for k in self._matching(term) for p in k.pods if p.kind == "DaemonSet")
            if term.topology_key in at and (daemonset := next(everywhere, "")):
                return f"{rule}, which is about {daemonset}, whose pods come with every new node"
        for key, other in self._others_against(kind):
            if key in at and self._counts[id(other)][(key, at[key])]:
                return f"the required podAntiAffinity of {other.pods[0].workload} by {key}"
        sought = [other for other in self.kinds if other.sought_by(kind.rules)] if kind.rules.affinity else []
        # The first of a group that asks for its own kind may go anywhere.
        first = kind in sought and not any(self._settled[id(other)] for other in sought)
        for term in kind.rules.affinity if not first else ():
            here = (term.topology_key, at.get(term.topology_key, ""))
            if term.topology_key in at and not any(self._counts[id(other)][here] for other in sought):
                return f"its required podAffinity to {text_of(term.selector)} by {term.topology_key}"
        return ""

    def _upset(self, kind: Kind, at: Mapping[str, str]) -> str:
        """Name a rule of other pods that would not hold any longer where they are; "" where all go on to hold."""
        if id(kind) not in self._counting:
            self._counting[id(kind)] = [
                (spread, other)
                for other in self.kinds
                for spread in other.rules.spreads
                if other is not kind and spread.topology_key != HOSTNAME and kind.counts_for(spread, other.namespace)
            ]
        for spread, other in self._counting[id(kind)]:
            here = (spread.topology_key, at.get(spread.topology_key, ""))
            counts = self._spread_counts(spread, other, other.pods[0])
            if here[1] in counts and self._counts[id(other)][here]:
                more = {**counts, here[1]: counts[here[1]] + 1}
                if excess(spread, counts, here[1]) <= 0 < excess(spread, more, here[1]):
                    return f"the spread of {other.pods[0].workload} over {here[0]}, which counts it"
        for other in self._first_of_those_that_seek(kind):
            for term in other.rules.affinity:
                if term.topology_key in at and not self._counts[id(other)][term.topology_key, at[term.topology_key]]:
                    return f"the required podAffinity of {other.pods[0].workload} by {term.topology_key}"
        return ""

    def _first_of_those_that_seek(self, kind: Kind) -> Iterator[Kind]:
        """Yield the kinds of one pod that asks for this kind and stands where it does only while there is no other."""
        if id(kind) not in self._leaning:
            self._leaning[id(kind)] = [
                other
                for other in self.kinds
                if other is not kind and kind.sought_by(other.rules) and other.sought_by(other.rules)
            ]
        for other in self._leaning[id(kind)]:
            settled = sum(self._settled[id(one)] for one in self.kinds if one.sought_by(other.rules))
            if settled == 1 and self._settled[id(other)]:
                yield other

    def _matching(self, term: PodTerm) -> list[Kind]:
        if term not in self._matched:
            self._matched[term] = [kind for kind in self.kinds if kind.matched_by(term)]
        return self._matched[term]

    def _any(self, term: PodTerm, at: Mapping[str, str]) -> bool:
        here = (term.topology_key, at[term.topology_key])
        return any(self._counts[id(kind)][here] for kind in self._matching(term))

    def _others_against(self, kind: Kind) -> list[tuple[str, Kind]]:
        if id(kind) not in self._against:
            self._against[id(kind)] = [
                (term.topology_key, other)
                for other in self.kinds
                for term in other.rules.anti_affinity
                if term.topology_key != HOSTNAME and kind.matched_by(term)
            ]
        return self._against[id(kind)]

    def _spread_counts(self, spread: Spread, kind: Kind, pod: Pod) -> dict[str, int]:
        """Return how many of the spread's pods stand in each domain that is open to the pod or could be."""
        about = (spread, kind.namespace)
        if about not in self._counted:
            self._counted[about] = [other for other in self.kinds if other.counts_for(*about)]
        view = spread.view(pod.constraints)
        if view not in self._domains:
            self._domains[view] = _domains(spread, pod, self._places)
        key, counted, aside = spread.topology_key, self._counted[about], self._standing_aside(spread, kind, pod)
        return {
            domain: sum(self._counts[id(other)][(key, domain)] for other in counted) - aside[domain]
            for domain in self._domains[view]
        }

    def _standing_aside(self, spread: Spread, kind: Kind, pod: Pod) -> Counter[str]:
        """Count by domain the spread's pods on nodes that it does not regard, such as tainted ones."""
        about = (spread, pod.constraints, kind.namespace)
        if about not in self._aside:
            found: Counter[str] = Counter()
            regarded = self._views.domains(spread, pod.constraints)
            for name, count in counted_on(spread, kind.namespace, self.kinds).items():
                domain = self._labels.get(name, {}).get(spread.topology_key)
                if domain is not None and name not in regarded:
                    found[domain] += count
            self._aside[about] = found
        return self._aside[about]

    def closed(self) -> Iterator[Closure]:
        """Yield the domains without a node that counts, where a first one would break the spread of pods elsewhere."""
        certain = [place for place in self._places if place.certain]
        there: dict[Hashable, list[str]] = {}
        for kind, spread, counts in self.spreads():
            view = spread.view(kind.pods[0].constraints)
            if view not in there:
                there[view] = _domains(spread, kind.pods[0], certain)
            existing = set(there[view])
            before = {domain: counts[domain] for domain in counts.keys() & existing}
            right = [d for d in self.domains_of(kind, spread) & before.keys() if excess(spread, before, d) <= 0]
            opened = {domain: count for domain, count in counts.items() if domain in existing or count}
            for domain in sorted(counts.keys() - existing):
                after = {**opened, domain: counts[domain]}
                if any(excess(spread, after, d) > 0 for d in right):
                    sample = kind.pods[0]
                    yield Closure((spread.topology_key, domain), sample.workload, spread, sample.constraints)

    def spreads(self) -> Iterator[tuple[Kind, Spread, dict[str, int]]]:
        """Yield each kind that stands somewhere with each of its spreads over domains, and that one's counts."""
        for kind in self.kinds:
            for spread in kind.rules.spreads:
                if spread.topology_key != HOSTNAME and self.domains_of(kind, spread):
                    yield kind, spread, self._spread_counts(spread, kind, kind.pods[0])

    def domains_of(self, kind: Kind, spread: Spread) -> set[str]:
        """Return the domains of the spread's topology in which pods of the kind stand."""
        return {domain for key, domain in +self._counts[id(kind)] if key == spread.topology_key}


def _domains(spread: Spread, pod: Pod, places: Iterable[_Place]) -> list[str]:
    """Return the domains of the places that the spread takes into account for this pod."""
    found = {
        place.labels[spread.topology_key]
        for place in places
        if spread.topology_key in place.labels
        and spread.regards(pod.constraints, place.labels, place.name, place.taints)
    }
    return sorted(found)
