"""A lock in turn: who asked first has it first, whoever dies in between, and those who wait are told whom for."""

import os
import re
import signal
import subprocess
import sys

import pytest

from dalle_datasets.store import locks
from dalle_datasets.store.locks import LockBusyError, in_turn

HOLD = """
import platform, sys
from pathlib import Path
platform.node = lambda: sys.argv[3]
from dalle_datasets.store.locks import in_turn
with in_turn(Path(sys.argv[1]), sys.argv[2], 30, lambda text: None):
    print("holding", flush=True)
    sys.stdin.readline()
"""


def hold(path, task="a task", host="here"):
    return subprocess.Popen([sys.executable, "-c", HOLD, str(path), task, host], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def waiting(path):
    """Processes that hold or wait, in order."""
    found = []
    for ticket in sorted(path.with_name(path.name + ".queue").glob("0*")):
        said = re.match(r"process (\d+)", ticket.read_text())
        found.append(int(said[1]) if said else None)
    return found


def join(path, process, place):
    """Wait until a process stands at its place in the queue."""
    for _ in range(600):
        if waiting(path)[place : place + 1] == [process.pid]:
            return process
        locks.time.sleep(0.05)
    raise AssertionError(f"{process.pid} is not in the queue {waiting(path)}")


def test_who_asked_first_has_it_first_and_the_dead_are_passed_over(tmp_path):
    path = tmp_path / "x.lock"
    first = hold(path)
    assert first.stdout.readline() == "holding\n"
    others = [join(path, hold(path), place) for place in (1, 2, 3)]
    os.kill(others[0].pid, signal.SIGKILL)
    others[0].wait()
    os.kill(first.pid, signal.SIGKILL)  # the holder dies, too
    assert others[1].stdout.readline() == "holding\n"
    assert waiting(path)[0] == others[1].pid or waiting(path)[1] == others[1].pid
    others[1].communicate("done\n")
    assert others[2].stdout.readline() == "holding\n"
    others[2].communicate("done\n")
    first.wait()
    with in_turn(path, "mine", 0):
        pass
    assert waiting(path) == []


def test_a_lock_of_a_dead_machine_says_what_to_do(tmp_path):
    """A file server may keep the lock of a machine that lost its power; nobody can see that from here."""
    path = tmp_path / "x.lock"
    holder = hold(path, "export", "node3")
    try:
        holder.stdout.readline()
        message = (
            rf"in use by process {holder.pid} on node3 \(export, since .* UTC\); waited 0.1 s; if that machine is dead .*, delete .*x\.lock"
        )
        with pytest.raises(LockBusyError, match=message), in_turn(path, "mine", 0.1):
            pass
        for leftover in (path, *path.with_name("x.lock.queue").iterdir()):
            leftover.unlink()
        path.with_name("x.lock.queue").rmdir()
        with in_turn(path, "mine", 0):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert waiting(path) == []


def test_a_holder_of_older_code_does_not_queue_and_is_waited_for(tmp_path):
    path = tmp_path / "x.lock"
    with (
        locks.held(path) as is_mine,
        pytest.raises(LockBusyError, match=rf"in use by process {os.getpid()} on .*; waited 0.1 s$"),
        in_turn(path, "mine", 0.1),
    ):
        assert is_mine
    with in_turn(path, "mine", 0):
        pass
