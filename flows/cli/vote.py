"""`dalle vote`: ask people which of two models draws better, and count."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve

if TYPE_CHECKING:
    from dalle_datasets.store.layout import Layout

app = typer.Typer(help="Ask people which of two models draws better, after the paper's protocol, and count.", no_args_is_help=True)


@app.command("page")
def page(
    first: Annotated[str, typer.Argument(help="A generate-images-… run, or a folder with a metadata.csv (file_name, caption).")],
    second: Annotated[str, typer.Argument(help="Another one, for the same prompts.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("vote.html"),
    num_prompts: Annotated[int, typer.Option(min=1, max=2_000, help="Prompts to ask about.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the order, and of which picture stands left.")] = 0,
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Write one page that shows blind pairs of the best pictures for the same prompts, asks which looks more realistic and which matches
    the caption, and saves the votes as a file. Send it to five people, and `dalle vote read` what they send back.
    """
    from dalle_datasets.store.layout import open_data_root
    from dalle_datasets.store.parquet import atomic_path
    from dalle_datasets.votes import make_ballot
    from flows.report.ballot import ballot_page

    layout = open_data_root(resolve(preset, settings, config_file).paths.data_root)
    rows = make_ballot(layout, (first, second), (best_pictures(layout, first), best_pictures(layout, second)), num_prompts, seed)
    with atomic_path(output) as partial:
        partial.write_text(ballot_page(rows, layout.root), encoding="utf-8")
    typer.echo(f"{output}: {len(rows)} pairs, two questions each; next: dalle vote read votes-*.json")


@app.command("read")
def read(
    files: Annotated[list[Path], typer.Argument(help="Files that voters saved.")],
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Keep votes in the data root, each voter's newest; `dalle query human_votes` counts majorities."""
    from dalle_datasets.catalog.snapshot import publish
    from dalle_datasets.store.layout import open_data_root
    from dalle_datasets.votes import read_votes
    from flows.runtime.progress import note

    config = resolve(preset, settings, config_file)
    layout = open_data_root(config.paths.data_root)
    for path in files:
        ballot_id, num_votes = read_votes(layout, path)
        typer.echo(f"{path}: {num_votes:,} votes on ballot {ballot_id}")
    publish(layout, config.catalog.lock_timeout_s, note)
    typer.echo("the table: dalle query human_votes")


def best_pictures(layout: "Layout", name: str) -> dict[str, str]:
    """Prompt -> path of its best picture, under the data root or absolute. Raises `ValueError` when there are none."""
    import csv

    from dalle_datasets.store.parquet import read_parquet
    from dalle_datasets.store.schemas import GENERATIONS
    from flows.runtime.scorers import find_batch

    metadata = Path(name).expanduser() / "metadata.csv"
    if metadata.exists():
        with metadata.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("file_name") and row.get("caption")]
        found = {row["caption"]: metadata.parent / row["file_name"] for row in rows}
        if outside := [path for path in found.values() if not path.resolve().is_relative_to(metadata.parent.resolve())]:
            raise ValueError(f"{metadata} names {outside[0]}, which lies outside of its folder; put the pictures into it")
        return {caption: str(path.resolve()) for caption, path in found.items()}
    batch = find_batch(layout, name)
    table = read_parquet(layout.root / batch["generations"], GENERATIONS, ["prompt", "rank", "image_path"])
    return {row["prompt"]: row["image_path"] for row in table.to_pylist() if row["rank"] == 1}
