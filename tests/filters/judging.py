"""The final placement of a plan, offered to the real scheduler's filters: which pods would they refuse?"""

from __future__ import annotations

import copy
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import yaml

from planner import planning
from planner.cloud.tables import catalogue, read_machines, read_pools
from planner.errors import WrongPlan
from planner.kube.reader import read_dump
from planner.model.cluster import Pod
from planner.model.disruption import pod_key
from planner.model.effort import Effort, Progress, Watch
from planner.model.inputs import PlanningInputs
from planner.model.machines import Offering, SpotRule
from planner.model.plan import Plan, PlannedNode
from planner.model.resources import Resources
from planner.model.scheduling import LabelSelector, Requirement
from planner.rescheduler import rules_of
from planner.settings import MoveSettings, OptimizerSettings, Settings
from planner.verifier import Examination
from planner.verifier.facts import offering_key
from tests.filters.clusters import HASH, HOSTNAME, Case, bind, daemon_pod, standing
from tests.filters.scheduler import Filters, Object, Refusal, State

_FIELDS = {"memory_bytes": "memory", "ephemeral_storage_bytes": "ephemeral-storage"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A plan, and which refusals there are after it that there were not before.

    `complaints` is what Kinema's own check says of the first plan, in whose place another one without moves was made.
    """

    plan: Plan
    refusals: tuple[Refusal, ...]
    complaints: tuple[str, ...]
    present: State
    final: State

    @property
    def faults(self) -> list[str]:
        """Everything that is wrong with the plan, in words."""
        return [*map(str, self.refusals), *(f"by Kinema's own check: {said}" for said in self.complaints)]


def judge(case: Case, filters: Filters, settings: Settings | None = None) -> Verdict:
    """Plan the cluster and offer the plan's final placement, pod by pod, to the real filters.

    Raises:
        SolverError: there is no plan, or it fails Kinema's own check, with which `kinema plan` gives none either.
    """
    inputs = inputs_of(case)
    chosen = settings or settings_of(case.seed)
    complaints: list[str] = []
    with _planning_here(complaints):
        plan = planning.make_plan(replace(inputs, rules=rules_of(chosen.move)), chosen, lambda _: None)
    present, final = case.state(), final_state(case, inputs, plan)
    # What is being deleted still stands in the way of others, and others still lean on it.
    left = replace(present, pods=[pod for pod in present.pods if "deletionTimestamp" not in pod["metadata"]])
    # Only the first filter that refuses is named, so what a spread hid before is asked for too.
    settled = replace(left, pods=[_settled(pod) for pod in left.pods])
    # A pending pod that gets a place has every right to it: that others would then not be let in again is its doing.
    arrived = [pod for pod in final.pods if _key(pod) in {_key(other) for other in present.pods if not _placed(other)}]
    joined = replace(
        settled,
        nodes=[*present.nodes, *(node for node in final.nodes if node not in present.nodes)],
        pods=[*filter(_placed, settled.pods), *arrived],
    )
    unspread = replace(left, pods=[_unspread(pod) for pod in left.pods])
    before = {
        (r.pod, r.node, r.plugin)
        for state in (present, left, settled, unspread, joined)
        for r in filters.refusals(state, _asked(state.pods))
    }
    # What was refused where it stands, and still stands there, is no work of the plan.
    untouched = {_key(pod) for pod in final.pods if any(pod is other for other in present.pods)}
    asked = replace(final, pods=[_settled(pod) if _key(pod) in untouched else pod for pod in final.pods])
    refused = filters.refusals(asked, _asked(asked.pods))
    new = [r for r in refused if r.pod not in untouched or (r.pod, r.node, r.plugin) not in before]
    return Verdict(plan, tuple(new), tuple(complaints), present, final)


def settings_of(seed: int) -> Settings:
    """Return the settings of a seed: a plan good enough, soon, and various ceilings of unavailability."""
    ceiling = (0.5, 1.0, 0.25)[seed % 3]
    return Settings(
        move=MoveSettings(unavailability_ceiling=ceiling),
        optimizer=OptimizerSettings(time_limit_seconds=10, target_gap=0.02),
    )


def inputs_of(case: Case) -> PlanningInputs:
    """Read the dump and the tables as the command line does."""
    snapshot = read_dump(json.dumps(case.dump()).encode(), f"seed {case.seed}")
    with tempfile.TemporaryDirectory() as folder:
        table, listed = Path(folder) / "machines.csv", Path(folder) / "pools.yaml"
        table.write_text(case.table())
        machines = read_machines(str(table))
        pools = None
        if case.pools:
            listed.write_text(yaml.safe_dump(case.pools))
            pools = read_pools(str(listed), machines)
    bought = catalogue(machines, pools, snapshot)
    if case.spot_tiers:
        allowed = LabelSelector((Requirement("tier", "In", case.spot_tiers),))
        bought = replace(bought, spot=SpotRule(allowed))
    return PlanningInputs(snapshot, bought, f"s{case.seed}")


@contextmanager
def _planning_here(complaints: list[str]) -> Iterator[None]:
    """Let the optimizer run in this process: thousands of children would mostly load libraries."""

    def solve(examination: Examination, effort: OptimizerSettings, *_: object) -> Plan:
        from planner.optimizer import optimize

        def ignore(progress: Progress) -> None:
            pass

        wanted = Effort(effort.solver, effort.time_limit_seconds, effort.target_gap)
        plan = optimize(examination.inputs, wanted, Watch(time.monotonic, ignore))
        if problems := examination.problems(plan):
            raise WrongPlan(problems[0])
        return plan

    def with_less(inputs: PlanningInputs, error: WrongPlan) -> PlanningInputs:
        complaints.append(str(error))
        return given_up(inputs, error)

    given_up = planning._with_less
    with mock.patch.object(planning, "solve", solve), mock.patch.object(planning, "_with_less", with_less):
        yield


def final_state(case: Case, inputs: PlanningInputs, plan: Plan) -> State:
    """Return the cluster once the plan is carried out: its nodes, each planned pod on one, new DaemonSet pods."""
    offers = {offering_key(offer): offer for offer in inputs.catalogue.offerings}
    nodes = {node["metadata"]["name"]: node for node in case.of("Node")}
    found = []
    for planned in plan.nodes:
        if planned.state == "keep":
            found.append(nodes[planned.name])
        elif planned.state == "boot":
            found.append(_booted(planned, offers[offering_key(planned)]))
    objects = {_key(pod): pod for pod in standing(case.of("Pod"))}
    pods = list(_planned_pods(case, inputs, plan, {n["metadata"]["name"]: n for n in found}, objects))
    stay = {node["metadata"]["name"] for node in found} & nodes.keys()
    for pod in inputs.snapshot.pods:
        if pod.live and pod.stays_with_node and pod.node in stay:
            pods.append(objects[pod_key(pod)])
    booted = [(p, offers[offering_key(p)]) for p in plan.nodes if p.state == "boot"]
    templates = {f"{d['metadata']['namespace']}/DaemonSet/{d['metadata']['name']}": d for d in case.of("DaemonSet")}
    for planned, offer in booted:
        for daemonset in inputs.snapshot.daemonsets:
            if daemonset.constraints.admit(offer.labels, planned.name, offer.taints):
                pods.append(daemon_pod(templates[daemonset.key], planned.name))
    present = case.state()
    return State(found, pods, present.volumes, present.claims, present.namespaces)


def _booted(planned: PlannedNode, offer: Offering) -> Object:
    taints = [{"key": t.key, "value": t.value, "effect": t.effect} for t in offer.taints]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": planned.name, "labels": {**offer.labels, HOSTNAME: planned.name}},
        "spec": {"taints": taints},
        "status": {"allocatable": _quantities(planned.allocatable)},
    }


def _quantities(found: Resources) -> dict[str, str]:
    amounts = {_FIELDS.get(name, name): str(amount) for name, amount in found.amounts().items()}
    return amounts | {"cpu": f"{amounts.pop('cpu_millicores')}m"}


def _key(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _planned_pods(
    case: Case,
    inputs: PlanningInputs,
    plan: Plan,
    nodes: Mapping[str, Object],
    objects: Mapping[str, Object],
) -> Iterator[Object]:
    """Yield each planned pod on its node: named ones by name, the others where the counts have room."""
    by_workload: dict[str, list[Pod]] = {}
    for pod in inputs.snapshot.pods:
        if pod.live and not pod.stays_with_node:
            by_workload.setdefault(pod.workload, []).append(pod)
    fixed = {key: planned.name for planned in plan.nodes for key in planned.pod_names}
    templates = {
        f"{item['metadata']['namespace']}/{kind}/{item['metadata']['name']}": item["spec"]["template"]
        for kind in ("Deployment", "StatefulSet", "ReplicaSet")
        for item in case.of(kind)
    }
    for workload, pods in by_workload.items():
        slots = [p.name for p in plan.nodes if p.state != "remove" for _ in range(p.pods.get(workload, 0))]
        for pod in pods:
            if (there := fixed.get(pod_key(pod))) is not None:
                slots.remove(there)
                yield objects[pod_key(pod)]
        free = [pod for pod in pods if pod_key(pod) not in fixed]
        rolled = workload in plan.workloads and plan.workloads[workload].strategy == "rollout"
        for pod, slot in _matched(free, slots, nodes):
            present = objects[pod_key(pod)]
            if pod.node == slot and not rolled:
                yield present
                continue
            made = _recreated(present, templates[workload], rolled) if rolled or pod.node else copy.deepcopy(present)
            bind(made, slot)
            yield made


def _recreated(pod: Object, template: Object, rolled: bool) -> Object:
    """Return the pod as its controller makes it again: labels of the template, after a roll-out with a new hash."""
    made: Object = copy.deepcopy(pod)
    own = made["metadata"]["labels"]
    kept = {HASH: own[HASH]} if HASH in own else {}
    made["metadata"]["labels"] = {**template["metadata"]["labels"], **kept}
    if rolled and HASH in own:
        text = json.dumps(made).replace(json.dumps(own[HASH]), json.dumps(f"new-{own[HASH]}"))
        made = json.loads(text)
    return made


def _matched(pods: Sequence[Pod], slots: Sequence[str], nodes: Mapping[str, Object]) -> Iterator[tuple[Pod, str]]:
    """Give each slot a pod that may go there: a matching with augmenting paths, pods that are there already first."""
    labels = {name: node["metadata"]["labels"] for name, node in nodes.items()}
    taken: dict[int, int] = {}
    for slot, name in enumerate(slots):
        stays = (i for i, pod in enumerate(pods) if pod.node == name and i not in taken)
        if (index := next(stays, None)) is not None:
            taken[index] = slot

    def seek(slot: int, seen: set[int]) -> bool:
        able = [
            i
            for i, pod in enumerate(pods)
            if i not in seen and pod.constraints.select(labels[slots[slot]], slots[slot])
        ]
        # A pod that has a slot gives it up only where no other can go; a pending one may be left out.
        for index in sorted(able, key=lambda i: (i in taken, pods[i].node is None)):
            if index in seen:
                continue
            seen.add(index)
            if index not in taken or seek(taken[index], seen):
                taken[index] = slot
                return True
        return False

    for slot in sorted(set(range(len(slots))) - set(taken.values())):
        if not seek(slot, set()):
            raise AssertionError(f"no pod of {pods[0].workload if pods else '?'} may go to {slots[slot]}")
    yield from ((pods[index], slots[slot]) for index, slot in taken.items())


def _settled(pod: Object) -> Object:
    """Return a pod that stays, without its hard spread by host name.

    Any new node, whoever adds it, is empty, and then no node may have more than maxSkew: pods that stood on the
    emptiest node's own pods would then get another node if they were made anew, and need not be.
    """
    spreads = pod["spec"].get("topologySpreadConstraints", ())
    left = [spread for spread in spreads if spread["topologyKey"] != HOSTNAME]
    return {**pod, "spec": {**pod["spec"], "topologySpreadConstraints": left}} if spreads else pod


def _unspread(pod: Object) -> Object:
    """Return a pod without its hard spreads."""
    return {**pod, "spec": {**pod["spec"], "topologySpreadConstraints": []}}


def _placed(pod: Object) -> bool:
    return bool(pod["spec"].get("nodeName"))


def _asked(pods: Sequence[Object]) -> list[int]:
    """Return the indices of the pods that the filters are asked about; one that is being deleted is not made anew."""
    return [index for index, pod in enumerate(pods) if _placed(pod) and "deletionTimestamp" not in pod["metadata"]]
