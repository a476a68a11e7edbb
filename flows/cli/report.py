"""`dalle report`: the HTML gallery."""

import typer

from flows.cli.options import Preset, Settings, resolve


def report(preset: Preset = "demo", settings: Settings = None) -> None:
    """Write the HTML report again from the catalog and the runs, and print its path."""
    from dalle_datasets.layout import open_data_root
    from flows.report import write_report

    config = resolve(preset, settings)
    typer.echo(write_report(open_data_root(config.paths.data_root), config))
