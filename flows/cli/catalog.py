"""`dalle catalog`: the DuckDB catalog itself."""

import sys
from typing import Annotated

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
def check(
    files: Annotated[bool, typer.Option("--files", help="Compare the tables with the files, too, in both directions.")] = False,
    hashed: Annotated[int, typer.Option(min=0, help="With --files: of how many files to compare the content.")] = 20,
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Run the integrity checks on the published copy; exit status 1 if one finds a fault."""
    from dalle_datasets.catalog.checks import run_checks
    from dalle_datasets.catalog.connection import open_published
    from dalle_datasets.catalog.upkeep import compare_with_files
    from dalle_datasets.store.layout import find_data_root

    layout = find_data_root(resolve(preset, settings, config_file).paths.data_root)
    with open_published(layout) as con:
        results = run_checks(con)
    differences = compare_with_files(layout, hashed) if files else []
    for found in differences:
        typer.echo(f"FAULT    {found.path}: {found.problem}")
    for result in results:
        state = "ok      " if result.passed else "FAULT   " if result.is_fault else "leftover"
        typer.echo(f"{state} {result.name}: {result.purpose}")
        for row in result.rows:
            print(f"       {dict(zip(result.columns, row, strict=True))}", file=sys.stderr)
    if differences:
        _say("ingest what is there with `dalle run maintain_catalog`; a file with other content was damaged or edited: restore it")
    if differences or any(result.is_fault for result in results):
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


@app.command()
def keep(name: str, preset: Preset = None, settings: Settings = None, config_file: ConfigFile = None) -> None:
    """Keep a run, training set or network, and all it was made from, when `gc` deletes."""
    from dalle_datasets.catalog.upkeep import keep as note_kept
    from dalle_datasets.store.layout import open_data_root

    layout = open_data_root(resolve(preset, settings, config_file).paths.data_root)
    note_kept(layout, name)
    typer.echo(f"{name} is kept ({layout.kept})")


@app.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Delete; without it, only say what would go.")] = False,
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Find artefacts that nothing current or kept refers to, and files of killed writers."""
    from dalle_datasets.catalog.ingest import ingest_everything
    from dalle_datasets.catalog.ledger import ingest_in_turns
    from dalle_datasets.catalog.snapshot import publish as make_copy
    from dalle_datasets.catalog.upkeep import collect_garbage, find_garbage
    from dalle_datasets.store.layout import open_data_root

    config = resolve(preset, settings, config_file)
    layout = open_data_root(config.paths.data_root)
    garbage = find_garbage(layout)
    for item in garbage:
        typer.echo(f"{item.num_bytes:>15,} bytes  {item.path}: {item.reason}")
    total = f"{len(garbage):,} things, {sum(item.num_bytes for item in garbage):,} bytes"
    if not delete:
        typer.echo(f"{total} would go; `dalle catalog keep ID` keeps one, `dalle catalog gc --delete` deletes all of these")
        return
    collect_garbage(layout, garbage)
    ingest_in_turns(layout.catalog, lambda con: ingest_everything(con, layout), config.catalog.lock_timeout_s, _say, "gc")
    make_copy(layout, config.catalog.lock_timeout_s, _say)
    typer.echo(f"{total} deleted")


@app.command()
def compact(preset: Preset = None, settings: Settings = None, config_file: ConfigFile = None) -> None:
    """Write the live catalog anew without the holes that replaced rows left; writers wait meanwhile."""
    from dalle_datasets.catalog.upkeep import compact as write_anew
    from dalle_datasets.store.layout import open_data_root

    config = resolve(preset, settings, config_file)
    before, after = write_anew(open_data_root(config.paths.data_root), config.catalog.lock_timeout_s, _say)
    typer.echo(f"{before:,} bytes before, {after:,} after")


@app.command()
def backup(
    place: Annotated[str, typer.Argument(help="A folder, or a bucket such as s3://bucket/folder.")],
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Copy the data root to a folder or bucket; only what is not there yet is copied, and earlier backups stay whole."""
    from dalle_datasets.store.backup import BackupPlace
    from dalle_datasets.store.layout import find_data_root

    made = BackupPlace(place).save(find_data_root(resolve(preset, settings, config_file).paths.data_root))
    typer.echo(f"{place}: backup {made.name}, {made.num_files:,} files, {made.num_copied:,} of them copied ({made.num_bytes:,} bytes)")


@app.command()
def restore(
    place: Annotated[str, typer.Argument(help="Where `dalle catalog backup` wrote.")],
    name: Annotated[str | None, typer.Option(help="Which backup; the newest if not given.")] = None,
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Bring a backup into an empty data root, every file checked, and make the catalog from it."""
    from dalle_datasets.catalog.snapshot import rebuild as make_again
    from dalle_datasets.store.backup import BackupPlace
    from dalle_datasets.store.layout import open_data_root

    config = resolve(preset, settings, config_file)
    layout = open_data_root(config.paths.data_root)
    made = BackupPlace(place).restore(layout, name)
    make_again(layout, config.catalog.lock_timeout_s, _say)
    typer.echo(
        f"{layout.root}: backup {made.name}, {made.num_files:,} files, {made.num_copied:,} of them copied ({made.num_bytes:,} bytes)"
    )


def _say(text: str) -> None:
    typer.echo(text, err=True)
