"""Many requests to the API server at once: kept connections, one a thread."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import yaml

from tests.controlplane.admin import ApiError

Json = dict[str, Any]

_THREADS: Final = 8


class Api:
    """The API server as its admin sees it."""

    def __init__(self, kubeconfig: Path, authority: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        self._host = config["clusters"][0]["cluster"]["server"].removeprefix("https://")
        self._token = config["users"][0]["user"]["token"]
        self._context = ssl.create_default_context(cafile=str(authority))
        self._local = threading.local()

    def request(self, method: str, path: str, body: Json | None = None) -> Json:
        """Send one request over the thread's own connection.

        Raises:
            ApiError: the answer's status is 400 or more.
        """
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        content = json.dumps(body) if body is not None else None
        try:
            answer, text = self._send(method, path, content, headers)
        except (OSError, http.client.HTTPException):
            # The server has closed a connection that was idle during a long run.
            self._local.connection.close()
            answer, text = self._send(method, path, content, headers)
        if answer.status >= 400:
            raise ApiError(answer.status, f"{method} {path}: {text.decode(errors='replace')[:300]}")
        found: Json = json.loads(text)
        return found

    def _send(
        self, method: str, path: str, content: str | None, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        if not hasattr(self._local, "connection"):
            self._local.connection = self._connect()
        self._local.connection.request(method, path, content, headers)
        answer: http.client.HTTPResponse = self._local.connection.getresponse()
        return answer, answer.read()

    def request_all(self, requests: Iterable[tuple[str, str, Json | None]]) -> list[Json]:
        """Send many requests, several at a time; the answers come in their order."""
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(lambda one: self.request(*one), requests))

    def watch(self, path: str) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        """Open a watch; the caller reads its lines, and shuts the connection's socket to end it."""
        connection = self._connect()
        accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
        connection.request("GET", path, headers={"Authorization": f"Bearer {self._token}", "Accept": accept})
        return connection, connection.getresponse()

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._host, timeout=600, context=self._context)
