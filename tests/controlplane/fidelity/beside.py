"""A scheduler and the extender beside it, which can be killed and started again on its port."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from tests.controlplane.cluster import ControlPlane
from tests.controlplane.processes import Process, die_with_parent
from tests.extender.serving import eventually

Json = dict[str, Any]

ROOT: Final = Path(__file__).parents[3]
SKIPPED: Final = "Skipping extender as it returned error and has ignorable flag set"
"""What kube-scheduler logs when it goes on without an answer."""

BASE: Final = ROOT / "manifests" / "base"

PATIENT_TIMEOUT: Final = "5s"
"""On a busy test machine a slow answer must not look like a lost one."""


class Extender:
    """The extender as gunicorn serves it, in a process group of its own; `skew_seconds` sets its wall clock off."""

    def __init__(self, kubeconfig: Path, skew_seconds: float = 0.0) -> None:
        self._kubeconfig = kubeconfig
        self._skew_seconds = skew_seconds
        self.port = 0
        self.log: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start it and return once it is ready; the second time on the port of the first."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.controlplane.fidelity.skewed",
                str(self._skew_seconds),
                "-c",
                "python:extender.gunicorn_conf",
            ],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "EXTENDER_BIND": f"127.0.0.1:{self.port}",
                "EXTENDER_KUBECONFIG": str(self._kubeconfig),
            },
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            # As for the control plane's own programs: a test run that is killed leaves nothing behind.
            preexec_fn=die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
        listening = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, listening), daemon=True)
        self._reader.start()
        eventually(listening.is_set, "the extender to listen")
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Return once it answers from a whole cache."""
        eventually(self._ready, "the extender to be ready")

    def kill(self) -> None:
        """End master and worker at once, as the kernel does to a container that is out of memory."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            assert self._reader is not None
            self._reader.join(10)

    def kill_worker(self) -> None:
        """End the worker alone, and return once it is gone; its master, which holds the port, starts another."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        (worker,) = children.read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        eventually(lambda: worker not in children.read_text().split(), "the worker to be gone")

    def metrics(self) -> dict[str, float]:
        """Return every line of its metrics with its value."""
        text = self._get("/metrics")[1].decode()
        rows = (row.rpartition(" ") for row in text.splitlines() if not row.startswith("#"))
        return {name: float(value) for name, _, value in rows}

    def _read(self, process: subprocess.Popen[str], listening: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self.log.append(line)
                if found := re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", line):
                    self.port = int(found[1])
                    listening.set()

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self._get("/readyz")[0] == 200
        return False

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@contextmanager
def running(
    cluster: ControlPlane, name: str, extender: Extender | None, http_timeout: str | None = PATIENT_TIMEOUT
) -> Iterator[Process]:
    """Run a scheduler of this name as the manifests configure it, with the extender or without any.

    Without an `http_timeout` that of the manifests holds.
    """
    configuration: Json = yaml.safe_load((BASE / "scheduler-configuration.yaml").read_text())
    del configuration["leaderElection"]
    configuration["profiles"] = [{"schedulerName": name}]
    if extender is None:
        del configuration["extenders"]
    else:
        extender.start()
        (entry,) = configuration["extenders"]
        entry["urlPrefix"] = f"http://127.0.0.1:{extender.port}"
        entry["httpTimeout"] = http_timeout or entry["httpTimeout"]
    scheduler = cluster.start_scheduler(configuration)
    try:
        yield scheduler
    finally:
        scheduler.stop()
        if extender is not None:
            extender.kill()
