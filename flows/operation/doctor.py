"""What is wrong with an installation: a line for each thing that can be, with what to do about it."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

import flows
from dalle_datasets.store.locks import holder_of, is_held
from flows.operation.installation import MIN_FREE_BYTES, Record, fingerprint_of, running
from flows.operation.processes import marked
from flows.operation.server_api import ServerApi
from flows.operation.server_view import pools, runs
from flows.operation.site import Site
from flows.runtime.code_version import code_version
from flows.runtime.prefect_server import PrefectServerFailed

LOCK_FILE = Path(flows.__file__).parents[1] / "requirements.lock"
LARGEST_CLOCK_ERROR_S = 30.0
LITTLE_ROOM_BYTES = 5 * 2**30
"""Room below which a night's collection may not fit."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: Literal["ok", "warning", "error"]
    detail: str
    """What was found, and the remedy unless it is ok."""


def examine(site: Site) -> Iterator[Finding]:
    """Look at packages, machine, data root and server, in that order. Changes nothing."""
    yield _python()
    yield _packages()
    yield _gpu()
    yield from _data_root(site)
    yield from _installation(site)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 13):
        return Finding("python", "ok", f"{version}, open-dalle {code_version()}")
    return Finding("python", "error", f"{version}, but open-dalle needs 3.11 or 3.12; `make setup PYTHON=/path/to/it`")


def _packages() -> Finding:
    """Installed versions against the lock file."""
    try:
        lines = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", LOCK_FILE.read_text(), re.MULTILINE)
    except OSError:
        return Finding("packages", "warning", f"{LOCK_FILE} is not here, so versions cannot be compared; run this in a checkout")
    tested: dict[str, set[str]] = {}
    for name, version in lines:  # several of one package are for several editions of Python
        tested.setdefault(name, set()).add(version)
    installed = {re.sub(r"[-_.]+", "-", found.name).lower(): found.version for found in metadata.distributions()}
    wrong = [
        f"{name} {installed[name]}, not {' or '.join(sorted(tested[name]))}"
        for name in tested
        if installed.get(name) not in {None, *tested[name]}
    ]
    if "prefect" not in installed:
        return Finding("packages", "error", "prefect is not installed; `make setup`, or install open-dalle[all]")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        return Finding("packages", "warning", f"not as tested: {', '.join(wrong[:5])}{more}; `make setup` installs what was")
    return Finding("packages", "ok", f"as in {LOCK_FILE.name}; prefect {installed['prefect']}")


def _gpu() -> Finding:
    """The GPUs that the driver shows, without loading torch."""
    if not (tool := shutil.which("nvidia-smi")):
        return Finding("gpu", "ok", "none here (no nvidia-smi)")
    try:
        asked = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("gpu", "error", f"nvidia-smi does not answer ({error}); look into the driver")
    if done.returncode:
        return Finding("gpu", "error", f"nvidia-smi: {' '.join((done.stdout + done.stderr).split())[:150]}; look into the driver")
    return Finding("gpu", "ok", "; ".join(done.stdout.strip().splitlines()))


def _data_root(site: Site) -> Iterator[Finding]:
    root = site.data_root
    if not root.is_dir():
        yield Finding("data root", "warning", f"{root} does not exist yet; `dalle up` makes it")
        return
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("data root", "error", f"{root} cannot be written by this user; correct its owner, or choose another data_root")
        return
    yield Finding("data root", "ok", str(root))
    yield _room(root)
    yield from _catalog(root)
    yield from _locks(root)


def _room(root: Path) -> Finding:
    free, size = (getattr(shutil.disk_usage(root), name) for name in ("free", "total"))
    said = f"{free / 2**30:,.1f} GB free of {size / 2**30:,.0f}"
    if free < MIN_FREE_BYTES:
        return Finding("room", "error", f"{said}; make room: `dalle catalog gc --delete` deletes what nothing refers to")
    if free < LITTLE_ROOM_BYTES:
        return Finding("room", "warning", f"{said}; `dalle catalog gc` says what nothing refers to")
    return Finding("room", "ok", said)


