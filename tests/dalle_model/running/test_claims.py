"""Any number of processes share units of work: each is made once, a killed one's unit is taken over, all return when all is done."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dalle_datasets.store.locks import held, holder_of
from dalle_model.running import claims
from dalle_model.running.claims import run_units

UNITS = {f"unit-{i}": 10 + i for i in range(12)}

# A process of its own: flock is between open files, so threads would do too, but only processes die by SIGKILL.
WORKER = """
import os, sys, time
from pathlib import Path
from dalle_model.running import claims
claims.POLL_S = 0.05
folder, name, pause_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
def make(unit):
    print(unit, flush=True)
    time.sleep(pause_s)
    (folder / (unit + "." + name)).write_text(name)
    (folder / (unit + "." + name)).replace(folder / unit)
units = {f"unit-{i}": 10 + i for i in range(12)}
claims.run_units(folder / "claims", units, lambda unit: (folder / unit).exists(), make, lambda done: None)
assert all((folder / f"unit-{i}").exists() for i in range(12))
"""


def start(folder: Path, name: str, pause_s: float) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder), name, str(pause_s)], stdout=subprocess.PIPE, text=True)


def test_every_unit_is_made_once_and_everybody_returns_when_all_are_done(tmp_path):
    workers = [start(tmp_path, name, 0.05) for name in "abc"]
    made = [worker.communicate(timeout=60)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert sorted(unit for units in made for unit in units) == sorted(UNITS)
    assert list((tmp_path / "claims").iterdir()) == []


def test_the_unit_of_a_killed_process_is_taken_by_another(tmp_path):
    victim = start(tmp_path, "victim", 60)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "unit-0\n"
    heir = start(tmp_path, "heir", 0)
    deadline = time.monotonic() + 30
    while not (tmp_path / "unit-11").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not (tmp_path / "unit-0").exists(), "a live process keeps what it claimed"
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    heir.communicate(timeout=30)
    assert heir.returncode == 0
    assert {path.read_text() for path in tmp_path.glob("unit-*")} == {"heir"}


def test_progress_counts_what_others_made(tmp_path):
    done, told = {"unit-3", "unit-7"}, []
    run_units(tmp_path, UNITS, done.__contains__, done.add, told.append)
    assert done == set(UNITS)
    assert told == sorted(told)
    assert told[-1] == sum(UNITS.values())


def test_a_failing_unit_is_free_again(tmp_path):
    def fail(unit):
        raise OSError(28, "no space left")

    with pytest.raises(OSError, match="no space left"):
        run_units(tmp_path, UNITS, lambda unit: False, fail, lambda done: None)
    with held(tmp_path / "unit-0") as is_mine:
        assert is_mine


def test_waiting_for_others_is_told_from_time_to_time(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "POLL_S", 0.01)
    done, told = set(UNITS) - {"unit-5"}, []

    def tell(number):
        told.append(number)
        if len(told) == 15:
            done.add("unit-5")

    with held(tmp_path / "unit-5") as is_mine:
        assert is_mine
        thread = threading.Thread(target=run_units, args=(tmp_path, UNITS, done.__contains__, done.add, tell))
        thread.start()
        thread.join(10)
    assert told[-2:] == [sum(UNITS.values()) - 15, sum(UNITS.values())]


def test_a_lock_names_its_holder(tmp_path):
    with held(tmp_path / "lock") as first, held(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
        assert holder_of(tmp_path / "lock").startswith(f"process {os.getpid()} on ")
    assert holder_of(tmp_path / "none") == "another process"
