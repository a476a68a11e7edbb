"""`dalle catalog`: the DuckDB catalog itself."""

import sys

import typer

from flows.cli.errors import WORK_FAILED
from flows.cli.options import ConfigFile, Preset, Settings, resolve

app = typer.Typer(help="The DuckDB catalog: schema, checks, the readers' copy.", no_args_is_help=True)


@app.command()
def migrate(preset: Preset = None, settings: Settings = None, config_file: ConfigFile = None) -> None:
    """Bring the catalog's schema up to date, creating it if need be."""
    from dalle_datasets.catalog.connection import connect
    from dalle_datasets.store.layout import open_data_root

    config = resolve(preset, settings, config_file)
    layout = open_data_root(config.paths.data_root)
    with connect(layout.catalog, config.catalog.lock_timeout_s, _say, "migrating"):
        typer.echo(layout.catalog)


@app.command()
def check(preset: Preset = None, settings: Settings = None, config_file: ConfigFile = None) -> None:
    """Run the integrity checks on the published copy; exit status 1 if one finds a fault."""
    from dalle_datasets.catalog.checks import run_checks
    from dalle_datasets.catalog.connection import open_published
    from dalle_datasets.store.layout import find_data_root

    with open_published(find_data_root(resolve(preset, settings, config_file).paths.data_root)) as con:
        results = run_checks(con)
    for result in results:
        state = "ok      " if result.passed else "FAULT   " if result.is_fault else "leftover"
        typer.echo(f"{state} {result.name}: {result.purpose}")
        for row in result.rows:
            print(f"       {dict(zip(result.columns, row, strict=True))}", file=sys.stderr)
    if any(result.is_fault for result in results):
        raise typer.Exit(WORK_FAILED)


@app.command()
def publish(preset: Preset = None, settings: Settings = None, config_file: ConfigFile = None) -> None:
    """Make the copy that `dalle query` reads."""
    from dalle_datasets.catalog.snapshot import publish as make_copy
    from dalle_datasets.store.layout import open_data_root

    config = resolve(preset, settings, config_file)
    layout = open_data_root(config.paths.data_root)
    typer.echo(make_copy(layout, config.catalog.lock_timeout_s, _say))


@app.command()
def rebuild(preset: Preset = None, settings: Settings = None, config_file: ConfigFile = None) -> None:
    """Make the catalog again from the files alone, and publish it."""
    from dalle_datasets.catalog.snapshot import rebuild as make_again
    from dalle_datasets.store.layout import open_data_root

    config = resolve(preset, settings, config_file)
    layout = open_data_root(config.paths.data_root)
    done = make_again(layout, config.catalog.lock_timeout_s, _say)
    typer.echo(f"{layout.catalog}: {done.added:,} files ingested")


def _say(text: str) -> None:
    typer.echo(text, err=True)
