"""A run that works is not dead, whatever the server believes, and one that is cancelled ends, whatever its worker hears."""

import contextvars
import signal
import socket
import threading
import time

import pytest
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import AwaitingRetry, Cancelling, Crashed, Running

from flows.runtime import own_run
from flows.runtime.progress import PrefectStage, Progress

pytestmark = pytest.mark.prefect


@flow
def work() -> None:
    """Nothing: its run's states are set by hand."""


def wait_until(condition, timeout_s: float = 30.0) -> bool:
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_a_live_run_is_not_left_for_dead_and_ends_when_it_is_cancelled(prefect_server, monkeypatch):
    monkeypatch.setattr(own_run, "POLL_S", 0.05)
    told, over = threading.Event(), threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(work, state=Running())
        thread = threading.Thread(target=contextvars.copy_context().run, args=(own_run.watch, run.id, over), daemon=True)
        thread.start()
        try:
            for believed in (Crashed(message="no heartbeat"), AwaitingRetry()):
                client.set_flow_run_state(run.id, believed, force=True)
                assert wait_until(lambda: client.read_flow_run(run.id).state.is_running())
            assert not told.is_set()
            client.set_flow_run_state(run.id, Cancelling())
            assert wait_until(told.is_set)
            assert client.read_flow_run(run.id).state.is_cancelled()
        finally:
            over.set()
            thread.join(30)
            signal.signal(signal.SIGTERM, before)


def test_progress_and_watching_outlast_a_server_that_is_away(prefect_server, monkeypatch):
    monkeypatch.setattr(own_run, "POLL_S", 0.05)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        away = {PREFECT_API_URL: f"http://127.0.0.1:{nobody.getsockname()[1]}/api", PREFECT_CLIENT_MAX_RETRIES: 0}

        @flow
        def train() -> int:
            over = threading.Event()
            run_id = FlowRunContext.get().flow_run.id
            with temporary_settings(away):
                stage = PrefectStage("train")
                stage.advance(Progress(1, 2, "steps", {}))
                threading.Timer(0.5, over.set).start()
                own_run.watch(run_id, over)
            return 42

        assert train() == 42


def test_progress_of_a_thread_that_knows_no_run_belongs_to_the_run_all_the_same(prefect_server):
    @flow
    def crawl() -> str:
        stage = PrefectStage("discover in a thread")
        for done in (1, 2):
            thread = threading.Thread(target=stage.advance, args=(Progress(done, 2, "pages", {}),))
            thread.start()
            thread.join()
        return str(FlowRunContext.get().flow_run.id)

    run_id = crawl()
    with get_client(sync_client=True) as client:
        body = {"artifacts": {"key": {"any_": ["discover-in-a-thread"]}}}
        (artifact,) = client.request("POST", "/artifacts/filter", json=body).json()
    assert artifact["flow_run_id"] == run_id
    assert artifact["data"] == 100


def test_pictures_of_a_training_are_versions_of_an_artifact_of_the_running_stage(prefect_server, tmp_path):
    (tmp_path / "prompts.json").write_text('["a red apple"]')
    for step in (0, 100):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"step-{step:07}.png")

    @flow
    def learn() -> str:
        stage = PrefectStage("train a transformer")
        stage.show(tmp_path)
        stage.show(tmp_path / "none")
        Image.new("RGB", (8, 8), "blue").save(tmp_path / "step-0000200.png")
        stage.show(tmp_path)
        return str(FlowRunContext.get().flow_run.id)

    run_id = learn()
    with get_client(sync_client=True) as client:
        body = {"artifacts": {"key": {"any_": ["train-a-transformer-pictures"]}}, "sort": "CREATED_DESC"}
        found = client.request("POST", "/artifacts/filter", json=body).json()
    assert [artifact["flow_run_id"] for artifact in found] == [run_id] * 2, "a folder without pictures shows none"
    assert "After 0, 100, 200 updates" in found[0]["data"]
    assert "1. a red apple" in found[0]["data"]
