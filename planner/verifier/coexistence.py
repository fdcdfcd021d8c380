"""The rules between pods, checked on the nodes of a plan as kube-scheduler would: every pod as if it came last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from planner.model.cluster import HOSTNAME, Pod, pod_key
from planner.model.coexistence import asked_keys
from planner.model.machines import Offering
from planner.model.plan import Plan
from planner.model.scheduling import PodRules, PodTerm, Spread, Taint
from planner.verifier.facts import Facts, OfferingKey, offering_key


@dataclass(frozen=True, slots=True)
class _Stand:
    """A node with its labels and taints, and how many pods of each workload are on it."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    pods: Mapping[str, int]

    def domain(self, key: str) -> str | None:
        return self.labels.get(key, self.name if key == HOSTNAME else None)


class _Stands(tuple[_Stand, ...]):
    """Nodes with an index: a rule is about the pods of one or two workloads, and most nodes have none of them."""

    @cached_property
    def with_pods(self) -> dict[str, list[tuple[int, int]]]:
        """By workload the nodes that have pods of it, by number, each with how many."""
        found: dict[str, list[tuple[int, int]]] = {}
        for number, stand in enumerate(self):
            for workload, count in stand.pods.items():
                if count:
                    found.setdefault(workload, []).append((number, count))
        return found

    def counted(self, key: str, workloads: Iterable[str], among: Collection[int] | None = None) -> Counter[str]:
        """Count the pods of these workloads by domain, empty ones included, `among` these nodes or all."""
        domains = [stand.domain(key) for stand in self]
        inside = range(len(self)) if among is None else among
        found = Counter({domain: 0 for number in inside if (domain := domains[number]) is not None})
        for workload in workloads:
            for number, count in self.with_pods.get(workload, ()):
                if (domain := domains[number]) is not None and number in inside:
                    found[domain] += count
        return found

    def number_of(self, workload: str) -> int:
        """Return how many pods of the workload there are."""
        return sum(count for _, count in self.with_pods.get(workload, ()))


@dataclass(frozen=True, slots=True)
class _Settled:
    """The present state, as far as its pods stay where they are: all but those of the workloads that are `rolled`."""

    stands: _Stands = field(default_factory=_Stands)
    rolled: frozenset[str] = frozenset()

    def receiving(self, key: str, workload: str, stands: _Stands) -> set[str | None]:
        """Return the domains in which a node gets pods of the workload that it does not have now."""
        now = () if workload in self.rolled else self.stands.with_pods.get(workload, ())
        here = {self.stands[number].name: count for number, count in now}
        more = stands.with_pods.get(workload, ())
        return {stands[n].domain(key) for n, count in more if count > here.get(stands[n].name, 0)}


class Present:
    """The pods of the present state as the rules see them, whatever the plan.

    A workload's pods are taken to be alike: where they differ (a roll-out half done) the first one that may move speaks
    for those that may. One that stays, pinned or of a DaemonSet, and has other rules, or other labels that a rule asks
    for, stands for itself.
    """

    def __init__(self, facts: Facts) -> None:
        self.samples: dict[str, Pod] = {}
        present: dict[str, Counter[str]] = {name: Counter() for name in facts.nodes}
        self.bound: dict[str, Counter[str]] = {name: Counter() for name in facts.nodes}
        pins = facts.assessment.pins
        live = [pod for pod in facts.inputs.snapshot.pods if pod.live]
        for pod in sorted(live, key=lambda p: (pod_key(p) in pins, p.name)):
            self.samples.setdefault(pod.workload, pod)
        asked = asked_keys(live)
        self.apart = {
            pod_key(pod): pod
            for pod in live
            if (pod_key(pod) in pins or pod.stays_with_node)
            and _seen(pod, asked) != _seen(self.samples[pod.workload], asked)
        }
        self.samples |= {f"pod {key}": pod for key, pod in self.apart.items()}
        for pod in live:
            if pod.node in present:
                stands_for = f"pod {pod_key(pod)}" if pod_key(pod) in self.apart else pod.workload
                present[pod.node][stands_for] += 1
                if pod.stays_with_node:
                    self.bound[pod.node][stands_for] += 1
        self.ruled = any(pod.rules != PodRules() for pod in self.samples.values())
        self.stands = _Stands(_Stand(n.name, n.labels, n.taints, present[n.name]) for n in facts.nodes.values())
        # A pool's minimum opens a domain whatever the plan does.
        self.due = tuple(
            _Stand("", offering.labels, offering.taints, {})
            for offering, _ in facts.offers.values()
            if offering.minimum
            and len(facts.existing(offering.pool, offering.zone)) < facts.least(offering.pool, offering.zone)
        )


