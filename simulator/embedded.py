"""The real extender inside the process, fed with every change at once: for tests that need no second process."""

from __future__ import annotations

from typing import Final

import msgspec
from flask.testing import FlaskClient

from extender.app import create_app
from extender.nodes import Cache
from extender.objects import Node, PodObject, ReplicaSet
from extender.settings import ExtenderSettings
from extender.state import Clock, State
from planner.ports import NODES, PODS, REPLICASETS, Resource
from simulator.api import ApiServer
from simulator.extenders import Extender, ExtenderFault
from simulator.store import Change

_nodes: Final = msgspec.json.Decoder(Node)
_pods: Final = msgspec.json.Decoder(PodObject)
_replicasets: Final = msgspec.json.Decoder(ReplicaSet)


class EmbeddedTransport:
    """Carries requests to an application in the same process, as bytes through its routes."""

    def __init__(self, client: FlaskClient) -> None:
        """Ask this application."""
        self._client = client

    def post(self, verb: str, body: bytes) -> bytes:
        """Send one request."""
        answer = self._client.post(f"/{verb}", data=body, content_type="application/json")
        if answer.status_code != 200:
            raise ExtenderFault(f"{verb}: HTTP {answer.status_code}")
        received: bytes = answer.data
        return received


def embedded_extender(server: ApiServer) -> Extender:
    """Return the real extender on a simulated cluster, by the simulated clock."""
    settings = ExtenderSettings()
    state = State(Clock(server.clock.now, server.clock.now), settings.reservation_seconds)
    cache = Cache(state, (), settings.stale_seconds)
    for resource in (NODES, REPLICASETS, PODS):
        for entry in server.store.entries(resource):
            _take_in(state, resource, "ADDED", entry.raw)
    cache.is_ready()
    server.store.subscribe(lambda change: _follow(state, change))
    return Extender(EmbeddedTransport(create_app(settings, cache).test_client()))


def _follow(state: State, change: Change) -> None:
    _take_in(state, change.resource, change.type, change.raw)


def _take_in(state: State, resource: Resource, kind: str, raw: bytes) -> None:
    is_gone = kind == "DELETED"
    if resource == NODES:
        node = _nodes.decode(raw)
        state.drop_node(node.metadata.name) if is_gone else state.put_node(node)
    elif resource == PODS:
        pod = _pods.decode(raw)
        state.drop_pod(pod.metadata.uid) if is_gone else state.put_pod(pod)
    elif resource == REPLICASETS:
        replicaset = _replicasets.decode(raw)
        state.drop_replicaset(replicaset.metadata.uid) if is_gone else state.put_replicaset(replicaset)
