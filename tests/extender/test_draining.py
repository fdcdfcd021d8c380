"""SIGTERM and SIGHUP under load: every call that found a listener is answered, and in time."""

from __future__ import annotations

import http.client
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from extender.worker import DrainingWorker
from tests.extender.building import names_only, node, pod
from tests.extender.fake_api import FakeApi
from tests.extender.serving import eventually, launch, listening_port

HTTP_TIMEOUT_SECONDS = 2.0
"""The manifests give a call 0.2 s. A busy test machine gets more, but less than the time of draining."""

BODY = names_only(pod("p", "StatefulSet/db"), *(f"node-{number}" for number in range(1000)))


class PausingWorker(DrainingWorker):
    """A worker that a busy machine stops between its last look into the listener's queue and the listener's end."""

    def _take_all(self, listener: Any) -> None:
        super()._take_all(listener)
        time.sleep(0.2)


class Caller(threading.Thread):
    """Calls one after the other over a kept connection, as a scheduler does, until nobody listens or it is stopped."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._stopping = threading.Event()
        self.answered = 0
        self.failures: list[str] = []

    def run(self) -> None:
        connection = self._connection()
        while not self._stopping.is_set():
            try:
                if connection.sock is None:
                    connection.connect()
            except ConnectionRefusedError:
                break
            except OSError as error:
                self.failures.append(repr(error))
                continue
            try:
                connection.request("POST", "/filter", BODY)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                connection = self._connection()
                continue
            if answer.status != 200:
                self.failures.append(str(answer.status))
            self.answered += 1
        connection.close()

    def finish(self) -> None:
        self._stopping.set()
        self.join(10)

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=HTTP_TIMEOUT_SECONDS)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as running:
        running.put("nodes", node("node-1"))
        yield running


@pytest.mark.parametrize("worker", [DrainingWorker, PausingWorker])
def test_sigterm_under_load_answers_every_call_and_ends_within_five_seconds(
    api: FakeApi, worker: type[DrainingWorker]
) -> None:
    process = launch({"EXTENDER_API_SERVER": api.url}, "--worker-class", f"{worker.__module__}.{worker.__qualname__}")
    port = listening_port(process)
    threading.Thread(target=process.communicate, daemon=True).start()
    callers = [Caller(port) for _ in range(6)]
    for caller in callers:
        caller.start()
    eventually(lambda: all(caller.answered > 20 for caller in callers), "the load")
    idle = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    idle.request("GET", "/healthz")
    idle.getresponse().read()
    asked_at = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
    took = time.monotonic() - asked_at
    idle.close()
    for caller in callers:
        caller.finish()
    assert [caller.failures for caller in callers] == [[]] * len(callers)
    assert took < 5
    assert process.returncode == 0


def test_sighup_under_load_replaces_the_worker_without_a_failed_call(api: FakeApi) -> None:
    process = launch({"EXTENDER_API_SERVER": api.url})
    port = listening_port(process)
    threading.Thread(target=process.communicate, daemon=True).start()
    callers = [Caller(port) for _ in range(3)]
    for caller in callers:
        caller.start()
    eventually(lambda: all(caller.answered > 20 for caller in callers), "the load")
    lists = api.count("pods", watch=False)
    process.send_signal(signal.SIGHUP)
    eventually(lambda: api.count("pods", watch=False) == lists + 1, "the new worker to list")
    reached = [caller.answered for caller in callers]
    eventually(
        lambda: all(caller.answered > before + 200 for caller, before in zip(callers, reached, strict=True)),
        "the new worker to answer",
    )
    for caller in callers:
        caller.finish()
    process.terminate()
    process.wait(timeout=20)
    assert [caller.failures for caller in callers] == [[]] * len(callers)
