"""The knapsacks against every content that is possible."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from planner.optimizer import pricing
from planner.optimizer.constraints import IntArray
from planner.optimizer.knapsacks import Knapsacks
from planner.optimizer.pricing import Depth, price_contents


def some_knapsacks(seed: int) -> tuple[Knapsacks, IntArray]:
    """Return three small knapsacks over CPU, memory and pods, some without room, and prices of the groups.

    In every third case some pods would rather not be on some of the nodes, and cost up to what others are worth.
    """
    chance = np.random.default_rng(seed)
    groups = int(chance.integers(1, 5))
    cpu, memory = chance.integers(1, 9, groups) * 250, chance.integers(0, 9, groups) * 512
    caps = chance.integers(0, 6, (3, groups))
    # Every other case has two rules with two sides each; a group may be on both sides of different ones.
    sides = chance.choice([0, 0b01, 0b10, 0b1001, 0b1000], groups) if seed % 2 else np.zeros(groups, dtype=np.int64)
    disliked = chance.integers(0, 2, (3, groups)) * chance.integers(0, 15_000, (3, groups)) * (seed % 3 == 1)
    sacks = Knapsacks(
        requests=np.stack([cpu, memory, np.ones(groups, dtype=np.int64)], axis=1),
        sides=sides,
        room=np.stack([chance.integers(0, 5000, 3), chance.integers(0, 9000, 3), chance.integers(1, 12, 3)], axis=1),
        caps=caps,
        present=np.minimum(caps, chance.integers(0, 3, (3, groups))),
        displeasure=disliked,
        move_prices=int(chance.integers(0, 3000)) * (1 + np.arange(groups) % 2),
        whole=2 if seed % 3 == 0 else 3,
    )
    return sacks, cpu * chance.integers(5, 15, groups) + memory * chance.integers(1, 4, groups)


def worth(sacks: Knapsacks, prices: IntArray, k: int, content: IntArray) -> int:
    arriving = np.maximum(content - sacks.present[k], 0)
    return int(content @ (prices - sacks.displeasure[k]) - arriving @ sacks.move_prices)


def best(sacks: Knapsacks, prices: IntArray, k: int) -> int:
    contents = (np.array(x) for x in itertools.product(*(range(int(cap) + 1) for cap in sacks.caps[k])))
    return max(worth(sacks, prices, k, x) for x in contents if possible(sacks, k, x))


def possible(sacks: Knapsacks, k: int, content: IntArray) -> bool:
    marks = {int(side) for side in sacks.sides[content > 0]}
    clash = any((a & 0b01 and b & 0b10) or (a & 0b0100 and b & 0b1000) for a in marks for b in marks)
    return bool((content @ sacks.requests <= sacks.room[k]).all()) and not clash


@pytest.mark.parametrize("buckets", [0, 7, 500])
@pytest.mark.parametrize("seed", range(60))
def test_wide_search_finds_the_best_content_of_every_class(seed: int, buckets: int) -> None:
    sacks, prices = some_knapsacks(seed)
    priced = price_contents(sacks, prices, np.zeros(3, dtype=np.int64), Depth(100_000, buckets))
    expected = [best(sacks, prices, k) for k in range(3)]
    assert priced.upper.tolist() == expected
    found = [0, 0, 0]
    for k, content in zip(priced.classes.tolist(), priced.contents, strict=True):
        assert possible(sacks, k, content)
        assert (content <= sacks.caps[k]).all()
        found[k] = max(found[k], worth(sacks, prices, k, content))
    assert found == expected


@pytest.mark.parametrize("buckets", [0, 7, 500])
@pytest.mark.parametrize("seed", range(60))
def test_narrow_search_never_claims_less_than_the_truth(seed: int, buckets: int) -> None:
    sacks, prices = some_knapsacks(seed)
    priced = price_contents(sacks, prices, np.zeros(3, dtype=np.int64), Depth(2, buckets))
    assert all(upper >= best(sacks, prices, k) for k, upper in enumerate(priced.upper.tolist()))


@pytest.mark.parametrize("looks", [0, 1, 2, 4])
@pytest.mark.parametrize("seed", range(20))
def test_a_search_whose_time_runs_out_never_claims_less_than_the_truth(
    seed: int, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pricing, "_LEAST_WIDTH", 1)
    sacks, prices = some_knapsacks(seed)
    left = itertools.chain([False] * looks, itertools.repeat(True))
    priced = price_contents(sacks, prices, np.zeros(3, dtype=np.int64), Depth(1000, 7, lambda: next(left)))
    assert all(upper >= best(sacks, prices, k) for k, upper in enumerate(priced.upper.tolist()))


def test_a_search_whose_time_runs_out_goes_on_with_a_few_contents_only() -> None:
    sizes = [(97 + 13 * i, 89 + 29 * i % 301) for i in range(25)]
    prices = np.array([5 * a + 3 * b + i % 7 for i, (a, b) in enumerate(sizes)])
    caps = np.full((1, 25), 7)
    sacks = Knapsacks(
        requests=np.array(sizes), sides=np.zeros(25, dtype=np.int64), room=np.array([[2973, 2931]]), caps=caps,
        present=caps * 0, displeasure=caps * 0, move_prices=caps[0] * 0, whole=2,
    )  # fmt: skip
    floor = np.zeros(1, dtype=np.int64)
    exact = price_contents(sacks, prices, floor, Depth(100_000, 500))
    hurried = price_contents(sacks, prices, floor, Depth(100_000, 500, lambda: True))
    # What few contents leave open is part of the answer.
    assert hurried.upper[0] > exact.upper[0] == (exact.contents @ prices).max()
    assert 0 < hurried.classes.size <= 3


def test_nothing_is_found_where_the_floor_is_the_best() -> None:
    sacks, prices = some_knapsacks(7)
    floor = np.array([best(sacks, prices, k) for k in range(3)])
    priced = price_contents(sacks, prices, floor, Depth(100_000, 0))
    assert priced.classes.size == 0
    assert priced.upper.tolist() == floor.tolist()


def test_tables_that_would_not_fit_in_memory_at_once_are_made_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sacks, prices = some_knapsacks(11)
    whole = price_contents(sacks, prices, np.zeros(3, dtype=np.int64), Depth(100, 500))
    monkeypatch.setattr(pricing, "_MOST_CELLS", 500)
    parts = price_contents(sacks, prices, np.zeros(3, dtype=np.int64), Depth(100, 500))
    assert parts.upper.tolist() == whole.upper.tolist()
    assert parts.classes.tolist() == whole.classes.tolist()
    assert parts.contents.tolist() == whole.contents.tolist()
