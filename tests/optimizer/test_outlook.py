"""What groups make of nodes: looked at once where they are alike, exact where numbers are large."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.model.displeasure import Preferences
from planner.model.preferences import Surroundings, Wish
from planner.model.resources import BEARER, TARGET, Resources
from planner.model.scheduling import NodeConstraints, NodeSelectorTerm, Requirement, Taint, Toleration
from planner.optimizer.movement import GroupKey
from planner.optimizer.outlook import Outlook
from tests.building import resources

ROOMY = resources(8000, 32, 110)
SMALL = resources(1000, 1, 1)


ANYWHERE = NodeConstraints()


def group(constraints: NodeConstraints = ANYWHERE, requests: Resources = SMALL, **fields: Any) -> GroupKey:
    return GroupKey(requests, constraints, (), False)._replace(**fields)


def outlook(*groups: GroupKey) -> Outlook:
    return Outlook(groups, Preferences(0, (), False))


def place(name: str, *taints: Taint, **labels: str) -> Surroundings:
    return Surroundings(labels, name, taints)


def test_a_node_that_is_asked_for_by_name_is_told_from_one_with_the_same_labels() -> None:
    by_name = NodeConstraints(required_terms=(NodeSelectorTerm(fields=(Requirement("metadata.name", "In", ("a",)),)),))
    seen = outlook(group(by_name), group(), group(beside="b"))
    assert seen.admission(place("a"), ROOMY).tolist() == [True, True, False]
    assert seen.admission(place("b"), ROOMY).tolist() == [False, True, True]
    assert seen.admission(place(""), ROOMY).tolist() == [False, True, False]


TAINTED = Taint("dedicated", "db", "NoSchedule")
AVOIDED = Taint("old", "", "PreferNoSchedule")
RULES = (
    ANYWHERE,
    NodeConstraints((("disk", "ssd"),)),
    NodeConstraints(required_terms=(NodeSelectorTerm((Requirement("disk", "DoesNotExist"),)),)),
    NodeConstraints(tolerations=(Toleration("dedicated", "Equal", "db", "NoSchedule"),)),
)
PLACES = st.builds(
    lambda name, labels, taints: Surroundings(labels, name, taints),
    st.sampled_from(("a", "b")),
    st.fixed_dictionaries({}, optional={"disk": st.sampled_from(("ssd", "hdd")), "other": st.just("x")}),
    st.sampled_from(((), (TAINTED,), (AVOIDED,), (TAINTED, AVOIDED))),
)


@given(st.lists(PLACES, min_size=1, max_size=6))
def test_nodes_that_came_before_change_no_answer(places: list[Surroundings]) -> None:
    wish = Wish(7, NodeSelectorTerm((Requirement("disk", "In", ("ssd",)),)))
    groups = [group(rule, wishes=wishes) for rule in RULES for wishes in ((), (wish,))]
    groups.append(group(home=(("disk", "ssd"),)))
    preferences = Preferences(10_000, tuple(places), True)
    seen = Outlook(groups, preferences)
    for at in places:
        home = [all(at.labels.get(key) == value for key, value in g.home) for g in groups]
        admitted = [g.constraints.admit(at.labels, at.name, at.taints) for g in groups]
        both = [here and admits for here, admits in zip(home, admitted, strict=True)]
        assert seen.admission(at, ROOMY).tolist() == both
        assert seen.displeasures(at).tolist() == preferences.costs([(g.wishes, g.constraints) for g in groups], at)


@pytest.mark.parametrize(
    ("requests", "room", "fits"),
    [
        # Beyond 64 bits (9.2e18) one byte more is still one byte more.
        (Resources(memory_bytes=2**64 + 1, pods=1), Resources(memory_bytes=2**64, pods=9), False),
        (Resources(memory_bytes=2**64, pods=1), Resources(memory_bytes=2**64, pods=9), True),
        # What is not requested may be overdrawn, but for the number of pods.
        (Resources(cpu_millicores=1, pods=1), Resources(cpu_millicores=1, memory_bytes=-1, pods=1), True),
        (Resources(cpu_millicores=1, pods=0), Resources(cpu_millicores=1, pods=-1), False),
        # A side fits where nothing of the other side is, whatever was taken of its own.
        (Resources(pods=1, shares=((f"r{BEARER}", 1),)), Resources(pods=1, shares=((f"r{BEARER}", -1),)), True),
        (Resources(pods=1, shares=((f"r{BEARER}", 1),)), Resources(pods=1, shares=((f"r{TARGET}", -1),)), False),
    ],
)
def test_one_pod_fits_as_in_the_exact_amounts(requests: Resources, room: Resources, fits: bool) -> None:
    assert requests.fits_in(room) is fits
    assert outlook(group(requests=requests)).admission(place("a"), room).tolist() == [fits]
