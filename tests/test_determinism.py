"""The same input gives the same plan, byte for byte but for the timings, in another process with another order of
what has none: the objects of the dump, and Python's sets.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.optimizer import cluster
from benchmarks.optimizer.dumps import pending
from benchmarks.optimizer.machines import machines_csv, table
from benchmarks.optimizer.shapes import of_shapes
from tests.controlplane.build import FILTER_CHECK, build
from tests.filters.clusters import generate
from tests.filters.scheduler import Filters, Object

ROOT = Path(__file__).parent.parent


def planned(folder: Path, objects: Iterable[Object], solver: str, hash_seed: int) -> bytes:
    """Return what a process of its own prints for the objects, without the timings."""
    (folder / "cluster.json").write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": list(objects)}))
    files = ["--cluster", f"{folder}/cluster.json", "--machines", f"{folder}/machines.csv"]
    if (folder / "pools.yaml").exists():
        files += ["--pools", f"{folder}/pools.yaml"]
    arguments = [sys.executable, "-m", "planner", "plan", *files, "--output", "json"]
    arguments += ["--solver", solver, "--settings", f"{folder}/settings.yaml"]
    # Far from the time limit, also where many tests run at once.
    (folder / "settings.yaml").write_text("optimizer: {time_limit_seconds: 250, target_gap: 0.05}\n")
    done = subprocess.run(
        arguments, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": str(hash_seed)}, capture_output=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    printed, timings = re.subn(rb'"timings_seconds": \{[^}]*\}', b"", done.stdout)
    assert timings == 1
    return printed


def assert_same_whatever_the_order(folder: Path, objects: list[Object], solver: str = "HIGHS") -> None:
    first = planned(folder, objects, solver, hash_seed=1)
    shuffled = random.Random(5).sample(objects, len(objects))
    assert planned(folder, shuffled, solver, hash_seed=2) == first


@pytest.mark.parametrize("solver", ["HIGHS", "GLPK_MI"])
def test_new_pods_of_many_shapes_are_planned_the_same(tmp_path: Path, solver: str) -> None:
    (tmp_path / "machines.csv").write_text(machines_csv(table("e2")))
    assert_same_whatever_the_order(tmp_path, list(pending(of_shapes(30, 8, seed=2))), solver)


def test_a_crowded_cluster_with_pools_budgets_and_rules_is_planned_the_same(tmp_path: Path) -> None:
    (tmp_path / "machines.csv").write_text(machines_csv(cluster.machines()))
    (tmp_path / "pools.yaml").write_text(cluster.pools_yaml())
    assert_same_whatever_the_order(tmp_path, list(cluster.crowded(12, 70, 10, seed=1).objects()))


@pytest.fixture(scope="module")
def filters() -> Iterator[Filters]:
    """The real filters, which help to make the clusters; where they can be neither found nor built the test fails."""
    with Filters(build().path(FILTER_CHECK)) as running:
        yield running


@pytest.mark.controlplane
@pytest.mark.parametrize("seed", range(3))
def test_a_cluster_with_every_kind_of_constraint_is_planned_the_same(
    seed: int, filters: Filters, tmp_path: Path
) -> None:
    case = generate(seed, filters)
    (tmp_path / "machines.csv").write_text(case.table())
    if case.pools:
        (tmp_path / "pools.yaml").write_text(yaml.safe_dump(case.pools))
    assert_same_whatever_the_order(tmp_path, case.objects)
