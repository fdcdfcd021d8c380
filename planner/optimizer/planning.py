"""One plan from its inputs: candidates, the bound, the best candidate, the proof."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from math import inf

import numpy as np

from planner.errors import SolverError
from planner.model.cap import CpuCap
from planner.model.effort import Effort, Watch
from planner.model.inputs import PlanningInputs
from planner.model.plan import Plan
from planner.optimizer import heuristics
from planner.optimizer.assembly import finish
from planner.optimizer.census import census_of
from planner.optimizer.certificate import Bound, certificate
from planner.optimizer.constraints import IntArray
from planner.optimizer.continuing import packing_as, prices_as
from planner.optimizer.fluid import Fluid, fluid
from planner.optimizer.master import Columns, CvxpySolver, Solver
from planner.optimizer.movement import GroupKey, movement_of
from planner.optimizer.packing import Packing
from planner.optimizer.pooling import given_out, pooled
from planner.optimizer.problem import Problem, build_problem
from planner.optimizer.race import Race
from planner.optimizer.relief import above_cap, with_allowances, with_predicted_cpu
from planner.optimizer.search import Search
from planner.optimizer.seats import seated
from planner.optimizer.settling import Settled, settle
from planner.optimizer.tightening import tightened

# Of the time, at most this share goes to the bound before the plan gets the rest; less where rounding decides.
_BOUND_SHARE, _FIRST_BOUND_SHARE = 0.5, 0.25
# So many dives are made, fewer where so many in a row are no better. One that takes more than this share of what is
# left leaves too little for what betters its plan.
_DIVES, _VAIN_DIVES, _DIVE_SHARE = 12, 4, 0.6
# So much of the time goes to dives before the best of their plans is improved: near the continuous optimum each rounds
# to another plan, and of fifty large nodes the best of five is cheaper than what neighborhoods make of the first.
_DIVING_SHARE = 0.8
# A dive is made again where the continuous optimum fell since by this share of what the best plan is above it.
_WORTH_A_DIVE = 0.05
_FITS: tuple[heuristics.Fit, ...] = ("first", "best")
_ORDERS: tuple[heuristics.Largest, ...] = ("all", "most")
# Whole pods fill no node to the last byte: so much of the room the relaxation is let fill before its pods are dealt, of
# nodes that run and where all are new. Of the time, at most this share is spent on it.
_FILLED, _FILLED_NEW = (0.97, 0.98, 0.96, 0.99, 0.95), (0.98,)
_DEALING_SHARE = 0.6
_LEAST_SECONDS = 1.0
# So long may the first relaxation take that the plan of a running cluster is dealt from, which of 5,000 nodes takes
# five seconds: what is known besides may be no better than the present state.
_FIRST_DEALING_SECONDS = 15.0
# Where the plan is made for a part of what is possible, there is no search in that part unless what is left is so many
# times what it took so far: its relaxation, the plan that is dealt and the proof of the whole take that long.
_SEARCHING_SHARE = 3.0
# So many plans are made node by node, in so much of the time, fewer where so many in a row are no better.
_SEQUENCES, _SEQUENCES_SHARE, _VAIN_SEQUENCES = 12, 0.2, 3
# Column generation goes on only while, in so many rounds, it proves more or is worth a dive.
_VAIN_ROUNDS = 5
# This share of the time goes to best fit with each offering as the one that is opened, and so many seconds where none
# is left: the first plan is no better than first fit.
_OPENINGS_SHARE, _OPENINGS_SECONDS = 0.05, 0.05
# More existing nodes than this are pooled, since each is a knapsack of its own in every round.
_MOST_SINGLE = 60
# Where the continuous optimum cuts most nodes, the best plan so far is improved before a dive, until so much of the
# time, and the bound gets its own after that.
_IMPROVING_SHARE, _WHOLE_PROOF_SHARE = 0.75, 0.9
# Until so much of the time the best plan of all dives is improved; what is left is enough to tighten it.
_IMPROVED_SHARE = 0.98
# To pick, at most this share of what is left, or a second.
_PICK_SHARE = 0.3


def optimize(inputs: PlanningInputs, effort: Effort, watch: Watch) -> Plan:
    """Return the cheapest plan that was found within the effort, with its proven lower bound.

    Raises:
        BadSettings: the solver is not installed.
        SolverError: the solver failed or gave an answer that does not check, or no plan exists.
    """
    return plan_with(CvxpySolver(effort.solver), inputs, effort, watch)


def plan_with(solver: Solver, inputs: PlanningInputs, effort: Effort, watch: Watch) -> Plan:
    """Return the plan to which this solver leads; raises as `optimize` does."""
    least, enough = with_allowances(inputs)
    if least is enough:
        return _plan_once(solver, least, effort, watch)
    # Nodes that could not be relieved by first fit or best fit get half of the time to be so by the search.
    half = replace(effort, time_limit_seconds=effort.time_limit_seconds / 2)
    try:
        strict = _plan_once(solver, least, half, watch)
    except SolverError:
        return _plan_once(solver, enough, half, watch)
    if not strict.unplaced:
        return strict
    lenient = _plan_once(solver, enough, half, watch)
    return min(strict, lenient, key=lambda plan: sum(left_out.count for left_out in plan.unplaced.values()))


def _plan_once(solver: Solver, inputs: PlanningInputs, effort: Effort, watch: Watch) -> Plan:
    start = watch.now()
    settled = _settled(inputs)
    movement, problem = settled.census.movement, settled.problem
    race = Race(settled, effort, watch, start)
    known = [heuristics.fill(problem, heuristics.present_state(problem), fit) for fit in _FITS]
    if inputs.start is not None:
        known.append(heuristics.fill(problem, packing_as(inputs.start, problem), "best"))
        # After an earlier plan little is to be gained, and most of that by few moves.
        known += heuristics.topped_up(problem, lambda: race.left() <= 0)
    for packing in sorted(known, key=race.rank):
        race.enter(packing)
    early = _early_proof(solver, inputs, settled, race)
    if early is not None and not race.settled_by(early.proof):
        race.tighten()
    if early is not None and race.settled_by(early.proof):
        prepared = watch.now() - start
        race.please()
        plan = finish(movement, race.found(), early.proof.value, certificate(early.problem, early.proof), None)
        return replace(plan, timings_seconds=_timings(prepared, prepared, watch.now() - start))
    solved, became = _at_size(problem)
    search = Search(solved, solver, race.left)
    if not race.narrow or race.left() > _SEARCHING_SHARE * (watch.now() - start):
        search.start_at(_relaxation(solved, solver, race.left))
    if inputs.start is not None and race.left() > 0:
        search.propose(prices_as(inputs.start, solved, search.proof.pod_prices))
    race.bound(search.proof)
    if solved is problem:
        known += _sequences(search, race)
    dealt = _dealt(problem, solver, race)
    known += dealt
    if inputs.start is None:
        seconds = _OPENINGS_SHARE * effort.time_limit_seconds if race.left() > 0 else _OPENINGS_SECONDS
        known += _opened(problem, race, seconds, watch.now)
    for packing in _known_plans(problem, race, topped_up=inputs.start is None) if race.left() > 0 or not dealt else ():
        known.append(packing)
        race.enter(packing)
        if race.left() <= 0 or race.won():
            break
    for packing in known:
        search.start_from(Packing(became[packing.classes], packing.contents))
    prepared = watch.now() - start
    _prove(search, race, _FIRST_BOUND_SHARE)
    proven = watch.now() - start
    if search.mostly_cut():
        race.improve(search, solver, _IMPROVING_SHARE)
        _prove(search, race, _WHOLE_PROOF_SHARE)
    else:
        _prove(search, race, _BOUND_SHARE)
    _round(problem, became, search, solver, race)
    race.please()
    best, cap = race.found(), inputs.cap
    best = replace(best, nodes=with_predicted_cpu(movement, best.nodes))
    if cap is not None:
        # What the planner holds itself may keep a node above the cap, too: the proof is about a problem that allows it.
        cap = replace(cap, allowed_millicores=above_cap(cap, best.nodes))
    if race.leaves_more_out() or race.narrow:
        apart = dict(zip((g.key for g in problem.groups), search.proof.pod_prices.tolist(), strict=True))
        known_prices = (search.proof.pod_prices > problem.move_prices).any()
        search = (
            early if early is not None and not race.leaves_more_out() else _whole(solver, inputs, settled, race, cap)
        )
        solved, before = search.problem, race.all_left()
        if search is not early:
            search.start_at(_relaxation(solved, solver, race.all_left))
        # Other prices take about as long as the first ones, and so does each round of column generation.
        took = before - race.all_left()
        if known_prices and race.all_left() > took:
            search.propose(_together(solved, apart, search.proof.pod_prices))
        if inputs.start is not None and search is not early:
            search.propose(prices_as(inputs.start, solved, search.proof.pod_prices))
        if not race.settled_by(search.proof) and race.all_left() > took:
            search.generate(_proven(race))
    plan = finish(movement, best, search.proof.value, certificate(search.problem, search.proof), cap)
    return replace(plan, timings_seconds=_timings(prepared, proven, watch.now() - start))


def _proven(race: Race) -> Callable[[Bound, float], bool]:
    """Return what ends the last proof: the best plan is proven, or little is left, or many rounds proved no more."""
    proofs: list[int] = []

    def enough(proof: Bound, relaxed: float) -> bool:
        proofs.append(proof.value)
        if len(proofs) > _VAIN_ROUNDS and proofs[-1] == proofs[-1 - _VAIN_ROUNDS]:
            return True
        return race.settled_by(proof) or relaxed - proof.value <= race.worth_proving(relaxed)

    return enough


def _settled(inputs: PlanningInputs) -> Settled:
    """Return the problem: where all have a place that can have one, that in which pods that wait need nobody's room."""
    movement = movement_of(inputs)
    if not inputs.seated:
        return settle(movement)
    at_once = settle(seated(movement))
    filled = heuristics.fill(at_once.problem, heuristics.present_state(at_once.problem), "best")
    if filled.unplaced(at_once.problem).any():
        return settle(movement)
    if not at_once.unplaceable:
        return at_once
    patient = settle(movement)
    many = {key: found.count for key, found in patient.unplaceable.items()}
    return at_once if {key: found.count for key, found in at_once.unplaceable.items()} == many else patient


