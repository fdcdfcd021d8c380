"""A tiny API server over real HTTP: list with pages, watch with chunks, 410, bookmarks, and faults on demand."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.extender.building import Json

PATHS = {"/api/v1/nodes": "nodes", "/api/v1/pods": "pods", "/apis/apps/v1/replicasets": "replicasets"}


class FakeApi:
    """Objects by resource and name, a log of events, and the HTTP server over them.

    Names are unique over all namespaces here. `requests` records (resource, query) of every call in order. Lists
    are written and compressed as by the real one; with `is_unlike` they are the same JSON in another order, with
    spaces, uncompressed.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.objects: dict[str, dict[str, Json]] = {name: {} for name in PATHS.values()}
        self.events: list[tuple[int, str, Json]] = []
        self.version = 1
        self.oldest = 0
        self.status = 200
        self.is_unlike = False
        self.generation = 0
        self.is_down = True
        self.accepts: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the same port as before if it ran before."""
        self.is_down = False
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections and end every watch."""
        self.is_down = True
        self.drop_watches()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def put(self, resource: str, thing: Json) -> None:
        """Create or change an object."""
        name = thing["metadata"]["name"]
        with self.changed:
            kind = "MODIFIED" if name in self.objects[resource] else "ADDED"
            self.objects[resource][name] = self._log(resource, kind, thing)

    def delete(self, resource: str, name: str) -> None:
        """Delete an object."""
        with self.changed:
            self._log(resource, "DELETED", self.objects[resource].pop(name))

    def compact(self) -> None:
        """Forget the history: a watch from an older version gets 410."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            self.events.clear()
            self.changed.notify_all()

    def bookmark(self, resource: str) -> None:
        """Tell watches of the resource the present version."""
        with self.changed:
            self._log(resource, "BOOKMARK", {"metadata": {}})

    def drop_watches(self) -> None:
        """End every running watch."""
        with self.changed:
            self.generation += 1
            self.changed.notify_all()

    def count(self, resource: str, *, watch: bool) -> int:
        """Return how many watches, or first pages of lists, were asked for."""
        with self.changed:
            return sum(
                name == resource and ("watch" in query) == watch and "continue" not in query
                for name, query in self.requests
            )

    def _log(self, resource: str, kind: str, thing: Json) -> Json:
        self.version += 1
        stamped: Json = {**thing, "metadata": {**thing["metadata"], "resourceVersion": str(self.version)}}
        self.events.append((self.version, resource, {"type": kind, "object": stamped}))
        self.changed.notify_all()
        return stamped


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            if api.is_down:
                # A connection that was kept alive breaks as well.
                self.close_connection = True
                return
            url = urlsplit(self.path)
            resource = PATHS[url.path]
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            with api.changed:
                api.requests.append((resource, query))
                api.accepts[resource] = self.headers["Accept"]
                status = api.status
            if status != 200:
                self._answer(status, {"kind": "Status", "code": status})
            elif "watch" in query:
                self._watch(resource, int(query["resourceVersion"]))
            else:
                self._list(resource, query)

        def _list(self, resource: str, query: dict[str, str]) -> None:
            with api.changed:
                items = list(api.objects[resource].values())
                start, limit = int(query.get("continue", "0")), int(query.get("limit", "1000"))
                metadata = {"resourceVersion": str(api.version)}
                if start + limit < len(items):
                    metadata["continue"] = str(start + limit)
                page = items[start : start + limit] or None
            body = {"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": page}
            if api.is_unlike:
                self._answer(200, dict(reversed(body.items())))
                return
            data = json.dumps(body, separators=(",", ":")).encode()
            is_compressed = self.headers["Accept-Encoding"] == "gzip"
            self._send_whole(200, gzip.compress(data) if is_compressed else data, is_compressed)

        def _watch(self, resource: str, version: int) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            generation = api.generation
            while api.generation == generation:
                with api.changed:
                    if version < api.oldest:
                        gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
                        self._send(gone)
                        break
                    due = [(at, event) for at, name, event in api.events if name == resource and at > version]
                    if not due:
                        api.changed.wait(timeout=5)
                for at, event in due:
                    version = at
                    self._send(event)
            self.wfile.write(b"0\r\n\r\n")

        def _send(self, event: Json) -> None:
            line = json.dumps(event).encode() + b"\n"
            # In two chunks, as a proxy may cut it.
            for part in (line[:7], line[7:]):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.flush()

        def _answer(self, status: int, body: Json) -> None:
            self._send_whole(status, json.dumps(body).encode(), is_compressed=False)

        def _send_whole(self, status: int, data: bytes, is_compressed: bool) -> None:
            self.send_response(status)
            if is_compressed:
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler
