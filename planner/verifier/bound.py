"""The lower bound of a plan, recomputed from its certificate's prices and the inputs.

    bound = Σ prices of frozen nodes + Σ exit costs of removable nodes + displeasure of pinned pods
            - m · Σ placed pending pods + Σ count·π + Σ rhs·λ - Σ u·max(0, V - c)

with m the price of a move and V the greatest value of one node of a class (docs/model.md). Every number but the
prices π and λ is derived from the inputs; any π, λ >= 0 give a valid bound.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from planner.model.inputs import PlanningInputs
from planner.model.plan import CertificateClass, CertificateGroup, CertificateRow, Plan
from planner.model.resources import other_side
from planner.verifier.displeasure import pinned_displeasure, surroundings
from planner.verifier.facts import Facts, Group, Spot, adopted, gather, offering_key
from planner.verifier.knapsack import Item, Range, greatest_value
from planner.verifier.limits import Limit, limits_of, node_label
from planner.verifier.placement import check_placement

_OPTIMAL_TOLERANCE_NANOUSD_PER_HOUR = 1000
"""How far the bound of a plan called optimal may be below its value, for each node: prices π are rounded."""

_MOST_PAIRS = 8
"""Up to so many pairs of sides each choice of one of both is a knapsack of its own."""

_FIRST_SHARE = 0.2
"""Of the time, how much the first round over the knapsacks may take."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check found.

    `problems`: what is wrong, each as a sentence. `lower_bound_nanousd_per_hour`: what the certificate proves, None
    where its groups, classes or rows are wrong. `undecided`: the classes whose knapsack was open at the time limit,
    where the claim hangs on them; the bound given then is what was proven so far.
    """

    problems: tuple[str, ...]
    value_nanousd_per_hour: int
    lower_bound_nanousd_per_hour: int | None = None
    undecided: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether nothing is wrong and nothing is open."""
        return not self.problems and not self.undecided


@dataclass(frozen=True, slots=True)
class _Column:
    """A class as the inputs say it is: what names it, the cost c, the limit u, its spot, the pods that are there.

    `displeasure` is what one pod of each group costs here that would rather be elsewhere, by the group's index.
    """

    label: str
    spot: Spot
    cost: int
    limit: int
    displeasure: Mapping[int, int]
    here: Mapping[int, int] = field(default_factory=dict)


def verify(plan: Plan, inputs: PlanningInputs, time_limit_seconds: float, now: Callable[[], float]) -> Verdict:
    """Check the placement, the objective and the certificate of a plan against its inputs.

    `now` gives seconds; only differences count. The time limit covers the knapsacks, everything else is quick.
    """
    deadline = now() + time_limit_seconds
    problems = list(check_placement(plan, inputs))
    # `held` is no part of the problem that the bound is about: the bound must hold without it.
    facts = gather(replace(adopted(plan, inputs), held={}))
    value = plan.objective.value_nanousd_per_hour
    counts, wrong = _match_groups(plan, facts)
    columns = _columns(facts, counts)
    wrong += _check_classes(plan.certificate.classes, columns, facts)
    limits = limits_of(facts)
    wrong += _check_rows(plan.certificate.rows, limits)
    problems += wrong
    if wrong:
        return Verdict(tuple(problems), value)
    duals = [(limits[row.kind, row.scope], row.dual_nanousd_per_hour) for row in plan.certificate.rows]
    terms = _Terms(facts, counts, duals)
    ranges = _knapsacks(terms, columns, deadline, now)
    proven = terms.constant - sum(c.limit * (ranges[i].upper - terms.floor(c)) for i, c in columns.items())
    reachable = terms.constant - sum(c.limit * (ranges[i].lower - terms.floor(c)) for i, c in columns.items())
    claimed = plan.objective.lower_bound_nanousd_per_hour
    if claimed > reachable:
        problems.append(
            f"the lower bound {claimed} nanodollars per hour is not proven: the certificate gives "
            f"{'' if proven == reachable else 'at most '}{reachable}"
        )
    nodes = len(plan.nodes)
    if plan.objective.status == "optimal" and value - claimed > _OPTIMAL_TOLERANCE_NANOUSD_PER_HOUR * nodes:
        problems.append(
            f"the status is optimal, but the value {value} is {value - claimed} nanodollars per hour above the "
            f"lower bound, more than {_OPTIMAL_TOLERANCE_NANOUSD_PER_HOUR} for each of the {nodes} nodes"
        )
    if proven > value:
        problems.append(
            f"the certificate proves {proven} nanodollars per hour, more than the plan's value {value}: "
            "the plan breaks a constraint, or the certificate is about another cluster"
        )
    undecided = tuple(i for i, found in ranges.items() if not found.exact) if reachable >= claimed > proven else ()
    return Verdict(tuple(problems), value, proven, undecided)


