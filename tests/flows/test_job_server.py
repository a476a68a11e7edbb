"""A forked job is, to itself and to its flow, the process that `python -m MODULE …` would be; its imports are paid for once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dalle_datasets.demo.emoji_scenes import all_scenes
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import write_parts
from dalle_datasets.store.schemas import PAIRS
from dalle_model.config.presets import preset
from dalle_model.running.run_dir import execute, prepare
from flows.runtime import job_client
from flows.runtime.jobs import start_job
from flows.runtime.processes import Command, stream_together
from tests.flows.test_processes import STUBBORN_TREE, is_alive, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux only")

HEAVY = """
import os, pathlib
with (pathlib.Path(__file__).parent / "imported").open("a") as file:
    file.write("x")
print("imports")
"""

DESCRIBE = """
import heavy, json, os, pathlib, random, signal, sys, uuid
me = pathlib.Path("/proc/self")
print(json.dumps({
    "name": __name__, "spec": __spec__.name, "argv": sys.argv, "path": sys.path, "cwd": os.getcwd(),
    "environment": dict(os.environ), "session": os.getsid(0) == os.getpgid(0) == os.getpid(), "stdin": sys.stdin.read(),
    "signals": {name.name: str(signal.getsignal(name)) for name in signal.Signals}, "mask": str(signal.pthread_sigmask(0, [])),
    "command": (me / "cmdline").read_text().replace("\\0", " ").strip(), "stdout": [sys.stdout.encoding, sys.stdout.write_through],
    "open": sorted(entry.readlink().parts[-1].split(":")[0] for entry in (me / "fd").iterdir() if int(entry.name) < 3),
}))
print("last words", file=sys.stderr)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where modules are that jobs find: `heavy`, which leaves an x in a file whenever it is imported, and `describe`."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep))
    (tmp_path / "heavy.py").write_text(HEAVY)
    (tmp_path / "describe.py").write_text(DESCRIBE)
    return tmp_path


def job(folder: Path, code: str, *arguments: str, imports: tuple[str, ...] | None = ("heavy",), **env: str) -> Command:
    """A command for a module with this code."""
    (folder / "job.py").write_text(code)
    return Command([sys.executable, "-m", "job", *arguments], env, imports)


def run(*commands: Command, stall_s: float | None = None) -> tuple[list[str | None], list[str]]:
    """How each failed, and what they said."""
    lines: list[str] = []
    failures = stream_together(commands, lambda _, line: lines.append(line), stall_s=stall_s, grace_s=0.3)
    return [failure and failure.reason for failure in failures], lines


def times_imported(folder: Path) -> int:
    return len((folder / "imported").read_text())


def test_a_forked_job_is_what_a_process_of_its_own_would_be(folder):
    command = [sys.executable, "-m", "describe", "one", "t w o"]
    (failed, alone), (failed_too, forked) = (run(Command(command, {"ANSWER": "42"}, imports)) for imports in (None, ("heavy",)))
    assert failed == failed_too == [None]
    assert [forked[0], forked[2]] == [alone[0], alone[2]] == ["imports", "last words"]
    assert json.loads(forked[1]) == json.loads(alone[1])
    assert json.loads(forked[1])["environment"]["ANSWER"] == "42"


def test_imports_are_paid_for_once_by_jobs_that_differ_in_their_rank_only(folder):
    code = "import heavy, os, random, sys, tempfile; print(os.environ.get('LOCAL_RANK'), random.random(), tempfile.mktemp())"
    failures, lines = run(*(job(folder, code, LOCAL_RANK=str(i)) for i in range(3)))
    assert failures == [None] * 3
    ranks, numbers, names = zip(*(line.split() for line in lines if line != "imports"), strict=True)
    assert sorted(ranks) == ["0", "1", "2"]
    assert len({*numbers}) == len({*names}) == 3, "jobs share no generator"
    assert run(job(folder, code))[0] == [None]
    assert times_imported(folder) == 1
    run(job(folder, code, OMP_NUM_THREADS="3"))
    assert times_imported(folder) == 2, "which libraries read when they are loaded"


def test_exit_statuses_signals_and_last_words(folder):
    ends = {
        "raise SystemExit(3)": "it ended with exit status 3",
        "raise SystemExit": None,
        "raise SystemExit('a sentence')": "it ended with exit status 1",
        "1 / 0": "it ended with exit status 1",
        "raise KeyboardInterrupt": "it was ended by SIGINT",
        "import os; os.kill(os.getpid(), 9)": "it was ended by SIGKILL; if nobody did that, the machine ran out of memory",
        "import os; os.kill(os.getpid(), 15)": "it was ended by SIGTERM",
        "import atexit, threading, time; atexit.register(print, 'goodbye'); threading.Thread(target=time.sleep, args=(0.1,)).start()": None,
    }
    said = {code: run(job(folder, code)) for code in ends}
    assert {code: failures[0] for code, (failures, _) in said.items()} == ends
    words = [lines[-1] if lines else "" for _, lines in said.values()]
    assert words[2:5] == ["a sentence", "ZeroDivisionError: division by zero", "KeyboardInterrupt"]
    assert words[-1] == "goodbye"


