"""The jobs' command line: exit status 0, 1 or 2, and one line on standard error that says why."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

from dalle_model.jobs.__main__ import main
from dalle_model.running import run_dir as run_dirs
from dalle_model.running.run_dir import prepare, read_result


def last_words(capsys) -> str:
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    return str(line)


def test_a_finished_job_exits_with_0(tmp_path, pairs, make_config, capsys):
    run_dir = prepare("train_bpe", make_config(), pairs)
    assert main(["train_bpe", str(run_dir)]) == 0
    assert read_result(run_dir)["num_captions"] == 54
    assert (run_dir / "status").read_text() == "done"
    progress = capsys.readouterr().out.strip().splitlines()[-1]
    assert json.loads(progress.removeprefix("PROGRESS "))["unit"] == "captions"


def test_wrong_requests_exit_with_2(tmp_path, pairs, make_config, capsys):
    assert main(["train_bqe", str(tmp_path)]) == 2
    assert "NAME is one of train_bpe, train_dvae" in last_words(capsys)
    assert main(["train_bpe", str(tmp_path / "nowhere")]) == 2
    assert "holds no config.json" in last_words(capsys)
    run_dir = prepare("train_bpe", make_config(), pairs)
    assert main(["tokenize_captions", str(run_dir)]) == 2
    assert "is for job 'train_bpe', not 'tokenize_captions'" in last_words(capsys)


def test_foreseen_failures_exit_with_1_and_a_sentence(pairs, make_config, capsys):
    run_dir = prepare("train_bpe", make_config(), {**pairs, "pairs": "pairs/gone"})
    assert main(["train_bpe", str(run_dir)]) == 1
    line = last_words(capsys)
    assert "input pairs = " in line
    assert "does not exist; run the stage that makes it" in line
    assert (run_dir / "status").read_text() == "failed"


def test_an_unforeseen_error_leaves_its_traceback_in_the_run_directory(pairs, make_config, capsys, monkeypatch):
    def broken(name):
        raise ZeroDivisionError("by nought\nand again")

    run_dir = prepare("train_bpe", make_config(), pairs)
    monkeypatch.setattr(run_dirs, "import_module", broken)
    assert main(["train_bpe", str(run_dir)]) == 1
    assert last_words(capsys) == f"ZeroDivisionError: by nought and again; see {run_dir / 'error.txt'}"
    assert "def broken" not in (run_dir / "error.txt").read_text()
    assert "in broken" in (run_dir / "error.txt").read_text()
    monkeypatch.undo()
    assert main(["train_bpe", str(run_dir)]) == 0
    assert not (run_dir / "error.txt").exists()


def test_a_terminated_job_is_recorded_as_crashed(pairs, make_config):
    """Prefect cancels with SIGTERM, whose default action would leave the status at 'running' for ever."""
    run_dir = prepare("train_bpe", make_config(), pairs)
    script = (
        "import sys, time\n"
        "from dalle_model.jobs import train_bpe\n"
        "from dalle_model.jobs.__main__ import main, set_up_process\n"
        "train_bpe.run = lambda run: time.sleep(60)\n"
        "set_up_process()\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, "train_bpe", str(run_dir)])
    while not (run_dir / "status").exists():
        time.sleep(0.01)
    process.terminate()
    assert process.wait(timeout=20) == 143
    assert (run_dir / "status").read_text() == "crashed"


def test_two_processes_cannot_run_the_same_job_at_once(pairs, make_config, capsys):
    run_dir = prepare("train_bpe", make_config(), pairs)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; from pathlib import Path; from dalle_model.jobs.__main__ import alone_in\n"
         "with alone_in(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)", str(run_dir)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert main(["train_bpe", str(run_dir)]) == 1
    assert f"is being run by process {holder.pid} on {platform.node()}; wait for it, or stop it first" in last_words(capsys)
    assert not (run_dir / "error.txt").exists()  # the run in progress has not failed
    holder.kill()
    holder.communicate()
    assert main(["train_bpe", str(run_dir)]) == 0  # the lock ended with the process


def test_a_job_that_waits_inside_a_library_ends_when_nobody_is_left_to_kill_it(tmp_path):
    os.mkfifo(tmp_path / "part.parquet")  # whoever opens it for reading waits for somebody who writes
    job = (
        "import os, pyarrow.parquet; from pathlib import Path; from dalle_model.jobs.__main__ import set_up_process; "
        "set_up_process(grace_s=0.5); Path('pid').write_text(str(os.getpid())); pyarrow.parquet.ParquetFile('part.parquet')"
    )
    started = f"subprocess.Popen([sys.executable, '-c', {job!r}], preexec_fn=end_with_parent).wait()"
    flow = f"import subprocess, sys; from flows.runtime.processes import end_with_parent; {started}"
    with subprocess.Popen([sys.executable, "-c", flow], cwd=tmp_path, stderr=subprocess.PIPE) as parent:
        assert wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        pid = int((tmp_path / "pid").read_text())
        time.sleep(1.0)  # until it opens the file
        os.kill(pid, signal.SIGTERM)
        assert not wait_until(lambda: not is_running(pid), 2.5), "its parent would kill it"
        parent.kill()
        assert wait_until(lambda: not is_running(pid)), "it holds its lock for ever"


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def wait_until(condition, timeout_s: float = 20.0) -> bool:
    end = time.monotonic() + timeout_s
    while not (is_true := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return bool(is_true)
