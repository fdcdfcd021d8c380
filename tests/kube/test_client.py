"""The API server's answers over HTTP, good and bad, as values and as Kinema's errors."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from planner.errors import BadInput, Conflict, Forbidden, Gone, KubernetesError, NotFound, TooManyRequests
from planner.kube.client import KubernetesClient
from planner.ports import CONFIGMAPS, DEPLOYMENTS, NODES, PODS, WatchEvent
from tests.kube.server import Answer, Server, kubeconfig


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def outside_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def client(server: Server, tmp_path: Path) -> KubernetesClient:
    return KubernetesClient.connect(kubeconfig(tmp_path / "config", server.url))


def reply(status: int, body: object, **headers: str) -> Answer:
    return status, json.dumps(body).encode(), {k.replace("_", "-"): v for k, v in headers.items()}


def failure(code: int, message: str, **more: Any) -> Answer:
    return reply(code, {"kind": "Status", "status": "Failure", "message": message, "code": code, **more})


def page(names: list[str], version: str = "9", following: str = "") -> Answer:
    items = [{"metadata": {"name": name}} for name in names]
    return reply(200, {"metadata": {"resourceVersion": version, "continue": following}, "items": items})


def names(items: tuple[bytes, ...]) -> list[str]:
    return [json.loads(item)["metadata"]["name"] for item in items]


class TestLists:
    def test_a_list_is_read_page_by_page(self, server: Server, client: KubernetesClient) -> None:
        pages = {"": page(["a", "b"], "9", "t1"), "t1": page(["c"], "9", "t2"), "t2": page(["d"], "9")}
        server.answer = lambda _, __, query: pages[query.get("continue", "")]
        found = client.list(PODS, "spec.nodeName=n")
        assert (names(found.items), found.resource_version) == (["a", "b", "c", "d"], "9")
        assert [request[1] for request in server.requests] == ["/api/v1/pods"] * 3
        assert all(r[2]["limit"] == "500" and r[2]["fieldSelector"] == "spec.nodeName=n" for r in server.requests)

    def test_a_list_that_expires_in_the_middle_starts_again(self, server: Server, client: KubernetesClient) -> None:
        answers = iter([page(["a"], "1", "t1"), failure(410, "expired"), page(["b"], "2", "t2"), page(["c"], "2")])
        server.answer = lambda *_: next(answers)
        found = client.list(NODES)
        assert (names(found.items), found.resource_version) == (["b", "c"], "2")

    def test_a_list_that_always_expires_is_given_up(self, server: Server, client: KubernetesClient) -> None:
        server.answer = lambda _, __, query: failure(410, "expired") if "continue" in query else page(["a"], "1", "t")
        with pytest.raises(Gone, match="listing nodes expired 3 times"):
            client.list(NODES)

    def test_an_empty_list_may_be_null(self, server: Server, client: KubernetesClient) -> None:
        server.answer = lambda *_: reply(200, {"metadata": {"resourceVersion": "3"}, "items": None})
        assert client.list(DEPLOYMENTS).items == ()
        assert server.requests[0][1] == "/apis/apps/v1/deployments"

    def test_half_a_page_is_no_list(self, server: Server, client: KubernetesClient) -> None:
        server.answer = lambda *_: (200, page(["a"])[1][:-5], {})
        with pytest.raises(KubernetesError, match="cannot list nodes: the answer cannot be understood"):
            client.list(NODES)

    def test_an_answer_that_breaks_off_is_no_list(self, server: Server, client: KubernetesClient) -> None:
        data = page(["a"])[1]
        server.answer = lambda *_: (200, data[:-5], {"Content-Length": str(len(data)), "Connection": "close"})
        with pytest.raises(KubernetesError, match="cannot list nodes: the answer broke off"):
            client.list(NODES)


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (403, Forbidden),
            (404, NotFound),
            (409, Conflict),
            (410, Gone),
            (401, KubernetesError),
            (422, KubernetesError),
            (500, KubernetesError),
            (503, KubernetesError),
            (302, KubernetesError),
        ],
    )
    def test_a_status_becomes_an_error_with_the_servers_words(
        self, server: Server, client: KubernetesClient, status: int, error: type[KubernetesError]
    ) -> None:
        server.answer = lambda *_: failure(status, 'User "kinema"\ncannot do that')
        with pytest.raises(KubernetesError) as caught:
            client.get(PODS, "shop", "p")
        assert type(caught.value) is error
        assert str(caught.value).startswith('cannot get Pod shop/p: User "kinema" cannot do that')
        assert len(server.requests) == 1

    def test_a_refused_list_names_verb_resource_and_what_to_do(self, server: Server, client: KubernetesClient) -> None:
        server.answer = lambda *_: failure(403, 'pods is forbidden: User "k" cannot list resource "pods"')
        with pytest.raises(Forbidden) as caught:
            client.list(PODS)
        assert str(caught.value) == (
            'cannot list pods: pods is forbidden: User "k" cannot list resource "pods" (grant the right by RBAC)'
        )

    def test_an_answer_without_a_status_object_is_told_by_its_code(
        self, server: Server, client: KubernetesClient
    ) -> None:
        server.answer = lambda *_: (502, b"<html>", {})
        with pytest.raises(KubernetesError, match="cannot get Node n: HTTP 502 Bad Gateway"):
            client.get(NODES, "", "n")

    def test_a_changed_uid_in_a_patch_is_a_conflict(self, server: Server, client: KubernetesClient) -> None:
        causes = [{"reason": "FieldValueInvalid", "field": "metadata.uid"}]
        server.answer = lambda *_: failure(422, "field is immutable", details={"causes": causes})
        with pytest.raises(Conflict):
            client.patch(NODES, "", "n", {"metadata": {"uid": "other"}})

    def test_a_server_that_is_not_there_says_so(self, tmp_path: Path) -> None:
        with closing(socket.socket()) as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            client = KubernetesClient.connect(kubeconfig(tmp_path / "config", url))
            with pytest.raises(KubernetesError, match=r"^cannot list pods: the API server cannot be reached: "):
                client.list(PODS)

    def test_a_server_that_does_not_answer_is_given_up(
        self, server: Server, client: KubernetesClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        released = threading.Event()
        monkeypatch.setattr("planner.kube.client._WATCH_MARGIN_SECONDS", -0.8)

        def silent(*_: object) -> Answer:
            released.wait(30)
            return page([])

        server.answer = silent
        with pytest.raises(KubernetesError, match="cannot watch pods: the API server did not answer in time"):
            next(client.watch(PODS, "1", 1))
        released.set()

    def test_reads_wait_and_try_again_where_the_server_is_overloaded(
        self, server: Server, client: KubernetesClient
    ) -> None:
        answers = iter([reply(429, {"message": "slow down"}, Retry_After="0"), page(["a"])])
        server.answer = lambda *_: next(answers)
        assert names(client.list(NODES).items) == ["a"]

    def test_writes_are_never_repeated_by_themselves(self, server: Server, client: KubernetesClient) -> None:
        server.answer = lambda *_: reply(429, {"message": "slow down"}, Retry_After="7")
        with pytest.raises(TooManyRequests, match="cannot delete Node n: slow down") as caught:
            client.delete(NODES, "", "n", "u")
        assert caught.value.retry_after_seconds == 7.0
        assert len(server.requests) == 1


class TestWrites:
    def test_each_verb_is_sent_as_the_api_wants_it(self, server: Server, client: KubernetesClient) -> None:
        server.answer = lambda *_: reply(200, {"done": True})
        body = {"metadata": {"name": "c"}}
        assert client.create(CONFIGMAPS, "ns", body) == b'{"done": true}'
        client.replace(CONFIGMAPS, "ns", "c", body)
        client.patch(NODES, "", "n", {"spec": {}})
        client.patch(DEPLOYMENTS, "ns", "d", {"spec": {}}, "strategic")
        client.delete(NODES, "", "n", "u1")
        assert server.requests == [
            ("POST", "/api/v1/namespaces/ns/configmaps", {}, body, "application/json"),
            ("PUT", "/api/v1/namespaces/ns/configmaps/c", {}, body, "application/json"),
            ("PATCH", "/api/v1/nodes/n", {}, {"spec": {}}, "application/merge-patch+json"),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/ns/deployments/d",
                {},
                {"spec": {}},
                "application/strategic-merge-patch+json",
            ),
            (
                "DELETE",
                "/api/v1/nodes/n",
                {},
                {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "u1"}},
                "application/json",
            ),
        ]

    def test_an_eviction_carries_the_uid_and_a_budgets_refusal_its_reason(
        self, server: Server, client: KubernetesClient
    ) -> None:
        server.answer = lambda *_: failure(429, "would violate the budget", details={"retryAfterSeconds": 10})
        with pytest.raises(TooManyRequests, match="cannot evict Pod ns/p: would violate the budget") as caught:
            client.evict("ns", "p", "u2")
        assert caught.value.retry_after_seconds == 10.0
        (request,) = server.requests
        assert request[:2] == ("POST", "/api/v1/namespaces/ns/pods/p/eviction")
        assert request[3]["deleteOptions"] == {"preconditions": {"uid": "u2"}}


class TestWatches:
    def test_changes_are_told_as_they_come(self, server: Server, client: KubernetesClient) -> None:
        lines = [{"type": kind, "object": {"n": i}} for i, kind in enumerate(("ADDED", "DELETED", "BOOKMARK"))]
        server.answer = lambda *_: (200, b"".join(json.dumps(line).encode() + b"\n" for line in lines), {})
        found = list(client.watch(PODS, "7", 3))
        assert found == [
            WatchEvent("ADDED", b'{"n": 0}'),
            WatchEvent("DELETED", b'{"n": 1}'),
            WatchEvent("BOOKMARK", b'{"n": 2}'),
        ]
        assert server.requests[0][2] == {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": "7",
            "timeoutSeconds": "3",
        }

    def test_a_version_that_is_too_old_is_gone_at_the_start_and_in_the_stream(
        self, server: Server, client: KubernetesClient
    ) -> None:
        server.answer = lambda *_: failure(410, "too old")
        with pytest.raises(Gone):
            next(client.watch(PODS, "1", 1))
        line = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}
        server.answer = lambda *_: (200, json.dumps(line).encode() + b"\n", {})
        with pytest.raises(Gone, match="cannot watch pods: too old"):
            next(client.watch(PODS, "1", 1))

    def test_a_stream_that_breaks_off_is_an_error(self, server: Server, client: KubernetesClient) -> None:
        line = json.dumps({"type": "ADDED", "object": {}}).encode() + b"\n"
        server.answer = lambda *_: (200, line, {"Content-Length": "1000", "Connection": "close"})
        events = client.watch(PODS, "1", 1)
        with pytest.raises(KubernetesError, match="cannot watch pods: the stream broke off"):
            list(events)


class TestKubeconfigs:
    def test_the_token_is_sent(self, server: Server, client: KubernetesClient) -> None:
        seen = []
        server.answer = lambda *_: page([])
        original = client._api.rest_client.request

        def request(method: str, url: str, headers: dict[str, str], *rest: object, **more: object) -> object:
            seen.append(headers.get("authorization"))
            return original(method, url, headers, *rest, **more)

        client._api.rest_client.request = request
        client.list(NODES)
        assert seen == ["Bearer secret"]

    def test_the_environment_names_the_kubeconfig(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/absent:{kubeconfig(tmp_path / 'config', server.url)}")
        server.answer = lambda *_: page(["a"])
        assert len(KubernetesClient.connect().list(NODES).items) == 1

    def test_a_kubeconfig_that_does_not_exist_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match=r"/absent: there is no such kubeconfig; "):
            KubernetesClient.connect(str(tmp_path / "absent"))
        with pytest.raises(BadInput, match=r"^~/\.kube/config: there is no such kubeconfig; "):
            KubernetesClient.connect()

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "just text",
            "[1, 2]",
            "a: b",
            "current-context: x\ncontexts: []\nclusters: []\nusers: []",
            "current-context: x\ncontexts: 7",
            "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\nclusters: []",
            "current-context: x\ncontexts: [{name: x, context: 3}]\nclusters: []\nusers: []",
            "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
            "clusters: [{name: c, cluster: {}}]\nusers: [{name: u, user: {}}]",
            "\x00\x01",
        ],
    )
    def test_a_file_that_is_no_kubeconfig_is_one_clear_line(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "config"
        path.write_text(text)
        with pytest.raises(BadInput) as caught:
            KubernetesClient.connect(str(path))
        assert str(caught.value).startswith(f"{path}: is no kubeconfig that can be used: ")
        assert "\n" not in str(caught.value)

    def test_a_pod_without_a_service_account_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
        with pytest.raises(BadInput, match="the Pod's ServiceAccount cannot be used: "):
            KubernetesClient.connect()
