"""Migrations are applied once, whole or not at all, and never edited."""

import dataclasses

import duckdb
import pytest

from dalle_datasets.catalog.migrations import apply_views, migrate
from dalle_datasets.catalog.sql_files import list_sql, parse_sql


def migration(name: str, sql: str):
    return parse_sql("migrations", name, f"-- name: {name}\n-- purpose: To test.\n{sql}")


@pytest.fixture
def con():
    return duckdb.connect(":memory:")


def test_a_second_call_applies_nothing(con):
    assert migrate(con) == len(list_sql("migrations"))
    assert migrate(con) == 0
    assert apply_views(con)
    assert not apply_views(con)


def test_an_edited_migration_is_refused(con):
    migrate(con)
    files = list_sql("migrations")
    files[1] = dataclasses.replace(files[1], text=files[1].text + "\n-- harmless?")
    with pytest.raises(ValueError, match=r"0001_ledger\.sql was edited after it was applied .* write a new migration instead"):
        migrate(con, files)


def test_a_catalog_of_newer_code_is_refused(con):
    files = [*list_sql("migrations"), migration("9999_future", "create table future (a integer);")]
    migrate(con, files)
    with pytest.raises(ValueError, match="has migration 9999, which this code does not know; update open-dalle"):
        migrate(con)


def test_a_failing_migration_leaves_nothing_behind(con):
    migrate(con)
    broken = migration("9999_broken", "create table half (a integer);\nselect * from nowhere;")
    with pytest.raises(duckdb.Error, match="nowhere"):
        migrate(con, [*list_sql("migrations"), broken])
    assert con.execute("select * from duckdb_tables() where table_name = 'half'").fetchall() == []
    mended = migration("9999_broken", "create table half (a integer);")
    assert migrate(con, [*list_sql("migrations"), mended]) == 1


def test_views_are_made_again_when_their_text_has_changed(con):
    migrate(con)
    apply_views(con)
    con.execute("update applied_views set sha256 = 'of an older text'")
    con.execute("create or replace view best_generations as select 1 as old")
    assert apply_views(con)
    assert "old" not in [column[0] for column in con.execute("select * from best_generations").description]
