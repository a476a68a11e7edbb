"""`dalle export-pairs`: pairs with their bytes, for other programs or another data root."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli.options import ConfigFile, Preset, Settings, parse_params, resolve

Form = Literal["webdataset", "parquet", "hf"]


def export_pairs(
    folder: Annotated[Path, typer.Argument(help="Folder to write: new, empty, or an older export, which is replaced.")],
    recipe: Annotated[str, typer.Option(help="A file of sql/pair_sets/: collected_pairs or pairs_of_training_set.")] = "collected_pairs",
    params: Annotated[list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="For the recipe; may be repeated.")] = None,
    form: Annotated[Form, typer.Option("--format", "-f", help="Tars, Parquet, or Parquet as Hugging Face stores pictures.")] = "webdataset",
    rows_per_shard: Annotated[int, typer.Option(min=1, help="Most pairs in a file.")] = 10_000,
    max_shard_mb: Annotated[int, typer.Option(min=1, help="A file ends when its pictures reach this size.")] = 1_024,
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Write pairs with pictures, captions, ids, licences and scores, chosen from the published catalog by a recipe with parameters.

    \b
    dalle export-pairs birds/ --param licences=CC0-1.0,CC-BY-4.0 --format hf
    dalle export-pairs best/ --param min_clip_score=0.3 --param split=train

    A killed export goes on where it was; the same command again brings the folder up to date, so that what was forgotten leaves it too.
    """
    from dalle_datasets.catalog import pair_exports
    from dalle_datasets.store.layout import find_data_root
    from dalle_datasets.store.parquet import atomic_path
    from flows.cli.display import on_terminal
    from flows.report.pairs_card import render_pairs_card
    from flows.runtime.progress import reporter, watched

    layout = find_data_root(resolve(preset, settings, config_file).paths.data_root)
    folder = folder.expanduser()
    with on_terminal(), watched("export pairs") as stage:
        made = pair_exports.export_pairs(
            layout, folder, form=form, recipe=recipe, params=parse_params(params), rows_per_shard=rows_per_shard,
            max_shard_bytes=max_shard_mb << 20, report=reporter(stage),
        )  # fmt: skip
    with atomic_path(folder / "README.md") as partial:
        partial.write_text(render_pairs_card(made, form, recipe))
    typer.echo(
        f"{folder}  export {made.export_id}, {made.num_pairs:,} pairs in {made.num_shards} files, {made.num_bytes / 1e6:,.1f} MB"
        + ("; everything was there already" if made.was_there else "")
    )
