"""Which pods can move now: roll-outs and evictions for which there is room at this moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from planner.model.cluster import Pod, Snapshot
from planner.model.disruption import Mobility
from planner.model.plan import EvictPod, Plan, PlanRecord, RollOut, Step
from planner.rescheduler.arrivals import awaited, evicted_and_open, promise_what_comes, rolls
from planner.rescheduler.disruption import SharedBudgets, disrupted_by_budget
from planner.rescheduler.movers import Mover, movers_of
from planner.rescheduler.placement import opening
from planner.rescheduler.room import Room


@dataclass(frozen=True, slots=True)
class Moves:
    """Which moves can start now, what is under way (a reason each), and what cannot move yet.

    `evictions` have their target nodes; `openings` are (node, workload) of targets that pods follow to in the next
    round. `stuck` has the reason of each workload that finds no room, `behind` of each whose room those before it
    want.
    """

    rollouts: tuple[str, ...]
    evictions: tuple[tuple[Pod, str], ...]
    openings: tuple[tuple[str, str], ...]
    under_way: tuple[str, ...]
    stuck: tuple[tuple[str, str], ...]
    behind: tuple[tuple[str, str], ...]

    @property
    def waiting(self) -> tuple[str, ...]:
        """What is waited for, in words."""
        return (*self.under_way, *(f"{key}: {reason}" for key, reason in (*self.stuck, *self.behind)))

    @property
    def at_rest(self) -> bool:
        """Whether nothing can start and nothing is under way."""
        return not (self.rollouts or self.evictions or self.openings or self.under_way)

    @property
    def over(self) -> bool:
        """Whether nothing is left to start or to wait for."""
        return self.at_rest and not (self.stuck or self.behind)


def find_moves(
    record: PlanRecord, snapshot: Snapshot, allowed: Mapping[str, Mobility], *, in_order: bool = True
) -> Moves:
    """Find every move that has room now, after room was set aside for those that are under way.

    `allowed` says how each workload may be moved (`mobilities`). Where the moves are not to be `in_order`, no room is
    kept for those that wait.
    """
    room = Room(record.plan, snapshot, keeps_claims=in_order)
    movers = movers_of(record, snapshot)
    under_way = []
    for mover in movers:
        if reason := awaited(record, mover):
            under_way.append(reason)
        promise_what_comes(record, mover, room)
    waiting = [mover for mover in movers if not rolls(record, mover)]
    busy = {mover.key for mover in movers if awaited(record, mover)}
    disrupted = disrupted_by_budget(snapshot, allowed, {m.key for m in movers if rolls(record, m)} & busy)
    return replace(choose_moves(waiting, room, allowed, disrupted, busy), under_way=tuple(under_way))


def choose_moves(
    movers: Sequence[Mover],
    room: Room,
    allowed: Mapping[str, Mobility],
    disrupted: Mapping[str, int] | None = None,
    busy: Collection[str] = (),
) -> Moves:
    """Choose the moves that start now, and set their room aside.

    `disrupted` counts by disruption budget the pods that are unavailable already. A roll-out asks no budget, so those
    of several workloads under one must not take down more pods at once than it allows, evictions included.

    The workloads come in the order of their stages. One that still waits keeps its room claimed against those behind
    it, so that a slow pod here or a fast one there cannot lead into a state that the rehearsal never saw
    (docs/designs/stages.md). What must find pods of others on its new nodes waits until those have moved, `busy` ones
    included.
    """
    found = _Found(SharedBudgets(Counter(disrupted or {})))
    unfinished = {mover.key for mover in movers if mover.unfinished}.union(busy)
    seen: set[str] = set()
    for mover in movers:
        mobility = allowed.get(mover.key, _IMMOBILE)
        seen.add(mover.key)
        if first := sorted(mover.follows & unfinished):
            # No room is kept from those that must come first.
            for node, count in mover.wanted.items() if seen.union(busy).issuperset(first) else ():
                room.claim(node, mover.planned.requests * max(0, count - mover.standing.get(node, 0)))
            found.behind.append((mover.key, f"it must stand beside {', '.join(first)}, which goes first"))
        elif mover.planned.strategy == "rollout":
            _choose_rollout(mover, mobility, room, found)
        else:
            _choose_evictions(mover, mobility, room, found)
    return Moves(
        rollouts=tuple(found.rollouts),
        evictions=tuple(found.evictions),
        openings=tuple(found.openings),
        under_way=(),
        stuck=tuple(found.stuck),
        behind=tuple(found.behind),
    )


def starts(plan: Plan, snapshot: Snapshot, moves: Moves) -> tuple[Step, ...]:
    """Return the steps that begin these moves: roll-outs, targets that open, evictions towards open ones."""
    rollouts = [
        RollOut(key, plan.workloads[key].uid, plan.iteration, plan.workloads[key].containers) for key in moves.rollouts
    ]
    more: dict[str, Counter[str]] = {}
    for node, key in moves.openings:
        more.setdefault(node, Counter())[key] += 1
    openings = [opening(node, more[node.name]) for node in snapshot.nodes if node.name in more]
    evictions = [
        EvictPod(p.namespace, p.name, p.uid, p.workload, p.node or "", f"the plan puts it on {target}")
        for p, target in moves.evictions
    ]
    return (*rollouts, *openings, *evictions)


_BUDGET_SPENT = "pods of others under its disruption budget are unavailable"
_IMMOBILE = Mobility(False, 0, "its controller is not known")


@dataclass(slots=True)
class _Found:
    budgets: SharedBudgets
    rollouts: list[str] = field(default_factory=list)
    evictions: list[tuple[Pod, str]] = field(default_factory=list)
    openings: list[tuple[str, str]] = field(default_factory=list)
    stuck: list[tuple[str, str]] = field(default_factory=list)
    behind: list[tuple[str, str]] = field(default_factory=list)


def _choose_rollout(mover: Mover, mobility: Mobility, room: Room, found: _Found) -> None:
    """Start the roll-out if every new pod has room beside all pods that still stand; else claim the room."""
    unavailable = mover.workload.max_unavailable
    refused = found.budgets.spare(mobility, unavailable) < unavailable
    asked = {node: mover.planned.requests * count for node, count in sorted(mover.wanted.items())}
    tight = [node for node, requests in asked.items() if not room.would_hold(node, requests)]
    claimed = [node for node, requests in asked.items() if not room.holds(node, requests)]
    for node, requests in asked.items():
        (room.claim if claimed or refused else room.promise)(node, requests)
    if tight:
        found.stuck.append((mover.key, f"its new pods do not fit beside the old ones on {', '.join(tight)}"))
    elif claimed:
        found.behind.append((mover.key, f"others go first on {', '.join(claimed)}"))
    elif refused:
        found.behind.append((mover.key, _BUDGET_SPENT))
    else:
        found.rollouts.append(mover.key)
        found.budgets.disrupt(mobility, unavailable)


def _choose_evictions(mover: Mover, mobility: Mobility, room: Room, found: _Found) -> None:
    """Evict as many misplaced pods as may be unavailable now, each towards a planned node that suits it and has room.

    A target that is published but not open yet is opened first; the pod follows in the next round.
    """
    misplaced, requests = mover.misplaced, mover.planned.requests
    if not misplaced and not mover.coming:
        return
    here = Counter(mover.here)
    taken = Counter(evicted_and_open(mover, room))
    here += taken
    coming = _targets_of_coming(mover, here, taken, room)
    _open_for_coming(mover, coming - taken, here, room, found)
    # Whoever comes takes an open target, be it another's; only what they leave over is open for evictions.
    open_ = list((taken - coming).elements())[: max(0, taken.total() - mover.coming)]
    own = max(0, mobility.evictable - mover.unavailable)
    quota = max(0, min(own, found.budgets.spare(mobility, own)))
    begun = 0
    # Where pods of one kind may go yet, the last first: room only becomes less here, so that no node is tried again.
    untried: dict[object, tuple[Callable[[str], bool], list[str]]] = {}
    for pod in misplaced:
        if begun == quota:
            break
        if (kind := room.kind_of(pod)) not in untried:
            untried[kind] = _suiting(mover, pod, kind, room), list(mover.wanted)[::-1]
        suits, left = untried[kind]
        if (target := next((n for n in open_ if suits(n)), None)) is not None:
            open_.remove(target)
            found.evictions.append((pod, target))
            begun += 1
            continue
        while left and not (
            here[left[-1]] < mover.wanted[left[-1]] and suits(left[-1]) and room.holds(left[-1], requests)
        ):
            left.pop()
        if not left:
            continue
        target = left[-1]
        room.promise(target, requests)
        here[target] += 1
        if target in room.opened:
            found.openings.append((target, mover.key))
        else:
            found.evictions.append((pod, target))
        begun += 1
    found.budgets.disrupt(mobility, begun)
    if begun == len(misplaced):
        return
    for node, count in mover.wanted.items():
        if count > here[node]:
            room.claim(node, requests * (count - here[node]))
    if not quota and own:
        found.behind.append((mover.key, _BUDGET_SPENT))
    elif not quota and not mover.unavailable:
        found.stuck.append((mover.key, "its disruption budgets allow no eviction now"))
    elif quota and not begun:
        free = any(here[n] < count and room.would_hold(n, requests) for n, count in mover.wanted.items())
        reason = f"no planned node has room for its pod {misplaced[0].name}"
        (found.behind if free else found.stuck).append((mover.key, reason))


def _open_for_coming(mover: Mover, closed: Counter[str], here: Counter[str], room: Room, found: _Found) -> None:
    """Open the `closed` targets of pods that are on no node, where there is room; say which ones wait.

    `here` counts the pods by node, those included that are on their way to an open target.
    """
    for node in closed.elements():
        if node in room.opened and room.holds(node, mover.planned.requests):
            room.promise(node, mover.planned.requests)
            here[node] += 1
            found.openings.append((node, mover.key))
    if not mover.misplaced and (waiting := [node for node in mover.wanted if here[node] > mover.here.get(node, 0)]):
        found.stuck.append((mover.key, f"its pods have yet to come to {', '.join(waiting)}"))


def _targets_of_coming(mover: Mover, here: Mapping[str, int], taken: Mapping[str, int], room: Room) -> Counter[str]:
    """Return where the pods belong that are on no node yet: what those that still stand leave over says it alone.

    `taken` are the open targets, which go before the closed ones, and of those the ones go first that have room now;
    `here` counts them as if their pods had come.
    """
    if not mover.coming:
        return Counter()
    left = [node for node, count in taken.items() for _ in range(count)]
    closed = [node for node, count in mover.wanted.items() for _ in range(count - here.get(node, 0))]
    left += sorted(closed, key=lambda node: not room.would_hold(node, mover.planned.requests))
    for pod in reversed(mover.misplaced):
        last = next((i for i in reversed(range(len(left))) if room.suits(pod, left[i])), None)
        if last is not None:
            del left[last]
    return Counter(left[: mover.coming])


def _suiting(mover: Mover, pod: Pod, kind: tuple[object, ...], room: Room) -> Callable[[str], bool]:
    """Return what says whether a target suits the pod of this kind.

    Where pods of another domain took all targets of its own, as a spread may let them, it goes where they belonged:
    each domain then has as many as planned.
    """
    if not pod.keeps:
        return lambda node: room.suit(kind, pod, node)
    here = mover.here
    if any(here.get(n, 0) < count and room.suit(kind, pod, n) for n, count in mover.wanted.items()):
        return lambda node: room.suit(kind, pod, node)
    anywhere = replace(pod, keeps=())
    return lambda node: room.suits(anywhere, node)