def _timings(prepared: float, proven: float, ended: float) -> dict[str, float]:
    """Return how long each stage took, from when each ended."""
    return {"prepare": prepared, "prove": proven - prepared, "search": ended - proven}


def _whole(solver: Solver, inputs: PlanningInputs, settled: Settled, race: Race, cap: CpuCap | None) -> Search:
    """Return a search in the problem that the proof is about, from the present state.

    It is about the pods that have a place, and without what the planner chose itself; what it holds keeps its requests.
    """
    movement, problem = settled.census.movement, settled.problem
    if race.narrow or race.leaves_more_out():
        changes = {key: wanted for key, wanted in inputs.forecast.requests.items() if key not in inputs.held}
        forecast = replace(inputs.forecast, requests=changes)
        open_ = replace(inputs, held={}, fresh=frozenset(), forecast=forecast, cap=cap)
        same = open_ == inputs
        whole = (movement if same else movement_of(open_)).anywhere()
        missing = Counter[GroupKey]()
        for key, count in race.left_out(settled.left_out).items():
            for member, each in key.members or ((key, 1),):
                missing[member.anywhere()] += each * count
        problem = build_problem(census_of(whole, settled.census if same else None), missing)
    solved, became = _at_size(problem)
    search = Search(solved, solver, race.all_left)
    present = heuristics.present_state(problem)
    search.start_from(Packing(became[present.classes], present.contents))
    return search


