"""`dalle export`: the trained networks as one folder that draws by itself."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve


def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write: new, empty, or an older export.")],
    half: Annotated[bool, typer.Option("--half", help="Round transformer and CLIP to 16 bits (bf16): half the size, new ids.")] = False,
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Copy the networks of the data root to a folder to take away, with a model card written from the catalog.
    What its networks learned from, those it began from included, goes with it.

    `dalle generate PROMPT --model FOLDER` draws with it, and so does `open_dalle.DALLE.load(FOLDER)`, on any machine with
    open-dalle[train]: no data root is needed.
    """
    import tempfile

    from dalle_datasets.store.layout import open_data_root
    from dalle_model.generator import NETWORKS, find_network
    from dalle_model.model_folder import HALVED, halve, write_model_folder
    from flows.report.model_card import render_card
    from flows.report.seen import seen_by_model, told_of
    from flows.runtime.upstream import inputs_of

    config = resolve(preset, settings, config_file)
    layout = open_data_root(config.paths.data_root)
    inputs = inputs_of("generate_images", config)
    networks = {kind: find_network(layout.root, kind, inputs) for kind in NETWORKS}
    seen = seen_by_model(layout, inputs, told_of(layout))
    card = render_card(layout, config, inputs, seen)
    with tempfile.TemporaryDirectory() as rounded:
        if half:
            networks, ids = halve(networks, inputs, Path(rounded))
            renamed = {inputs[f"{kind}_id"]: ids[f"{kind}_id"] for kind in HALVED}
            seen = [{**record, "network_id": renamed.get(record["network_id"], record["network_id"])} for record in seen]
            named = ", ".join(f"{kind} `{inputs[f'{kind}_id']}` became `{ids[f'{kind}_id']}`" for kind in HALVED)
            card += f"\nWeights in this folder are rounded to 16 bits (bf16): {named}. Figures are those before rounding.\n"
            inputs = ids
        model = write_model_folder(folder.expanduser(), networks, inputs, config.sampling, config.seed, card, seen)
    size = sum((model.folder / name).stat().st_size for name in model.files)
    typer.echo(f"{folder}  model {model.id}, {size / 1e6:,.1f} MB; about it: {folder / 'README.md'}")
