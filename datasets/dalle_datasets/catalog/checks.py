"""Integrity checks: queries that return the rows which break a rule; a check passes without rows."""

from dataclasses import dataclass
from typing import Any

import duckdb

from dalle_datasets.catalog.sql_files import list_sql


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found."""

    name: str
    purpose: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    """The offenders, at most `limit` of them."""

    @property
    def passed(self) -> bool:
        """Whether there are no offenders."""
        return not self.rows


def run_checks(con: duckdb.DuckDBPyConnection, limit: int = 20) -> list[CheckResult]:
    """All of `sql/checks/`, on the live catalog or the published copy."""
    results = []
    for file in list_sql("checks"):
        cursor = con.execute(file.text)
        columns = tuple(column[0] for column in cursor.description or ())
        results.append(CheckResult(file.name, file.purpose, columns, tuple(cursor.fetchmany(limit))))
    return results
