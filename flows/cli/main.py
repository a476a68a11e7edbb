"""The `dalle` command. Its modules import torch, Prefect and DuckDB only inside the commands that need them.

Exit status: 0 good; 1 the work failed; 2 the request was wrong. Results go to stdout, progress and errors to stderr.
"""

import sys
from importlib import metadata
from typing import Annotated

import typer

from flows.cli import (
    app as playground,
)
from flows.cli import (
    bench,
    catalog,
    config,
    demo,
    diagnose,
    doctor,
    evaluate,
    export,
    export_pairs,
    forget,
    generate,
    import_model,
    import_weights,
    job,
    lineage,
    networks,
    prepare,
    query,
    reconstruct,
    report,
    rerank,
    run,
    site,
    status,
    train,
    up,
    vote,
)
from flows.cli.errors import INTERRUPTED, exit_status, one_line

app = typer.Typer(
    name="dalle",
    help="A complete, open DALL-E (2021): from web pages to reranked pictures. Begin with `dalle demo`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
MAKE, OPERATE, INSPECT, TOOLS = "Make", "Operate", "Inspect", "Single parts and upkeep"
app.command("demo", rich_help_panel=MAKE)(demo.demo)
app.command("train", rich_help_panel=MAKE)(train.train)
app.command("run", rich_help_panel=MAKE, help=run.HELP)(run.run)
app.command("generate", rich_help_panel=MAKE)(generate.generate)
app.command("app", rich_help_panel=MAKE)(playground.app)
app.command("rerank", rich_help_panel=MAKE)(rerank.rerank)
app.command("evaluate", rich_help_panel=MAKE)(evaluate.evaluate)
app.add_typer(bench.app, name="bench", rich_help_panel=MAKE)
app.add_typer(vote.app, name="vote", rich_help_panel=MAKE)
app.command("export", rich_help_panel=MAKE)(export.export)
app.command("export-pairs", rich_help_panel=MAKE)(export_pairs.export_pairs)
app.command("import", rich_help_panel=MAKE)(import_model.import_model)
app.command("reconstruct", rich_help_panel=MAKE)(reconstruct.reconstruct)
app.command("up", rich_help_panel=OPERATE)(up.up)
app.command("down", rich_help_panel=OPERATE)(up.down)
app.command("doctor", rich_help_panel=OPERATE)(doctor.doctor)
app.command("status", rich_help_panel=INSPECT)(status.status)
app.command("diagnose", rich_help_panel=INSPECT)(diagnose.diagnose)
app.command("query", rich_help_panel=INSPECT)(query.query)
app.command("lineage", rich_help_panel=INSPECT)(lineage.lineage)
app.command("report", rich_help_panel=INSPECT)(report.report)
app.add_typer(networks.app, name="networks", rich_help_panel=INSPECT)
app.add_typer(config.app, name="config", rich_help_panel=INSPECT)
app.command("job", rich_help_panel=TOOLS)(job.job)
app.command("prepare", rich_help_panel=TOOLS)(prepare.prepare)
app.command("import-weights", rich_help_panel=TOOLS)(import_weights.import_weights)
app.add_typer(catalog.app, name="catalog", rich_help_panel=TOOLS)
app.command("forget", rich_help_panel=TOOLS)(forget.forget)
app.command("site", rich_help_panel=TOOLS)(site.site)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dalle {metadata.version('open-dalle')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)] = False,
) -> None:
    """Options of the command itself."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its status."""
    try:
        status = app(arguments, prog_name="dalle", standalone_mode=False)
    except Exception as error:
        status = exit_status(error)
        if status is None:
            raise  # a bug of ours: the traceback is what we want to be sent
        print(f"dalle: {one_line(error)}", file=sys.stderr)
    if status == INTERRUPTED:
        print("dalle: interrupted; the same command goes on where this one stopped", file=sys.stderr)
    sys.exit(status or 0)
