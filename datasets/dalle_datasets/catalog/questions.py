"""Check of free SQL: one `select`, or `explain` of one, that calls only functions which read.

A database opened read-only still lets SQL write: `copy` to a file, `explain analyze copy`, a log switched on by a `select`.
"""

import json
import re
from typing import Any

import duckdb

from dalle_datasets.catalog.sql_files import read_sql

_EXPLAIN = re.compile(r"\s*explain(\s+analyze|\s*\([a-z_,\s]*\))?(?=[\s(])", re.IGNORECASE)
"""Options of plain words only: a quote or a comment in them could hide where the explained statement begins."""

_READING = re.compile(
    r"read_(parquet|text|blob|csv|csv_auto|(nd)?json(_auto|_objects|_objects_auto)?)|parquet_\w+|glob|sniff_csv"
    r"|range|generate_series|unnest|repeat|repeat_row|json_each|json_tree|histogram|histogram_values|summary"
    r"|duckdb_\w+|pragma_(table_info|show|storage_info|database_size|version|platform|collations)"
)
"""Table functions that only read. Others switch logs and profiles on, run SQL hidden in a string, or take raw addresses."""


def the_question(con: duckdb.DuckDBPyConnection, sql: str, what: str) -> duckdb.Statement:
    """The one statement of `sql`, parsed by DuckDB. Raises `ValueError` unless all it does is read; `what` names it there."""
    try:
        statements = con.extract_statements(sql)  # the confined connection: parsing `import database` opens files
    except duckdb.Error as error:
        raise ValueError(f"{what} cannot be run: {error}") from error
    if not statements:
        raise ValueError(f"{what} returns no rows: only `select` makes sense on the published copy, which is read-only")
    kinds = [statement.type for statement in statements]
    if kinds not in ([duckdb.StatementType.SELECT], [duckdb.StatementType.EXPLAIN]) or "\0" in sql:
        raise _not_a_question(what, " and ".join(kind.name.lower() for kind in kinds))
    explain = _EXPLAIN.match(sql) if kinds == [duckdb.StatementType.EXPLAIN] else None
    _check_functions(con, sql[explain.end() :] if explain else sql, what)
    return statements[0]


def _check_functions(con: duckdb.DuckDBPyConnection, select: str, what: str) -> None:
    called: set[str] = set()

    def collect(node: dict[str, Any]) -> dict[str, Any]:
        if node.get("type") == "TABLE_FUNCTION":
            called.add(str(node["function"]["function_name"]).lower())
        return node

    text = con.execute(read_sql("ingest", "parsed_select").text, {"sql": select}).fetchall()[0][0]
    try:
        tree = json.loads(text, object_hook=collect)
    except RecursionError:
        raise ValueError(f"{what} cannot be run: it is nested too deeply; cut it into `with` parts") from None
    if tree["error"]:
        raise _not_a_question(what, "no plain `select`")
    macros = {name for (name,) in con.execute(read_sql("ingest", "table_macros").text).fetchall()}
    if other := sorted(name for name in called - macros if not _READING.fullmatch(name)):
        raise ValueError(f"{what} cannot be run: {other[0]}() may do more than read, and the published copy is read-only; leave it out")


def _not_a_question(what: str, found: str) -> ValueError:
    return ValueError(
        f"{what} cannot be run: it is {found}, but the published copy is read-only; ask with one `select`, or `explain` of one"
    )
