"""The loop on Google's API: what follows a plan that was taken back."""

from __future__ import annotations

from dataclasses import replace

from planner.cloud.gcp.machines import builtin_machines
from planner.loop import iterate
from simulator.workloads import Workload
from simulator.world import ExistingNode, Scenario, World, catalogue
from tests.cloud.gcp.conftest import BOOT_SECONDS, DELETE_SECONDS, ZONES, Open
from tests.googlecloud.fake import Call, FakeGoogleCloud, FakePool
from tests.iterating import APPLY, edges_of

ZONE = ZONES[0]
OLD, NEW = "n2-standard-4", "e2-standard-4"
NODES = ("old-1", "old-2", "old-3")


def badly_placed() -> World:
    """Return three nodes of the old type with a pod of 500m each: one node of the new and cheaper type holds all."""
    known = builtin_machines("us-central1")
    workload = Workload(name="web", replicas=3, on=NODES)
    nodes = tuple(ExistingNode(name, OLD, ZONE) for name in NODES)
    world = World(Scenario(catalogue([known[OLD], known[NEW]], (ZONE,)), nodes, (workload,)))
    world.settle()
    return world


def test_the_plan_after_a_rollback_asks_for_new_names_under_a_new_request_id(open_controller: Open) -> None:
    world = badly_placed()
    pools = [FakePool(OLD, OLD, [ZONE], {ZONE: list(NODES)}), FakePool(NEW, NEW, [ZONE])]
    with FakeGoogleCloud(pools, BOOT_SECONDS, DELETE_SECONDS, world.clock.now) as google:
        cloud = open_controller(google.settings())

        def boots() -> list[Call]:
            return [call for call in google.calls if call.method == "createInstances"]

        # The loop is left once the second plan has asked for its machines.
        edges = replace(
            edges_of(world, stopping=lambda: len(boots()) == 2), cloud=cloud, catalogue=lambda _: cloud.catalogue()
        )
        began = world.clock.now()
        google.stock_out(ZONE, NEW)
        assert iterate(edges, APPLY) == "abandoned"
        assert {instance.name for instance in cloud.instances()} == set(NODES)
        google.restock(ZONE, NEW)
        assert iterate(edges, APPLY) == "interrupted"
        # Within the hour Google would take a request of the same id for a repetition, and create nothing.
        assert world.clock.now() - began < 3600
        first, second = boots()
        assert set(first.names).isdisjoint(second.names)
        assert first.request_id != second.request_id
        assert {i.name: i.state for i in cloud.instances()} == {
            **dict.fromkeys(NODES, "running"),
            **dict.fromkeys(second.names, "creating"),
        }
