"""Serves a simulated API server's lists and watches over HTTP on loopback, for processes that only read."""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Set
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

import msgspec

from planner.ports import SNAPSHOT_RESOURCES, Resource
from simulator.selectors import fields_match
from simulator.store import Store
from simulator.wire import bookmark, item_bytes

BOOKMARK_SECONDS: Final = 10.0
"""Real seconds between two bookmarks of a quiet watch."""

_KEPT_LISTS: Final = 16
"""Lists of which further pages may still be asked for; older ones answer 410."""


class HttpApi:
    """A context manager: the simulated API at `url`; it reads the store while the world runs."""

    def __init__(self, store: Store) -> None:
        """Serve this store on a free port of 127.0.0.1."""
        self.store: Final = store
        self.lists: OrderedDict[str, tuple[bytes, ...]] = OrderedDict()
        self.streams: dict[int, tuple[Resource, tuple[int, int]]] = {}
        self.flushed: Final = threading.Condition()
        self.closing = False
        self.marks = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        self._thread = threading.Thread(target=self._serve, name="simulated API", daemon=True)
        self.url: Final = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End every watch, then the server."""
        self.closing = True
        with self.store.changed:
            self.store.changed.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_for_news(self, position: tuple[int, int], until_monotonic: float) -> tuple[int, int]:
        """Wait until something changes, or a mark is asked for, after this position, or the time comes.

        A position is a resource version and a number of marks; returns the one by then.
        """
        with self.store.changed:
            self.store.changed.wait_for(
                lambda: self.closing or (self.store.version, self.marks) != position,
                max(0.0, until_monotonic - time.monotonic()),
            )
            return self.store.version, self.marks

    def mark(self, resources: Set[Resource], timeout_seconds: float) -> bool:
        """Send every change so far, then a bookmark, to the watches of these kinds; tells whether that is done.

        A reader that has read the bookmark has read everything before it. False too where a kind is not watched.
        """
        with self.store.changed:
            self.marks += 1
            goal = self.store.version, self.marks
            self.store.changed.notify_all()
        with self.flushed:
            return self.flushed.wait_for(
                lambda: (
                    resources
                    <= {r for r, (version, marks) in self.streams.values() if version >= goal[0] and marks >= goal[1]}
                ),
                timeout_seconds,
            )

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.05)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    api: HttpApi


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
        """Keep quiet."""

    def do_GET(self) -> None:
        """Answer a list or a watch."""
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path == "/readyz":
            self._send(200, b"ok")
        elif (resource := _PATHS.get(parts.path)) is None:
            self._refuse(404, "NotFound", f"the simulated API does not serve {parts.path}")
        elif query.get("watch") in ("1", "true"):
            self._watch(resource, query)
        else:
            self._list(resource, query)

    def _list(self, resource: Resource, query: Mapping[str, str]) -> None:
        api = self.server.api
        if token := query.get("continue", ""):
            try:
                version, start = msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[str, int])
                key = f"{resource.plural}/{version}"
                items = api.lists[key]
            except (binascii.Error, msgspec.DecodeError, KeyError):
                self._refuse(410, "Expired", "The provided continue parameter is too old")
                return
        else:
            selector = query.get("fieldSelector", "")
            with api.store.changed:
                version, start = str(api.store.version), 0
                chosen = [e for e in api.store.entries(resource) if fields_match(selector, e.body)]
            items = tuple(item_bytes(entry) for entry in chosen)
        limit = int(query.get("limit", "0")) or len(items)
        page, rest = items[start : start + limit], items[start + limit :]
        metadata: dict[str, Any] = {"resourceVersion": version}
        if rest:
            key = f"{resource.plural}/{version}"
            api.lists[key] = items
            while len(api.lists) > _KEPT_LISTS:
                api.lists.popitem(last=False)
            token = base64.urlsafe_b64encode(msgspec.json.encode((version, start + limit))).decode()
            metadata |= {"continue": token, "remainingItemCount": len(rest)}
        body = {
            "kind": f"{resource.kind}List",
            "apiVersion": f"{resource.group}/{resource.version}".lstrip("/"),
            "metadata": metadata,
            "items": [msgspec.Raw(item) for item in page],
        }
        self._send(200, msgspec.json.encode(body))

    def _watch(self, resource: Resource, query: Mapping[str, str]) -> None:
        api, store = self.server.api, self.server.api.store
        position = int(query.get("resourceVersion", "") or 0), api.marks
        deadline = time.monotonic() + float(query.get("timeoutSeconds", "1800"))
        bookmarks = query.get("allowWatchBookmarks") in ("1", "true")
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        stream = threading.get_ident()
        try:
            while True:
                quiet_until = min(deadline, time.monotonic() + BOOKMARK_SECONDS)
                seen = api.wait_for_news(position, quiet_until)
                changes = store.since(resource, position[0])
                for change in changes:
                    if change.version <= seen[0]:
                        self._event(change.type, change.raw)
                is_quiet = not changes and time.monotonic() >= quiet_until
                if bookmarks and (is_quiet or seen[1] > position[1]):
                    self._event("BOOKMARK", bookmark(resource, seen[0]))
                self.wfile.flush()
                position = max(position[0], seen[0]), seen[1]
                with api.flushed:
                    api.streams[stream] = (resource, position)
                    api.flushed.notify_all()
                if api.closing or time.monotonic() >= deadline:
                    break
            self.wfile.write(b"0\r\n\r\n")
        except LookupError as error:
            self._event("ERROR", json.dumps(_status(410, "Expired", str(error))).encode())
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with api.flushed:
                api.streams.pop(stream, None)
                api.flushed.notify_all()

    def _event(self, kind: str, raw: bytes) -> None:
        line = b'{"type":"%s","object":%s}\n' % (kind.encode(), raw)
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def _refuse(self, status: int, reason: str, message: str) -> None:
        self._send(status, json.dumps(_status(status, reason, message)).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _path(resource: Resource) -> str:
    root = f"/apis/{resource.group}" if resource.group else "/api"
    return f"{root}/{resource.version}/{resource.plural}"


_PATHS: Final = {_path(resource): resource for resource in SNAPSHOT_RESOURCES}