def test_objects_of_its_imports_are_freed_at_a_jobs_end(folder):
    """Or bindings (nanobind's, in Triton) complain of leaks after the job's last words, in whose place they would be told."""
    (folder / "heavy.py").write_text(
        "import os\nclass Bound:\n    def __del__(self, write=os.write): write(1, b'freed\\n')\nbound = Bound()\nbound.itself = bound\n"
    )
    assert run(job(folder, "import heavy; print('done')")) == ([None], ["done", "freed"])


def test_the_job_itself_meets_what_is_wrong_with_its_imports(folder):
    (folder / "heavy.py").write_text("raise ValueError('not today')")
    failures, lines = run(job(folder, "import heavy"))
    assert failures == ["it ended with exit status 1"]
    assert lines[-1] == "ValueError: not today"


def test_an_interrupted_flow_ends_the_job_with_its_tree(folder):
    pids: list[int] = []

    def interrupt(number: int, line: str) -> None:
        if line != "imports":
            pids.append(int(line))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_together([job(folder, STUBBORN_TREE)], interrupt, grace_s=0.2)
    assert wait_until(lambda: not is_alive(pids[0]))
    assert run(job(folder, "print('again')")) == ([None], ["again"]), "from the same server"


def test_a_job_that_is_silent_or_hangs_while_it_imports_is_ended(folder):
    silence = ["it printed nothing for 0.5 s and was ended"]
    assert run(job(folder, "import time; time.sleep(60)"), stall_s=0.5)[0] == silence
    (folder / "hanging.py").write_text("import time; time.sleep(60)")
    assert run(job(folder, "print('never')", imports=("hanging",)), stall_s=0.5) == (silence, [])
    assert run(job(folder, "print('again')")) == ([None], ["imports", "again"])


def test_nothing_is_left_when_the_flow_is_killed(folder):
    job(folder, "import os, time; print(os.getpid(), os.getppid(), flush=True); time.sleep(60)")
    code = (
        "import sys; from flows.runtime.processes import *\n"
        "stream_together([Command([sys.executable, '-m', 'job'], {}, ('heavy',))], lambda _, line: print(line, flush=True))"
    )
    flow = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert flow.stdout is not None
    assert flow.stdout.readline() == "imports\n"
    pids = [int(pid) for pid in flow.stdout.readline().split()]
    assert all(map(is_alive, pids))
    flow.kill()
    flow.wait()
    flow.stdout.close()
    assert wait_until(lambda: not any(map(is_alive, pids)))


def test_jobs_of_a_server_that_is_killed_are_told_to_end_and_the_next_job_has_another_server(folder):
    code = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), time.sleep(0.2), sys.exit(0)))
os.kill(os.getppid(), signal.SIGKILL)
time.sleep(60)
"""
    failures, lines = run(job(folder, code))
    assert failures == ["it was ended by SIGKILL; if nobody did that, the machine ran out of memory"]
    assert lines == ["imports", "saved"], "and it is waited for until it has ended itself"
    assert run(job(folder, "print('again')")) == ([None], ["imports", "again"])
    (server,) = (server for server in job_client._servers if server.is_alive)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    assert run(job(folder, "print('and again')")) == ([None], ["imports", "and again"])


def test_a_library_with_threads_of_its_own_is_not_forked(folder):
    (folder / "heavy.py").write_text(HEAVY + "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()")
    failures, _ = run(job(folder, "import sys; assert 'heavy' not in sys.modules; raise SystemExit(5)"))
    assert failures == ["it ended with exit status 5"]
    assert times_imported(folder) == 1


def test_where_a_gpu_or_no_server_can_be_had_jobs_are_ordinary_processes(folder, monkeypatch):
    command = job(folder, "import sys; print('heavy' in sys.modules)")
    with monkeypatch.context() as patch:
        patch.setattr(job_client, "GPU_DEVICES", ("null",))
        assert run(command) == ([None], ["False"])
    assert run(command) == ([None], ["imports", "True"])
    (folder / "flows.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.chdir(folder)
    assert run(command) == ([None], ["False"])


def test_servers_that_have_nothing_to_do_end_with_the_process_and_count_as_its_children(folder):
    job(folder, "sum(range(10_000_000))")
    code = (
        "import resource, sys; from flows.runtime import job_client; from flows.runtime.processes import *\n"
        "stream_together([Command([sys.executable, '-m', 'job'], {'A': a}, ()) for a in '12'], lambda *_: None)\n"
        "pids = [server.pid for server in job_client._servers]\n"
        "job_client.end_servers()\n"
        "print(len(pids), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > 0.2)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "2 True\n"


@pytest.mark.slow
def test_a_forked_training_computes_what_one_in_this_process_computes(tmp_path):
    from tests.dalle_model.jobs.conftest import TINY, pairs_table  # here, because it imports torch

    made = []
    for folder, run_job in (("forked", start_job), ("here", execute)):
        config = preset("demo", {**TINY, "paths.data_root": str(tmp_path / folder), "train_dvae.max_steps": 3, "train_dvae.batch_size": 4})
        write_parts(Layout(tmp_path / folder).pairs("emoji"), pairs_table(all_scenes()[::99]), PAIRS, rows_per_part=20, row_group_size=10)
        made.append(run_job("train_dvae", prepare("train_dvae", config, {"pairs": "pairs/emoji", "pairs_id": "1"})))
    assert made[0]["dvae_id"] == made[1]["dvae_id"]
