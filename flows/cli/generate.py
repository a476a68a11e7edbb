"""`dalle generate`: pictures for one prompt or many."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve

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
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Make pictures for one prompt or many with the trained networks, rank them by CLIP, and keep the best.

    All candidates are kept in the data root, with a contact sheet. The same command goes on where an interrupted one stopped.
    """
    from dalle_datasets.catalog.connection import connect
    from dalle_datasets.catalog.ingest import ingest_run
    from dalle_datasets.catalog.snapshot import publish
    from dalle_datasets.store.layout import open_data_root
    from flows.cli.display import ConsoleDisplay
    from flows.runtime.progress import note, shown_on
    from flows.runtime.prompts import ask_for
    from flows.runtime.run import run_job
    from flows.runtime.upstream import inputs_of

    if sum(way is not None for way in (prompt, prompts, query)) != 1:
        raise ValueError("say what to draw in one way: a prompt, --prompts FILE, or --query SQL")
    asked: dict[str, Any] = {"sampling__num_images": num_images} if num_images else {}
    if truncate:
        asked["sampling__truncate_prompts"] = True
    config = resolve(preset, settings, config_file, **asked)
    layout = open_data_root(config.paths.data_root)
    inputs = inputs_of("generate_images", config, **ask_for(config, None if prompt is None else [prompt], prompts, query))
    with ConsoleDisplay() as display, shown_on(display):
        made = run_job("generate_images", config, inputs)
        with connect(layout.catalog, config.catalog.lock_timeout_s, note) as con:
            ingest_run(con, layout, layout.run(made["run_id"]))
            publish(con, layout)
    if prompt is not None or output is not None:
        copy_best(layout, made, keep, output or Path(), alone=prompt is not None)
    if prompt is None:
        print_batch(layout, made)
    if show:
        show_best(layout, made, keep)


def best_rows(layout: "Layout", made: Mapping[str, Any], keep: int) -> Iterator[dict[str, Any]]:
    """The rows of the `keep` best candidates of each prompt, best first."""
    import pyarrow.compute as pc

    from dalle_datasets.store.parquet import open_parquet

    best: dict[str, list[dict[str, Any]]] = {}
    with open_parquet(layout.root / made["generations"]) as file:
        for batch in file.iter_batches(columns=["generation_id", "prompt_id", "prompt", "clip_score", "rank", "image_path"]):
            for row in batch.filter(pc.less_equal(batch["rank"], keep)).to_pylist():
                best.setdefault(row["prompt_id"], []).append(row)
    for rows in best.values():
        yield from sorted(rows, key=lambda row: int(row["rank"]))


def copy_best(layout: "Layout", made: Mapping[str, Any], keep: int, output: Path, alone: bool) -> None:
    """Copy the best pictures under names that say what they show. Two prompts may begin alike: their ids tell them apart."""
    import shutil

    output.mkdir(parents=True, exist_ok=True)
    num_copies = 0
    for row in best_rows(layout, made, keep):
        source = layout.root / row["image_path"]
        name = _file_name(row["prompt"]) + ("" if alone else f"-{row['prompt_id'][:8]}")
        copy = output / f"{name}-{row['rank']}{source.suffix}"
        shutil.copyfile(source, copy)
        num_copies += 1
        if alone:
            typer.echo(f"{copy}  clip_score={row['clip_score']:.3f}  generation_id={row['generation_id']}")
    if not alone:
        typer.echo(f"{num_copies:,} pictures copied to {output}")


def print_batch(layout: "Layout", made: Mapping[str, Any]) -> None:
    """What a batch made and what it left out."""
    typer.echo(f"{made['num_images']:,} pictures for {made['num_prompts']:,} prompts: {layout.root / made['contact_sheet']}")
    typer.echo(f"tokens, scores, seeds and ranks: {layout.root / made['generations']}")
    if made["dropped"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in made["dropped"].items())
        typer.echo(f"left out: {reasons}; why: {layout.root / made['dropped_prompts']}")


def show_best(layout: "Layout", made: Mapping[str, Any], keep: int) -> None:
    """Draw the best pictures side by side on a terminal; a file or a pipe would get blocks without colours."""
    from rich.columns import Columns
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal or console.color_system is None:
        console.print("--show draws in colours on a terminal, and there is none here; the pictures are in the files above")
        return
    rows = list(islice(best_rows(layout, made, keep), SHOWN))
    console.print(Columns([draw_in_terminal(layout.root / row["image_path"]) for row in rows], padding=(0, 1)))


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


def _file_name(prompt: str) -> str:
    import re

    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "picture"
