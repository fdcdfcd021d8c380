"""One iteration on a simulated cluster, watched by a person: what happens as it happens, and a table at the end."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from planner import labels as keys
from planner.model.cluster import INSTANCE_TYPE, SPOT_MARKS, Instance
from planner.model.machines import Catalogue, MachineType
from planner.model.plan import Decision, DeleteInstances, EvictPod, MarkNode, Plan, RollOut, Wait
from planner.ports import DEPLOYMENTS, NODES, PODS, REPLICASETS
from simulator.api import ApiServer
from simulator.availability import Sample
from simulator.controllers import owner_key
from simulator.extenders import Extender
from simulator.scenarios import badly_packed
from simulator.served import ServedExtender
from simulator.status import is_active, is_ready
from simulator.store import Change, Json
from simulator.world import World

DEFAULT_SEED: Final = 7
NANO: Final = 10**9

MOST_NAMES: Final = 4
"""Names in one line of the display."""

TOGETHER_SECONDS: Final = 5.0
"""Simulated seconds within which equal events share a line."""

PATIENCE_SECONDS: Final = 60.0
"""Simulated seconds of waiting for the same thing after which a line says for what."""

Iterate = Callable[[World, Callable[[object], None]], str]
"""Runs one iteration on a world, tells what it does (plan, decision, steps), and returns how it ended."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo measured. `outcome` is the iteration's; money in nanodollars per hour.

    `moved` counts the pods that stand at the end and did not at the start; `on_planned_node` those pods of the
    plan that stand where it wants them. `lowest` is the lowest availability of any workload during the move,
    `violations` how often one had fewer Ready pods than its strategy and budgets allow.
    """

    outcome: str
    plan: Plan | None
    nodes: tuple[int, int]
    cost_nanousd_per_hour: tuple[int, int]
    moved: int
    on_planned_node: int
    planned_pods: int
    lowest: Sample | None
    violations: int
    extender_calls: int
    extender_faults: int
    simulated_seconds: float
    real_seconds: float


def demonstrate(
    machines: Mapping[str, MachineType], iterate: Iterate, console: Console, seed: int = DEFAULT_SEED
) -> Result:
    """Build the cluster, serve the extender, run one iteration on it, and show all of it."""
    began = time.monotonic()
    with ExitStack() as stack:

        def attach(server: ApiServer) -> Extender:
            return stack.enter_context(ServedExtender(server)).extender

        # Plans expire by the wall clock of the extender's process, so the simulation starts now; in whole seconds,
        # since the rounding of timestamps would otherwise make runs of one seed differ.
        world = World(badly_packed(machines, float(int(time.time())), seed), attach)
        world.settle()
        _introduce(world, console)
        calls = world.extender.calls if world.extender else 0
        before, started = _Standing.of(world), world.clock.now()
        plan, outcome = _watch(world, iterate, console)
        after = _Standing.of(world)
        faults = world.extender.faults if world.extender else 0
        result = Result(
            outcome=outcome,
            plan=plan,
            nodes=(before.nodes, after.nodes),
            cost_nanousd_per_hour=(before.cost_nanousd_per_hour, after.cost_nanousd_per_hour),
            moved=len(after.pods - before.pods),
            on_planned_node=_on_planned_node(plan, after),
            planned_pods=sum(sum(node.pods.values()) for node in plan.nodes) if plan else 0,
            lowest=world.availability.worst(),
            violations=len(world.availability.violations),
            extender_calls=(world.extender.calls if world.extender else 0) - calls,
            extender_faults=faults,
            simulated_seconds=world.clock.now() - started,
            real_seconds=time.monotonic() - began,
        )
    console.print(_table(result))
    return result


@dataclass(frozen=True, slots=True)
class _Standing:
    """What stands at one moment: nodes, what they cost, pods by uid, and how many of which workload are where."""

    nodes: int
    cost_nanousd_per_hour: int
    pods: frozenset[str]
    placed: Mapping[tuple[str, str], int]

    @classmethod
    def of(cls, world: World) -> _Standing:
        """Read the world."""
        store, catalogue = world.server.store, world.cloud.catalogue()
        nodes = store.bodies(NODES)
        pods = [pod for pod in store.bodies(PODS) if is_active(pod) and owner_key(pod, "DaemonSet") is None]
        placed = Counter((pod["spec"].get("nodeName", ""), workload_of(world.server, pod)) for pod in pods)
        uids = frozenset(str(pod["metadata"]["uid"]) for pod in pods)
        return cls(len(nodes), sum(_price(catalogue, node) for node in nodes), uids, placed)


def workload_of(server: ApiServer, pod: Json) -> str:
    """Return "namespace/Kind/name" of what would recreate a pod."""
    namespace = pod["metadata"]["namespace"]
    if (replicaset := owner_key(pod, "ReplicaSet")) is not None:
        owner = server.find(REPLICASETS, replicaset)
        deployment = owner_key(owner, "Deployment") if owner else None
        return f"{namespace}/Deployment/{deployment[1]}" if deployment else f"{namespace}/ReplicaSet/{replicaset[1]}"
    for kind in ("StatefulSet", "DaemonSet", "Job"):
        if (key := owner_key(pod, kind)) is not None:
            return f"{namespace}/{kind}/{key[1]}"
    return f"{namespace}/Pod/{pod['metadata']['name']}"


def _price(catalogue: Catalogue, node: Json) -> int:
    labels = node["metadata"]["labels"]
    machine = catalogue.machines[labels[INSTANCE_TYPE]]
    return machine.price("spot" if labels.get(SPOT_MARKS[0]) == "true" else "on-demand") or 0


def _on_planned_node(plan: Plan | None, standing: _Standing) -> int:
    if plan is None:
        return 0
    return sum(
        min(count, standing.placed.get((node.name, workload), 0))
        for node in plan.nodes
        for workload, count in node.pods.items()
    )


class _Display:
    """Bars for what is under way, and a line for everything that happens."""

    def __init__(self, world: World, progress: Progress) -> None:
        self._world = world
        self._progress = progress
        self._boots = progress.add_task("machines booted", total=0)
        self._moves = progress.add_task("pods moved", total=0)
        self._drains = progress.add_task("nodes removed", total=0)
        self._standing = frozenset(
            pod["metadata"]["uid"] for pod in world.server.store.bodies(PODS) if owner_key(pod, "DaemonSet") is None
        )
        self._arrived: set[str] = set()
        self._gathered: dict[str, list[str]] = {}
        self._gathered_at = 0.0
        self._reasons: tuple[str, ...] = ()
        self._waiting_since = 0.0
        self.plan: Plan | None = None
        world.cloud.listener = self._on_machine
        world.server.store.subscribe(self._on_change)

    def report(self, what: object) -> None:
        """Show what the loop reports; what is not for a person is left out."""
        match what:
            case Plan():
                self.plan = what
                states = Counter(node.state for node in what.nodes)
                self._set_total(self._boots, states["boot"])
                self._set_total(self._moves, what.moves)
                self._set_total(self._drains, states["remove"])
                self._say(
                    f"[bold]plan {what.iteration}[/]: {_usd(what.current_cost_nanousd_per_hour)} -> "
                    f"{_usd(what.cost_nanousd_per_hour)} $/h; keep {states['keep']}, boot {states['boot']}, "
                    f"remove {states['remove']} nodes; move {what.moves} pods; "
                    f"gap {what.objective.relative_gap:.2%}"
                )
            case Decision():
                self._say(f"decision: {what.verdict} ({what.reason})")
            case RollOut():
                body = self._world.server.find(DEPLOYMENTS, _key(what.workload))
                replicas = body["spec"]["replicas"] if body else 0
                self._gather("[cyan]roll out[/]", f"{what.workload.split('/')[2]} ({replicas})")
            case EvictPod():
                self._gather("[yellow]evict[/]   ", what.name)
            case MarkNode() if what.taint_effect == "NoSchedule":
                self._gather("[magenta]drain[/]   ", what.node)
            case MarkNode() if what.labels.get(keys.EXPIRING):
                self._gather("[magenta]expiring[/]", what.node)
            case MarkNode() if what.labels.get(keys.OPTIMAL):
                self._gather("[blue]in plan[/] ", what.node)
            case DeleteInstances():
                for name in what.names:
                    self._gather("[red]delete[/]  ", name)
            case Wait():
                self._wait(what.reasons)

    def _wait(self, reasons: tuple[str, ...]) -> None:
        """Say what is waited for once it has not changed for a while."""
        now = self._world.clock.now()
        if reasons != self._reasons:
            self._reasons, self._waiting_since = reasons, now
        elif now - self._waiting_since > PATIENCE_SECONDS:
            self._waiting_since = math.inf
            self._say(f"[dim]waiting[/]  {'; '.join(reasons)}")

    def _on_machine(self, event: str, instance: Instance) -> None:
        if event == "accepted":
            self._gather("[green]boot[/]    ", instance.name)
        elif event == "failed":
            self._say(f"[red]failed[/]   {instance.name}: {instance.error}")

    def _on_change(self, change: Change) -> None:
        if change.resource == NODES and change.type == "DELETED":
            self._progress.advance(self._drains)
            self._gather("[red]removed[/] ", change.key[1])
        elif change.resource == NODES and change.before and is_ready(change.body) and not is_ready(change.before):
            self._progress.advance(self._boots)
            self._gather("[green]ready[/]   ", change.key[1])
        elif change.resource == PODS and change.type == "MODIFIED" and is_ready(change.body):
            uid = change.body["metadata"]["uid"]
            is_new = uid not in self._standing and uid not in self._arrived
            if is_new and owner_key(change.body, "DaemonSet") is None:
                self._arrived.add(uid)
                self._progress.advance(self._moves)

    def _set_total(self, task: TaskID, total: int) -> None:
        self._progress.update(task, total=total)

    def flush(self) -> None:
        """Show what was gathered."""
        for verb, names in self._gathered.items():
            shown = ", ".join(names[:MOST_NAMES])
            more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            self._print(self._gathered_at, f"{verb} {shown}{more}")
        self._gathered.clear()

    def _gather(self, verb: str, name: str) -> None:
        """Show what happens to many at about the same time in one line."""
        now = self._world.clock.now()
        if now - self._gathered_at > TOGETHER_SECONDS:
            self.flush()
        if not self._gathered:
            self._gathered_at = now
        self._gathered.setdefault(verb, []).append(name)

    def _say(self, text: str) -> None:
        self.flush()
        self._print(self._world.clock.now(), text)

    def _print(self, seconds: float, text: str) -> None:
        now = datetime.fromtimestamp(seconds, UTC)
        self._progress.console.print(f"[dim]{now:%H:%M:%S}[/]  {text}", highlight=False)


def _watch(world: World, iterate: Iterate, console: Console) -> tuple[Plan | None, str]:
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        display = _Display(world, progress)
        outcome = iterate(world, display.report)
        display.flush()
    return display.plan, outcome


def _introduce(world: World, console: Console) -> None:
    store = world.server.store
    zones = {offering.zone for offering in world.cloud.catalogue().offerings}
    console.print(
        f"A simulated cluster: {len(store.bodies(NODES))} nodes in {len(zones)} zones, "
        f"{len(store.bodies(PODS))} pods in {len(world.scenario.workloads)} workloads. "
        "The extender runs under gunicorn and is asked over HTTP. Times are simulated."
    )


def _table(result: Result) -> Table:
    table = Table(title=f"One iteration: {result.outcome}", show_header=True, title_justify="left")
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_row("nodes", str(result.nodes[0]), str(result.nodes[1]))
    before, after = result.cost_nanousd_per_hour
    table.add_row("cost, $/h", _usd(before), f"{_usd(after)} ({(after - before) / before:+.1%})")
    if (plan := result.plan) is not None:
        objective = plan.objective
        table.add_row("plan's objective, $/h", "", _usd(objective.value_nanousd_per_hour))
        table.add_row("proven lower bound, $/h", "", _usd(objective.lower_bound_nanousd_per_hour))
        table.add_row("gap", "", f"{objective.relative_gap:.2%}")
        table.add_row("pods moved (planned)", "", f"{result.moved} ({plan.moves})")
        table.add_row("pods on their planned node", "", f"{result.on_planned_node} of {result.planned_pods}")
    if (lowest := result.lowest) is not None:
        worst = f"{lowest.share:.0%}, {lowest.workload}: {lowest.ready} of {lowest.replicas}, allowed {lowest.floor}"
        table.add_row("lowest availability", "", worst)
    table.add_row("below what is allowed", "", "never" if not result.violations else f"{result.violations} times")
    table.add_row("extender asked, failed", "", f"{result.extender_calls}, {result.extender_faults}")
    minutes, seconds = divmod(round(result.simulated_seconds), 60)
    table.add_row("time simulated, real", "", f"{minutes} min {seconds} s, {result.real_seconds:.1f} s")
    return table


def _usd(nanousd: int) -> str:
    return f"{nanousd / NANO:.2f}"


def _key(workload: str) -> tuple[str, str]:
    namespace, _, name = workload.split("/")
    return namespace, name
