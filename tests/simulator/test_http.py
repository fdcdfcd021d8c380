"""The simulated API over HTTP, as a process sees it that watches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from planner.ports import CONFIGMAPS, NODES
from simulator.http import HttpApi
from simulator.world import World
from tests.simulator.worlds import world


@pytest.fixture
def built() -> World:
    return world(nodes=5)


@pytest.fixture
def url(built: World) -> Iterator[str]:
    with HttpApi(built.server.store) as api:
        yield api.url


def get(url: str, **query: str) -> tuple[int, dict[str, Any]]:
    with urllib3.PoolManager(timeout=5.0, retries=False) as pool:
        answer = pool.request("GET", url, fields=query)
        return answer.status, answer.json()


def test_a_list_comes_in_pages_of_one_moment(built: World, url: str) -> None:
    _, first = get(f"{url}/api/v1/nodes", limit="2")
    assert [item["metadata"]["name"] for item in first["items"]] == ["n1", "n2"]
    assert first["metadata"]["remainingItemCount"] == 3
    built.kubernetes.delete(NODES, "", "n5", "")

    _, second = get(f"{url}/api/v1/nodes", limit="9", **{"continue": first["metadata"]["continue"]})

    assert [item["metadata"]["name"] for item in second["items"]] == ["n3", "n4", "n5"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "continue" not in second["metadata"]


def test_a_page_of_a_forgotten_list_is_gone(url: str) -> None:
    status, body = get(f"{url}/api/v1/nodes", **{"continue": "bm9uc2Vuc2U="})

    assert (status, body["code"], body["reason"]) == (410, 410, "Expired")


def test_a_watch_streams_changes_while_they_happen(built: World, url: str) -> None:
    version = built.kubernetes.list(NODES).resource_version
    fields = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "20"}
    with urllib3.PoolManager(timeout=20.0, retries=False) as pool:
        stream = pool.request("GET", f"{url}/api/v1/nodes", fields=fields, preload_content=False)
        built.kubernetes.patch(NODES, "", "n1", {"metadata": {"labels": {"a": "b"}}})
        event = json.loads(next(iter(stream)))
        stream.close()

    assert event["type"] == "MODIFIED"
    assert event["object"]["kind"] == "Node"
    assert event["object"]["metadata"]["labels"]["a"] == "b"


def test_a_watch_from_before_the_history_is_an_error_event(built: World, url: str) -> None:
    built.server.store.compact()
    with urllib3.PoolManager(timeout=20.0, retries=False) as pool:
        fields = {"watch": "1", "resourceVersion": "1", "timeoutSeconds": "1"}
        event = json.loads(pool.request("GET", f"{url}/api/v1/nodes", fields=fields).data)

    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


def test_a_watch_ends_with_a_bookmark_after_its_time(built: World, url: str) -> None:
    version = built.kubernetes.list(NODES).resource_version
    fields = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "0.1", "allowWatchBookmarks": "true"}
    with urllib3.PoolManager(timeout=20.0, retries=False) as pool:
        event = json.loads(pool.request("GET", f"{url}/api/v1/nodes", fields=fields).data)

    assert event == {
        "type": "BOOKMARK",
        "object": {"kind": "Node", "apiVersion": "v1", "metadata": {"resourceVersion": version}},
    }


def test_a_mark_is_sent_after_everything_that_has_happened(built: World) -> None:
    with HttpApi(built.server.store) as api, urllib3.PoolManager(timeout=20.0, retries=False) as pool:
        version = built.kubernetes.list(NODES).resource_version
        fields = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "20", "allowWatchBookmarks": "1"}
        stream = pool.request("GET", f"{api.url}/api/v1/nodes", fields=fields, preload_content=False)
        for number in range(20):
            built.kubernetes.patch(NODES, "", "n1", {"metadata": {"labels": {"a": str(number)}}})

        assert api.mark({NODES}, 5.0)
        lines = iter(stream)
        values = [json.loads(next(lines))["object"]["metadata"]["labels"]["a"] for _ in range(20)]
        assert values == [str(number) for number in range(20)]
        assert json.loads(next(lines))["type"] == "BOOKMARK"
        stream.close()


def test_a_mark_to_a_kind_that_nobody_watches_is_not_sent(built: World) -> None:
    with HttpApi(built.server.store) as api:
        assert not api.mark({NODES}, 0.01)


def test_another_path_is_not_found(url: str) -> None:
    status, body = get(f"{url}/api/v1/{CONFIGMAPS.plural}")

    assert (status, body["reason"]) == (404, "NotFound")
