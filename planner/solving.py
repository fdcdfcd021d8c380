"""Runs the optimizer in a process of its own, with a deadline and a memory limit, and checks what comes back.

A solver that crashes, hangs, eats the memory or answers nonsense must not take the planner with it: each ends as a
`SolverError` with a reason. cvxpy is loaded in the child alone. The two speak over pipes in frames (eight bytes of
length, then a pickle): one request in; progress, and at last one plan or one refusal out.
"""

from __future__ import annotations

import os
import pickle
import resource
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from planner.errors import BadSettings, SolverError, WrongPlan
from planner.model.effort import Effort, Progress, Watch
from planner.model.inputs import PlanningInputs
from planner.model.plan import Plan
from planner.settings import OptimizerSettings

Optimize = Callable[[PlanningInputs, Effort, Watch], Plan]
_LENGTH = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class Worker:
    """The child: the module that `python -m` runs, and how long after the time limit it is ended by force.

    The optimizer keeps its own time limit; the grace is for its last round of pricing (5 s for 1,000 nodes on an idle
    machine, more on a busy one) and the way back. A plan that comes late is better than none.
    """

    module: str = "planner.solving"
    grace_seconds: float = 30.0


_WORKER = Worker()


def solve(
    inputs: PlanningInputs,
    settings: OptimizerSettings,
    report: Callable[[Progress], None],
    worker: Worker = _WORKER,
) -> Plan:
    """Return the optimizer's plan once an independent check found nothing wrong with its placement.

    The time limit counts from the call. The child is gone when this returns or raises, KeyboardInterrupt included.

    Raises:
        BadSettings: the solver is not installed.
        SolverError: the child crashed, hung, ran out of memory or refused.
        WrongPlan: its plan does not check.
    """
    from planner.verifier import check_placement

    deadline = time.monotonic() + settings.time_limit_seconds
    effort = Effort(settings.solver, settings.time_limit_seconds, settings.target_gap)
    request = pickle.dumps((inputs, effort, deadline, settings.memory_limit_bytes))
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            [sys.executable, "-m", worker.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)},
            # Ctrl-C reaches the planner alone, which then ends the child.
            start_new_session=True,
        )
        try:
            plan = _converse(child, request, deadline + worker.grace_seconds, report)
            if plan is None:
                child.wait()
                raise SolverError(_crash(child.returncode, complaints))
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    _close(pipe)
    if problems := check_placement(plan, inputs):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WrongPlan(f"the plan fails the independent check: {problems[0]}{more}")
    return plan


def serve(optimize: Optimize) -> None:
    """Be the child: answer the one request on standard input with this optimizer."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Solvers print where they like; only frames may reach the parent.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    length = _LENGTH.unpack(sys.stdin.buffer.read(_LENGTH.size))[0]
    inputs, effort, deadline, memory_limit_bytes = pickle.loads(sys.stdin.buffer.read(length))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit_memory(memory_limit_bytes)

    def send(*answer: object) -> None:
        body = pickle.dumps(answer)
        answers.write(_LENGTH.pack(len(body)) + body)
        answers.flush()

    left = max(0.0, deadline - time.monotonic())
    limited = Effort(effort.solver, left, effort.target_gap)
    try:
        plan = optimize(inputs, limited, Watch(time.monotonic, lambda progress: send("progress", progress)))
    except BadSettings as error:
        send("bad settings", str(error))
    except SolverError as error:
        send("refused", str(error))
    except MemoryError:
        send("refused", f"the optimizer ran out of memory (optimizer.memory_limit_bytes is {memory_limit_bytes})")
    except Exception as error:  # noqa: BLE001  # The parent must hear a reason whatever broke.
        send("refused", f"the optimizer failed: {type(error).__name__}: {error}")
    else:
        send("plan", plan)


def _converse(
    child: subprocess.Popen[bytes], request: bytes, deadline: float, report: Callable[[Progress], None]
) -> Plan | None:
    """Send the request and read answers until the plan; None where the child ended without one."""
    assert child.stdin is not None
    assert child.stdout is not None
    sending = threading.Thread(target=_send, args=(child.stdin, _LENGTH.pack(len(request)) + request), daemon=True)
    sending.start()
    for answer in _answers(child.stdout, deadline):
        match answer:
            case ("progress", Progress() as progress):
                report(progress)
            case ("plan", Plan() as plan):
                return plan
            case ("bad settings", str(text)):
                raise BadSettings(text)
            case ("refused", str(text)):
                raise SolverError(text)
            case _:
                raise SolverError("the solver's process gave an answer that is none")
    return None


def _answers(stream: IO[bytes], deadline: float) -> Iterator[Any]:
    """Yield the child's answers until it closes the pipe; raises SolverError at the deadline."""
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            while len(buffer) >= _LENGTH.size:
                end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
                if len(buffer) < end:
                    break
                yield pickle.loads(buffer[_LENGTH.size : end])
                buffer = buffer[end:]
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise SolverError("the solver gave no answer within its time limit and was ended")
            part = os.read(stream.fileno(), 1 << 16)
            if not part:
                return
            buffer += part


def _send(stream: IO[bytes], request: bytes) -> None:
    # The pipe stays open afterwards: its end tells the child that the parent is gone. A child that died first
    # is noticed by who reads its answers.
    try:
        stream.write(request)
        stream.flush()
    except (BrokenPipeError, ValueError):
        return


def _close(pipe: IO[bytes]) -> None:
    # What a dead child did not read cannot be flushed any more.
    try:
        pipe.close()
    except BrokenPipeError:
        return


def _crash(status: int, complaints: IO[bytes]) -> str:
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit code {status}"
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").strip().splitlines()
    return f"the solver's process ended {how} without a plan" + (f": {lines[-1]}" if lines else "")


def _end_with_parent() -> None:
    """Wait for the end of standard input, which comes when the parent is gone, and end too."""
    while sys.stdin.buffer.read(1):
        pass
    os._exit(1)


def _limit_memory(limit_bytes: int) -> None:
    """Limit the address space to what is mapped now and `limit_bytes` more."""
    # Python's own libraries and the solvers' map far more than they use, so only what comes on top is limited.
    statm = Path("/proc/self/statm")
    if not statm.exists():
        # Only Linux tells; elsewhere a person plans from a dump, and the machine's own limits hold.
        return
    mapped = int(statm.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + limit_bytes, hard))


if __name__ == "__main__":
    from planner.optimizer import optimize

    serve(optimize)
