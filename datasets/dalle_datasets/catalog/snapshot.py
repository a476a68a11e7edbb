"""The readers' copy of the catalog, and making the catalog again from nothing but files."""

import shutil
from pathlib import Path
from typing import Any

import duckdb

from dalle_datasets.catalog import ingest
from dalle_datasets.catalog.checks import refuse_faults
from dalle_datasets.catalog.connection import OnWait, checkpointed, connect_fresh, open_copy, rebuilding, replacing
from dalle_datasets.catalog.ledger import Ingested
from dalle_datasets.catalog.sql_files import read_sql
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import atomic_path

VOLATILE_COLUMNS = frozenset(
    {
        "applied_at",
        "ingested_at",
        "registered_at",
        "modified_ns",
        "started_at",
        "finished_at",
        "duration_s",
        "timings",
        "provenance",
        "files_sha256",
        "facts",
        "pipeline_run_id",
        "was_skipped",
    }
)
"""Columns that tell when, where and how fast: the only ones in which two catalogs of the same work may differ."""

_NOT_OF_THE_WORK = frozenset({"schema_version", "applied_views", "replaced_parts", "run_speed"})
"""Tables about this catalog file, or about the machine that did the work."""


def publish(layout: Layout, lock_timeout_s: float = 60.0, on_wait: OnWait = None) -> Path:
    """Copy the live catalog, with its views and macros, to where people query it; readers see the old copy or the new one, whole.

    Raises `ValueError` when a check of `sql/checks/` finds a fault: readers then keep the copy they have.
    """
    with checkpointed(layout.catalog, lock_timeout_s, on_wait) as live:
        for leftover in layout.published_catalog.parent.glob(f"{layout.published_catalog.name}.*.partial*"):
            leftover.unlink()  # of a publication that was killed: nobody else is publishing
        with atomic_path(layout.published_catalog) as partial:
            shutil.copyfile(live, partial)
            with open_copy(partial) as con:
                refuse_faults(con, layout.catalog)
    return layout.published_catalog


def rebuild(layout: Layout, lock_timeout_s: float = 60.0, on_wait: OnWait = None) -> Ingested:
    """Make the live catalog again from the Parquet parts and run directories, and publish it.

    Others may go on writing the old file; it stays until the new one is whole. Raises `SchemaError` or `ValueError` for a broken
    artefact, `OSError` when the disk is full.
    """
    with rebuilding(layout.catalog, lock_timeout_s, on_wait):
        with connect_fresh(layout.catalog) as con:
            done = ingest.ingest_everything(con, layout)
        with replacing(layout.catalog, lock_timeout_s, on_wait) as put_in_place:
            with connect_fresh(layout.catalog) as con:
                done += ingest.ingest_everything(con, layout)  # what came meanwhile
            put_in_place()
    publish(layout, lock_timeout_s, on_wait)
    return done


def contents(con: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of every table, sorted, without `VOLATILE_COLUMNS`: equal for two catalogs of the same work."""
    columns: dict[str, list[str]] = {}
    for table, column in con.execute(read_sql("ingest", "table_columns").text).fetchall():
        if table not in _NOT_OF_THE_WORK and column not in VOLATILE_COLUMNS:
            columns.setdefault(table, []).append(column)
    rows = {}
    for table, names in columns.items():
        relation = con.table(table).project(", ".join(f'"{name}"' for name in names))
        rows[table] = sorted(relation.fetchall(), key=repr)
    return rows
