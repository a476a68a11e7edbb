"""`dalle prepare`: a run directory that torchrun or sbatch starts on a machine with `open-dalle[train]` alone."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Preset, Settings, resolve


def prepare(
    job: Annotated[str, typer.Argument(help="The job, e.g. train_transformer.")],
    preset: Preset = "demo",
    settings: Settings = None,
    prompts: Annotated[str, typer.Option(metavar="FILE", help="For generate_images: .txt, .csv, .jsonl or .parquet.")] = "",
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="Copy the run and its inputs there, to be carried elsewhere.")] = None,
) -> None:
    """Prepare the run that a flow would start with the same settings, with a start.sh for bash or sbatch, and print its directory.

    A machine with `open-dalle[train]` alone has the same command as `python -m dalle_model.jobs prepare`.
    """
    from dalle_model.running.preparing import how_to_start, prepare_run
    from dalle_model.running.registry import find_job
    from flows.runtime.upstream import find

    config = resolve(preset, settings)
    inputs = {kind: find(kind, config)[kind] for kind in find_job(job).reads}
    run_dir = prepare_run(config, job, inputs, prompts, to)
    typer.echo(str(run_dir))
    typer.echo(how_to_start(run_dir), err=True)
