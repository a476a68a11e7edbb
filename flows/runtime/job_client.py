"""Start Python programs by forking a process that has imported what they need, so that a flow pays for imports once.

Importing torch, its compiler and open_clip takes longer than the work of a small job. The job server
(`flows.runtime.job_server`) is started at the first job, imports what each job asks for and forks it; it ends with this process,
in whatever way that ends, and its jobs with it. A forked job has the arguments, environment, signals, output and exit status that
`python -m MODULE …` has. Where forking is not safe, nothing is started here.
"""

import atexit
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

LENGTH = struct.Struct("!Q")
"""Before each request: how many bytes of JSON it has. The write end of the job's output and its status socket come along."""

NEWS = struct.Struct("!ci")
"""What a status socket carries: first `PID` from the job, then `STATUS`, its exit status as in `subprocess`, from the server."""
PID, STATUS = b"p", b"s"

TITLE_BYTES = 1024
"""Room in the server's command line for that of a job, which `ps` shows in its stead."""

GPU_DEVICES = ("nvidiactl", "kfd", "dxg", "nvmap")
"""Files in /dev where a GPU is that torch may open while it is imported, which no fork survives."""

START_S = 60.0
"""How long a server may take to start; jobs are ordinary processes if it does not."""

PER_JOB = ("LOCAL_RANK", "DALLE_DATA_ROOT", "PYTEST_CURRENT_TEST")
"""Variables that jobs of one server may differ in: nothing reads them while it is imported."""


def can_fork() -> bool:
    """Whether forked jobs are safe here: on Linux, without a GPU."""
    return sys.platform == "linux" and not any(Path("/dev", name).exists() for name in GPU_DEVICES)


def fork_job(module: str, arguments: Sequence[str], environment: Mapping[str, str], imports: Sequence[str]) -> "ForkedJob | None":
    """`python -m module arguments…` with exactly this environment, forked after `imports`; None when there is no server to be had."""
    with _lock:
        for _ in range(2):  # a server that was killed since its last job is noticed when it is asked
            server = None
            try:
                server = _server_for(environment)
                return server.start(module, arguments, environment, imports)
            except OSError:
                if server is not None:
                    _servers.remove(server)
                    server.end()
        return None


class ForkedJob:
    """A job of the server, with what `flows.runtime.processes` uses of `subprocess.Popen`."""

    def __init__(self, server: "_Server", status: socket.socket, stdout: IO[str]) -> None:
        self.stdout = stdout
        self.returncode: int | None = None
        self._server, self._status = server, status
        self._pid: int | None = None

    @property
    def pid(self) -> int:
        """Its process and process group; while the server imports what it needs, the server's."""
        if self._pid is None:
            self._hear(0.0)
        return self._pid or self._server.pid

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, negative for a signal; the server's own when that ended first. Raises `subprocess.TimeoutExpired`."""
        while self.returncode is None:
            if not self._hear(timeout):
                raise subprocess.TimeoutExpired("a forked job", timeout or 0.0)
        return self.returncode

    def _hear(self, timeout: float | None) -> bool:
        """Take the next number from the status socket; whether one, or its end, came in time."""
        if self.returncode is not None:
            return True
        self._status.settimeout(timeout)
        try:
            news = self._status.recv(NEWS.size)
        except (TimeoutError, BlockingIOError):
            return False
        # At the end of the stream both the server and the job, which holds its status socket, too, are gone.
        kind, number = NEWS.unpack(news) if news else (STATUS, self._server.wait() or -signal.SIGTERM)
        if kind == PID:
            self._pid = number
        else:
            self.returncode = number
            self._server.jobs.discard(self)
            self._status.close()
        return True


class _Server:
    """A job server that this process has started."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.key = _key(environment)
        self.jobs: set[ForkedJob] = set()
        """Those whose end nobody has waited for."""
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.runtime.job_server", str(theirs.fileno()), " " * TITLE_BYTES],
                env={name: value for name, value in environment.items() if name not in PER_JOB},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal must not end it before its jobs have saved their state
            )
        self._control.settimeout(START_S)
        try:
            is_ready = self._control.recv(1)
        except TimeoutError:
            is_ready = b""
        self._control.settimeout(None)
        if not is_ready:
            self._process.kill()
            self.end()
            raise OSError("the job server does not start")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def start(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], imports: Sequence[str]) -> ForkedJob:
        """Ask for a job. Raises `OSError` when the server has ended."""
        request = {"module": module, "arguments": list(arguments), "environment": dict(environment), "imports": list(imports)}
        body = json.dumps(request).encode()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reader, writer = os.pipe()
        stdout = os.fdopen(reader, errors="replace", buffering=1)
        try:
            socket.send_fds(self._control, [LENGTH.pack(len(body))], [writer, theirs.fileno()])
            self._control.sendall(body)
        except OSError:
            ours.close()
            stdout.close()
            raise
        finally:
            os.close(writer)
            theirs.close()
        job = ForkedJob(self, ours, stdout)
        self.jobs.add(job)
        return job

    def wait(self) -> int:
        return self._process.wait()

    def end(self) -> None:
        """End the server, whereupon the kernel asks its jobs to end."""
        self._control.close()
        self._process.wait()

    def forget(self) -> None:
        """In a forked child of this process: hold nothing that keeps the server alive."""
        self._control.close()


_servers: list[_Server] = []
_lock = threading.Lock()


def end_servers() -> None:
    """End all servers of this process and wait for them, so that their processor time counts as ours."""
    while _servers:
        _servers.pop().end()


def _server_for(environment: Mapping[str, str]) -> _Server:
    """The server with this environment, new if need be; others that have nothing to do are ended."""
    key = _key(environment)
    for server in list(_servers):
        if not server.is_alive or (server.key != key and not server.jobs):
            _servers.remove(server)
            server.end()
    for server in _servers:
        if server.key == key:
            return server
    _servers.append(_Server(environment))
    return _servers[-1]


def _key(environment: Mapping[str, str]) -> tuple[str, Path, dict[str, str]]:
    """What jobs of one server have in common: much of it is read once, when a library is loaded."""
    shared = {name: value for name, value in environment.items() if name not in PER_JOB}
    return sys.executable, Path.cwd(), shared


def _forget_servers() -> None:
    global _lock
    _lock = threading.Lock()
    while _servers:
        _servers.pop().forget()


atexit.register(end_servers)
os.register_at_fork(after_in_child=_forget_servers)
