"""Plans that can be carried out, and whole iterations on simulated clusters of many seeds.

The real control plane has its own in tests/controlplane.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from planner import labels as keys
from planner.cloud.gcp.machines import builtin_machines
from planner.errors import TooManyRequests, WrongPlan
from planner.kube.reader import read_snapshot
from planner.kube.record import NAME, encode_record
from planner.loop import Outcome, Report, iterate
from planner.model.cluster import ZONE as ZONE_KEY
from planner.model.cluster import Snapshot
from planner.model.coexistence import interpreted
from planner.model.effort import Progress
from planner.model.forecast import Forecast, Sample, UsageSeries
from planner.model.inputs import PlanningInputs
from planner.model.plan import EvictPod, Plan, RollOut, Wait
from planner.model.resources import Resources
from planner.model.scheduling import LabelSelector, PodRules, Requirement, Spread
from planner.planning import make_plan
from planner.ports import CONFIGMAPS, DEPLOYMENTS
from planner.rescheduler import CARRIED_OUT, Ending, divergence, staged
from planner.settings import MoveSettings, ObjectiveSettings, OptimizerSettings, Settings, WindowSettings
from planner.solving import solve
from planner.verifier import Examination, verify
from simulator.cloud import CloudTimes
from simulator.embedded import embedded_extender
from simulator.scenarios import badly_packed, with_rules
from simulator.workloads import Workload
from simulator.world import ExistingNode, Scenario, World
from simulator.world import catalogue as sold
from tests.building import capped, catalogue, deployment, inputs, node, offering, pods_of, snapshot
from tests.iterating import APPLY, BIG, badly_placed, bound_by_rules, edges_of, in_company
from tests.simulator.worlds import ZONE

SETTINGS = Settings(
    mode="apply",
    move=MoveSettings(steering="extender", poll_seconds=2),
    optimizer=OptimizerSettings(time_limit_seconds=8, target_gap=0.02),
)


def test_a_roll_out_that_does_not_fit_beside_its_old_pods_goes_to_a_new_node() -> None:
    # Four pods of 1000 that may only surge, two on each node of 4000. Cheapest on paper: all on "a" (0.2 + 4 moves +
    # one overlap); but four new pods have no room beside the two old ones there. A new node holds them.
    web = deployment("web", 4, cpu=1000)
    cluster = snapshot([node("a"), node("b")], [web], pods_of(web, {"a": 2, "b": 2}))
    plan = make_plan(inputs(cluster, catalogue(offering())), Settings(), lambda report: None)
    assert [(n.state, dict(n.pods)) for n in plan.nodes] == [("remove", {}), ("remove", {}), ("boot", {web.key: 4})]
    one_overlap = 200_000_000 // 96
    assert plan.objective.value_nanousd_per_hour == 200_000_000 + 4_000_000 // 24 + 2 * one_overlap
    # The bound is about the problem itself, in which "a" could have stayed.
    assert plan.objective.lower_bound_nanousd_per_hour <= 200_000_000 + 4_000_000 // 24 + one_overlap


def test_a_roll_out_for_which_there_is_no_room_and_no_new_node_stays_where_it_is() -> None:
    web = deployment("web", 4, cpu=1000)
    cluster = snapshot([node("a"), node("b")], [web], pods_of(web, {"a": 2, "b": 2}))
    nothing_to_buy = replace(catalogue(offering()), offerings=())
    plan = make_plan(inputs(cluster, nothing_to_buy), Settings(), lambda report: None)
    assert plan.moves == 0
    assert [n.state for n in plan.nodes] == ["keep", "keep"]
    assert plan.workloads[web.key].strategy == "pinned"
    assert "no order of stages could move it" in plan.workloads[web.key].reason


def test_a_plan_that_only_diversions_make_wrong_is_made_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverting_too_far(
        plan: Plan, given: PlanningInputs, left: Callable[[], float], diverting: bool = True
    ) -> tuple[Plan, Ending]:
        found, ending = staged(plan, given, left, diverting)
        if diverting:
            found = replace(found, nodes=tuple(replace(n, pods={web.key: 99}) for n in found.nodes))
        return found, ending

    monkeypatch.setattr("planner.planning.staged", diverting_too_far)
    web = deployment("web", 2, max_unavailable=1)
    cluster = snapshot([node("a"), node("b")], [web], pods_of(web, {"a": 1, "b": 1}))
    plan = make_plan(inputs(cluster, catalogue(offering())), Settings(), lambda report: None)
    # Both fit on one node, and one move is paid for by the other one's price.
    assert sorted(n.pods.get(web.key, 0) for n in plan.nodes) == [0, 2]
    assert plan.moves == 1


def test_a_plan_in_a_hurry_holds_what_cannot_be_moved_instead_of_asking_for_new_nodes() -> None:
    # The cluster of the first test here, of which the plan with a new node would need another solve with time.
    web = deployment("web", 4, cpu=1000)
    cluster = snapshot([node("a"), node("b")], [web], pods_of(web, {"a": 2, "b": 2}))
    plan = make_plan(inputs(cluster, catalogue(offering())), Settings(), lambda report: None, lambda: True)
    assert [(n.state, dict(n.pods)) for n in plan.nodes] == [("keep", {web.key: 2}), ("keep", {web.key: 2})]
    assert "no order of stages could move it" in plan.workloads[web.key].reason
    assert plan.objective.value_nanousd_per_hour == 2 * 200_000_000


def test_a_planner_that_is_asked_to_stop_while_it_plans_carries_nothing_out() -> None:
    world = badly_placed()
    told: list[Report] = []
    asked = {"stop": False}

    def note(report: Report) -> None:
        told.append(report)
        asked["stop"] |= isinstance(report, Progress)

    assert iterate(edges_of(world, note, stopping=lambda: asked["stop"]), APPLY) == "interrupted"
    assert all(isinstance(report, Progress) for report in told)
    assert read_snapshot(world.kubernetes, world.cloud, world.clock).record is None


def test_a_roll_out_that_fits_on_new_nodes_alone_stays_where_it_is_if_those_cost_more() -> None:
    # On paper both pods go to "a" (0.2), where the new ones have no room beside an old one. On a new node they cost
    # 0.5 and standing still 2 x 0.2.
    web = deployment("web", 2, cpu=2000)
    cluster = snapshot([node("a"), node("b")], [web], pods_of(web, {"a": 1, "b": 1}))
    dear = replace(catalogue(offering(), offering("m8", 0.5)), offerings=(offering("m8", 0.5),))
    plan = make_plan(inputs(cluster, dear), Settings(), lambda report: None)
    assert plan.objective.value_nanousd_per_hour == 2 * 200_000_000
    assert plan.workloads[web.key].strategy == "pinned"
    assert "no order of stages could move it" in plan.workloads[web.key].reason


def test_a_plan_with_moves_that_fails_its_check_gives_way_to_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(given: Examination, *others: Any) -> Plan:
        plan = solve(given, *others)
        if plan.moves:
            raise WrongPlan("a planted fault")
        return plan

    monkeypatch.setattr("planner.planning.solve", faulty)
    web = deployment("web", 2, max_unavailable=1)
    cluster = snapshot([node("a"), node("b")], [web], pods_of(web, {"a": 1, "b": 1}))
    plan = make_plan(inputs(cluster, catalogue(offering())), Settings(), lambda report: None)
    assert [(n.state, dict(n.pods)) for n in plan.nodes] == [("keep", {web.key: 1}), ("keep", {web.key: 1})]
    assert "a planted fault" in plan.workloads[web.key].reason


@pytest.mark.parametrize(("ceiling", "nodes"), [(None, 1), (3, 1), (2, 2), (1, 3)])
def test_a_plan_moves_no_more_pods_than_one_iteration_may_move(ceiling: int | None, nodes: int) -> None:
    # One pod of 1 CPU on each of four nodes of 4 CPU: every pod that moves to another one's node saves a node.
    web = deployment("web", 4, max_surge=0, max_unavailable=1)
    cluster = snapshot([node(name) for name in "abcd"], [web], pods_of(web, dict.fromkeys("abcd", 1)))
    given = inputs(cluster, catalogue(offering()))
    given = replace(given, rules=replace(given.rules, max_pods_moved=ceiling))
    plan = make_plan(given, Settings(), lambda report: None)
    assert plan.moves == 4 - nodes
    assert sum(n.state != "remove" for n in plan.nodes) == nodes
    verdict = verify(plan, given, 10.0, time.monotonic)
    assert verdict.right
    if ceiling is not None:
        tighter = replace(given, rules=replace(given.rules, max_pods_moved=plan.moves - 1))
        said = f"the plan moves {plan.moves} pods, above the ceiling of {plan.moves - 1} pods moved"
        assert said in verify(plan, tighter, 10.0, time.monotonic).problems


def test_a_roll_out_of_more_pods_than_may_move_waits_whole() -> None:
    # Three of four pods would have to move, which a roll-out does best: it counts all four.
    web = deployment("web", 4)
    cluster = snapshot([node(name) for name in "abcd"], [web], pods_of(web, dict.fromkeys("abcd", 1)))
    given = inputs(cluster, catalogue(offering()))
    given = replace(given, rules=replace(given.rules, max_pods_moved=1))
    plan = make_plan(given, Settings(), lambda report: None)
    # None of its pods may be unavailable, so that it cannot be evicted either.
    assert (plan.moves, plan.workloads[web.key].strategy) == (0, "stay")
    assert sum(n.state != "remove" for n in plan.nodes) == 4
    assert verify(plan, given, 10.0, time.monotonic).right


def test_pods_that_a_pools_minimum_leaves_in_an_uneven_spread_stay_where_they_are() -> None:
    # Two in a and two in b, one to a node; the pool must have a node in c. Then a new pod would have to go to c.
    web = deployment("web", 4, max_unavailable=1)
    rules = PodRules(spreads=(Spread(ZONE_KEY, 1, LabelSelector((Requirement("app", "In", ("web",)),))),))
    nodes = [node(name, zone=name[0]) for name in ("a1", "a2", "b1", "b2")]
    pods = interpreted(nodes, pods_of(web, {n.name: 1 for n in nodes}, rules=rules))
    offers = catalogue(offering(zone="a"), offering(zone="b"), offering(zone="c", minimum=1))
    plan = make_plan(inputs(snapshot(nodes, [web], pods), offers), Settings(), lambda report: None)
    assert [(n.zone, n.state) for n in plan.nodes if n.state != "keep"] == [("c", "boot")]
    assert plan.moves == 0
    assert "its spread over topology.kubernetes.io/zone does not hold beside a node" in plan.workloads[web.key].reason


def test_pending_pods_of_whose_plan_the_check_fails_stay_pending_and_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def faulty(given: Examination, *others: Any) -> Plan:
        plan = solve(given, *others)
        if not plan.unplaced:
            raise WrongPlan("a planted fault")
        return plan

    monkeypatch.setattr("planner.planning.solve", faulty)
    web, api = deployment("web", 1), deployment("api", 1)
    cluster = snapshot([node("a")], [web, api], [*pods_of(web, {"a": 1}), *pods_of(api, pending=1)])
    plan = make_plan(inputs(cluster, catalogue(offering())), Settings(), lambda report: None)
    assert [(n.state, dict(n.pods)) for n in plan.nodes] == [("keep", {web.key: 1})]
    assert plan.unplaced[api.key].count == 1
    assert "a planted fault" in plan.unplaced[api.key].reason


def test_a_held_workload_with_a_forecast_leaves_the_plan_a_proof_of_its_own() -> None:
    # web may only surge and cannot roll out: held, it also keeps its requests, which the first solve would change.
    web, api = deployment("web", 4, cpu=1000), deployment("api", 2, cpu=200, max_unavailable=1)
    pods = pods_of(web, {"a": 2, "b": 2}) + pods_of(api, {"c": 2})
    cluster = snapshot([node("a"), node("b"), node("c")], [web, api], pods)
    shrunk = Forecast({web.key: {"main": Resources(900, web.requests.memory_bytes)}})
    given = inputs(cluster, replace(catalogue(offering()), offerings=()), forecast=shrunk)
    plan = make_plan(given, Settings(), lambda report: None)
    assert plan.workloads[web.key].containers == {}
    held = {key: w.reason for key, w in plan.workloads.items() if w.strategy == "pinned"}
    assert list(held) == [web.key]
    assert verify(plan, replace(given, held=held), 60.0, time.monotonic).problems == ()


def test_a_held_workload_that_keeps_its_node_above_the_cap_has_a_proof_that_allows_it() -> None:
    # web uses 3.2 of 4 CPU on "a", where 2.8 are allowed; one of its pods has room on "b". But web may only surge, and
    # its new pods have no room beside the old ones. Nor does a pod of 800m fit a new m1 under the cap of 700m.
    web, api = deployment("web", 4, cpu=900), deployment("api", 2, cpu=200, max_unavailable=1)
    pods = pods_of(web, {"a": 4}) + pods_of(api, {"b": 2})
    sells = catalogue(offering("m1", 0.05, 1000, 4), offering())
    only_small = replace(sells, offerings=tuple(o for o in sells.offerings if o.machine_type == "m1"))
    cluster = snapshot([node("a"), node("b")], [web, api], pods)
    given = capped(inputs(cluster, only_small), 700, web=800, api=100)
    plan = make_plan(given, Settings(), lambda report: None)
    held = {key: w.reason for key, w in plan.workloads.items() if w.strategy == "pinned"}
    assert list(held) == [web.key]
    assert plan.objective.cap is not None
    assert plan.objective.cap.allowed_millicores == {"a": 3200}
    assert verify(plan, replace(given, held=held), 60.0, time.monotonic).problems == ()


def test_new_nodes_that_relieve_a_node_are_better_than_holding_it_above_the_cap() -> None:
    # As above, but with m4 on offer: holding web costs nothing and leaves "a" at 3.2 of 2.8 CPU; new nodes relieve it.
    web, api = deployment("web", 4, cpu=900), deployment("api", 2, cpu=200, max_unavailable=1)
    cluster = snapshot([node("a"), node("b")], [web, api], pods_of(web, {"a": 4}) + pods_of(api, {"b": 2}))
    given = capped(inputs(cluster, catalogue(offering())), 700, web=800, api=100)
    plan = make_plan(given, Settings(), lambda report: None)
    assert plan.objective.cap is not None
    assert plan.objective.cap.allowed_millicores == {}
    assert plan.workloads[web.key].strategy == "rollout"
    assert max(n.predicted_cpu_millicores or 0 for n in plan.nodes) <= 2800
    assert verify(plan, given, 60.0, time.monotonic).problems == ()


class Busy:
    """Every pod of web uses one CPU, now and in the hours before."""

    def read(self, snapshot: Snapshot) -> tuple[UsageSeries, ...]:
        samples = tuple(Sample(snapshot.taken_at - 300.0 * i, 1.0) for i in reversed(range(24)))
        return (UsageSeries("default/Deployment/web", "main", "cpu", samples),)


def test_nodes_are_relieved_when_a_window_begins_and_packed_again_when_it_ends() -> None:
    # Six pods that request 500m and use 1 CPU: 6 of 4 CPU on one node, and 0.5 x 4 are two pods for each node.
    office = WindowSettings("office", "Mon-Fri 06:30-20:30 Europe/Berlin", 0.5)
    settings = replace(APPLY, objective=ObjectiveSettings((office,)))
    web = Workload(name="web", replicas=6)
    world = World(Scenario(sold([BIG]), (ExistingNode("n1", "big"),), (web,)), embedded_extender)
    world.settle()
    plans: list[Plan] = []
    edges = replace(
        edges_of(world, lambda report: plans.append(report) if isinstance(report, Plan) else None), usage=Busy()
    )
    # The world begins on a Monday at 09:00 in Berlin.
    assert iterate(edges, settings) == "carried-out"
    assert plans[-1].objective.name == "cost under cpu utilization <= 0.5"
    assert sorted(n.predicted_cpu_millicores or 0 for n in plans[-1].nodes) == [2000, 2000, 2000]
    stands = [pod.node for pod in read_snapshot(world.kubernetes, world.cloud, world.clock).pods]
    assert sorted(Counter(stands).values()) == [2, 2, 2]
    # Planning again changes nothing.
    assert iterate(edges, settings) == "dropped"
    assert (plans[-1].moves, {n.state for n in plans[-1].nodes}) == (0, {"keep"})
    world.run(12 * 3600.0)  # 21:00 and some minutes
    assert iterate(edges, settings) == "carried-out"
    assert (plans[-1].objective.name, plans[-1].objective.cap) == ("cost", None)
    stands = [pod.node for pod in read_snapshot(world.kubernetes, world.cloud, world.clock).pods]
    assert list(Counter(stands).values()) == [6]
    assert world.availability.violations == []


class Dying:
    """Asks the planner to stop after every so many steps, as a crash between two rounds would."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.steps = 0

    def __call__(self) -> bool:
        return self.steps >= self.every

    def note(self, report: Report) -> None:
        self.steps += not isinstance(report, Wait)


