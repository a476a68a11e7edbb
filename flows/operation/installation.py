"""An installation that runs: server, deployments and workers of a site as children of one process, which keeps them alive.

`up` holds a lock for as long as it lives, starts again what dies, and ends everything when it ends. `down` ends it from
elsewhere. Nothing depends on records of earlier processes: what was left by one that was killed is found by its mark.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import yaml

from dalle_datasets.store.layout import open_data_root
from dalle_datasets.store.locks import held, holder_of, is_held
from dalle_datasets.store.parquet import atomic_path
from flows.operation.deployments import deployments_of
from flows.operation.lost_runs import LOOK_EVERY_S, LostRuns
from flows.operation.processes import MARK, command_of, end, listener_of, marked
from flows.operation.server_api import ServerApi
from flows.operation.site import Site, read_site
from flows.runtime.code_version import code_version
from flows.runtime.prefect_server import SETTINGS, START_TIMEOUT_S, PrefectServerFailed, server_command
from flows.runtime.processes import GRACE_S, end_with_parent

RECORD = "operation.json"
FLOWS_END_S = GRACE_S + 10.0
"""What trainings have to save their state, and flows to say how they ended."""
SERVER_ENDS_S = 10.0
MIN_FREE_BYTES = 200 * 2**20
"""Room below which a server's database is not begun: a fresh one takes 2 MB, and a night's runs and their logs some more."""
QUICK_S = 60.0
"""A child that ends sooner is started again after a pause that doubles each time."""
LONGEST_PAUSE_S = 60.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Record:
    """What a running installation says of itself, kept in a file while it runs."""

    pid: int
    url: str
    """Address of the server's API."""
    auth_file: str
    since: str
    applied: str
    """Fingerprint of what was deployed."""

    @property
    def interface(self) -> str:
        """Address of the server's pages."""
        return self.url.removesuffix("/api")

    def server(self) -> ServerApi:
        """The server, with what it wants to be shown."""
        auth = Path(self.auth_file).read_text().strip() if self.auth_file else ""
        return ServerApi(self.url, auth)


