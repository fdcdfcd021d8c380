"""The plan as JSON (kinema.io/v1alpha1), exactly: money is decimal text made from whole nanodollars, never a float."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Literal

import msgspec

from planner.errors import BadInput
from planner.model.cap import CpuCap
from planner.model.decoding import explain
from planner.model.plan import (
    Certificate,
    CertificateClass,
    CertificateGroup,
    CertificateRow,
    NodeState,
    Objective,
    Plan,
    PlannedNode,
    PlannedWorkload,
    Status,
    Strategy,
    Unplaced,
)
from planner.model.resources import Resources

API_VERSION = "kinema.io/v1alpha1"

_NANO = 10**9
_LARGEST_NANOUSD = 10**21
_DERIVED_DIGITS = 9
_GAP_ROUNDING = 2e-9
"""A gap is written with nine decimals."""


class ContradictoryPlan(BadInput):
    """A plan that can be read, but whose numbers do not add up."""


def usd(nanousd: int) -> str:
    """Write nanodollars as dollars: exact, without superfluous zeros."""
    sign, rest = ("-", -nanousd) if nanousd < 0 else ("", nanousd)
    whole, part = divmod(rest, _NANO)
    return f"{sign}{whole}.{part:09d}".rstrip("0").removesuffix(".")


def encode_plan(plan: Plan) -> bytes:
    """Write the plan in the public format, indented, keys in a fixed order."""
    objective = plan.objective
    body = {
        "apiVersion": API_VERSION,
        "kind": "Plan",
        "iteration": plan.iteration,
        "objective": {
            "name": objective.name,
            "value": _money(objective.value_nanousd_per_hour),
            "terms": {
                "nodes": _money(objective.nodes_nanousd_per_hour),
                "moves": _money(objective.moves_nanousd_per_hour),
                "boots": _money(objective.boots_nanousd_per_hour),
                "preferences": _money(objective.preferences_nanousd_per_hour),
            },
            "payback_hours": objective.payback_hours,
            "move_cost_usd": _money(objective.move_cost_nanousd),
            "boot_overlap_minutes": objective.boot_overlap_minutes,
            "preference_usd_per_hour": _money(objective.preference_nanousd_per_hour),
            "preference_ceiling_usd_per_hour": _money(objective.preference_ceiling_nanousd_per_hour),
            "lower_bound": _money(objective.lower_bound_nanousd_per_hour),
            "relative_gap": round(objective.relative_gap, _DERIVED_DIGITS),
            "status": objective.status,
            **({} if objective.cap is None else {"cpu_utilization": _encode_cap(objective.cap)}),
        },
        "current_cost_usd_per_hour": _money(plan.current_cost_nanousd_per_hour),
        "cost_usd_per_hour": _money(plan.cost_nanousd_per_hour),
        "nodes": [_encode_node(node) for node in plan.nodes],
        "workloads": {key: _encode_workload(workload) for key, workload in plan.workloads.items()},
        "unplaced": {key: {"count": u.count, "reason": u.reason} for key, u in plan.unplaced.items()},
        "certificate": _encode_certificate(plan.certificate),
        "timings_seconds": dict(plan.timings_seconds),
    }
    return msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n"


def decode_plan(data: bytes, origin: str) -> Plan:
    """Read a plan in the public format; fields that are not known are skipped.

    Raises:
        BadInput: the data is no plan; names origin, field, value and what would be right.
        ContradictoryPlan: the objective's value is not the sum of its terms, its gap is not that of its bound, or a
            price of change is below 0.
    """
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.api_version != API_VERSION:
            raise BadInput(f"{origin}: apiVersion must be {API_VERSION!r}, not {head.api_version!r}")
        if head.kind != "Plan":
            raise BadInput(f"{origin}: kind must be 'Plan', not {head.kind!r}")
        body = msgspec.json.decode(data, type=_Plan)
    except msgspec.ValidationError as error:
        raise BadInput(f"{origin}: {explain(error, json.loads(data))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{origin}: is no JSON: {error}; expected what `kinema plan --output json` prints") from None
    read = _Reader(origin)
    o = body.objective
    objective = Objective(
        name=o.name,
        nodes_nanousd_per_hour=read.money(o.terms.nodes, "objective.terms.nodes"),
        moves_nanousd_per_hour=read.money(o.terms.moves, "objective.terms.moves"),
        boots_nanousd_per_hour=read.money(o.terms.boots, "objective.terms.boots"),
        lower_bound_nanousd_per_hour=read.money(o.lower_bound, "objective.lower_bound"),
        status=o.status,
        payback_hours=o.payback_hours,
        move_cost_nanousd=read.money(o.move_cost_usd, "objective.move_cost_usd"),
        boot_overlap_minutes=o.boot_overlap_minutes,
        cap=None if o.cpu_utilization is None else read.cap(o.cpu_utilization),
        preferences_nanousd_per_hour=read.money(o.terms.preferences, "objective.terms.preferences"),
        preference_nanousd_per_hour=read.money(o.preference_usd_per_hour, "objective.preference_usd_per_hour"),
        preference_ceiling_nanousd_per_hour=read.money(
            o.preference_ceiling_usd_per_hour, "objective.preference_ceiling_usd_per_hour"
        ),
    )
    value = read.money(o.value, "objective.value")
    if value != (total := objective.value_nanousd_per_hour):
        raise ContradictoryPlan(f"{origin}: objective.value is {usd(value)}, but its terms add up to {usd(total)}")
    _check_prices(objective, origin)
    _check_gap(o.relative_gap, objective, origin)
    return Plan(
        iteration=body.iteration,
        objective=objective,
        current_cost_nanousd_per_hour=read.money(body.current_cost_usd_per_hour, "current_cost_usd_per_hour"),
        cost_nanousd_per_hour=read.money(body.cost_usd_per_hour, "cost_usd_per_hour"),
        nodes=tuple(read.node(node, f"nodes[{index}]") for index, node in enumerate(body.nodes)),
        workloads={key: _decode_workload(workload) for key, workload in body.workloads.items()},
        unplaced={key: Unplaced(u.count, u.reason) for key, u in body.unplaced.items()},
        certificate=_decode_certificate(body.certificate),
        timings_seconds=body.timings_seconds,
    )


def _money(nanousd: int) -> msgspec.Raw:
    return msgspec.Raw(usd(nanousd).encode())


def _encode_cap(cap: CpuCap) -> dict[str, Any]:
    return {
        "cap": _money(cap.permille * _NANO // 1000),
        "window": cap.window,
        "predicted_cpu_millicores": dict(cap.usage_millicores),
        "above_cap_millicores": dict(cap.allowed_millicores),
    }


def _amounts(resources: Resources) -> dict[str, int]:
    """Write CPU, memory and pods always, everything else where there is any."""
    found = resources.amounts()
    if not resources.ephemeral_storage_bytes:
        del found["ephemeral_storage_bytes"]
    return found


def _encode_node(node: PlannedNode) -> dict[str, Any]:
    price = node.price_nanousd_per_hour
    found: dict[str, Any] = {
        "name": node.name,
        "state": node.state,
        "pool": node.pool,
        "machine_type": node.machine_type,
        "zone": node.zone,
        "capacity_type": node.capacity_type,
        "price_usd_per_hour": None if price is None else _money(price),
        "allocatable": _amounts(node.allocatable),
        "pods": dict(node.pods),
        "pod_names": list(node.pod_names),
    }
    if node.reason:
        found["reason"] = node.reason
    if node.frozen:
        found["frozen"] = True
    if node.predicted_cpu_millicores is not None:
        found["predicted_cpu_before_millicores"] = node.predicted_cpu_before_millicores
        found["predicted_cpu_millicores"] = node.predicted_cpu_millicores
    return found


def _encode_workload(workload: PlannedWorkload) -> dict[str, Any]:
    found: dict[str, Any] = {
        "uid": workload.uid,
        "replicas": workload.replicas,
        "requests_before": _amounts(workload.requests_before),
        "requests": _amounts(workload.requests),
        "strategy": workload.strategy,
        "moves": workload.moves,
        "reason": workload.reason,
    }
    if workload.stage:
        found["stage"] = workload.stage
    if workload.containers:
        found["containers"] = {name: _amounts(wanted) for name, wanted in workload.containers.items()}
    return found


def _encode_certificate(certificate: Certificate) -> dict[str, Any]:
    return {
        "groups": [
            {
                "id": g.id,
                "workloads": list(g.workloads),
                "count": g.count,
                "requests": _amounts(g.requests),
                "price": g.price_nanousd_per_hour,
            }
            for g in certificate.groups
        ],
        "classes": [
            {
                "id": c.id,
                "pool": c.pool,
                "zone": c.zone,
                "machine_type": c.machine_type,
                "capacity_type": c.capacity_type,
                "node": c.node,
                "limit": c.limit,
                "cost": c.cost_nanousd_per_hour,
            }
            for c in certificate.classes
        ],
        "rows": [
            {"kind": r.kind, "scope": r.scope, "rhs": r.rhs, "dual": r.dual_nanousd_per_hour} for r in certificate.rows
        ],
        "dropped": list(certificate.dropped),
    }


def _check_prices(objective: Objective, origin: str) -> None:
    for name, value, least in (
        ("payback_hours", objective.payback_hours, 1),
        ("move_cost_usd", objective.move_cost_nanousd, 0),
        ("boot_overlap_minutes", objective.boot_overlap_minutes, 0),
        ("preference_usd_per_hour", objective.preference_nanousd_per_hour, 0),
        ("preference_ceiling_usd_per_hour", objective.preference_ceiling_nanousd_per_hour, 0),
    ):
        if value < least:
            raise ContradictoryPlan(f"{origin}: objective.{name} must be {least} or more")


def _check_gap(gap: Decimal | None, objective: Objective, origin: str) -> None:
    right = "(value - lower_bound) / value"
    if gap is None or not gap.is_finite():
        said = "null" if gap is None else gap
        raise ContradictoryPlan(f"{origin}: objective.relative_gap must be {right}, not {said}")
    found, own = float(gap), objective.relative_gap
    if abs(found - own) > _GAP_ROUNDING:
        raise ContradictoryPlan(f"{origin}: objective.relative_gap is {found:.9f}, but {right} is {own:.9f}")


class _Head(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str


class _Terms(msgspec.Struct):
    nodes: Decimal
    moves: Decimal
    boots: Decimal
    preferences: Decimal = Decimal(0)


class _Cap(msgspec.Struct):
    cap: Decimal
    window: str
    predicted_cpu_millicores: dict[str, int]
    above_cap_millicores: dict[str, int] = {}


class _Objective(msgspec.Struct):
    name: str
    value: Decimal
    terms: _Terms
    payback_hours: int
    lower_bound: Decimal
    status: Status
    relative_gap: Decimal | None = None
    move_cost_usd: Decimal = Decimal(0)
    boot_overlap_minutes: int = 0
    cpu_utilization: _Cap | None = None
    preference_usd_per_hour: Decimal = Decimal(0)
    preference_ceiling_usd_per_hour: Decimal = Decimal(0)


class _Node(msgspec.Struct):
    name: str
    state: NodeState
    pool: str
    machine_type: str
    zone: str
    capacity_type: Literal["on-demand", "spot"]
    price_usd_per_hour: Decimal | None
    allocatable: dict[str, int]
    pods: dict[str, int]
    pod_names: tuple[str, ...] = ()
    reason: str = ""
    frozen: bool = False
    predicted_cpu_before_millicores: int | None = None
    predicted_cpu_millicores: int | None = None


class _Workload(msgspec.Struct):
    uid: str
    replicas: int
    requests_before: dict[str, int]
    requests: dict[str, int]
    strategy: Strategy
    moves: int
    reason: str = ""
    containers: dict[str, dict[str, int]] = {}
    stage: int = 0


class _Unplaced(msgspec.Struct):
    count: int
    reason: str


class _Group(msgspec.Struct):
    id: str
    workloads: tuple[str, ...]
    count: int
    requests: dict[str, int]
    price: int


class _Class(msgspec.Struct):
    id: str
    pool: str
    zone: str
    machine_type: str
    limit: int
    cost: int
    capacity_type: str = ""
    node: str | None = None


class _Row(msgspec.Struct):
    kind: str
    scope: str
    rhs: int
    dual: int


class _Certificate(msgspec.Struct):
    groups: tuple[_Group, ...] = ()
    classes: tuple[_Class, ...] = ()
    rows: tuple[_Row, ...] = ()
    dropped: tuple[str, ...] = ()


class _Plan(msgspec.Struct):
    iteration: str
    objective: _Objective
    current_cost_usd_per_hour: Decimal
    cost_usd_per_hour: Decimal
    nodes: tuple[_Node, ...]
    workloads: dict[str, _Workload]
    unplaced: dict[str, _Unplaced]
    certificate: _Certificate
    timings_seconds: dict[str, float] = {}


class _Reader:
    """Turns the decoded fields into the model's; knows where they come from."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def money(self, value: Decimal, field: str) -> int:
        """Return nanodollars; refuses what is not finite, too large, or finer than a nanodollar."""
        if not value.is_finite() or abs(value) * _NANO > _LARGEST_NANOUSD:
            raise BadInput(f"{self._origin}: {field} must be an amount in USD, not {value}")
        scaled = value.scaleb(9)
        if scaled != scaled.to_integral_value():
            raise BadInput(f"{self._origin}: {field} must have at most 9 decimals, not {value}")
        return int(scaled)

    def cap(self, cap: _Cap) -> CpuCap:
        """Return the cap; refuses what no setting may be, and usage below 0."""
        permille = cap.cap * 1000
        if not cap.cap.is_finite() or not 0 < permille <= 1000 or permille != permille.to_integral_value():
            right = "above 0, at most 1, with at most three decimals"
            raise BadInput(f"{self._origin}: objective.cpu_utilization.cap must be {right}, not {cap.cap}")
        for name, amounts in (
            ("predicted_cpu_millicores", cap.predicted_cpu_millicores),
            ("above_cap_millicores", cap.above_cap_millicores),
        ):
            for key, amount in amounts.items():
                if amount < 0:
                    at = f"objective.cpu_utilization.{name}[{key!r}]"
                    raise BadInput(f"{self._origin}: {at} must be 0 or more, not {amount}")
        return CpuCap(int(permille), cap.window, cap.predicted_cpu_millicores, cap.above_cap_millicores)

    def node(self, node: _Node, field: str) -> PlannedNode:
        """Return one node of the plan."""
        price = node.price_usd_per_hour
        return PlannedNode(
            name=node.name,
            state=node.state,
            pool=node.pool,
            machine_type=node.machine_type,
            zone=node.zone,
            capacity_type=node.capacity_type,
            price_nanousd_per_hour=None if price is None else self.money(price, f"{field}.price_usd_per_hour"),
            allocatable=Resources.from_amounts(node.allocatable),
            pods=node.pods,
            pod_names=node.pod_names,
            reason=node.reason,
            frozen=node.frozen,
            predicted_cpu_before_millicores=node.predicted_cpu_before_millicores,
            predicted_cpu_millicores=node.predicted_cpu_millicores,
        )


def _decode_workload(workload: _Workload) -> PlannedWorkload:
    return PlannedWorkload(
        uid=workload.uid,
        replicas=workload.replicas,
        requests_before=Resources.from_amounts(workload.requests_before),
        requests=Resources.from_amounts(workload.requests),
        strategy=workload.strategy,
        moves=workload.moves,
        reason=workload.reason,
        containers={name: Resources.from_amounts(wanted) for name, wanted in workload.containers.items()},
        stage=workload.stage,
    )


def _decode_certificate(body: _Certificate) -> Certificate:
    return Certificate(
        groups=tuple(
            CertificateGroup(g.id, g.workloads, g.count, Resources.from_amounts(g.requests), g.price)
            for g in body.groups
        ),
        classes=tuple(
            CertificateClass(c.id, c.pool, c.zone, c.machine_type, c.capacity_type, c.node, c.limit, c.cost)
            for c in body.classes
        ),
        rows=tuple(CertificateRow(r.kind, r.scope, r.rhs, r.dual) for r in body.rows),
        dropped=body.dropped,
    )
