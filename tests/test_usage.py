"""Usage from a server that speaks Prometheus' HTTP API on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from planner.errors import BadInput, BadSettings, UsageError
from planner.model.cluster import Snapshot
from planner.model.forecast import Sample, UsageSeries
from planner.usage import NoUsage, PrometheusUsage, read_usage
from tests.building import daemonset, daemonset_pod, deployment, node, pods_of, snapshot

WEB = "default/Deployment/web"


@dataclass
class FakePrometheus:
    """Answers every query with what it was given, and remembers what it was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    raw: bytes | None = None
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, form: dict[str, str]) -> bytes:
        self.asked.append((path, form))
        if self.raw is not None:
            return self.raw
        key = "cpu" if "cpu" in form["query"] else "memory"
        return json.dumps(self.answers.get(key, matrix())).encode()


def matrix(*series: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "matrix", "result": list(series)}} | fields


def measured(
    pod: str, *values: tuple[float, str], container: str = "main", namespace: str = "default"
) -> dict[str, Any]:
    labels = {"namespace": namespace, "pod": pod, "container": container}
    return {"metric": labels, "values": [list(value) for value in values]}


@contextmanager
def serving(prometheus: FakePrometheus) -> Iterator[FakePrometheus]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            assert self.headers["Content-Type"] == "application/x-www-form-urlencoded"
            answer = prometheus.answer(self.path, {key: values[0] for key, values in parse_qs(body).items()})
            self.send_response(prometheus.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    prometheus.url = f"http://127.0.0.1:{server.server_port}/"
    try:
        yield prometheus
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def prometheus() -> Iterator[FakePrometheus]:
    with serving(FakePrometheus()) as running:
        yield running


def cluster() -> Snapshot:
    web = deployment("web", 2)
    agent = daemonset("agent")
    pods = [*pods_of(web, on={"a": 2}), daemonset_pod(agent, "a")]
    return snapshot([node("a")], [web], pods, daemonsets=(agent,), taken_at=10_000.0)


def test_largest_value_over_the_pods_of_a_workload_is_taken_at_each_time(prometheus: FakePrometheus) -> None:
    prometheus.answers["cpu"] = matrix(
        measured("web-0", (9700, "0.1"), (10000, "0.4")), measured("web-1", (9700, "0.3"), (9850, "0.2"))
    )
    prometheus.answers["memory"] = matrix(measured("web-1", (10000, "1048576")))
    assert PrometheusUsage(prometheus.url).read(cluster()) == (
        UsageSeries(WEB, "main", "cpu", (Sample(9700, 0.3), Sample(9850, 0.2), Sample(10000, 0.4))),
        UsageSeries(WEB, "main", "memory", (Sample(10000, 1048576.0),)),
    )


def test_query_asks_for_the_window_that_ends_with_the_snapshot(prometheus: FakePrometheus) -> None:
    PrometheusUsage(prometheus.url, window_seconds=3600, step_seconds=60, timeout_seconds=5).read(cluster())
    (path, form), (_, second) = prometheus.asked
    assert path == "/api/v1/query_range"
    assert form["query"] == (
        "max by (namespace, pod, container) "
        '(rate(container_cpu_usage_seconds_total{container!="",container!="POD"}[5m]))'
    )
    assert "container_memory_working_set_bytes" in second["query"]
    assert {key: form[key] for key in ("start", "end", "step", "timeout")} == {
        "start": "6400.000",
        "end": "10000.000",
        "step": "60",
        "timeout": "5s",
    }


def test_values_that_are_no_numbers_are_left_out(prometheus: FakePrometheus) -> None:
    prometheus.answers["cpu"] = matrix(
        measured("web-0", (9700, "NaN"), (9850, "+Inf"), (10000, "0.5")),
        measured("web-1", (9700, "-Inf"), container="side"),
    )
    assert PrometheusUsage(prometheus.url).read(cluster()) == (UsageSeries(WEB, "main", "cpu", (Sample(10000, 0.5),)),)


def test_pods_that_the_snapshot_does_not_have_are_left_out(prometheus: FakePrometheus) -> None:
    prometheus.answers["cpu"] = matrix(
        measured("gone-0", (10000, "1")),
        measured("web-0", (10000, "1"), namespace="other"),
        {"metric": {}, "values": [[10000, "1"]]},
    )
    assert PrometheusUsage(prometheus.url).read(cluster()) == ()


def test_no_series_at_all_is_no_error(prometheus: FakePrometheus) -> None:
    assert PrometheusUsage(prometheus.url).read(cluster()) == ()
    assert len(prometheus.asked) == 2


@pytest.mark.parametrize(
    ("status", "raw", "message"),
    [
        (503, b"upstream down", "answers HTTP 503 without a JSON object"),
        (200, b"<html>", "answers HTTP 200 without a JSON object"),
        (200, b"[]", "answers HTTP 200 without a JSON object"),
        (
            422,
            b'{"status": "error", "errorType": "execution", "error": "query timed\\nout"}',
            "answers HTTP 422: execution query timed out",
        ),
        (200, b'{"status": "error", "errorType": "bad_data"}', "answers HTTP 200: bad_data"),
        (500, json.dumps(matrix()).encode(), "answers HTTP 500: no reason"),
        (200, json.dumps(matrix(warnings=["store 2 is away"])).encode(), "warns: store 2 is away"),
        (200, b'{"status": "success", "data": {"resultType": "vector", "result": []}}', "without a matrix"),
        (200, b'{"status": "success"}', "without a matrix"),
        (200, json.dumps(matrix({"metric": {}})).encode(), "a series that is none"),
        (200, json.dumps(matrix(measured("web-0", (1, "much")))).encode(), "a series that is none"),
        (200, json.dumps(matrix({"metric": None, "values": []})).encode(), "a series that is none"),
    ],
)
def test_answer_that_cannot_be_used_is_an_error_of_one_line(
    prometheus: FakePrometheus, status: int, raw: bytes, message: str
) -> None:
    prometheus.status, prometheus.raw = status, raw
    with pytest.raises(UsageError) as caught:
        PrometheusUsage(prometheus.url).read(cluster())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refused_connection_is_an_error_of_one_line() -> None:
    with serving(FakePrometheus()) as stopped:
        url = stopped.url
    with pytest.raises(UsageError, match="does not answer") as caught:
        PrometheusUsage(url).read(cluster())
    assert "\n" not in str(caught.value)


def test_silent_server_is_given_up_after_the_timeout(prometheus: FakePrometheus) -> None:
    release = threading.Event()

    def hang(path: str, form: dict[str, str]) -> bytes:
        release.wait(30)
        return b""

    prometheus.answer = hang  # type: ignore[method-assign]
    try:
        with pytest.raises(UsageError, match="does not answer"):
            PrometheusUsage(prometheus.url, timeout_seconds=0.2).read(cluster())
    finally:
        release.set()


@pytest.mark.parametrize("url", ["", "prometheus:9090", "ftp://prometheus"])
def test_url_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(BadSettings, match=r"predictor\.prometheus_url must be a URL"):
        PrometheusUsage(url)


def test_no_usage_is_read_where_none_is_wanted() -> None:
    assert NoUsage().read(cluster()) == ()


def table(tmp_path: Path, text: str) -> str:
    path = tmp_path / "usage.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_table_says_what_pods_of_workloads_and_daemonsets_use(tmp_path: Path) -> None:
    text = "\ufeffcpu_millicores, workload\n300, default/Deployment/web\n0,kube-system/DaemonSet/agent\n"
    assert read_usage(table(tmp_path, text), cluster()) == {WEB: 300, "kube-system/DaemonSet/agent": 0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: the columns must be workload and cpu_millicores, not []"),
        ("workload,cpu\n", "line 1: the columns must be workload and cpu_millicores, not ['workload', 'cpu']"),
        (f"{WEB},1\n", f"line 1: the columns must be workload and cpu_millicores, not ['{WEB}', '1']"),
        ("{}web,1\n", "line 2: workload must be the namespace/Kind/name of pods in the cluster, not 'web'"),
        (f"{{}}{WEB},1\n{WEB},1\n", f"line 3: workload must be one that no earlier line has, not '{WEB}'"),
        (f"{{}}{WEB},1.5\n", "line 2: cpu_millicores must be a whole number from 0 to 1000000000, not '1.5'"),
        (f"{{}}{WEB},-1\n", "line 2: cpu_millicores must be a whole number from 0 to 1000000000, not '-1'"),
        (f"{{}}{WEB},99999999999\n", "line 2: cpu_millicores must be a whole number from 0 to 1000000000, not '999"),
        (f"{{}}{WEB}\n", "line 2: has not as many values as there are columns"),
        (f"{{}}{WEB},1,2\n", "line 2: has not as many values as there are columns"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_line_and_column(tmp_path: Path, text: str, says: str) -> None:
    path = table(tmp_path, text.replace("{}", "workload,cpu_millicores\n"))
    with pytest.raises(BadInput) as caught:
        read_usage(path, cluster())
    assert str(caught.value).startswith(f"{path}: {says}")


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"/absent: cannot be read: "):
        read_usage(str(tmp_path / "absent"), cluster())
    bad = tmp_path / "bad.csv"
    bad.write_bytes(b"workload,cpu_millicores\n\xff,1\n")
    with pytest.raises(BadInput, match=r"is no text in UTF-8 \(byte 24\)"):
        read_usage(str(bad), cluster())


def test_usage_of_daemonsets_is_read_too(prometheus: FakePrometheus) -> None:
    prometheus.answers["cpu"] = matrix(
        measured("agent-a", (10000, "0.05"), container="agent", namespace="kube-system"),
    )
    agent = "kube-system/DaemonSet/agent"
    assert PrometheusUsage(prometheus.url).read(cluster()) == (
        UsageSeries(agent, "agent", "cpu", (Sample(10000, 0.05),)),
    )
