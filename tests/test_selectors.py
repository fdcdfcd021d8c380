"""Label selectors in one line."""

from __future__ import annotations

import pytest

from planner.selectors import Expression, parse_selector


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("", ()),
        ("  ", ()),
        ("tier in (batch)", (("tier", "In", ("batch",)),)),
        ("tier in (batch, web),app!=db", (("tier", "In", ("batch", "web")), ("app", "NotIn", ("db",)))),
        ("tier notin(a,b)", (("tier", "NotIn", ("a", "b")),)),
        ("example.com/x=1, y==2", (("example.com/x", "In", ("1",)), ("y", "In", ("2",)))),
        ("a, !b, ! c", (("a", "Exists", ()), ("b", "DoesNotExist", ()), ("c", "DoesNotExist", ()))),
        ("a=", (("a", "In", ("",)),)),
        ("n>3,n<9", (("n", "Gt", ("3",)), ("n", "Lt", ("9",)))),
    ],
)
def test_a_selector_is_a_list_of_requirements(text: str, means: tuple[Expression, ...]) -> None:
    assert parse_selector(text) == means


@pytest.mark.parametrize(
    "text", ["a b", "=x", "a,,b", "a in ()", "a in (b", "in (b)", "a=b=c", "a in (b c)", "ä", "-a", "n>x"]
)
def test_what_is_no_selector_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="must be a label selector such as") as caught:
        parse_selector(text)
    assert repr(text) in str(caught.value)
