"""`dalle query`: ask the catalog's published copy."""

import math
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.options import ConfigFile, Preset, Settings, parse_params, resolve
from flows.cli.output import printable, results_console

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["table", "csv", "json", "parquet"]
MAX_TABLE_ROWS = 100


def query(
    name: Annotated[str, typer.Argument(help="A named query, `-` to read SQL from standard input, or SQL itself.")] = "",
    params: Annotated[list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A query's parameter; may be repeated.")] = None,
    form: Annotated[Format, typer.Option("--format", "-f", help="How to write the rows.")] = "table",
    ui: Annotated[bool, typer.Option("--ui", help="Open DuckDB's web page on the published copy, until Enter is pressed.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="List the named queries.")] = False,
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Run a named or typed query on the published copy of the catalog."""
    from dalle_datasets.catalog import queries
    from dalle_datasets.store.layout import find_data_root

    if show_list:
        _print_list()
        return
    if ui:
        from dalle_datasets.catalog.connection import serve_ui

        with serve_ui(find_data_root(resolve(preset, settings, config_file).paths.data_root)) as address:
            typer.echo(f"{address} shows the published copy, read-only; Enter ends it")
            sys.stdin.readline()
        return
    if not name:
        raise ValueError("say which query: a name from `dalle query --list`, or - to read SQL from standard input")
    is_sql = name == "-" or " " in name.strip()
    if not is_sql:
        queries.find_query(name)  # a misspelt name is said before anything about the data root
    layout = find_data_root(resolve(preset, settings, config_file).paths.data_root)
    if is_sql:
        if params:
            raise ValueError("--param goes with a named query; write the values into the SQL itself")
        rows = queries.run_sql(layout, sys.stdin.read() if name == "-" else name)
    else:
        rows = queries.run_query(layout, name, parse_params(params))
    write_rows(rows, form)


def _print_list() -> None:
    from rich.table import Table

    from dalle_datasets.catalog.queries import list_queries

    table = Table("query", "answers", "parameters", box=None)
    for file in list_queries():
        table.add_row(file.name, file.purpose, ", ".join(str(parameter) for parameter in file.parameters if parameter.name != "root"))
    results_console().print(table)


def write_rows(rows: "pa.Table", form: Format) -> None:
    """Print the rows of a query in one of the formats."""
    if form == "parquet":
        import pyarrow.parquet as pq

        if sys.stdout.isatty():
            raise ValueError("Parquet is not for terminals; send it to a file: dalle query … --format parquet > rows.parquet")
        pq.write_table(rows, sys.stdout.buffer)
    elif form == "csv":
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(rows.column_names)
        writer.writerows(_tuples(rows))
    elif form == "json":
        import json

        for row in _tuples(rows):
            values = zip(rows.column_names, map(_plain, row), strict=True)
            print(json.dumps(dict(values), default=str, ensure_ascii=False, allow_nan=False))
    else:
        _print_table(rows)


def _tuples(rows: "pa.Table") -> Iterator[tuple[object, ...]]:
    """The rows; two columns may have one name."""
    return zip(*(column.to_pylist() for column in rows.columns), strict=True)


def _plain(value: object) -> object:
    """A value that JSON has: no NaN and no infinity, numbers as numbers, bytes as hex digits."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _print_table(rows: "pa.Table") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for name in rows.column_names:
        table.add_column(Text(printable(name)), overflow="fold")  # ids and paths are there to be copied
    for row in _tuples(rows.slice(0, MAX_TABLE_ROWS)):
        table.add_row(*(Text(printable(_text(value))) for value in row))
    results_console().print(table)
    if rows.num_rows > MAX_TABLE_ROWS:
        print(f"{MAX_TABLE_ROWS} of {rows.num_rows:,} rows; --format csv writes them all", file=sys.stderr)
    if not rows.num_rows:
        print("no rows", file=sys.stderr)


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