def one_life(world: World, dying: Dying) -> Outcome:
    """Run a planner that knows nothing of its predecessors until the iteration ends or it dies."""
    dying.steps = 0
    return iterate(edges_of(world, dying.note, stopping=dying), SETTINGS)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_an_iteration_with_a_planner_that_keeps_dying_ends_as_planned(seed: int) -> None:
    scenario = with_rules(badly_packed(builtin_machines("us-central1"), time.time(), seed))
    world = World(scenario, embedded_extender)
    world.settle()
    lives, record = 0, None
    while record is None or record.phase != "done":
        assert one_life(world, Dying(40)) in ("interrupted", "carried-out")
        snapshot = read_snapshot(world.kubernetes, world.cloud, world.clock)
        lives, record = lives + 1, snapshot.record
    assert lives > 1
    assert record.reason == CARRIED_OUT
    assert world.availability.violations == []
    wanted = {node.name for node in record.plan.nodes if node.state != "remove"}
    assert {node.name for node in snapshot.nodes} == wanted
    assert {machine.name for machine in snapshot.instances or ()} == wanted
    assert divergence(record.plan, snapshot) == {"elsewhere": 0, "pending": 0, "unplanned": 0}
    assert not [node.name for node in snapshot.nodes if keys.EXPIRING in node.labels]


