"""Filter calls without a scheduler: CPU of the worker, latency for one caller over loopback, memory."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.extender.population import Size, node_name, pod
from benchmarks.extender.programs import Extender

WARM_UP: Final = 50


@dataclass(frozen=True, slots=True)
class Calls:
    """What many calls of one kind showed; CPU is that of the worker, all its threads, user and system."""

    kind: str
    calls: int
    cpu_milliseconds: float
    p50_milliseconds: float
    p99_milliseconds: float
    body_bytes: int
    memory_bytes: int


def measure(extender: Extender, size: Size, kind: str, owners: dict[str, str], calls: int) -> Calls:
    """Send filter requests with every node's name one after the other over one connection."""
    names = [node_name(index) for index in range(size.nodes)]
    # Go's encoder writes no spaces.
    bodies = [
        json.dumps(
            {"Pod": pod(f"{kind}-call-{index}", kind, owners), "Nodes": None, "NodeNames": names},
            separators=(",", ":"),
        ).encode()
        for index in range(WARM_UP + calls)
    ]
    worker = extender.processes()[-1]
    latencies = []
    with socket.create_connection(("127.0.0.1", extender.port), timeout=30) as connection:
        for body in bodies[:WARM_UP]:
            _ask(connection, body)
        before = _cpu_nanoseconds(worker)
        for body in bodies[WARM_UP:]:
            started = time.perf_counter()
            _ask(connection, body)
            latencies.append(time.perf_counter() - started)
        spent = _cpu_nanoseconds(worker) - before
    latencies.sort()
    return Calls(
        kind,
        calls,
        spent / calls / 1e6,
        latencies[len(latencies) // 2] * 1e3,
        latencies[-max(1, len(latencies) // 100)] * 1e3,
        len(bodies[-1]),
        _memory_bytes(worker),
    )


def _ask(connection: socket.socket, body: bytes) -> dict[str, Any]:
    head = f"POST /filter HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    connection.sendall(f"{head}\r\n\r\n".encode() + body)
    got = connection.recv(1 << 20)
    while b"\r\n\r\n" not in got:
        got += connection.recv(1 << 20)
    headers, _, rest = got.partition(b"\r\n\r\n")
    length = int(headers.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    parts, missing = [rest], length - len(rest)
    while missing:
        parts.append(connection.recv(min(missing, 1 << 20)))
        missing -= len(parts[-1])
    answer: dict[str, Any] = json.loads(b"".join(parts)) if length < 1 << 14 else {}
    return answer


def _cpu_nanoseconds(process: int) -> int:
    tasks = Path(f"/proc/{process}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def _memory_bytes(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
