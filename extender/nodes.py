"""The cache: keeps the extender's `State` in step with the API server, one thread a resource.

Each `Feed` lists its resource whole and then watches it; a watch that ends is resumed from the last resource
version, and only 410 Gone or a list that was never whole starts from the list again. Requests never wait for
any of it. The `kubernetes` client brings authentication, TLS and transport; its typed objects are not used,
since msgspec reads the same bytes a hundred times faster.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec
import urllib3
import yaml
from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from extender.objects import Node, PodObject, ReplicaSet
from extender.settings import ExtenderSettings, SettingsError
from extender.state import Clock, State

_log: Final = logging.getLogger(__name__)

SYSTEM_CLOCK: Final = Clock(time.time, time.monotonic)

PAGE_SIZE: Final = 500
"""Objects a page: 30,000 pods in 60 requests, each a few MB once it is unpacked. Twice as many objects are not
quicker, and the worker keeps 9 MB more."""

WATCH_SECONDS: Final = 50
"""The server ends a watch after this time and it is resumed at once, so that a connection that died
without a word is found out within WATCH_SECONDS + 10, well below the limit of staleness."""

BACKOFF_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits after failures in a row; the last one repeats."""

_BEGINS_WITH_TOKEN: Final = re.compile(
    rb'\{"kind":"\w+","apiVersion":"[\w./]+","metadata":\{"resourceVersion":"\d+","continue":"([\w=-]+)"'
)

_TRANSPORT_FAULTS: Final = (ApiException, urllib3.exceptions.HTTPError, OSError, msgspec.DecodeError)

_Object = TypeVar("_Object")


class _ListMetadata(msgspec.Struct, rename="camel", gc=False):
    resource_version: str = ""
    continue_token: str | None = msgspec.field(default=None, name="continue")


class _Page(msgspec.Struct, Generic[_Object]):
    metadata: _ListMetadata
    items: list[_Object] | None = None


