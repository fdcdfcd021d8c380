"""Pods that arrive take each other's seats so that each is in the company that it prefers, where that costs nothing.

What pods prefer of each other (preferred affinity and anti-affinity, spread with ScheduleAnyway) is no part of the
value. It decides which of several pods that arrive anyway goes to which of the plan's nodes. A rule counts

    spread            100 x sum_d max(0, n_d - min_d n_d - maxSkew)          n_d counted pods in domain d
    apart, near       +- weight x sum_d (pods with the term in d) x (other pods that it is about in d)

as kube-scheduler counts pods of a term. Steps that lower the sum over all rules are taken one by one.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from planner.model.cluster import Pod
from planner.model.preferences import Company
from planner.model.scheduling import PodTerm
from planner.optimizer import constraints
from planner.optimizer.constraints import IntArray
from planner.optimizer.problem import Problem

_SPREAD_WEIGHT = 100
# So many steps are looked at for one pod, and so many in all; a look takes some 50 µs at 400 nodes.
_LOOKS_EACH = 200
_LOOKS = 20_000

Arrivals = dict[tuple[int, str], int]
"""How many pods arrive at a node, by group and workload."""


@dataclass(slots=True)
class Place:
    """One node that stays: its labels, all its pods by workload, and where it takes part, its class and what arrives.

    `content` (groups,) are its movable pods, `leaving` the workloads of which pods leave it. A node that receives
    nothing has no class.
    """

    labels: Mapping[str, str]
    pods: Counter[str]
    k: int | None = None
    content: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    arrivals: Arrivals = field(default_factory=dict)
    leaving: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Rule:
    """One rule: pods of the `counted` workloads, by domain, and (not for spreads) those that carry the term."""

    key: str
    weight: int
    skew: int | None
    carriers: frozenset[str]
    counted: frozenset[str]
    bearing: Counter[str | None] = field(default_factory=Counter)
    number: Counter[str | None] = field(default_factory=Counter)
    both: Counter[str | None] = field(default_factory=Counter)

    def penalty(self) -> int:
        """Return what the rule counts, the more the worse."""
        if self.skew is not None:
            counts = self.number.values()
            least = min(counts, default=0)
            return self.weight * sum(max(0, count - least - self.skew) for count in counts)
        pairs = sum(count * self.number[domain] - self.both[domain] for domain, count in self.bearing.items())
        return self.weight * pairs

    def draws(self, workload: str, source: str | None, target: str | None) -> bool:
        """Say whether a pod of the workload may be better off in the target's domain, as far as the rule goes."""
        if source == target:
            return False
        # A node without the label is in no domain and counts 0.
        if self.skew is not None:
            return self.number[source] > self.number[target] + (target is not None)
        company = 0
        if workload in self.carriers:
            company += self.number[source] - self.number[target]
        if workload in self.counted:
            company += self.bearing[source] - self.bearing[target]
        return self.weight * company > 0

    def shift(self, workload: str, domain: str | None, change: int) -> None:
        """Count so many more pods of the workload in the domain; a node without the label is in none."""
        if domain is None:
            return
        counted, bears = workload in self.counted, workload in self.carriers
        self.number[domain] += change * counted
        self.bearing[domain] += change * bears
        self.both[domain] += change * (counted and bears)


def seated(problem: Problem, places: Sequence[Place], pods: Iterable[Pod], *, full: bool) -> None:
    """Let arriving pods of the places change seats, in place.

    With `full` only pods of one group change seats: what a plan leaves out must find no room that was not there.
    """
    seating = _Seating(problem, places, _rules(pods))
    if seating.rules:
        seating.improve(full)


def _rules(pods: Iterable[Pod]) -> list[_Rule]:
    """Return the rules of what pods prefer of each other; pods of one workload are alike in it."""
    samples: dict[str, Pod] = {}
    for pod in sorted(pods, key=lambda p: (p.workload, p.name)):
        samples.setdefault(pod.workload, pod)
    terms: dict[tuple[int, PodTerm], set[str]] = defaultdict(set)
    rules: list[_Rule] = []
    spreads: dict[tuple[object, ...], _Rule] = {}
    for key, pod in samples.items():
        if pod.company == Company():
            continue
        for weight, term in pod.company.apart:
            terms[weight, term].add(key)
        for weight, term in pod.company.near:
            terms[-weight, term].add(key)
        for spread in pod.company.spreads:
            counted = (k for k, p in samples.items() if p.namespace == pod.namespace)
            about = frozenset(k for k in counted if spread.selector.matches(samples[k].labels))
            like = (spread.topology_key, spread.max_skew, about)
            spreads.setdefault(like, _Rule(spread.topology_key, _SPREAD_WEIGHT, spread.max_skew, frozenset(), about))
    for (weight, term), carriers in terms.items():
        about = frozenset(k for k, p in samples.items() if term.matches(p.namespace, p.labels))
        if about:
            rules.append(_Rule(term.topology_key, weight, None, frozenset(carriers), about))
    return [*rules, *spreads.values()]