def test_the_metric_says_what_a_carry_out_waits_for_until_it_waits_no_more() -> None:
    world = badly_placed()
    seen: set[str] = set()

    def note(report: Report) -> None:
        waiting = {labels["reason"] for _, labels, _, *_ in edges.metrics.waiting.collect()[0].samples}
        assert waiting == (set(report.reasons) if isinstance(report, Wait) else set())
        seen.update(waiting)

    edges = edges_of(world, note)
    assert iterate(edges, APPLY) == "carried-out"
    assert any(reason.startswith("the machine n") and reason.endswith(" is being deleted") for reason in seen)


def test_no_pod_is_moved_while_the_extender_is_away() -> None:
    # It is there when the plan is accepted, and then not for the next five looks at the cluster with moves to begin.
    answers = ["", *["the extender does not answer"] * 5]
    world = badly_placed()
    while_away: list[Report] = []

    def note(report: Report) -> None:
        if 0 < len(answers) < 6:
            while_away.append(report)

    def steering_problem() -> str:
        return answers.pop(0) if answers else ""

    edges = replace(edges_of(world, note), steering_problem=steering_problem)
    assert iterate(edges, APPLY) == "carried-out"
    assert not answers
    assert [report for report in while_away if isinstance(report, RollOut | EvictPod)] == []
    waits = {reason for report in while_away if isinstance(report, Wait) for reason in report.reasons}
    assert waits == {"the extender does not answer: no pod is moved until it does"}
    moved = json.loads(world.kubernetes.get(DEPLOYMENTS, "default", "web"))
    assert keys.ITERATION in moved["spec"]["template"]["metadata"]["annotations"]


