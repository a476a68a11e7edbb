"""`dalle doctor`: what is wrong with an installation."""

import typer

from flows.cli.up import SiteFile


def doctor(site_file: SiteFile = None) -> None:
    """Look at packages, GPU, data root, server, workers and clocks; say what to do about what is wrong. Changes nothing.

    Exit status 1 if there is an error.
    """
    from rich.markup import escape
    from rich.table import Table

    from flows.cli.output import results_console
    from flows.operation.doctor import examine
    from flows.operation.site import find_site

    table = Table.grid(padding=(0, 2))
    has_error = False
    for finding in examine(find_site(site_file)):
        has_error |= finding.state == "error"
        table.add_row(finding.what, _COLORS[finding.state].format(finding.state), escape(finding.detail))
    results_console().print(table)
    if has_error:
        raise typer.Exit(1)


_COLORS = {"ok": "[green]{}[/green]", "warning": "[yellow]{}[/yellow]", "error": "[red]{}[/red]"}
