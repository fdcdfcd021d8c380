"""The extender's HTTP face: /filter and /prioritize for a scheduler, health and metrics for its operator.

It fails open: whatever it does not know or cannot do lets every node pass, is counted with its reason, and is
logged once for each reason. No request reads or writes anything outside the process.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from flask import Flask, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from extender import wire
from extender.nodes import Cache
from extender.objects import passes_untouched
from extender.settings import ExtenderSettings
from extender.tls import client_names

_log: Final = logging.getLogger(__name__)

_JSON: Final = "application/json"

_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds; 3 and 8 ms are the limits that we set ourselves for 1,000 and 5,000 nodes."""


class _Doubt(Exception):
    """A reason to let every node pass."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a verb answers, and the outcome to count."""

    body: bytes
    outcome: str
    status: int = 200


class _Gauges(Collector):
    """Reads the cache when Prometheus asks, so that no request pays for it."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        """Yield the present values."""
        state = self._cache.state
        yield GaugeMetricFamily(
            "kinema_extender_reservations", "Places promised to pods not seen bound yet", state.reservations()
        )
        yield GaugeMetricFamily(
            "kinema_extender_open_targets", "Pods that the nodes' plans still wait for", state.open_targets()
        )
        yield GaugeMetricFamily(
            "kinema_extender_cache_age_seconds",
            "Seconds since the API server was last heard, by the oldest watch",
            self._cache.age_seconds(),
        )


class _Face:
    """The verbs over one cache, with the metrics of one application."""

    def __init__(self, cache: Cache, body_limit_bytes: int) -> None:
        self._cache = cache
        self._body_limit_bytes = body_limit_bytes
        self._reported: set[str] = set()
        self.registry = CollectorRegistry()
        self.registry.register(_Gauges(cache))
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "kinema_extender_requests_total",
            "Calls of the scheduler by verb and outcome",
            ("verb", "outcome"),
            registry=self.registry,
        )
        self._duration = Histogram(
            "kinema_extender_request_duration_seconds",
            "Time to answer a call, without the transport",
            ("verb",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._fail_open = Counter(
            "kinema_extender_fail_open_total",
            "Answers that let every node pass because of a doubt, by its reason",
            ("reason",),
            registry=self.registry,
        )

    def serve(self, verb: str, answer: Callable[[wire.Request], _Answer]) -> Response:
        """Read the request, answer it, count it."""
        started = time.perf_counter()
        try:
            result = answer(wire.read_request(_body(self._body_limit_bytes)))
        except wire.BadRequest as error:
            result = _Answer(wire.write_error(f"kinema: {error}"), "bad_request", 400)
        except RequestEntityTooLarge:
            result = _Answer(wire.write_error("kinema: the body is over the limit"), "too_large", 413)
        self._requests.labels(verb, result.outcome).inc()
        self._duration.labels(verb).observe(time.perf_counter() - started)
        return Response(result.body, result.status, content_type=_JSON)

    def filter(self, asked: wire.Request) -> _Answer:
        """Answer with the nodes that the plan allows the pod."""
        if asked.pod is not None and passes_untouched(asked.pod):
            return _Answer(wire.write_everything(asked), "untouched")
        try:
            self._check_trust(asked)
            verdict = self._cache.state.filter(asked.pod, asked.candidates) if asked.pod is not None else None
            if verdict is None:
                raise _Doubt("unknown_owner")
            return _Answer(wire.write_verdict(asked, verdict, self._cache.state), str(verdict.rule))
        except wire.BadRequest:
            raise
        except Exception as error:  # noqa: BLE001
            # The edge where every fault of ours fails open: a pod must never wait for a bug.
            self._let_pass(error)
            return _Answer(wire.write_everything(asked), "fail_open")

    def prioritize(self, asked: wire.Request) -> _Answer:
        """Answer with a score for every node; equal scores where there is a doubt or nothing to say."""
        if asked.pod is not None and passes_untouched(asked.pod):
            return _Answer(wire.write_scores(asked, 0), "untouched")
        try:
            self._check_trust(asked)
            scores = self._cache.state.prioritize(asked.pod, asked.candidates) if asked.pod is not None else None
            if scores is None:
                raise _Doubt("unknown_owner")
            return _Answer(wire.write_scores(asked, scores), "scored")
        except wire.BadRequest:
            raise
        except Exception as error:  # noqa: BLE001
            # As in filter: a fault of ours makes every node equal.
            self._let_pass(error)
            return _Answer(wire.write_scores(asked, 0), "fail_open")

    def is_ready(self) -> bool:
        """Tell whether answers rest on a whole and fresh cache."""
        return self._cache.is_ready() and not self._cache.is_stale()

    def _check_trust(self, asked: wire.Request) -> None:
        if asked.pod is None or not asked.pod.metadata.uid:
            raise _Doubt("unknown_pod")
        if not self._cache.is_ready():
            raise _Doubt("not_ready")
        if self._cache.is_stale():
            raise _Doubt("stale_cache")

    def _let_pass(self, error: Exception) -> None:
        reason = str(error) if isinstance(error, _Doubt) else "bug"
        self._fail_open.labels(reason).inc()
        if reason not in self._reported:
            self._reported.add(reason)
            trace = None if isinstance(error, _Doubt) else error
            _log.warning("every node passes: %s (said once; the metric counts on)", reason, exc_info=trace)


def _body(limit: int) -> bytes:
    """Return the request's body, read in one piece: werkzeug would copy it four times, and cut one in chunks.

    Raises:
        RequestEntityTooLarge: it has more bytes than the limit.
        wire.BadRequest: it ended before its length, or did not come in time.
    """
    length = request.content_length
    if length is not None and length > limit:
        raise RequestEntityTooLarge
    try:
        body: bytes = request.environ["wsgi.input"].read(limit + 1 if length is None else length)
    except OSError as error:
        raise wire.BadRequest(f"the body did not come: {error.strerror}") from None
    if len(body) > limit:
        raise RequestEntityTooLarge
    if length is not None and len(body) < length:
        raise wire.BadRequest(f"the body ended after {len(body)} of {length} bytes")
    return body


def create_app(settings: ExtenderSettings | None = None, cache: Cache | None = None) -> Flask:
    """Return the application; without a cache it connects to the cluster and starts to watch it.

    Raises:
        SettingsError: a setting cannot be used.
    """
    settings = settings or ExtenderSettings.from_environment(os.environ)
    if cache is None:
        cache = Cache.connect(settings)
        cache.start()
    face = _Face(cache, settings.body_limit_bytes)
    app = Flask(__name__, static_folder=None)

    if settings.allowed_clients:

        @app.before_request
        def check_client() -> Response | None:
            names = client_names(request.environ["gunicorn.socket"].getpeercert() or {})
            if names.intersection(settings.allowed_clients):
                return None
            shown = ", ".join(sorted(names)) or "no name"
            reason = f"kinema: EXTENDER_ALLOWED_CLIENTS does not name this client ({shown})"
            return Response(wire.write_error(reason), 403, content_type=_JSON)

    @app.post("/filter")
    def answer_filter() -> Response:
        return face.serve("filter", face.filter)

    @app.post("/prioritize")
    def answer_prioritize() -> Response:
        return face.serve("prioritize", face.prioritize)

    @app.get("/healthz")
    def answer_healthz() -> Response:
        return Response("ok\n", content_type="text/plain")

    @app.get("/readyz")
    def answer_readyz() -> Response:
        if face.is_ready():
            return Response("ok\n", content_type="text/plain")
        return Response("the cache is not whole or too old\n", 503, content_type="text/plain")

    @app.get("/metrics")
    def answer_metrics() -> Response:
        return Response(generate_latest(face.registry), content_type=CONTENT_TYPE_LATEST)

    @app.errorhandler(Exception)
    def answer_error(error: Exception) -> Response:
        # Nothing but a bug outside the verbs comes here, or a wrong path or method.
        if isinstance(error, HTTPException):
            return Response(wire.write_error(f"kinema: {error.name}"), error.code, content_type=_JSON)
        _log.error("a request failed", exc_info=error)
        return Response(wire.write_error("kinema: internal error"), 500, content_type=_JSON)

    return app
