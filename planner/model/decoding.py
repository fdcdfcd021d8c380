"""What a decoder found wrong, in one line that names the field and its value."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

import msgspec

_MESSAGE = re.compile(r"(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_WRONG_TYPE = re.compile(r"Expected `.*`, got `(.*)`")
_WRONG_WORD = re.compile(r"Invalid enum value '(.*)'")
_STEP = re.compile(r"\[(?:\d+|\.\.\.)\]|[^.\[\]]+")
_TYPE_NAMES = {
    str: "str", bool: "bool", int: "int", float: "float", list: "array", dict: "object", type(None): "null"
}  # fmt: skip
_LONGEST_VALUE = 80


def explain(error: msgspec.ValidationError, document: object, shape: type | None = None) -> str:
    """Return "the field a.b is missing", or "a.b is 3: expected `str`, got `int`"; `document` is what was decoded.

    With the `shape` that was asked for, a word that is none of a few is answered by those.
    """
    found = _MESSAGE.fullmatch(str(error))
    what, steps = (found["what"], _STEP.findall(found["path"] or "")) if found else (str(error), [])
    missing = _MISSING.fullmatch(what)
    path, value = _found_at(document, steps, _complaint(what))
    if missing:
        return f"the field {f'{path}.' if path else ''}{missing[1]} is missing"
    if shape is not None and (words := _words_at(msgspec.inspect.type_info(shape), steps)):
        return f"{path} must be one of {', '.join(words)}, not {_shown(value)}"
    return f"{path or 'it'} is {_shown(value)}: {what[:1].lower() + what[1:]}"


def _complaint(what: str) -> Callable[[object], bool]:
    """Return whether a value can be the one that the decoder complained of."""
    if missing := _MISSING.fullmatch(what):
        return lambda value: isinstance(value, dict) and missing[1] not in value
    if wrong := _WRONG_TYPE.fullmatch(what):
        return lambda value: _TYPE_NAMES.get(type(value)) == wrong[1]
    if word := _WRONG_WORD.fullmatch(what):
        return lambda value: value == word[1]
    return lambda _: False


def _found_at(value: object, steps: Sequence[str], complaint: Callable[[object], bool]) -> tuple[str, object]:
    """Return the path along the steps, and what is there.

    Inside a map the decoder does not say which key it was: it is the first under which the complaint holds. Where it
    holds under none, the map is shown.
    """
    path = ""
    for index, step in enumerate(steps):
        if step == "[...]":
            for key, inner in value.items() if isinstance(value, dict) else ():
                rest, found = _found_at(inner, steps[index + 1 :], complaint)
                if complaint(found):
                    return f"{path}.{key}{'.' if rest and rest[0] != '[' else ''}{rest}".removeprefix("."), found
            return path, value
        if step.startswith("["):
            value = value[int(step[1:-1])] if isinstance(value, list) and int(step[1:-1]) < len(value) else None
            path += step
        else:
            value = value.get(step) if isinstance(value, dict) else None
            path += f".{step}" if path else step
    return path, value


def _words_at(kind: msgspec.inspect.Type, steps: Sequence[str]) -> list[str]:
    """Return the words that are allowed where the steps lead, sorted; none where anything else is asked for there."""
    inspect = msgspec.inspect
    for step in steps:
        if isinstance(kind, inspect.UnionType):  # of something and null
            kind = next(k for k in kind.types if not isinstance(k, inspect.NoneType))
        if isinstance(kind, inspect.StructType):
            kind = next((f.type for f in kind.fields if f.encode_name == step), inspect.AnyType())
        elif isinstance(kind, inspect.VarTupleType):
            kind = kind.item_type
        elif isinstance(kind, inspect.DictType):
            kind = kind.value_type
        else:
            return []
    return sorted(map(str, kind.values)) if isinstance(kind, inspect.LiteralType) else []


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, skipkeys=True)  # YAML has keys that JSON has not
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
