"""The baselines of the benchmark pack what they say, and the naive program finds the best of tiny cases."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.optimizer.baselines import baselines, faults
from benchmarks.optimizer.machines import Machine
from benchmarks.optimizer.naive import solve_naive
from benchmarks.optimizer.shapes import Shape

SMALL = Machine("small", 1000, 1000, 10, 10)
LARGE = Machine("large", 3000, 3000, 10, 25)

SHAPES = st.lists(
    st.builds(Shape, st.integers(0, 3000), st.integers(1, 3000), st.integers(1, 30)), min_size=1, max_size=6
)


@given(SHAPES)
@settings(max_examples=40, deadline=None)
def test_every_pod_has_one_place_and_no_node_holds_too_much(shapes: list[Shape]) -> None:
    for found in baselines(shapes, (SMALL, LARGE)):
        if found.packed is not None:
            assert list(faults(found.packed, shapes)) == []


def test_a_node_that_holds_too_much_is_found() -> None:
    packed = baselines([Shape(900, 100, 2)], (SMALL,))[0].packed
    assert packed is not None

    # Two nodes with one pod each; the faults of the same packing for larger pods, and for more of them.
    assert list(faults(packed, [Shape(1100, 100, 2)])) == [
        "node 0 holds more than a small can",
        "node 1 holds more than a small can",
    ]
    assert list(faults(packed, [Shape(900, 100, 3)])) == ["shape 0: 2 of 3 pods have a place"]


def test_nodes_become_the_cheapest_machine_that_holds_their_pods() -> None:
    ffd, bfd, single = baselines([Shape(1600, 100, 1), Shape(1400, 100, 1), Shape(900, 100, 1)], (SMALL, LARGE))

    # 1600 + 1400 fill a large one (25), 900 is left for a small one (10); large ones alone would be 50.
    assert ffd.packed is not None
    assert ffd.packed.price_nanousd_per_hour == 35
    assert bfd.packed is not None
    assert bfd.packed.price_nanousd_per_hour == 35
    assert single.packed is not None
    assert single.packed.price_nanousd_per_hour == 50


def test_a_type_that_cannot_hold_every_pod_is_no_single_type() -> None:
    thin = Machine("thin", 3000, 100, 10, 20)

    single = baselines([Shape(1600, 100, 1), Shape(100, 2000, 1)], (SMALL, thin, LARGE))[2]

    assert single.packed is not None
    assert {single.packed.machines[kind].name for kind in single.packed.kinds} == {"large"}


def test_a_pod_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="fits on no machine"):
        baselines([Shape(5000, 1, 1)], (SMALL, LARGE))


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 3000)), min_size=1, max_size=5))
@settings(max_examples=8, deadline=None)
def test_naive_program_equals_brute_force(pods: list[tuple[int, int]]) -> None:
    shapes = [Shape(cpu, memory, 1) for cpu, memory in pods]

    answer = solve_naive(shapes, (SMALL, LARGE), limit_seconds=60)

    assert answer.status == "optimal"
    assert answer.price_nanousd_per_hour == cheapest(shapes, (SMALL, LARGE))


@given(SHAPES)
@settings(max_examples=30, deadline=None)
def test_no_baseline_is_below_what_the_volume_costs(shapes: list[Shape]) -> None:
    # The large machine has the cheapest core: 25 for 3000.
    volume = sum(shape.cpu_millicores * shape.count for shape in shapes) * 25 / 3000
    for found in baselines(shapes, (SMALL, LARGE)):
        assert found.packed is None or found.packed.price_nanousd_per_hour >= volume - 1e-9


def cheapest(shapes: Sequence[Shape], machines: Sequence[Machine]) -> int:
    """Try every partition of the pods into nodes, each the cheapest machine that holds its part."""
    return min(
        sum(prices)
        for parts in partitions(list(shapes))
        if None not in (prices := [price(part, machines) for part in parts])
    )


def price(part: Sequence[Shape], machines: Sequence[Machine]) -> int | None:
    needs = [sum(amounts) for amounts in zip(*(shape.amounts for shape in part), strict=True)]
    fitting = (m.price_nanousd_per_hour for m in machines if all(n <= r for n, r in zip(needs, m.amounts, strict=True)))
    return min(fitting, default=None)


def partitions(items: list[Shape]) -> Iterator[list[list[Shape]]]:
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for size in range(len(rest) + 1):
        for chosen in itertools.combinations(range(len(rest)), size):
            part = [first, *(rest[index] for index in chosen)]
            others = [item for index, item in enumerate(rest) if index not in chosen]
            for partition in partitions(others):
                yield [part, *partition]
