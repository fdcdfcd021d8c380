"""The status of disruption budgets, and what evictions spend of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import NotFound, TooManyRequests
from planner.ports import BUDGETS
from simulator.status import is_deleting, is_ready
from simulator.workloads import Workload
from tests.simulator.worlds import world


@pytest.mark.parametrize(
    ("budget", "desired", "allowed"),
    [
        ({"minAvailable": 3}, 3, 2),
        ({"minAvailable": "50%"}, 3, 2),  # 2.5 rounded up
        ({"maxUnavailable": 1}, 4, 1),
        ({"maxUnavailable": "30%"}, 3, 2),  # 1.5 rounded up to 2 unavailable
        ({"maxUnavailable": 0}, 5, 0),
        ({"minAvailable": 9}, 9, 0),
    ],
)
def test_the_status_says_how_many_disruptions_are_allowed(
    budget: Mapping[str, Any], desired: int, allowed: int
) -> None:
    built = world([Workload(name="web", replicas=5, budget=budget)])

    body = built.server.find(BUDGETS, ("default", "web"))
    assert body is not None
    status = body["status"]
    assert (status["desiredHealthy"], status["disruptionsAllowed"]) == (desired, allowed)


def test_an_evicted_pod_counts_as_disrupted_before_its_deletion_is_seen() -> None:
    web = Workload(name="web", replicas=3, budget={"minAvailable": 2})
    built = world([web])
    first, second, _ = built.pods_of(web)
    built.kubernetes.latency_seconds = 0.0  # no controller gets a turn between the two

    built.kubernetes.evict("default", first["metadata"]["name"], first["metadata"]["uid"])
    with pytest.raises(TooManyRequests):
        built.kubernetes.evict("default", second["metadata"]["name"], second["metadata"]["uid"])


@settings(max_examples=30)
@given(
    replicas=st.integers(1, 8),
    budget=st.one_of(
        st.builds(lambda n: {"minAvailable": n}, st.integers(0, 8)),
        st.builds(lambda n: {"maxUnavailable": n}, st.integers(0, 4)),
        st.builds(lambda p: {"maxUnavailable": f"{p}%"}, st.integers(0, 100)),
    ),
    seed=st.integers(0, 1000),
    pauses=st.lists(st.floats(0, 6), min_size=1, max_size=12),
)
def test_evictions_never_leave_fewer_healthy_pods_than_the_budget_wants(
    replicas: int, budget: Mapping[str, Any], seed: int, pauses: list[float]
) -> None:
    web = Workload(name="web", replicas=replicas, cpu="100m", budget=budget)
    built = world([web], seed=seed)
    body = built.server.find(BUDGETS, ("default", "web"))
    assert body is not None
    desired = min(body["status"]["desiredHealthy"], replicas)

    for pause in pauses:
        pod = built.pods_of(web)[0]
        # One that was being deleted may be gone before the call arrives.
        with contextlib.suppress(TooManyRequests, NotFound):
            built.kubernetes.evict("default", pod["metadata"]["name"], pod["metadata"]["uid"])
        healthy = sum(is_ready(pod) and not is_deleting(pod) for pod in built.pods_of(web))
        assert healthy >= desired
        built.run(pause)
