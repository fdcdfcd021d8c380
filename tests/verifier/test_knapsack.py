"""The exact knapsack against enumeration, and what it proves when it is stopped."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

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
