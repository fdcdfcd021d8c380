"""What the pods of a workload will need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.model.resources import Resources


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of a usage series: seconds since the epoch, and the value in the series' unit."""

    time_seconds: float
    value: float


@dataclass(frozen=True, slots=True)
class UsageSeries:
    """The usage of one container of a workload, the largest over its pods: cores or bytes, by time."""

    workload: str
    container: str
    resource: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Forecast:
    """New requests by workload and container (`cpu_millicores` and `memory_bytes`); absent means unchanged.

    `reasons` says by workload why its requests stay as they are although a forecast was asked for.
    """

    requests: Mapping[str, Mapping[str, Resources]] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