def _catalog(root: Path) -> Iterator[Finding]:
    from dalle_datasets.catalog.connection import open_published
    from dalle_datasets.store.layout import Layout

    layout = Layout(root)
    if not layout.published_catalog.exists():
        yield Finding("catalog", "ok", "not published yet")
        return
    try:
        with open_published(layout) as con:
            (version,) = con.execute("select max(version) from schema_version").fetchone() or (None,)
    except Exception as error:  # whatever DuckDB says of a damaged file
        yield Finding("catalog", "error", f"{' '.join(str(error).split())[:200]}; `dalle catalog publish` makes it again")
        return
    yield Finding("catalog", "ok", f"published, edition {version}")


def _locks(root: Path) -> Iterator[Finding]:
    """What runs, and what says that it runs although nobody does."""
    held = [path for path in [*root.glob("runs/*/lock"), *root.glob("sources/*/lock"), *root.glob("catalog/*.lock")] if is_held(path)]
    for path in held:
        yield Finding("lock", "ok", f"{path.relative_to(root)} is held by {holder_of(path)}")
    if len(left := list(root.rglob("*.partial"))) and not held:
        yield Finding(
            "files",
            "warning",
            f"{len(left)} unfinished files of writers that were killed; `dalle catalog gc --delete` deletes them",
        )


def _installation(site: Site) -> Iterator[Finding]:
    record = running(site.data_root)
    if record is None:
        left = marked(site.home)
        if left:
            yield Finding("installation", "error", f"{len(left)} processes of one that was killed still run; `dalle down` ends them")
        url = os.environ.get("PREFECT_API_URL")
        if url:
            yield from _server(ServerApi(url, os.environ.get("PREFECT_API_AUTH_STRING", "")))
        elif not left:
            yield Finding("installation", "ok", "not running; `dalle up` starts it")
        return
    yield Finding("installation", "ok", f"runs since {record.since}, process {record.pid}, {record.interface}")
    yield _code(site, record)
    yield from _server(record.server())


def _code(site: Site, record: Record) -> Finding:
    if record.applied == fingerprint_of(site):
        return Finding("deployments", "ok", f"of this site file and this code ({code_version()})")
    detail = f"the site file or the code (now {code_version()}) has changed since, and workers refuse other code; `dalle up` deploys again"
    return Finding("deployments", "error", detail)


def _server(server: ServerApi) -> Iterator[Finding]:
    try:
        version = str(server.get("/admin/version"))
        installed = metadata.version("prefect")
        is_same = version == installed
        said = f"prefect {version} at {server.url}" + ("" if is_same else f", but {installed} is installed here; install the same on both")
        yield Finding("server", "ok" if is_same else "error", said)
        yield _clock(server)
        for name, what in pools(server):
            is_served = "no workers" not in what or name == "gpu"
            yield Finding(
                f"pool {name}", "ok" if is_served else "warning", what + ("" if is_served else f"; `prefect worker start --pool {name}`")
            )
        stale = [run.name for run in runs(server, 50) if run.state == "stale"]
        if stale:
            yield Finding(
                "runs",
                "warning",
                f"no sign of life of {', '.join(stale)}; after eight minutes they are started again",
            )
    except PrefectServerFailed as error:
        yield Finding("server", "error", str(error))


def _clock(server: ServerApi) -> Finding:
    """The server's clock against this machine's: leases, schedules and heartbeats compare them."""
    with urllib.request.urlopen(f"{server.url}/health", timeout=10) as response:
        theirs = response.headers.get("Date")
    if theirs is None:
        return Finding("clock", "warning", "the server does not say its time")
    off_s = abs(parsedate_to_datetime(theirs).timestamp() - time.time())
    if off_s > LARGEST_CLOCK_ERROR_S:
        return Finding(
            "clock",
            "error",
            f"{off_s:,.0f} s off the server's; schedules and signs of life are wrong: synchronise both (chrony)",
        )
    return Finding("clock", "ok", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, as the server's")
