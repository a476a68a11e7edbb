"""`dalle report`: the HTML gallery, and the report of what was collected."""

from typing import Annotated, Literal

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve


def report(
    page: Annotated[Literal["gallery", "collection"], typer.Argument(help="The pictures a run made, or what was collected.")] = "gallery",
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Write an HTML report again from the published catalog and the files beside it, and print its path."""
    from dalle_datasets.store.layout import open_data_root
    from flows.report import write_collection_report, write_report

    config = resolve(preset, settings, config_file)
    layout = open_data_root(config.paths.data_root)
    typer.echo(write_report(layout, config) if page == "gallery" else write_collection_report(layout))