def _match_groups(plan: Plan, facts: Facts) -> tuple[dict[int, tuple[int, int]], list[str]]:
    """Return (count, π) of each group of the facts, by its index, from the certificate's groups; and what is wrong.

    Groups are recognised by requests and workloads. Pods of one workload may be in several groups; then only
    their sum is known from the plan's unplaced pods, and each group's own count must be within what it has.
    """
    left: list[CertificateGroup] = list(plan.certificate.groups)
    problems = [
        f"certificate group {g.id}: the price {g.price_nanousd_per_hour} must not be negative"
        for g in left
        if g.price_nanousd_per_hour < 0
    ]
    if len({g.id for g in left}) < len(left):
        problems.append("certificate: two groups have the same id")
    matched: dict[int, tuple[int, int]] = {}
    membership: dict[str, int] = {}
    for group in facts.groups:
        for workload in group.workloads:
            membership[workload] = membership.get(workload, 0) + 1
    for index, group in enumerate(facts.groups):
        present = group.running_count + group.pending_count
        fewest, most = _placed_range(group, plan, facts, membership)
        alike = [
            g for g in left if g.requests == group.key.requests.with_shares(()) and set(g.workloads) <= group.workloads
        ]
        alike.sort(key=lambda g: (set(g.workloads) != group.workloads, not fewest <= g.count <= most))
        names = ", ".join(sorted(group.workloads))
        if not alike:
            if fewest:
                problems.append(f"certificate: the group of the {present} pods of {names} is missing")
            matched[index] = (0, 0)
            continue
        found = alike[0]
        left.remove(found)
        missing = _with_placed_pods(group, plan) - set(found.workloads)
        if missing:
            problems.append(f"certificate group {found.id}: {', '.join(sorted(missing))} is missing in it")
        if not fewest <= found.count <= most:
            right = str(fewest) if fewest == most else f"{fewest} to {most}"
            problems.append(f"certificate group {found.id}: count is {found.count}, the inputs say {right}")
        matched[index] = (found.count, max(0, found.price_nanousd_per_hour))
    problems += [f"certificate group {g.id}: the inputs have no such pods" for g in left]
    grouped = sum(group.running_count + group.pending_count for group in facts.groups)
    unplaced = sum(facts.unplaced_of_groups(workload, plan) for workload in plan.unplaced)
    total = sum(count for count, _ in matched.values())
    if not problems and total != grouped - unplaced:
        problems.append(f"certificate: its groups count {total} pods, the plan places {grouped - unplaced}")
    return matched, problems


def _placed_range(group: Group, plan: Plan, facts: Facts, membership: Mapping[str, int]) -> tuple[int, int]:
    """Return how many pods of the group the plan places, at least and at most."""
    fewest = most = group.running_count
    for workload, pending in group.pending.items():
        unplaced = min(pending, facts.unplaced_of_groups(workload, plan))
        fewest += pending - unplaced
        most += pending - (unplaced if membership[workload] == 1 else 0)
    return fewest, most


def _with_placed_pods(group: Group, plan: Plan) -> set[str]:
    """Name the workloads of the group that surely have a placed pod in it: the pending ones that are all placed."""
    return {w for w in group.pending if w not in plan.unplaced}


