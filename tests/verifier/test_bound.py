"""The lower bound is recomputed from the inputs; a false certificate is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from planner.model.inputs import PlanningInputs
from planner.model.plan import Certificate, CertificateClass, CertificateGroup, CertificateRow, Plan
from planner.verifier import Verdict, verify
from tests.building import catalogue, deployment, inputs, nanousd, offering, pods_of, resources, snapshot
from tests.verifier.rightplan import (
    EXIT_NANOUSD,
    HUGE,
    M4_NANOUSD,
    MOVE_NANOUSD,
    WEB,
    right_inputs,
    right_plan,
    with_certificate,
    with_objective,
    with_workload,
)


def checked(plan: Plan, given: PlanningInputs | None = None) -> Verdict:
    return verify(plan, given or right_inputs(), 60.0, lambda: 0.0)


def test_right_plan_is_right_and_its_bound_is_recomputed() -> None:
    # nodes 2 x 0.2 + 0.35, moves 3 x 0.001 / 24, removals 2 x 0.2 x 15 / 60 / 24
    assert checked(right_plan()) == Verdict((), 750_000_000 + 125_000 + 4_166_666, 754_291_664)


def _group(plan: Plan, index: int, **changes: object) -> Plan:
    groups = list(plan.certificate.groups)
    groups[index] = replace(groups[index], **changes)  # type: ignore[arg-type]  # any field of the group
    return with_certificate(plan, groups=tuple(groups))


def _class(plan: Plan, identity: str, **changes: object) -> Plan:
    return with_certificate(
        plan,
        classes=tuple(
            replace(c, **changes) if c.id == identity else c  # type: ignore[arg-type]  # any field of the class
            for c in plan.certificate.classes
        ),
    )


def _row(plan: Plan, index: int, **changes: object) -> Plan:
    rows = list(plan.certificate.rows)
    rows[index] = replace(rows[index], **changes)  # type: ignore[arg-type]  # any field of the row
    return with_certificate(plan, rows=tuple(rows))


def _without_class(plan: Plan, identity: str) -> Plan:
    return with_certificate(plan, classes=tuple(c for c in plan.certificate.classes if c.id != identity))


def _with_group(plan: Plan, group: CertificateGroup) -> Plan:
    return with_certificate(plan, groups=(*plan.certificate.groups, group))


def _with_class(plan: Plan, kind: CertificateClass) -> Plan:
    return with_certificate(plan, classes=(*plan.certificate.classes, kind))


def _with_row(plan: Plan, row: CertificateRow) -> Plan:
    return with_certificate(plan, rows=(*plan.certificate.rows, row))


FAULTS: dict[str, tuple[Callable[[Plan], Plan], str]] = {
    "bound too high": (
        lambda p: with_objective(p, lower_bound_nanousd_per_hour=754_291_665),
        "the lower bound 754291665 nanodollars per hour is not proven: the certificate gives 754291664",
    ),
    # One nanodollar more for huge makes V > c for the m8, of which 4 are possible: - 4 + 1.
    "price too high": (lambda p: _group(p, 0, price_nanousd_per_hour=350_041_667), "the certificate gives 754291661"),
    "price too low": (lambda p: _group(p, 0, price_nanousd_per_hour=350_041_000), "the certificate gives 754290998"),
    "negative price": (lambda p: _group(p, 0, price_nanousd_per_hour=-1), "the price -1 must not be negative"),
    "negative dual": (lambda p: _row(p, 0, dual_nanousd_per_hour=-1), "the dual -1 must not be negative"),
    # Without the row of k its cost is no part of the bound; its web pods are worth nothing above their moves.
    "row left out": (
        lambda p: with_certificate(p, rows=()),
        "not proven: the certificate gives 554291664",
    ),
    "group count": (lambda p: _group(p, 1, count=4), "certificate group g1: count is 4, the inputs say 3"),
    "group requests": (
        lambda p: _group(p, 1, requests=resources(400, 1, 1)),
        "the group of the 3 pods of default/Deployment/web is missing",
    ),
    "group workloads": (
        lambda p: _group(p, 1, workloads=(WEB, HUGE)),
        "certificate group g1: the inputs have no such pods",
    ),
    "group missing": (
        lambda p: with_certificate(p, groups=p.certificate.groups[:1]),
        "the group of the 3 pods of default/Deployment/web is missing",
    ),
    "group twice": (lambda p: _with_group(p, p.certificate.groups[0]), "two groups have the same id"),
    "group of pods that do not exist": (
        lambda p: _with_group(p, replace(p.certificate.groups[0], id="g2")),
        "certificate group g2: the inputs have no such pods",
    ),
    "offering missing": (lambda p: _without_class(p, "m4"), "the class of general/zone-a/m4/on-demand is missing"),
    "node missing": (lambda p: _without_class(p, "b"), "the class of node b is missing"),
    "class twice": (lambda p: _with_class(p, p.certificate.classes[0]), "general/zone-a/m4/on-demand is there twice"),
    "class that does not exist": (
        lambda p: _with_class(p, CertificateClass("x", "x", "zone-a", "m4", "spot", None, 1, 1)),
        "certificate class x: the inputs have no such kind of node",
    ),
    "class of a frozen node": (
        lambda p: _with_class(p, CertificateClass("f", "general", "zone-a", "m4", "on-demand", "f", 1, M4_NANOUSD)),
        "certificate class f: the inputs have no such kind of node (node f)",
    ),
    "limit of an offering": (lambda p: _class(p, "m8", limit=1), "certificate class m8: limit is 1, the inputs say 4"),
    "limit of a node": (lambda p: _class(p, "a", limit=0), "certificate class a: limit is 0, the inputs say 1"),
    "place of a node": (
        lambda p: _class(p, "a", zone="zone-b"),
        "certificate class a: is general/zone-b/m4/on-demand, the inputs say general/zone-a/m4/on-demand",
    ),
    "cost of an offering": (
        lambda p: _class(p, "m8", cost_nanousd_per_hour=360_000_000),
        "certificate class m8: cost is 360000000 nanodollars per hour, the inputs say 350000000",
    ),
    "cost of a removable node": (
        # Its price less what its removal costs, which the bound counts already: 200,000,000 - 2,083,333.
        lambda p: _class(p, "a", cost_nanousd_per_hour=M4_NANOUSD),
        "certificate class a: cost is 200000000 nanodollars per hour, the inputs say 197916667",
    ),
    "rhs": (lambda p: _row(p, 2, rhs=-4), "certificate row pool-maximum general/zone-a: rhs is -4, the inputs say -3"),
    "rhs of a kept node": (lambda p: _row(p, 0, rhs=2), "certificate row kept k: rhs is 2, the inputs say 1"),
    "row of a node that may go": (
        lambda p: _row(p, 0, scope="a"),
        "certificate row kept a: the inputs have no such constraint",
    ),
    "row of an unknown kind": (
        lambda p: _row(p, 1, kind="magic"),
        "certificate row magic general/zone-a: the inputs have no such constraint",
    ),
    "row twice": (lambda p: _with_row(p, p.certificate.rows[0]), "certificate row kept k is there twice"),
    "optimal without proof": (
        # 754,291,666 - 700,000,000, with 5 nodes in the plan.
        lambda p: with_objective(p, lower_bound_nanousd_per_hour=700_000_000),
        "the status is optimal, but the value 754291666 is 54291666 nanodollars per hour above the lower bound",
    ),
    "wrong placement": (lambda p: with_workload(p, WEB, moves=2), "2 moves; 3 pods are displaced"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_found(fault: str) -> None:
    plant, sentence = FAULTS[fault]
    verdict = checked(plant(right_plan()))
    assert any(sentence in problem for problem in verdict.problems), verdict
    assert not verdict.right


def test_weaker_bound_is_right_for_a_feasible_plan() -> None:
    verdict = checked(with_objective(right_plan(), lower_bound_nanousd_per_hour=1, status="feasible"))
    assert verdict.right
    assert verdict.lower_bound_nanousd_per_hour == 754_291_664


def test_bound_holds_without_what_is_held() -> None:
    """The plan with web held is worse, but the bound and its classes are those of the problem without it."""
    held = replace(right_inputs(), held={WEB: "no order of stages could move them"})
    verdict = checked(right_plan(), held)
    assert verdict.lower_bound_nanousd_per_hour == 754_291_664
    assert not any("certificate" in problem for problem in verdict.problems)


def test_pool_maximum_with_a_dual_lowers_the_bound_by_what_it_allows() -> None:
    # Each of 3 further nodes that the pool may have could be one that pays the dual of 7: rhs -3 x 7. Every V in the
    # pool falls by 7, so k's row pays for 7 more.
    plan = _row(_row(right_plan(), 2, dual_nanousd_per_hour=7), 0, dual_nanousd_per_hour=M4_NANOUSD + 7)
    verdict = checked(with_objective(plan, lower_bound_nanousd_per_hour=1, status="feasible"))
    assert verdict.lower_bound_nanousd_per_hour == 754_291_664 - 3 * 7 + 7


def test_pool_minimum_above_its_maximum_counts_in_the_bound_as_the_maximum() -> None:
    right = right_inputs()
    offers = tuple(replace(o, minimum=9, maximum=4) if o.pool == "general" else o for o in right.catalogue.offerings)
    crossed = replace(right, catalogue=replace(right.catalogue, offerings=offers))
    # One of 4 nodes is frozen: 3 are left, and a row that asks for 8 assumes what cannot be.
    bold = checked(_class(_row(right_plan(), 1, rhs=8), "m4", limit=4), crossed)
    assert "certificate row pool-minimum general/zone-a: rhs is 8, the inputs say 3" in bold.problems
    right_row = checked(_class(_row(right_plan(), 1, rhs=3), "m4", limit=4), crossed)
    assert not any("certificate" in problem for problem in right_row.problems)


def test_pods_that_stay_are_worth_their_whole_price() -> None:
    # V of node a, which has two of the three web pods: 2 x 100,000,000 + (100,000,000 - 41,666), c = 197,916,667.
    # Node b has one, k none (its row pays its cost), and three m4 and one or more m8 could hold the three.
    plan = _group(right_plan(), 1, price_nanousd_per_hour=100_000_000)
    verdict = checked(with_objective(plan, lower_bound_nanousd_per_hour=1, status="feasible"))
    arriving = 100_000_000 - MOVE_NANOUSD
    excess_a = 200_000_000 + arriving - (M4_NANOUSD - EXIT_NANOUSD)
    excess_b = 100_000_000 + 2 * arriving - (M4_NANOUSD - EXIT_NANOUSD)
    excess_k = 3 * arriving
    excess_m4 = 3 * (3 * arriving - M4_NANOUSD)
    excess_m8 = 4 * 3 * arriving  # beside huge, which is worth the m8's price: 6000 + 3 x 500 of 7900
    bound = 754_291_664 + 3 * (100_000_000 - MOVE_NANOUSD) - excess_a - excess_b - excess_k - excess_m4 - excess_m8
    assert verdict.lower_bound_nanousd_per_hour == bound


def _hard() -> tuple[Plan, PlanningInputs]:
    """25 pending workloads worth nearly what they take: no quick bound decides the knapsack of the m4.

    What the plan says of them is wrong everywhere else; only its bound is looked at.
    """
    sizes = [(97 + 13 * i, 89 + 29 * i % 301) for i in range(25)]
    workloads = [deployment(f"w{i:02}", 7, cpu=c, memory_gib=m / 1024) for i, (c, m) in enumerate(sizes)]
    pods = [p for w in workloads for p in pods_of(w, pending=7)]
    given = inputs(snapshot((), workloads, pods), catalogue(offering("m4", 0.02, cpu=2973, memory_gib=2931 / 1024)))
    prices = [MOVE_NANOUSD + 1000 * (5 * c + 3 * m + i % 7) for i, (c, m) in enumerate(sizes)]
    groups = tuple(
        CertificateGroup(f"g{i}", (w.key,), 7, w.requests, price)
        for i, (w, price) in enumerate(zip(workloads, prices, strict=True))
    )
    kinds = (CertificateClass("m4", "m4", "zone-a", "m4", "on-demand", None, 25 * 7, nanousd(0.02)),)
    plan = replace(right_plan(), nodes=(), workloads={}, unplaced={}, certificate=Certificate(groups, kinds))
    return with_objective(plan, status="feasible"), given


def test_knapsack_open_at_the_time_limit_leaves_the_claim_undecided() -> None:
    plan, given = _hard()
    proven = verify(plan, given, 600.0, lambda: 0.0).lower_bound_nanousd_per_hour
    assert proven is not None
    claimed = with_objective(plan, lower_bound_nanousd_per_hour=proven)
    ticks = iter(range(10**9))
    stopped = verify(claimed, given, 0.5, lambda: float(next(ticks)))
    assert stopped.undecided == ("m4/zone-a/m4/on-demand",)
    assert stopped.lower_bound_nanousd_per_hour is not None
    assert stopped.lower_bound_nanousd_per_hour < proven
    # A claim that what was found so far supports needs no more time.
    modest = with_objective(plan, lower_bound_nanousd_per_hour=stopped.lower_bound_nanousd_per_hour)
    ticks = iter(range(10**9))
    assert verify(modest, given, 0.5, lambda: float(next(ticks))).undecided == ()


def test_verifier_does_not_know_the_optimizer() -> None:
    import ast
    from pathlib import Path

    import planner.verifier

    folder = Path(planner.verifier.__file__).parent
    imported = {
        name
        for file in folder.glob("*.py")
        for statement in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in (
            [statement.module or ""]
            if isinstance(statement, ast.ImportFrom)
            else [alias.name for alias in statement.names]
            if isinstance(statement, ast.Import)
            else []
        )
    }
    assert "planner.verifier.knapsack" in imported
    foreign = ("planner.optimizer", "cvxpy", "numpy", "scipy")
    assert not [name for name in imported if name.startswith(foreign)]
