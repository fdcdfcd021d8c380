"""Pods without a cluster: the production trace, and generators with fixed seeds."""

from __future__ import annotations

import csv
import hashlib
import itertools
import os
import random
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.optimizer.machines import Amounts, Machine

MIB = 1024**2

TRACE = "openb_pod_list_default.csv"
TRACE_URL = (
    "https://raw.githubusercontent.com/alibaba/clusterdata/7a6c496e4f4b6ce6150be8f881cb051bf2abff42/"
    f"cluster-trace-gpu-v2023/csv/{TRACE}"
)
TRACE_SHA256 = "1ee7ed79c27a3b0861cda8ddba86a004c6aba904caafa329a76ae93ca63834a8"
"""Pods of a production cluster with GPUs; only their CPU and memory are used. Source: Alibaba, clusterdata,
cluster-trace-gpu-v2023 (Weng et al., NSDI 2022 and USENIX ATC 2023). It is not ours to pass on, so it is not in the
project."""

_CPU_MILLICORES = (50, 100, 100, 150, 200, 200, 250, 300, 400, 500, 750, 1000)
_MIB_OF_A_CORE = (1024, 2048, 3072, 4096, 6144, 8192)
"""From highcpu to highmem: what Google's machine types have for each vCPU."""


class NoTrace(Exception):
    """The trace is nowhere; the text says where it was looked for."""


@dataclass(frozen=True, slots=True)
class Shape:
    """So many identical pods."""

    cpu_millicores: int
    memory_bytes: int
    count: int

    @property
    def amounts(self) -> Amounts:
        """What one pod takes of a machine."""
        return self.cpu_millicores, self.memory_bytes, 1


def find_trace(named: str | None) -> Path:
    """Return the trace: the named file, $KINEMA_TRACE, a shared folder beside the clone, the cache, or a download.

    Raises:
        NoTrace: it is in none of these places, or is another file.
    """
    cache = Path(os.environ.get("KINEMA_CACHE") or Path.home() / ".cache" / "kinema")
    beside = Path(__file__).parents[3] / "shared" / "data" / TRACE
    given = named or os.environ.get("KINEMA_TRACE")
    places = [Path(given)] if given else [beside, cache / TRACE]
    found = next((place for place in places if place.is_file()), None)
    if found is None and given:
        raise NoTrace(f"no trace: there is no file {given}")
    if found is None:
        found = cache / TRACE
        _download(found)
    if hashlib.sha256(found.read_bytes()).hexdigest() != TRACE_SHA256:
        raise NoTrace(f"no trace: {found.name} must have the SHA-256 {TRACE_SHA256[:12]}…, that of {TRACE_URL}")
    return found


def _download(to: Path) -> None:
    try:
        with urllib.request.urlopen(TRACE_URL, timeout=20) as answer:
            data = answer.read()
    except (urllib.error.URLError, TimeoutError) as error:
        raise NoTrace(f"no trace: {TRACE_URL} does not answer ({error}); give --trace FILE or KINEMA_TRACE") from None
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(data)


def read_trace(path: Path, pods: int, machines: Iterable[Machine]) -> tuple[Shape, ...]:
    """Return the first pods of the trace, CPU and memory alone, without those that none of the machines can hold.

    379 of all 8,152 ask for more than the largest e2 machine has.
    """
    largest = [machine.amounts for machine in machines]
    counts: Counter[tuple[int, int]] = Counter()
    with path.open(encoding="utf-8", newline="") as file:
        for row in itertools.islice(csv.DictReader(file), pods):
            cpu, memory = int(row["cpu_milli"]), int(row["memory_mib"]) * MIB
            if any(cpu <= most[0] and memory <= most[1] for most in largest):
                counts[cpu, memory] += 1
    return tuple(Shape(cpu, memory, count) for (cpu, memory), count in counts.items())


def of_shapes(pods: int, shapes: int, seed: int) -> tuple[Shape, ...]:
    """Return pods of so many shapes, each of 50m to 1000m with 1 to 8 GiB for a core; some shapes are common.

    The shapes depend on the seed alone, so that a series of sizes has the same ones. A shape's weight is 1/rank.
    """
    chance = random.Random(seed)
    chosen: dict[tuple[int, int], int] = {}
    while len(chosen) < shapes:
        # 25m and 16 MiB more or less: enough to tell a hundred shapes apart.
        cpu = chance.choice(_CPU_MILLICORES) + 5 * chance.randrange(6)
        memory = cpu * chance.choice(_MIB_OF_A_CORE) // 1000 + 16 * chance.randrange(4)
        chosen.setdefault((cpu, memory), len(chosen) + 1)
    kinds = list(chosen)
    weights = [1 / rank for rank in chosen.values()]
    counts = Counter(chance.choices(range(shapes), weights, k=pods))
    return tuple(Shape(*_sized(kinds[kind]), counts[kind]) for kind in sorted(counts))


def all_different(pods: int, seed: int) -> tuple[Shape, ...]:
    """Return pods of which no two have the same size: 100m to 4000m, 128 MiB to 16 GiB, evenly spread."""
    chance = random.Random(seed)
    chosen: dict[tuple[int, int], None] = {}
    while len(chosen) < pods:
        chosen[chance.randrange(100, 4001), chance.randrange(128, 16385)] = None
    return tuple(Shape(*_sized(kind), 1) for kind in chosen)


def _sized(kind: tuple[int, int]) -> tuple[int, int]:
    return kind[0], kind[1] * MIB
