"""`dalle generate`: pictures for one prompt or many."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import ConfigFile, Preset, Settings, With, parse_settings, resolve, with_networks

if TYPE_CHECKING:
    from rich.text import Text

    from dalle_datasets.store.layout import Layout

SHOWN = 12
"""Pictures that `--show` draws at most, however many prompts there are."""


def generate(
    prompt: Annotated[str | None, typer.Argument(help='What the picture should show, e.g. "a blue apple on a pink background".')] = None,
    prompts: Annotated[
        str | None,
        typer.Option(help="Many prompts: a .txt, .csv, .jsonl, .parquet or .sql file, or - for one a line on standard input."),
    ] = None,
    query: Annotated[str | None, typer.Option(help="Many prompts: the column `prompt` or `caption` of a query on the catalog.")] = None,
    num_images: Annotated[int | None, typer.Option(min=1, help="Candidates for each prompt; the preset's number if not given.")] = None,
    keep: Annotated[int, typer.Option(min=1, help="How many of the best, by CLIP, to copy to the output folder.")] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the pictures; for one prompt, this folder if not given.")
    ] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut prompts that are too long instead of leaving them out.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Draw the best pictures in the terminal, as many as are kept.")] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            metavar="FOLDER",
            help="Draw with a folder of `dalle export`, or a model that comes with open-dalle, by its name; no data root is used.",
        ),
    ] = None,
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
    networks: With = None,
) -> None:
    """Make pictures for one prompt or many with the trained networks, rank them by CLIP, and keep the best.

    All candidates are kept in the data root, with a contact sheet. The same command goes on where an interrupted one stopped.
    With --model nothing but the best is kept. Where there is no data root, the model that comes with open-dalle draws, if there is one.
    """
    if sum(way is not None for way in (prompt, prompts, query)) != 1:
        raise ValueError("say what to draw in one way: a prompt, --prompts FILE, or --query SQL")
    asked: dict[str, Any] = {"sampling.num_images": num_images} if num_images else {}
    if truncate:
        asked["sampling.truncate_prompts"] = True
    if model is None and preset is None and config_file is None and query is None and not networks:
        model = default_model(parse_settings(settings))
    if model is not None:
        if preset is not None or config_file is not None or query is not None or networks:
            raise ValueError("--model draws with a folder and its own settings; leave out --preset, --config, --query and --with")
        draw_with_folder(model, prompt, prompts, keep, output, show, {**parse_settings(settings), **asked})
        return
    from dalle_datasets.store.layout import open_data_root
    from flows.cli.display import on_terminal
    from flows.runtime.prompts import ask_for
    from flows.runtime.run import catalogue, execute_job
    from flows.runtime.upstream import inputs_of

    config = resolve(preset, settings, config_file, {**asked, **with_networks(networks)})
    layout = open_data_root(config.paths.data_root)
    inputs = inputs_of("generate_images", config, **ask_for(config, None if prompt is None else [prompt], prompts, query))
    with on_terminal():
        made = execute_job("generate_images", config, inputs)
        catalogue(config, made)
    if prompt is not None or output is not None:
        copy_best(layout, made, keep, output or Path(), alone=prompt is not None)
    if prompt is None:
        print_batch(layout, made)
    if show:
        show_best(layout, made, keep)


def default_model(given: Mapping[str, Any]) -> Path | None:
    """The model that comes with the package, where the settings name no data root and none is here; says so."""
    import os

    from dalle_model.config.presets import demo

    has_root = Path(demo().paths.data_root).exists() or Path("settings.toml").exists() or bool(os.environ.get("DALLE_DATA_ROOT"))
    if has_root or "paths.data_root" in given:
        return None
    from dalle_model.model_folder import DEFAULT, find_model, shipped_models

    if DEFAULT not in shipped_models():
        return None
    folder = find_model(DEFAULT)
    typer.echo(
        f"no data root here: drawing with the model {DEFAULT!r} that comes with open-dalle; about it: {folder / 'README.md'}", err=True
    )
    return folder


def draw_with_folder(
    folder: Path, prompt: str | None, prompts: str | None, keep: int, output: Path | None, show: bool, overrides: Mapping[str, Any]
) -> None:
    """Draw with a model folder alone and write the best pictures of each prompt, their origin inside.

    `overrides` are settings `sampling.*` and `seed`; others raise `ValueError`, as a folder decides them.
    """
    import numpy as np

    from dalle_datasets.prompts.read import read_prompts, text_prompts
    from dalle_model.config.parsing import with_overrides
    from dalle_model.generated.image_files import save_picture
    from dalle_model.model_folder import find_model, open_model, read_model_folder
    from flows.runtime.best_pictures import file_name

    about = read_model_folder(find_model(folder))
    seed = int(overrides.get("seed", about.seed))
    sampling = {name: value for name, value in overrides.items() if name != "seed"}
    if decided := [name for name in sampling if not name.startswith("sampling.")]:
        raise ValueError(f"--set {decided[0]}: --model takes everything but sampling.* and seed from {folder}")
    settings = with_overrides(about.sampling, {name.removeprefix("sampling."): value for name, value in sampling.items()})
    rows = text_prompts([prompt] if prompt is not None else []).prompts if prompts is None else read_prompts(prompts).prompts
    generator = open_model(about, settings, seed)
    output = output or Path()
    output.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []
    for row in rows.to_pylist():
        name = file_name(row["prompt"], row["prompt_id"], alone=prompts is None)
        for rank, picture in enumerate(generator.draw(row["prompt"], upper_rows_of=row["image"])[:keep], 1):
            path = output / f"{name}-{rank}.{settings.image_format}"
            origin = {"prompt": row["prompt"], "seed": picture.seed, "model_id": about.id, **about.ids}
            save_picture(path, np.asarray(picture.image), origin)
            drawn.append(path)
            typer.echo(f"{path}  clip_score={picture.clip_score:.3f}  seed={picture.seed}")
    if show:
        show_pictures(drawn)


def copy_best(layout: "Layout", made: Mapping[str, Any], keep: int, output: Path, alone: bool) -> None:
    """Copy the best pictures and say where they are."""
    from flows.runtime.best_pictures import copy_best_pictures

    copies = copy_best_pictures(layout, made, keep, output, alone)
    if alone:
        for path, row in copies:
            typer.echo(f"{path}  clip_score={row['clip_score']:.3f}  generation_id={row['generation_id']}")
    else:
        typer.echo(f"{len(copies):,} pictures copied to {output}")


def print_batch(layout: "Layout", made: Mapping[str, Any]) -> None:
    """What a batch made and what it left out."""
    typer.echo(f"{made['num_images']:,} pictures for {made['num_prompts']:,} prompts: {layout.root / made['contact_sheet']}")
    typer.echo(f"tokens, scores, seeds and ranks: {layout.root / made['generations']}")
    if made["dropped"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in made["dropped"].items())
        typer.echo(f"left out: {reasons}; why: {layout.root / made['dropped_prompts']}")


def show_best(layout: "Layout", made: Mapping[str, Any], keep: int) -> None:
    """Draw the best pictures of a batch on a terminal."""
    from flows.runtime.best_pictures import best_rows

    show_pictures([layout.root / row["image_path"] for row in islice(best_rows(layout, made, keep), SHOWN)])


def show_pictures(paths: list[Path]) -> None:
    """Draw pictures side by side on a terminal; a file or a pipe would get blocks without colours."""
    from rich.columns import Columns
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal or console.color_system is None:
        console.print("--show draws in colours on a terminal, and there is none here; the pictures are in the files above")
        return
    console.print(Columns([draw_in_terminal(path) for path in paths[:SHOWN]], padding=(0, 1)))


def draw_in_terminal(path: Path) -> "Text":
    """A picture as coloured half blocks, two pixels above one another in each character."""
    import numpy as np
    from PIL import Image
    from rich.color import Color
    from rich.color_triplet import ColorTriplet
    from rich.style import Style
    from rich.text import Text

    with Image.open(path) as file:
        side = min(file.width, 64) // 2 * 2
        pixels = np.asarray(file.convert("RGB").resize((side, side)))
    text = Text(no_wrap=True)
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            colors = [Color.from_triplet(ColorTriplet(*map(int, pixel))) for pixel in (above, below)]
            text.append("▀", Style(color=colors[0], bgcolor=colors[1]))
        text.append("\n")
    return text
