"""The real extender, under gunicorn and inside the process, steering the simulated scheduler."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from planner import labels as keys
from planner.ports import DEPLOYMENTS, NODES
from simulator.api import ApiServer
from simulator.embedded import embedded_extender
from simulator.extenders import Extender
from simulator.served import ServedExtender
from simulator.workloads import Workload
from simulator.world import World
from tests.simulator.worlds import restart, world


def publish(built: World, web: Workload, wanted: dict[str, int]) -> None:
    """Mark every node for iteration i1: those with targets are in the plan, the others expire."""
    body = built.server.find(DEPLOYMENTS, (web.namespace, web.name))
    assert body is not None
    for node in ("n1", "n2", "n3"):
        count = wanted.get(node, 0)
        target = keys.Target(web.key, body["metadata"]["uid"], count, "iteration")
        # The plan expires by the clock that the extender reads.
        placement = keys.Placement("i1", built.clock.now() + 3600, (target,), {})
        label = keys.OPTIMAL if count else keys.EXPIRING
        annotations = {keys.PLACEMENT: keys.encode_placement(placement)} if count else {}
        patch = {"metadata": {"labels": {label: "i1"}, "annotations": annotations}}
        built.kubernetes.patch(NODES, "", node, patch)


@pytest.mark.parametrize("way", ["embedded", "gunicorn"])
def test_a_roll_out_ends_exactly_where_the_placement_wants_it(way: str) -> None:
    web = Workload(name="web", replicas=9, cpu="100m", on=("n1",) * 3 + ("n2",) * 3 + ("n3",) * 3)
    with ExitStack() as stack:

        def served(server: ApiServer) -> Extender:
            # Its process reads the machine's clock, so the simulated one must stand at the present.
            server.clock.sleep(max(0.0, time.time() - server.clock.now()))
            return stack.enter_context(ServedExtender(server)).extender

        built = world([web], extender=served if way == "gunicorn" else embedded_extender)
        publish(built, web, {"n2": 7, "n3": 2})
        restart(built, web)
        built.run(120)

        assert built.nodes_of(web) == ["n2"] * 7 + ["n3"] * 2
        assert built.availability.violations == []
        assert built.extender is not None
        assert built.extender.faults == 0
