"""Writes docs/settings.md from the settings' own docstrings: `make docs`. A test compares the two."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
from pathlib import Path
from typing import get_args, get_type_hints

from extender.settings import ExtenderSettings
from planner.configuration import variable_of
from planner.settings import Settings

HEAD = """\
# Settings

Written by `make docs` from the docstrings in `planner/settings.py` and `extender/settings.py`.

## Planner and its HTTP face

A YAML file has one mapping for each group; the environment wins over the file. Durations are seconds, or text
such as `15m`. `kinema settings` prints the effective ones. A name that is none of these is an error, in the file and
of a variable that begins with `KINEMA_`; what the kubelet sets for a Service is left alone.
"""

EXTENDER_HEAD = """
## Extender

It stands beside a scheduler and reads environment variables only.

| field | default | meaning |
|---|---|---|
"""


def settings_page() -> str:
    """Return the page: a table for each group of settings, one row for each setting."""
    page = HEAD
    top = [item for item in dataclasses.fields(Settings) if not _is_group(item)]
    page += _table("General", Settings, "", [item.name for item in top])
    for item in dataclasses.fields(Settings):
        if _is_group(item):
            kind = item.default_factory
            assert isinstance(kind, type)  # _is_group has looked
            names = [inner.name for inner in dataclasses.fields(kind)]
            page += _table(f"{item.name}: {_sentence(kind)}", kind, f"{item.name}.", names)
    texts = field_docstrings(ExtenderSettings)
    defaults = ExtenderSettings()
    rows = (f"| `{name}` | {_code(getattr(defaults, name))} | {_cell(text)} |\n" for name, text in texts.items())
    return page + EXTENDER_HEAD + "".join(rows)


def field_docstrings(kind: type) -> dict[str, str]:
    """Return the text under each field of a dataclass, by the field's name, in their order; "" where none is."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)  # inspect.getsource returned the class statement
    texts: dict[str, str] = {}
    for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = following.value if isinstance(following, ast.Expr) else None
            has_text = isinstance(text, ast.Constant) and isinstance(text.value, str)
            texts[statement.target.id] = " ".join(text.value.split()) if has_text else ""
    return texts


def _is_group(item: dataclasses.Field[object]) -> bool:
    return isinstance(item.default_factory, type) and dataclasses.is_dataclass(item.default_factory)


def _table(title: str, kind: type, prefix: str, names: list[str]) -> str:
    texts, defaults = field_docstrings(kind), kind()
    rows = ""
    for name in names:
        variable = variable_of(prefix + name)
        rows += f"| `{prefix}{name}` | `{variable}` | {_code(getattr(defaults, name))} | {_cell(texts[name])} |\n"
        for entry in filter(dataclasses.is_dataclass, get_args(get_type_hints(kind)[name])):
            for inner, text in field_docstrings(entry).items():
                rows += f"| `{prefix}{name}[].{inner}` | | needed | {_cell(text)} |\n"
    return f"\n### {title}\n\n| setting | variable | default | meaning, unit and reason |\n|---|---|---|---|\n{rows}"


def _sentence(kind: type) -> str:
    text = (kind.__doc__ or "").split("\n")[0].rstrip(".")
    return text[0].lower() + text[1:]


def _code(value: object) -> str:
    return "empty" if value in ("", ()) else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "docs" / "settings.md"
    target.write_text(settings_page(), encoding="utf-8")
    sys.stdout.write(f"{target.name} written\n")
