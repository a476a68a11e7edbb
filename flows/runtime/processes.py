"""Run a child process whose whole tree ends when we do, in whatever way we end.

`torchrun` starts every rank in a session of its own, so ending its process group would leave the ranks behind
(with their GPU). Prefect's timeouts cannot interrupt a thread that waits for a line of output, so a watchdog
here ends a child that has gone silent.
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
from pathlib import Path

GRACE_S = 15.0
"""Between the request to end (training saves a checkpoint) and the kill."""

# Looked up before any fork: a forked child of a threaded process must not load libraries.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


class ChildFailed(RuntimeError):
    """A child process ended badly; `reason` says how, `last_lines` are its last words."""

    def __init__(self, reason: str, last_lines: list[str]) -> None:
        super().__init__("\n".join([reason, *last_lines]))
        self.reason = reason
        self.last_lines = last_lines


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
    child = subprocess.Popen(
        list(command),
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    last_lines: deque[str] = deque(maxlen=20)
    heard = [time.monotonic()]
    stalled = threading.Event()
    finished = threading.Event()

    def watch() -> None:
        assert stall_s is not None
        while not finished.wait(min(1.0, stall_s / 4)):
            if time.monotonic() - heard[0] > stall_s:
                stalled.set()
                kill_tree(child, grace_s)
                return

    watchdog = threading.Thread(target=watch, daemon=True, name="child-watchdog")
    if stall_s is not None:
        watchdog.start()
    try:
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                heard[0] = time.monotonic()
                line = line.rstrip("\n")
                last_lines.append(line)
                on_line(line)
        status = child.wait()
    except BaseException:
        kill_tree(child, grace_s)
        raise
    finally:
        finished.set()
        if watchdog.ident is not None:
            watchdog.join()
    if stalled.is_set():
        raise ChildFailed(f"it printed nothing for {stall_s:g} s and was ended", list(last_lines))
    if status != 0:
        raise ChildFailed(_describe_status(status), list(last_lines))


def kill_tree(child: "subprocess.Popen[str]", grace_s: float = GRACE_S) -> None:
    """Ask the child to end, wait `grace_s` seconds, then kill it and everything it started."""
    started = descendants(child.pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(grace_s)
    for pid in {*descendants(child.pid), *started}:
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