def _early_proof(solver: Solver, inputs: PlanningInputs, settled: Settled, race: Race) -> Search | None:
    """Return what is proven of a plan that goes on from another one, before anything else is looked for."""
    if inputs.start is None or inputs.cap is not None or race.best is None or race.leaves_more_out():
        return None
    search = _whole(solver, inputs, settled, race, None)
    search.start_at(_relaxation(search.problem, solver, race.all_left))
    if not race.settled_by(search.proof):
        search.propose(prices_as(inputs.start, search.problem, search.proof.pod_prices))
    race.bound(search.proof)
    return search


def _relaxation(
    problem: Problem, solver: Solver, left: Callable[[], float]
) -> Callable[[IntArray, Columns], Fluid | None]:
    """Return what solves the relaxation of the problem in the time that is left, or a second."""
    return lambda cut, whole: fluid(problem, cut, solver, max(left(), _LEAST_SECONDS), whole=whole)


def _dealt(problem: Problem, solver: Solver, race: Race) -> list[Packing]:
    """Enter and return the plans near the relaxation in which pods and nodes may be cut, each with other reserves."""
    found: list[Packing] = []
    leaders, took = np.unique(problem.dominators()), 0.0
    # Where every node is new, dives lead to better plans than more of these.
    running = any(c.role != "offering" for c in problem.classes)
    for filled in _FILLED if running else _FILLED_NEW:
        # Of a running cluster the first is made whatever the time: all that is known so far may be its present state.
        before = race.left()
        over = race.hurried() or ((found or not running) and race.left(_DEALING_SHARE if found else 1.0) <= took)
        if race.won() or over:
            break
        least = _FIRST_DEALING_SECONDS if running and not found else _LEAST_SECONDS
        cut = fluid(problem, leaders, solver, max(race.left(), least), filled)
        if cut is None:
            break
        found.append(heuristics.repaired(problem, heuristics.deal(problem, cut.kinds, cut.nodes, cut.shares)))
        race.enter(found[-1])
        if running:
            # What it is worth shows when it is tight.
            first = len(found) == 1
            found.append(tightened(problem, found[-1], race.hurried if first else lambda: race.left() <= 0))
            race.enter(found[-1])
        took = before - race.left()
    return found


