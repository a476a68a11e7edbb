"""`dalle networks`: which networks serve, since when and why."""

from typing import Annotated

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve
from flows.cli.output import results_console

app = typer.Typer(help="The networks of a data root: which serves in each role; `use` switches.", invoke_without_command=True)


@app.callback()
def networks(context: typer.Context, preset: Preset = None, settings: Settings = None, config_file: ConfigFile = None) -> None:
    """List every registered network: the current one of each role for these settings, and all others. Changes nothing.

    Flows tokenise, score, draw and choose training sets with what is current. `dalle query networks` is the same as a table.
    """
    if context.invoked_subcommand is not None:
        return
    from pathlib import Path

    from rich.table import Table

    from dalle_datasets.store.layout import Layout
    from dalle_model.config.networks import ROLES
    from dalle_model.running.networks import history, serving, settings_id

    config = resolve(preset, settings, config_file)
    layout = Layout(Path(config.paths.data_root).expanduser())
    table = Table("role", "network", "", "since (UTC)", "pairs", "figures", "why", "run", box=None)
    for column in (table.columns[i] for i in (1, 3, 7)):
        column.no_wrap, column.overflow = True, "fold"
    for role in ROLES:
        registered = history(layout, role)
        now = serving(registered, role, config)
        newest_first = {known.network_id: known for known in registered}
        for network_id, known in reversed(newest_first.items()):
            is_current = now is not None and network_id == now.network_id
            shown = now if is_current and now is not None else known
            is_for_others = known.settings_id != settings_id(role, config)
            state = "[green]current[/green]" if is_current else "[dim]of other settings[/dim]" if is_for_others else ""
            figures = ", ".join(f"{name} {value:.4g}" for name, value in shown.metrics.items())
            pairs = shown.pairs_id if shown.num_pairs is None else f"{shown.num_pairs:,}"
            table.add_row(role, network_id, state, shown.at[:16].replace("T", " "), pairs, figures, shown.why, shown.run_id)
        if not registered:
            table.add_row(role, "[dim]none yet[/dim]")
    results_console().print(table)


@app.command()
def use(
    role: Annotated[str, typer.Argument(help="tokenizer, dvae, clip or transformer.")],
    network_id: Annotated[str, typer.Argument(metavar="ID", help="The network; `dalle networks` lists them.")],
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Make a registered network of the settings' shape current for these settings; flows that begin later use it.

    Nothing that was made with another one is lost: switching back finds its tokens and scores again.
    """
    from pathlib import Path

    from dalle_datasets.store.layout import Layout
    from dalle_model.running.networks import choose

    config = resolve(preset, settings, config_file)
    chosen = choose(Layout(Path(config.paths.data_root).expanduser()), role, network_id, config)
    typer.echo(f"{role} {chosen.network_id} is current since {chosen.at} ({chosen.why})")
