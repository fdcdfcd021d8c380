"""One whole iteration on the real control plane, every part with the rights of manifests/."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner import labels as keys
from planner.model.plan import Plan
from planner.rescheduler import CARRIED_OUT
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.installation import Steering, finish
from tests.controlplane.site import NAMESPACE, OLD_NODES, WORKLOADS, Site, Watcher, open_site, wait_for

pytestmark = pytest.mark.controlplane


@pytest.fixture
def site(new_control_plane: ControlPlane, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    steering: Steering = getattr(request, "param", "extender")
    with open_site(new_control_plane, tmp_path, steering) as running:
        yield running


def check_end(site: Site, watcher: Watcher, *, exact: bool) -> Plan:
    """Hold what the cluster and the cloud say against the plan, from outside."""
    record = site.record()
    assert record is not None
    plan = record.plan
    assert (record.phase, record.reason) == ("done", CARRIED_OUT)
    assert plan.cost_nanousd_per_hour < 0.9 * plan.current_cost_nanousd_per_hour
    assert plan.objective.lower_bound_nanousd_per_hour <= plan.objective.value_nanousd_per_hour
    assert [reason for reason in site.events() if reason != "Waiting"] == ["PlanAccepted", "PlanCarriedOut"]

    wanted = {node.name for node in plan.nodes if node.state != "remove"}
    removed = {node.name for node in plan.nodes if node.state == "remove"}
    assert len(removed) >= 5
    assert any(node.state == "boot" for node in plan.nodes)
    nodes = site.cluster.items("/api/v1/nodes")
    assert {node["metadata"]["name"] for node in nodes} == wanted
    assert {machine.name for machine in site.cloud.instances()} == wanted
    assert all(machine.state == "running" for machine in site.cloud.instances())

    bindings = site.bindings()
    planned = {node.name: Counter(node.pods) for node in plan.nodes if node.state != "remove" and node.pods}
    if exact:
        assert bindings == planned
    assert set(bindings) <= wanted
    assert sum(map(sum, (c.values() for c in bindings.values()))) == sum(s.replicas for s in WORKLOADS.values()) + 1

    for node in nodes:
        labels, annotations = node["metadata"]["labels"], node["metadata"]["annotations"]
        assert labels.get(keys.OPTIMAL) == plan.iteration
        assert keys.EXPIRING not in labels
        assert (keys.PLACEMENT in annotations) == (site.steering != "labels")
        assert "left over" not in annotations.values()
        assert not [t for t in node["spec"].get("taints", []) if t["key"].startswith(keys.GROUP)]

    assert watcher.failures == []
    assert watcher.samples > 20
    assert watcher.without_room == set()
    assert {n: low for n, low in watcher.lowest.items() if low < WORKLOADS[n].floor} == {}
    return plan


@pytest.mark.parametrize("site", ["extender", "scheduler", "affinity", "labels"], indirect=True)
def test_a_badly_packed_cluster_becomes_the_plan_without_anybody_noticing(site: Site) -> None:
    site.leave_old_marks()
    with Watcher(site) as watcher:
        finish(site.run_planner())
    check_end(site, watcher, exact=site.steering in ("extender", "scheduler"))


def test_a_planner_killed_in_the_middle_carries_on_and_a_second_one_stays_idle(
    new_control_plane: ControlPlane, tmp_path: Path
) -> None:
    # The second planner comes, looks and goes while the machines boot, which takes them long enough for that.
    with open_site(new_control_plane, tmp_path, "extender", boot_seconds=30) as site:
        with Watcher(site) as watcher:
            first = site.run_planner()
            wait_for(lambda: site.record() is not None, "an accepted plan")
            second = finish(site.run_planner())
            assert "another planner leads" in second
            assert "iteration ended" not in second
            assert rolled(site) == 0
            wait_for(lambda: rolled(site) >= 1, "the first roll-out")
            first.send_signal(signal.SIGKILL)
            first.communicate()
            stopped = site.record()
            assert stopped is not None
            assert stopped.phase == "carrying-out"
            # The next planner waits until the dead one's Lease has run out, then carries on.
            assert "iteration ended: carried-out" in finish(site.run_planner())
        plan = check_end(site, watcher, exact=True)
        assert plan.iteration == stopped.plan.iteration
        created = Counter(n for call in site.cloud.calls if call.method == "createInstances" for n in call.names)
        assert created == Counter(node.name for node in plan.nodes if node.state == "boot")


def test_recommend_mode_changes_no_node_and_no_workload(site: Site) -> None:
    before = site.bindings()
    versions = template_versions(site)
    output = finish(site.run_planner("--mode", "recommend"))
    assert "recommended" in output
    assert site.bindings() == before
    assert template_versions(site) == versions
    assert {node["metadata"]["name"] for node in site.cluster.items("/api/v1/nodes")} == set(OLD_NODES)
    for node in site.cluster.items("/api/v1/nodes"):
        assert not [key for key in node["metadata"]["labels"] if key.startswith(keys.GROUP)]
    assert site.cloud.methods().isdisjoint({"createInstances", "deleteInstances"})
    record = site.record()
    assert record is not None
    assert (record.mode, record.phase) == ("recommend", "done")
    assert site.events() == ["PlanRecommended"]


def rolled(site: Site) -> int:
    """Count the Deployments whose template carries an iteration's mark."""
    found = site.cluster.items(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments")
    return sum(keys.ITERATION in (d["spec"]["template"]["metadata"].get("annotations") or {}) for d in found)


def template_versions(site: Site) -> dict[str, int]:
    found = site.cluster.items(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments")
    return {d["metadata"]["name"]: d["metadata"]["generation"] for d in found}
