"""The two kinds of patch that Kinema sends: JSON merge patch, and Kubernetes' strategic merge patch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

MERGE_KEYS: Final[Mapping[str, str]] = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "conditions": "type",
    "addresses": "type",
    "ownerReferences": "uid",
    "topologySpreadConstraints": "topologyKey",
    "hostAliases": "ip",
}
"""Lists of objects that a strategic patch merges, by field, with the key of their elements.

Every other list is replaced, `spec.taints` and `tolerations` among them: they are atomic.
Source: the `patchMergeKey` tags of k8s.io/api core/v1 and meta/v1.
"""

_PRIMITIVE_SETS: Final = frozenset({"finalizers"})
_DIRECTIVE: Final = "$patch"


def merge_patch(target: Any, patch: Any) -> Any:
    """Return the target with a JSON merge patch applied; neither is changed. Source: RFC 7386, section 2."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_patch(target: Any, patch: Any) -> Any:
    """Return the target with a strategic merge patch applied; neither is changed.

    Raises:
        ValueError: an element of a merged list lacks its key.
    """
    if not isinstance(patch, Mapping):
        return patch
    if patch.get(_DIRECTIVE) == "replace":
        return {key: value for key, value in patch.items() if key != _DIRECTIVE}
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            result.pop(key, None)
        elif key in MERGE_KEYS and isinstance(value, list):
            result[key] = _merge_list(result.get(key) or [], value, MERGE_KEYS[key], key)
        elif key in _PRIMITIVE_SETS and isinstance(value, list):
            present = result.get(key) or []
            result[key] = [*present, *(item for item in value if item not in present)]
        elif isinstance(value, Mapping) and value.get(_DIRECTIVE) == "delete":
            result.pop(key, None)
        else:
            result[key] = strategic_patch(result.get(key), value)
    return result


def _merge_list(target: list[Any], patch: list[Any], key: str, field: str) -> list[Any]:
    if any(item.get(_DIRECTIVE) == "replace" for item in patch):
        return [item for item in patch if _DIRECTIVE not in item]
    merged = {item[key]: item for item in target}
    added = []
    for item in patch:
        if key not in item:
            raise ValueError(f"map: {item} does not contain declared merge key: {key} of {field}")
        if item.get(_DIRECTIVE) == "delete":
            merged.pop(item[key], None)
            continue
        if item[key] not in merged:
            added.append(item[key])
        merged[item[key]] = strategic_patch(merged.get(item[key]), item)
    # The server puts the elements that the patch adds before those that were there.
    return [merged[name] for name in added] + [item for name, item in merged.items() if name not in added]
