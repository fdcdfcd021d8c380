"""The settings as a user gives them: a YAML file and environment variables, and each fault of them in one line.

The environment variable of a setting is KINEMA_, its group and its name in capitals: `optimizer.solver` is
KINEMA_OPTIMIZER_SOLVER. The environment wins over the file. Durations are seconds, or text such as 15m.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import msgspec
import yaml

from planner.errors import BadSettings
from planner.settings import Settings, WindowSettings

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PREFIX = "KINEMA_"
_NO_SETTINGS = frozenset(("KINEMA_SETTINGS", "KINEMA_CACHE", "KINEMA_TRACE"))
"""Variables of the HTTP face (its file of settings), the tests and the benchmarks."""
_SERVICE_HOST = "_SERVICE_HOST"
_OF_A_SERVICE = re.compile(r"_SERVICE_HOST|_SERVICE_PORT(_.+)?|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")
"""What the kubelet appends to a Service's name in the environment of each pod of the namespace."""


def load_settings(path: str | None, environ: Mapping[str, str]) -> Settings:
    """Read the YAML file (None: no file) and the environment into checked settings.

    Raises:
        BadSettings: the file cannot be read, a name is unknown (also that of a variable KINEMA_…), or a value is
            wrong; names file and setting.
    """
    origin = path or "the environment"
    document: Any = {}
    if path is not None:
        try:
            document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise BadSettings(f"{path}: cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise BadSettings(f"{path}: cannot be read: is no text in UTF-8 (byte {error.start})") from None
        except yaml.YAMLError as error:
            raise BadSettings(f"{path}: is no YAML: {' '.join(str(error).split())}") from None
        document = {} if document is None else document
        if not isinstance(document, dict):
            raise BadSettings(f"{path}: must be a mapping of settings, not {type(document).__name__}")
    merged = _with_environment(document, environ)
    _prepare(merged, Settings, origin, "")
    try:
        return msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise BadSettings(f"{origin}: {_explained(str(error), merged)}") from None


def describe(settings: Settings) -> dict[str, Any]:
    """Return the effective settings as plain values, in the shape of the file."""
    return dataclasses.asdict(settings)


def _explained(message: str, values: Mapping[str, Any]) -> str:
    """Turn a decoder's message, or that of a check below, into "name must be what is right, not value"."""
    text, _, path = message.partition(" - at `$")
    name, found, right = text.partition(" must be ")
    if found and path.rstrip("`").endswith("]"):
        name = f"{path.strip('.`')}.{name}"  # an entry of a list does not know its place
    elif not found:
        name = re.sub(r"\[\d+\]$", "", path.strip(".`"))
        kind = _annotation(name)
        right = _RIGHT.get(kind) or f"one of {', '.join(get_args(kind))}"
    value = _value_at(values, name)
    return f"{name} must be {right}" + ("" if value is None else f", not {value!r}")


def _annotation(name: str) -> Any:
    """Return the type of the setting with this dotted name."""
    kind: Any = Settings
    for part in name.split("."):
        own, index, _ = part.partition("[")
        kind = get_type_hints(kind)[own]
        kind = get_args(kind)[0] if index else kind
    return kind


_RIGHT: Final[Mapping[Any, str]] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple[str, ...]: "a list of texts",
}
"""What a value of each type looks like, in words; a choice has words of its own."""


def _value_at(values: Mapping[str, Any], name: str) -> Any:
    """Return the value that was given for a dotted name; None where there is none."""
    found: Any = values
    for part in re.findall(r"[^.\[\]]+", name):
        if isinstance(found, list) and part.isdigit():
            found = found[int(part)]
        else:
            found = found.get(part) if isinstance(found, Mapping) else None
    return found


def variable_of(setting: str) -> str:
    """Return the environment variable of a setting's dotted name."""
    return f"{_PREFIX}{setting.replace('.', '_').upper()}"


def _with_environment(document: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    merged: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in document.items()}
    variables = _variables()
    _refuse_unknown(environ, variables)
    for variable, (group, name) in variables.items():
        if (text := environ.get(variable)) is not None:
            values = merged.setdefault(group, {}) if group else merged
            if isinstance(values, dict):
                values[name] = _listed(name, text, variable)
    return merged


