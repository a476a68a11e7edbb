"""File locks of the operating system, released when the process that holds them ends, however it ends.

On a file system that several machines share they hold between machines too, where it passes `flock` on: NFS 4, GPFS,
Lustre mounted with `flock`.
"""

import fcntl
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path

_POLL_S = 0.05
_SILENT_S = 1.0
"""Waits shorter than this are not reported."""


class LockBusyError(RuntimeError):
    """Another process holds a lock, or stands before us in its queue, for longer than we wait."""


@contextmanager
def held(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold `path` for this process during the block; False when another process has it and `wait` is not set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield True  # closing the file releases the lock


def is_held(path: Path) -> bool:
    """Whether a process holds `path` right now."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def holder_of(path: Path) -> str:
    """Who holds, or last held, `path`: `process 4711 on node3`, with the task where it is known."""
    try:
        return path.read_text() or "another process"
    except OSError:
        return "another process"


@contextmanager
def in_turn(path: Path, task: str, timeout_s: float, on_wait: Callable[[str], None] | None = None) -> Iterator["Patience"]:
    """Hold `path` during the block; who asked first has it first, in all processes and on all machines.

    Waits at most `timeout_s` seconds, telling `on_wait` once who holds it with which task, then raises `LockBusyError`.
    The queue only orders: what keeps two holders apart is the lock of `path` itself, which older code takes without queueing.
    """
    patience = Patience(path, timeout_s, on_wait)
    with _ticket(path.with_name(path.name + ".queue"), patience), path.open("a+") as file:
        while not _is_locked(file):
            patience.wait_for(holder_of(path))
        _sign(file, task)
        yield patience  # closing the file releases the lock


class Patience:
    """The time that one caller waits, over all it waits for; says once that it does."""

    def __init__(self, path: Path, timeout_s: float, on_wait: Callable[[str], None] | None) -> None:
        self._path, self._timeout_s, self._on_wait = path, timeout_s, on_wait
        self._began = time.monotonic()

    def wait_for(self, holder: str) -> None:
        """Sleep a little. Raises `LockBusyError` once the time is up."""
        waited = time.monotonic() - self._began
        if waited >= self._timeout_s:
            raise LockBusyError(f"in use by {holder}; waited {self._timeout_s:g} s{self._of_the_dead(holder)}")
        if self._on_wait is not None and waited > _SILENT_S:
            self._on_wait(f"{self._path.with_suffix('')} is in use by {holder}; waiting up to {self._timeout_s:g} s")
            self._on_wait = None
        time.sleep(_POLL_S)

    def _of_the_dead(self, holder: str) -> str:
        """What to do about a machine that died: a file server may keep its locks. Those of this machine's dead are gone."""
        if " on " not in holder or f" on {platform.node()}" in holder:
            return ""
        return f"; if that machine is dead and its lock stays, delete {self._path} and {self._path.name}.queue beside it"


@contextmanager
def _ticket(queue: Path, patience: Patience) -> Iterator[None]:
    """A place in the queue: a numbered file, locked for as long as its owner lives. The block begins when all before it are gone."""
    queue.mkdir(parents=True, exist_ok=True)
    with (queue / "door").open("a") as door:
        while not _is_locked(door):  # held for a moment only
            patience.wait_for("another process that queues")
        mine = queue / f"{max(_numbers(queue), default=0) + 1:012d}"
        file = mine.open("a+")
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        _sign(file, "waiting")
        while before := [number for number in _numbers(queue) if number < int(mine.name)]:
            ahead = queue / f"{max(before):012d}"
            if is_held(ahead):
                patience.wait_for(holder_of(queue.with_suffix("")))
            else:
                ahead.unlink(missing_ok=True)  # its owner ended, or died
        yield
    finally:
        mine.unlink(missing_ok=True)
        file.close()


def _numbers(queue: Path) -> list[int]:
    return [int(path.name) for path in queue.iterdir() if path.name.isdigit()]


def _is_locked(file: TextIOWrapper) -> bool:
    """Lock an open file for this process; False when another has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(file: TextIOWrapper, task: str) -> None:
    """Write down who holds a file, and what for."""
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()} ({task}, since {datetime.now(UTC):%H:%M:%S} UTC)")
    file.flush()