def _sequences(search: Search, race: Race) -> list[Packing]:
    """Enter and return plans made node by node, until several in a row were no better or their time is over."""
    found: list[Packing] = []
    vain = 0
    for packing in search.sequences(_SEQUENCES, lambda: race.left(_SEQUENCES_SHARE) <= 0):
        before = race.to_beat()
        found.append(packing)
        race.enter(packing)
        vain = 0 if race.to_beat() < before else vain + 1
        if race.won() or vain >= _VAIN_SEQUENCES:
            break
    return found


def _opened(problem: Problem, race: Race, seconds: float, now: Callable[[], float]) -> list[Packing]:
    """Enter and return best fit with each good offering as the one that is opened, as many as these seconds allow."""
    found: list[Packing] = []
    end = now() + seconds
    for opening, largest_by in product(heuristics.openings(problem).tolist(), _ORDERS):
        if now() >= end or race.hurried():
            break
        packed = heuristics.fill(problem, heuristics.empty_cluster(problem), "best", opening, largest_by)
        found.append(heuristics.with_cheapest_offerings(problem, packed))
        race.enter(found[-1])
    return found


def _at_size(problem: Problem) -> tuple[Problem, IntArray]:
    """Return the problem to search in, pooled where there are many existing nodes, and what each class became in it."""
    existing = sum(c.role != "offering" for c in problem.classes)
    if existing <= _MOST_SINGLE:
        return problem, np.arange(len(problem.classes))
    return pooled(problem)


