"""`dalle up` and `dalle down` on real processes: an installation that works, is killed in parts and as a whole, and leaves nothing."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dalle_datasets.catalog.connection import open_published
from dalle_datasets.store.layout import Layout
from flows.operation.installation import running
from flows.operation.lost_runs import RUN_ID
from flows.operation.processes import command_of, end, listener_of, marked, variable_of
from flows.operation.server_api import ServerApi
from flows.runtime.prefect_server import PrefectServerFailed

pytestmark = pytest.mark.slow

DALLE = [sys.executable, "-c", "from flows.cli.main import main; main()"]


def processes_of(run: str, home: Path) -> set[int]:
    """Those that execute a flow run."""
    return {pid for pid in marked(home) if variable_of(pid, RUN_ID) == run}


def state_of(run: str, server: ServerApi) -> str:
    """Of a flow run; nothing while the server is away."""
    with suppress(PrefectServerFailed):
        return str(server.get(f"/flow_runs/{run}")["state_type"])
    return ""


@pytest.fixture
def site(tmp_path, migrated_database) -> Iterator[Path]:
    """A site file with a free port, whose data root has a database that needs no migration if one is at hand."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = tmp_path / "site.toml"
    path.write_text(f'name = "night"\ndata_root = "root"\n[server]\nport = {port}\n[schedules]\nmaintain_catalog = "0 3 * * *"\n')
    home = tmp_path / "root" / "operation"
    (home / "prefect").mkdir(parents=True)
    if migrated_database.exists():
        shutil.copy(migrated_database, home / "prefect" / "prefect.db")
    yield path
    dalle("down", "--site", str(path))
    end(lambda: marked(home), 0)


def dalle(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DALLE, *arguments], capture_output=True, text=True, check=False, timeout=400)


def wait_until(condition: Callable[[], object], timeout_s: float = 400.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_an_installation_works_survives_kills_and_leaves_nothing(site):
    root, home = site.parent / "root", site.parent / "root" / "operation"
    port = int(site.read_text().partition("port = ")[2].split()[0])
    with (site.parent / "up.txt").open("w") as log:
        keeper = subprocess.Popen([*DALLE, "up", "--site", str(site)], stdout=log, stderr=log, start_new_session=True)
    wait_until(lambda: running(root) or keeper.poll() is not None)
    record = running(root)
    assert record is not None, (site.parent / "up.txt").read_text()
    server = record.server()
    assert server.post("/work_pools/cpu/workers/filter", {})[0]["status"] == "ONLINE"
    deployment = server.get("/deployments/name/maintain-catalog/nightly")
    assert [(schedule["active"], schedule["schedule"]["cron"]) for schedule in deployment["schedules"]] == [(True, "0 3 * * *")]
    again = dalle("up", "--site", str(site))
    assert again.returncode == 0, again.stderr
    assert f"runs already, since {record.since} (process {keeper.pid})" in again.stderr
    assert "pool cpu   2 at a time, 1 worker" in again.stdout
    assert "maintain-catalog/nightly: 0 3 * * * UTC" in again.stdout

    # The crash matrix in short (`make chaos` is the long one): a flow is killed, then, when it goes on, the server below it.
    collect = server.get("/deployments/name/collect-pairs/nightly")["id"]
    few = {"overrides": {"paths.data_root": str(root), "source.num_scenes": 64, "download.runner": "threads"}}
    run = server.post(f"/deployments/{collect}/create_flow_run", {"parameters": few})["id"]
    wait_until(lambda: processes_of(run, home))
    first = processes_of(run, home)
    os.kill(min(first), signal.SIGKILL)
    wait_until(lambda: processes_of(run, home) - first)
    killed = listener_of(port)
    assert "uvicorn" in command_of(killed)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: listener_of(port) not in (None, killed))
    assert "server ended with status -9, see" in (site.parent / "up.txt").read_text()
    wait_until(lambda: state_of(run, server) in ("COMPLETED", "FAILED"))
    assert state_of(run, server) == "COMPLETED"
    wait_until(lambda: not processes_of(run, home))
    with open_published(Layout(root)) as con:
        assert con.sql("select count(*), count(distinct pair_id) from pairs").fetchone() == (64, 64)

    keeper.kill()
    keeper.wait()
    gone = dalle("down", "--site", str(site))
    assert gone.returncode == 0, gone.stderr
    assert marked(home) == set()
    assert listener_of(port) is None
    assert running(root) is None
    assert "night: nothing was running" in dalle("down", "--site", str(site)).stdout
