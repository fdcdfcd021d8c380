"""Requests follow the usage only where it makes sense and the difference is worth a roll-out."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from planner.model.cluster import Autoscaler, Container, Snapshot, Utilization
from planner.model.forecast import Forecast, Sample, UsageSeries
from planner.model.resources import Resources
from planner.predictor import predict, predict_cpu
from planner.settings import PredictorSettings
from tests.building import GIB, deployment, node, pods_of, snapshot

WEB = "default/Deployment/web"
NOW = 1_000_000.0
STEP = 300.0
SETTINGS = PredictorSettings(
    kind="regression",
    prometheus_url="http://prometheus:9090",
    step_seconds=STEP,
    horizon_seconds=3600,
    margin=0.15,
    adjustment_threshold=0.1,
)


def cluster(cpu: int = 1000, memory_gib: float = 1, **fields: object) -> Snapshot:
    web = deployment("web", 2, cpu=cpu, memory_gib=memory_gib)
    return snapshot([node("a")], [web], pods_of(web, on={"a": 2}), taken_at=NOW, **fields)


def series(values: Iterable[float], resource: str = "cpu", end: float = NOW) -> UsageSeries:
    """Return one value every 5 minutes, the last one at `end`."""
    found = list(values)
    times = [end - STEP * (len(found) - 1 - i) for i in range(len(found))]
    return UsageSeries(WEB, "main", resource, tuple(Sample(t, v) for t, v in zip(times, found, strict=True)))


def flat(value: float, count: int = 24) -> list[float]:
    return [value] * count


def test_flat_usage_becomes_the_request_with_the_margin() -> None:
    forecast = predict(cluster(), (series(flat(0.5)),), SETTINGS)
    # 0.5 cores x 1.15 = 575 m; memory has no series and stays.
    assert forecast == Forecast({WEB: {"main": Resources(575, GIB)}}, {})


def test_rising_usage_is_read_at_the_end_of_the_horizon() -> None:
    rising = [0.4 + 0.01 * i for i in range(25)]  # 0.64 now, + 0.01 every 5 minutes
    forecast = predict(cluster(), (series(rising),), SETTINGS)
    # (0.64 + 12 x 0.01) x 1.15 = 0.874
    assert forecast.requests[WEB]["main"].cpu_millicores == pytest.approx(874, abs=1)


def test_falling_usage_is_read_at_its_beginning() -> None:
    falling = [0.64 - 0.01 * i for i in range(25)]  # 0.40 now
    forecast = predict(cluster(), (series(falling),), SETTINGS)
    assert forecast.requests[WEB]["main"].cpu_millicores == pytest.approx(460, abs=1)  # 0.40 x 1.15


def test_memory_is_counted_in_bytes() -> None:
    forecast = predict(cluster(), (series(flat(2.0 * GIB), "memory"),), SETTINGS)
    assert forecast.requests[WEB]["main"] == Resources(1000, math.ceil(2 * GIB * 1.15))


@pytest.mark.parametrize(
    ("usage", "changes"),
    [
        (1.1 / 1.15, False),  # 1100 m: exactly a tenth more
        (1.11 / 1.15, True),
        (0.9 / 1.15, False),
        (0.88 / 1.15, True),
    ],
)
def test_requests_change_only_by_more_than_the_threshold(usage: float, changes: bool) -> None:
    # A millicore less than the boundary, for the new request is rounded up.
    forecast = predict(cluster(), (series(flat(usage - 1e-9)),), SETTINGS)
    assert bool(forecast.requests) is changes
    assert forecast.reasons == {}


@pytest.mark.parametrize(
    ("old", "usage", "new"),
    [
        (1000, 0.0, 250),  # at most a quarter of the request at once
        (20, 0.0, 10),  # never below 10 m
        (400, 6.0, 1600),  # at most four times the request at once
    ],
)
def test_forecast_is_kept_within_sane_bounds(old: int, usage: float, new: int) -> None:
    forecast = predict(cluster(cpu=old), (series(flat(usage)),), SETTINGS)
    assert forecast.requests[WEB]["main"].cpu_millicores == new


def test_line_below_zero_is_clamped() -> None:
    plunging = [1.0 if i < 12 else 0.0 for i in range(24)]
    forecast = predict(cluster(), (series(plunging),), SETTINGS)
    assert forecast.requests[WEB]["main"].cpu_millicores == 250


ABSURD: dict[str, tuple[UsageSeries, str]] = {
    "not a number": (series([*flat(0.5), math.nan]), "has values that are no numbers"),
    "infinite": (series([*flat(0.5), math.inf]), "has values that are no numbers"),
    "negative": (series([*flat(0.5), -0.1]), "has negative values"),
    "more than any machine": (series([*flat(0.5), 8.1]), "has values above 8, twice what any node can allocate"),
    "few": (series(flat(0.5, count=11)), "has 11 samples; at least 12 are needed"),
    "old": (series(flat(0.5), end=NOW - 901), "ends 901 s before now; at most 900 s are believed"),
    "from the future": (series(flat(0.5), end=NOW + 901), "ends -901 s before now; at most 900 s are believed"),
    "short": (
        replace(series(()), samples=tuple(Sample(NOW - i, 0.5) for i in range(20))),
        "covers 19 s, less than the 3600 s that it would foretell",
    ),
}


@pytest.mark.parametrize("case", ABSURD)
def test_absurd_usage_changes_nothing_and_says_why(case: str) -> None:
    usage, reason = ABSURD[case]
    forecast = predict(cluster(), (usage,), SETTINGS)
    assert forecast == Forecast({}, {WEB: f"the cpu usage of its container main {reason}"})


def test_one_absurd_series_stops_the_whole_workload() -> None:
    forecast = predict(cluster(), (series(flat(0.5)), series(flat(-1.0), "memory")), SETTINGS)
    assert forecast == Forecast({}, {WEB: "the memory usage of its container main has negative values"})


LEFT_ALONE: dict[str, tuple[Callable[[Snapshot], Snapshot], dict[str, str]]] = {
    "scaled by utilization": (
        lambda s: replace(s, autoscalers=(Autoscaler("default/web", WEB, 2, 2, 9, (Utilization("cpu", 50, 80),)),)),
        {WEB: "an autoscaler scales it by its utilization, which new requests would change"},
    ),
    "more than any node": (
        # Beside a second container of 3500 m, 575 m are more than the node's 4000 m.
        lambda s: replace(
            s,
            workloads=(
                replace(
                    s.workloads[0],
                    requests=Resources(3900, GIB, 1),
                    containers=(Container("main", Resources(400, GIB)), Container("side", Resources(3500, 0))),
                ),
            ),
        ),
        {WEB: "its forecast is more than any node can allocate"},
    ),
    "no request to change": (
        lambda s: replace(s, workloads=(replace(s.workloads[0], containers=(Container("main", Resources()),)),)),
        {},
    ),
    "no Deployment": (
        lambda s: replace(s, workloads=(replace(s.workloads[0], key="default/StatefulSet/web"),)),
        {},
    ),
    "not known": (lambda s: replace(s, workloads=(replace(s.workloads[0], known=False),)), {}),
    "no usage": (
        lambda s: replace(s, workloads=(replace(s.workloads[0], key="default/Deployment/other"),)),
        {"default/Deployment/other": "there is no usage of it"},
    ),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_some_workloads_are_left_alone(case: str) -> None:
    change, reasons = LEFT_ALONE[case]
    assert predict(change(cluster()), (series(flat(0.5)),), SETTINGS) == Forecast({}, reasons)


def test_kind_none_changes_nothing() -> None:
    assert predict(cluster(), (series(flat(0.5)),), PredictorSettings()) == Forecast()


def test_a_day_of_a_real_machine() -> None:
    """The CPU utilisation of a real machine in percent, taken as percent of one core."""
    path = Path(__file__).parent / "data" / "ec2_cpu_utilization_825cc2.csv"
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    times = [datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp() for row in rows]
    samples = tuple(Sample(t, float(row["value"]) / 100) for t, row in zip(times, rows, strict=True))
    seen = replace(cluster(cpu=2000), taken_at=times[-1])
    forecast = predict(seen, (UsageSeries(WEB, "main", "cpu", samples),), SETTINGS)
    # Least squares over its 289 samples: 0.93592 now, + 0.00059 an hour; (0.93592 + 0.00059) x 1.15 = 1.0770
    assert len(rows) == 289
    assert forecast.requests[WEB]["main"].cpu_millicores == 1077


def container_series(workload: str, container: str, values: Iterable[float], resource: str = "cpu") -> UsageSeries:
    return replace(series(values, resource), workload=workload, container=container)


def test_cpu_usage_is_the_sum_over_the_containers_without_a_margin() -> None:
    web = deployment("web", 2, containers=tuple(Container(name, Resources(100, GIB)) for name in ("main", "proxy")))
    cluster = snapshot([node("a")], [web], pods_of(web, on={"a": 2}), taken_at=NOW)
    rising = [0.4 + 0.01 * i for i in range(25)]  # 0.64 now, 0.76 in an hour
    usage = (container_series(WEB, "main", rising), container_series(WEB, "proxy", flat(0.25)))
    assert predict_cpu(cluster, usage, SETTINGS) == {WEB: 1010}
    # A sidecar that the template does not have counts, too; memory does not.
    more = (*usage, container_series(WEB, "mesh", flat(0.09)), series(flat(2e9), "memory"))
    assert predict_cpu(cluster, more, SETTINGS) == {WEB: 1100}


def test_cpu_usage_is_predicted_also_where_requests_are_left_alone() -> None:
    agent = "kube-system/DaemonSet/agent"
    usage = (series(flat(0.3)), container_series(agent, "agent", flat(0.02)))
    assert predict_cpu(cluster(), usage, PredictorSettings()) == {WEB: 300, agent: 20}


@pytest.mark.parametrize(
    "usage",
    [
        (),
        (series(flat(0.3, 11)),),  # too few samples
        (series(flat(0.3), end=NOW - 3600),),  # an hour old
        (series(flat(-0.3)),),
        (series(flat(9.0)),),  # more than twice the largest node has
        (series(flat(0.3)), container_series(WEB, "sidecar", flat(math.nan))),  # one part makes no sense
        (container_series(WEB, "sidecar", flat(0.3)),),  # its own container is not measured
    ],
)
def test_cpu_usage_that_cannot_be_believed_is_not_predicted(usage: tuple[UsageSeries, ...]) -> None:
    assert predict_cpu(cluster(), usage, SETTINGS) == {}
