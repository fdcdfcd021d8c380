"""The metrics of `kinema run`."""

from __future__ import annotations

import re

from prometheus_client import generate_latest

from planner.metrics import Metrics


def test_every_metric_has_a_help_text_and_a_name_by_the_convention() -> None:
    families = list(Metrics().registry.collect())

    assert len(families) >= 12
    for family in families:
        assert re.fullmatch(r"kinema_[a-z_]+", family.name)
        assert family.documentation


def test_two_planners_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()

    first.iterations.labels("carried-out").inc()
    first.plan_value.set(12.5)

    assert b'kinema_iterations_total{outcome="carried-out"} 1.0' in generate_latest(first.registry)
    assert b'outcome="carried-out"' not in generate_latest(second.registry)
    assert b"kinema_plan_value_usd_per_hour 12.5" in generate_latest(first.registry)


def test_there_is_no_value_and_no_gap_before_the_first_plan() -> None:
    text = generate_latest(Metrics().registry)

    for name in (b"value_usd_per_hour", b"lower_bound_usd_per_hour", b"gap_ratio"):
        assert b"kinema_plan_" + name + b" NaN" in text


def test_reasons_to_wait_can_be_replaced_by_others() -> None:
    metrics = Metrics()
    metrics.waiting.labels("ReplicaSet shop/web-1 is not ready").set(1)

    metrics.waiting.clear()
    metrics.waiting.labels("an upgrade is under way").set(1)

    text = generate_latest(metrics.registry)
    assert b'kinema_waiting{reason="an upgrade is under way"} 1.0' in text
    assert b"shop/web-1" not in text