class Refusing:
    """An API server that grants no eviction."""

    def __init__(self, kubernetes: Any) -> None:
        self.kubernetes = kubernetes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kubernetes, name)

    def evict(self, namespace: str, name: str, uid: str) -> None:
        raise TooManyRequests(f"cannot evict Pod {namespace}/{name}")


def test_a_plan_whose_evictions_are_all_refused_is_given_up_after_the_time_of_a_standstill() -> None:
    world = badly_placed()
    began = world.clock.now()
    edges = edges_of(world, kubernetes=Refusing(world.kubernetes))
    assert iterate(edges, APPLY) == "abandoned"
    record = read_snapshot(world.kubernetes, world.cloud, world.clock).record
    assert record is not None
    assert "default/store-" in record.reason
    assert "could not be evicted" in record.reason
    # The roll-out of "web" and the marks take less than a minute before, and taking them back after.
    patience = APPLY.move.standstill_timeout_seconds
    assert patience < world.clock.now() - began < patience + 120


def test_the_metric_of_divergence_follows_the_cluster_after_the_plan_is_carried_out() -> None:
    world = badly_placed()
    edges = edges_of(world)

    def told() -> dict[str, float]:
        return {s.labels["reason"]: s.value for s in edges.metrics.divergence.collect()[0].samples}

    assert iterate(edges, APPLY) == "carried-out"
    assert told() == {"elsewhere": 0, "pending": 0, "unplanned": 0}
    # A person gives the Deployment of three two pods more, which come to the only node that is left.
    web = json.loads(world.kubernetes.get(DEPLOYMENTS, "default", "web"))
    web["spec"]["replicas"] = 5
    world.kubernetes.replace(DEPLOYMENTS, "default", "web", web)
    world.settle()
    assert iterate(edges, APPLY) == "dropped"
    assert told() == {"elsewhere": 0, "pending": 0, "unplanned": 2}
    # One who only recommends, or whose plan was given up, has nothing that the cluster should be like.
    record = read_snapshot(world.kubernetes, world.cloud, world.clock).record
    assert record is not None
    given_up = replace(record, reason="not ended in time")
    world.kubernetes.replace(CONFIGMAPS, "kube-system", NAME, encode_record(given_up, "kube-system"))
    assert iterate(edges, APPLY) == "dropped"
    assert told() == {}


