"""What the pods of each workload will need: a line through the usage of the past, read a little ahead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import linear_regression

from planner.model.cluster import Container, Snapshot, Workload
from planner.model.forecast import Forecast, UsageSeries
from planner.model.resources import Resources
from planner.settings import PredictorSettings

_FEWEST_SAMPLES = 12
"""Below this a line follows the noise: an hour at the default step."""

_STALE_STEPS = 3
"""How many steps the newest sample may be old or, by a wrong clock, ahead."""

_LEAST_CPU_MILLICORES = 10
_LEAST_MEMORY_BYTES = 16 * 1024**2
"""No request falls below what an idle process needs to start: 10 m and 16 MiB."""

_LARGEST_CHANGE = 4.0
"""One forecast changes a request by at most this factor up or down: what is further away takes several looks."""

Series = Mapping[tuple[str, str], UsageSeries]
"""The usage of one workload by container and resource (cpu or memory)."""


def predict(snapshot: Snapshot, usage: tuple[UsageSeries, ...], settings: PredictorSettings) -> Forecast:
    """Return the requests that each Deployment should have, where they differ enough from those that it has.

    For each container and resource a line a + b·t is fitted by least squares; the new request is
    (1 + margin) · max(a + b·now, a + b·(now + horizon)), kept within the bounds above. It is taken where it differs by
    more than `adjustment_threshold` of the present request. A container that requests none of a resource is left
    alone, and so is a workload with a series that makes no sense, each with its reason.
    """
    if settings.kind == "none":
        return Forecast()
    series: dict[str, dict[tuple[str, str], UsageSeries]] = {}
    for one in usage:
        series.setdefault(one.workload, {})[(one.container, one.resource)] = one
    scaled = {a.workload for a in snapshot.autoscalers if a.utilizations}
    requests: dict[str, Mapping[str, Resources]] = {}
    reasons: dict[str, str] = {}
    for workload in sorted(snapshot.workloads, key=lambda w: w.key):
        # Only a roll-out changes requests, and only a Deployment rolls.
        if workload.kind != "Deployment" or not workload.known or not workload.replicas:
            continue
        if workload.key in scaled:
            reasons[workload.key] = "an autoscaler scales it by its utilization, which new requests would change"
            continue
        if reason := _nonsense(series.get(workload.key, {}), snapshot, settings):
            reasons[workload.key] = reason
            continue
        changes = _changes(workload, series[workload.key], snapshot.taken_at, settings)
        if changes and not _fits_somewhere(workload, changes, snapshot):
            reasons[workload.key] = "its forecast is more than any node can allocate"
        elif changes:
            requests[workload.key] = changes
    return Forecast(requests, reasons)


def predict_cpu(snapshot: Snapshot, usage: tuple[UsageSeries, ...], settings: PredictorSettings) -> dict[str, int]:
    """Return what one pod of each workload will use of the CPU, in millicores, where the usage of it can be believed.

    For each container a line a + b·t is fitted by least squares; the pod uses Σ max(a + b·now, a + b·(now + horizon)),
    without a margin: the cap on utilisation is one. A workload of which a container has no series that makes sense is
    left out.
    """
    templates = {w.key: {c.name for c in w.containers} for w in snapshot.workloads if w.known}
    most = 2 * max((node.allocatable.cpu_millicores for node in snapshot.nodes), default=0) / 1000
    cores: dict[str, dict[str, float]] = {}
    unclear: set[str] = set()
    for one in usage:
        if one.resource != "cpu":
            continue
        if _flaw(one, most, snapshot.taken_at, settings):
            unclear.add(one.workload)
            continue
        points = [(s.time_seconds - snapshot.taken_at, s.value) for s in one.samples]
        cores.setdefault(one.workload, {})[one.container] = _highest(points, settings)
    return {
        key: math.ceil(round(1000 * sum(by_container.values()), 6))  # no millicore for noise in the last digits
        for key, by_container in sorted(cores.items())
        if key not in unclear and templates.get(key, set()) <= by_container.keys()
    }


def _nonsense(series: Series, snapshot: Snapshot, settings: PredictorSettings) -> str:
    """Say why the usage of a workload cannot be believed; "" where it can."""
    if not series:
        return "there is no usage of it"
    limits = {
        "cpu": max((node.allocatable.cpu_millicores for node in snapshot.nodes), default=0) / 1000,
        "memory": max((node.allocatable.memory_bytes for node in snapshot.nodes), default=0),
    }
    for (container, resource), one in sorted(series.items()):
        if resource not in limits:
            return f"its usage is of an unknown resource, {resource}"
        # A node's capacity is little above its allocatable: twice as much has no container used.
        if reason := _flaw(one, 2 * limits[resource], snapshot.taken_at, settings):
            return f"the {resource} usage of its container {container} {reason}"
    return ""


def _flaw(series: UsageSeries, most: float, now: float, settings: PredictorSettings) -> str:
    samples = series.samples
    if any(not math.isfinite(s.value) or not math.isfinite(s.time_seconds) for s in samples):
        return "has values that are no numbers"
    if any(s.value < 0 for s in samples):
        return "has negative values"
    if any(s.value > most for s in samples):
        return f"has values above {most:g}, twice what any node can allocate"
    if len(samples) < _FEWEST_SAMPLES:
        return f"has {len(samples)} samples; at least {_FEWEST_SAMPLES} are needed"
    first, last = min(s.time_seconds for s in samples), max(s.time_seconds for s in samples)
    if abs(now - last) > _STALE_STEPS * settings.step_seconds:
        return f"ends {now - last:g} s before now; at most {_STALE_STEPS * settings.step_seconds:g} s are believed"
    if last - first < min(settings.horizon_seconds, settings.window_seconds / 2):
        return f"covers {last - first:g} s, less than the {settings.horizon_seconds:g} s that it would foretell"
    return ""


def _changes(workload: Workload, series: Series, now: float, settings: PredictorSettings) -> dict[str, Resources]:
    """Return the new requests of each container that has any that differ enough."""
    found: dict[str, Resources] = {}
    for container in workload.containers:
        cpu, memory = series.get((container.name, "cpu")), series.get((container.name, "memory"))
        old = container.requests
        new = Resources(
            _adjusted(old.cpu_millicores, cpu, 1000, _LEAST_CPU_MILLICORES, now, settings),
            _adjusted(old.memory_bytes, memory, 1, _LEAST_MEMORY_BYTES, now, settings),
        )
        if (new.cpu_millicores, new.memory_bytes) != (old.cpu_millicores, old.memory_bytes):
            found[container.name] = new
    return found


def _adjusted(
    old: int, series: UsageSeries | None, units: int, least: int, now: float, settings: PredictorSettings
) -> int:
    """Return the request that follows from the series, `units` of the request for one of the usage; or the old one."""
    if series is None or not old:
        return old
    need = _forecast([(s.time_seconds - now, s.value) for s in series.samples], settings)
    bounded = min(max(need * units, old / _LARGEST_CHANGE), old * _LARGEST_CHANGE)
    new = max(least, math.ceil(bounded))
    return new if abs(new - old) > settings.adjustment_threshold * old else old


def _forecast(points: Sequence[tuple[float, float]], settings: PredictorSettings) -> float:
    """Return the larger end of the line over the horizon, with the margin; times are relative to now."""
    return _highest(points, settings) * (1 + settings.margin)


def _highest(points: Sequence[tuple[float, float]], settings: PredictorSettings) -> float:
    """Return the larger end of the line over the horizon, 0 at least; times are relative to now."""
    line = linear_regression([t for t, _ in points], [value for _, value in points])
    return max(0.0, line.intercept, line.intercept + line.slope * settings.horizon_seconds)


def _fits_somewhere(workload: Workload, changes: Mapping[str, Resources], snapshot: Snapshot) -> bool:
    """Say whether an empty node of the cluster could hold a pod with the new requests."""
    total = workload.requests
    for container in workload.containers:
        total = total + _difference(container, changes)
    return any(total.fits_in(node.allocatable) for node in snapshot.nodes)


def _difference(container: Container, changes: Mapping[str, Resources]) -> Resources:
    if container.name not in changes:
        return Resources()
    new, old = changes[container.name], container.requests
    return Resources(new.cpu_millicores - old.cpu_millicores, new.memory_bytes - old.memory_bytes)
