"""Quantities are read exactly, as Kubernetes reads them."""

from __future__ import annotations

from decimal import ROUND_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.quantities import MILLI, parse_quantity

GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "scale", "expected"),
    [
        ("250m", MILLI, 250),
        ("2", MILLI, 2000),
        ("0.1", MILLI, 100),
        (".5", MILLI, 500),
        ("5.", MILLI, 5000),
        ("1n", MILLI, 1),  # a billionth of a core is rounded up to a millicore
        ("100u", MILLI, 1),
        ("1500u", MILLI, 2),
        ("1.5Gi", 1, 3 * GIB // 2),
        ("100Mi", 1, 100 * 1024**2),
        ("1Ki", 1, 1024),
        ("128974848", 1, 128974848),
        ("129e6", 1, 129_000_000),
        ("129E6", 1, 129_000_000),
        ("129M", 1, 129_000_000),
        ("1k", 1, 1000),
        ("1E", 1, 10**18),
        ("1e-3", 1, 1),
        ("0.5", 1, 1),  # half a byte is rounded up
        ("-0", 1, 0),
        ("+1", 1, 1),
        (2, 1, 2),
        (0.5, MILLI, 500),
    ],
)
def test_a_quantity_is_read_exactly_and_rounded_up(text: str | float, scale: int, expected: int) -> None:
    assert parse_quantity(text, scale) == expected


@pytest.mark.parametrize("text", ["9E999", "1e999999999999", "99999999999Ei"])
def test_an_amount_beyond_64_bits_is_capped(text: str) -> None:
    assert parse_quantity(text) == 2**63 - 1


@pytest.mark.parametrize(
    "text", ["12x", "", "Gi", "1e", "1 Gi", "1.2.3", "0x10", "1Kii", "1ki", "m", "1e1.5", "NaN", "１Gi"]
)
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r'"250m", "2", "1\.5Gi" or "12e3", not'):
        parse_quantity(text)


def test_a_negative_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must not be negative, but is '-1'"):
        parse_quantity("-1")


@given(st.decimals(0, 10**9, places=6), st.sampled_from([("", 1), ("k", 10**3), ("Ki", 2**10), ("Mi", 2**20)]))
def test_reading_agrees_with_decimal_arithmetic(number: Decimal, suffix: tuple[str, int]) -> None:
    expected = int((number * suffix[1]).to_integral_value(ROUND_UP))
    assert parse_quantity(f"{number:f}{suffix[0]}") == expected
