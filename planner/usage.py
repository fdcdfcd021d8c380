"""Usage of containers as Prometheus' HTTP API has it, and of pods as a user's own table predicts it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from planner.errors import BadInput, BadSettings, UsageError
from planner.model.cluster import Snapshot
from planner.model.forecast import Sample, UsageSeries

_CONTAINERS = '{container!="",container!="POD"}'
_QUERIES = {
    "cpu": f"max by (namespace, pod, container) (rate(container_cpu_usage_seconds_total{_CONTAINERS}[5m]))",
    "memory": f"max by (namespace, pod, container) (container_memory_working_set_bytes{_CONTAINERS})",
}
"""Cores and bytes of each container. `max by` drops the labels that differ between two scrapes of one container; a
rate over 5 minutes bridges scrapes that failed, at the usual one a minute."""


_USAGE_COLUMNS = ("workload", "cpu_millicores")
_MOST_MILLICORES = 10**9
"""A thousand times the largest machine: more is a mistake of units."""


class NoUsage:
    """No usage is read: requests stay as they are."""

    def read(self, snapshot: Snapshot) -> tuple[UsageSeries, ...]:  # noqa: ARG002  # the port's signature
        """Return no series."""
        return ()


@dataclass(frozen=True, slots=True)
class PrometheusUsage:
    """Usage as Prometheus has it: `window_seconds` of history up to the snapshot, one value every `step_seconds`.

    Raises:
        BadSettings: the base URL is none.
    """

    base_url: str
    window_seconds: float = 86400.0
    step_seconds: float = 300.0
    timeout_seconds: float = 30.0
    _pool: urllib3.PoolManager = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise BadSettings(
                f"predictor.prometheus_url must be a URL such as http://prometheus:9090, not {self.base_url!r}"
            )
        object.__setattr__(self, "_pool", urllib3.PoolManager(retries=False, timeout=self.timeout_seconds))

    def read(self, snapshot: Snapshot) -> tuple[UsageSeries, ...]:
        """Return the series of every container of the snapshot's pods: at each time the largest over a workload's pods.

        A DaemonSet is a workload, too. Values that are no finite number are left out; pods that have ended since are
        not counted.

        Raises:
            UsageError: Prometheus does not answer, refuses, or warns that its answer is not whole.
        """
        owners = {(pod.namespace, pod.name): pod.workload for pod in snapshot.pods if pod.live}
        found: list[UsageSeries] = []
        for resource, query in _QUERIES.items():
            found += _merged(resource, self._query_range(query, snapshot.taken_at), owners)
        return tuple(found)

    def _query_range(self, query: str, end: float) -> list[Any]:
        """Return the matrix of one range query."""
        form = {
            "query": query,
            "start": f"{end - self.window_seconds:.3f}",
            "end": f"{end:.3f}",
            "step": f"{self.step_seconds:g}",
            "timeout": f"{self.timeout_seconds:g}s",
        }
        url = self.base_url.rstrip("/") + "/api/v1/query_range"
        try:
            # POST, because proxies cut long URLs.
            answer = self._pool.request(
                "POST",
                url,
                body=urlencode(form),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
            )
        except urllib3.exceptions.HTTPError as error:
            raise UsageError(f"Prometheus at {url} does not answer: {' '.join(str(error).split())}") from error
        return _matrix(url, answer.status, answer.data)


def read_usage(path: str, snapshot: Snapshot) -> dict[str, int]:
    """Read what one pod of each workload will use of the CPU, in millicores: the columns workload and cpu_millicores.

    Raises:
        BadInput: the file cannot be read, a column is missing or a value is wrong; names file, line, column, value.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: cannot be read: is no text in UTF-8 (byte {error.start})") from None
    known = {pod.workload for pod in snapshot.pods} | {daemonset.key for daemonset in snapshot.daemonsets}
    found: dict[str, int] = {}
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    try:
        columns = [name.strip() for name in reader.fieldnames or ()]
        if sorted(columns) != sorted(_USAGE_COLUMNS):
            raise BadInput(f"{path}: line 1: the columns must be {' and '.join(_USAGE_COLUMNS)}, not {columns}")
        reader.fieldnames = columns
        for row in reader:
            at = f"{path}: line {reader.line_num}"
            if None in row or None in row.values():
                raise BadInput(f"{at}: has not as many values as there are columns")
            workload, text = (row[name].strip() for name in _USAGE_COLUMNS)
            if workload not in known:
                right = "the namespace/Kind/name of pods in the cluster"
                raise BadInput(f"{at}: workload must be {right}, not {workload!r}")
            if workload in found:
                raise BadInput(f"{at}: workload must be one that no earlier line has, not {workload!r}")
            if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MOST_MILLICORES):
                right = f"a whole number from 0 to {_MOST_MILLICORES}"
                raise BadInput(f"{at}: cpu_millicores must be {right}, not {text!r}")
            found[workload] = int(text)
    except csv.Error as error:
        raise BadInput(f"{path}: line {reader.line_num}: is no CSV: {error}") from None
    return found


def _matrix(url: str, status: int, body: bytes) -> list[Any]:
    """Read the answer's envelope; an error in it says more than the HTTP status."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise UsageError(f"Prometheus at {url} answers HTTP {status} without a JSON object")
    if status != 200 or answer.get("status") != "success":
        said = " ".join(f"{answer.get('errorType', '')} {answer.get('error', '')}".split())
        raise UsageError(f"Prometheus at {url} answers HTTP {status}: {said or 'no reason'}")
    if answer.get("warnings"):
        # A part of the history is missing, such as a remote store that did not answer.
        raise UsageError(f"Prometheus at {url} warns: {'; '.join(map(str, answer['warnings']))}")
    data = answer.get("data")
    if not isinstance(data, dict) or data.get("resultType") != "matrix" or not isinstance(data.get("result"), list):
        raise UsageError(f"Prometheus at {url} answers without a matrix")
    return list(data["result"])


def _merged(resource: str, matrix: Iterable[Any], owners: Mapping[tuple[str, str], str]) -> list[UsageSeries]:
    """Take the largest value over the pods of each workload's container at each time."""
    largest: dict[tuple[str, str], dict[float, float]] = {}
    for entry in matrix:
        labels, points = _entry(entry)
        owner = owners.get((labels.get("namespace", ""), labels.get("pod", "")))
        if owner is None:
            continue
        values = largest.setdefault((owner, labels.get("container", "")), {})
        for time_seconds, value in points:
            values[time_seconds] = max(value, values.get(time_seconds, value))
    return [
        UsageSeries(workload, container, resource, tuple(Sample(t, values[t]) for t in sorted(values)))
        for (workload, container), values in sorted(largest.items())
        if values
    ]


def _entry(entry: Any) -> tuple[dict[str, str], list[tuple[float, float]]]:
    """Read one series: its labels, and its points with a finite value.

    Raises:
        UsageError: the entry is none of a matrix.
    """
    try:
        labels = {str(key): str(value) for key, value in entry["metric"].items()}
        points = [(float(time_seconds), float(value)) for time_seconds, value in entry["values"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"Prometheus answers with a series that is none: {type(error).__name__} {error}") from None
    return labels, [(time_seconds, value) for time_seconds, value in points if math.isfinite(value)]
