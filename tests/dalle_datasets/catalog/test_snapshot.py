"""The published copy is whole and the catalog can be made again from files."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from dalle_datasets.catalog import ingest, snapshot
from dalle_datasets.catalog.checks import run_checks
from dalle_datasets.catalog.connection import connect, open_published
from dalle_datasets.catalog.snapshot import VOLATILE_COLUMNS, contents, publish, rebuild
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import SchemaError, list_parts

INGEST = """
import sys
from pathlib import Path
from dalle_datasets.catalog.connection import connect
from dalle_datasets.catalog.ingest import ingest_everything
from dalle_datasets.store.layout import Layout
layout = Layout(Path(sys.argv[1]))
print("ready", flush=True)
with connect(layout.catalog) as con:
    ingest_everything(con, layout)
print("done", flush=True)
"""


def start_ingest(layout):
    process = subprocess.Popen([sys.executable, "-c", INGEST, str(layout.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"  # it is past its imports
    return process


def live_contents(layout):
    with connect(layout.catalog) as con:
        return contents(con)


def test_a_rebuilt_catalog_equals_the_one_that_grew(catalogued_root):
    layout = catalogued_root.layout
    grown = live_contents(layout)
    assert all(grown.values()), "every table has rows, so that none is equal for being empty"
    layout.catalog.unlink()
    rebuild(layout)
    assert live_contents(layout) == grown
    with open_published(layout) as con:
        assert contents(con) == grown
        assert [check for check in run_checks(con) if not check.passed] == []


def test_a_corrupt_catalog_can_be_rebuilt(catalogued_root):
    layout = catalogued_root.layout
    grown = live_contents(layout)
    layout.catalog.write_bytes(b"\0" * 20_000)
    rebuild(layout)
    assert live_contents(layout) == grown


def test_ingesting_everything_again_changes_nothing(catalogued_root):
    with connect(catalogued_root.layout.catalog) as con:
        before = contents(con)
        done = ingest.ingest_everything(con, catalogued_root.layout)
        assert (done.added, done.removed) == (0, 0)
        assert contents(con) == before


def test_an_ingest_that_was_killed_again_and_again_ends_with_the_same_tables(catalogued_root):
    layout = catalogued_root.layout
    undisturbed = live_contents(layout)
    shutil.rmtree(layout.catalog.parent)
    killed = 0
    for delay in (0.02, 0.15, 0.3, 0.45):
        process = start_ingest(layout)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        killed += process.stdout.read() == ""
        process.wait()
    assert killed, "every one of them had ended before it was killed: the test shows nothing"
    assert start_ingest(layout).stdout.read() == "done\n"
    assert live_contents(layout) == undisturbed


def test_two_processes_that_ingest_the_same_files_count_them_once(catalogued_root):
    layout = catalogued_root.layout
    expected = live_contents(layout)
    shutil.rmtree(layout.catalog.parent)
    both = [start_ingest(layout), start_ingest(layout)]
    assert [process.stdout.read() for process in both] == ["done\n", "done\n"]
    assert live_contents(layout) == expected


def test_a_rebuild_that_meets_a_broken_part_leaves_the_old_catalog(catalogued_root):
    layout = catalogued_root.layout
    grown = live_contents(layout)
    (layout.clip_scores("clip0") / "part-00000.parquet").write_bytes(b"broken")
    with pytest.raises(SchemaError, match=r"part-00000\.parquet is not a readable Parquet file"):
        rebuild(layout)
    assert live_contents(layout) == grown


def test_readers_keep_the_old_copy_while_a_new_one_is_published(tmp_path):
    layout = Layout(tmp_path)
    publish(layout)
    with open_published(layout) as reader:
        with connect(layout.catalog) as con:
            con.execute("insert into lineage values ('a', 'b', 'c')")
        publish(layout)
        assert reader.execute("select * from lineage").fetchall() == []
    with open_published(layout) as reader:
        assert reader.execute("select child_id from lineage").fetchall() == [("a",)]


def test_the_copy_has_views_macros_and_comments(tmp_path):
    layout = Layout(tmp_path)
    publish(layout)
    with connect(layout.catalog) as con:
        views = con.execute("select view_name from duckdb_views() where not internal order by all").fetchall()
        macros = con.execute("select function_name from duckdb_functions() where not internal order by all").fetchall()
    with open_published(layout) as con:
        assert con.execute("select view_name from duckdb_views() where not internal order by all").fetchall() == views
        assert con.execute("select function_name from duckdb_functions() where not internal order by all").fetchall() == macros
        assert con.execute("select comment from duckdb_tables() where table_name = 'pairs'").fetchall()[0][0].startswith("Usable pairs")


def test_leftovers_of_a_killed_publication_are_cleared(tmp_path):
    layout = Layout(tmp_path)
    layout.catalog.parent.mkdir()
    for name in ("published.duckdb.123.partial", "published.duckdb.123.partial.wal"):
        (layout.catalog.parent / name).write_bytes(b"half")
    publish(layout)
    files = sorted(path.name for path in layout.catalog.parent.iterdir() if path.is_file() and path.suffix != ".lock")
    assert files == ["catalog.duckdb", "published.duckdb"]


def test_a_catalog_with_a_fault_is_not_published(catalogued_root):
    layout = catalogued_root.layout
    before = layout.published_catalog.read_bytes()
    with connect(layout.catalog) as con:
        con.execute("insert into pairs select * from pairs limit 1")
    fault = r"catalog\.duckdb is not published, because ledger_matches_tables found .*; pairs_counted_once found .*; readers keep the copy"
    with pytest.raises(ValueError, match=fault):
        publish(layout)
    assert layout.published_catalog.read_bytes() == before
    rebuild(layout)
    assert layout.published_catalog.read_bytes() != before


def test_what_waits_for_a_later_stage_is_published(catalogued_root):
    """A pair that was taken out at its source keeps its tokens until the tokenising stages have run again."""
    layout = catalogued_root.layout
    (part, *_) = list_parts(layout.pairs("emoji_scenes"))
    part.unlink()
    with connect(layout.catalog) as con:
        assert ingest.ingest_pairs(con, layout, "emoji_scenes").removed == 1
    publish(layout)
    with open_published(layout) as con:
        found = {check.name for check in run_checks(con) if not check.passed}
        assert not any(check.is_fault for check in run_checks(con))
    assert "tokens_have_pairs" in found


def test_writers_go_on_while_a_catalog_is_copied_and_rebuilt(catalogued_root, monkeypatch):
    """Both take long for a large catalog, so neither may keep its turn meanwhile."""
    layout, copy, wrote = catalogued_root.layout, shutil.copyfile, []

    def write_meanwhile(source, target):
        copy(source, target)
        with connect(layout.catalog, 1) as con:
            con.execute("insert into lineage values (?, 'b', 'c')", [f"during {len(wrote)}"])
        wrote.append(target)

    monkeypatch.setattr(snapshot.shutil, "copyfile", write_meanwhile)
    publish(layout)
    assert len(wrote) == 2, "once to make the checkpoint safe, once for the readers"
    with connect(layout.catalog) as con:
        assert con.execute("select count(*) from lineage where child_id like 'during%'").fetchall() == [(2,)]
    run, made = layout.run("score-pairs-6"), ingest.ingest_everything

    def finish_a_run_meanwhile(con, layout):
        done = made(con, layout)
        (run / "result.json").write_text((run / "result.json").read_text().replace("num_scores", "num_all_scores"))
        with connect(layout.catalog, 1) as other:
            ingest.ingest_run(other, layout, run)
        monkeypatch.setattr(snapshot.ingest, "ingest_everything", made)
        return done

    monkeypatch.setattr(snapshot.ingest, "ingest_everything", finish_a_run_meanwhile)
    rebuild(layout)
    with open_published(layout) as con:
        assert con.execute("select count(*) from runs where result like '%num_all_scores%'").fetchall() == [(1,)]


def test_two_catalogs_differ_in_volatile_columns_only(make_data_root):
    first, second = make_data_root("first"), make_data_root("second")
    first.catalogue()
    second.catalogue()
    assert live_contents(first.layout) == live_contents(second.layout)


def test_volatile_columns_exist(catalogued_root):
    with connect(catalogued_root.layout.catalog) as con:
        names = {row[0] for row in con.execute("select distinct column_name from duckdb_columns() where not internal").fetchall()}
    assert names >= VOLATILE_COLUMNS
