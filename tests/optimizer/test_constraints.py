"""What contents use is exact, whatever the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.optimizer.constraints import use_of


@pytest.mark.parametrize("large", [2**31, 2**51, 2**52, 2**53, 2**60])
def test_no_pod_is_lost_in_a_sum_that_a_float_cannot_hold(large: int) -> None:
    # 1 x large + 3 x 1: from 2^53 on a float leaves out the odd one.
    used = use_of(np.array([[large], [1]]), np.array([[1, 3]]))
    assert used.dtype == np.int64
    assert used.tolist() == [[large + 3]]


@given(st.lists(st.tuples(st.integers(0, 2**44), st.integers(0, 5)), min_size=1, max_size=8))
def test_contents_use_the_sum_of_what_their_pods_request(pods: list[tuple[int, int]]) -> None:
    requests = np.array([[each, 1] for each, _ in pods], dtype=np.int64)
    contents = np.array([[count for _, count in pods]], dtype=np.int64)
    assert use_of(requests, contents).tolist() == [
        [sum(each * count for each, count in pods), sum(count for _, count in pods)]
    ]


def test_nothing_uses_nothing() -> None:
    assert use_of(np.zeros((2, 3), dtype=np.int64), np.zeros((0, 2), dtype=np.int64)).shape == (0, 3)
