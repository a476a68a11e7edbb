"""What a flow says and does while a job is in a work pool. `tests/end_to_end/test_deployments.py` has a real server and worker."""

from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.objects import StateType, WorkPoolStatus
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Running

from dalle_datasets.store.locks import held
from dalle_model.config.presets import preset
from dalle_model.running.run_dir import JobFailed, prepare, write_json
from flows.cli.main import main
from flows.runtime import dispatch, jobs, run
from flows.runtime.prefect_server import PrefectServerFailed
from flows.runtime.progress import Progress, shown_on

FAILED = "Flow run encountered an exception: JobFailed: tokenize_images failed: the disk is full; run the same command again to resume"


class Recorder:
    """A display that remembers what it was told."""

    def __init__(self):
        self.notes, self.progress = [], []

    def note(self, text):
        self.notes.append(text)

    def advance(self, progress):
        self.progress.append(progress)


class Server:
    """Answers with the next state of each run at every question; an exception in the list is raised."""

    def __init__(self, *histories):
        self.runs = {uuid4(): list(history) for history in histories}
        self.cancelled, self.crashed = [], []

    def read_flow_run(self, run):
        history = self.runs[run]
        state = history.pop(0) if len(history) > 1 else history[0]
        if isinstance(state, Exception):
            raise state
        return SimpleNamespace(state=state)

    def read_work_pool(self, name):
        return SimpleNamespace(status=WorkPoolStatus.NOT_READY)

    def set_flow_run_state(self, run, state, force=False):
        if state.type == StateType.RUNNING and force:
            self.runs[run] = [state]
            return
        if state.type == StateType.CRASHED and force:
            self.runs[run] = [state]
            self.crashed.append(run)
            return
        assert state.type == StateType.CANCELLING
        assert self.read_flow_run(run).state.type in dispatch.ALIVE, "Prefect refuses to cancel what has ended"
        self.cancelled.append(run)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(dispatch, "POLL_S", 0.0)


def wait(server, tmp_path):
    recorder = Recorder()
    with shown_on(recorder):
        dispatch._wait(server, "tokenize_images", tmp_path, "gpu", list(server.runs), recorder)
    return recorder


def test_one_worker_that_completes_is_enough_and_the_others_failures_are_told(tmp_path):
    write_json(tmp_path / jobs.PROGRESS_FILE, {"done": 7, "total": 7, "unit": "images", "numbers": {}})
    told = wait(Server([Running(), Failed(message=FAILED)], [Running(), Running(), Completed()], [Pending()]), tmp_path)
    assert told.progress == [Progress(7, 7, "images", {})]
    assert told.notes == [
        "tokenize images: one of 3 workers failed (the disk is full; run the same command again to resume); the others did its work"
    ]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (Failed(message=FAILED), "the disk is full; run the same command again to resume"),
        (
            Failed(message="Flow run encountered an exception: ValueError: /data/x does not exist on node3"),
            "/data/x does not exist on node3",
        ),
        (
            Crashed(message="Flow run infrastructure exited with non-zero status code -9."),
            "infrastructure exited with non-zero status code -9",
        ),
        (Cancelled(), "it was cancelled"),
        (Crashed(), "its run ended as Crashed"),
    ],
)
def test_when_all_fail_the_reason_comes_back_once(tmp_path, state, words):
    with pytest.raises(JobFailed, match="tokenize_images failed in pool gpu: ") as failure:
        wait(Server([Running(), state], [state]), tmp_path)
    assert str(failure.value).count(words) == 1
    assert "encountered" not in str(failure.value)