class Coexistence:
    """The rules between pods on the nodes of a plan."""

    def __init__(self, plan: Plan, facts: Facts, present: Present) -> None:
        self._now = present
        then = []
        for planned in plan.nodes:
            if planned.state == "remove":
                continue
            if planned.state == "boot":
                offering, _ = facts.offers[offering_key(planned)]
                then.append(_Stand(planned.name, offering.labels, offering.taints, planned.pods))
            else:
                node = facts.nodes[planned.name]
                pods = Counter(planned.pods) + present.bound[planned.name]
                for key in present.apart.keys() & set(planned.pod_names):
                    pods[present.apart[key].workload] -= 1
                    pods[f"pod {key}"] += 1
                then.append(_Stand(node.name, node.labels, node.taints, pods))
        self._then = _Stands(then)
        self._rolled = frozenset(key for key, workload in plan.workloads.items() if workload.strategy == "rollout")
        self._barring: dict[OfferingKey, bool] = {}

    def broken(self) -> Iterator[str]:
        """Name the rules that the plan breaks and the present state does not, be it with the nodes that pools need."""
        now = self._now
        if now.ruled and (broken := self._violated(self._then)):
            broken -= set(_violations(now.stands, now.samples, _Settled()))
            if now.due:
                broken -= set(_violations(_Stands((*now.stands, *now.due)), now.samples, _Settled()))
            yield from sorted(broken)

    def bars(self, offering: Offering) -> bool:
        """Say whether one more node of the offering, be it empty, would break a spread: it opens a domain."""
        if not self._now.ruled:
            return False
        kind = offering_key(offering)
        if kind not in self._barring:
            more = _Stands((*self._then, _Stand("", offering.labels, offering.taints, {})))
            self._barring[kind] = bool(self._violated(more) - self._violated(self._then))
        return self._barring[kind]

    def _violated(self, stands: _Stands) -> set[str]:
        return set(_violations(stands, self._now.samples, _Settled(self._now.stands, self._rolled)))


def _seen(pod: Pod, asked: Collection[str]) -> tuple[object, ...]:
    return pod.rules, {key: value for key, value in pod.labels.items() if key in asked}


def _violations(stands: _Stands, samples: Mapping[str, Pod], settled: _Settled) -> Iterator[str]:
    """Name what does not hold; no spread by host name sends pods away that are settled."""
    ports = Counter[tuple[str, str, int]]()
    for workload, pod in samples.items():
        for protocol, port in pod.rules.host_ports:
            for number, count in stands.with_pods.get(workload, ()):
                ports[stands[number].name, protocol, port] += count
    yield from (
        f"node {name}: the host port {p}/{protocol} is taken twice" for (name, protocol, p), n in ports.items() if n > 1
    )
    for workload, pod in samples.items():
        for term in pod.rules.anti_affinity:
            yield from _apart(workload, term, stands, samples)
        yield from _near(workload, pod.rules, stands, samples, settled)
        for spread in pod.rules.spreads:
            receiving = settled.receiving(HOSTNAME, workload, stands)
            for domain in _skewed(workload, pod, spread, stands, samples):
                if spread.topology_key != HOSTNAME or domain in receiving:
                    yield f"{workload}: its spread over {spread.topology_key} does not hold in {domain}"


def _matching(term: PodTerm, samples: Mapping[str, Pod]) -> set[str]:
    return {workload for workload, pod in samples.items() if term.matches(pod.namespace, pod.labels)}


def _apart(workload: str, term: PodTerm, stands: _Stands, samples: Mapping[str, Pod]) -> Iterator[str]:
    matched = _matching(term, samples)
    others = stands.counted(term.topology_key, matched)
    for domain, count in stands.counted(term.topology_key, [workload]).items():
        if count and others[domain] - (workload in matched) > 0:
            yield f"{workload}: its required podAntiAffinity does not hold in {term.topology_key} {domain}"


def _near(
    workload: str, rules: PodRules, stands: _Stands, samples: Mapping[str, Pod], settled: _Settled
) -> Iterator[str]:
    """Name where the affinity does not hold; one that stands without company, as the first of its kind, needs none."""
    if not rules.affinity:
        return
    sought = {other for other, pod in samples.items() if rules.seeks(pod.namespace, pod.labels)}
    itself = workload in sought
    if itself and sum(map(stands.number_of, sought)) <= 1:
        return
    for term in rules.affinity:
        others = stands.counted(term.topology_key, sought)
        before = settled.stands.counted(term.topology_key, sought)
        receiving = settled.receiving(term.topology_key, workload, stands)
        for domain, count in stands.counted(term.topology_key, [workload]).items():
            needy = domain in receiving or before[domain] - itself > 0
            if count and needy and others[domain] - itself <= 0:
                yield f"{workload}: its required podAffinity does not hold in {term.topology_key} {domain}"


def _skewed(workload: str, pod: Pod, spread: Spread, stands: _Stands, samples: Mapping[str, Pod]) -> Iterator[str]:
    matched = [
        w for w, other in samples.items() if other.namespace == pod.namespace and spread.selector.matches(other.labels)
    ]
    regarded = (spread.regards(pod.constraints, s.labels, s.name, s.taints) for s in stands)
    open_ = {number for number, counts in enumerate(regarded) if counts}
    counts = stands.counted(spread.topology_key, matched, open_)
    fewest_of_all = min(counts.values(), default=0)
    for domain, own in stands.counted(spread.topology_key, [workload], open_).items():
        # The pod itself is counted beside the fewest without it.
        without = counts[domain] - (workload in matched)
        fewest = min(fewest_of_all, without) if len(counts) >= spread.min_domains else 0
        if own and without + (workload in matched) - fewest > spread.max_skew:
            yield domain