def _together(problem: Problem, apart: Mapping[GroupKey, int], otherwise: IntArray) -> IntArray:
    """Return prices for groups of pods that were priced apart by home: the mean of these prices, (groups,)."""
    found: dict[GroupKey, list[int]] = {}
    for key, price in apart.items():
        found.setdefault(key.anywhere(), []).append(price)
    prices = [
        sum(found[g.key]) // len(found[g.key]) if g.key in found else int(price)
        for g, price in zip(problem.groups, otherwise, strict=True)
    ]
    return np.array(prices, dtype=np.int64)


def _prove(search: Search, race: Race, share: float, *, patiently: bool = False) -> None:
    """Look for contents until this share of the time is over, or what is not proven is little beside the best plan.

    Unless it goes on `patiently`, it also ends where `_VAIN_ROUNDS` in a row neither proved more nor lowered the
    continuous optimum by much.
    """
    proofs: list[int] = []
    optima: list[float] = []

    def enough(proof: Bound, relaxed: float) -> bool:
        race.bound(proof)
        if optima and relaxed > optima[-1]:
            # It rises only where exchanges came to an end.
            proofs.clear()
            optima.clear()
        proofs.append(proof.value)
        optima.append(relaxed)
        if not patiently and len(optima) > _VAIN_ROUNDS and proofs[-1] == proofs[-1 - _VAIN_ROUNDS]:
            fell = optima[-1 - _VAIN_ROUNDS] - relaxed
            if fell < _WORTH_A_DIVE * race.above(relaxed) < inf:
                return True
        return race.left(share) <= 0 or race.won() or relaxed - proof.value <= race.worth_proving(relaxed)

    if not race.won():
        search.generate(enough)


def _round(problem: Problem, became: IntArray, search: Search, solver: Solver, race: Race) -> None:
    """Enter plans near the continuous optimum: dives, the best of the known contents, and what betters the best one."""

    def going_on(share: float = 1.0) -> bool:
        return not race.won() and race.left(share) > 0

    def dive(turn: int) -> None:
        race.enter(given_out(problem, became, search.dive(turn, _DIVE_SHARE)))

    def pick(*, among_all: bool) -> None:
        left = race.left()
        seconds = max(min(left, _LEAST_SECONDS), left * _PICK_SHARE)
        picked = search.pick(race.to_beat(), seconds, among_all=among_all)
        if picked is not None:
            race.enter(given_out(problem, became, picked))

    if going_on():
        dive(0)
        # Now that a good plan is known, the bound is worth more exactness.
        before = search.optimum()
        _prove(search, race, _BOUND_SHARE)
        if before - search.optimum() > _WORTH_A_DIVE * race.above(search.optimum()) and race.left() > 0:
            dive(0)
        if search.unproven() > race.above(search.optimum()):
            # More of the gap is the bound's than the plan's.
            _prove(search, race, _WHOLE_PROOF_SHARE, patiently=True)
        if going_on():
            pick(among_all=True)
        race.tighten()
    vain = 0
    for turn in range(1, _DIVES):
        if not going_on(_DIVING_SHARE) or vain >= _VAIN_DIVES:
            break
        before = race.to_beat()
        dive(turn)
        race.tighten()
        vain = 0 if race.to_beat() < before else vain + 1
    if going_on():
        pick(among_all=False)
    race.improve(search, solver, _IMPROVED_SHARE)
    race.tighten()


def _known_plans(problem: Problem, race: Race, *, topped_up: bool) -> Iterator[Packing]:
    """Yield the plans that need no solver: what goes on from the nodes that there are (`topped_up`), fresh starts."""
    if topped_up:
        yield from heuristics.topped_up(problem, lambda: race.left() <= 0)
    for fit in _FITS:
        packed = heuristics.fill(problem, heuristics.empty_cluster(problem), fit)
        yield packed
        yield heuristics.cheapen(problem, packed)
