"""`dalle site`: look at the web site that the demo collects."""

import time
from typing import Annotated

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve


def site(
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port on the loopback address.")] = 8080,
) -> None:
    """Serve the demo's web site for a browser until Ctrl-C."""
    from dalle_datasets.demo.demo_site import publish_site

    config = resolve(preset, settings, config_file, {"source.port": port})
    with publish_site(config.source) as addresses:
        for name, (_, bound_port) in addresses.items():
            typer.echo(f"http://{name}:{bound_port}/ (Ctrl-C ends it)")
        while True:
            time.sleep(3_600)
