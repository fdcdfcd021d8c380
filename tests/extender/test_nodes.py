"""The cache against an API server over HTTP: list, watch, 410, outages, restart."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import msgspec
import pytest

from extender import nodes
from extender.nodes import Cache, Feed
from extender.objects import PodObject
from extender.settings import ExtenderSettings, SettingsError
from extender.wire import NameCandidates
from tests.extender.building import HandClock, Json, node, pod, replicaset, target
from tests.extender.fake_api import FakeApi
from tests.extender.serving import eventually

WEB = "shop/Deployment/web"


def place(cache: Cache, thing: Json, *names: str) -> tuple[str, ...]:
    verdict = cache.state.filter(msgspec.convert(thing, PodObject), NameCandidates(msgspec.json.encode(names)))
    assert verdict is not None
    return names if verdict.allowed is None else verdict.allowed


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as running:
        running.put("nodes", node("a", target(WEB, 2, uid="uid-of-web")))
        running.put("nodes", node("b"))
        running.put("replicasets", replicaset("web", uid="uid-of-web"))
        running.put("pods", pod("old", on="a"))
        yield running


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def cache(api: FakeApi, clock: HandClock) -> Iterator[Cache]:
    running = Cache.connect(ExtenderSettings(api_server=api.url, stale_seconds=30.0), clock.clock())
    assert not running.is_ready()
    running.start()
    eventually(running.is_ready, "the lists to be read")
    eventually(lambda: all(api.count(name, watch=True) > 0 for name in api.objects), "the watches to begin")
    yield running
    running.close()


def test_after_the_lists_targets_are_counted_from_the_api(cache: Cache) -> None:
    # want 2 - 1 pod that stands = 1
    assert cache.state.open_targets() == 1
    assert place(cache, pod("p"), "a", "b") == ("a",)


def test_replicasets_are_asked_for_by_their_metadata_alone(api: FakeApi, cache: Cache) -> None:
    assert "as=PartialObjectMetadata" in api.accepts["replicasets"]
    assert api.accepts["pods"] == "application/json"


def test_events_change_what_is_known(api: FakeApi, cache: Cache) -> None:
    api.put("pods", pod("new", on="a"))
    eventually(lambda: cache.state.open_targets() == 0, "the new pod to be counted")
    api.delete("pods", "old")
    eventually(lambda: cache.state.open_targets() == 1, "the old pod to be gone")
    api.put("nodes", node("a", target(WEB, 5)))
    eventually(lambda: cache.state.open_targets() == 4, "the target to grow to 5 - 1 = 4")
    api.delete("nodes", "a")
    eventually(lambda: cache.state.open_targets() == 0, "the node to be gone")


def test_pods_that_come_before_their_replicaset_are_counted_once_it_is_seen(api: FakeApi, cache: Cache) -> None:
    bare = replicaset("api", uid="uid-of-api")
    early = pod("early", "Deployment/api", on="b")
    early["metadata"]["labels"] = {}
    api.put("pods", early)
    api.put("nodes", node("b", target("shop/Deployment/api", 1, uid="uid-of-api")))
    # web 1 + api 1, as long as nobody knows whose pod it is.
    eventually(lambda: cache.state.open_targets() == 2, "the target to be seen")
    api.put("replicasets", bare)
    eventually(lambda: cache.state.open_targets() == 1, "the pod to be known as one of api")


def test_a_pod_keeps_its_workload_when_its_replicaset_is_deleted_before_it(api: FakeApi, cache: Cache) -> None:
    api.delete("replicasets", "web-7d4f")
    touched = pod("old", on="a")
    touched["metadata"]["labels"] = {"touched": "yes"}
    api.put("pods", touched)
    api.put("nodes", node("a", target(WEB, 9, uid="uid-of-web")))
    # 9 - 1: the old pod is still one of web.
    eventually(lambda: cache.state.open_targets() == 8, "the grown target")


@pytest.mark.parametrize("is_unlike", [False, True], ids=["as the API server writes", "written otherwise"])
def test_pages_are_read_whole_before_the_cache_is_ready(
    api: FakeApi, clock: HandClock, monkeypatch: pytest.MonkeyPatch, is_unlike: bool
) -> None:
    monkeypatch.setattr(nodes, "PAGE_SIZE", 2)
    api.is_unlike = is_unlike
    for number in range(5):
        api.put("pods", pod(f"more-{number}", on="b"))
    api.put("nodes", node("b", target(WEB, 9)))
    cache = Cache.connect(ExtenderSettings(api_server=api.url), clock.clock())
    cache.start()
    eventually(cache.is_ready, "three pages")
    # a: 2 - 1, b: 9 - 5
    assert cache.state.open_targets() == 1 + 4
    cache.close()


def test_a_watch_that_ends_is_resumed_where_it_was(api: FakeApi, cache: Cache) -> None:
    api.bookmark("pods")
    marked = str(api.version)
    api.put("nodes", node("c", target(WEB, 1)))
    eventually(lambda: cache.state.open_targets() == 2, "the events before")
    api.drop_watches()
    api.put("pods", pod("new", on="a"))
    eventually(lambda: cache.state.open_targets() == 1, "the event after")
    assert [api.count(name, watch=False) for name in ("nodes", "pods")] == [1, 1]
    resumed = [query["resourceVersion"] for name, query in api.requests if name == "pods" and "watch" in query]
    assert resumed[1] == marked


def test_410_lists_again_and_forgets_what_went_meanwhile(api: FakeApi, cache: Cache) -> None:
    place(cache, pod("promised"), "a", "b")
    assert cache.state.reservations() == 1
    with api.changed:
        # Both happen while nobody watches: the deletion is never sent.
        del api.objects["pods"]["old"]
        api.put("pods", pod("other", on="b"))
        api.compact()
    eventually(lambda: api.count("pods", watch=False) == 2, "a second list")
    # want 2 - 0 pods - 1 reservation = 1; the reservation of a pod not seen yet outlives the list.
    eventually(lambda: cache.state.open_targets() == 1, "the list to replace what was known")
    assert cache.state.reservations() == 1
    assert cache.is_ready()


def test_an_outage_makes_it_stale_after_the_limit_and_fresh_again_afterwards(
    api: FakeApi, cache: Cache, clock: HandClock
) -> None:
    api.stop()
    eventually(lambda: any(feed.is_broken for feed in cache._feeds), "the outage to be noticed")
    assert not cache.is_stale()
    clock.now += 31
    assert cache.is_stale()
    assert cache.age_seconds() == 31
    # What is known is still there, and readiness of the lists does not go away.
    assert cache.is_ready()
    with api.changed:
        api.put("pods", pod("new", on="a"))
    api.start()
    eventually(lambda: not cache.is_stale(), "the watches to be resumed")
    eventually(lambda: cache.state.open_targets() == 0, "what happened meanwhile")


def test_quiet_watches_that_stand_are_not_stale(cache: Cache, clock: HandClock) -> None:
    clock.now += 3600
    assert not cache.is_stale()
    assert cache.age_seconds() == 3600


def test_refused_lists_leave_it_unready_until_they_are_allowed(api: FakeApi, clock: HandClock) -> None:
    api.status = 403
    cache = Cache.connect(ExtenderSettings(api_server=api.url), clock.clock())
    cache.start()
    eventually(lambda: all(api.count(name, watch=False) >= 2 for name in api.objects), "a second try of each")
    assert not cache.is_ready()
    api.status = 200
    eventually(cache.is_ready, "the lists to be allowed")
    cache.close()


def test_an_object_that_cannot_be_read_does_not_hide_the_others(api: FakeApi, cache: Cache) -> None:
    broken = pod("broken", on="a")
    broken["spec"]["containers"] = "none"
    api.put("pods", broken)
    api.put("pods", pod("new", on="a"))
    eventually(lambda: cache.state.open_targets() == 0, "the pod behind the broken ones")
    assert api.count("pods", watch=False) == 1


def test_a_list_with_objects_that_cannot_be_read_shows_the_others(api: FakeApi, clock: HandClock) -> None:
    for number, key in enumerate(("containers", "ownerReferences", "phase")):
        broken = pod(f"broken-{number}", on="a")
        part = {"containers": "spec", "ownerReferences": "metadata", "phase": "status"}[key]
        broken[part][key] = 7
        api.put("pods", broken)
    api.put("pods", pod("behind", on="a"))
    cache = Cache.connect(ExtenderSettings(api_server=api.url), clock.clock())
    cache.start()
    eventually(cache.is_ready, "the lists to be read")
    # want 2 - old - behind = 0
    assert cache.state.open_targets() == 0
    assert api.count("pods", watch=False) == 1
    cache.close()


def test_a_page_that_is_no_list_leaves_it_unready(
    api: FakeApi, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Feed, "_get", lambda *_, **__: SimpleNamespace(data=b'{"metadata": {}, "items": [{"metadata"'))
    cache = Cache.connect(ExtenderSettings(api_server=api.url), clock.clock())
    cache.start()
    eventually(lambda: all(feed.is_broken for feed in cache._feeds), "the pages to be refused")
    assert not cache.is_ready()
    cache.close()


def test_after_a_restart_the_count_comes_from_the_api(api: FakeApi, cache: Cache, clock: HandClock) -> None:
    assert place(cache, pod("p1"), "a", "b") == ("a",)
    cache.close()
    again = Cache.connect(ExtenderSettings(api_server=api.url), clock.clock())
    again.start()
    eventually(again.is_ready, "the lists to be read again")
    # The reservation of p1 is forgotten: at most what was in flight is given away twice.
    assert (again.state.reservations(), again.state.open_targets()) == (0, 1)
    again.close()


def test_without_a_kubeconfig_it_says_which_one_is_missing() -> None:
    with pytest.raises(SettingsError, match="EXTENDER_KUBECONFIG=/nowhere/kubeconfig"):
        Cache.connect(ExtenderSettings(kubeconfig="/nowhere/kubeconfig"))
