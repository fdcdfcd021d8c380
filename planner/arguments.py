"""The arguments of `plan` and `verify`: their flags, and the planning inputs that they name."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from planner.clock import SystemClock
from planner.configuration import load_settings
from planner.errors import BadInput
from planner.settings import Settings

if TYPE_CHECKING:  # imported late, as in planner.cli
    from planner.model.cap import CpuCap
    from planner.model.cluster import Snapshot
    from planner.model.inputs import PlanningInputs
    from planner.model.machines import Catalogue
    from planner.model.plan import Plan


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name cluster, prices and objective, and those of `add_settings`."""
    parser.add_argument(
        "--cluster",
        metavar="DUMP",
        help="what `kubectl get nodes,pods,deployments,replicasets,statefulsets,daemonsets,jobs,hpa,pdb -A -o json` "
        "printed, or any part of it; - reads standard input; without it the kubeconfig's cluster is read",
    )
    parser.add_argument("--machines", metavar="CSV", help="machine types with allocatable amounts and prices")
    parser.add_argument(
        "--pools",
        metavar="YAML",
        help="node pools, limits on their total and rules for spot; without it every machine type in every zone",
    )
    parser.add_argument("--cloud", choices=("gcp",), help="instead of --machines: the built-in prices of this cloud")
    parser.add_argument("--region", metavar="NAME", help="with --cloud: whose prices")
    parser.add_argument(
        "--at", type=_moment, metavar="TIME", help="choose the objective's window of this time, not now"
    )
    parser.add_argument("--objective", metavar="NAME", help="cost, or the window of this name, whatever the time")
    parser.add_argument(
        "--usage",
        metavar="CSV",
        help="workload,cpu_millicores: what one pod of it is predicted to use, for a cap on CPU; else its CPU request",
    )
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names the settings' file."""
    parser.add_argument("--settings", metavar="FILE", help="YAML; `kinema settings` prints all with their defaults")


