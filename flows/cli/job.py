"""`dalle job`: one job by hand, exactly as a flow would start it."""

from pathlib import Path
from typing import Annotated

import typer


def job(
    name: Annotated[str, typer.Argument(help="The job, e.g. train_dvae; the run directory's config.json says which.")],
    run_dir: Annotated[Path, typer.Argument(help="A run directory, e.g. data/runs/train-dvae-0aa3b7c0da45; `dalle status` lists them.")],
    num_processes: Annotated[
        int,
        typer.Option(min=1, help="Processes, one per GPU: under torchrun in trainings, side by side in tokenising, scoring, generating."),
    ] = 1,
) -> None:
    """Run a job in its run directory and print its result; an interrupted one goes on where it was.

    Tokenising, scoring and generating are shared by all processes that run the same job in the same run directory, on any
    machine that sees it.
    """
    import json

    from dalle_model.running.run_dir import open_run, read_result
    from flows.cli.display import on_terminal
    from flows.runtime.jobs import start_job

    open_run(name, run_dir)
    result = read_result(run_dir)
    if result is None:
        with on_terminal():
            result = start_job(name, run_dir, num_processes)
    typer.echo(json.dumps(result, indent=1))