def _variables() -> dict[str, tuple[str, str]]:
    """Return group and name of every setting by its variable; the group is "" where it is in none."""
    found: dict[str, tuple[str, str]] = {}
    for item in dataclasses.fields(Settings):
        if (group := _group_type(Settings, item.name)) is None:
            found[variable_of(item.name)] = "", item.name
        else:
            found |= {variable_of(f"{item.name}.{i.name}"): (item.name, i.name) for i in dataclasses.fields(group)}
    return found


def _refuse_unknown(environ: Mapping[str, str], known: Collection[str]) -> None:
    """Refuse a variable that looks like a setting's and is none."""
    services = [name.removesuffix(_SERVICE_HOST) for name in environ if name.endswith(_SERVICE_HOST)]
    for name in sorted(environ):
        if not name.startswith(_PREFIX) or name in known or name in _NO_SETTINGS:
            continue
        if any(name.startswith(own) and _OF_A_SERVICE.fullmatch(name.removeprefix(own)) for own in services):
            continue
        own = {variable.removeprefix(_PREFIX): variable for variable in known}
        if close := difflib.get_close_matches(name.removeprefix(_PREFIX), own, n=1):
            right = f"did you mean {own[close[0]]}?"
        else:
            right = "`kinema settings` prints all settings, and optimizer.solver is KINEMA_OPTIMIZER_SOLVER"
        raise BadSettings(f"the environment: unknown variable {name}; {right}")


def _listed(name: str, text: str, variable: str) -> Any:
    """Read a variable's text: a list where the setting is one."""
    if name == "pools":
        return [part.strip() for part in text.split(",") if part.strip()]
    if name == "windows":
        try:
            return yaml.safe_load(text) or []
        except yaml.YAMLError as error:
            raise BadSettings(f"the environment: {variable} is no YAML: {' '.join(str(error).split())}") from None
    return text


def _prepare(values: Any, kind: type, origin: str, path: str) -> None:
    """Refuse unknown names, and turn durations and numbers such as NaN into what the checks expect."""
    if not isinstance(values, dict):
        raise BadSettings(f"{origin}: {path.rstrip('.') or 'settings'} must be a mapping, not {values!r}")
    known = {item.name for item in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in known:
            raise BadSettings(f"{origin}: unknown setting {path}{name}; known: {', '.join(sorted(known))}")
        if (group := _group_type(kind, name)) is not None:
            _prepare(value, group, origin, f"{path}{name}.")
        elif path + name == "objective.windows":
            _prepare_windows(value, origin)
        elif name.endswith("_seconds") and isinstance(value, str):
            values[name] = _duration(value, origin, path + name)
        elif path == "limits." and name != "nodes" and type(value) in (int, float):
            values[name] = repr(value)  # YAML reads a quantity such as 100 as a number
        elif isinstance(value, float) and not math.isfinite(value):
            raise BadSettings(f"{origin}: {path}{name} must be a finite number, not {value}")


def _prepare_windows(windows: Any, origin: str) -> None:
    """Refuse what is no list of windows, and names that they do not have or lack."""
    known = [item.name for item in dataclasses.fields(WindowSettings)]
    for index, window in enumerate(windows if isinstance(windows, list) else [windows]):
        if not isinstance(windows, list) or not isinstance(window, dict):
            right = f"a list of mappings, each with {', '.join(known)}"
            raise BadSettings(f"{origin}: objective.windows must be {right}, not {window!r}")
        for name in (*window, *known):
            if name not in known:
                at = f"objective.windows[{index}].{name}"
                raise BadSettings(f"{origin}: unknown setting {at}; known: {', '.join(known)}")
            if window.get(name) is None:
                raise BadSettings(f"{origin}: objective.windows[{index}].{name} must be set")


def _group_type(kind: type, name: str) -> type | None:
    for item in dataclasses.fields(kind):
        factory = item.default_factory
        if item.name == name and isinstance(factory, type) and dataclasses.is_dataclass(factory):
            return factory
    return None


def _duration(text: str, origin: str, name: str) -> float:
    """Read seconds, or a duration such as 1h30m."""
    try:
        seconds = float(text)
    except ValueError:
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise BadSettings(f"{origin}: {name} must be seconds or a duration such as 15m, not {text!r}") from None
        return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    if not math.isfinite(seconds):
        raise BadSettings(f"{origin}: {name} must be a finite number, not {text!r}")
    return seconds
