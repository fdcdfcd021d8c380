"""What Karpenter is asked and what is read from its answer; that it answers is measured, not tested."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.optimizer import runs
from benchmarks.optimizer.cluster import POOLS, crowded, machines
from benchmarks.optimizer.instances import KARPENTER, Instance, Problem
from benchmarks.optimizer.karpenter.answer import faults, schedule_of
from benchmarks.optimizer.karpenter.program import NoKarpenter, build
from benchmarks.optimizer.karpenter.request import Request, narrowed, request_of
from benchmarks.optimizer.karpenter.varied import THEMES, case_of
from benchmarks.optimizer.machines import Machine, table
from benchmarks.optimizer.runs import Bench, Limits, Rival, Row
from benchmarks.optimizer.shapes import MIB, Shape
from benchmarks.optimizer.table import table as written
from planner.cloud.tables import read_machines, read_pools

SMALL = Machine("e2-standard-2", 2000, 4096 * MIB, 110, 67_000_000)
LARGE = Machine("n2-standard-8", 8000, 16384 * MIB, 110, 388_000_000)
PROBLEM = Problem((LARGE, SMALL), (Shape(900, 1024 * MIB, 3),))


def answer(*nodes: Mapping[str, object], unplaced: Mapping[str, str] | None = None, ended: bool = True) -> bytes:
    """Return what the program prints."""
    body = {"ended": ended, "seconds": 0.5, "nodes": list(nodes) or None, "unplaced": unplaced or {}}
    return json.dumps(body).encode()


def node(*pods: str, machine: str = "e2-standard-2", price: int = 67_000_000) -> dict[str, object]:
    """Return one launched node as the program prints it."""
    return {
        "pool": "all",
        "machine": machine,
        "machines_left": 1,
        "pods": pods,
        "zone": "anywhere",
        "capacity_type": "on-demand",
        "price_nanousd_per_hour": price,
    }


def names(request: Request) -> list[str]:
    """Return the pods that are asked for."""
    return [pod["metadata"]["name"] for pod in request.pods]


def runs_table(rival: Rival) -> str:
    """Return the table of one row with this rival."""
    return written([Row("a", "3 pods", (KARPENTER,), pods=3, rivals=(rival,))])


def test_pods_of_shapes_are_asked_for_with_what_nodes_can_allocate() -> None:
    asked = request_of(PROBLEM)

    (pool,) = asked.pools
    assert [kind.name for kind in pool.machines] == ["n2-standard-8", "e2-standard-2"]
    assert pool.machines[1].allocatable == {"cpu": "2000m", "memory": str(4096 * MIB), "pods": "110"}
    assert pool.machines[1].offerings[0].price_nanousd_per_hour == 67_000_000
    assert len(asked.pods) == 3
    assert asked.pods[0]["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "900m", "memory": "1024Mi"}
    assert json.loads(json.dumps(asked.body(7)))["limit_seconds"] == 7


def test_pods_of_a_running_cluster_are_asked_for_from_nothing() -> None:
    cluster = crowded(50, 1_000, 60, 1)
    asked = request_of(Problem(machines(), cluster=cluster))

    legacy = {item.name for item in cluster.nodes if item.pool == "legacy"}
    assert legacy
    assert set(names(asked)) == {pod.name for pod in cluster.pods if pod.node not in legacy}
    assert not any("nodeName" in pod["spec"] for pod in asked.pods)
    price = next(machine.price_nanousd_per_hour for machine in machines() if machine.name == "e2-standard-4")
    assert asked.staying_nanousd_per_hour == len(legacy) * price
    assert {pod["metadata"]["name"] for pod in asked.daemons} == {"agent", "logs", "scratch"}


def test_pools_with_the_same_labels_and_taints_are_one_nodepool() -> None:
    asked = request_of(Problem(machines(), cluster=crowded(50, 1_000, 60, 1)))

    assert [(pool.name, dict(pool.labels), len(pool.taints)) for pool in asked.pools] == [
        ("general-4", {}, 0),
        ("ssd-8", {"disk": "ssd"}, 0),
        ("batch-8", {"dedicated": "batch"}, 1),
    ]
    assert sum(len(pool.machines) for pool in asked.pools) == sum(pool.managed for pool in POOLS)
    assert {offer.zone[-1] for pool in asked.pools for kind in pool.machines for offer in kind.offerings} == set("abc")


def test_narrower_nodepools_are_families_sizes_and_one_for_each_family() -> None:
    found = {
        name: [[kind.name for kind in pool.machines] for pool in request.pools]
        for name, request in narrowed(request_of(PROBLEM))
    }

    # 67 / 2 cores is cheaper than 388 / 8.
    assert found["e2 alone"] == [["e2-standard-2"]]
    assert found["up to 4 cores"] == [["e2-standard-2"]]
    assert found["up to 8 cores"] == [["n2-standard-8", "e2-standard-2"]]
    assert found["a pool for each family"] == [["e2-standard-2"], ["n2-standard-8"]]
    assert "n2 up to 4 cores" not in found  # there is none


def test_nodepools_in_which_a_pod_fits_nowhere_are_not_tried() -> None:
    asked = request_of(Problem((LARGE, SMALL), (Shape(900, 1024 * MIB, 3), Shape(7000, 1024 * MIB, 1))))

    assert [name for name, _ in narrowed(asked)][:2] == ["n2 alone", "up to 8 cores"]


def test_spot_comes_in_a_nodepool_of_its_own_before_on_demand() -> None:
    request = dict(narrowed(case_of(THEMES.index("spot")).request()))["everything, spot apart"]

    assert [pool.name for pool in request.pools] == ["all-spot", "all-on-demand"]
    assert [{o.capacity_type for kind in pool.machines for o in kind.offerings} for pool in request.pools] == [
        {"spot"},
        {"on-demand"},
    ]


def test_cost_is_that_of_the_launched_nodes_and_of_those_that_stay() -> None:
    asked = Request(request_of(PROBLEM).pools, request_of(PROBLEM).pods, staying_nanousd_per_hour=5)
    first, second, third = names(asked)
    found = schedule_of(asked, answer(node(first, second), node(third)))

    assert found.price_nanousd_per_hour == 2 * 67_000_000 + 5
    assert found.never_tried == 0
    assert not list(faults(asked, found))


def test_pods_that_the_limit_left_out_are_counted() -> None:
    asked = request_of(PROBLEM)
    first, second, _ = names(asked)
    found = schedule_of(asked, answer(node(first), unplaced={second: "no room"}, ended=False))

    assert (found.ended, found.never_tried, found.unplaced) == (False, 1, {second: "no room"})


def test_no_node_at_all_is_an_answer() -> None:
    asked = request_of(PROBLEM)

    assert schedule_of(asked, answer(ended=False)).never_tried == 3


def test_wrong_schedules_are_named() -> None:
    asked = request_of(PROBLEM)
    first, second, third = names(asked)

    # 3 x 900m on 2000m; 388 is not the price of an e2-standard-2; the first pod is on both nodes.
    said = list(faults(asked, schedule_of(asked, answer(node(first, second, third), node(first, price=388)))))

    assert said == [
        f"pod {first} is there 2 times",
        "node 0, a e2-standard-2, has not 2700m of cpu",
        "node 1 costs 67000000, not 388",
    ]


def test_without_go_the_row_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("KINEMA_CACHE", str(tmp_path))
    with pytest.raises(NoKarpenter, match="no Go on the PATH"):
        build()

    instance = Instance("a", "3 pods", (KARPENTER,), lambda _: PROBLEM)
    (rival,) = Bench(tmp_path, Limits())._karpenter(instance, PROBLEM, None)
    text = runs_table(rival)

    assert "a: karpenter: no Go on the PATH" in text
    assert "| no answer" in text


def test_time_limit_of_karpenter_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def ask(asked: Request, limit_seconds: float, cores: int) -> object:
        return schedule_of(asked, answer(node(names(asked)[0]), ended=False))

    monkeypatch.setattr(runs, "ask", ask)
    instance = Instance("a", "3 pods", (KARPENTER,), lambda _: PROBLEM)
    (rival,) = Bench(tmp_path, Limits(karpenter_seconds=9))._karpenter(instance, PROBLEM, None)

    assert "a: karpenter: 2 of 3 pods were not reached within 9 s" in runs_table(rival)


def test_pods_that_karpenter_leaves_out_stand_beside_its_price() -> None:
    text = runs_table(Rival("karpenter", 9.0, -0.1, 1.0, "", unplaced=2))

    assert "-10.0% (2 unplaced)" in text
    assert "a: karpenter leaves 2 pods without a place" in text


@pytest.mark.parametrize("seed", range(len(THEMES)))
def test_varied_clusters_are_the_same_for_both(seed: int, tmp_path: Path) -> None:
    case = case_of(seed)
    (tmp_path / "machines.csv").write_text(case.machines_csv())
    sold = read_machines(str(tmp_path / "machines.csv"))
    (pool,) = case.request().pools

    assert case == case_of(seed)
    assert names(case.request()) == [item["metadata"]["name"] for item in case.objects() if item["kind"] == "Pod"]
    for kind in pool.machines:
        room = sold[kind.name].allocatable
        assert kind.allocatable["cpu"] == f"{room.cpu_millicores}m"
        assert kind.allocatable["memory"] == str(room.memory_bytes)
        assert {name: int(kind.allocatable[name]) for name, _ in room.extended} == dict(room.extended)
        prices = {(o.capacity_type, o.price_nanousd_per_hour) for o in kind.offerings}
        assert ("on-demand", sold[kind.name].price_nanousd_per_hour) in prices
        assert tuple(dict.fromkeys(o.zone for o in kind.offerings)) == sold[kind.name].zones
    if (text := case.pools_yaml()) is not None:
        (tmp_path / "pools.yaml").write_text(text)
        pools = read_pools(str(tmp_path / "pools.yaml"), sold)
        assert len(pools) == sum(len({o.capacity_type for o in kind.offerings}) for kind in pool.machines)


def test_builtin_table_has_what_karpenter_is_asked_for() -> None:
    assert len(request_of(Problem(table(), PROBLEM.shapes)).pools[0].machines) == len(table())
