"""What the HTTP face reads, and how long it keeps it."""

from __future__ import annotations

import json

from planner.errors import Forbidden, NotFound
from planner.kube.record import encode_record
from planner.web.view import ClusterView
from tests.web.cluster import MemoryCluster
from tests.web.plans import record_of


class Time:
    """A clock that stands until it is moved."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def view_of(cluster: MemoryCluster, clock: Time | None = None) -> ClusterView:
    return ClusterView(cluster, "kube-system", 3.0, clock or Time())


def test_nodes_are_counted_by_pool_and_zone() -> None:
    cluster = MemoryCluster(nodes={("a", "z1"): 2, ("a", "z2"): 1, ("b", "z1"): 3})

    assert view_of(cluster).read().existing == {("a", "z1"): 2, ("a", "z2"): 1, ("b", "z1"): 3}


def test_node_without_a_pool_counts_for_its_machine_type() -> None:
    cluster = MemoryCluster(nodes={("", "z1"): 2})

    assert view_of(cluster).read().existing == {("m4", "z1"): 2}


def test_plan_is_what_the_cluster_remembers() -> None:
    record = record_of(keep=1, boot=2)

    assert view_of(MemoryCluster(record)).read().record == record


def test_no_plan_is_no_failure() -> None:
    reading = view_of(MemoryCluster(None)).read()

    assert (reading.record, reading.failure) == (None, "")


def test_one_reading_answers_until_it_is_too_old() -> None:
    cluster, clock = MemoryCluster(nodes={("a", "z1"): 1}), Time()
    view = view_of(cluster, clock)
    view.read()
    cluster.nodes = {("a", "z1"): 2}

    clock.seconds = 2.9
    assert view.read().existing == {("a", "z1"): 1}
    clock.seconds = 3.0
    assert view.read().existing == {("a", "z1"): 2}


def test_failure_is_kept_as_long_and_never_answered_with_an_older_reading() -> None:
    cluster, clock = MemoryCluster(record_of(keep=1)), Time()
    view = view_of(cluster, clock)
    view.read()
    cluster.error = Forbidden("nodes is forbidden")

    clock.seconds = 3.0
    assert view.read().failure == "the cluster cannot be read: nodes is forbidden"
    assert view.read().record is None
    cluster.error = None
    assert view.read().failure
    clock.seconds = 6.0
    assert view.read().record is not None


def test_plan_that_cannot_be_read_is_a_failure() -> None:
    body = encode_record(record_of(keep=1), "kube-system") | {"binaryData": {"plan.json.gz": "bm8="}}
    cluster = MemoryCluster(raw_record=json.dumps(body).encode())

    assert "holds no plan that can be read" in view_of(cluster).read().failure


def test_missing_list_is_a_failure_and_not_an_empty_cluster() -> None:
    cluster = MemoryCluster()
    cluster.error = NotFound("no such path")
    cluster.fails_only_lists = True

    assert "no such path" in view_of(cluster).read().failure
