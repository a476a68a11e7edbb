"""File locks of the operating system, released when the process that holds them ends, however it ends.

On a file system that several machines share they hold between machines too, where it passes `flock` on: NFS 4, GPFS,
Lustre mounted with `flock`.
"""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    """Who holds, or last held, `path`: `process 4711 on node3`."""
    try:
        return path.read_text() or "another process"
    except OSError:
        return "another process"