class _Seating:
    """The places as they are filled, and every rule's counts."""

    def __init__(self, problem: Problem, places: Sequence[Place], rules: list[_Rule]) -> None:
        self.problem, self.places, self.rules = problem, places, rules
        self._about: dict[str, list[_Rule]] = defaultdict(list)
        for rule in rules:
            for workload in rule.carriers | rule.counted:
                self._about[workload].append(rule)
            for place in places:
                if (domain := place.labels.get(rule.key)) is not None:
                    rule.number.setdefault(domain, 0)
                for workload, count in place.pods.items():
                    rule.shift(workload, domain, count)

    def improve(self, full: bool) -> None:
        """Take steps that improve until none is found, or enough were looked at."""
        looks, improved = _LOOKS, True
        while improved:
            improved = False
            for n, pod in self._arrivals():
                while self.places[n].arrivals[pod]:
                    found = None
                    for step in itertools.islice(self._steps(n, pod, full), _LOOKS_EACH):
                        looks -= 1
                        if looks < 0:
                            return
                        if self._change(step) < 0 and self._costs_nothing(step):
                            found = step
                            break
                    if found is None:
                        break
                    self._take(found)
                    improved = True

    def _arrivals(self) -> list[tuple[int, tuple[int, str]]]:
        """Return the arriving pods that a rule is about, by place."""
        return [
            (n, key)
            for n, place in enumerate(self.places)
            for key, count in sorted(place.arrivals.items())
            if count and key[1] in self._about
        ]

    def _steps(self, n: int, pod: tuple[int, str], full: bool) -> Iterator[_Step]:
        """Yield what could be done for one such pod: another seat, or that of another pod that arrives."""
        here, (g, workload) = self.places[n], pod
        rules = self._about[workload]
        for m, there in enumerate(self.places):
            if there.k is None or workload in there.leaving:
                continue
            if not any(rule.draws(workload, here.labels.get(rule.key), there.labels.get(rule.key)) for rule in rules):
                continue
            if not full:
                yield _Step(n, m, pod, None)
            for other, count in sorted(there.arrivals.items()):
                alike = other[0] == g if full else True
                if count and alike and other[1] != workload and other[1] not in here.leaving:
                    yield _Step(n, m, pod, other)

    def _costs_nothing(self, step: _Step) -> bool:
        """Say whether the pods can change seats at the same value."""
        problem, here, there = self.problem, self.places[step.here], self.places[step.there]
        g, h = step.pod[0], step.other[0] if step.other is not None else None
        if here.k is None or there.k is None:
            return False
        if g == h:
            return True
        if not problem.admissible[there.k, g] or there.content[g] < problem.present[there.k, g]:
            return False
        displeased = problem.displeasure[there.k, g] - problem.displeasure[here.k, g]
        after = [there.content.copy()]
        after[0][g] += 1
        if h is not None:
            if not problem.admissible[here.k, h] or here.content[h] < problem.present[here.k, h]:
                return False
            displeased += problem.displeasure[here.k, h] - problem.displeasure[there.k, h]
            after[0][h] -= 1
            after.append(here.content.copy())
            after[1][h] += 1
            after[1][g] -= 1
        if displeased:
            return False
        return all(
            constraints.within_capacity(problem.requests, problem.room[[k]], content[None, :]).all()
            and constraints.one_side_of_each(problem.sides, content[None, :]).all()
            for k, content in zip((there.k, here.k), after, strict=False)
        )

    def _change(self, step: _Step) -> int:
        """Return by how much the rules count more after the step."""
        touched = {id(rule): rule for _, workload in step.pods for rule in self._about.get(workload, ())}
        before = sum(rule.penalty() for rule in touched.values())
        self._count(step, 1)
        after = sum(rule.penalty() for rule in touched.values())
        self._count(step, -1)
        return after - before

    def _count(self, step: _Step, sign: int) -> None:
        here, there = self.places[step.here].labels, self.places[step.there].labels
        for (_, workload), way in zip(step.pods, (sign, -sign), strict=False):
            for rule in self._about.get(workload, ()):
                rule.shift(workload, here.get(rule.key), -way)
                rule.shift(workload, there.get(rule.key), way)

    def _take(self, step: _Step) -> None:
        self._count(step, 1)
        ends = (self.places[step.here], self.places[step.there])
        for pod, (source, target) in zip(step.pods, (ends, ends[::-1]), strict=False):
            g, workload = pod
            for place, change in ((source, -1), (target, 1)):
                place.arrivals[pod] = place.arrivals.get(pod, 0) + change
                place.pods[workload] += change
            source.content[g] -= 1
            target.content[g] += 1


@dataclass(frozen=True, slots=True)
class _Step:
    """A pod (group, workload) goes from one place to another one, and perhaps another pod comes back."""

    here: int
    there: int
    pod: tuple[int, str]
    other: tuple[int, str] | None

    @property
    def pods(self) -> tuple[tuple[int, str], ...]:
        return (self.pod,) if self.other is None else (self.pod, self.other)
