"""The benchmark's pods: the same seed gives the same ones, and the trace is the file that it says it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.optimizer.machines import machines_csv, table, undominated
from benchmarks.optimizer.shapes import NoTrace, Shape, all_different, find_trace, of_shapes, read_trace
from planner.cloud.tables import read_machines

MIB = 1024**2


def test_the_same_seed_gives_the_same_shapes() -> None:
    assert of_shapes(500, 20, seed=1) == of_shapes(500, 20, seed=1)
    assert of_shapes(500, 20, seed=1) != of_shapes(500, 20, seed=2)


def test_sizes_of_a_series_have_the_same_shapes() -> None:
    few, many = of_shapes(200, 10, seed=1), of_shapes(20_000, 10, seed=1)

    assert sum(shape.count for shape in few) == 200
    assert sum(shape.count for shape in many) == 20_000
    assert {shape.amounts for shape in few} <= {shape.amounts for shape in many}
    assert len({shape.amounts for shape in many}) == 10


def test_pods_that_are_all_different_have_no_size_twice() -> None:
    found = all_different(300, seed=3)

    assert len({shape.amounts for shape in found}) == 300
    assert {shape.count for shape in found} == {1}


def test_trace_leaves_out_what_no_machine_holds(tmp_path: Path) -> None:
    path = tmp_path / "pods.csv"
    path.write_text("name,cpu_milli,memory_mib\na,1000,2048\nb,1000,2048\nc,64000,2048\nd,500,0\n")

    # Of the first three the third needs 64 cores; the largest e2 has 32.
    assert read_trace(path, 3, table("e2")) == (Shape(1000, 2048 * MIB, 2),)
    assert read_trace(path, 4, table("e2")) == (Shape(1000, 2048 * MIB, 2), Shape(500, 0, 1))


def test_another_file_is_not_taken_for_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "pods.csv"
    path.write_text("name,cpu_milli,memory_mib\n")

    with pytest.raises(NoTrace, match="must have the SHA-256"):
        find_trace(str(path))
    with pytest.raises(NoTrace, match="there is no file"):
        find_trace(str(tmp_path / "nothing.csv"))


def test_planner_reads_the_machines_that_the_baselines_use(tmp_path: Path) -> None:
    path = tmp_path / "machines.csv"
    path.write_text(machines_csv(table("e2")))

    read = read_machines(str(path))

    assert {m.name: (m.amounts, m.price_nanousd_per_hour) for m in table("e2")} == {
        name: ((m.allocatable.cpu_millicores, m.allocatable.memory_bytes, m.allocatable.pods), m.price_nanousd_per_hour)
        for name, m in read.items()
    }


def test_machines_that_others_beat_are_left_out() -> None:
    every, kept = table(), undominated(table())

    assert len(kept) < len(every)
    for machine in every:
        assert any(
            all(a >= b for a, b in zip(k.amounts, machine.amounts, strict=True))
            and k.price_nanousd_per_hour <= machine.price_nanousd_per_hour
            for k in kept
        )
