"""Why no offering admits a pod: the first of its demands that none meets, with what there is instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from planner.model.machines import Offering
from planner.model.scheduling import NodeConstraints, NodeSelectorTerm, Requirement, Taint

_MOST_NAMED = 4


def not_admitted(offers: Sequence[Offering], wanted: NodeConstraints) -> str:
    """Say which demand of the pod no offering meets: a label, all of its labels, its node affinity, or its taints."""
    if not offers:
        return "nothing is on offer, and no existing node can hold it"
    for key, value in wanted.node_selector:
        found = sorted({offer.labels[key] for offer in offers if key in offer.labels})
        if value not in found:
            instead = f"they have {_some(found)}" if found else "none has that label at all"
            return f"no offering has the label {key}={value} of its nodeSelector; {instead}"
    selected = [o for o in offers if NodeConstraints(wanted.node_selector).select(o.labels, "")]
    if not selected:
        return f"no offering has all labels of its nodeSelector together: {_selector(wanted)}"
    near = [o for o in selected if wanted.select(o.labels, "")]
    if not near:
        return f"no offering{_that_it_selects(wanted)} satisfies its node affinity: {_affinity(wanted)}"
    taints = {taint for o in near for taint in o.taints if not wanted.tolerate((taint,))}
    return (
        f"every offering{_that_its_labels_select(wanted)} has a taint that it does not tolerate: "
        f"{_some(sorted(map(_taint, taints)))}"
    )


def labels_asked(wanted: NodeConstraints) -> str:
    """Return the words that say which labels a pod asks of its node; "" where it asks for none."""
    asked = [_selector(wanted)] if wanted.node_selector else []
    if wanted.required_terms is not None:
        asked.append(_affinity(wanted))
    return f" on a node with {' and '.join(asked)}" if asked else ""


def _that_it_selects(wanted: NodeConstraints) -> str:
    return f" with {_selector(wanted)}" if wanted.node_selector else ""


def _that_its_labels_select(wanted: NodeConstraints) -> str:
    return " that its labels select" if wanted.node_selector or wanted.required_terms is not None else ""


def _selector(wanted: NodeConstraints) -> str:
    return ", ".join(f"{key}={value}" for key, value in wanted.node_selector)


def _affinity(wanted: NodeConstraints) -> str:
    return " or ".join(map(_term, wanted.required_terms or ())) or "a term that no node matches"


def _term(term: NodeSelectorTerm) -> str:
    return ", ".join(map(_requirement, term.expressions + term.fields)) or "a term that no node matches"


def _requirement(one: Requirement) -> str:
    match one.operator:
        case "In" if len(one.values) == 1:
            return f"{one.key}={one.values[0]}"
        case "Exists" | "DoesNotExist":
            return f"{one.key} {one.operator}"
    return f"{one.key} {one.operator} ({_some(one.values)})"


def _taint(taint: Taint) -> str:
    return f"{taint.key}{f'={taint.value}' if taint.value else ''}:{taint.effect}"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
    return ", ".join(listed[:_MOST_NAMED]) + more