def test_pods_that_spread_stand_apart_own_a_port_or_stay_with_a_volume_move_as_planned() -> None:
    world = bound_by_rules()
    assert iterate(edges_of(world), APPLY) == "carried-out"
    snapshot = read_snapshot(world.kubernetes, world.cloud, world.clock)
    assert snapshot.record is not None
    # A small node in each zone, 3 x 0.1 $/h instead of 9 x 0.2 $/h.
    assert snapshot.record.plan.objective.nodes_nanousd_per_hour == 300_000_000
    assert divergence(snapshot.record.plan, snapshot) == {"elsewhere": 0, "pending": 0, "unplanned": 0}
    assert world.availability.violations == []
    zones = {node.name: node.labels["topology.kubernetes.io/zone"][-1] for node in snapshot.nodes}
    assert sorted(zones.values()) == ["a", "b", "c"]
    stand = sorted((pod.workload.rpartition("/")[2], zones[pod.node or ""]) for pod in snapshot.pods)
    third = ("gate", "proxy", "store", "web", "web", "web")
    assert stand == sorted((name, zone) for name in third for zone in "abc")
    volumes = {f"store-{number}": zone for number, zone in enumerate("abc")}
    assert {pod.name: zones[pod.node or ""] for pod in snapshot.pods if pod.name in volumes} == volumes


