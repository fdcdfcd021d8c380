"""What a decoder found wrong, in one line that names the field and its value."""

from __future__ import annotations

import json
import re

import msgspec

_MESSAGE = re.compile(r"(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
_LONGEST_VALUE = 80


def explain(error: msgspec.ValidationError, document: object, shape: type | None = None) -> str:
    """Return "the field a.b is missing", or "a.b is 3: expected `str`, got `int`"; `document` is what was decoded.

    Inside a map the decoder does not say which key it was; then the map is shown. With the `shape` that was asked for,
    a word that is none of a few is answered by those.
    """
    found = _MESSAGE.fullmatch(str(error))
    what, path = (found["what"], found["path"] or "") if found else (str(error), "")
    if missing := _MISSING.fullmatch(what):
        return f"the field {f'{path}.' if path else ''}{missing[1]} is missing"
    path = path.split("[...]")[0]
    if shape is not None and (words := _words_at(msgspec.inspect.type_info(shape), path)):
        return f"{path} must be one of {', '.join(words)}, not {_shown(_value_at(document, path))}"
    return f"{path or 'it'} is {_shown(_value_at(document, path))}: {what[:1].lower() + what[1:]}"


def _value_at(document: object, path: str) -> object:
    value = document
    for step in _STEP.finditer(path):
        if step[1] is not None and isinstance(value, dict):
            value = value.get(step[1])
        elif step[2] is not None and isinstance(value, list) and int(step[2]) < len(value):
            value = value[int(step[2])]
    return value


def _words_at(kind: msgspec.inspect.Type, path: str) -> list[str]:
    """Return the words that are allowed at the path, sorted; none where anything else is asked for there."""
    inspect = msgspec.inspect
    for step in _STEP.finditer(path):
        if isinstance(kind, inspect.UnionType):  # of something and null
            kind = next(k for k in kind.types if not isinstance(k, inspect.NoneType))
        if isinstance(kind, inspect.StructType) and step[1] is not None:
            kind = next((f.type for f in kind.fields if f.encode_name == step[1]), inspect.AnyType())
        elif isinstance(kind, inspect.VarTupleType) and step[2] is not None:
            kind = kind.item_type
        else:
            return []
    return sorted(map(str, kind.values)) if isinstance(kind, inspect.LiteralType) else []


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, skipkeys=True)  # YAML has keys that JSON has not
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
