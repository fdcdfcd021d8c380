"""Nodes as they are read."""

from __future__ import annotations

import pytest

from planner.model.resources import Resources
from planner.model.scheduling import Taint
from tests.kube.documents import changed, node, read

MIB = 1024**2


def test_a_node_is_read_with_taints_and_state() -> None:
    taint = {"key": "gpu", "effect": "NoSchedule"}
    item = node("n", "3920m", "1Gi", taints=[taint], unschedulable=True, providerID="gce://p/z/n")
    item["status"]["allocatable"] |= {"nvidia.com/gpu": "2", "ephemeral-storage": "10", "hugepages-1Gi": "0"}
    item["metadata"]["creationTimestamp"] = "1970-01-01T00:01:00Z"
    (found,) = read(item).nodes
    assert found.allocatable == Resources(3920, 1024 * MIB, 110, 10, (("nvidia.com/gpu", 2),))
    assert found.taints == (Taint("gpu", "", "NoSchedule"),)
    assert (found.ready, found.unschedulable, found.deleting) == (True, True, False)
    assert (found.provider_id, found.created_at, found.zone) == ("gce://p/z/n", 60.0, "zone-a")


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_a_node_is_ready_only_where_its_condition_says_so(status: str) -> None:
    (found,) = read(changed(node("n"), "status.conditions.0.status", status)).nodes
    assert not found.ready
