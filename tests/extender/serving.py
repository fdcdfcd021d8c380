"""Serves the extender as it is really served: gunicorn in a process of its own, on a port of its choice."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.extender.building import Json, names_only

ROOT = Path(__file__).parents[2]


class Served:
    """A running extender and one kept connection to it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send one request and return the status and the body of its answer."""
        self.connection.request(method, path, body)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def filter(self, thing: Json, *names: str) -> list[str]:
        """Ask where a pod may go among the names."""
        status, body = self.ask("POST", "/filter", names_only(thing, *names))
        assert status == 200
        found: list[str] = json.loads(body)["NodeNames"]
        return found

    def metric(self, line: str) -> float:
        """Return the value of one line of the metrics, 0 where it is not there."""
        rows = self.ask("GET", "/metrics")[1].decode().splitlines()
        found = [row.rpartition(" ")[2] for row in rows if row.startswith(f"{line} ")]
        return float(found[0]) if found else 0.0

    def worker(self) -> int:
        """Return the process id of gunicorn's worker (Linux)."""
        master = self._process.pid
        return int(Path(f"/proc/{master}/task/{master}/children").read_text())


def eventually(check: Callable[[], bool], what: str) -> None:
    """Wait until the check is true."""
    deadline = time.monotonic() + 20
    pause = threading.Event()
    while not check():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        pause.wait(0.005)


def launch(environment: dict[str, str], *options: str) -> subprocess.Popen[bytes]:
    """Start gunicorn with these variables and no others, and with further options of its command line."""
    return subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "python:extender.gunicorn_conf", *options],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "EXTENDER_BIND": "127.0.0.1:0", **environment},
        stderr=subprocess.PIPE,
    )


@contextmanager
def listening(environment: dict[str, str]) -> Iterator[int]:
    """Serve the extender and give its port; at the end it must go quietly on SIGTERM."""
    with _running(environment) as (_, port):
        yield port


@contextmanager
def _running(environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    process = launch(environment)
    reader = None
    try:
        port = listening_port(process)
        # Somebody must read what it goes on saying, or it would block on a full pipe.
        reader = threading.Thread(target=process.communicate, daemon=True)
        reader.start()
        yield process, port
    finally:
        process.terminate()
        if reader is not None:
            reader.join(timeout=10)
    assert process.returncode == 0


@contextmanager
def serve(environment: dict[str, str]) -> Iterator[Served]:
    """Serve the extender until it is ready; at the end it must go quietly on SIGTERM."""
    with _running(environment) as (process, port):
        running = Served(process, port)
        eventually(lambda: running.ask("GET", "/readyz")[0] == 200, "the extender to be ready")
        yield running
        running.connection.close()


def listening_port(process: subprocess.Popen[bytes]) -> int:
    """Return the port that gunicorn says it listens on."""
    assert process.stderr is not None
    log = []
    for line in process.stderr:
        log.append(line.decode())
        if listening := re.search(r"Listening at: https?://[\d.]+:(\d+)", log[-1]):
            return int(listening[1])
    raise AssertionError("".join(log))
