"""`dalle reconstruct`: what a dVAE's tokens keep of pictures."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve


def reconstruct(
    pictures: Annotated[
        list[Path] | None, typer.Argument(help="Image files, or Parquet parts or folders of pairs; else the pairs of the settings.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.")] = Path("reconstructions.png"),
    dvae: Annotated[Path | None, typer.Option(help="Folder of a dVAE, e.g. data/runs/RUN_ID/dvae; else that of the settings.")] = None,
    pair: Annotated[list[int] | None, typer.Option(help="Id of a pair to show; may be repeated.")] = None,
    max_pictures: Annotated[int, typer.Option(min=1, help="How many pictures to show at most.")] = 32,
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Turn pictures into image tokens and back, and draw originals above reconstructions.

    `dalle query reconstructions` then lists how well each picture came back.
    """
    import shutil

    from dalle_datasets.store.layout import open_data_root
    from flows.cli.display import on_terminal
    from flows.runtime.run import execute_job
    from flows.runtime.upstream import find

    config = resolve(preset, settings, config_file)
    root = open_data_root(config.paths.data_root).root
    pictures = pictures or [root / find("pairs", config)["pairs"]]
    inputs = {
        **(find("dvae", config) if dvae is None else {"dvae": str(dvae.absolute()), "dvae_id": id_of(dvae)}),
        **({"pair_ids": " ".join(str(pair_id) for pair_id in pair)} if pair else {}),
        "pictures": "\n".join(str(path.absolute()) for path in pictures),
        "pictures_id": " ".join(stamp(path) for path in pictures),
        "max_pictures": str(max_pictures),
    }
    with on_terminal():
        made = execute_job("reconstruct", config, inputs)
    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / made["reconstructions"], output)
    typer.echo(f"{output}  {made['num_pictures']} pictures, PSNR {made['psnr']:.2f} dB")
    for name, reason in made["dropped"].items():
        typer.echo(f"left out: {name}: {reason}", err=True)


def stamp(path: Path) -> str:
    """What tells a picture file, or a folder of them, from its next version. Raises `ValueError` when it does not exist."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; give image files, or Parquet parts or folders of pairs")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return ",".join(f"{file.stat().st_size}-{file.stat().st_mtime_ns}" for file in files)


def id_of(dvae: Path) -> str:
    """The id in a checkpoint folder. Raises `ValueError` when it is none."""
    import json

    from dalle_model.weights import CONFIG

    try:
        return str(json.loads((dvae / CONFIG).read_text())["id"])
    except (OSError, ValueError, KeyError):
        raise ValueError(f"--dvae {dvae}: it holds no checkpoint (config.json with an id); give the folder named dvae of a run") from None
