"""The extenders as processes: ours under gunicorn, and the echo in Go, built on first use."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_ECHO: Final = Path(__file__).parent / "echo"
_START_SECONDS: Final = 60.0


class BenchmarkError(RuntimeError):
    """A program did not do what it is measured for; the text says which and what."""


@dataclass
class Extender:
    """A running extender; `ready_seconds` is the time from its start until it was ready."""

    process: subprocess.Popen[bytes]
    url: str
    ready_seconds: float

    @property
    def port(self) -> int:
        """Return its port on loopback."""
        return int(self.url.rpartition(":")[2])

    def metric(self, line: str) -> float:
        """Return the value of one line of its metrics, 0 where it is not there."""
        rows = get(self.port, "/metrics")[1].decode().splitlines()
        return next((float(row.rpartition(" ")[2]) for row in rows if row.startswith(f"{line} ")), 0.0)

    def processes(self) -> list[int]:
        """Return the ids of its process and of those that it started: under gunicorn the worker."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def stop(self) -> None:
        """End it and wait."""
        self.process.terminate()
        self.process.wait(15)


def start_ours(kubeconfig: Path) -> Extender:
    """Start the extender as the manifests do, on a free port, and return once it is ready."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "python:extender.gunicorn_conf"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "EXTENDER_BIND": "127.0.0.1:0", "EXTENDER_KUBECONFIG": str(kubeconfig)},
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None  # a pipe
    said = []
    for line in process.stderr:
        said.append(line.decode())
        if found := re.search(r"Listening at: (http://127\.0\.0\.1:(\d+))", said[-1]):
            break
    else:
        raise BenchmarkError(f"the extender ended: {''.join(said)}")
    threading.Thread(target=process.stderr.read, daemon=True).start()
    port = int(found[2])
    while time.monotonic() - started < _START_SECONDS:
        try:
            if get(port, "/readyz")[0] == 200:
                return Extender(process, found[1], time.monotonic() - started)
        except OSError:
            pass  # the worker does not answer yet
        time.sleep(0.02)
    process.kill()
    raise BenchmarkError(f"the extender was not ready within {_START_SECONDS:g} s")


def start_echo(folder: Path) -> Extender:
    """Start the echo extender on a free port."""
    program = folder / "echo"
    if not program.exists():
        environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}
        command = ["go", "build", "-o", str(program), "."]
        done = subprocess.run(command, cwd=_ECHO, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchmarkError(f"go build of the echo extender failed: {done.stderr.strip()}")
    started = time.monotonic()
    process = subprocess.Popen([str(program)], stdout=subprocess.PIPE)
    assert process.stdout is not None  # a pipe
    return Extender(process, process.stdout.readline().decode().strip(), time.monotonic() - started)


def get(port: int, path: str) -> tuple[int, bytes]:
    """Send one GET over a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
