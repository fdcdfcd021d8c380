"""Karpenter's scheduler as a program: built on first use into Kinema's cache, and run for one request."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.optimizer.karpenter.answer import Schedule, faults, schedule_of
from benchmarks.optimizer.karpenter.request import Request, narrowed

_SOURCE = Path(__file__).parent
_FILES = ("go.mod", "go.sum", "main.go")
_BUILD_SECONDS = 40 * 60.0
_PATIENCE_SECONDS = 60.0
"""Setting up and the last pod are not limited by Karpenter itself."""


class NoKarpenter(Exception):
    """The program cannot be built or did not answer; the text says why."""


def build() -> Path:
    """Return the program, keyed by its sources; the first build takes some minutes.

    Raises:
        NoKarpenter: there is no Go, or the build failed.
    """
    digest = hashlib.sha256(b"".join((_SOURCE / name).read_bytes() for name in _FILES)).hexdigest()
    cache = Path(os.environ.get("KINEMA_CACHE") or Path.home() / ".cache" / "kinema") / "karpenter"
    program = cache / digest[:16] / "karpenter"
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        raise NoKarpenter("no Go on the PATH to build Karpenter with")
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        made = Path(folder) / "karpenter"
        command = [go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(made), "."]
        environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}
        try:
            done = subprocess.run(
                command,
                cwd=_SOURCE,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_BUILD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NoKarpenter(f"go build of Karpenter did not end within {_BUILD_SECONDS:g} s") from None
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise NoKarpenter(f"go build of Karpenter failed: {last or f'exit code {done.returncode}'}")
        made.replace(program)  # another run may have done the same
    return program


def ask(asked: Request, limit_seconds: float, cores: int) -> Schedule:
    """Let Karpenter schedule the pods for at most so many seconds.

    Raises:
        NoKarpenter: it cannot be built, ended with an error, or did not end by itself.
    """
    program = build()
    try:
        done = subprocess.run(
            [str(program)],
            input=json.dumps(asked.body(limit_seconds)).encode(),
            env={"GOMAXPROCS": str(cores)},
            capture_output=True,
            timeout=limit_seconds + _PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoKarpenter(f"ended by force after {limit_seconds + _PATIENCE_SECONDS:g} s") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise NoKarpenter(f"Karpenter ended with exit code {done.returncode}: {said}")
    found = schedule_of(asked, done.stdout)
    if wrong := next(faults(asked, found), None):
        raise AssertionError(f"karpenter: {wrong}")
    return found


def best_narrowed(asked: Request, limit_seconds: float, cores: int) -> tuple[str, Schedule] | None:
    """Return the cheapest schedule in which every pod has a place of all narrowed NodePools, and which one it was.

    The limit is for all of them together; those that come after it are not tried.

    Raises:
        NoKarpenter: as ask does.
    """
    best: tuple[str, Schedule] | None = None
    ends = time.monotonic() + limit_seconds
    for name, request in narrowed(asked):
        if (left := ends - time.monotonic()) <= 0:
            break
        found = ask(request, left, cores)
        whole = found.ended and not found.unplaced
        if whole and (best is None or found.price_nanousd_per_hour < best[1].price_nanousd_per_hour):
            best = (name, found)
    return best
