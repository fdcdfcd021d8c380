"""A plan for people: what changes, what stays and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from planner.model.inputs import PlanningInputs
from planner.model.plan import Plan, PlannedNode

_NANO = 10**9
_NAMED = 3
_STATES = ("keep", "boot", "remove")
_PLAIN_WIDTH = 160
"""Columns where the output is no terminal; a terminal says its own."""


def show_plan(plan: Plan, inputs: PlanningInputs, console: Console) -> None:
    """Print the plan: the sums, the nodes by kind, then what is pinned, kept and unplaced, by reason."""
    parts = [_summary(plan, inputs), _nodes(plan)]
    assessment = inputs.assessment
    kept: defaultdict[str, list[str]] = defaultdict(list)
    for name, reason in assessment.role_reasons.items():
        # A node that a pinned pod keeps is explained by the pod, in the table of pins.
        kept["holds a pinned pod" if reason.startswith("holds the pinned pod") else reason].append(name)
    pinned: defaultdict[str, list[str]] = defaultdict(list)
    for name, reason in assessment.pins.items():
        pinned[reason].append(name)
    missing: defaultdict[str, list[str]] = defaultdict(list)
    for key, unplaced in plan.unplaced.items():
        missing[unplaced.reason].append(f"{key} ({unplaced.count})")
    held: defaultdict[str, list[str]] = defaultdict(list)
    for key, workload in plan.workloads.items():
        if workload.strategy == "pinned" and workload.reason not in pinned:
            held[workload.reason].append(key)
    above: defaultdict[str, list[str]] = defaultdict(list)
    for name in plan.objective.cap.allowed_millicores if plan.objective.cap is not None else ():
        above["its pods must stay there, or no other node takes them under the cap"].append(name)
    for title, what, groups in (
        ("Pods that have no place", "workloads", missing),
        ("Pods that stay where they are", "pods", pinned),
        ("Workloads that the plan leaves where they are", "workloads", held),
        ("Nodes that are not removed", "nodes", kept),
        ("Nodes that stay above the cap on predicted CPU", "nodes", above),
    ):
        if groups:
            parts.append(_reasons(title, what, groups.items()))
    console.print(Group(*parts))


def plan_console() -> Console:
    """Return the console for standard output: a terminal as wide as it is, a file or a pipe wide enough."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def _summary(plan: Plan, inputs: PlanningInputs) -> Table:
    objective = plan.objective
    table = Table(title=f"Plan {plan.iteration}", title_justify="left")
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    states = Counter(node.state for node in plan.nodes)
    before, after = plan.current_cost_nanousd_per_hour, plan.cost_nanousd_per_hour
    change = f" ({(after - before) / before:+.1%})" if before else ""
    table.add_row("nodes", str(len(inputs.snapshot.nodes)), str(states["keep"] + states["boot"]))
    table.add_row("cost, $/h", _usd(before), _usd(after) + change)
    window = "" if objective.cap is None else f", window {escape(objective.cap.window)}"
    table.add_row(f"objective ({objective.name}{window}), $/h", "", _usd(objective.value_nanousd_per_hour))
    table.add_row("proven lower bound, $/h", "", _usd(objective.lower_bound_nanousd_per_hour))
    table.add_row("gap", "", f"{objective.relative_gap:.2%} ({objective.status})")
    moves: Counter[str] = Counter()
    for workload in plan.workloads.values():
        moves[workload.strategy] += workload.moves
    by_strategy = ", ".join(f"{count} by {name}" for name, count in sorted(moves.items()) if count)
    table.add_row("pods moved", "", f"{plan.moves}" + (f" ({by_strategy})" if by_strategy else ""))
    if objective.cap is not None:
        used = max((_share(n, n.predicted_cpu_before_millicores) for n in plan.nodes), default=0.0)
        will_use = max((_share(n, n.predicted_cpu_millicores) for n in plan.nodes), default=0.0)
        table.add_row("highest predicted CPU of a node", f"{used:.1%}", f"{will_use:.1%}")
    if plan.certificate.dropped:
        table.add_row("limits that cannot be met", "", escape("; ".join(plan.certificate.dropped)))
    if plan.unplaced:
        table.add_row("pods without a place", "", str(sum(u.count for u in plan.unplaced.values())))
    return table


def _share(node: PlannedNode, used_millicores: int | None) -> float:
    return (used_millicores or 0) / max(1, node.allocatable.cpu_millicores)


def _nodes(plan: Plan) -> Table:
    table = Table(title="Nodes", title_justify="left")
    for column in ("", "pool", "machine type", "zone", "capacity"):
        table.add_column(column)
    for column in ("nodes", "pods", "$/h each", "$/h"):
        table.add_column(column, justify="right")
    groups: defaultdict[tuple[int, str, str, str, str, int | None], list[PlannedNode]] = defaultdict(list)
    for node in plan.nodes:
        kind = (node.pool, node.machine_type, node.zone, node.capacity_type)
        groups[(_STATES.index(node.state), *kind, node.price_nanousd_per_hour)].append(node)
    for (state, pool, machine_type, zone, capacity, price), nodes in sorted(
        groups.items(), key=lambda item: (*item[0][:5], item[0][5] or 0)
    ):
        table.add_row(
            _STATES[state],
            escape(pool),
            escape(machine_type),
            escape(zone),
            capacity,
            str(len(nodes)),
            str(sum(sum(node.pods.values()) for node in nodes)),
            "no price" if price is None else _usd(price),
            "" if price is None else _usd(price * len(nodes)),
        )
    return table


def _reasons(title: str, what: str, groups: Iterable[tuple[str, list[str]]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("count", justify="right")
    table.add_column("reason")
    table.add_column(what)
    for reason, names in sorted(groups, key=lambda item: (-len(item[1]), item[0])):
        table.add_row(str(len(names)), escape(reason), escape(some(sorted(names))))
    return table


def some(names: Iterable[str]) -> str:
    """Name the first few."""
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more


def _usd(nanousd: int) -> str:
    return f"{nanousd / _NANO:.4f}"