def _columns(facts: Facts, counts: Mapping[int, tuple[int, int]]) -> dict[str, _Column]:
    """Return every class by what names it: each node that is not frozen, each offering."""
    found: dict[str, _Column] = {}
    for name in facts.nodes:
        role = facts.role(name)
        if role == "frozen":
            continue
        cost = facts.price_nanousd_per_hour(name)
        cost -= facts.exit_cost_nanousd_per_hour(name) if role == "removable" else 0
        here = {i: group.here[name] for i, group in enumerate(facts.groups) if name in group.here}
        found[node_label(name)] = _Column(
            node_label(name), facts.spots[name], cost, 1, _displeasure(facts, facts.spots[name]), here
        )
    for key, (offering, spot) in facts.offers.items():
        pods = sum(counts[i][0] for i, group in enumerate(facts.groups) if spot.takes(group.key))
        limit = max(offering.minimum, pods)
        if offering.maximum is not None:
            limit = min(facts.most(offering.pool, offering.zone, offering.maximum), limit)
        label = "/".join(key)
        found[label] = _Column(label, spot, offering.price_nanousd_per_hour, limit, _displeasure(facts, spot))
    return found


def _displeasure(facts: Facts, spot: Spot) -> dict[int, int]:
    """Return by its index what one pod of each group costs here, where it is anything."""
    cost, place = facts.tastes.cost_nanousd_per_hour, surroundings(spot)
    costs = ((index, cost(group.key.wishes, group.key.constraints, place)) for index, group in enumerate(facts.groups))
    return {index: cost for index, cost in costs if cost}


def _check_classes(claimed: Iterable[CertificateClass], columns: Mapping[str, _Column], facts: Facts) -> list[str]:
    """Every class must be there, once, with the limit and the cost that the inputs give."""
    problems: list[str] = []
    seen: set[str] = set()
    for kind in claimed:
        label = "/".join(offering_key(kind)) if kind.node is None else node_label(kind.node)
        column = columns.get(label)
        if column is None:
            problems.append(f"certificate class {kind.id}: the inputs have no such kind of node ({label})")
            continue
        if label in seen:
            problems.append(f"certificate class {kind.id}: {label} is there twice")
        seen.add(label)
        if kind.node is not None:
            node = facts.nodes[kind.node]
            right = (facts.inputs.catalogue.pool_of(node), node.zone, node.machine_type, node.capacity_type)
            if offering_key(kind) != right:
                said = "/".join(offering_key(kind))
                problems.append(f"certificate class {kind.id}: is {said}, the inputs say {'/'.join(right)}")
        if kind.limit != column.limit:
            problems.append(f"certificate class {kind.id}: limit is {kind.limit}, the inputs say {column.limit}")
        if kind.cost_nanousd_per_hour != column.cost:
            problems.append(
                f"certificate class {kind.id}: cost is {kind.cost_nanousd_per_hour} nanodollars per hour, "
                f"the inputs say {column.cost}"
            )
    problems += [
        f"certificate: the class of {label} is missing, so nothing bounds what it could do"
        for label in columns
        if label not in seen
    ]
    return problems


def _check_rows(rows: Iterable[CertificateRow], limits: Mapping[tuple[str, str], Limit]) -> list[str]:
    """Each row must be a limit of the inputs, with its right-hand side and a dual that is not negative."""
    problems: list[str] = []
    seen: set[tuple[str, str]] = set()
    for row in rows:
        label = f"certificate row {row.kind} {row.scope}"
        if row.dual_nanousd_per_hour < 0:
            problems.append(f"{label}: the dual {row.dual_nanousd_per_hour} must not be negative")
        limit = limits.get((row.kind, row.scope))
        if limit is None:
            problems.append(f"{label}: the inputs have no such constraint")
        elif row.rhs != limit.rhs:
            problems.append(f"{label}: rhs is {row.rhs}, the inputs say {limit.rhs}")
        if (row.kind, row.scope) in seen:
            problems.append(f"{label} is there twice")
        seen.add((row.kind, row.scope))
    return problems


