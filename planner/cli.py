"""The commands: what a person or the cluster starts; wires the real edges together."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from planner.arguments import add_inputs, add_settings, planning_inputs, read_named, read_settings, read_start, seconds
from planner.clock import SystemClock
from planner.configuration import describe
from planner.errors import BadInput, BadSettings, KinemaError, Undecided
from planner.interrupts import first_interrupt
from planner.settings import MoveSettings, OptimizerSettings, Settings

if TYPE_CHECKING:  # what a command does not need is imported late: cvxpy alone takes a second
    from planner.leadership import Leadership
    from planner.loop import Report
    from planner.ports import Usage

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_UNDECIDED = 3
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; whatever a user can mend is one line on standard error."""
    try:
        parsed = _parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = parsed.command
        code = command(parsed)
        sys.stdout.flush()
    except BadInput as error:
        return _fail(error, EXIT_BAD_INPUT)
    except Undecided as error:
        return _fail(error, EXIT_UNDECIDED)
    except KinemaError as error:
        return _fail(error, EXIT_FAILED)
    except BrokenPipeError:
        # The reader (head, a pager) has seen enough; the interpreter must not flush into the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def _fail(error: KinemaError, code: int) -> int:
    sys.stderr.write(f"kinema: {' '.join(str(error).split())}\n")
    return code


