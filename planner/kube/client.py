"""The API server's verbs over HTTPS: raw JSON in and out, every failure as one of Kinema's errors.

The `kubernetes` package brings kubeconfigs, authentication and TLS; its typed objects are not used, since decoding
a large list into them takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import urllib3
import yaml
from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from planner.errors import BadInput, Conflict, Forbidden, Gone, KubernetesError, NotFound, TooManyRequests
from planner.ports import PODS, Listing, PatchKind, Resource, WatchEvent

PAGE_SIZE = 500
"""Objects of one page; what kubectl and client-go ask for."""

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 60.0
_WATCH_MARGIN_SECONDS = 15.0
_LONGEST_RETRY_AFTER_SECONDS = 10
_MOST_RESTARTS = 3
_EVENT_TYPES: dict[str, Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]] = {
    "ADDED": "ADDED",
    "MODIFIED": "MODIFIED",
    "DELETED": "DELETED",
    "BOOKMARK": "BOOKMARK",
}
_PATCH_TYPES: dict[PatchKind, str] = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    next_page: str | None = msgspec.field(default=None, name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: tuple[msgspec.Raw, ...] | None = None


class _WatchLine(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Cause(msgspec.Struct):
    field: str = ""


class _StatusDetails(msgspec.Struct, rename="camel"):
    retry_after_seconds: float = 0.0
    causes: tuple[_Cause, ...] | None = None


class _Status(msgspec.Struct):
    message: str = ""
    code: int = 0
    details: _StatusDetails | None = None


@dataclass(frozen=True, slots=True)
class _Request:
    """One request; `what` says for a person what it does."""

    method: str
    what: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, object] | None = None
    content_type: str = "application/json"
    read_seconds: float = _READ_SECONDS


class KubernetesClient:
    """A `ports.Kubernetes` on a real API server."""

    def __init__(self, configuration: Configuration) -> None:
        # Reads are repeated, everything else only where no connection was made, so that nothing happens twice.
        configuration.retries = urllib3.Retry(
            total=3,
            connect=1,
            read=1,
            redirect=0,
            status=3,
            other=0,
            allowed_methods={"GET"},
            status_forcelist={429},
            backoff_factor=0.2,
            raise_on_status=False,
            retry_after_max=_LONGEST_RETRY_AFTER_SECONDS,
        )
        self._api = ApiClient(configuration)

    @classmethod
    def connect(cls, kubeconfig: str = "") -> KubernetesClient:
        """Connect with a kubeconfig; "" means the Pod's ServiceAccount, else $KUBECONFIG, else ~/.kube/config.

        Raises:
            BadInput: there is no kubeconfig, or it cannot be used.
        """
        configuration = Configuration()
        if not kubeconfig and os.environ.get("KUBERNETES_SERVICE_HOST"):
            try:
                load_incluster_config(client_configuration=configuration)
            except ConfigException as error:
                raise BadInput(f"the Pod's ServiceAccount cannot be used: {_line(error)}") from None
            return cls(configuration)
        named = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        # $KUBECONFIG may be a list of files, of which some may be absent.
        files = [Path(part).expanduser() for part in named.split(os.pathsep) if part]
        if not any(file.is_file() for file in files):
            raise BadInput(
                f"{named}: there is no such kubeconfig; name one by the setting kubeconfig or $KUBECONFIG, "
                "or give a dump (--cluster)"
            )
        try:
            # Files are never written: a refreshed token stays in memory.
            load_kube_config(named, client_configuration=configuration, persist_config=False)
        except (ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadInput(f"{named}: is no kubeconfig that can be used: {_line(error)}") from None
        if not configuration.host:
            raise BadInput(f"{named}: is no kubeconfig that can be used: the cluster of its context has no server")
        return cls(configuration)

    def list(self, resource: Resource, field_selector: str = "") -> Listing:
        """Return every object, page by page; a list that expires in the middle starts again."""
        for _ in range(_MOST_RESTARTS):
            try:
                return self._list_once(resource, field_selector)
            except Gone:
                continue
        raise Gone(f"listing {resource.plural} expired {_MOST_RESTARTS} times in the middle")

    def watch(self, resource: Resource, resource_version: str, timeout_seconds: float) -> Iterator[WatchEvent]:
        """Yield the changes after the resource version until the timeout."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(timeout_seconds))),
        }
        what = f"watch {resource.plural}"
        request = _Request("GET", what, _path(resource), query, read_seconds=timeout_seconds + _WATCH_MARGIN_SECONDS)
        response = self._open(request)
        try:
            for line in _lines(response, what):
                yield _event(line, what)
        finally:
            response.close()

    def get(self, resource: Resource, namespace: str, name: str) -> bytes:
        """Return one object."""
        what = f"get {_object(resource, namespace, name)}"
        return self._call(_Request("GET", what, _path(resource, namespace, name)))

    def create(self, resource: Resource, namespace: str, body: Mapping[str, object]) -> bytes:
        """Create an object."""
        return self._call(_Request("POST", f"create {resource.plural}", _path(resource, namespace), body=body))

    def replace(self, resource: Resource, namespace: str, name: str, body: Mapping[str, object]) -> bytes:
        """Replace an object."""
        what = f"update {_object(resource, namespace, name)}"
        return self._call(_Request("PUT", what, _path(resource, namespace, name), body=body))

    def patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, object], kind: PatchKind = "merge"
    ) -> bytes:
        """Patch an object."""
        what = f"patch {_object(resource, namespace, name)}"
        path = _path(resource, namespace, name)
        return self._call(_Request("PATCH", what, path, body=patch, content_type=_PATCH_TYPES[kind]))

    def evict(self, namespace: str, name: str, uid: str) -> None:
        """Evict a pod of this uid."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        what = f"evict {_object(PODS, namespace, name)}"
        self._call(_Request("POST", what, _path(PODS, namespace, name) + "/eviction", body=body))

    def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """Delete an object of this uid."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        what = f"delete {_object(resource, namespace, name)}"
        self._call(_Request("DELETE", what, _path(resource, namespace, name), body=body))

    def _list_once(self, resource: Resource, field_selector: str) -> Listing:
        query = {"limit": str(PAGE_SIZE)} | ({"fieldSelector": field_selector} if field_selector else {})
        what = f"list {resource.plural}"
        items: list[bytes] = []
        while True:
            data = self._call(_Request("GET", what, _path(resource), query))
            page = _decoded(data, _Page, what)
            items.extend(bytes(item) for item in page.items or ())
            if not page.metadata.next_page:
                return Listing(tuple(items), page.metadata.resource_version)
            query["continue"] = page.metadata.next_page

    def _call(self, request: _Request) -> bytes:
        return _read(self._open(request), request.what)

    def _open(self, request: _Request) -> urllib3.BaseHTTPResponse:
        """Send one request and return its answer with the body unread; refusals are raised."""
        headers = {"Accept": "application/json"}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        try:
            method, url, headers, body, fields = self._api.param_serialize(
                request.method,
                request.path,
                query_params=list(request.query.items()),
                header_params=headers,
                body=request.body,
                auth_settings=["BearerToken"],
            )
            answer = self._api.rest_client.request(
                method, url, headers, body, fields, _request_timeout=(_CONNECT_SECONDS, request.read_seconds)
            )
        except (urllib3.exceptions.HTTPError, ApiException, OSError, ValueError) as error:
            raise KubernetesError(f"cannot {request.what}: {_unreachable(error)}") from error
        response: urllib3.BaseHTTPResponse = answer.response
        if response.status >= 300:
            raise _refusal(response, request.what)
        return response


