"""Runs the optimizer in a process of its own, with a deadline and a memory limit, and checks what comes back.

A solver that crashes, hangs, eats the memory or answers nonsense must not take the planner with it: each ends as a
`SolverError` with a reason. cvxpy is loaded in the child alone. The two speak over pipes in frames (eight bytes of
length, then a pickle): one request in; progress, and at last one plan or one refusal out. A byte after the request
asks the child for the best plan so far.
"""

from __future__ import annotations

import copyreg
import gc
import io
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from planner.errors import BadSettings, SolverError, WrongPlan
from planner.model.cluster import Node, Pod
from planner.model.effort import Effort, Progress, Watch, never
from planner.model.inputs import PlanningInputs
from planner.model.plan import Plan
from planner.model.resources import Resources
from planner.settings import OptimizerSettings

if TYPE_CHECKING:
    from planner.verifier import Examination

Optimize = Callable[[PlanningInputs, Effort, Watch], Plan]
_LENGTH = struct.Struct("!Q")
_HURRY = b"h"
_LOOKS_SECONDS = 0.1
"""How often it is asked whether the best plan so far is wanted."""


@dataclass(frozen=True, slots=True)
class Worker:
    """The child: the module that `python -m` runs, and how long after the time limit it is ended by force.

    The optimizer keeps its own time limit within half a second; the grace is for a busy machine, for the plans that
    need no solver, which are made whatever the limit (12 s for 150,000 pods on an idle one), and for the way back. A
    plan that comes late is better than none.
    """

    module: str = "planner.solving"
    grace_seconds: float = 30.0
    grace_seconds_per_pod: float = 0.0005

    def grace(self, pods: int) -> float:
        """Return the grace for a cluster of so many pods, in seconds."""
        return self.grace_seconds + self.grace_seconds_per_pod * pods


class Child:
    """The child from its start on: it loads its solver and waits for its one request; `with` ends it for good."""

    def __init__(self, worker: Worker = Worker()) -> None:
        self.worker = worker
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  # `with` on the child closes it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", worker.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)},
            # Ctrl-C reaches the planner alone, which then asks the child for its plan or ends it.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self.answers = self._process.stdin, self._process.stdout

    def __enter__(self) -> Child:
        """Return the child."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child, KeyboardInterrupt included; a second time does nothing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self.answers):
            # What a dead child did not read cannot be flushed any more.
            with suppress(BrokenPipeError):
                pipe.close()
        self._complaints.close()

    def ask(self, request: bytes) -> None:
        """Send the request, at the pace at which the child reads it."""
        self._sending = threading.Thread(target=self._send, args=(_LENGTH.pack(len(request)) + request,), daemon=True)
        self._sending.start()

    def hurry(self) -> bool:
        """Ask for the best plan so far; False while the request is still on its way."""
        if self._sending.is_alive():
            return False
        # A child that is gone, or reads nothing any more, is noticed by who reads its answers.
        os.set_blocking(self._requests.fileno(), False)
        with suppress(BrokenPipeError, BlockingIOError):
            os.write(self._requests.fileno(), _HURRY)
        return True

    def _send(self, request: bytes) -> None:
        # The pipe stays open afterwards: its end tells the child that the parent is gone. A child that died first
        # is noticed by who reads its answers.
        with suppress(BrokenPipeError, ValueError):
            self._requests.write(request)
            self._requests.flush()

    def crash(self) -> str:
        """Say how the child, which closed its pipe, ended."""
        status = self._process.wait()
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit code {status}"
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return f"the solver's process ended {how} without a plan" + (f": {lines[-1]}" if lines else "")


@dataclass(slots=True)
class _Patience:
    """How long the child is waited for: until the deadline, or the grace after its plan was wanted at once."""

    deadline: float
    grace_seconds: float
    wanted: Callable[[], bool]
    _hurried: bool = False

    def hurried(self) -> bool:
        """Say whether the plan is wanted at once, and from then on wait for the grace alone."""
        if not self._hurried and self.wanted():
            self._hurried = True
            self.deadline = min(self.deadline, time.monotonic() + self.grace_seconds)
        return self._hurried


def solve(
    examination: Examination,
    settings: OptimizerSettings,
    report: Callable[[Progress], None],
    hurried: Callable[[], bool] = never,
    child: Child | None = None,
) -> Plan:
    """Return the optimizer's plan of the examination's inputs once the examination found nothing wrong with it.

    The time limit counts from the call; once `hurried` says so, the best plan so far is asked for as if it had come.
    The child, started before or else now, is gone when this returns or raises, KeyboardInterrupt included.

    Raises:
        BadSettings: the solver is not installed.
        SolverError: the child crashed, hung, ran out of memory or refused.
        WrongPlan: its plan does not check.
    """
    deadline = time.monotonic() + settings.time_limit_seconds
    effort = Effort(settings.solver, settings.time_limit_seconds, settings.target_gap)
    with child or Child() as running:
        grace = running.worker.grace(len(examination.inputs.snapshot.pods))
        running.ask(_packed((examination.inputs, effort, deadline, settings.memory_limit_bytes)))
        patience = _Patience(deadline + grace, grace, hurried)
        # The child is busy now, and this process is not.
        examination.prepare()
        plan = _converse(running, patience, report)
        if plan is None:
            raise SolverError(running.crash())
    value, bound = plan.objective.value_nanousd_per_hour, plan.objective.lower_bound_nanousd_per_hour
    # A NaN or an infinity is no whole number.
    if not (isinstance(bound, int) and bound <= value):
        raise SolverError(f"the optimizer claims a lower bound of {bound} nanodollars per hour for a plan of {value}")
    if problems := examination.problems(plan):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WrongPlan(f"the plan fails the independent check: {problems[0]}{more}")
    return plan


def _taken_apart(
    kind: type[object], values: Callable[[object], tuple[object, ...]], made: object
) -> tuple[type[object], tuple[object, ...]]:
    return kind, values(made)


class _Packer(pickle.Pickler):
    """Takes a frozen dataclass with slots apart in C; what Python itself gives such a class goes field by field."""

    dispatch_table = copyreg.dispatch_table | {
        kind: partial(_taken_apart, kind, attrgetter(*(field.name for field in fields(kind))))
        for kind in (Pod, Node, Resources)
    }


def _packed(request: object) -> bytes:
    """Return the pickle of a request, in which a large cluster's pods and nodes take half of the time to go."""
    body = io.BytesIO()
    _Packer(body, pickle.HIGHEST_PROTOCOL).dump(request)
    return body.getvalue()


