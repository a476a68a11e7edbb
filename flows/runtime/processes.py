"""Run child processes whose whole trees end when we do, in whatever way we end.

`torchrun` starts every rank in a session of its own, so ending its process group would leave the ranks behind
(with their GPU). Prefect's timeouts cannot interrupt a thread that waits for a line of output, so a child that has gone
silent is ended here.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Protocol

from flows.runtime.job_client import can_fork, fork_job

GRACE_S = 25.0
"""Between the request to end, upon which a training saves its state, and the kill. A Prefect worker kills the flow 5 s later."""

# Looked up before any fork: a forked child of a threaded process must not load libraries.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


class ChildFailed(RuntimeError):
    """A child process ended badly; `reason` says how, `last_lines` are its last words, `was_killed` whether a signal ended it."""

    def __init__(self, reason: str, last_lines: list[str], was_killed: bool = False) -> None:
        super().__init__("\n".join([reason, *last_lines]))
        self.reason = reason
        self.last_lines = last_lines
        self.was_killed = was_killed


def stream(
    command: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    stall_s: float | None = None,
    grace_s: float = GRACE_S,
) -> None:
    """Run `command` to its end and pass every line it prints (both streams) to `on_line`.

    Raises `ChildFailed` when it exits with another status than 0 or prints nothing for `stall_s` seconds.
    Any exception here, Ctrl-C and Prefect's cancellation included, first ends the child and all it started.
    """
    for failure in stream_together([Command(command, env or {})], lambda _, line: on_line(line), stall_s=stall_s, grace_s=grace_s):
        if failure is not None:
            raise failure


def stream_together(
    commands: Sequence["Command"], on_line: Callable[[int, str], None], *, stall_s: float | None = None, grace_s: float = GRACE_S
) -> list[ChildFailed | None]:
    """As `stream`, for several commands side by side; `on_line` is told the number of the one that speaks.

    One that fails does not disturb the others. Returns how each failed, or None.
    """
    children: list[_Child] = []
    lines: SimpleQueue[tuple[_Child, str | None]] = SimpleQueue()
    try:
        for command in commands:
            children.append(_Child(len(children), command, lines))
        while any(child.is_talking for child in children):
            with contextlib.suppress(Empty):  # in this thread: Prefect's signals and contexts belong to it
                child, line = lines.get(timeout=min(1.0, stall_s / 4) if stall_s else None)
                child.hear(line)
                if line is not None:
                    on_line(child.number, line)
            for child in children:
                if stall_s and child.is_talking and not child.has_stalled and time.monotonic() - child.heard > stall_s:
                    child.has_stalled = True
                    kill_tree(child.process, grace_s)
        return [child.failure(stall_s) for child in children]
    except BaseException:
        kill_trees([child.process for child in children], grace_s)
        raise
    finally:
        for child in children:
            child.close()


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments, and what to add to its environment."""

    arguments: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    imports: Sequence[str] | None = None
    """For `python -m MODULE …` of this Python: what it imports. It may then be forked from a process that has imported that."""


class _Child:
    """A running command whose lines a thread puts into a queue; None at their end."""

    def __init__(self, number: int, command: Command, lines: "SimpleQueue[tuple[_Child, str | None]]") -> None:
        self.number = number
        self.is_talking, self.has_stalled, self.heard = True, False, time.monotonic()
        self._last_lines: deque[str] = deque(maxlen=20)
        self.process = _start(command)
        self._reader = threading.Thread(target=self._read, args=(lines,), daemon=True, name="child-reader")
        self._reader.start()

    def _read(self, lines: "SimpleQueue[tuple[_Child, str | None]]") -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            lines.put((self, line.rstrip("\n")))
        lines.put((self, None))

    def hear(self, line: str | None) -> None:
        """Take note of a line, or of their end."""
        self.heard, self.is_talking = time.monotonic(), line is not None
        if line is not None:
            self._last_lines.append(line)

    def failure(self, stall_s: float | None) -> ChildFailed | None:
        """How it failed, if so; waits for its end."""
        status = self.process.wait()
        if self.has_stalled:
            return ChildFailed(f"it printed nothing for {stall_s:g} s and was ended", list(self._last_lines))
        return ChildFailed(_describe_status(status), list(self._last_lines), status < 0) if status else None

    def close(self) -> None:
        """Give back the thread and the pipe of a process that has ended."""
        self._reader.join(1.0)
        assert self.process.stdout is not None
        if not self._reader.is_alive():  # else something that escaped us still holds the other end
            self.process.stdout.close()


class Process(Protocol):
    """A running process: `subprocess.Popen`, or a job of a job server."""

    @property
    def pid(self) -> int: ...

    @property
    def stdout(self) -> IO[str] | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


def _start(command: Command) -> Process:
    """Start it in a session of its own, both streams in one pipe; it ends with this process."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **command.env}
    if command.imports is not None and can_fork():
        module, arguments = command.arguments[2], command.arguments[3:]
        if (job := fork_job(module, arguments, environment, command.imports)) is not None:
            return job
    return subprocess.Popen(
        list(command.arguments),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )


def kill_tree(child: Process, grace_s: float = GRACE_S) -> None:
    """Ask the child to end, wait `grace_s` seconds, then kill it and everything it started."""
    kill_trees([child], grace_s)


def kill_trees(children: Sequence[Process], grace_s: float = GRACE_S) -> None:
    """`kill_tree` of several children, whose `grace_s` seconds run at the same time."""
    started = [descendants(child.pid) for child in children]
    for child in children:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
    for child, pids in zip(children, started, strict=True):
        for pid in {*descendants(child.pid), *pids}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def descendants(pid: int) -> list[int]:
    """Processes started by `pid`, directly or not. Empty where there is no /proc."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def end_with_parent() -> None:
    """In the child: have the kernel send SIGTERM when the parent dies, even by SIGKILL."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def _describe_status(status: int) -> str:
    if status >= 0:
        return f"it ended with exit status {status}"
    name = signal.Signals(-status).name
    hint = "; if nobody did that, the machine ran out of memory" if name == "SIGKILL" else ""
    return f"it was ended by {name}{hint}"
