"""One writer at a time across processes; a killed writer loses nothing; readers get the published copy."""

import os
import signal
import subprocess
import sys
import time

import duckdb
import pytest

from dalle_datasets.catalog import connection
from dalle_datasets.catalog.connection import CatalogBusyError, connect, connect_fresh, open_published
from dalle_datasets.store.layout import Layout

HOLD = """
import sys, time
from pathlib import Path
from dalle_datasets.catalog.connection import connect
with connect(Path(sys.argv[1])) as con:
    print("holding", flush=True)
    time.sleep(60)
"""

WRITE_FOR_EVER = """
import sys
from pathlib import Path
from dalle_datasets.catalog.connection import connect
from dalle_datasets.catalog.migrations import transaction
number = int(sys.argv[2])
while True:
    with connect(Path(sys.argv[1])) as con, transaction(con):
        con.execute("insert into lineage select ?, i::varchar, 'test' from range(100) r(i)", [str(number)])
        con.execute("insert into artifacts values (?, 'batch', '', '')", [str(number)])
    print(number, flush=True)
    number += 1
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)


def test_a_second_process_waits_and_is_told_who_holds_the_catalog(tmp_path):
    path = tmp_path / "catalog.duckdb"
    holder = start(HOLD, str(path))
    try:
        assert holder.stdout.readline() == "holding\n"
        with (
            pytest.raises(CatalogBusyError, match=rf"open for writing in PID {holder.pid}; waited 0.2 s; query the published copy"),
            connect(path, 0.2),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    with connect(path, 5):  # the kernel released the lock of the killed process
        pass


def test_a_long_wait_is_mentioned_once(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "_SILENT_S", 0.1)
    path, told = tmp_path / "catalog.duckdb", []
    holder = start(HOLD, str(path))
    try:
        holder.stdout.readline()
        with pytest.raises(CatalogBusyError), connect(path, 0.5, told.append):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert told == [f"{path} is open for writing in PID {holder.pid}; waiting up to 0.5 s"]


def test_somebody_without_our_lock_is_named_too(tmp_path):
    path = tmp_path / "catalog.duckdb"
    script = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('holding', flush=True); time.sleep(60)"
    holder = start(script, str(path))
    try:
        holder.stdout.readline()
        with pytest.raises(CatalogBusyError, match=f"PID {holder.pid}"), connect(path, 0.2):
            pass
    finally:
        holder.kill()
        holder.wait()


def test_the_lock_is_free_after_an_error(tmp_path):
    path = tmp_path / "catalog.duckdb"
    with pytest.raises(RuntimeError, match="mine"), connect(path, 1):
        raise RuntimeError("mine")
    with connect(path, 0):
        pass


def test_killed_writers_lose_no_acknowledged_batch_and_tear_none(tmp_path):
    path = tmp_path / "catalog.duckdb"
    acknowledged, number = [], 0
    for delay in (0.05, 0.2, 0.11):
        writer = start(WRITE_FOR_EVER, str(path), str(number))
        assert writer.stdout.readline()  # it is past its imports
        acknowledged.append(str(number))
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += writer.stdout.read().split()
        writer.wait()
        number += 1_000
    with connect(path, 5) as con:
        batches = dict(con.execute("select child_id, count(*) from lineage group by child_id").fetchall())
        marks = {row[0] for row in con.execute("select artifact_id from artifacts").fetchall()}
    assert set(acknowledged) <= set(batches), "an acknowledged batch is gone"
    assert set(batches) == marks, "a batch without its second statement, or the other way round"
    assert set(batches.values()) == {100}


def test_no_published_copy_yet(tmp_path):
    with (
        pytest.raises(ValueError, match=r"published\.duckdb: no catalog has been published yet; run `dalle demo`"),
        open_published(Layout(tmp_path)),
    ):
        pass


def test_an_unreadable_file_says_how_to_make_it_again(tmp_path):
    path = tmp_path / "catalog.duckdb"
    path.write_bytes(b"not a database" * 1_000)
    with pytest.raises(ValueError, match=r"catalog\.duckdb cannot be opened \(.*\); .* `dalle catalog rebuild`"), connect(path, 1):
        pass


def test_closing_does_not_checkpoint_because_a_torn_checkpoint_loses_the_file(tmp_path):
    path = tmp_path / "catalog.duckdb"
    with connect(path) as con:
        con.execute("insert into lineage values ('a', 'b', 'c')")
    assert (tmp_path / "catalog.duckdb.wal").stat().st_size > 0
    with connect(path) as con:
        assert con.execute("select child_id from lineage").fetchall() == [("a",)]


def test_a_fresh_catalog_takes_the_place_of_the_old_one_only_when_it_is_whole(tmp_path):
    path = tmp_path / "catalog.duckdb"
    with connect(path) as con:
        con.execute("insert into lineage values ('old', 'b', 'c')")
    with pytest.raises(RuntimeError, match="halfway"), connect_fresh(path) as con:
        con.execute("insert into lineage values ('new', 'b', 'c')")
        raise RuntimeError("halfway")
    with connect(path) as con:
        assert con.execute("select child_id from lineage").fetchall() == [("old",)]
    with connect_fresh(path) as con:
        con.execute("insert into lineage values ('new', 'b', 'c')")
    with connect(path) as con:
        assert con.execute("select child_id from lineage").fetchall() == [("new",)]


def test_only_this_module_opens_the_database():
    folder = connection.__file__.rsplit("/", 1)[0]
    found = subprocess.run(["grep", "-rl", "--include=*.py", "duckdb.connect(", folder], capture_output=True, text=True, check=True).stdout
    assert found.split() == [connection.__file__]
    assert duckdb.__version__ >= "1.5.5"