def running(data_root: Path) -> Record | None:
    """The installation that serves a data root right now and is ready, if there is one."""
    home = data_root / "operation"
    if not is_held(home / "lock"):
        return None
    try:
        return Record(**json.loads((home / RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def server_of(data_root: Path) -> ServerApi | None:
    """The server of a data root's installation, else that of PREFECT_API_URL, else none."""
    if (record := running(data_root)) is not None:
        return record.server()
    url = os.environ.get("PREFECT_API_URL")
    return ServerApi(url, os.environ.get("PREFECT_API_AUTH_STRING", "")) if url else None


def up(site: Site, say: Callable[[str], None], on_ready: Callable[[Record], None]) -> None:
    """Start everything, call `on_ready`, then keep it alive until SIGINT or SIGTERM ends this process.

    Where it runs already, only deployments are brought up to date. Raises `ValueError` before anything starts when another site owns
    the data root, the port is taken, or there is no room; and `PrefectServerFailed` when the server does not come up.
    """
    home = open_data_root(str(site.data_root)).root / "operation"
    home.mkdir(exist_ok=True)
    with held(home / "lock") as is_mine:
        if not is_mine:
            on_ready(_join(site, home, say))
            return
        _claim(site, home)
        (home / RECORD).unlink(missing_ok=True)
        if left := end(lambda: marked(home), FLOWS_END_S):
            say(f"ended {left} processes that an earlier installation had left")
        _check_port(site)
        _check_room(home)
        with _ended_by_signals():
            children = Children(site, home, say)
            try:
                on_ready(children.start())
                children.keep_alive()
            except KeyboardInterrupt:
                say("ending: workers first, so that trainings save their state and the server hears of it")
            finally:
                children.end()
                (home / RECORD).unlink(missing_ok=True)


def down(data_root: Path, say: Callable[[str], None]) -> int:
    """End the installation of a data root, and whatever an earlier one left. Returns how many processes there were.

    Raises `ValueError` when it is another machine's.
    """
    home = data_root.resolve() / "operation"
    there = marked(home)
    keeper = _keeper(home)
    if keeper is not None:
        say(f"ending process {keeper}; trainings save their state")
        there.add(keeper)
        _signal(keeper, signal.SIGTERM)
        deadline = time.monotonic() + FLOWS_END_S + 2 * SERVER_ENDS_S
        while is_held(home / "lock") and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if _keeper(home) == keeper:
            _signal(keeper, signal.SIGKILL)
    there |= marked(home)
    end(lambda: marked(home), FLOWS_END_S)
    (home / RECORD).unlink(missing_ok=True)
    return len(there)


def _keeper(home: Path) -> int | None:
    """The process of `up` that holds the lock, if one does. Raises `ValueError` when it is on another machine."""
    if not is_held(home / "lock") or not (said := re.fullmatch(r"process (\d+) on (\S+)", holder_of(home / "lock"))):
        return None
    if said[2] != platform.node():
        raise ValueError(f"{home.parent} is served from {said[2]} (process {said[1]}); run `dalle down` there")
    return int(said[1])


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


class Children:
    """Server and workers of a site, as processes of their own sessions that the kernel ends when this one is killed."""

    def __init__(self, site: Site, home: Path, say: Callable[[str], None]) -> None:
        self._site, self._home, self._say = site, home, say
        self._environment = environment_of(site, home)
        self._commands = {"server": server_command(site.operation.server.host, site.operation.server.port)}
        workers = site.operation.workers
        for pool, number in (("cpu", workers.cpu), ("gpu", workers.gpu)):
            for i in range(1, number + 1):
                command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
                self._commands[f"worker-{pool}-{i}"] = [*command, "--name", worker_name(pool, i)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._pauses: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def start(self) -> Record:
        """Server, then deployments, then workers. Raises `PrefectServerFailed` when the server or a deployment fails."""
        self._say("starting the server; a fresh database takes half a minute")
        self._start("server")
        applied = apply(self._site, self._home, self._environment, self._fail_without_server)
        for name in self._commands:
            if name != "server":
                self._start(name)
        self._wait_for_workers()
        server = self._site.operation.server
        auth_file = str(self._site.beside(server.auth_file)) if server.auth_file else ""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        record = Record(os.getpid(), api_url(self._site), auth_file, since, applied)
        _write_record(self._home, record)
        return record

    def _wait_for_workers(self) -> None:
        """Return once the server has heard of every worker. One that takes longer than starting does is said, and left to `keep_alive`."""
        server = ServerApi(api_url(self._site), self._site.auth)
        deadline = time.monotonic() + START_TIMEOUT_S
        while missing := [name for name in self._commands if name.startswith("worker-") and not self._is_online(server, name)]:
            self._fail_without_server()
            if time.monotonic() > deadline:
                self._say(f"{', '.join(missing)}: not ready yet, see {self._log(missing[0])}")
                return
            time.sleep(_POLL_S)

    def _is_online(self, server: ServerApi, name: str) -> bool:
        pool, number = name.split("-")[1:]
        try:
            workers = server.post(f"/work_pools/{pool}/workers/filter", {})
        except PrefectServerFailed:  # busy; if it has ended, that is noticed
            return False
        return any(worker["name"] == worker_name(pool, int(number)) and worker["status"] == "ONLINE" for worker in workers)

    def keep_alive(self) -> None:
        """Start again what ends, and runs whose process is gone, until this process is told to end."""
        lost, next_look = LostRuns(ServerApi(api_url(self._site), self._site.auth)), time.monotonic() + LOOK_EVERY_S
        while True:
            if time.monotonic() > next_look:
                next_look = time.monotonic() + LOOK_EVERY_S
                for line in lost.look():
                    self._say(line)
            for name, process in list(self._processes.items()):
                status = process.poll()
                if status is not None:
                    del self._processes[name]
                    is_quick = time.monotonic() - self._started[name] < QUICK_S
                    pause = min(2 * self._pauses.get(name, 0.5), LONGEST_PAUSE_S) if is_quick else 1.0
                    self._pauses[name], self._due[name] = pause, time.monotonic() + pause
                    self._say(f"{name} ended with status {status}, see {self._log(name)}; started again in {pause:g} s")
            for name, due in list(self._due.items()):
                if time.monotonic() >= due:
                    del self._due[name]
                    self._start(name)
            time.sleep(_POLL_S)

    def end(self) -> None:
        """Workers, then flows and jobs that outlive them, then the server."""
        server = self._processes.get("server")
        workers = [process for name, process in self._processes.items() if name != "server"]
        end(lambda: [process.pid for process in workers if process.poll() is None], FLOWS_END_S)
        end(lambda: marked(self._home) - {server.pid if server and server.poll() is None else 0}, FLOWS_END_S)
        end(lambda: [server.pid] if server and server.poll() is None else [], SERVER_ENDS_S)
        end(lambda: marked(self._home), 0)

    def _start(self, name: str) -> None:
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                self._commands[name],
                cwd=self._home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process only, which ends them in order
                preexec_fn=end_with_parent,
            )
        self._started[name] = time.monotonic()

    def _log(self, name: str) -> Path:
        return self._home / f"{name}.log"

    def _fail_without_server(self) -> None:
        if (status := self._processes["server"].poll()) is not None:
            raise PrefectServerFailed(f"Prefect's server ended with status {status} while starting; its log is {self._log('server')}")


def worker_name(pool: str, number: int) -> str:
    """What Prefect calls a worker of this machine; the same after a restart, so that its runs stay its own."""
    return f"{socket.gethostname()}-{pool}-{number}"


def environment_of(site: Site, home: Path) -> dict[str, str]:
    """What the server, workers and all they start are told: their installation, their server, its database."""
    server = site.operation.server
    told = {
        **SETTINGS,
        MARK: str(home),
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": api_url(site),
        "PREFECT_SERVER_API_HOST": server.host,
        "PREFECT_SERVER_API_PORT": str(server.port),
        "PREFECT_SERVER_UI_API_URL": "/api",  # wherever a browser reaches it from
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": server.database or f"sqlite+aiosqlite:///{home / 'prefect' / 'prefect.db'}",
        "PREFECT_SERVER_DATABASE_TIMEOUT": str(server.database_timeout_s),
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": str(server.database_timeout_s),
    }
    if site.auth:
        told |= {"PREFECT_SERVER_API_AUTH_STRING": site.auth, "PREFECT_API_AUTH_STRING": site.auth}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**inherited, **{name: os.environ[name] for name in os.environ if name.startswith("PREFECT_LOGGING")}, **told}


def api_url(site: Site) -> str:
    """Where this machine reaches the site's server."""
    server = site.operation.server
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::") else server.host
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}/api"


def apply(site: Site, home: Path, environment: Mapping[str, str], check: Callable[[], None] = lambda: None) -> str:
    """Make pools, automations and deployments as the site says; returns their fingerprint. `check` is called while it goes on.

    Raises `PrefectServerFailed` with what Prefect said last.
    """
    path, log_path = home / "deployments.yaml", home / "apply.log"
    with atomic_path(path) as partial:
        partial.write_text(yaml.safe_dump(deployments_of(site), sort_keys=False))
    with log_path.open("w+") as log:
        command = [sys.executable, "-m", "flows.operation.apply", str(path), *_bootstrap_arguments(site)]
        process = subprocess.Popen(
            command, cwd=home, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=end_with_parent,
        )  # fmt: skip
        while process.poll() is None:
            check()
            time.sleep(_POLL_S)
    if process.returncode:
        lines = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
        raise PrefectServerFailed(f"deploying failed: {lines[-1] if lines else 'nothing was said'}; the whole log is {log_path}")
    return fingerprint_of(site)


def fingerprint_of(site: Site) -> str:
    """What a site deploys with this code: it changes when a deployment, a limit or the code does."""
    content = json.dumps([deployments_of(site), _bootstrap_arguments(site), code_version()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _bootstrap_arguments(site: Site) -> list[str]:
    pools = site.operation.pools
    limits = [f"{name}={limit}" for name, limit in (("cpu", pools.cpu), ("gpu", pools.gpu)) if limit is not None]
    return [*limits, *([f"notify={site.operation.notify.block}"] if site.operation.notify.block else [])]


def _join(site: Site, home: Path, say: Callable[[str], None]) -> Record:
    """The installation that another process keeps alive, with deployments as the site file has them now."""
    record = running(site.data_root)
    if record is None:
        raise ValueError(f"{home}: another `dalle up` is just starting or ending; look again in a minute, or run `dalle down`")
    if record.url != api_url(site):
        raise ValueError(
            f"{site.data_root} is served at {record.url}, and the site now says {api_url(site)}; run `dalle down`, then `dalle up`"
        )
    say(f"runs already, since {record.since} (process {record.pid})")
    if record.applied != fingerprint_of(site):
        say(
            "the site or the code has changed since; deployments are brought up to date (workers and server: `dalle down`, then `dalle up`)"
        )
        record = replace(record, applied=apply(site, home, environment_of(site, home)))
        _write_record(home, record)
    return record


def _write_record(home: Path, record: Record) -> None:
    with atomic_path(home / RECORD) as partial:
        partial.write_text(json.dumps(asdict(record), indent=1))


def _claim(site: Site, home: Path) -> None:
    """Write down which site file this data root belongs to. Raises `ValueError` when it is another's, which still exists and names it."""
    owner = home / "site"
    mine = str(site.path or "")
    theirs = owner.read_text().strip() if owner.exists() else ""
    if mine and theirs and theirs != mine and _names(Path(theirs), site.data_root):
        raise ValueError(
            f"{site.data_root} belongs to the site {theirs}; two sites on one data root would spoil each other's schedules: give this one "
            f"another data_root, or delete {theirs}"
        )
    if mine:
        owner.write_text(mine + "\n")


def _names(site_file: Path, data_root: Path) -> bool:
    """Whether a site file exists, can be read and names this data root."""
    try:
        return read_site(site_file).data_root == data_root
    except ValueError:
        return False


def _check_port(site: Site) -> None:
    server = site.operation.server
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host, server.port))
        except OSError as error:
            pid = listener_of(server.port)
            by = f" by process {pid} ({command_of(pid)})" if pid else ""
            reason = f"is taken{by}" if error.errno == 98 else f"cannot be listened at ({error.strerror})"
            raise ValueError(f"{server.host}:{server.port} {reason}; end that, or set another server.port in the site file") from None


def _check_room(home: Path) -> None:
    free = shutil.disk_usage(home).free
    if free < MIN_FREE_BYTES:
        raise ValueError(
            f"{home}: {free / 2**20:.0f} MB are free, and its database wants {MIN_FREE_BYTES / 2**20:.0f} MB; make room, or name a "
            "PostgreSQL database in server.database"
        )


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does; a second one is not heard while the first is obeyed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for name in names:
            signal.signal(name, signal.SIG_IGN)
        raise KeyboardInterrupt

    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {name: signal.signal(name, interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
