"""One writer at a time across processes; a killed writer loses nothing; readers get the published copy."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pytest

from dalle_datasets.catalog import connection
from dalle_datasets.catalog.connection import (
    CatalogBusyError,
    checkpointed,
    connect,
    connect_fresh,
    open_published,
    rebuilding,
    replacing,
    serve_ui,
)
from dalle_datasets.catalog.snapshot import publish
from dalle_datasets.store import locks
from dalle_datasets.store.layout import Layout

HOLD = """
import sys, time
from pathlib import Path
from dalle_datasets.catalog.connection import connect
with connect(Path(sys.argv[1]), task="holding it") as con:
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
            pytest.raises(
                CatalogBusyError,
                match=rf"in use by process {holder.pid} on .* \(holding it, since .*\); waited 0.2 s; query the published copy",
            ),
            connect(path, 0.2),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    with connect(path, 5):  # the kernel released the lock of the killed process
        pass


def test_a_long_wait_is_mentioned_once(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_SILENT_S", 0.1)
    path, told = tmp_path / "catalog.duckdb", []
    holder = start(HOLD, str(path))
    try:
        holder.stdout.readline()
        with pytest.raises(CatalogBusyError), connect(path, 0.5, told.append):
            pass
    finally:
        holder.kill()
        holder.wait()
    (line,) = told
    assert line.startswith(f"{path} is in use by process {holder.pid} on ")
    assert line.endswith(" UTC); waiting up to 0.5 s")


def test_somebody_without_our_lock_is_named_too(tmp_path):
    path = tmp_path / "catalog.duckdb"
    script = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('holding', flush=True); time.sleep(60)"
    holder = start(script, str(path))
    try:
        holder.stdout.readline()
        with pytest.raises(CatalogBusyError, match=f"in use by process {holder.pid}, a DuckDB of its own"), connect(path, 0.2):
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
    with pytest.raises(RuntimeError, match="halfway"), rebuilding(path), connect_fresh(path) as con:
        con.execute("insert into lineage values ('new', 'b', 'c')")
        raise RuntimeError("halfway")
    with connect(path) as con:
        assert con.execute("select child_id from lineage").fetchall() == [("old",)]
    with rebuilding(path), replacing(path) as put_in_place:
        with connect_fresh(path) as con:
            assert con.execute("select child_id from lineage").fetchall() == [], "nothing of the rebuild that failed"
            con.execute("insert into lineage values ('new', 'b', 'c')")
        put_in_place()
    with connect(path) as con:
        assert con.execute("select child_id from lineage").fetchall() == [("new",)]


def test_readers_reach_the_files_of_a_root_with_signs_of_a_pattern_in_its_name_and_no_others(tmp_path):
    root = tmp_path / "birds [2021] *"
    for folder in (root / "pairs", tmp_path / "birds 2 x"):
        folder.mkdir(parents=True)
        duckdb.sql("select 1 as x").write_parquet(str(folder / "a.parquet"))
    con = duckdb.connect()
    connection._confine(con, root)
    assert con.execute("from read_parquet($path)", {"path": f"{tmp_path}/birds [[]2021] [*]/*/*.parquet"}).fetchall() == [(1,)]
    for outside in ("birds [2]*/*.parquet", "birds [[]2021] [*]/../birds 2 x/*.parquet", "birds 2 x/a.parquet"):
        with pytest.raises(duckdb.PermissionException):
            con.execute("from read_parquet($path)", {"path": f"{tmp_path}/{outside}"})


def insert_many(con, num_rows):
    con.execute("insert into lineage select i::varchar, md5(i::varchar), 'c' from range(?) r(i)", [num_rows])


def test_duckdb_never_checkpoints_by_itself(tmp_path):
    """Not when the log is long, not when it is read again, not at the end: only `checkpointed` does, when its copy is safe."""
    path = tmp_path / "catalog.duckdb"
    with checkpointed(path):
        pass
    before = path.read_bytes()
    for _ in range(2):
        with connect(path) as con:
            con.execute("set threads = 1")
            for _ in range(10):
                insert_many(con, 50_000)  # fewer than a row group, so that they go to the log
    assert (tmp_path / "catalog.duckdb.wal").stat().st_size > 16 * 2**20, "longer than DuckDB's own limit"
    assert path.read_bytes() == before


def test_a_long_log_is_written_into_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "_MAX_LOG_BYTES", 100_000)
    path = tmp_path / "catalog.duckdb"
    with connect(path) as con:
        insert_many(con, 10_000)
    assert not (tmp_path / "catalog.duckdb.wal").exists() or (tmp_path / "catalog.duckdb.wal").stat().st_size < 1_000
    with connect(path) as con:
        assert con.execute("select count(*) from lineage").fetchall() == [(10_000,)]


