"""A flow and its jobs: results are reused, progress arrives, failures carry the job's last words."""

import json
import logging
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dalle_model.config.flow import FlowConfig
from dalle_model.config.presets import preset
from dalle_model.running.run_dir import JobFailed, prepare, write_json
from flows.runtime import jobs
from flows.runtime import run as run_module
from flows.runtime.progress import Progress, parse_progress, shown_on
from flows.runtime.run import execute_job


class Recorder:
    """A display that remembers what it was told."""

    def __init__(self):
        self.titles, self.notes, self.lines, self.progress = [], [], [], []

    def stage(self, title):
        self.titles.append(title)
        yield self

    def note(self, text):
        self.notes.append(text)

    def advance(self, progress):
        self.progress.append(progress)

    def log(self, line):
        self.lines.append(line)

    def show(self, folder):
        self.lines.append(f"shown: {folder}")


@pytest.fixture
def config(tmp_path):
    return preset("demo", {"paths.data_root": str(tmp_path)})


INPUTS = {"pairs": "pairs/web", "pairs_id": "1"}


def in_processes(config, number: int):
    return replace(config, flow=FlowConfig(num_processes=number))


def fake_job(monkeypatch, code: str) -> None:
    """Start `code` instead of the job; it finds the run directory in sys.argv[-1]."""
    program = [sys.executable, "-c", f"import sys, os, json, pathlib\nrun_dir = pathlib.Path(sys.argv[-1])\n{code}"]
    commands_of = jobs.commands_of
    monkeypatch.setattr(
        jobs,
        "commands_of",
        lambda job, run_dir, num_processes: [
            replace(command, arguments=[*program, str(run_dir)], imports=None) for command in commands_of(job, run_dir, num_processes)
        ],
    )


def test_progress_and_other_lines_are_told_apart(config, monkeypatch, tmp_path):
    fake_job(
        monkeypatch,
        """
print('PROGRESS ' + json.dumps(dict(done=2, total=4, unit='steps', loss=0.5)))
print('reading pairs')
print('PICTURES "/runs/a/shown"')
(run_dir / 'result.json').write_text('{"answer": 42}')
""",
    )
    recorder = Recorder()
    with shown_on(recorder):
        assert execute_job("train_bpe", config, INPUTS) == {"answer": 42}
    assert recorder.titles == ["train bpe"]
    assert recorder.progress == [Progress(2, 4, "steps", {"loss": 0.5})]
    assert recorder.lines == ["reading pairs", "shown: /runs/a/shown"]
    assert (prepare("train_bpe", config, INPUTS) / "log.txt").read_text() == "reading pairs\n"


def test_a_finished_job_starts_no_process(config, monkeypatch):
    fake_job(monkeypatch, "raise SystemExit('started')")
    write_json(prepare("train_bpe", config, INPUTS) / "result.json", {"answer": 42})
    recorder = Recorder()
    with shown_on(recorder):
        assert execute_job("train_bpe", config, INPUTS) == {"answer": 42}
    assert recorder.notes
    assert "already done" in recorder.notes[0]
    assert not recorder.titles


def test_a_failed_job_is_reported_with_its_last_words(config, monkeypatch):
    fake_job(monkeypatch, "print('reading'); sys.exit('pairs/web holds no pairs; run collect_pairs')")
    with pytest.raises(
        JobFailed, match=r"train_bpe failed: pairs/web holds no pairs; run collect_pairs; run the same .*runs/train-bpe-.*log\.txt"
    ):
        execute_job("train_bpe", config, INPUTS)


def test_a_killed_job_is_reported_as_killed(config, monkeypatch):
    config = replace(config, flow=FlowConfig(max_restarts=0))
    fake_job(monkeypatch, "import os; print('step 3', flush=True); os.kill(os.getpid(), 9)")
    with pytest.raises(JobFailed, match="ended by SIGKILL; if nobody did that, the machine ran out of memory; its last line: 'step 3'"):
        execute_job("train_bpe", config, INPUTS)


# A real job that counts its starts in its run directory and does something else at each of them.
CRASHES = """
import signal, time
from dalle_model.jobs import train_bpe
from dalle_model.jobs.__main__ import main, set_up_process
def run(job_run):
    with (run_dir / "starts").open("a") as file:
        file.write("x")
    starts = len((run_dir / "starts").read_text())
    ENDS[starts - 1]()
    return {"answer": starts}
def raised(error):
    raise error
killed = lambda: os.kill(os.getpid(), signal.SIGKILL)
told_to_end = lambda: os.kill(os.getpid(), signal.SIGTERM)
wrong = lambda: raised(ValueError("the loss became nan"))
well = lambda: None
ENDS = [%s]
train_bpe.run = run
set_up_process()
sys.exit(main(["train_bpe", str(run_dir)]))
"""