class _Parser(argparse.ArgumentParser):
    """A parser whose refusals look like every other message."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    invoked = Path(sys.argv[0]).name
    prog = "kubectl kinema" if invoked == "kubectl-kinema" else "kinema"
    parser = _Parser(
        prog=prog, description="Keeps a Kubernetes cluster on the cheapest set of nodes that runs everything."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)

    plan = commands.add_parser("plan", help="plan a cluster; changes nothing", description=_plan.__doc__)
    add_inputs(plan)
    plan.add_argument("--solver", metavar="NAME", help="HIGHS, GLPK_MI or another MIP solver of cvxpy")
    plan.add_argument(
        "--time-limit",
        type=seconds,
        metavar="SECONDS",
        help="of the whole command, but for waiting for its input; then the best plan so far is taken",
    )
    plan.add_argument("--start", metavar="PLAN", help="an earlier plan to go on from, as `--output json` printed it")
    plan.add_argument("--output", choices=("table", "json"), default="table", help="for people (default), or to keep")
    plan.set_defaults(command=_plan)

    verify = commands.add_parser(
        "verify", help="check a plan without trusting the optimizer", description=_verify.__doc__
    )
    verify.add_argument("plan", metavar="PLAN", help="what `kinema plan --output json` printed; - reads standard input")
    add_inputs(verify)
    verify.add_argument(
        "--time-limit", type=seconds, default=60.0, metavar="SECONDS", help="for the knapsacks of the bound (60)"
    )
    verify.set_defaults(command=_verify)

    settings = commands.add_parser("settings", help="print the effective settings", description=_settings.__doc__)
    add_settings(settings)
    settings.set_defaults(command=_settings)

    run = commands.add_parser("run", help="run the loop on a cluster", description=_run.__doc__)
    add_settings(run)
    run.add_argument("--once", action="store_true", help="end after one iteration")
    run.add_argument("--mode", choices=("recommend", "apply"), help="whether to act; the settings' mode otherwise")
    run.set_defaults(command=_run)

    simulate = commands.add_parser("simulate", help="one iteration in a simulation", description=_simulate.__doc__)
    simulate.set_defaults(command=_simulate)
    return parser


def _plan(arguments: argparse.Namespace) -> int:
    """Find the cheapest set of nodes that runs everything, with a proven lower bound. Changes nothing."""
    settings = read_settings(arguments)
    optimizer = settings.optimizer
    if arguments.solver is not None:
        optimizer = _changed(optimizer, "--solver", solver=arguments.solver)
    if arguments.time_limit is not None:
        optimizer = replace(optimizer, time_limit_seconds=arguments.time_limit)
    settings = replace(settings, optimizer=optimizer)
    _quiet_libraries()
    from planner.planning import LEAST_SECONDS, make_plan
    from planner.progress import ProgressDisplay
    from planner.solving import Child, kept_from_collection

    began = time.monotonic()
    # The child loads its solver while the inputs are read here; where they are wrong, it goes as it came.
    with Child() as child:
        with kept_from_collection():
            inputs = replace(planning_inputs(arguments, settings), start=read_start(arguments))
        read_seconds = time.monotonic() - began
        # What reading takes of the processor counts, waiting for a cluster or for standard input does not.
        left = max(LEAST_SECONDS, optimizer.time_limit_seconds - time.process_time())
        settings = replace(settings, optimizer=replace(optimizer, time_limit_seconds=left))
        with ProgressDisplay(sys.stderr, time.monotonic) as display, first_interrupt(display.stopping) as interrupted:
            plan = make_plan(inputs, settings, display.show, interrupted, child=child)
    if interrupted():
        gap = plan.objective.relative_gap
        sys.stderr.write(f"kinema: interrupted: this is the best plan so far, {gap:.2%} from its lower bound\n")
    plan = replace(plan, timings_seconds={"read": round(read_seconds, 3), **plan.timings_seconds})
    if arguments.output == "json":
        from planner.model.plan_json import encode_plan

        sys.stdout.buffer.write(encode_plan(plan))
    else:
        from planner.display import plan_console, show_plan

        show_plan(plan, inputs, plan_console())
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    """Check placement, capacity, prices and the lower bound of a plan in whole numbers, from the inputs alone."""
    from planner.checking import checked_inputs
    from planner.display import some
    from planner.model.plan_json import ContradictoryPlan, decode_plan, usd
    from planner.verifier import verify

    settings = read_settings(arguments)
    _quiet_libraries()
    if arguments.plan == "-" and arguments.cluster == "-":
        raise BadInput("PLAN and --cluster cannot both be read from standard input")
    origin, data = read_named(arguments.plan)
    try:
        plan = decode_plan(data, origin)
    except ContradictoryPlan as error:
        sys.stdout.write(f"wrong: {error}\n")
        return EXIT_FAILED
    asked = arguments.at is not None or arguments.objective is not None
    inputs = checked_inputs(plan, planning_inputs(arguments, settings), cap_asked=asked, usage=arguments.usage)
    verdict = verify(plan, inputs, arguments.time_limit, time.monotonic)
    for problem in verdict.problems:
        sys.stdout.write(f"wrong: {problem}\n")
    if verdict.problems:
        return EXIT_FAILED
    if verdict.undecided:
        raise Undecided(
            f"{len(verdict.undecided)} knapsacks of the bound were still open after {arguments.time_limit:g} s "
            f"({some(verdict.undecided)}); everything else is right; give more time with --time-limit"
        )
    bound = verdict.lower_bound_nanousd_per_hour
    proven = "" if bound is None else f"; its certificate proves at least {usd(bound)}"
    cap = plan.objective.cap
    above = len(cap.allowed_millicores) if cap is not None else 0
    left = f"; {above} {'node stays' if above == 1 else 'nodes stay'} above its cap" if above else ""
    sys.stdout.write(f"right: the plan costs {usd(verdict.value_nanousd_per_hour)} $/h{proven}{left}\n")
    return 0


def _settings(arguments: argparse.Namespace) -> int:
    """Print the effective settings (file and environment) as YAML."""
    import yaml

    sys.stdout.write(yaml.safe_dump(describe(read_settings(arguments)), sort_keys=False, allow_unicode=True))
    return 0


def _run(arguments: argparse.Namespace) -> int:
    """Run the loop on the kubeconfig's cluster until it is asked to stop; changes nothing unless the mode is apply."""
    settings = read_settings(arguments)
    if arguments.mode is not None:
        settings = replace(settings, mode=arguments.mode)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("google", "urllib3", "kubernetes"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from prometheus_client import start_http_server

    from planner.cloud.controller import open_catalogue, open_cloud
    from planner.cloud.tables import with_rules
    from planner.events import Recorder
    from planner.journal import Journal
    from planner.kube.client import KubernetesClient
    from planner.leadership import Leadership
    from planner.loop import Edges, run
    from planner.metrics import Metrics

    cloud = open_cloud(settings.cloud)
    if cloud is None and settings.mode == "apply":
        raise BadSettings(
            "mode must be recommend where cloud.provider is none, not apply, since nothing can boot or delete a "
            "machine; or set cloud.provider to gcp, with cloud.project, cloud.location, cloud.cluster and cloud.pools"
        )
    bought = open_catalogue(settings.cloud, cloud)
    clock = SystemClock()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: clock.stop.set())
    kubernetes = KubernetesClient.connect(settings.kubeconfig)
    identity = settings.leader.identity or f"{socket.gethostname()}_{secrets.token_hex(4)}"
    tell_in_events = Recorder(kubernetes, clock, settings.leader.namespace, identity)

    log = Journal()

    def report(what: Report) -> None:
        log(what)
        tell_in_events(what)

    edges = Edges(
        kubernetes=kubernetes,
        cloud=cloud,
        catalogue=lambda snapshot: with_rules(bought(snapshot), settings),
        usage=_usage(settings),
        clock=clock,
        leadership=Leadership(kubernetes, clock, settings.leader, identity),
        metrics=Metrics(),
        report=report,
        steering_problem=lambda: _extender_problem(settings.move.extender_url),
        stopping=clock.stop.is_set,
    )
    if settings.metrics_port:
        try:
            start_http_server(settings.metrics_port, registry=edges.metrics.registry)
        except OSError as error:
            raise BadSettings(f"metrics_port: cannot listen on {settings.metrics_port}: {error.strerror}") from None
    threading.Thread(target=_renew, args=(edges.leadership, clock, settings), daemon=True).start()
    try:
        run(edges, settings, once=arguments.once)
    finally:
        clock.stop.set()
        edges.leadership.release()
    return 0