def test_a_job_whose_lock_is_free_again_is_dead_whatever_the_server_believes(tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "LOST_S", -1.0)
    server = Server([Running()])
    (its,) = server.runs
    with held(tmp_path / "lock"):
        monkeypatch.setattr(dispatch.time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            wait(server, tmp_path)
        assert not server.crashed, "it works"
    with pytest.raises(KeyboardInterrupt):
        wait(server, tmp_path)
    assert not server.crashed, "its lock was never seen: this file system may hide those of other machines"
    looks = iter([True, False])
    monkeypatch.setattr(dispatch, "is_under_way", lambda run_dir: next(looks, False))
    monkeypatch.setattr(dispatch.time, "sleep", lambda s: None)
    with pytest.raises(JobFailed, match="nobody holds its lock in .*; its worker was stopped, most likely"):
        wait(server, tmp_path)
    assert server.crashed == [its]


def interrupt(seconds):
    raise KeyboardInterrupt


def test_a_job_that_nobody_takes_says_which_command_helps(tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "LONELY_S", -1.0)
    told = wait(Server([Pending(), Pending(), Running(), Completed()]), tmp_path)
    assert told.notes == [
        "tokenize images: no worker serves pool gpu; start one on the machine with the GPU: `prefect worker start --pool gpu`"
    ]


def test_a_server_that_restarts_is_waited_for_but_not_for_ever(tmp_path, monkeypatch):
    gone = httpx.ConnectError("refused")
    wait(Server([Running(), gone, gone, Completed()]), tmp_path)
    monkeypatch.setattr(dispatch, "SERVER_PATIENCE_S", -1.0)
    with pytest.raises(PrefectServerFailed, match=r"\(refused\); tokenize_images may still be running in pool gpu: start the server and"):
        wait(Server([Running(), gone]), tmp_path)


def test_a_job_that_holds_its_lock_is_not_dead_whatever_prefect_says(tmp_path, monkeypatch):
    silent = Crashed(message="no heartbeat for 480 s")
    with held(tmp_path / "lock") as is_mine:
        assert is_mine
        told = wait(Server([Running(), silent, silent, silent, Completed()]), tmp_path)
        assert told.notes == [f"tokenize images: Prefect takes it for dead, but it holds its lock in {tmp_path}; waiting for it"]
        with pytest.raises(JobFailed, match="it was cancelled"):  # that is somebody's will
            wait(Server([Cancelled()]), tmp_path)
        server = Server([silent])
        dispatch._cancel(server, tmp_path, list(server.runs), only_waiting=False)
        assert server.cancelled == list(server.runs), "what lives can be cancelled"
    with pytest.raises(JobFailed, match="no heartbeat for 480 s"):
        wait(Server([Running(), silent]), tmp_path)
    with held(tmp_path / "claims" / "part-00000"):
        wait(Server([silent, silent, Completed()]), tmp_path)
    write_json(tmp_path / "result.json", {})
    wait(Server([silent]), tmp_path)


def test_what_nobody_needs_any_more_is_cancelled(tmp_path):
    server = Server([Running()], [Pending()], [Completed()])
    running, pending, _ = runs = list(server.runs)
    dispatch._cancel(server, tmp_path, runs, only_waiting=True)
    assert server.cancelled == [pending]
    dispatch._cancel(server, tmp_path, runs, only_waiting=False)
    assert server.cancelled == [pending, running, pending]


def test_only_heavy_jobs_are_sent_and_only_shared_ones_to_several_workers(tmp_path, monkeypatch):
    config = preset("demo", {"paths.data_root": str(tmp_path), "flow.pool": "gpu", "flow.num_workers": 4, "flow.num_processes": 8})
    sent = []
    monkeypatch.setattr(run, "send_job", lambda job, run_dir, *how: sent.append((job, *how)) or {})
    monkeypatch.setattr(run, "start_job", lambda job, run_dir, num_processes: sent.append((job, "here", num_processes)) or {})
    for job in ("train_bpe", "train_dvae", "train_clip", "tokenize_images"):
        run.execute_job(job, config, {"pairs": "pairs/web", "pairs_id": "1"})
    assert sent == [("train_bpe", "here", 1), ("train_dvae", "gpu", 8, 1), ("train_clip", "gpu", 1, 1), ("tokenize_images", "gpu", 8, 4)]


def test_a_pool_without_a_server_is_a_wrong_request(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["run", "train_clip", "--set", f"paths.data_root={tmp_path}", "--set", "flow.pool=gpu"])
    assert ended.value.code == 2
    assert (
        "flow.pool=gpu needs a Prefect server and a worker: start them (flows/README.md) and set PREFECT_API_URL" in capsys.readouterr().err
    )
    monkeypatch.setattr(dispatch, "is_private", lambda url: True)
    run_dir = prepare("train_bpe", preset("demo", {"paths.data_root": str(tmp_path)}), {})
    with pytest.raises(ValueError, match="flow.pool=gpu needs a Prefect server and a worker"):
        dispatch.send_job("train_bpe", run_dir, "gpu")


def test_workers_without_a_pool_are_a_wrong_request():
    with pytest.raises(
        ValueError, match=r"flow.num_workers=4 are workers of a Prefect work pool; set flow.pool, e.g. gpu, or use flow.num_p"
    ):
        preset("demo", {"flow.num_workers": 4})
    with pytest.raises(ValueError, match=r"flow\.num_processes=0 must be in \[1, 100,000\]"):
        preset("demo", {"flow.num_processes": 0})
