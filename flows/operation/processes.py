"""Processes of an installation: all that it started, however indirectly, can be found and ended.

Each carries the mark of its installation in its environment, which its children inherit; so processes whose parents were
killed are found without a record of them. Where there is no /proc nothing is found, and only children end with their parents.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

MARK = "DALLE_OPERATION"
"""Environment variable: the folder of the installation that a process belongs to."""

_POLL_S = 0.1


def marked(home: Path) -> set[int]:
    """Processes of the installation in `home`, other than this one."""
    pids = (int(folder.name) for folder in Path("/proc").glob("[0-9]*"))
    return {pid for pid in pids if variable_of(pid, MARK) == str(home)} - {os.getpid()}


def variable_of(pid: int, name: str) -> str | None:
    """What a process was given in an environment variable; None where it was not, or has ended, or is somebody else's."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    start = f"{name}=".encode()
    return next((entry.removeprefix(start).decode(errors="replace") for entry in entries if entry.startswith(start)), None)


def command_of(pid: int) -> str:
    """The command line of a process, as far as one line shows it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:120]
    except OSError:
        return ""


def listener_of(port: int) -> int | None:
    """The process that listens at a TCP port of this machine, where that can be seen."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
            sockets |= {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
    for file in Path("/proc").glob("[0-9]*/fd/*") if sockets else ():
        with suppress(OSError):
            if str(file.readlink()) in sockets:
                return int(file.parts[2])
    return None


def end(find: Callable[[], Iterable[int]], grace_s: float) -> int:
    """Ask all that `find` names to end, wait `grace_s` seconds, and kill what is left, until it names none. Returns how many there were."""
    seen: set[int] = set()
    deadline = time.monotonic() + grace_s
    while there := set(find()):
        is_late = time.monotonic() > deadline
        for pid in there if is_late else there - seen:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL if is_late else signal.SIGTERM)
        seen |= there
        if time.monotonic() > deadline + 10:
            raise OSError(
                f"processes {', '.join(map(str, sorted(there)))} cannot be ended; they hang in the kernel, or belong to somebody else"
            )
        time.sleep(_POLL_S)
    return len(seen)