def _renew(leadership: Leadership, clock: SystemClock, settings: Settings) -> None:
    """Renew the Lease while the loop is busy, such as with a long solve."""
    while not clock.stop.wait(settings.leader.duration_seconds / 3):
        leadership.ensure()


def _usage(settings: Settings) -> Usage:
    from planner.usage import NoUsage, PrometheusUsage

    wanted = settings.predictor
    if not wanted.prometheus_url or (wanted.kind == "none" and not settings.objective.windows):
        return NoUsage()
    return PrometheusUsage(wanted.prometheus_url, wanted.window_seconds, wanted.step_seconds)


def _extender_problem(url: str) -> str:
    """Return why the extender at the URL cannot steer; "" where it is ready or no URL was given."""
    if not url:
        return ""
    import urllib3

    try:
        answer = urllib3.request("GET", f"{url.rstrip('/')}/readyz", timeout=5, retries=False)
    except urllib3.exceptions.HTTPError as error:
        return f"the extender at {url} does not answer: {error}"
    return "" if answer.status == 200 else f"the extender at {url} is not ready (status {answer.status})"


def _simulate(arguments: argparse.Namespace) -> int:  # noqa: ARG001  every command takes its arguments
    """Run one whole iteration on a simulated cluster; needs no cluster, no cloud and no network."""
    from rich.console import Console

    from planner.cloud.gcp.machines import builtin_machines
    from planner.leadership import Leadership
    from planner.loop import Edges, iterate
    from planner.metrics import Metrics
    from planner.usage import NoUsage
    from simulator.demo import demonstrate
    from simulator.world import World

    settings = Settings(
        mode="apply",
        move=MoveSettings(steering="extender", poll_seconds=2),
        # Somebody waits at the terminal: a plan within a hundredth of the bound is good enough.
        optimizer=OptimizerSettings(time_limit_seconds=12, target_gap=0.01),
    )

    def once(world: World, report: Callable[[object], None]) -> str:
        edges = Edges(
            kubernetes=world.kubernetes,
            cloud=world.cloud,
            catalogue=lambda _: world.cloud.catalogue(),
            usage=NoUsage(),
            clock=world.clock,
            leadership=Leadership(world.kubernetes, world.clock, settings.leader, "demo"),
            metrics=Metrics(),
            report=report,
        )
        return iterate(edges, settings)

    result = demonstrate(builtin_machines("us-central1"), once, Console())
    return 0 if result.outcome == "carried-out" and not result.violations else EXIT_FAILED


def _changed(settings: Any, flag: str, **values: object) -> Any:
    """Return settings with values from the command line, checked as those of a file."""
    try:
        return replace(settings, **values)
    except ValueError as error:
        raise BadSettings(f"{flag}: {error}, not {', '.join(map(repr, values.values()))}") from None


def _quiet_libraries() -> None:
    """Keep warnings of libraries, such as a retried connection, off the one line that a person reads."""
    logging.getLogger().addHandler(logging.NullHandler())
