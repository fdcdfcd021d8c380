"""The order of open places, compared with sorting them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from extender.ranking import Ranking

changes = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(-3, 3)), max_size=30)


@given(changes=changes)
def test_the_order_is_that_of_sorting_after_every_change(changes: list[tuple[str, int]]) -> None:
    ranking, places = Ranking(), dict[str, int]()
    for name, change in changes:
        places[name] = max(0, places.get(name, 0) + change)
        ranking.add(name, change)
        expected = sorted((name for name in places if places[name]), key=lambda name: (-places[name], name))
        assert list(ranking) == expected
        assert len(ranking) == len(expected)
        assert {name for name in "abcde" if name in ranking} == set(expected)


@given(first=changes, second=changes)
def test_the_sum_of_two_has_the_places_of_both(first: list[tuple[str, int]], second: list[tuple[str, int]]) -> None:
    one, other, both = Ranking(), Ranking(), dict[str, int]()
    for ranking, changes in ((one, first), (other, second)):
        places: dict[str, int] = {}
        for name, change in changes:
            places[name] = max(0, places.get(name, 0) + change)
            ranking.add(name, change)
        for name, count in places.items():
            both[name] = both.get(name, 0) + count
    expected = sorted((name for name in both if both[name]), key=lambda name: (-both[name], name))
    assert list(Ranking.sum_of((one, other))) == expected
