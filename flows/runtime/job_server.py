"""The process that imports what jobs need and forks them: `python -m flows.runtime.job_server DESCRIPTOR PADDING`.

`flows.runtime.job_client` starts it with one end of a socket, over which requests come, and says what its callers may rely on.
It imports nothing heavy before a job asks for it. When the other end of the socket closes it ends, and the kernel sends its jobs
SIGTERM.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flows.runtime.job_client import LENGTH, NEWS, PID, STATUS
from flows.runtime.processes import end_with_parent

SAFE_THREADS = ("jemalloc_bg_thd",)
"""Names of threads beside which one may fork: pyarrow's allocator takes its locks before, and starts its thread again in the child."""


@dataclass(frozen=True, slots=True)
class Request:
    """A program to start, with the descriptors that came along."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    imports: list[str]
    output: int
    """Write end of the pipe for all that it prints."""
    status: int
    """Where its process id and exit status are awaited."""

    @property
    def command(self) -> list[str]:
        """What would start it as a process of its own."""
        return [sys.executable, "-m", self.module, *self.arguments]


def main() -> None:
    """Serve until the other end of the socket closes; in a forked job run its module, and end as it does."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    _show_as([sys.executable, "-m", "flows.runtime.job_server"])
    control.sendall(b"\n")
    request = serve(control)
    if request is None:
        os._exit(0)  # there is nothing to save, and jobs wait for the kernel's signal
    sys.argv = [request.module, *request.arguments]
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)


def serve(control: socket.socket) -> Request | None:
    """Fork a process for each request. Returns its request in that process, and None here when there are no more."""
    server = os.getpid()
    running: dict[int, int] = {}  # process id -> its status socket

    def reap(*_: object) -> None:
        """Report jobs that have ended; also in the middle of an import, and of itself."""
        for pid in list(running):
            with suppress(ChildProcessError):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    _tell(running.pop(pid), STATUS, os.waitstatus_to_exitcode(status))

    signal.signal(signal.SIGCHLD, reap)
    while (request := _receive(control)) is not None:
        for stream in (1, 2):
            os.dup2(request.output, stream)
        os.close(request.output)
        _import(request.imports)
        is_safe = _is_alone()
        gc.freeze()  # collections in jobs leave these objects alone, whose memory they share with us
        pid = os.fork()
        if pid == 0:
            control.close()
            for status in running.values():
                os.close(status)
            _become(request, server)
            if not is_safe:
                os.execve(sys.executable, request.command, request.environment)
            return request
        running[pid] = request.status
        reap()  # it may have ended before it was in the table
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        os.close(nowhere)
    return None


def _receive(control: socket.socket) -> Request | None:
    """The next request; None when there are no more."""
    head, descriptors, _, _ = socket.recv_fds(control, LENGTH.size, 2, socket.MSG_CMSG_CLOEXEC)
    if not head:
        return None
    (length,) = LENGTH.unpack(head)
    body = b""
    while len(body) < length:
        more = control.recv(length - len(body))
        if not more:
            return None
        body += more
    output, status = descriptors
    return Request(**json.loads(body), output=output, status=status)


def _import(modules: list[str]) -> None:
    """Import what there is of `modules`; the job meets the error of those that fail, and says so as if it were on its own."""
    for module in modules:
        with suppress(Exception, SystemExit):
            importlib.import_module(module)


def _is_alone() -> bool:
    """Whether no thread of a library runs that could hold a lock, for ever then, in a fork of this process."""
    if _other_threads():
        # Some libraries (OpenBLAS) end their threads before a fork and start them again when they are needed.
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return not _other_threads()


def _other_threads() -> list[str]:
    names = [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
    return [name for name in names if name not in SAFE_THREADS]


def _become(request: Request, server: int) -> None:
    """Make a fork what a process started for this job would be."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    end_with_parent()
    if os.getppid() != server:  # it ended before the kernel was told to watch it
        os.kill(os.getpid(), signal.SIGTERM)
    os.environ.clear()
    os.environ.update(request.environment)
    if "numpy.random" in sys.modules:  # other generators seed themselves anew, or are the same in every process (torch)
        sys.modules["numpy.random"].seed()
    _show_as(request.command)
    atexit.register(gc.unfreeze)  # or libraries complain at the end of objects that nobody has freed
    _tell(request.status, PID, os.getpid())  # from here on signals to its process group arrive


def _tell(status: int, kind: bytes, number: int) -> None:
    """Send news to whoever started the job, if anybody waits for it. The server's half of the status socket ends with the job."""
    with suppress(OSError):
        os.write(status, NEWS.pack(kind, number))
    if kind == STATUS:
        os.close(status)


def _show_as(command: list[str]) -> None:
    """Have `ps` show another command line for this process, as far as there is room for it in the memory of the first one."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # of the arguments, proc(5)
    room = end - start - 2
    if start and room > 0:
        # A last byte that is not 0 tells the kernel that one line, which ends with 0, stands there instead of arguments.
        ctypes.memmove(start, os.fsencode(" ".join(command))[:room].ljust(room + 1, b"\0") + b".", room + 2)


if __name__ == "__main__":
    main()