def seconds(text: str) -> float:
    """Return the seconds, above 0, that a flag gives."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be seconds above 0, not {text!r}")
    return value


def _moment(text: str) -> float:
    """Return seconds since the epoch."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.min  # without an offset, and so refused
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"must be a time with its offset such as 2026-11-24T09:00+01:00, not {text!r}")
    return moment.timestamp()


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Return the settings of the named file and the environment."""
    return load_settings(arguments.settings, os.environ)


def planning_inputs(arguments: argparse.Namespace, settings: Settings) -> PlanningInputs:
    """Read everything that a plan is made from; its iteration is a hash of what was read."""
    from planner.model.inputs import ChangePrices, PlanningInputs
    from planner.model.preferences import PreferencePrices
    from planner.rescheduler import rules_of

    effort = settings.optimizer
    prices = ChangePrices(effort.payback_hours, effort.move_cost_nanousd, effort.boot_overlap_minutes)
    preferences = PreferencePrices(effort.preference_nanousd_per_hour, effort.preference_ceiling_nanousd_per_hour)
    rules = rules_of(settings.move)
    snapshot = _snapshot(arguments, settings)
    catalogue = _catalogue(arguments, settings, snapshot)
    # Not of the dump's bytes: the order of its objects, and what Kinema does not read of them, change no plan.
    digest = hashlib.sha256(_told(snapshot))
    for part in (arguments.machines, arguments.pools):
        digest.update(Path(part).read_bytes() if part else b"\0")
    digest.update(
        repr((rules, prices, preferences, arguments.cloud, arguments.region, catalogue.total, catalogue.spot)).encode()
    )
    cap = _cap(arguments, settings, snapshot)
    if cap is not None:
        digest.update(repr(cap).encode())
    iteration = f"p{digest.hexdigest()[:12]}"
    return PlanningInputs(snapshot, catalogue, iteration, rules=rules, prices=prices, preferences=preferences, cap=cap)


def _told(snapshot: Snapshot) -> bytes:
    """Return all that the snapshot was made from; msgspec writes it in a quarter of the time that `repr` takes."""
    import msgspec

    own = [getattr(snapshot, field.name) for field in fields(snapshot) if field.init]
    return msgspec.json.encode(own, enc_hook=repr)


def read_start(arguments: argparse.Namespace) -> Plan | None:
    """Return the plan to go on from, where one was named."""
    from planner.model.plan_json import ContradictoryPlan, decode_plan

    if arguments.start is None:
        return None
    if arguments.start == "-" == arguments.cluster:
        raise BadInput("--start and --cluster cannot both be read from standard input")
    origin, data = read_named(arguments.start)
    try:
        return decode_plan(data, origin)
    except ContradictoryPlan as error:
        raise BadInput(f"{error}; expected what `kinema plan --output json` prints") from None


def read_named(name: str) -> tuple[str, bytes]:
    """Return what to call a file or standard input, and its bytes."""
    if name == "-":
        return "standard input", sys.stdin.buffer.read()
    try:
        return name, Path(name).read_bytes()
    except OSError as error:
        raise BadInput(f"{name}: cannot be read: {error.strerror or error}") from None


def _cap(arguments: argparse.Namespace, settings: Settings, snapshot: Snapshot) -> CpuCap | None:
    """Return the cap of the objective that is asked for: by its name, by a time, or else that of now."""
    from planner.model.cap import COST
    from planner.model.utilization import cap_on
    from planner.usage import read_usage

    measured = read_usage(arguments.usage, snapshot) if arguments.usage is not None else {}
    window = settings.objective.window_at(time.time() if arguments.at is None else arguments.at)
    if arguments.objective is not None:
        if arguments.at is not None:
            raise BadInput("give --objective or --at, not both")
        windows = {COST: None, **{window.name: window for window in settings.objective.windows}}
        if arguments.objective not in windows:
            raise BadInput(f"--objective must be one of {', '.join(windows)}, not {arguments.objective!r}")
        window = windows[arguments.objective]
    return None if window is None else cap_on(snapshot, window.cap_permille, window.name, measured)


def _snapshot(arguments: argparse.Namespace, settings: Settings) -> Snapshot:
    """Return the cluster of the dump, or else of the kubeconfig."""
    from planner.kube.reader import read_dump, read_snapshot

    if arguments.cluster is not None:
        origin, data = read_named(arguments.cluster)
        return read_dump(data, origin)
    from planner.kube.client import KubernetesClient

    return read_snapshot(KubernetesClient.connect(settings.kubeconfig), None, SystemClock())


def _catalogue(arguments: argparse.Namespace, settings: Settings, snapshot: Snapshot) -> Catalogue:
    """Return what can be bought, and by which rules."""
    from planner.cloud.tables import with_rules

    return with_rules(_bought(arguments, settings, snapshot), settings, arguments.pools)


def _bought(arguments: argparse.Namespace, settings: Settings, snapshot: Snapshot) -> Catalogue:
    """Return what can be bought: the user's tables, a cloud's built-in prices, or the cloud of the settings."""
    from planner.cloud.controller import open_catalogue, open_cloud
    from planner.cloud.tables import catalogue, read_machines, read_pools

    if arguments.machines and arguments.cloud:
        raise BadInput("give --machines or --cloud, not both")
    if arguments.region and not arguments.cloud:
        raise BadInput("--region says whose prices --cloud means; give --cloud too")
    if arguments.machines:
        machines = read_machines(arguments.machines)
    elif arguments.cloud:
        from planner.cloud.gcp.machines import builtin_machines

        if not arguments.region:
            raise BadInput(f"--cloud {arguments.cloud} needs a --region, such as us-central1")
        machines = builtin_machines(arguments.region)
    elif settings.cloud.provider == "none" and not settings.cloud.machines:
        raise BadInput("there are no machine types: give --machines CSV, or --cloud gcp --region NAME")
    else:
        return open_catalogue(settings.cloud, open_cloud(settings.cloud), arguments.pools)(snapshot)
    pools = read_pools(arguments.pools, machines) if arguments.pools else None
    return catalogue(machines, pools, snapshot)
