"""`dalle generate`: pictures for one prompt."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Preset, Settings, parse_settings

if TYPE_CHECKING:
    from rich.text import Text


def generate(
    prompt: Annotated[str, typer.Argument(help='What the picture should show, e.g. "a blue apple on a pink background".')],
    num_images: Annotated[int | None, typer.Option(min=1, help="Candidates to make; the preset's number if not given.")] = None,
    keep: Annotated[int, typer.Option(min=1, help="How many of the best, by CLIP, to copy to the output folder.")] = 1,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path(),
    show: Annotated[bool, typer.Option("--show", help="Draw the best picture in the terminal.")] = False,
    preset: Preset = "demo",
    settings: Settings = None,
) -> None:
    """Make pictures for a prompt with the trained networks, rank them by CLIP, and keep the best."""
    import shutil

    from rich.console import Console

    from dalle_datasets.catalog.connection import connect
    from dalle_datasets.catalog.ingest import ingest_run
    from dalle_datasets.catalog.snapshot import publish
    from dalle_datasets.layout import open_data_root
    from dalle_datasets.parquet import read_parquet
    from dalle_datasets.prompts import own_prompts, write_prompts
    from dalle_datasets.schemas import GENERATIONS
    from flows.cli.display import ConsoleDisplay
    from flows.runtime.jobs import run_job
    from flows.runtime.parameters import config_from_parameters
    from flows.runtime.progress import shown_on
    from flows.runtime.upstream import inputs_of

    config = config_from_parameters(preset, {**parse_settings(settings), **({"sampling.num_images": num_images} if num_images else {})})
    layout = open_data_root(config.paths.data_root)
    path, prompts_id = write_prompts(layout, own_prompts([prompt]))
    inputs = inputs_of("generate_images", config, prompts=layout.relative(path), prompts_id=prompts_id)
    with ConsoleDisplay() as display, shown_on(display):
        made = run_job("generate_images", config, inputs)
        with connect(layout.catalog, config.catalog.lock_timeout_s) as con:
            ingest_run(con, layout, layout.run(made["run_id"]))
            publish(con, layout)
    best = sorted(read_parquet(layout.root / made["generations"], GENERATIONS).to_pylist(), key=lambda row: row["rank"])[:keep]
    if not best:
        raise ValueError(f"no picture was made for {prompt!r}: {made.get('dropped')}")
    output.mkdir(parents=True, exist_ok=True)
    for row in best:
        source = layout.root / row["image_path"]
        copy = output / f"{_file_name(prompt)}-{row['rank']}{source.suffix}"
        shutil.copyfile(source, copy)
        typer.echo(f"{copy}  clip_score={row['clip_score']:.3f}  generation_id={row['generation_id']}")
    if show:
        Console(stderr=True).print(draw_in_terminal(layout.root / best[0]["image_path"]))


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
    text = Text()
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            colors = [Color.from_triplet(ColorTriplet(*map(int, pixel))) for pixel in (above, below)]
            text.append("▀", Style(color=colors[0], bgcolor=colors[1]))
        text.append("\n")
    return text


def _file_name(prompt: str) -> str:
    import re

    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "picture"
