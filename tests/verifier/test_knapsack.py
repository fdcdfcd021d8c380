"""The exact knapsack against enumeration, and what it proves when it is stopped."""

import itertools
import random
import time
from collections.abc import Sequence

import pytest
import scipy.optimize
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planner.verifier.fractional import best_multipliers
from planner.verifier.knapsack import Item, greatest_value


def never() -> bool:
    return False


def best_of_all(items: Sequence[Item], capacity: Sequence[int]) -> int:
    """Try every content; a resource that the content does not use may be overdrawn."""
    best = 0
    for counts in itertools.product(*(range(item.count + 1) for item in items)):
        used = [sum(n * item.weights[r] for n, item in zip(counts, items, strict=True)) for r in range(len(capacity))]
        if all(u == 0 or u <= c for u, c in zip(used, capacity, strict=True)):
            best = max(best, sum(n * item.price for n, item in zip(counts, items, strict=True)))
    return best


@st.composite
def knapsacks(draw: st.DrawFn) -> tuple[list[Item], list[int]]:
    resources = draw(st.integers(1, 4))
    weights = st.tuples(*[st.integers(0, 9)] * resources).filter(any)
    items = draw(st.lists(st.builds(Item, st.integers(-3, 40), weights, st.integers(0, 3)), max_size=6))
    return items, draw(st.lists(st.integers(-2, 25), min_size=resources, max_size=resources))


@settings(max_examples=400)
@given(knapsacks(), st.integers(-5, 60))
# 10 + 10 + 9 fit in 13 of 14; a bound over items in a nearly right order missed it.
@example(([Item(9, (4,), 1), Item(10, (4,), 1), Item(10, (5,), 1), Item(14, (8,), 1)], [14]), 28)
def test_value_equals_the_best_of_all_contents(problem: tuple[list[Item], list[int]], floor: int) -> None:
    items, capacity = problem
    found = greatest_value(items, capacity, floor, never)
    assert found.exact
    assert found.lower == max(floor, best_of_all(items, capacity))


def test_overdrawn_resource_stops_only_what_requests_it() -> None:
    # 2 x 5 without the second resource, of which -1 is left; the item of 100 needs it.
    found = greatest_value([Item(5, (1, 0), 2), Item(100, (1, 1), 2)], (4, -1), 0, never)
    assert found.lower == found.upper == 2 * 5


def hard() -> tuple[list[Item], tuple[int, int]]:
    """Prices nearly proportional to the weights, no common divisor: neither bounds nor dominance decide at once."""
    sizes = [(97 + 13 * i, 89 + 29 * i % 301) for i in range(25)]
    return [Item(5 * a + 3 * b + i % 7, (a, b), 7) for i, (a, b) in enumerate(sizes)], (2973, 2931)


def test_stopped_search_still_gives_valid_limits() -> None:
    items, capacity = hard()
    stopped = greatest_value(items, capacity, 0, lambda: True)
    finished = greatest_value(items, capacity, 0, never)
    assert finished.exact
    assert stopped.lower <= finished.lower <= stopped.upper
    assert not stopped.exact


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_count_limits_how_often_an_item_is_taken(count: int) -> None:
    # 250 of weight 4 fit in 1003.
    assert greatest_value([Item(7, (4,), count)], (1003,), 0, never).lower == 7 * min(count, 250)


def sized(seed: int, count: int) -> list[tuple[int, int, int]]:
    """Return what pods take of an e2-standard-32: millicores, MiB, and themselves."""
    chance = random.Random(seed)
    return [(chance.randrange(50, 1500), chance.randrange(100, 6000), 1) for _ in range(count)]


LARGE = (31850, 119071, 110)


@pytest.mark.parametrize("seed", range(5))
def test_prices_by_volume_are_decided_without_any_search(seed: int) -> None:
    # 0.7 $/h of CPU and 0.4 of memory on a node of 1.1: no content is worth more, and only right multipliers show it.
    worth = (700_000_000 / LARGE[0], 400_000_000 / LARGE[1])
    items = [Item(int(worth[0] * w[0] + worth[1] * w[1]), w, 60) for w in sized(seed, 100)]
    found = greatest_value(items, LARGE, 1_100_000_000, lambda: True)
    assert found.exact
    assert found.lower == 1_100_000_000


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(1, 50), st.tuples(*[st.integers(0, 9)] * 3), st.integers(1, 4)), min_size=1, max_size=8
    ),
    st.tuples(*[st.integers(1, 25)] * 3),
)
def test_multipliers_are_the_duals_of_the_fractional_knapsack(
    items: list[tuple[int, tuple[int, ...], int]], room: tuple[int, ...]
) -> None:
    prices, weights, counts = ([item[part] for item in items] for part in range(3))
    shares = [[w / c for w, c in zip(weight, room, strict=True)] for weight in weights]
    duals = [value * max(prices) for value in best_multipliers(prices, shares, counts)]
    # Strong duality: room at its price, and what each item brings beyond that, are the primal optimum.
    reduced = [
        p - sum(y * s for y, s in zip(duals, share, strict=True)) for p, share in zip(prices, shares, strict=True)
    ]
    dual = sum(duals) + sum(n * max(0.0, r) for n, r in zip(counts, reduced, strict=True))
    limits = [(0, n) for n in counts]
    primal = scipy.optimize.linprog([-p for p in prices], list(zip(*shares, strict=True)), [1.0] * 3, bounds=limits)
    assert dual == pytest.approx(-primal.fun, rel=1e-7)


def test_a_search_looks_at_the_clock_wherever_it_works_long() -> None:
    # 100 groups at nearly proportional prices: far more contents than can be gone through.
    chance = random.Random(1)
    items = [Item(21_800 * c + 2_900 * m + chance.randrange(10**5), (c, m, 1), 40) for c, m, _ in sized(3, 100)]
    # Processor time, since other programs may run beside a test.
    until = time.process_time() + 1.0
    found = greatest_value(items, LARGE, 0, lambda: time.process_time() >= until)
    assert not found.exact
    assert time.process_time() - until < 4.0
