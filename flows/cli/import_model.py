"""`dalle import`: the networks of a model folder in a data root."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve


def import_model(
    folder: Annotated[Path, typer.Argument(help="A folder that `dalle export` wrote.")],
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Copy the networks of a model folder to the data root and make them current there: `dalle generate PROMPT` draws with them.

    Every file is checked first. A data root without settings takes over the model's seed and sampling settings, too, and so draws
    the same pixels. `dalle networks use` switches back.
    """
    from dataclasses import replace

    from dalle_datasets.store.layout import open_data_root
    from dalle_model.generator import NETWORKS
    from dalle_model.model_folder import read_model_folder
    from dalle_model.running.networks import adopt
    from flows.cli.display import on_terminal
    from flows.runtime.parameters import remember
    from flows.runtime.run import catalogue
    from flows.runtime.starting import import_networks

    model = read_model_folder(folder.expanduser().absolute())
    config = resolve(preset, settings, config_file)
    layout = open_data_root(config.paths.data_root)
    if not layout.settings.exists():
        config = replace(config, sampling=model.sampling, seed=model.seed)
        remember(config)
    with on_terminal():
        made = import_networks(model, config)
        paths = {kind: layout.relative(layout.run(made["run_id"]) / kind) for kind in NETWORKS}
        adopt(layout, config, model.ids, paths, made["run_id"], f"imported from {model.folder.name}")
        catalogue(config, made)
    typer.echo(f"model {model.id} is current in {layout.root}: dalle generate PROMPT draws with it; about it: {folder / 'README.md'}")
