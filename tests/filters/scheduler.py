"""The real kube-scheduler's filters as a child process: tests/controlplane/go/kubernetes/filtercheck."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object as `kubectl get -o json` prints it."""

Wish: TypeAlias = tuple[int, Sequence[str]]
"""A pod without a node, by its index, and the nodes that it may get, the best first."""


@dataclass(frozen=True, slots=True)
class State:
    """One state of a cluster: the objects that the filters look at."""

    nodes: Sequence[Object]
    pods: Sequence[Object]
    volumes: Sequence[Object] = ()
    claims: Sequence[Object] = ()
    namespaces: Sequence[Object] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A pod that its own node would not get, were the pod made anew; the filter that says so, and why."""

    pod: str
    node: str
    plugin: str
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.pod} on {self.node}: {self.plugin}: {'; '.join(self.reasons)}"


class Filters:
    """One running checker; each call asks it about one state."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Filters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def refusals(self, state: State, check: Sequence[int] | None = None) -> list[Refusal]:
        """Return which of the pods (by index; without any, all that have a node) would not be admitted again."""
        found = self._ask(state, {} if check is None else {"check": list(check)})
        return [Refusal(r["pod"], r["node"], r["plugin"], tuple(r["reasons"] or ())) for r in found]

    def place(self, state: State, wishes: Sequence[Wish]) -> list[str]:
        """Return where each pod gets a place, one after the other; "" where none of its nodes admits it."""
        answer: list[str] = self._ask(state, {"place": [{"pod": pod, "nodes": list(nodes)} for pod, nodes in wishes]})
        return answer

    def _ask(self, state: State, question: Object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {
            "nodes": state.nodes,
            "pods": state.pods,
            "persistentVolumes": state.volumes,
            "persistentVolumeClaims": state.claims,
            "namespaces": state.namespaces,
        }
        self._process.stdin.write(json.dumps(asked | question).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"filtercheck ended with {self._process.wait()}; its last words are above")
        return json.loads(line)
