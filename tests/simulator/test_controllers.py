"""Rolling updates and scaling of the simulated Deployment and ReplicaSet controllers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.ports import DEPLOYMENTS, PODS, REPLICASETS
from simulator.controllers import surge_and_unavailable, template_hash
from simulator.status import is_deleting, is_ready
from simulator.store import Change
from simulator.workloads import Workload
from simulator.world import World
from tests.simulator.worlds import restart, uids, world


def status(built: World, workload: Workload) -> dict[str, int]:
    body = built.server.find(DEPLOYMENTS, (workload.namespace, workload.name))
    assert body is not None
    return {key: value for key, value in body["status"].items() if isinstance(value, int)}


def test_a_deployment_gets_its_pods_and_its_status() -> None:
    web = Workload(name="web", replicas=3)
    built = world([web])

    assert len(built.pods_of(web)) == 3
    assert status(built, web) == {
        "observedGeneration": 1,
        "replicas": 3,
        "updatedReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
        "unavailableReplicas": 0,
    }


def test_a_roll_out_replaces_every_pod_and_keeps_the_old_replicaset_at_zero() -> None:
    web = Workload(name="web", replicas=4)
    built = world([web])
    before = uids(built.pods_of(web))

    restart(built, web)
    built.run(60)

    after = built.pods_of(web)
    assert len(after) == 4
    assert not set(uids(after)) & set(before)
    assert all(pod["metadata"]["annotations"]["kinema.io/iteration"] == "i1" for pod in after)
    assert sorted(r["spec"]["replicas"] for r in built.server.store.bodies(REPLICASETS)) == [0, 4]


def test_patching_the_same_value_again_does_not_roll() -> None:
    web = Workload(name="web", replicas=2)
    built = world([web])
    restart(built, web)
    built.run(60)
    before = uids(built.pods_of(web))

    restart(built, web)
    built.run(60)

    assert uids(built.pods_of(web)) == before


def test_a_single_replica_with_surge_is_never_without_a_ready_pod() -> None:
    # 25 % of 1: surge rounded up to 1, unavailable rounded down to 0.
    one = Workload(name="one")
    built = world([one])

    restart(built, one)
    built.run(60)

    assert status(built, one)["updatedReplicas"] == 1
    assert built.availability.lowest[one.key].ready == 1


def test_recreate_stops_every_old_pod_before_it_starts_a_new_one() -> None:
    web = Workload(name="web", replicas=2, controller_spec={"strategy": {"type": "Recreate"}})
    built = world([web])
    old = set(uids(built.pods_of(web)))
    together: list[str] = []

    def watch(change: Change) -> None:
        if change.resource == PODS and change.type == "ADDED":
            together.extend(old & set(uids(built.pods_of(web))))

    built.server.store.subscribe(watch)
    restart(built, web)
    built.run(60)

    assert not together
    assert len(built.pods_of(web)) == 2
    assert not old & set(uids(built.pods_of(web)))
    assert built.availability.lowest[web.key].ready == 0


def test_a_paused_deployment_does_not_roll_but_scales() -> None:
    web = Workload(name="web", replicas=2, controller_spec={"paused": True})
    built = world([Workload(name="web", replicas=2)])
    built.kubernetes.patch(DEPLOYMENTS, "default", "web", {"spec": {"paused": True, "replicas": 3}})
    before = set(uids(built.pods_of(web)))

    restart(built, web)
    built.run(60)

    assert before < set(uids(built.pods_of(web)))
    assert len(built.pods_of(web)) == 3


def test_scaling_down_prefers_pods_that_share_a_node_with_others() -> None:
    web = Workload(name="web", replicas=3, on=("n1", "n1", "n2"))
    built = world([web])

    built.kubernetes.patch(DEPLOYMENTS, "default", "web", {"spec": {"replicas": 2}})
    built.run(30)

    # Two pods on n1, one on n2: the doubled one goes.
    assert built.nodes_of(web) == ["n1", "n2"]


def test_scaling_down_takes_a_pod_that_is_not_ready_before_any_ready_one() -> None:
    web = Workload(name="web", replicas=2, cpu="3000m", on=("n1", "n2"))
    built = world([web], nodes=2)
    built.kubernetes.patch(DEPLOYMENTS, "default", "web", {"spec": {"replicas": 3}})
    built.run(30)
    waiting = [pod for pod in built.pods_of(web) if not is_ready(pod)]
    assert len(waiting) == 1, "3000m on each of two nodes with 4000m: the third does not fit"

    built.kubernetes.patch(DEPLOYMENTS, "default", "web", {"spec": {"replicas": 2}})
    built.run(30)

    assert not set(uids(waiting)) & set(uids(built.pods_of(web)))


def test_deleting_a_deployment_takes_its_replicasets_and_pods_along() -> None:
    web = Workload(name="web", replicas=2)
    built = world([web])
    body = built.server.find(DEPLOYMENTS, ("default", "web"))
    assert body is not None

    built.kubernetes.delete(DEPLOYMENTS, "default", "web", body["metadata"]["uid"])
    built.run(60)

    assert built.server.store.bodies(REPLICASETS) == []
    assert built.pods_of(web) == []


def test_old_replicasets_beyond_the_history_limit_are_removed() -> None:
    web = Workload(name="web", controller_spec={"revisionHistoryLimit": 2})
    built = world([web])

    for number in range(5):
        restart(built, web, f"i{number}")
        built.run(60)

    # The current one and two old ones.
    assert len(built.server.store.bodies(REPLICASETS)) == 3


@pytest.mark.parametrize(
    ("surge", "unavailable", "replicas", "expected"),
    [
        ("25%", "25%", 1, (1, 0)),
        ("25%", "25%", 10, (3, 2)),
        (0, 0, 5, (0, 1)),
        ("10%", "10%", 5, (1, 0)),
        (2, 0, 5, (2, 0)),
    ],
)
def test_surge_is_rounded_up_and_unavailable_down(
    surge: int | str, unavailable: int | str, replicas: int, expected: tuple[int, int]
) -> None:
    manifest = Workload(name="web", replicas=replicas, max_surge=surge, max_unavailable=unavailable).manifest()

    assert surge_and_unavailable(manifest) == expected


def test_equal_templates_have_equal_hashes_whatever_the_order_of_their_fields() -> None:
    assert template_hash({"a": 1, "b": {"c": 2, "d": 3}}) == template_hash({"b": {"d": 3, "c": 2}, "a": 1})
    assert template_hash({"a": 1}) != template_hash({"a": 2})


@settings(max_examples=40)
@given(
    replicas=st.integers(1, 12),
    surge=st.sampled_from([0, 1, 3, "25%", "50%"]),
    unavailable=st.sampled_from([0, 1, 2, "25%", "40%"]),
    seed=st.integers(0, 1000),
    again_after=st.floats(0, 20),
)
def test_a_roll_out_never_falls_below_or_rises_above_what_its_strategy_allows(
    replicas: int, surge: int | str, unavailable: int | str, seed: int, again_after: float
) -> None:
    web = Workload(name="web", replicas=replicas, cpu="100m", max_surge=surge, max_unavailable=unavailable)
    built = world([web], seed=seed)
    most_surge, most_unavailable = surge_and_unavailable(web.manifest())
    counts: list[int] = []

    def watch(change: Change) -> None:
        if change.resource == PODS:
            counts.append(sum(not is_deleting(pod) for pod in built.pods_of(web)))

    built.server.store.subscribe(watch)
    restart(built, web, "i1")
    built.run(again_after)
    restart(built, web, "i2")  # in the middle of the first roll-out
    built.run_until(built.is_settled, 2000)

    lowest = built.availability.lowest[web.key]
    assert lowest.ready >= replicas - most_unavailable
    assert built.availability.violations == []
    assert max(counts) <= replicas + most_surge
    assert {pod["metadata"]["annotations"]["kinema.io/iteration"] for pod in built.pods_of(web)} == {"i2"}
