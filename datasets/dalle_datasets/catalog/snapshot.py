"""The readers' copy of the catalog, and making the catalog again from nothing but files."""

from pathlib import Path
from typing import Any

import duckdb

from dalle_datasets.catalog import ingest
from dalle_datasets.catalog.connection import connect_fresh
from dalle_datasets.catalog.ledger import Ingested
from dalle_datasets.catalog.sql_files import read_sql
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import atomic_path

VOLATILE_COLUMNS = frozenset(
    {
        "applied_at",
        "ingested_at",
        "registered_at",
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


def publish(con: duckdb.DuckDBPyConnection, layout: Layout) -> Path:
    """Copy the live catalog, with its views and macros, to where people query it; readers see the old copy or the new one, whole.

    The copy is also the backup that makes the live file's checkpoint safe, which follows it.
    """
    for leftover in layout.published_catalog.parent.glob(f"{layout.published_catalog.name}.*.partial*"):
        leftover.unlink()  # of a publication that was killed: we hold the writer's lock, so nobody else is publishing
    with atomic_path(layout.published_catalog) as partial:
        live = con.execute("select current_database()").fetchall()[0][0]
        quoted = str(partial).replace("'", "''")  # `attach` takes no parameters
        con.execute(f"attach '{quoted}' as published")
        try:
            con.execute(f'copy from database "{live}" to published')
            con.execute("checkpoint published")
        finally:
            con.execute("detach published")
    con.execute("checkpoint")
    return layout.published_catalog


def rebuild(layout: Layout, lock_timeout_s: float = 60.0) -> Ingested:
    """Make the live catalog again from the Parquet parts and run directories, and publish it.

    The old file stays until the new one is whole. Raises `SchemaError` or `ValueError` for a broken artefact.
    """
    with connect_fresh(layout.catalog, lock_timeout_s) as con:
        done = ingest.ingest_everything(con, layout)
        publish(con, layout)
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
