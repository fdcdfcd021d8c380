"""Runs one command and measures it: `gauge.py REPORT CEILING CORES COMMAND …`, standard library alone.

A process of its own and small on purpose: what Linux reports as a child's peak memory starts with the memory of the
process that started it. The report is one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

_PAUSE_SECONDS = 0.05


def main(report: str, ceiling_seconds: float, cores: int, command: list[str]) -> None:
    """Run the command on so many cores and write what it took; end it, and what it started, at the ceiling.

    `peak_bytes` is the largest sum of the resident memory of the command and everything below it, looked at every
    50 ms (pages that they share count for each), and not less than the peak of the largest process.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    began = time.monotonic()
    child = subprocess.Popen(command)
    peak, ended = 0, False
    while child.poll() is None:
        family = _family(child.pid)
        peak = max(peak, sum(_resident_bytes(pid) for pid in family))
        if time.monotonic() - began > ceiling_seconds:
            ended = True
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_PAUSE_SECONDS)
    seconds = time.monotonic() - began
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    measured = {"seconds": seconds, "peak_bytes": max(peak, largest), "exit_code": child.returncode, "ended": ended}
    Path(report).write_text(json.dumps(measured))


def _family(pid: int) -> list[int]:
    """Return the process and everything below it; on systems without /proc the process alone."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
