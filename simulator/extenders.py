"""The simulated scheduler's ways to ask an extender: over HTTP as kube-scheduler does, or inside the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
import urllib3

from simulator.store import Json


class ExtenderFault(Exception):
    """The extender did not give an answer that can be used; the scheduler goes on without it."""


class Transport(Protocol):
    """Carries one request of a scheduler to an extender."""

    def post(self, verb: str, body: bytes) -> bytes:
        """Return the answer's body.

        Raises:
            ExtenderFault: there is none, or its status is not 200.
        """
        ...


@dataclass(frozen=True, slots=True)
class Filtered:
    """Which nodes the extender lets pass, and why the others fail."""

    names: tuple[str, ...]
    failed: Json


class _HostPriority(msgspec.Struct):
    host: str = msgspec.field(name="Host")
    score: int = msgspec.field(name="Score")


class Extender:
    """Speaks extender/v1 with names only (nodeCacheCapable). Source: kubernetes pkg/scheduler/extender.go."""

    def __init__(self, transport: Transport, weight: int = 20) -> None:
        """Send through the transport; scores count `weight` times."""
        self._transport = transport
        self.weight: Final = weight
        self.calls = 0
        self.faults = 0

    def filter(self, pod: Json, names: Sequence[str]) -> Filtered:
        """Return the names that pass.

        Raises:
            ExtenderFault: no usable answer, an error, or a name that was not asked about.
        """
        answer = self._ask("filter", pod, names)
        if not isinstance(answer, dict) or answer.get("Error"):
            raise self._fault(f"filter: {answer!r:.200}")
        passed = tuple(answer.get("NodeNames") or ())
        if unknown := set(passed) - set(names):
            raise self._fault(f"filter: claims nodes that were not in the input: {sorted(unknown)}")
        return Filtered(passed, (answer.get("FailedNodes") or {}) | (answer.get("FailedAndUnresolvableNodes") or {}))

    def prioritize(self, pod: Json, names: Sequence[str]) -> dict[str, int]:
        """Return weighted scores by name, on the scale of 0 to 100 of the scheduler's own plugins.

        Raises:
            ExtenderFault: no usable answer.
        """
        answer = self._ask("prioritize", pod, names)
        try:
            scores = msgspec.convert(answer, list[_HostPriority])
        except msgspec.ValidationError as error:
            raise self._fault(f"prioritize: {error}") from error
        return {item.host: item.score * self.weight * 10 for item in scores if item.host in names}

    def _ask(self, verb: str, pod: Json, names: Sequence[str]) -> Any:
        self.calls += 1
        body = msgspec.json.encode({"Pod": pod, "Nodes": None, "NodeNames": list(names)})
        try:
            return msgspec.json.decode(self._transport.post(verb, body))
        except msgspec.DecodeError as error:
            raise self._fault(f"{verb}: the answer is no JSON: {error}") from error
        except ExtenderFault:
            self.faults += 1
            raise

    def _fault(self, text: str) -> ExtenderFault:
        self.faults += 1
        return ExtenderFault(text)


class HttpTransport:
    """One connection that is kept alive, as kube-scheduler's client does it."""

    def __init__(self, url: str, timeout_seconds: float = 2.0, before: Callable[[], object] = lambda: None) -> None:
        """Ask the extender at this base URL; `before` is called ahead of every filter request."""
        self._url = url.rstrip("/")
        self._pool = urllib3.PoolManager(maxsize=1, retries=False, timeout=timeout_seconds)
        self._before = before

    def post(self, verb: str, body: bytes) -> bytes:
        """Send one request."""
        if verb == "filter":
            self._before()
        try:
            answer = self._pool.request(
                "POST", f"{self._url}/{verb}", body=body, headers={"Content-Type": "application/json"}
            )
        except urllib3.exceptions.HTTPError as error:
            raise ExtenderFault(f"{verb}: {error}") from error
        if answer.status != 200:
            raise ExtenderFault(f"{verb}: HTTP {answer.status}")
        return answer.data

    def close(self) -> None:
        """Close the connection."""
        self._pool.clear()
