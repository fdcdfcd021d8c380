"""The extender as it is really served: gunicorn, one gthread worker, over HTTP."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.extender.building import names_only, node, pod, replicaset, target
from tests.extender.fake_api import FakeApi
from tests.extender.serving import ROOT, Served, eventually, launch, serve

WEB = "shop/Deployment/web"
IN_OUR_TIME = 4e9
"""An expiry for processes that live by the machine's clock: the year 2096."""


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
    with serve({"EXTENDER_API_SERVER": api.url}) as running:
        yield running


def test_pods_asked_over_http_fill_the_targets_exactly(served: Served, api: FakeApi) -> None:
    given = [served.filter(pod(f"p{number}"), "a", "b", "c") for number in range(3)]
    # want: a 2 + b 1
    assert sorted(given) == [["a"], ["a"], ["b"]]
    for number, (name,) in enumerate(given):
        api.put("pods", pod(f"p{number}", on=name))
    eventually(lambda: served.metric("kinema_extender_reservations") == 0, "all to be seen bound")
    assert served.filter(pod("p3"), "a", "b", "c") == ["a", "b", "c"]
    assert served.metric('kinema_extender_requests_total{outcome="planned",verb="filter"}') == 3
    assert served.metric("kinema_extender_open_targets") == 0


def test_one_connection_serves_all_calls_even_after_a_bad_one(served: Served) -> None:
    assert served.ask("GET", "/healthz")[0] == 200
    socket = served.connection.sock
    assert served.ask("POST", "/filter", b"{")[0] == 400
    assert served.ask("POST", "/prioritize", names_only(pod("p"), "a"))[0] == 200
    assert served.connection.sock is socket


def test_a_body_in_chunks_is_read_and_limited_like_any_other(api: FakeApi) -> None:
    body = names_only(pod("p", "DaemonSet/agent"), "a", "b")
    with serve({"EXTENDER_API_SERVER": api.url, "EXTENDER_BODY_LIMIT_BYTES": "2000"}) as served:
        for chunks, status in (([body[:50], body[50:]], 200), ([b" " * 1000] * 3, 413), ([b"{"], 400)):
            served.connection.request("POST", "/filter", iter(chunks), encode_chunked=True)
            answer = served.connection.getresponse()
            assert (answer.status, b"Traceback" in answer.read()) == (status, False)
        # A length that lies is over as soon as the client gives up, and takes nothing with it.
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as liar:
            liar.sendall(b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert served.filter(pod("q", "DaemonSet/agent"), "a") == ["a"]


def test_callers_that_stop_in_the_middle_do_not_hold_the_others_up(served: Served) -> None:
    head = b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    stalled = [socket.create_connection(("127.0.0.1", served.port), timeout=20) for _ in range(20)]
    try:
        for number, connection in enumerate(stalled):
            connection.sendall(head + (b"\r\n{" if number % 2 else b""))
        # More than there are threads: the first ones are given up before this call's own time is over.
        assert served.filter(pod("p"), "a", "b", "c") == ["a"]
        for connection in stalled:
            while connection.recv(1000):
                pass
    finally:
        for connection in stalled:
            connection.close()


def test_it_is_not_ready_while_its_cache_is_too_old_and_ready_again_afterwards(api: FakeApi) -> None:
    with serve({"EXTENDER_API_SERVER": api.url, "EXTENDER_STALE_SECONDS": "0.5"}) as served:
        api.stop()
        eventually(lambda: served.ask("GET", "/readyz")[0] == 503, "the outage to be noticed")
        # Every node passes, and the metric says why.
        assert served.filter(pod("p"), "a", "b", "c") == ["a", "b", "c"]
        assert served.metric('kinema_extender_fail_open_total{reason="stale_cache"}') == 1
        assert served.metric("kinema_extender_cache_age_seconds") > 0.5
        api.start()
        eventually(lambda: served.ask("GET", "/readyz")[0] == 200, "the watches to be resumed")
        assert served.filter(pod("p"), "a", "b", "c") == ["a"]


def test_many_requests_leave_no_memory_behind(served: Served) -> None:
    # Names of pods and nodes that never come again, doubt, garbage: whatever could be kept.
    grown = growth(served, warm_up=500, requests=1500)
    assert grown < 8 << 20


@pytest.mark.soak
def test_two_hundred_thousand_requests_leave_no_memory_behind(served: Served) -> None:
    assert growth(served, warm_up=20_000, requests=200_000) < 8 << 20


def growth(served: Served, warm_up: int, requests: int) -> int:
    """Return by how many bytes the worker's memory grew over the requests that follow the warm-up."""
    worker = served.worker()
    before = 0
    for number in range(warm_up + requests):
        if number == warm_up:
            before = memory_bytes(worker)
        names = ["a", "b", "c", *(f"node-{number}-{index}" for index in range(50))]
        match number % 6:
            case 0:
                body = names_only(pod(f"p-{number}"), *names)
            case 1:
                body = names_only(pod(f"p-{number}", "StatefulSet/db", cpu=f"{number}m"), *names)
            case 2:
                body = names_only(pod(f"p-{number}", f"ReplicaSet/stranger-{number}"), *names)
            case 3:
                body = names_only(pod(f"p-{number}", "DaemonSet/agent"), *names)
            case 4:
                body = names_only(pod(f"p-{number}"), *names)[: number % 500]
            case _:
                body = names_only(pod(f"p-{number}", mark=f"i-{number}"), *names)
        status, _ = served.ask("POST", "/prioritize" if number % 4 == 3 else "/filter", body)
        assert status in (200, 400)
    return memory_bytes(worker) - before


def memory_bytes(process: int) -> int:
    rows = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("VmRSS:"))


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
    process = launch(environment)
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