def test_pods_that_must_stand_beside_others_follow_them() -> None:
    world = in_company()
    assert iterate(edges_of(world), APPLY) == "carried-out"
    snapshot = read_snapshot(world.kubernetes, world.cloud, world.clock)
    assert snapshot.record is not None
    assert divergence(snapshot.record.plan, snapshot) == {"elsewhere": 0, "pending": 0, "unplanned": 0}
    # 13 x 400m are two small nodes of 3000m for 2 x 0.1 $/h, and no pod of the web is without its cache.
    assert snapshot.record.plan.objective.nodes_nanousd_per_hour == 200_000_000
    stand = {node.name: Counter[str]() for node in snapshot.nodes}
    for pod in snapshot.pods:
        stand[pod.node or ""][pod.workload.rpartition("/")[2]] += 1
    assert sum(counts["web"] for counts in stand.values()) == 9
    assert all(counts["cache"] for counts in stand.values() if counts["web"])
    assert world.availability.violations == []


def test_two_iterations_of_the_same_second_have_different_names() -> None:
    world = badly_placed(smaller=True)
    # Everything but the solve, which takes no simulated time, is over at once.
    world.kubernetes.latency_seconds = 0.001
    world.cloud.times = CloudTimes(boot_seconds=(0.0, 0.0), delete_seconds=(0.0, 0.0), call_seconds=0.0)
    asked: list[str] = []
    world.cloud.listener = lambda event, machine: asked.append(machine.name) if event == "accepted" else None
    world.run(1.0 - world.clock.now() % 1.0)
    second = int(world.clock.now())
    world.cloud.stockouts["small", ZONE] = "ZONE_RESOURCE_POOL_EXHAUSTED"
    assert iterate(edges_of(world), APPLY) == "abandoned"
    assert int(world.clock.now()) == second
    del world.cloud.stockouts["small", ZONE]
    # A planner that was started again, and knows nothing of the first one's names.
    assert iterate(edges_of(world), APPLY) == "carried-out"
    assert len(asked) == 2
    assert asked[0] != asked[1]
