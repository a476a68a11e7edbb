"""Runs without a process, on a real server: each gets the state that lets it go on."""

import os
import socket
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Cancelling, Crashed, Pending, Running

from flows.operation import lost_runs
from flows.operation.server_api import ServerApi
from flows.operation.server_view import runs

pytestmark = pytest.mark.prefect


@pytest.fixture
def client(prefect_server):
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def start(client):
    """A run of a deployment in the pool `cpu`, in some state."""
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name="cpu", type="process"))
    deployment = client.create_deployment(client.create_flow_from_name("lost-flow"), "lost", work_pool_name="cpu", tags=["data"])
    made = []

    def start(state):
        run = client.create_flow_run_from_deployment(deployment).id
        client.update_flow_run(run, infrastructure_pid="1")  # without one a run that is cancelled is over
        client.set_flow_run_state(run, state, force=True)
        made.append(run)
        return run

    yield start
    for run in made:
        client.delete_flow_run(run)
    client.delete_deployment(deployment)


def test_runs_without_a_process_go_on_or_end(client, start, prefect_server, monkeypatch):
    monkeypatch.setattr(lost_runs, "SETTLED", timedelta(0))
    server = ServerApi(prefect_server)
    lost = {name: start(state) for name, state in (("pending", Pending()), ("running", Running()), ("cancelling", Cancelling()))}
    alive, never_began = start(Running()), start(Crashed(message="server away"))
    sleeper = [sys.executable, "-c", "import time; time.sleep(300)"]
    with subprocess.Popen(sleeper, env={**os.environ, lost_runs.RUN_ID: str(alive)}) as process:
        try:
            looker = lost_runs.LostRuns(server)
            looker.look()
            assert client.read_flow_run(never_began).state.name == "AwaitingRetry"
            looker.look()
            assert client.read_flow_run(lost["pending"]).state.is_pending(), "other machines may serve this pool"
            client.request("POST", "/work_pools/cpu/workers/heartbeat", json={"name": f"{socket.gethostname()}-cpu-1"})
            looker.look()
            said = looker.look()
        finally:
            process.kill()
    assert len(said) == 3
    states = {name: client.read_flow_run(run).state for name, run in lost.items()}
    assert states["pending"].name == "AwaitingRetry"
    assert states["running"].is_crashed()
    assert states["cancelling"].is_cancelled()
    assert client.read_flow_run(alive).state.is_running()
    for _ in range(lost_runs.MAX_RESTARTS):
        client.set_flow_run_state(never_began, Crashed(message="again"), force=True)
        looker.look()
    assert client.read_flow_run(never_began).state.is_crashed(), "twice at most"
    shown = {run.name.partition(" ")[0]: run.state for run in runs(server, 20)}
    assert "lost-flow" in shown
    assert lost_runs.LostRuns(ServerApi("http://127.0.0.1:1/api")).look() == []