def test_a_job_that_crashes_is_started_again_by_itself(config, monkeypatch):
    fake_job(monkeypatch, CRASHES % "killed, told_to_end, well")
    monkeypatch.setattr(run_module, "RESTART_PAUSE_S", 0.01)
    recorder = Recorder()
    with shown_on(recorder):
        assert execute_job("train_bpe", config, INPUTS)["answer"] == 3
    assert len(recorder.notes) == 2
    assert recorder.notes[0].endswith(". It is started again in 0.01 s (1 of at most 2 times)")


def test_a_job_that_is_killed_before_its_first_word_is_started_again(config, monkeypatch):
    fake_job(
        monkeypatch,
        """
if not (run_dir / "starts").exists():
    (run_dir / "starts").write_text("x")
    import signal
    os.kill(os.getpid(), signal.SIGKILL)
(run_dir / "result.json").write_text('{"answer": 2}')
""",
    )
    monkeypatch.setattr(run_module, "RESTART_PAUSE_S", 0.01)
    (prepare("train_bpe", config, INPUTS) / "status").write_text("failed")  # an earlier attempt did
    assert execute_job("train_bpe", config, INPUTS)["answer"] == 2


def test_a_job_that_is_killed_after_its_last_word_is_done(config, monkeypatch):
    fake_job(monkeypatch, """(run_dir / "result.json").write_text('{"answer": 1}'); os.kill(os.getpid(), 9)""")
    recorder = Recorder()
    with shown_on(recorder):
        assert execute_job("train_bpe", config, INPUTS)["answer"] == 1
    assert "ended by SIGKILL" in recorder.notes[0]
    assert recorder.notes[0].endswith("but the work is done")


@pytest.mark.parametrize(("ends", "max_restarts", "words"), [("killed, well", 0, "SIGKILL"), ("killed, wrong, well", 2, "nan")])
def test_a_job_is_not_started_for_ever_nor_when_it_failed(config, monkeypatch, ends, max_restarts, words):
    fake_job(monkeypatch, CRASHES % ends)
    monkeypatch.setattr(run_module, "RESTART_PAUSE_S", 0.01)
    with pytest.raises(JobFailed, match=words):
        execute_job("train_bpe", replace(config, flow=FlowConfig(max_restarts=max_restarts)), INPUTS)
    assert (prepare("train_bpe", config, INPUTS) / "starts").read_text() == "x" * (ends.count(",") or 1)


def test_a_negative_number_of_restarts_is_refused():
    with pytest.raises(ValueError, match=r"flow\.max_restarts=-1 must be in \[0, "):
        preset("demo", {"flow.max_restarts": -1})


def test_a_job_that_another_process_runs_is_waited_for(config, monkeypatch):
    run_dir = prepare("train_bpe", config, INPUTS)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; from pathlib import Path; from dalle_datasets.store.locks import held\n"
         "with held(Path(sys.argv[1]) / 'lock'): print(1, flush=True); input(); (Path(sys.argv[1]) / 'result.json').write_text('{}')",
         str(run_dir)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    (run_dir / jobs.PROGRESS_FILE).write_text(json.dumps({"done": 3, "total": 9, "unit": "steps", "numbers": {}}))
    fake_job(monkeypatch, "raise SystemExit('started')")
    monkeypatch.setattr(run_module, "POLL_S", 0.01)
    recorder = Recorder()
    recorder.advance = lambda progress: (recorder.progress.append(progress), len(recorder.progress) == 3 and end())

    def end():
        holder.communicate("\n")

    with shown_on(recorder):
        assert execute_job("train_bpe", config, INPUTS) == {}
    assert recorder.progress[0] == Progress(3, 9, "steps", {})
    assert recorder.notes == [f"train bpe: process {holder.pid} on {platform.node()} is at it in {run_dir}; waiting for it"]


