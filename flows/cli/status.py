"""`dalle status`: what is there, what is running, what comes next."""

import sys
from typing import Annotated

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve
from flows.cli.output import results_console


def status(
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
    runs: Annotated[int, typer.Option(min=0, help="How many of the newest runs to list, of any settings.")] = 10,
) -> None:
    """Show how far each stage is with these settings, with ids and progress, the newest runs, and what Prefect's server runs, has in its
    queues and saw fail, if one is up (`dalle up`, or PREFECT_API_URL). Changes nothing.
    """
    from rich.markup import escape
    from rich.table import Table

    from dalle_datasets.store.layout import find_data_root
    from flows.operation.installation import server_of
    from flows.operation.server_view import runs as prefect_runs
    from flows.runtime.overview import Status, newest_runs, stages
    from flows.runtime.prefect_server import PrefectServerFailed

    config = resolve(preset, settings, config_file)
    layout = find_data_root(config.paths.data_root)

    def table(title: str, rows: list[Status]) -> None:
        shown = Table(title, "state", "", box=None)
        for row in rows:
            shown.add_row(row.what, _COLORS[row.state].format(row.state), escape(row.detail))
        results_console().print(shown)

    table(f"stage ({config.preset}, {layout.root})", list(stages(config)))
    if runs:
        print()
        table("newest runs", newest_runs(layout, runs))
        server = server_of(layout.root)
        if server is not None:
            print()
            try:
                table(f"Prefect's runs ({server.url})", [Status(run.name, run.state, run.detail) for run in prefect_runs(server, runs)])
            except PrefectServerFailed as error:
                print(f"dalle: {error}", file=sys.stderr)


_COLORS = {
    "done": "[green]{}[/green]",
    "running": "[cyan]{}[/cyan]",
    "stopped": "[yellow]{}[/yellow]",
    "missing": "[red]{}[/red]",
    "waiting": "[dim]{}[/dim]",
    "queued": "[dim]{}[/dim]",
    "stale": "[yellow]{}[/yellow]",
    "failed": "[red]{}[/red]",
    "crashed": "[red]{}[/red]",
}
