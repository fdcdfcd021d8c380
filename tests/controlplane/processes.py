"""Programs on loopback as processes that die with the one that started them."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)


class ControlPlaneError(RuntimeError):
    """A part of the control plane did not start or a wait ended without its condition; says which."""


@dataclass(frozen=True, slots=True)
class Process:
    """One running program of the control plane, in a process group of its own."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def running(self) -> bool:
        """Tell whether the program still runs."""
        return self.popen.poll() is None

    def stop(self, grace_seconds: float = 5.0) -> None:
        """End the program and whatever it started: SIGTERM, then SIGKILL after the grace; safe to repeat."""
        if self.running() and grace_seconds > 0:
            os.killpg(self.popen.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(grace_seconds)
        if self.running():
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def log_tail(self, lines: int = 15) -> str:
        """Return the end of the program's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def spawn(name: str, command: Sequence[str], folder: Path, log: Path) -> Process:
    """Start a program in the folder; what it prints goes to the log."""
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            # An own group keeps a person's Ctrl-C away from the programs: the context manager ends them.
            process_group=0,
            # The call between fork and exec is one system call and takes no lock that a thread could hold.
            preexec_fn=die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
    return Process(name, popen, log)


def answers_200(url: str, token: str | None) -> bool:
    """Tell whether a URL of this machine answers 200, whoever signed its certificate."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    # Health only: schedulers and the controller manager make certificates that nobody can know beforehand.
    context = ssl._create_unverified_context()
    connection = (
        http.client.HTTPSConnection(host, timeout=5, context=context)
        if scheme == "https"
        else http.client.HTTPConnection(host, timeout=5)
    )
    try:
        connection.request("GET", f"/{path}", headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def free_port() -> int:
    """Return a free port below the range from which the kernel gives ports to clients and to port 0.

    Between this look and the program's own bind nobody else asks for the port by chance, as would happen
    with a port that the kernel itself had given.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise ControlPlaneError("no free port between 20000 and 32000")


def die_with_parent() -> None:
    """Let the process that is about to be started end with the thread that starts it."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
