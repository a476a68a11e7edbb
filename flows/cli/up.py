"""`dalle up` and `dalle down`: an installation in one terminal."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flows.operation.installation import Record
    from flows.operation.site import Site

SiteFile = Annotated[
    Path | None,
    typer.Option(
        "--site",
        metavar="FILE",
        help="The site file; if not given, site.toml of this folder, else the present data root with its settings.",
    ),
]


def up(site_file: SiteFile = None) -> None:
    """Serve a data root: Prefect's server, deployments, schedules and workers, until Ctrl-C or `dalle down`.

    What dies is started again. Where it runs already, deployments are brought up to date with the site file.
    """
    from flows.operation import installation
    from flows.operation.site import find_site

    site = find_site(site_file)
    installation.up(site, _say, lambda record: _show(site, record))


def down(site_file: SiteFile = None) -> None:
    """End what `dalle up` started, from another terminal, and whatever was left when it was killed."""
    from flows.operation import installation
    from flows.operation.site import find_site

    site = find_site(site_file)
    ended = installation.down(site.data_root, _say)
    typer.echo(f"{site.name}: {f'{ended} processes ended' if ended else 'nothing was running'}")


def _say(text: str) -> None:
    print(f"dalle: {text}", file=sys.stderr, flush=True)


def _show(site: "Site", record: "Record") -> None:
    """The status page."""
    from rich.table import Table

    from flows.cli.output import results_console
    from flows.operation.server_view import pools, schedules, switched_on_links

    server = record.server()
    page = Table.grid(padding=(0, 2))
    page.add_row("interface", record.interface + ("  (user and password as in server.auth_file)" if record.auth_file else ""))
    page.add_row("commands", f"export PREFECT_API_URL={record.url}" + ("  PREFECT_API_AUTH_STRING=…" if record.auth_file else ""))
    page.add_row("data root", str(site.data_root))
    page.add_row("logs", str(site.home / "*.log"))
    for name, what in pools(server):
        page.add_row(f"pool {name}", what)
    planned = schedules(server)
    page.add_row("schedules", "\n".join(planned) or "none is on; `[schedules]` of the site file, or Prefect's interface, switches them on")
    page.add_row("links", ", ".join(switched_on_links(server)) or "none is on")
    console = results_console()
    console.print(f"[bold]{site.name} is up[/bold]; Ctrl-C or `dalle down` ends it")
    console.print(page)