@contextmanager
def kept_from_collection() -> Iterator[None]:
    """Look for no garbage among what comes to be inside, neither now nor later: inputs are large, and they stay."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def serve(optimize: Optimize) -> None:
    """Be the child: answer the one request on standard input with this optimizer."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Solvers print where they like; only frames may reach the parent.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    head = sys.stdin.buffer.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        # The parent went without a request.
        return
    length = _LENGTH.unpack(head)[0]
    with kept_from_collection():
        inputs, effort, deadline, memory_limit_bytes = pickle.loads(sys.stdin.buffer.read(length))
    hurried = threading.Event()
    threading.Thread(target=_hear_parent, args=(hurried,), daemon=True).start()
    _limit_memory(memory_limit_bytes)

    def send(*answer: object) -> None:
        body = pickle.dumps(answer)
        answers.write(_LENGTH.pack(len(body)) + body)
        answers.flush()

    left = max(0.0, deadline - time.monotonic())
    limited = Effort(effort.solver, left, effort.target_gap)
    try:
        watch = Watch(time.monotonic, lambda progress: send("progress", progress), hurried.is_set)
        plan = optimize(inputs, limited, watch)
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


def _converse(child: Child, patience: _Patience, report: Callable[[Progress], None]) -> Plan | None:
    """Read answers until the plan; None where the child ended without one."""
    asked = False
    for answer in _answers(child.answers, patience):
        asked = asked or (patience.hurried() and child.hurry())
        match answer:
            case None:
                continue
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


def _answers(stream: IO[bytes], patience: _Patience) -> Iterator[Any]:
    """Yield the child's answers until it closes the pipe, and None now and then; raises SolverError at the deadline."""
    buffer = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            while len(buffer) >= _LENGTH.size:
                end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
                if len(buffer) < end:
                    break
                yield _unpacked(bytes(buffer[_LENGTH.size : end]))
                del buffer[:end]
            left = patience.deadline - time.monotonic()
            if left <= 0:
                raise SolverError("the solver gave no answer within its time limit and was ended")
            if not selector.select(min(left, _LOOKS_SECONDS)):
                yield None
                continue
            part = os.read(stream.fileno(), 1 << 16)
            if not part:
                return
            buffer += part
            yield None


def _unpacked(body: bytes) -> object:
    try:
        return pickle.loads(body)
    except Exception as error:  # Bytes that are no pickle may raise anything.
        raise SolverError("the solver's process gave an answer that is none") from error


def _hear_parent(hurried: threading.Event) -> None:
    """Note that the parent is in a hurry; end at the end of standard input, which comes when the parent is gone."""
    while sys.stdin.buffer.read(1):
        hurried.set()
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
