"""A Prefect server that lives as long as one `dalle` command, so that nobody has to start one by hand.

Prefect would start such a server by itself, but inside this process's import path (10 s of CPU), with defaults that
time out on slow machines, and it would drop the records of the last tasks when the command ends. Ours starts as a
child while this process is still importing Prefect, and is asked to write everything down before it goes.
Set `PREFECT_API_URL` to use a server of your own instead.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flows.runtime.processes import end_with_parent

SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "2592000",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "100",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_CLIENT_MAX_RETRIES": "5",
}
"""The `[tool.prefect]` block of pyproject.toml, which Prefect reads only when the working directory is the checkout."""

START_TIMEOUT_S = 180.0
OWN_SERVER_TIMEOUT_S = 10.0
_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    # The terminal belongs to the progress bars; Prefect's log lines still go to its database.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
}


class PrefectServerFailed(RuntimeError):
    """The private Prefect server did not come up."""


@contextmanager
def private_server(home: Path) -> Iterator["PrefectServer"]:
    """Start a server whose database is `home/prefect.db`. Enter this before anything imports Prefect.

    With `PREFECT_API_URL` set nothing is started. Call `wait` before the first flow.
    """
    os.environ.update({name: value for name, value in {**SETTINGS, **_QUIET}.items() if name not in os.environ})
    if os.environ.get("PREFECT_API_URL"):
        yield PrefectServer(os.environ["PREFECT_API_URL"], None, None)
        return
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_HOME", str(home.resolve()))
    url, log = f"http://127.0.0.1:{_free_port()}/api", home / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            server_command("127.0.0.1", int(url.split(":")[2].split("/")[0])),
            env={**os.environ, "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C must not end it before the flow has recorded that it was interrupted
            preexec_fn=end_with_parent,
        )
    os.environ["PREFECT_API_URL"] = url
    _private_urls.add(url)
    try:
        yield PrefectServer(url, process, log)
    finally:
        _private_urls.discard(url)
        del os.environ["PREFECT_API_URL"]
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def server_command(host: str, port: int) -> list[str]:
    """The program that is a Prefect server; its settings are in its environment."""
    program = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    return [*program, "--host", host, "--port", str(port), "--log-level", "error", "--lifespan", "on"]


_private_urls: set[str] = set()


def is_private(url: str) -> bool:
    """Whether the server is one of ours, which no worker knows."""
    return url in _private_urls


class PrefectServer:
    """A server that is starting or running."""

    def __init__(self, url: str, process: "subprocess.Popen[bytes] | None", log: Path | None) -> None:
        self.url = url
        self._process = process
        self._log = log

    def wait(self) -> None:
        """Return once the server answers. Raises `PrefectServerFailed` when it does not."""
        deadline = time.monotonic() + (START_TIMEOUT_S if self._process else OWN_SERVER_TIMEOUT_S)
        while not self._answers():
            if self._process is not None and self._process.poll() is not None:
                raise PrefectServerFailed(
                    f"Prefect's server ended with status {self._process.returncode} while starting; its log is {self._log}"
                )
            if time.monotonic() > deadline:
                remedy = f"its log is {self._log}" if self._process else "start it with `prefect server start`, or unset PREFECT_API_URL"
                raise PrefectServerFailed(f"no Prefect server answers at {self.url}; {remedy}")
            time.sleep(0.1)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Run flows in this block. Raises `PrefectServerFailed` when the server goes away meanwhile."""
        from httpx import TransportError  # Prefect's client

        try:
            yield
            self.drain()
        except TransportError as error:
            remedy = f"its log is {self._log}" if self._process else "start it again"
            raise PrefectServerFailed(
                f"Prefect's server at {self.url} went away ({error}); {remedy}; finished work is kept, so run the same command again"
            ) from error
        except BaseException:
            with suppress(TransportError):  # what ended the flow matters more
                self.drain()
            raise

    def drain(self, timeout_s: float = 20.0) -> None:
        """Wait until the records of the last tasks are in the database: the server batches them in memory."""
        if self._process is None:
            return  # a server of the user's own goes on running
        from prefect.client.orchestration import get_client
        from prefect.logging.handlers import APILogWorker

        APILogWorker.drain_all(timeout=5)
        pause_s = 1.2 * float(SETTINGS["PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL"])
        unfinished = {"task_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "SCHEDULED"]}}}}
        deadline, seen = time.monotonic() + timeout_s, -1
        with get_client(sync_client=True) as client:
            while time.monotonic() < deadline:
                total = client.request("POST", "/task_runs/count", json={}).json()
                if total == seen and not client.request("POST", "/task_runs/count", json=unfinished).json():
                    return
                seen = total
                time.sleep(pause_s)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
