"""Every fault planted in a right plan is found, and nothing is found in the right plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from planner.model.forecast import Forecast
from planner.model.inputs import PlanningInputs
from planner.model.plan import Certificate, Plan, PlannedWorkload, Unplaced
from planner.model.resources import Resources
from planner.model.scheduling import NodeConstraints, Taint
from planner.verifier import check_placement
from tests.building import (
    GIB,
    catalogue,
    daemonset,
    deployment,
    inputs,
    node,
    offering,
    pod,
    pods_of,
    resources,
    snapshot,
)
from tests.verifier.rightplan import (
    EXIT_NANOUSD,
    HUGE,
    M4_NANOUSD,
    MAMMOTH,
    MOVE_NANOUSD,
    SOLO,
    WEB,
    planned,
    right_inputs,
    right_plan,
    with_node,
    with_objective,
    with_workload,
)


def test_right_plan_has_no_problem() -> None:
    assert check_placement(right_plan(), right_inputs()) == ()


def _swap_web(plan: Plan, **counts: int) -> Plan:
    """Return the plan with these numbers of web pods on nodes."""
    for name, count in counts.items():
        pods = dict(next(n for n in plan.nodes if n.name == name).pods)
        plan = with_node(plan, name, pods=pods | {WEB: count})
    return plan


FAULTS: dict[str, tuple[Callable[[Plan], Plan], str]] = {
    "another iteration": (lambda p: replace(p, iteration="it-2"), "the plan is of iteration it-2, the inputs of it-1"),
    "missing pod": (
        lambda p: _swap_web(p, k=2),
        "the plan misses 1 pods of default/Deployment/web: it places 3 and leaves out 0, the cluster has 4",
    ),
    "extra pod": (lambda p: _swap_web(p, k=4), "the plan invents 1 pods of default/Deployment/web"),
    "unknown workload": (
        lambda p: with_node(p, "k", pods={WEB: 3, SOLO: 1, "default/Deployment/ghost": 1}),
        "the plan invents 1 pods of default/Deployment/ghost",
    ),
    "negative count": (lambda p: _swap_web(p, k=-3), "-3 pods of default/Deployment/web is no count"),
    "running pod left out": (
        lambda p: replace(_swap_web(p, k=2), unplaced=dict(p.unplaced) | {WEB: Unplaced(1, "no room")}),
        "a running pod is never left out",
    ),
    "left out without a reason": (
        lambda p: replace(p, unplaced={MAMMOTH: Unplaced(1, "")}),
        "the plan leaves out pods of default/Deployment/mammoth without a reason",
    ),
    "left out although it fits": (
        lambda p: replace(
            with_node(p, "big-it-1-0", pods={}), unplaced=dict(p.unplaced) | {HUGE: Unplaced(1, "too large")}
        ),
        "a pod of default/Deployment/huge is left out, but node big-it-1-0 has room for it",
    ),
    "left out although a node for it is on offer": (
        lambda p: replace(
            p,
            nodes=tuple(n for n in p.nodes if n.state != "boot"),
            unplaced=dict(p.unplaced) | {HUGE: Unplaced(1, "too large")},
        ),
        "a pod of default/Deployment/huge is left out, but a new m8 of pool big in zone-a would hold it",
    ),
    "node of the cluster missing": (
        lambda p: replace(p, nodes=tuple(n for n in p.nodes if n.name != "a")),
        "node a of the cluster is not in the plan",
    ),
    "node that does not exist": (
        lambda p: replace(p, nodes=(*p.nodes, planned("z", "keep", {}))),
        "node z is in the plan to keep, but not in the cluster",
    ),
    "node twice": (lambda p: replace(p, nodes=(*p.nodes, p.nodes[0])), "node a is in the plan 2 times"),
    "boot named like a node": (
        lambda p: with_node(p, "big-it-1-0", name="f"),
        "node f is in the plan to boot, but the cluster has a node of this name",
    ),
    "boot with an impossible name": (
        lambda p: with_node(p, "big-it-1-0", name="Big_0"),
        "node Big_0: the name must be a DNS label",
    ),
    "boot of a machine type not on offer": (
        lambda p: with_node(p, "big-it-1-0", machine_type="m16"),
        "nothing on offer is pool 'big', zone 'zone-a', machine type 'm16', on-demand",
    ),
    "boot in a zone not on offer": (lambda p: with_node(p, "big-it-1-0", zone="zone-b"), "nothing on offer is"),
    "boot of a capacity type not on offer": (
        lambda p: with_node(p, "big-it-1-0", capacity_type="spot"),
        "nothing on offer is",
    ),
    "boot in another pool": (lambda p: with_node(p, "big-it-1-0", pool="general"), "nothing on offer is"),
    "wrong price of a boot": (
        lambda p: with_node(p, "big-it-1-0", price_nanousd_per_hour=1),
        "node big-it-1-0: the price is 1, the catalogue says 350000000 nanodollars per hour",
    ),
    "wrong price of a node": (lambda p: with_node(p, "k", price_nanousd_per_hour=None), "node k: the price is None"),
    "wrong allocatable of a boot": (
        lambda p: with_node(p, "big-it-1-0", allocatable=resources(9000, 32, 110)),
        "node big-it-1-0: allocatable cpu_millicores is 9000 in the plan, 8000 in truth",
    ),
    "wrong allocatable of a node": (
        lambda p: with_node(p, "k", allocatable=resources(4000, 16, 110, gpu=1)),
        "node k: allocatable gpu is 1 in the plan, 0 in truth",
    ),
    "wrong pool of a node": (lambda p: with_node(p, "k", pool="big"), "node k: pool is 'big' in the plan"),
    "wrong zone of a node": (lambda p: with_node(p, "k", zone="zone-b"), "node k: zone is 'zone-b' in the plan"),
    "wrong machine type of a node": (
        lambda p: with_node(p, "k", machine_type="m8"),
        "node k: machine type is 'm8' in the plan, 'm4' in the cluster",
    ),
    "wrong capacity type of a node": (
        lambda p: with_node(p, "k", capacity_type="spot"),
        "node k: capacity type is 'spot' in the plan",
    ),
    "frozen node not marked": (lambda p: with_node(p, "f", frozen=False), "node f: frozen is 'False' in the plan"),
    "kept node removed": (
        lambda p: with_node(p, "k", state="remove", pods={}),
        "node k must not be removed: it holds the pinned pod default/solo",
    ),
    "frozen node removed": (
        lambda p: with_node(p, "f", state="remove", pods={}),
        "node f must not be removed: it is cordoned",
    ),
    "pods on a removed node": (
        lambda p: _swap_web(p, a=1, k=2),
        "node a is to be removed, but the plan puts 1 pods on it",
    ),
    "pinned pod not named": (
        lambda p: with_node(p, "k", pod_names=()),
        "pod default/solo is pinned to node k (has no controller that would recreate it)",
    ),
    "pinned pod elsewhere": (
        lambda p: with_node(with_node(p, "k", pods={WEB: 3}), "big-it-1-0", pods={HUGE: 1, SOLO: 1}),
        "node k: 1 pinned pods of default/Pod/solo must stay, the plan has 0 there",
    ),
    "named pod of another node": (
        lambda p: with_node(p, "k", pod_names=("default/solo", "default/web-0")),
        "node k: the plan names the pod default/web-0, which does not run there",
    ),
    "named pod twice": (
        lambda p: with_node(p, "k", pod_names=("default/solo", "default/solo")),
        "node k: a pod is named twice",
    ),
    "frozen node receives": (
        lambda p: _swap_web(p, f=2, k=2),
        "node f is cordoned and must receive nothing, but the plan puts 2 pods of default/Deployment/web there",
    ),
    "overfull node": (
        # agent 100 + solo 500 leave 3400 of 4000.
        lambda p: with_node(with_node(p, "k", pods={WEB: 3, SOLO: 1, HUGE: 1}), "big-it-1-0", pods={}),
        "node k is overfull: 7500 of 3400 cpu_millicores",
    ),
    "workload missing": (
        lambda p: replace(p, workloads={k: w for k, w in p.workloads.items() if k != SOLO}),
        "workload default/Pod/solo is not in the plan's workloads",
    ),
    "workload that does not exist": (
        lambda p: replace(p, workloads=dict(p.workloads) | {"default/Deployment/ghost": p.workloads[WEB]}),
        "workload default/Deployment/ghost of the plan has no pods in the cluster",
    ),
    "wrong uid": (lambda p: with_workload(p, WEB, uid="uid-old"), "the uid is uid-old, the cluster says uid-web"),
    "requests changed without a forecast": (
        lambda p: with_workload(p, WEB, requests=resources(400, 1, 1)),
        "its planned requests are not its requests before with the change of its containers",
    ),
    "containers changed without a forecast": (
        lambda p: with_workload(p, WEB, containers={"main": Resources(400, GIB)}),
        "the plan changes the requests of its containers otherwise than the forecast",
    ),
    "wrong replicas": (lambda p: with_workload(p, WEB, replicas=3), "replicas is 3, the cluster says 4"),
    "wrong requests before": (
        lambda p: with_workload(p, WEB, requests_before=resources(1, 1, 1), requests=resources(1, 1, 1)),
        "requests_before is what none of its pods requests",
    ),
    "moves not counted": (
        lambda p: with_workload(p, WEB, moves=2),
        "workload default/Deployment/web (evict): 2 moves; 3 pods are displaced and 3 can be moved",
    ),
    "moves of pods that stand still": (lambda p: with_workload(p, HUGE, moves=1), "1 moves are none to count"),
    "displaced but said to stay": (
        lambda p: with_workload(p, WEB, strategy="stay", moves=0),
        "workload default/Deployment/web (stay): the plan displaces 3 of its pods",
    ),
    "said to be pinned but is not": (
        lambda p: with_workload(p, WEB, strategy="pinned", moves=0),
        "3 of its running pods are not pinned",
    ),
    "roll-out of a workload with a pinned pod": (
        lambda p: with_workload(p, WEB, strategy="rollout"),
        "it cannot be rolled out: its roll-out would also replace pods that must stay",
    ),
    "eviction of what cannot be evicted": (
        lambda p: with_workload(p, SOLO, strategy="evict"),
        "workload default/Pod/solo (evict): its pods cannot be evicted",
    ),
    "wrong cost": (lambda p: replace(p, cost_nanousd_per_hour=1), "the cost is 1 in the plan, 750000000 recomputed"),
    "wrong present cost": (
        lambda p: replace(p, current_cost_nanousd_per_hour=1),
        "the present cost is 1 in the plan, 800000000 recomputed",
    ),
    "wrong nodes term": (lambda p: with_objective(p, nodes_nanousd_per_hour=1), "the objective's nodes is 1"),
    "wrong moves term": (
        lambda p: with_objective(p, moves_nanousd_per_hour=0),
        "the objective's moves is 0 in the plan, 125000 recomputed",  # 3 x 1,000,000 / 24
    ),
    "wrong boots term": (
        lambda p: with_objective(p, boots_nanousd_per_hour=0),
        "the objective's boots is 0 in the plan, 4166666 recomputed",  # 2 x 200,000,000 x 15 / (60 x 24)
    ),
    "other payback": (lambda p: with_objective(p, payback_hours=48), "payback_hours is 48 in the plan, 24"),
    "other price of a move": (lambda p: with_objective(p, move_cost_nanousd=1), "move_cost_nanousd is 1 in the plan"),
    "other overlap": (lambda p: with_objective(p, boot_overlap_minutes=1), "boot_overlap_minutes is 1 in the plan"),
    "other price of a preference": (
        lambda p: with_objective(p, preference_nanousd_per_hour=1),
        "preference_nanousd_per_hour is 1 in the plan, 10000 recomputed",
    ),
    "other ceiling of preferences": (
        lambda p: with_objective(p, preference_ceiling_nanousd_per_hour=1),
        "preference_ceiling_nanousd_per_hour is 1 in the plan, 1000000 recomputed",
    ),
    "displeasure that there is not": (
        lambda p: with_objective(p, preferences_nanousd_per_hour=1),
        "the objective's preferences is 1 in the plan, 0 recomputed",
    ),
    "unknown objective": (lambda p: with_objective(p, name="carbon"), "the objective's name is carbon in the plan"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_found(fault: str) -> None:
    plant, sentence = FAULTS[fault]
    problems = check_placement(plant(right_plan()), right_inputs())
    assert any(sentence in problem for problem in problems), problems


def test_pool_below_its_minimum_and_above_its_maximum_is_found() -> None:
    right = right_inputs()
    small, large = (
        replace(
            right,
            catalogue=replace(
                right.catalogue,
                offerings=tuple(
                    replace(o, minimum=low, maximum=high) if o.pool == "general" else o
                    for o in right.catalogue.offerings
                ),
            ),
        )
        for low, high in ((3, 4), (0, 2))
    )
    # k and f stay: 2 nodes.
    assert check_placement(right_plan(), small) == ("pool general in zone-a: 2 nodes are below the minimum of 3",)
    # The pool has 4 nodes now: it may keep them, and no more.
    kept = with_node(with_node(right_plan(), "a", state="keep"), "b", state="keep")
    grown = replace(kept, nodes=(*kept.nodes, planned("fresh", "boot", {})))
    assert "pool general in zone-a: 5 nodes are above the maximum of 4" in check_placement(grown, large)
    assert not any("above the maximum" in problem for problem in check_placement(kept, large))


def test_pool_may_exceed_its_maximum_by_what_it_has_now() -> None:
    right = right_inputs()
    offers = tuple(replace(o, minimum=0, maximum=1) if o.pool == "general" else o for o in right.catalogue.offerings)
    tight = replace(right, catalogue=replace(right.catalogue, offerings=offers))
    # k holds a pinned pod and f is cordoned: both stay although the maximum is 1. a and b could stay as well.
    assert check_placement(right_plan(), tight) == ()


def test_pool_minimum_above_its_maximum_is_asked_for_only_up_to_the_maximum() -> None:
    right = right_inputs()

    def limited(minimum: int, maximum: int) -> PlanningInputs:
        offers = tuple(
            replace(o, minimum=minimum, maximum=maximum) if o.pool == "general" else o
            for o in right.catalogue.offerings
        )
        return replace(right, catalogue=replace(right.catalogue, offerings=offers))

    # k and f stay: 2 nodes.
    assert check_placement(right_plan(), limited(4, 2)) == ()
    problems = check_placement(right_plan(), limited(4, 3))
    assert problems == ("pool general in zone-a: 2 nodes are below the minimum of 3",)
    # The plan's own word that a limit was dropped counts for nothing.
    excused = replace(right_plan(), certificate=Certificate(dropped=("pool-minimum general/zone-a",)))
    assert check_placement(excused, limited(3, 4)) == problems


@pytest.mark.parametrize(
    ("constraints", "taints"),
    [
        (NodeConstraints(node_selector=(("disk", "ssd"),)), ()),
        (NodeConstraints(), (Taint("team", "data", "NoSchedule"),)),
    ],
)
def test_pod_on_a_node_that_does_not_admit_it_is_found(constraints: NodeConstraints, taints: tuple[Taint, ...]) -> None:
    web = deployment("web", 1, constraints=constraints)
    cluster = snapshot([node("a", labels={"disk": "ssd"}), node("b", taints=taints)], [web], pods_of(web, on={"a": 1}))
    problems = check_placement(
        replace(
            right_plan(),
            nodes=(
                planned("a", "remove", {}, pool="m4"),
                planned("b", "keep", {WEB: 1}, pool="m4"),
            ),
            unplaced={},
        ),
        inputs(cluster, catalogue(offering("m4", 0.2))),
    )
    assert "node b does not admit the pods of default/Deployment/web: selector, affinity or taints" in problems


def test_plan_worse_than_standing_still_is_found() -> None:
    web = deployment("web", 1)
    cluster = snapshot([node("a"), node("b")], [web], pods_of(web, on={"a": 1}))
    plan = replace(
        right_plan(),
        nodes=(planned("a", "keep", {}, pool="m4"), planned("b", "keep", {WEB: 1}, pool="m4")),
        workloads={WEB: replace(right_plan().workloads[WEB], replicas=1, strategy="rollout", moves=1)},
        unplaced={},
        cost_nanousd_per_hour=2 * M4_NANOUSD,
        current_cost_nanousd_per_hour=2 * M4_NANOUSD,
    )
    plan = with_objective(
        plan, nodes_nanousd_per_hour=2 * M4_NANOUSD, moves_nanousd_per_hour=41_666, boots_nanousd_per_hour=0
    )
    assert check_placement(plan, inputs(cluster, catalogue(offering("m4", 0.2)))) == (
        "the plan's value 400041666 is worse than standing still, which costs 400000000 nanodollars per hour",
    )


def test_daemonset_without_a_pod_yet_takes_room_only_where_there_is_some() -> None:
    agent = daemonset("agent", cpu=100)
    web = deployment("web", 8)
    full = snapshot([node("a")], [web], pods_of(web, on={"a": 8}), daemonsets=(agent,))
    plan = replace(
        right_plan(),
        nodes=(planned("a", "keep", {WEB: 8}, pool="m4"),),
        workloads={WEB: replace(right_plan().workloads[WEB], replicas=8, strategy="stay", moves=0)},
        unplaced={},
        cost_nanousd_per_hour=M4_NANOUSD,
        current_cost_nanousd_per_hour=M4_NANOUSD,
    )
    plan = with_objective(plan, nodes_nanousd_per_hour=M4_NANOUSD, moves_nanousd_per_hour=0, boots_nanousd_per_hour=0)
    offers = catalogue(offering("m4", 0.2))
    # 8 x 500 = 4000 fill the node: standing still must be possible.
    assert check_placement(plan, inputs(full, offers)) == ()
    waiting = replace(full, pods=(*full.pods[:7], replace(full.pods[7], node=None, phase="Pending")))
    # 7 x 500 + agent 100 leave 400 for the eighth.
    assert check_placement(plan, inputs(waiting, offers)) == ("node a is overfull: 4000 of 3900 cpu_millicores",)


def _mixed_plan(**pods: int) -> Plan:
    plan = replace(
        right_plan(),
        nodes=tuple(planned(name, "keep", {WEB: count}, pool="m4") for name, count in pods.items()),
        workloads={WEB: replace(right_plan().workloads[WEB], strategy="stay", moves=0)},
        unplaced={},
        cost_nanousd_per_hour=2 * M4_NANOUSD,
        current_cost_nanousd_per_hour=2 * M4_NANOUSD,
    )
    return with_objective(
        plan, nodes_nanousd_per_hour=2 * M4_NANOUSD, moves_nanousd_per_hour=0, boots_nanousd_per_hour=0
    )


def test_pods_of_one_workload_that_differ_are_assigned_so_that_they_fit() -> None:
    web = deployment("web", 4)
    big, small = resources(3000, 1, 1), resources(1000, 1, 1)
    pods = pods_of(web, on={"a": 2, "b": 2})
    mixed = tuple(replace(p, requests=r) for p, r in zip(pods, (big, small, big, small), strict=True))
    facts = inputs(snapshot([node("a"), node("b")], [web], mixed), catalogue(offering("m4", 0.2)))
    # 3000 + 1000 on each node fills both; 3 and 1 cannot be: the least three take 3000 + 1000 + 1000.
    assert check_placement(_mixed_plan(a=2, b=2), facts) == ()
    assert "no assignment of them to their nodes fits" in check_placement(_mixed_plan(a=3, b=1), facts)[0]


def test_where_a_workload_has_pods_left_out_it_is_not_the_running_ones() -> None:
    # Of two pods of 3 CPU the remaining node of 4 CPU holds one, and the pending one comes first by name.
    web = deployment("web", 2, cpu=3000, max_unavailable=1)
    here = NodeConstraints((("zone", "b"),))
    pods = (pod(web, 0), pod(web, 1, on="a", constraints=here))
    nodes = [node("a", labels={"zone": "b"}), node("b", labels={"zone": "b"})]
    facts = inputs(snapshot(nodes, [web], pods), catalogue(offering("m2", 0.1, cpu=2000)))
    facts = replace(facts, catalogue=replace(facts.catalogue, machines=catalogue(offering("m4", 0.2)).machines))
    requests = resources(3000, 1, 1)
    moved = PlannedWorkload("uid-web", 2, requests, requests, "evict", 1)
    plan = replace(
        _mixed_plan(),
        nodes=(planned("a", "remove", {}, pool="m4"), planned("b", "keep", {WEB: 1}, pool="m4")),
        workloads={WEB: moved},
        unplaced={WEB: Unplaced(1, "no node has room for it")},
        cost_nanousd_per_hour=M4_NANOUSD,
    )
    plan = with_objective(
        plan,
        nodes_nanousd_per_hour=M4_NANOUSD,
        moves_nanousd_per_hour=MOVE_NANOUSD,
        boots_nanousd_per_hour=EXIT_NANOUSD,
    )
    # What was removed could hold it: node a is named in place of a complaint about the running pod.
    assert check_placement(plan, facts) == ("a pod of default/Deployment/web is left out, but node a has room for it",)


def test_forecast_is_counted_where_the_plan_takes_it() -> None:
    web = deployment("web", 2)
    cluster = snapshot([node("a")], [web], pods_of(web, on={"a": 2}))
    more = {"main": Resources(2500, GIB)}
    given = inputs(cluster, catalogue(offering("m4", 0.2)), forecast=Forecast({WEB: more}))
    plan = replace(
        _mixed_plan(a=2),
        workloads={
            WEB: replace(
                right_plan().workloads[WEB],
                replicas=2,
                strategy="rollout",
                moves=2,
                containers=more,
                requests=resources(2500, 1, 1),
            )
        },
    )
    assert "node a is overfull: 5000 of 4000 cpu_millicores" in check_placement(plan, given)
    left_out = replace(plan, workloads={WEB: replace(right_plan().workloads[WEB], strategy="stay", moves=0)})
    assert f"workload {WEB}: the plan leaves its forecast out without a reason" in check_placement(left_out, given)


@pytest.mark.parametrize(
    ("containers", "sentence"),
    [
        ({"side": Resources(100, GIB)}, "requests of the container side, which its template does not have"),
        ({"main": Resources(-500, GIB)}, "of the container main: cpu_millicores must be above 0, not -500"),
        ({"main": Resources(500, 0)}, "of the container main: memory_bytes must be above 0, not 0"),
        ({"main": Resources(400, GIB, pods=1)}, "of the container main in more than CPU and memory"),
    ],
)
def test_new_requests_that_make_no_sense_are_found(containers: dict[str, Resources], sentence: str) -> None:
    right = right_inputs()
    plan = with_workload(right_plan(), WEB, containers=containers)
    problems = check_placement(plan, replace(right, forecast=Forecast({WEB: containers})))
    assert any(sentence in problem for problem in problems), problems


def test_held_pods_must_stay() -> None:
    held = replace(right_inputs(), held={WEB: "no order of stages could move them"})
    problems = check_placement(right_plan(), held)
    assert "node a must not be removed: it holds the pinned pod default/web-0: no order of stages could move them" in (
        problems
    )
