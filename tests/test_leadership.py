"""One of several planners leads; the others stay idle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from planner.errors import Conflict, KubernetesError, NotFound
from planner.leadership import Leadership
from planner.ports import LEASES, Kubernetes, Resource
from planner.settings import LeaderSettings

SETTINGS = LeaderSettings(duration_seconds=15)


@dataclass
class ManualClock:
    time: float = 1000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class OneLease:
    """The API server as far as a Lease goes: optimistic concurrency by resourceVersion."""

    stored: dict[str, Any] | None = None
    version: int = 0
    away: bool = False
    log: list[str] = field(default_factory=list)

    def get(self, resource: Resource, namespace: str, name: str) -> bytes:
        assert resource is LEASES
        if self.away:
            raise KubernetesError("the API server is away")
        if self.stored is None:
            raise NotFound(name)
        return json.dumps(self.stored).encode()

    def create(self, resource: Resource, namespace: str, body: Mapping[str, object]) -> bytes:
        if self.stored is not None:
            raise Conflict("exists")
        return self._store(body)

    def replace(self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]) -> bytes:
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict("changed")
        return self._store(body)

    def _store(self, body: Mapping[str, Any]) -> bytes:
        self.version += 1
        self.stored = json.loads(json.dumps(body))
        self.stored["metadata"]["resourceVersion"] = str(self.version)
        return json.dumps(self.stored).encode()


def planner(name: str, api: OneLease, clock: ManualClock) -> Leadership:
    return Leadership(cast(Kubernetes, api), clock, SETTINGS, name)


def test_the_second_planner_stays_idle_while_the_first_renews() -> None:
    api, clock = OneLease(), ManualClock()
    first, second = planner("a", api, clock), planner("b", api, clock)
    for _ in range(10):
        assert first.ensure()
        assert not second.ensure()
        assert first.confirm()
        assert not second.confirm()
        clock.sleep(10)


def test_a_lease_that_was_seen_unchanged_for_its_duration_is_taken_over() -> None:
    api, clock = OneLease(), ManualClock()
    first, second = planner("a", api, clock), planner("b", api, clock)
    assert first.ensure()
    assert not second.ensure()
    clock.sleep(14)
    assert not second.ensure()
    clock.sleep(1)
    assert second.ensure()
    assert not first.confirm()
    assert not first.ensure()
    assert api.stored is not None
    assert api.stored["spec"]["leaseTransitions"] == 1


def test_clocks_that_disagree_do_not_hurt_the_leader() -> None:
    api = OneLease()
    first, second = planner("a", api, ManualClock(1000)), planner("b", api, ManualClock(1000 + 3600))
    assert first.ensure()
    assert not second.ensure()


def test_a_released_lease_is_free_at_once() -> None:
    api, clock = OneLease(), ManualClock()
    first, second = planner("a", api, clock), planner("b", api, clock)
    assert first.ensure()
    first.release()
    assert not first.confirm()
    assert second.ensure()


def test_a_leader_that_cannot_renew_leads_no_longer_than_its_lease() -> None:
    api, clock = OneLease(), ManualClock()
    leader = planner("a", api, clock)
    assert leader.ensure()
    api.away = True
    clock.sleep(14)
    assert leader.ensure()
    assert not leader.confirm()
    clock.sleep(1)
    assert not leader.ensure()


def test_a_write_that_another_planner_won_is_no_leadership() -> None:
    api, clock = OneLease(), ManualClock()
    leader = planner("a", api, clock)
    assert leader.ensure()
    slow = replace(leader)
    original = api.get

    def raced(resource: Resource, namespace: str, name: str) -> bytes:
        answer = original(resource, namespace, name)
        api.version += 1  # somebody wrote between this read and the write that follows
        return answer

    api.get = raced  # type: ignore[method-assign]  # the one write that the test needs in between
    assert not slow.ensure()
