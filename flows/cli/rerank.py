"""`dalle rerank`: a second opinion on pictures that exist."""

from typing import Annotated

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve


def rerank(
    run_id: Annotated[str | None, typer.Argument(help="The batch: a generate-images-… run; the newest if not given.")] = None,
    clip: Annotated[
        str, typer.Option(help="MODEL/TAG of open_clip, local-dir:PATH, or a train-clip-… run; the settings' own CLIP if not given.")
    ] = "",
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Let one more CLIP score and rank the pictures of a batch; its ranks stand beside those that are there."""
    from dalle_datasets.store.layout import open_data_root
    from flows.cli.display import on_terminal
    from flows.runtime.run import catalogue, execute_job
    from flows.runtime.scorers import find_batch, score_batch

    config = resolve(preset, settings, config_file)
    layout = open_data_root(config.paths.data_root)
    batch = find_batch(layout, run_id)
    with on_terminal():
        made = score_batch(config, batch["run_id"], clip, execute_job)
        catalogue(config, batch, *made)
    scores = made[-1]
    typer.echo(f"{scores['num_scores']:,} scores by clip {scores['clip_id']}: {layout.root / scores['rerank_scores']}")
    typer.echo(f"side by side: dalle query scorers --param run_id={batch['run_id']}")
