"""The HTTP face as it is really served: gunicorn in a process of its own, and on a real API server by its own RBAC."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from planner.kube.record import NAME, encode_record
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.kwok import FakeNode
from tests.web.plans import record_of

ROOT = Path(__file__).parents[2]
CONFIGMAPS = "/api/v1/namespaces/kube-system/configmaps"


def launch(environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start gunicorn with these variables and no others."""
    return subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "python:planner.web.gunicorn_conf"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "KINEMA_WEB_BIND": "127.0.0.1:0", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def serve(environment: Mapping[str, str]) -> Iterator[http.client.HTTPConnection]:
    """Serve the face; at the end it must go quietly on SIGTERM."""
    process = launch(environment)
    assert process.stderr is not None
    log, port = "", None
    for line in process.stderr:
        log += line
        if port := re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", line):
            break
    assert port, log
    reader = threading.Thread(target=process.communicate, daemon=True)
    reader.start()
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=30)) as connection:
            yield connection
    finally:
        process.terminate()
    reader.join(timeout=10)
    assert process.returncode == 0


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> tuple[int, str]:
    connection.request(method, path, json.dumps(body) if body is not None else None)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def review(present: int) -> dict[str, Any]:
    asked = {"uid": "u-1", "pool": "a", "zone": "z1", "present": present, "least": 0, "greatest": 10}
    return {"request": asked}


def test_face_is_alive_but_not_ready_without_an_api_server(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    users = [{"name": "u", "user": {}}]
    body = {"clusters": [cluster], "contexts": [context], "users": users, "current-context": "c"}
    kubeconfig.write_text(json.dumps(body))

    with serve({"KINEMA_KUBECONFIG": str(kubeconfig), "KINEMA_MODE": "apply"}) as face:
        assert ask(face, "GET", "/healthz") == (200, "ok\n")
        assert ask(face, "GET", "/readyz")[0] == 503
        status, text = ask(face, "POST", "/v1/nodepools/review", review(present=7))

    assert (status, json.loads(text)["response"]["size"]) == (200, 7)
    assert "cannot be reached" in text


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("KINEMA_WEB_BIND", "8080", "web.bind must be host:port"),
        ("KINEMA_KUBECONFIG", "/nowhere/kubeconfig", "/nowhere/kubeconfig: there is no such kubeconfig"),
        ("KINEMA_SETTINGS", "/nowhere/settings.yaml", "/nowhere/settings.yaml: cannot be read"),
    ],
)
def test_wrong_setting_ends_the_face_at_once_with_one_line(variable: str, value: str, said: str) -> None:
    process = launch({"KINEMA_KUBECONFIG": "/nowhere/kubeconfig", variable: value})
    _, text = process.communicate(timeout=30)

    assert process.returncode == 2
    assert text.startswith("kinema web: ")
    assert said in text
    assert len(text.splitlines()) == 1


@pytest.mark.controlplane
def test_face_answers_from_a_real_api_server_with_its_own_rights(control_plane: ControlPlane) -> None:
    control_plane.apply(ROOT / "manifests" / "base")
    control_plane.add_node(*(FakeNode(name=f"n{i}", pool="a", zone="z1") for i in range(3)))
    plan = record_of(keep=2, boot=3, remove=1, accepted_at=4_000_000_000.0)  # far in the future: it has not aged
    control_plane.request("POST", CONFIGMAPS, encode_record(plan, "kube-system"))
    try:
        environment = {
            "KINEMA_KUBECONFIG": str(control_plane.kubeconfig_for("kube-system", "kinema-web")),
            "KINEMA_MODE": "apply",
        }
        with serve(environment) as face:
            assert ask(face, "GET", "/readyz") == (200, "ok\n")
            status, text = ask(face, "POST", "/v1/nodepools/review", review(present=3))
            metrics = ask(face, "GET", "/metrics")[1]
    finally:
        control_plane.request("DELETE", f"{CONFIGMAPS}/{NAME}")

    assert status == 200
    answer = json.loads(text)["response"]
    assert (answer["uid"], answer["size"], answer["iteration"]) == ("u-1", 5, "it-1")  # 2 kept + 3 booted
    assert 'kinema_plan_nodes{state="boot"} 3.0' in metrics
