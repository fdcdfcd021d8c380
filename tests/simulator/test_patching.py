"""Merge patches by the table of RFC 7386, strategic patches by the tags of the API's types."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.patching import merge_patch, strategic_patch

RFC_7386: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7386)
def test_merge_patch_follows_the_examples_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


def test_strategic_patch_merges_containers_by_name() -> None:
    target = {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]}
    patch = {"containers": [{"name": "b", "resources": {"requests": {"cpu": "1"}}}]}

    assert strategic_patch(target, patch) == {
        "containers": [
            {"name": "a", "image": "a:1"},
            {"name": "b", "image": "b:1", "resources": {"requests": {"cpu": "1"}}},
        ]
    }


def test_strategic_patch_replaces_taints_and_tolerations_as_a_whole() -> None:
    target = {"taints": [{"key": "a"}, {"key": "b"}], "tolerations": [{"key": "a"}]}

    assert strategic_patch(target, {"taints": [{"key": "c"}], "tolerations": []}) == {
        "taints": [{"key": "c"}],
        "tolerations": [],
    }


def test_strategic_patch_deletes_an_element_by_directive() -> None:
    target = {"containers": [{"name": "a"}, {"name": "b"}]}

    assert strategic_patch(target, {"containers": [{"name": "a", "$patch": "delete"}]}) == {
        "containers": [{"name": "b"}]
    }


def test_strategic_patch_of_a_merged_list_needs_the_key() -> None:
    with pytest.raises(ValueError, match="does not contain declared merge key: name"):
        strategic_patch({"containers": []}, {"containers": [{"image": "a"}]})
