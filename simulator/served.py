"""The real extender as it runs in production: gunicorn in a process of its own, watching over HTTP."""

from __future__ import annotations

import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from typing import Final, Self

import urllib3

from planner.ports import NODES, PODS, REPLICASETS
from simulator.api import ApiServer
from simulator.extenders import Extender, HttpTransport
from simulator.http import HttpApi

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0

CATCH_UP_SECONDS: Final = 2.0
"""The longest real time for which the simulated scheduler waits for the extender; then it asks regardless."""

_WATCHED: Final = frozenset({NODES, PODS, REPLICASETS})
_AGE: Final = re.compile(r"^kinema_extender_cache_age_seconds (\S+)$", re.MULTILINE)


class ServedExtender:
    """A context manager: the simulated API on loopback, the extender under gunicorn, and a way to ask it."""

    def __init__(self, server: ApiServer) -> None:
        """Prepare an extender for this cluster; it listens on a free port of 127.0.0.1."""
        self._api = HttpApi(server.store)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed on exit
        self._process: subprocess.Popen[bytes] | None = None
        self.url: Final = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._transport = HttpTransport(self.url, before=self._catch_up)
        self._metrics = urllib3.PoolManager(maxsize=1, retries=False, timeout=CATCH_UP_SECONDS)
        self._caught_up = 0
        self.extender: Final = Extender(self._transport)

    def __enter__(self) -> Self:
        """Start both servers and return once the extender has read the cluster.

        Raises:
            RuntimeError: gunicorn ended or was not ready in time; the text is the end of its log.
        """
        self._api.__enter__()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End gunicorn, then the API."""
        self._transport.close()
        self._metrics.clear()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._socket.close()
        self._log.close()
        self._api.__exit__()

    def _start(self) -> None:
        descriptor = self._socket.fileno()
        settings = {
            name: value for name, value in os.environ.items() if not name.startswith(("EXTENDER_", "GUNICORN_"))
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "python:extender.gunicorn_conf", "--bind", f"fd://{descriptor}"],
            env=settings | {"EXTENDER_API_SERVER": self._api.url},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=(descriptor,),
        )
        deadline = time.monotonic() + START_SECONDS
        with urllib3.PoolManager(retries=False, timeout=1.0) as pool:
            while not self._answers(pool):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._log.seek(0)
                    log = self._log.read().decode(errors="replace")[-2000:]
                    raise RuntimeError(f"the extender did not become ready under gunicorn:\n{log}")
                time.sleep(0.05)

    def _answers(self, pool: urllib3.PoolManager) -> bool:
        try:
            return pool.request("GET", f"{self.url}/readyz").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def _catch_up(self) -> None:
        """Wait, for a bounded time, until the extender has read what has happened.

        Simulated time runs a thousand times faster than real time, a watch over HTTP does not: without this the
        extender would lag behind by minutes of the simulated world. A bookmark that it has heard on every watch
        says that it has read all that came before.
        """
        began = time.monotonic()
        version = self._api.store.version
        while version != self._caught_up and time.monotonic() - began < CATCH_UP_SECONDS:
            sent = self._api.mark(_WATCHED, CATCH_UP_SECONDS)
            asked = time.monotonic()
            if sent and asked - self._age_seconds() > began:
                self._caught_up = version

    def _age_seconds(self) -> float:
        """Return how long ago the extender heard of the watch that has been quiet for longest."""
        try:
            text = self._metrics.request("GET", f"{self.url}/metrics").data.decode()
        except urllib3.exceptions.HTTPError:
            return math.inf
        found = _AGE.search(text)
        return float(found[1]) if found else math.inf