class _Summary(msgspec.Struct):
    metadata: _ListMetadata


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Version(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class _Versioned(msgspec.Struct):
    metadata: _Version = _Version()


class _Status(msgspec.Struct):
    code: int | None = None
    message: str | None = None


_raw_page = msgspec.json.Decoder(_Page[msgspec.Raw])
_summary = msgspec.json.Decoder(_Summary)
_event = msgspec.json.Decoder(_Event)
_versioned = msgspec.json.Decoder(_Versioned)
_status = msgspec.json.Decoder(_Status)


class _Gone(Exception):
    """410: the resource version is too old; only a new list helps."""


@dataclass(frozen=True, slots=True)
class Resource(Generic[_Object]):
    """What to read and where it goes: the type and the key of one object, the changes of the state.

    `retain` takes the keys of a whole list and forgets all others; `drop` forgets one.
    """

    path: str
    accept: str
    kind: type[_Object]
    key: Callable[[_Object], str]
    put: Callable[[_Object], None]
    drop: Callable[[str], None]
    retain: Callable[[Set[str]], None]


class Feed(Generic[_Object]):
    """One resource's list and watch, in a thread of its own."""

    def __init__(self, resource: Resource[_Object], client: ApiClient, monotonic: Callable[[], float]) -> None:
        self._resource = resource
        self._client = client
        self._decoder = msgspec.json.Decoder(resource.kind)
        self._page_decoder = msgspec.json.Decoder(_Page[resource.kind])  # type: ignore[name-defined]
        self._monotonic = monotonic
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {resource.path}", daemon=True)
        self._stream: urllib3.BaseHTTPResponse | None = None
        self._seen_at = monotonic()
        self._version = ""
        self._failures = 0
        self.is_whole = threading.Event()
        self.is_broken = False

    def start(self) -> None:
        """Begin to list and watch."""
        self._thread.start()

    def close(self) -> None:
        """End the watch and wait for its thread."""
        self._stopping.set()
        stream = self._stream
        if stream is not None:
            try:
                stream.shutdown()
            except (ValueError, RuntimeError, OSError):
                _log.debug("the watch of %s had ended by itself", self._resource.path)
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def age_seconds(self) -> float:
        """Return the seconds since the API server was last heard about this resource."""
        return self._monotonic() - self._seen_at

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if not self._version:
                    self._version = self._list()
                self._watch()
            except _Gone as error:
                _log.info("%s: listing again: %s", self._resource.path, error)
                self._version = ""
            except _TRANSPORT_FAULTS as error:
                self._back_off(error)
            except Exception as error:  # noqa: BLE001
                # A bug must not end the watch for good: what it left half done is read anew.
                self._version = ""
                self._back_off(error)

    def _back_off(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        self.is_broken = True
        wait = BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
        self._failures += 1
        _log.warning("%s: %s; trying again in %.1f s", self._resource.path, _brief(error), wait)
        self._stopping.wait(wait)

    def _list(self) -> str:
        """Read every page, then forget what none of them showed; returns the list's resource version.

        Pages are handed over one by one, as events of a watch would be: 30,000 decoded pods at once are 50 MB.
        """
        keys: set[str] = set()
        with ThreadPoolExecutor(1, thread_name_prefix=f"list {self._resource.path}") as fetcher:
            body = self._fetch("")
            while True:
                # The server writes the next page while this one is read and taken in: each takes about the same time.
                token = _token(body)
                following = fetcher.submit(self._fetch, token) if token else None
                page = self._page(body)
                for item in page.items or ():
                    keys.add(self._resource.key(item))
                    self._resource.put(item)
                if following is None:
                    break
                body = following.result()
        self._resource.retain(keys)
        self._heard()
        self.is_whole.set()
        return page.metadata.resource_version

    def _fetch(self, token: str) -> bytes:
        query = [("limit", str(PAGE_SIZE))] + ([("continue", token)] if token else [])
        # 30,000 pods are 76 MB, or 4 compressed. The API server is as quick, since it has less to encrypt and to
        # write, and here TLS takes a connection's bytes in 4 KB records, each a fight for the interpreter's lock.
        return self._get(query, timeout_seconds=30, encoding="gzip").data

    def _page(self, body: bytes) -> _Page[_Object]:
        try:
            page: _Page[_Object] = self._page_decoder.decode(body)
        except (msgspec.DecodeError, ValueError):
            # Object by object takes twice as long, but leaves out only what cannot be read.
            raw = _raw_page.decode(body)
            page = _Page(raw.metadata, list(self._decoded(raw.items or ())))
        return page

    def _watch(self) -> None:
        """Apply events until the server ends the watch."""
        query = [
            ("watch", "1"),
            ("resourceVersion", self._version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(WATCH_SECONDS)),
        ]
        response = self._get(query, timeout_seconds=WATCH_SECONDS + 10)
        self._stream = response
        try:
            if self._stopping.is_set():
                return
            self._heard()
            started = self._monotonic()
            for line in _lines(response):
                self._heard()
                event = _event.decode(line)
                if event.type == "ERROR":
                    self._refuse(event)
                self._apply(event)
            if self._monotonic() - started < BACKOFF_SECONDS[0]:
                # A server that ends every watch at once is not asked in a tight loop.
                self._stopping.wait(BACKOFF_SECONDS[0])
        finally:
            self._stream = None
            response.close()

    def _apply(self, event: _Event) -> None:
        if event.type in ("ADDED", "MODIFIED", "DELETED"):
            for item in self._decoded((event.object,)):
                if event.type == "DELETED":
                    self._resource.drop(self._resource.key(item))
                else:
                    self._resource.put(item)
        self._version = _versioned.decode(event.object).metadata.resource_version or self._version

    def _decoded(self, items: Sequence[msgspec.Raw]) -> Iterator[_Object]:
        """Decode objects; one that cannot be read is left out and named, the others still count."""
        for item in items:
            try:
                yield self._decoder.decode(item)
            except (msgspec.DecodeError, ValueError) as error:
                _log.warning("%s: an object is left out: %s", self._resource.path, error)

    def _refuse(self, event: _Event) -> None:
        status = _status.decode(event.object)
        if status.code == 410:
            raise _Gone(status.message or "too old resource version")
        raise ApiException(status=status.code or 0, reason=status.message or "watch error")

    def _get(
        self, query: list[tuple[str, str]], timeout_seconds: float, encoding: str = "identity"
    ) -> urllib3.BaseHTTPResponse:
        arguments = self._client.param_serialize(
            "GET",
            self._resource.path,
            query_params=query,
            header_params={"Accept": self._resource.accept, "Accept-Encoding": encoding},
            auth_settings=["BearerToken"],
        )
        # (connect, read): a read may take as long as a quiet watch, a connect may not.
        response: urllib3.BaseHTTPResponse = self._client.call_api(
            *arguments, _request_timeout=(5, timeout_seconds)
        ).response
        if response.status == 410:
            response.close()
            raise _Gone("410 Gone")
        if response.status != 200:
            body = response.data[:300]
            raise ApiException(status=response.status, reason=body.decode(errors="replace"))
        return response

    def _heard(self) -> None:
        self._seen_at = self._monotonic()
        self._failures = 0
        self.is_broken = False


class Cache:
    """The state and the feeds that keep it true; without feeds it is always ready (tests put objects in)."""

    def __init__(self, state: State, feeds: Sequence[Feed[Any]], stale_seconds: float) -> None:
        self.state = state
        self._feeds = tuple(feeds)
        self._stale_seconds = stale_seconds
        self._is_settled = False

    @classmethod
    def connect(cls, settings: ExtenderSettings, clock: Clock = SYSTEM_CLOCK) -> Cache:
        """Return a cache of the cluster that the settings name, not yet started.

        Raises:
            SettingsError: there is no such kubeconfig, or no ServiceAccount in the pod.
        """
        state = State(clock, settings.reservation_seconds)
        client = _client(settings)
        feeds = [Feed(resource, client, clock.monotonic) for resource in _resources(state)]
        return cls(state, feeds, settings.stale_seconds)

    def start(self) -> None:
        """Start every feed."""
        for feed in self._feeds:
            feed.start()

    def close(self) -> None:
        """Stop every feed."""
        for feed in self._feeds:
            feed.close()

    def is_ready(self) -> bool:
        """Tell whether every list has been read whole since the start."""
        if not self._is_settled and all(feed.is_whole.is_set() for feed in self._feeds):
            self.state.settle()
            self._is_settled = True
        return self._is_settled

    def is_stale(self) -> bool:
        """Tell whether a watch has been broken for longer than the limit."""
        return any(feed.is_broken and feed.age_seconds() > self._stale_seconds for feed in self._feeds)

    def age_seconds(self) -> float:
        """Return the age of the oldest sign of life of any feed."""
        return max((feed.age_seconds() for feed in self._feeds), default=0.0)


def _resources(state: State) -> tuple[Resource[Any], ...]:
    def put_node(node: Node) -> None:
        if complaint := state.put_node(node):
            _log.warning("%s; the node is steered by its labels", complaint)

    whole = "application/json"
    # A server that does not know metadata-only answers sends whole objects: the metadata is the same.
    partial = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1,application/json"
    return (
        Resource(
            "/api/v1/nodes",
            whole,
            Node,
            lambda node: node.metadata.name,
            put_node,
            state.drop_node,
            state.retain_nodes,
        ),
        Resource(
            "/api/v1/pods",
            whole,
            PodObject,
            lambda pod: pod.metadata.uid,
            state.put_pod,
            state.drop_pod,
            state.retain_pods,
        ),
        Resource(
            "/apis/apps/v1/replicasets",
            partial,
            ReplicaSet,
            lambda item: item.metadata.uid,
            state.put_replicaset,
            state.drop_replicaset,
            state.retain_replicasets,
        ),
    )


def _client(settings: ExtenderSettings) -> ApiClient:
    configuration = Configuration()
    # The feeds wait and try again themselves; a retry inside would only hide how long the server is away.
    configuration.retries = False
    if settings.api_server:
        configuration.host = settings.api_server
        configuration.proxy = None
        return ApiClient(configuration)
    try:
        if settings.kubeconfig:
            load_kube_config(settings.kubeconfig, client_configuration=configuration, persist_config=False)
        else:
            load_incluster_config(client_configuration=configuration)
    except (ConfigException, OSError, yaml.YAMLError, TypeError) as error:
        # TypeError is what the client says to a file that is YAML but no mapping.
        source = f"EXTENDER_KUBECONFIG={settings.kubeconfig}" if settings.kubeconfig else "its ServiceAccount"
        raise SettingsError(f"no access to the API server by {source}: {_brief(error)}") from error
    return ApiClient(configuration)


def _token(page: bytes) -> str | None:
    """Return what the next page is asked for with; where the API server writes it, nothing more is read."""
    found = _BEGINS_WITH_TOKEN.match(page)
    return found[1].decode() if found else _summary.decode(page).metadata.continue_token


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield the lines of a stream as they come; a rest without its line end is not an event."""
    rest = b""
    while chunk := response.read1(1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line.strip())


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}".replace("\n", " ")
