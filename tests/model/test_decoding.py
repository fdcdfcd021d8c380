"""What a decoder found wrong names the field to its last step, the value, and what would be right."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from planner.model.decoding import explain


class Part(msgspec.Struct):
    size: int
    colour: Literal["red", "blue"] = "red"


class Whole(msgspec.Struct, rename="camel"):
    name: str
    first_part: Part | None = None
    by_key: dict[str, Part] = {}
    amounts: dict[str, int | float] = {}
    rows: tuple[Part, ...] = ()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "it is []: expected `object`, got `array`"),
        ({}, "the field name is missing"),
        ({"name": 3}, "name is 3: expected `str`, got `int`"),
        ({"name": "x", "firstPart": {}}, "the field firstPart.size is missing"),
        (
            {"name": "x", "firstPart": {"size": 1, "colour": "green"}},
            'firstPart.colour must be one of blue, red, not "green"',
        ),
        ({"name": "x", "rows": [{"size": 1}, {"size": None}]}, "rows[1].size is null: expected `int`, got `null`"),
        (
            {"name": "x", "byKey": {"a.b/c": {"size": 1}, "d": {"size": 1, "colour": "green"}}},
            'byKey.d.colour must be one of blue, red, not "green"',
        ),
        ({"name": "x", "byKey": {"d": {"size": 1}, "a.b/c": {}}}, "the field byKey.a.b/c.size is missing"),
        (
            {"name": "x", "amounts": {"a": 1, "b": 0.5, "c": "12x"}},
            'amounts.c is "12x": expected `int | float`, got `str`',
        ),
    ],
)
def test_the_field_its_value_and_what_would_be_right_are_named(document: Any, says: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(document, Whole)
    assert explain(caught.value, document, Whole) == says


def test_without_the_shape_the_decoders_own_words_are_kept() -> None:
    document = {"name": "x", "firstPart": {"size": 1, "colour": "green"}}
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(document, Whole)
    assert explain(caught.value, document) == "firstPart.colour is \"green\": invalid enum value 'green'"


def test_a_long_value_is_cut_and_a_key_that_json_has_not_is_left_out() -> None:
    document = {"name": {("a", "b"): 1, "long": "x" * 200}}
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(document, Whole)
    text = explain(caught.value, document, Whole)
    assert text.startswith('name is {"long": "xxx')
    assert len(text) < 150