def _path(resource: Resource, namespace: str = "", name: str = "") -> str:
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    within = f"/namespaces/{namespace}" if resource.namespaced and namespace else ""
    return f"{root}{within}/{resource.plural}" + (f"/{name}" if name else "")


def _object(resource: Resource, namespace: str, name: str) -> str:
    return f"{resource.kind} {namespace}/{name}" if namespace else f"{resource.kind} {name}"


def _read(response: urllib3.BaseHTTPResponse, what: str) -> bytes:
    """Return the whole body and give the connection back."""
    try:
        return response.read()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise KubernetesError(f"cannot {what}: the answer broke off: {_line(error)}") from error
    finally:
        response.release_conn()


def _lines(response: urllib3.BaseHTTPResponse, what: str) -> Iterator[bytes]:
    rest = b""
    try:
        for chunk in response.stream(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line for line in lines if line.strip())
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise KubernetesError(f"cannot {what}: the stream broke off: {_line(error)}") from error


def _event(line: bytes, what: str) -> WatchEvent:
    event = _decoded(line, _WatchLine, what)
    if known := _EVENT_TYPES.get(event.type):
        return WatchEvent(known, bytes(event.object))
    status = _decoded(bytes(event.object), _Status, what)
    kind = Gone if status.code == 410 else KubernetesError
    raise kind(f"cannot {what}: {_line(status.message) or event.type}")


def _decoded(data: bytes, shape: type[Any], what: str) -> Any:
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KubernetesError(f"cannot {what}: the answer cannot be understood: {error}") from None


def _refusal(response: urllib3.BaseHTTPResponse, what: str) -> KubernetesError:
    """Translate an HTTP status, with the server's own words where there are any."""
    try:
        status = msgspec.json.decode(_read(response, what), type=_Status)
    except (KubernetesError, msgspec.MsgspecError, UnicodeDecodeError):
        status = _Status()
    message = _line(status.message) or f"HTTP {response.status} {response.reason or ''}".rstrip()
    text = f"cannot {what}: {message}"
    details = status.details or _StatusDetails()
    match response.status:
        case 401:
            return KubernetesError(f"{text} (the API server does not accept the credentials)")
        case 403:
            return Forbidden(f"{text} (grant the right by RBAC)")
        case 404:
            return NotFound(text)
        case 409:
            return Conflict(text)
        case 410:
            return Gone(text)
        case 422 if any(cause.field == "metadata.uid" for cause in details.causes or ()):
            # A patch that carries another uid is refused as an attempt to change it.
            return Conflict(text)
        case 429:
            return TooManyRequests(text, _retry_after(response, details))
        case _:
            return KubernetesError(text)


def _retry_after(response: urllib3.BaseHTTPResponse, details: _StatusDetails) -> float:
    header = response.headers.get("Retry-After", "")
    return float(header) if header.isascii() and header.isdigit() else details.retry_after_seconds


def _unreachable(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason else error
    match cause:
        case urllib3.exceptions.NewConnectionError():
            return f"the API server cannot be reached: {_line(cause)}"
        case urllib3.exceptions.TimeoutError():
            return "the API server did not answer in time"
        case _:
            return _line(cause)


def _line(error: object) -> str:
    return " ".join(str(error).split())
