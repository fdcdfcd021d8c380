"""The extender as it is really served: gunicorn, one gthread worker, over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.extender.building import Json, names_only, node, pod, replicaset, target
from tests.extender.fake_api import FakeApi
from tests.extender.test_nodes import eventually

WEB = "shop/Deployment/web"
IN_OUR_TIME = 4e9
"""An expiry for processes that live by the machine's clock: the year 2096."""

ROOT = Path(__file__).parents[2]


def launch(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "python:extender.gunicorn_conf"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        stderr=subprocess.PIPE,
    )


def listening_port(process: subprocess.Popen[bytes]) -> int:
    assert process.stderr is not None
    log = []
    for line in process.stderr:
        log.append(line.decode())
        if listening := re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", log[-1]):
            return int(listening[1])
    raise AssertionError("".join(log))


class Served:
    """A running extender and one kept connection to it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        self.connection.request(method, path, body)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def filter(self, thing: Json, *names: str) -> list[str]:
        status, body = self.ask("POST", "/filter", names_only(thing, *names))
        assert status == 200
        found: list[str] = json.loads(body)["NodeNames"]
        return found


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as running:
        running.put("nodes", node("a", target(WEB, 2), expires=IN_OUR_TIME))
        running.put("nodes", node("b", target(WEB, 1), expires=IN_OUR_TIME))
        running.put("nodes", node("c"))
        running.put("replicasets", replicaset("web"))
        yield running


@pytest.fixture
def served(api: FakeApi) -> Iterator[Served]:
    process = launch({"EXTENDER_BIND": "127.0.0.1:0", "EXTENDER_API_SERVER": api.url})
    try:
        running = Served(process, listening_port(process))
        # Somebody must read what it goes on saying, or it would block on a full pipe.
        reader = threading.Thread(target=process.communicate, daemon=True)
        reader.start()
        eventually(lambda: running.ask("GET", "/readyz")[0] == 200, "the extender to be ready")
        yield running
        running.connection.close()
    finally:
        process.terminate()
    reader.join(timeout=10)
    assert process.returncode == 0


def test_pods_asked_over_http_fill_the_targets_exactly(served: Served, api: FakeApi) -> None:
    given = [served.filter(pod(f"p{number}"), "a", "b", "c") for number in range(3)]
    # want: a 2 + b 1
    assert sorted(given) == [["a"], ["a"], ["b"]]
    for number, (name,) in enumerate(given):
        api.put("pods", pod(f"p{number}", on=name))
    eventually(lambda: b"kinema_extender_reservations 0.0" in served.ask("GET", "/metrics")[1], "all bound")
    assert served.filter(pod("p3"), "a", "b", "c") == ["a", "b", "c"]
    metrics = served.ask("GET", "/metrics")[1].decode()
    assert 'kinema_extender_requests_total{outcome="planned",verb="filter"} 3.0' in metrics
    assert "kinema_extender_open_targets 0.0" in metrics


def test_one_connection_serves_all_calls_even_after_a_bad_one(served: Served) -> None:
    assert served.ask("GET", "/healthz")[0] == 200
    socket = served.connection.sock
    assert served.ask("POST", "/filter", b"{")[0] == 400
    assert served.ask("POST", "/prioritize", names_only(pod("p"), "a"))[0] == 200
    assert served.connection.sock is socket


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"EXTENDER_STALE_SECONDS": "soon"}, "EXTENDER_STALE_SECONDS must be a number above 0, not 'soon'"),
        ({"EXTENDER_KUBECONFIG": "/nowhere/kubeconfig"}, "EXTENDER_KUBECONFIG=/nowhere/kubeconfig"),
        ({"EXTENDER_KUBECONFIG": __file__}, f"EXTENDER_KUBECONFIG={__file__}"),
        ({}, "its ServiceAccount"),
    ],
)
def test_nonsense_in_the_environment_ends_it_with_2_and_one_line(environment: dict[str, str], reason: str) -> None:
    process = launch({"EXTENDER_BIND": "127.0.0.1:0", **environment})
    said = process.communicate(timeout=20)[1].decode()
    assert process.returncode == 2
    assert said.startswith("kinema extender: ")
    assert reason in said
    assert said.count("\n") == 1


def test_a_worker_never_loads_the_planners_libraries() -> None:
    # What comes from the planner is planner.labels alone; cvxpy would cost a second and 100 MB a worker.
    code = "import sys, extender.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    loaded = [name for name in done.stdout.split() if name.startswith(("planner", "cvxpy", "numpy", "google.cloud"))]
    assert loaded == ["planner", "planner.labels"]
