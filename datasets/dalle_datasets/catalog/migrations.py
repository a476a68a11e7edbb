"""Bringing a catalog file up to date: numbered migrations, then the views over them.

A migration is applied once, in one transaction, and its SHA-256 is recorded: an old file that was edited is
an error, because catalogs that already have it would differ from new ones. Views and macros hold no data, so
all of them are made again whenever the text of any of them has changed.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from graphlib import TopologicalSorter

import duckdb

from dalle_datasets.catalog.sql_files import SqlFile, list_sql, quoted, read_sql


def migrate(con: duckdb.DuckDBPyConnection, migrations: list[SqlFile] | None = None) -> int:
    """Apply what is missing and return how many migrations that was.

    Raises `ValueError` when an applied migration was edited, or when the catalog was made by newer code.
    """
    files = list_sql("migrations") if migrations is None else migrations
    applied = _applied(con)
    known = {_version(file) for file in files}
    if newer := sorted(set(applied) - known):
        raise ValueError(
            f"the catalog has migration {newer[-1]:04d}, which this code does not know; "
            "update open-dalle, or make the catalog again with `dalle catalog rebuild`"
        )
    count = 0
    for file in files:
        version, digest = _version(file), hashlib.sha256(file.text.encode()).hexdigest()
        if version in applied:
            if applied[version] != digest:
                raise ValueError(
                    f"sql/migrations/{file.name}.sql was edited after it was applied to this catalog; "
                    "put the old text back and write a new migration instead, or run `dalle catalog rebuild`"
                )
            continue
        with transaction(con):
            con.execute(file.text)
            con.execute(
                read_sql("ingest", "schema_version").text, {"version": version, "name": file.name, "sha256": digest, "now": utc_now()}
            )
        count += 1
    return count


def apply_views(con: duckdb.DuckDBPyConnection) -> bool:
    """Make all views and macros again if their text has changed; says whether it did."""
    files = {file.name: file for file in list_sql("views")}
    digest = hashlib.sha256("".join(file.text for file in files.values()).encode()).hexdigest()
    if con.execute("select sha256 from applied_views").fetchall() == [(digest,)]:
        return False
    functions_first = sorted(files.values(), key=lambda file: bool(file.reads))  # they read nothing, and all others may call them
    order = TopologicalSorter({file.name: [read for read in file.reads if read in files] for file in functions_first})
    with transaction(con):
        names = list(order.static_order())
        for name in names:
            con.execute(files[name].text)
        kinds = dict(con.execute(read_sql("ingest", "macro_kinds").text).fetchall())
        for name in names:
            _comment(con, files[name], kinds.get(name))
        con.execute("delete from applied_views")
        con.execute(read_sql("ingest", "applied_views").text, {"sha256": digest, "now": utc_now()})
    return True


def _comment(con: duckdb.DuckDBPyConnection, file: SqlFile, macro_kind: str | None) -> None:
    """Give a macro its file's purpose as its comment, and the columns of a view the comments of those it reads."""
    if macro_kind:
        con.execute(f"comment on {macro_kind} {file.name} is {quoted(file.purpose)}")  # `comment` takes no parameters
        return
    values = {"view_name": file.name, "reads": ",".join(file.reads)}
    for column, comment in con.execute(read_sql("ingest", "inherited_comments").text, values).fetchall():
        con.execute(f"comment on column {file.name}.{column} is {quoted(comment)}")


def utc_now() -> datetime:
    """The present moment as the catalog stores it: UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All of the block's statements, or none of them."""
    con.execute("begin transaction")
    try:
        yield
    except BaseException:
        con.execute("rollback")
        raise
    con.execute("commit")


def _version(file: SqlFile) -> int:
    return int(file.name.split("_", 1)[0])


def _applied(con: duckdb.DuckDBPyConnection) -> dict[int, str]:
    if not con.execute("select 1 from duckdb_tables() where table_name = 'schema_version'").fetchall():
        return {}
    return dict(con.execute("select version, sha256 from schema_version").fetchall())