class _Terms:
    """The parts of the bound that need no knapsack, and what one node of a class is worth before any pod."""

    def __init__(self, facts: Facts, counts: Mapping[int, tuple[int, int]], duals: Iterable[tuple[Limit, int]]) -> None:
        self.facts = facts
        self.counts = counts
        self.duals = [(limit, dual) for limit, dual in duals if dual]
        self.worth: Counter[str] = Counter()
        for limit, dual in self.duals:
            for label, coefficient in limit.coefficients.items():
                self.worth[label] += coefficient * dual
        self.move = facts.inputs.prices.move_nanousd_per_hour
        asked = {name for group in facts.groups for name in group.key.requests.requested()}
        self.names = sorted(name for name in asked if other_side(name) is None)
        self.constant = self._constant()

    def _constant(self) -> int:
        total = pinned_displeasure(self.facts)
        for name in self.facts.nodes:
            match self.facts.role(name):
                case "frozen":
                    total += self.facts.price_nanousd_per_hour(name)
                case "removable":
                    total += self.facts.exit_cost_nanousd_per_hour(name)
        for index, group in enumerate(self.facts.groups):
            count, price = self.counts[index]
            total += count * price - self.move * (count - group.running_count)
        return total + sum(limit.rhs * dual for limit, dual in self.duals)

    def floor(self, column: _Column) -> int:
        """Return c - Σ λ·coefficient: what the pods on one node must be worth to lower the bound."""
        return column.cost - self.worth[column.label]

    def items(self, column: _Column) -> list[tuple[tuple[Item, ...], tuple[int, ...]]]:
        """Return the knapsack of one node: pods that are there are worth π less displeasure, arriving ones m less.

        Of two sides that never share a node each is tried without the other; the best content is that of one of these
        knapsacks. Beyond `_MOST_PAIRS` pairs of sides they are let together, which can only weaken the bound.
        """
        useful = [
            (index, group, dict(group.key.requests.shares))
            for index, group in enumerate(self.facts.groups)
            if all(self.counts[index]) and column.spot.holds(group.key)
        ]
        marks = {name for _, _, shares in useful for name in shares}
        pairs = sorted((name, other) for name in marks if (other := other_side(name)) in marks and name < str(other))
        found = []
        for absent in itertools.product(*pairs[:_MOST_PAIRS]):
            items: list[Item] = []
            for index, group, shares in useful:
                if not shares.keys().isdisjoint(absent):
                    continue
                count, price = self.counts[index]
                amounts = group.key.requests.requested()
                weights = tuple(amounts.get(name, 0) for name in self.names)
                price -= column.displeasure.get(index, 0)
                staying = min(count, column.here.get(index, 0))
                if staying:
                    items.append(Item(price, weights, staying))
                if column.spot.takes(group.key):
                    items.append(Item(price - self.move, weights, count - staying))
            found.append((tuple(items), column.spot.room.left(self.names)))
        return found


def _knapsacks(
    terms: _Terms, columns: Mapping[str, _Column], deadline: float, now: Callable[[], float]
) -> dict[str, Range]:
    """Return max(floor, V) of every class; equal ones are solved once.

    A first round gives each a small share of the time, so that a few hard ones do not keep the others open; a second
    one shares what is left among those that are.
    """
    questions = {
        label: [(*knapsack, terms.floor(column)) for knapsack in terms.items(column)]
        for label, column in columns.items()
    }
    every = [question for asked in questions.values() for question in asked]
    waiting = set(every)
    answers: dict[tuple[tuple[Item, ...], tuple[int, ...], int], Range] = {}
    for share in (_FIRST_SHARE, 1.0):
        still_open = len(waiting)
        for question in every:
            if question not in waiting:
                continue
            waiting.remove(question)
            items, room, floor = question
            until = now() + share * max(0.0, deadline - now()) / still_open
            still_open -= 1
            answers[question] = greatest_value(items, room, floor, _expiry(until, now))
        waiting = {question for question in every if not answers[question].exact}
    return {
        label: Range(max(answers[q].lower for q in asked), max(answers[q].upper for q in asked))
        for label, asked in questions.items()
    }


def _expiry(until: float, now: Callable[[], float]) -> Callable[[], bool]:
    return lambda: now() >= until