@pytest.mark.parametrize("num_rows", [10, 300_000])  # the latter are written into the file before they are committed
def test_a_torn_checkpoint_costs_nothing(tmp_path, monkeypatch, num_rows):
    path = tmp_path / "catalog.duckdb"
    with checkpointed(path):
        pass
    with connect(path) as con:
        insert_many(con, num_rows)
    log = (tmp_path / "catalog.duckdb.wal").read_bytes()
    kept = []
    unlink = Path.unlink

    def die_while_the_copy_is_there(self, missing_ok=False):
        if self.name.endswith("before_checkpoint") and self.exists():
            kept.append(self.read_bytes())
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", die_while_the_copy_is_there)
    with checkpointed(path):
        pass
    monkeypatch.undo()
    path.write_bytes(b"\0" * 12_288 + path.read_bytes()[12_288:])  # both headers are gone
    (tmp_path / "catalog.duckdb.wal").write_bytes(log)
    (tmp_path / "catalog.duckdb.before_checkpoint").write_bytes(kept[0])
    with connect(path) as con:
        assert con.execute("select count(*), count(distinct parent_id) from lineage").fetchall() == [(num_rows, num_rows)]
    assert not (tmp_path / "catalog.duckdb.before_checkpoint").exists()


def test_a_full_disk_is_a_sentence(tmp_path):
    script = """
import resource, signal, sys
from pathlib import Path
from dalle_datasets.catalog.snapshot import rebuild
from dalle_datasets.catalog.snapshot import publish
from dalle_datasets.store import locks
from dalle_datasets.store.layout import Layout
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    rebuild(Layout(Path(sys.argv[1])))
except OSError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert "catalog.duckdb.fresh: " in ended.stdout, ended.stderr
    assert "free some space or choose another data root" in ended.stdout


def test_a_damaged_copy_is_a_sentence(tmp_path):
    layout = Layout(tmp_path)
    layout.published_catalog.parent.mkdir()
    layout.published_catalog.write_bytes(b"not a database" * 1_000)
    with (
        pytest.raises(ValueError, match=r"published\.duckdb cannot be opened \(.*\); make it again with `dalle catalog publish`"),
        open_published(layout),
    ):
        pass


def test_only_this_module_opens_the_database():
    folder = connection.__file__.rsplit("/", 1)[0]
    found = subprocess.run(["grep", "-rl", "--include=*.py", "duckdb.connect(", folder], capture_output=True, text=True, check=True).stdout
    assert found.split() == [connection.__file__]
    assert duckdb.__version__ >= "1.5.5"


@pytest.mark.skipif(find_spec("duckdb_extension_ui") is not None, reason="the extension is installed here")
def test_the_web_page_without_its_extension_says_how_to_get_it(tmp_path):
    publish(Layout(tmp_path))
    message = r"DuckDB's web page is an extension, which is not installed; install it with `pip install duckdb-extension-ui==.*`"
    with pytest.raises(ValueError, match=message), serve_ui(Layout(tmp_path)):
        pass
