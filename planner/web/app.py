"""The planner's HTTP face: the node-pool webhook, health, metrics. It reads the cluster and writes nothing.

It answers from what the cluster holds, so that every replica says the same and a planner that is down or busy
is not missed.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

from flask import Flask, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from werkzeug.exceptions import HTTPException

from planner.configuration import load_settings
from planner.errors import BadInput
from planner.kube.client import KubernetesClient
from planner.model.plan import PlanRecord
from planner.ports import Kubernetes
from planner.settings import Settings
from planner.web.review import Review, parse_request, review
from planner.web.view import ClusterView

_log: Final = logging.getLogger(__name__)

API_VERSION: Final = "kinema.io/v1alpha1"
KIND: Final = "NodePoolReview"
BODY_LIMIT_BYTES: Final = 64 * 1024
"""A review is some 200 bytes."""


def create_app(
    settings: Settings | None = None, kubernetes: Kubernetes | None = None, now: Callable[[], float] = time.time
) -> Flask:
    """Return the application; without settings it reads $KINEMA_SETTINGS (a file) and the environment.

    Raises:
        BadInput: a setting or the kubeconfig cannot be used.
    """
    if settings is None:
        settings = load_settings(os.environ.get("KINEMA_SETTINGS"), os.environ)
    if kubernetes is None:
        kubernetes = KubernetesClient.connect(settings.kubeconfig)
    view = ClusterView(kubernetes, settings.leader.namespace, settings.web.cache_seconds)
    registry = CollectorRegistry()
    registry.register(_PlanCollector(view, now))
    reviews = Counter("kinema_nodepool_reviews", "Reviews of node pools by outcome", ("outcome",), registry=registry)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT_BYTES

    @app.post("/v1/nodepools/review")
    def answer_review() -> Response:
        try:
            asked = parse_request(request.get_data(cache=False))
        except BadInput as error:
            reviews.labels("bad_request").inc()
            return _json({"error": str(error)}, 400)
        reading = view.read()
        if reading.failure:
            answer = Review("unreadable", asked.present, reading.failure)
        else:
            existing = reading.existing.get((asked.pool, asked.zone), 0)
            answer = review(asked, reading.record, existing, settings, now())
        reviews.labels(answer.outcome).inc()
        return _json(
            {
                "response": {
                    "uid": asked.uid,
                    "size": answer.size,
                    "reason": answer.reason,
                    "iteration": answer.iteration,
                    "advice": answer.advice,
                }
            }
        )

    @app.get("/healthz")
    def answer_healthz() -> Response:
        return Response("ok\n", content_type="text/plain")

    @app.get("/readyz")
    def answer_readyz() -> Response:
        failure = view.read().failure
        return Response(f"{failure or 'ok'}\n", 503 if failure else 200, content_type="text/plain")

    @app.get("/metrics")
    def answer_metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    @app.errorhandler(Exception)
    def answer_error(error: Exception) -> Response:
        # A wrong path, method or size; anything else is a bug, which is logged and must not show its insides.
        if isinstance(error, HTTPException):
            return _json({"error": error.description or error.name}, error.code or 500)
        _log.error("a request failed", exc_info=error)
        return _json({"error": "internal error"}, 500)

    return app


def _json(body: dict[str, object], status: int = 200) -> Response:
    text = json.dumps({"apiVersion": API_VERSION, "kind": KIND, **body}, ensure_ascii=False)
    return Response(text + "\n", status, content_type="application/json")


class _PlanCollector(Collector):
    """Reads the cluster's plan when Prometheus asks; without a plan only says whether the cluster is readable."""

    def __init__(self, view: ClusterView, now: Callable[[], float]) -> None:
        self._view = view
        self._now = now

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: registering must not read the cluster."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the present values."""
        reading = self._view.read()
        yield _gauge("kinema_cluster_readable", "1 where plan and nodes could be read", not reading.failure)
        if reading.record is not None:
            yield from _plan_metrics(reading.record, self._now())


def _plan_metrics(record: PlanRecord, now: float) -> Iterator[Metric]:
    plan, objective = record.plan, record.plan.objective
    for name, text, nanousd in (
        ("value", "Objective of the plan: its nodes, moves and boots", objective.value_nanousd_per_hour),
        ("lower_bound", "Proven lower bound of the plan's objective", objective.lower_bound_nanousd_per_hour),
    ):
        yield _gauge(f"kinema_plan_{name}_usd_per_hour", text, nanousd / 10**9)
    yield _gauge("kinema_plan_gap_ratio", "(value - lower bound) / value of the plan", objective.relative_gap)
    yield _gauge("kinema_plan_age_seconds", "Time since the plan was accepted", now - record.accepted_at)
    cost = GaugeMetricFamily(
        "kinema_cost_usd_per_hour", "Price of the nodes before and after the plan", labels=["when"]
    )
    cost.add_metric(["before"], plan.current_cost_nanousd_per_hour / 10**9)
    cost.add_metric(["after"], plan.cost_nanousd_per_hour / 10**9)
    yield cost
    nodes = GaugeMetricFamily("kinema_plan_nodes", "Nodes of the plan by what becomes of them", labels=["state"])
    for state in ("keep", "boot", "remove"):
        nodes.add_metric([state], sum(node.state == state for node in plan.nodes))
    yield nodes


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))
