"""What `kinema run` tells Prometheus, in a registry of its own."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_STAGE_BUCKETS_SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0)
"""From reading a small cluster (some 10 ms) to a carry-out with boots, drains and long graces (an hour)."""


class Metrics:
    """The series of one planner; each attribute is one metric, its help text says what it counts."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self.iterations = Counter(
            "kinema_iterations",
            "Iterations that ended, by outcome: waiting, dropped, recommended, carried-out, abandoned, failed, …",
            ("outcome",),
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "kinema_stage_duration_seconds",
            "Time of one stage of an iteration",
            ("stage",),
            buckets=_STAGE_BUCKETS_SECONDS,
            registry=self.registry,
        )
        self.plan_value = Gauge(
            "kinema_plan_value_usd_per_hour",
            "Objective of the latest plan: its nodes, moves and boots",
            registry=self.registry,
        )
        self.plan_bound = Gauge(
            "kinema_plan_lower_bound_usd_per_hour",
            "Proven lower bound of the latest plan's objective",
            registry=self.registry,
        )
        self.plan_gap = Gauge(
            "kinema_plan_gap_ratio",
            "(value - lower bound) / value of the latest plan",
            registry=self.registry,
        )
        for gauge in (self.plan_value, self.plan_bound, self.plan_gap):
            # Before the first plan there is none; 0 would read as free of cost, and proven.
            gauge.set(float("nan"))
        self.cost = Gauge(
            "kinema_cost_usd_per_hour",
            "Price of the nodes before and after the latest plan",
            ("when",),
            registry=self.registry,
        )
        self.pods_moved = Counter(
            "kinema_pods_moved",
            "Pods that plans which were carried out recreated, by strategy",
            ("strategy",),
            registry=self.registry,
        )
        self.divergence = Gauge(
            "kinema_plan_divergence",
            "Pods that are not where the plan wants them that is or was carried out last, by reason",
            ("reason",),
            registry=self.registry,
        )
        self.steps = Counter(
            "kinema_steps_executed",
            "Steps that were performed, by kind",
            ("kind",),
            registry=self.registry,
        )
        self.waiting = Gauge(
            "kinema_waiting",
            "1 for each reason for which the latest iteration did not begin or its carry-out waits",
            ("reason",),
            registry=self.registry,
        )
        self.last_success = Gauge(
            "kinema_last_successful_iteration_timestamp_seconds",
            "When the latest iteration ended without an error, in seconds since the epoch",
            registry=self.registry,
        )
        self.leader = Gauge(
            "kinema_leader",
            "1 while this planner holds the Lease",
            registry=self.registry,
        )
