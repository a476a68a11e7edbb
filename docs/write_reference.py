"""Reference pages written from the code. `python docs/write_reference.py` writes them again; a test says when they are out of date."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import typer

from dalle_datasets.catalog.migrations import migrate
from dalle_datasets.store import schemas
from dalle_model.config.parsing import meanings, to_dict
from dalle_model.config.presets import PRESETS, preset
from dalle_model.config.tree import Config

FOLDER = Path(__file__).with_name("reference")
BEGIN = "*Written from the code by `python docs/write_reference.py`.*"


def settings() -> Iterator[str]:
    """Every setting: its meaning and its value in each preset where they differ."""
    yield "# Settings\n"
    yield f"{BEGIN} `dalle config show` prints those that hold, `--set PATH=VALUE` changes one, `dalle config diff` compares.\n"
    values = {name: _flat(to_dict(preset(name, {"paths.data_root": "data"}))) for name in PRESETS}
    said = meanings(Config)
    section = None
    for path in said:
        if path not in values["demo"]:
            continue
        group, _, leaf = path.rpartition(".")
        if group != section:
            section = group
            yield f"\n## {group or 'At the top'}\n"
            yield "| setting | meaning | value |\n| --- | --- | --- |"
        yield f"| `{leaf}` | {_cell(said[path])} | {_cell(_values({name: _value(values[name][path]) for name in PRESETS}))} |"


def commands() -> Iterator[str]:
    """Every command with its arguments and options."""
    from flows.cli.main import app

    yield "# Commands\n"
    yield f"{BEGIN} `dalle COMMAND --help` says the same at the terminal.\n"
    yield from _command(typer.main.get_command(app), "dalle")


def tables() -> Iterator[str]:
    """Tables and views of the catalog, with the comments of their columns."""
    yield "# Tables of the catalog\n"
    yield f"{BEGIN} `dalle query` asks them, and so does any DuckDB client that opens `catalog/published.duckdb`.\n"
    con = duckdb.connect(":memory:")
    migrate(con)
    things = con.execute(
        "select table_name, comment from duckdb_tables() where not internal "
        "union all select view_name, comment from duckdb_views() where not internal order by 1"
    ).fetchall()
    for name, comment in things:
        columns = con.execute(
            "select column_name, data_type, comment from duckdb_columns() where table_name = ? and not internal order by column_index",
            [name],
        ).fetchall()
        yield f"\n## {name}\n\n{comment or ''}\n\n| column | type | meaning |\n| --- | --- | --- |"
        yield from (f"| `{column}` | {kind.lower()} | {_cell(said or '')} |" for column, kind, said in columns)


def files() -> Iterator[str]:
    """Schemas of the Parquet files."""
    yield "# Parquet files\n"
    yield f"{BEGIN} Name and version of a schema are in the metadata of every file and checked when it is read.\n"
    for schema in (value for value in vars(schemas).values() if isinstance(value, pa.Schema)):
        about = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        yield f"\n## {about['schema']}\n\nVersion {about['version']}.\n\n| column | type | |\n| --- | --- | --- |"
        yield from (f"| `{field.name}` | {_cell(str(field.type))} | {'may be missing' if field.nullable else ''} |" for field in schema)


PAGES = {"settings": settings, "commands": commands, "tables": tables, "schemas": files}


def render(name: str) -> str:
    """One of `PAGES` as Markdown."""
    return "\n".join(PAGES[name]()).rstrip() + "\n"


def _command(command: Any, path: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _command(inner, f"{path} {name}")
        return
    yield f"\n## {path}\n\n{' '.join((command.help or '').split())}\n"
    if command.params:
        yield "| argument or option | meaning |\n| --- | --- |"
    for parameter in command.params:
        is_option = parameter.param_type_name == "option"
        names = (
            ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts)) if is_option else f"`{parameter.name.upper()}`"
        )
        yield f"| {names} | {_cell(getattr(parameter, 'help', None) or '')} |"


def _flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return flat


def _values(by_preset: dict[str, str]) -> str:
    """One value where all presets agree, else each preset's."""
    if len(set(by_preset.values())) == 1:
        return by_preset["demo"]
    return ", ".join(f"{name} {value or 'none'}" for name, value in by_preset.items())


def _value(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return f"`{text}`" if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in PAGES:
        (FOLDER / f"{name}.md").write_text(render(name), encoding="utf-8")
