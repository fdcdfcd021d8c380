"""The extender as it is really served: gunicorn, one gthread worker, over HTTP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

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