def test_a_hanging_job_is_ended(config, monkeypatch):
    fake_job(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(jobs, "STALL_S", 0.3)
    with pytest.raises(JobFailed, match="printed nothing for 0.3 s and was ended"):
        execute_job("train_bpe", config, INPUTS)


def test_a_job_without_a_result_is_a_failure(config, monkeypatch):
    fake_job(monkeypatch, "pass")
    with pytest.raises(JobFailed, match="left no result"):
        execute_job("train_bpe", config, INPUTS)


def test_the_real_program_is_started(config):
    """Nothing faked: the job's own complaint about the missing pairs must come back."""
    with pytest.raises(JobFailed, match="train_bpe: input pairs = .* does not exist; run the stage that makes it"):
        execute_job("train_bpe", config, INPUTS)


def test_several_processes_of_a_training_mean_torchrun(tmp_path):
    (command,) = jobs.commands_of("train_dvae", tmp_path, 4)
    assert command.arguments[1:] == [
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m", "dalle_model.jobs", "train_dvae", str(tmp_path))
    ]


def test_threads_of_a_job_wait_politely_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    for job, num_processes in (("train_bpe", 1), ("train_dvae", 2), ("generate_images", 2)):
        assert {command.env["GOMP_SPINCOUNT"] for command in jobs.commands_of(job, tmp_path, num_processes)} == {"10000"}
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    (command,) = jobs.commands_of("train_bpe", tmp_path, 1)
    assert command.env["GOMP_SPINCOUNT"] == "7"


def test_several_processes_of_a_shared_job_are_on_their_own(config, monkeypatch, tmp_path):
    fake_job(
        monkeypatch,
        """
if os.environ['LOCAL_RANK'] == '1':
    sys.exit('the GPU fell off the bus')
(run_dir / 'result.json').write_text('{"answer": 42}')
""",
    )
    recorder = Recorder()
    with shown_on(recorder):
        assert execute_job("tokenize_images", in_processes(config, 3), INPUTS) == {"answer": 42}
    assert recorder.notes == ["tokenize images: one of 3 processes failed (the GPU fell off the bus), but the work is done"]


def test_a_shared_job_fails_when_all_its_processes_do(config, monkeypatch, tmp_path):
    fake_job(monkeypatch, "sys.exit('the disk is full')")
    with pytest.raises(JobFailed, match="tokenize_images failed: the disk is full; run the same command again"):
        execute_job("tokenize_images", in_processes(config, 3), INPUTS)


def test_a_job_for_one_process_gets_one_whatever_the_setting_and_refuses_more_by_hand(config, monkeypatch, tmp_path):
    fake_job(monkeypatch, """(run_dir / 'result.json').write_text('{"answer": 42}')""")
    assert execute_job("train_bpe", in_processes(config, 8), INPUTS) == {"answer": 42}
    with pytest.raises(ValueError, match="train_bpe runs in one process, not in 8; only train_dvae, .* run in several"):
        jobs.start_job("train_bpe", tmp_path, num_processes=8)


def test_torchruns_own_report_is_not_the_jobs_last_words(config, monkeypatch):
    fake_job(
        monkeypatch,
        """
print('the disk is full')
print('E1122 20:15:08.881000 26326 lib/torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1) local_rank: 0')
print('=' * 60)
sys.exit(1)
""",
    )
    with pytest.raises(JobFailed, match="train_dvae failed: the disk is full; run the same command again to resume"):
        execute_job("train_dvae", config, INPUTS)


@pytest.mark.parametrize("line", ["hello", "PROGRESS", "PROGRESS made today: 3", "PROGRESS {}", "PROGRESS []", 'PROGRESS {"done": null}'])
def test_lines_that_are_not_progress(line):
    assert parse_progress(line) is None


def test_progress_describes_itself():
    line = "PROGRESS " + json.dumps({"done": 1_200, "total": 3_000, "unit": "steps", "image_loss": 0.25})
    assert parse_progress(line).describe() == "1,200/3,000 steps, image loss 0.25"


def test_a_finished_job_whose_files_are_gone_runs_again(config, monkeypatch, tmp_path):
    """Deleting a checkpoint must not leave a result that vouches for it: nothing would ever make it again."""
    fake_job(monkeypatch, """(run_dir / 'result.json').write_text('{"checkpoint": "runs/x/checkpoint", "parts": ["text/y.parquet"]}')""")
    execute_job("train_bpe", config, INPUTS)
    run_dir = prepare("train_bpe", config, INPUTS)
    assert not jobs.is_finished(run_dir)
    (tmp_path / "runs" / "x" / "checkpoint").mkdir(parents=True)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "y.parquet").touch()
    assert jobs.is_finished(run_dir)
    (tmp_path / "text" / "y.parquet").unlink()
    recorder = Recorder()
    with shown_on(recorder):
        execute_job("train_bpe", config, INPUTS)
    assert recorder.titles == ["train bpe"]


def test_of_several_processes_the_furthest_is_shown_and_kept_for_others(tmp_path):
    recorder = Recorder()
    shown = jobs.ProgressMerger(recorder, tmp_path)
    for done in (3, 2, 5):
        shown.advance(Progress(done, 5, "images", {"images_per_s": 1.0}))
    shown.advance(Progress(1, 9, "pages", {}))
    assert [progress.done for progress in recorder.progress] == [3, 5, 1]
    assert jobs.read_progress(tmp_path) == Progress(5, 5, "images", {"images_per_s": 1.0}), "at most once a second, and the end"
    assert jobs.read_progress(tmp_path / "nowhere") is None


def test_a_log_on_a_full_disk_ends_early_and_hides_nothing():
    with jobs.Log(Path("/dev/full")) as log:
        log.write("the job's own error is worth more")


@pytest.mark.parametrize(
    ("line", "level", "text"),
    [
        ("2026-11-28 10:08:03,123 dalle_model.training.loop WARNING loss is far off", "WARNING", "loss is far off"),
        ("2026-11-28 10:08:03,123 dalle_model.training.loop INFO step 10", "INFO", "step 10"),
        ("/x/y.py:12: UserWarning: slow", "WARNING", "/x/y.py:12: UserWarning: slow"),
        ("W1128 10:08:03.000000 123 torch/distributed/run.py:793] ranks", "WARNING", None),
        ("an ERROR in the text of a line", "INFO", None),
    ],
)
def test_lines_of_jobs_keep_their_level(line, level, text):
    from flows.runtime.progress import level_of

    assert level_of(line) == (getattr(logging, level), text or line)
