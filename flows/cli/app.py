"""`dalle app`: the playground in a browser."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import ConfigFile, Preset, Settings, With, parse_settings, resolve, with_networks

if TYPE_CHECKING:
    from flows.app.server import Playground


def app(
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            metavar="FOLDER",
            help="Play with a folder of `dalle export`, or a shipped model by its name; no data root is used.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen. Beyond this machine, visitors are asked for a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 7860,
    ask_token: Annotated[bool, typer.Option("--token", help="Ask for a token on this machine, too, where others have accounts.")] = False,
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
    networks: With = None,
) -> None:
    """Open the playground: draw and watch pictures grow, complete and reconstruct them, browse pairs, follow pictures to their sources.

    It plays with the trained networks and the published catalog of a data root, which it only reads, or with a model folder alone.
    Nothing is loaded from anywhere else. Several visitors take turns. Ctrl-C ends it.
    """
    from flows.app.access import LOOPBACK, new_token
    from flows.app.serving import serve
    from flows.cli.generate import default_model

    if model is None and preset is None and config_file is None and not networks:
        model = default_model(parse_settings(settings))
    if model is not None:
        if preset is not None or config_file is not None or networks:
            raise ValueError("--model plays with a folder and its own settings; leave out --preset, --config and --with")
        playground = with_folder(model, parse_settings(settings))
    else:
        playground = with_data_root(preset, settings, config_file, networks)
    token = new_token() if ask_token or host not in LOOPBACK else None
    serve(playground, host, port, token, _say)


def with_folder(folder: Path, overrides: Mapping[str, Any]) -> "Playground":
    """A playground for a model folder."""
    from dalle_model.config.parsing import with_overrides
    from dalle_model.model_folder import find_model, open_model, read_model_folder
    from flows.app.server import Playground
    from flows.app.studio import Studio

    about = read_model_folder(find_model(folder))
    if decided := [name for name in overrides if not name.startswith("sampling.")]:
        raise ValueError(f"--set {decided[0]}: --model takes everything but sampling.* from {folder}")
    sampling = with_overrides(about.sampling, {name.removeprefix("sampling."): value for name, value in overrides.items()})
    studio = Studio(open_model(about, sampling), {"model_id": about.id, **about.ids}, about.seen)
    return Playground(studio, None, about.folder.resolve().name)


def with_data_root(preset: str | None, settings: list[str] | None, config_file: Path | None, networks: list[str] | None) -> "Playground":
    """A playground for a data root; without a model where nothing has been trained yet.

    Raises `ValueError` when there is neither a trained model nor a published catalog.
    """
    from dalle_datasets.store.layout import find_data_root
    from dalle_model.generator import NETWORKS, Generator
    from flows.app.archive import Archive
    from flows.app.server import Playground
    from flows.app.studio import Studio
    from flows.runtime.upstream import inputs_of

    config = resolve(preset, settings, config_file, with_networks(networks))
    layout = find_data_root(config.paths.data_root)
    studio, why, ids = None, "", {}
    try:
        inputs = inputs_of("generate_images", config, prompts="", prompts_id="")
        ids = {f"{kind}_id": inputs[f"{kind}_id"] for kind in NETWORKS}
        studio = Studio(Generator.open(config, inputs), ids)
    except ValueError as error:
        why = str(error)
    has_catalog = layout.published_catalog.exists()
    if studio is None and not has_catalog:
        raise ValueError(f"{layout.root} has neither trained networks nor a published catalog to play with: {why}; run `dalle demo` first")
    return Playground(studio, Archive(layout, ids) if has_catalog else None, layout.root.resolve().name, why)


def _say(text: str) -> None:
    print(f"dalle: {text}", file=sys.stderr, flush=True)
