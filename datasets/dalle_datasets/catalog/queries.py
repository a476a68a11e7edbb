"""Named queries of `sql/queries/` and free SQL, run read-only on the published copy."""

import difflib
from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa

from dalle_datasets.catalog.connection import first_line, open_published
from dalle_datasets.catalog.questions import the_question
from dalle_datasets.catalog.sql_files import Parameter, SqlFile, list_sql, quoted, read_sql
from dalle_datasets.store.layout import Layout


class NoFilesError(ValueError):
    """A query reads Parquet files of a kind that does not exist yet."""


_WRITERS = {
    "runs/reconstruct-": "dalle reconstruct",
    "runs/": "dalle generate",
    "votes/": "dalle vote read",
    "collections/": "dalle run collect_pairs",
    "measures/": "dalle run collect_pairs",
    "image_tokens/": "dalle run tokenize_pairs",
    "clip_scores/": "dalle run score_pairs",
    "training_sets/": "dalle run train_transformer",
}
"""Beginning of a path under the data root -> the command that writes what lies there."""

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def list_queries() -> list[SqlFile]:
    """All named queries, with purpose, parameters and what they return."""
    return list_sql("queries")


def find_query(name: str) -> SqlFile:
    """The named query. Raises `ValueError` with a suggestion when there is none."""
    known = [file.name for file in list_queries()]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "`dalle query --list` shows them"
        raise ValueError(f"query {name!r} does not exist; {hint}")
    return read_sql("queries", name)


def run_query(layout: Layout, name: str, params: Mapping[str, Any] | None = None) -> pa.Table:
    """The rows of a named query. Parameters may be Python values or text as typed on a command line; `root` is filled in.

    Raises `ValueError` for an unknown query, parameter or id, a missing one, a value of the wrong kind, and when nothing is
    published yet.
    """
    file = find_query(name)
    values = bind(file, {"root": str(layout.root), **(params or {})} if _takes_root(file) else params or {})
    with open_published(layout) as con:
        try:
            rows = _rows(con, file.text, values, f"query {name!r}")
            if not rows.num_rows:
                check_ids(con, file, params or {})
            return rows
        except ValueError:
            if missing := set(file.reads) - _known_names(con):
                raise ValueError(
                    f"query {name!r} reads {', '.join(sorted(missing))}, which {layout.published_catalog} does not have: "
                    "it was published by an older version of open-dalle; run `dalle catalog publish`"
                ) from None
            raise


def ask(con: duckdb.DuckDBPyConnection, name: str, **params: Any) -> list[dict[str, Any]]:
    """The rows of a named query on an open catalog, the live one included. Raises `ValueError` as `run_query` does."""
    file = find_query(name)
    rows: list[dict[str, Any]] = _rows(con, file.text, bind(file, params), f"query {name!r}").to_pylist()
    return rows


def run_sql(layout: Layout, sql: str) -> pa.Table:
    """The rows of one `select`, or `explain` of one, on the published copy; it reads no file outside the data root.

    Raises `ValueError` for anything else, and with DuckDB's words when it cannot be run.
    """
    with open_published(layout) as con:
        return _rows(con, the_question(con, sql, "the query"), None, "the query")


def bind(file: SqlFile, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for every declared parameter of a query, converted from text where need be."""
    known = {parameter.name: parameter for parameter in file.parameters}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            takes = ", ".join(map(str, file.parameters)) or "no parameters"
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {takes}"
            raise ValueError(f"query {file.name!r} has no parameter {name!r}; {hint}")
    values = {}
    for name, parameter in known.items():
        value = given.get(name, parameter.default)
        if value is None and not parameter.is_optional:
            raise ValueError(f"query {file.name!r} needs {parameter}; give it with --param {name}=…")
        values[name] = None if value is None else _convert(parameter, value, file.name)
    return values


def check_ids(con: duckdb.DuckDBPyConnection, file: SqlFile, given: Mapping[str, Any]) -> None:
    """Raise `ValueError` for an id that the catalog does not have: no rows would look like an answer."""
    for name, value in given.items():
        if not name.endswith("_id") or value is None:
            continue
        text = read_sql("ingest", "unknown_id").text
        (found,) = _rows(con, text, {"parameter": name, "id": str(value)}, f"query {file.name!r}").to_pylist()
        if found["is_unknown"]:
            near = f"; the most like it: {', '.join(found['near'])}" if found["near"] else ", nor any other"
            raise ValueError(f"query {file.name!r}: the published catalog has no {name} {value!r}{near}")


def _known_names(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Tables, views and macros."""
    return {name for (name,) in con.execute(read_sql("ingest", "known_names").text).fetchall()}


def _takes_root(file: SqlFile) -> bool:
    return any(parameter.name == "root" for parameter in file.parameters)


def _convert(parameter: Parameter, value: Any, query: str) -> Any:
    text = str(value).strip()
    try:
        match parameter.kind:
            case "integer":
                return int(text)
            case "number":
                return float(text)
            case "boolean":
                if text.lower() not in (*_TRUE, *_FALSE):
                    raise ValueError
                return text.lower() in _TRUE
            case _:
                return str(value)
    except ValueError:
        article = "an" if parameter.kind == "integer" else "a"
        raise ValueError(f"query {query!r}: {parameter.name}={text!r} is not {article} {parameter.kind}") from None


def _rows(con: duckdb.DuckDBPyConnection, sql: str | duckdb.Statement, values: Mapping[str, Any] | None, what: str) -> pa.Table:
    try:
        if not values or not isinstance(sql, str):
            return con.execute(sql).to_arrow_table()
        given = ", ".join(f'"{name}" := {_literal(value)}' for name, value in values.items())
        con.execute(f"prepare question as {sql}")
        try:
            return con.execute(f"execute question({given})").to_arrow_table()
        finally:
            con.execute("deallocate question")
    except duckdb.IOException as error:
        if "No files found" in str(error):
            raise NoFilesError(f"{what} reads Parquet files that do not exist yet; {writer_of(error)} ({first_line(error)})") from error
        raise ValueError(f"{what} cannot be run: {first_line(error)}") from error
    except duckdb.PermissionException as error:
        raise ValueError(
            f"{what} cannot be run: {first_line(error)}; only files under the data root can be read, "
            "so bring this one there first, or open it with another DuckDB"
        ) from error
    except duckdb.Error as error:
        raise ValueError(f"{what} cannot be run: {error}") from error


def writer_of(error: Exception) -> str:
    """What a person runs to get the files that a query did not find."""
    folder = next((folder for folder in _WRITERS if f"/{folder}" in str(error)), "")
    return f"`{_WRITERS[folder]}` writes them" if folder else "run the stage that writes them"


def _literal(value: Any) -> str:
    """A value as SQL writes it. DuckDB's Python client would import pandas for the first parameter it is given: a second of CPU."""
    if value is None:
        return "null"
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, float):
        return f"'{value}'::double"
    text = str(value)
    if "\0" in text:
        raise ValueError(f"{text!r} cannot be a parameter: it holds a character 0; leave that out")
    return quoted(text)
