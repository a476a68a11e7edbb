"""Integrity checks: queries that return the rows which break a rule; a check passes without rows.

A fault keeps a catalog from being published. What a check with `-- finds: leftovers` returns does not: rows that wait for a stage which
has not run yet, such as tokens of pairs that were taken out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from dalle_datasets.catalog.sql_files import list_sql


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found."""

    name: str
    purpose: str
    finds: str
    """`faults`, or `leftovers` of work that is not finished."""
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    """The offenders, at most `limit` of them."""

    @property
    def passed(self) -> bool:
        """Whether there are no offenders."""
        return not self.rows

    @property
    def is_fault(self) -> bool:
        """Whether there are offenders that no later stage will mend."""
        return bool(self.rows) and self.finds == "faults"

    @property
    def first_row(self) -> dict[str, Any]:
        """The first offender."""
        return dict(zip(self.columns, self.rows[0], strict=True))


def run_checks(con: duckdb.DuckDBPyConnection, limit: int = 20) -> list[CheckResult]:
    """All of `sql/checks/`, on the live catalog or the published copy."""
    results = []
    for file in list_sql("checks"):
        cursor = con.execute(file.text)
        columns = tuple(column[0] for column in cursor.description or ())
        results.append(CheckResult(file.name, file.purpose, file.finds, columns, tuple(cursor.fetchmany(limit))))
    return results


def refuse_faults(con: duckdb.DuckDBPyConnection, catalog_path: Path) -> None:
    """Raise `ValueError` naming the checks that found a fault, each with its first row."""
    if failed := [check for check in run_checks(con, limit=1) if check.is_fault]:
        found = "; ".join(f"{check.name} found {check.first_row}" for check in failed)
        raise ValueError(
            f"{catalog_path} is not published, because {found}; readers keep the copy they have. "
            "Delete the file named and run the stage that writes it again, or `dalle catalog rebuild` if the files are right"
        )
