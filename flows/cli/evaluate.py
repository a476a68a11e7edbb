"""`dalle evaluate`: how good are the pictures of this data root?"""

from typing import Annotated

import typer

from flows.cli.options import ConfigFile, Preset, Settings, parse_settings, resolve


def evaluate(
    evaluator: Annotated[
        str,
        typer.Option(
            help="CLIP that judges: train (a second one, which takes as long as the first), MODEL/TAG of open_clip, local-dir:PATH, or "
            "reranker (the one that chose, whose figures are too good). Else evaluate.evaluator, and train where that is reranker."
        ),
    ] = "",
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Measure the pictures for the source's own prompts: retrieval among 100 captions, distances to real
    pictures, copies, and more.

    Figures have 95% intervals and stand beside chance and real pictures. They are kept (`dalle query
    evaluation`) and shown in the gallery, which is written again. What was measured is not measured again; a
    killed command goes on.
    """
    from dalle_datasets.catalog.snapshot import publish
    from dalle_datasets.store.layout import open_data_root
    from dalle_model.config.generation import RERANKER, TRAIN
    from dalle_model.config.settings_file import overrides_of
    from flows.cli.demo import run_with_prefect
    from flows.cli.summary import print_figures
    from flows.report import write_report
    from flows.runtime.parameters import config_from_parameters
    from flows.runtime.progress import note

    config = resolve(preset, settings, config_file)
    asked = evaluator or config.evaluate.evaluator
    if asked == RERANKER and not evaluator and "evaluate.evaluator" not in parse_settings(settings):
        asked = TRAIN
    config = config_from_parameters(config.preset, {**overrides_of(config), "evaluate.evaluator": asked})
    layout = open_data_root(config.paths.data_root)
    made = run_with_prefect("evaluate_model", config)["evaluate"]
    publish(layout, config.catalog.lock_timeout_s, note)
    print_figures(layout, made)
    typer.echo(f"gallery  {write_report(layout, config).resolve().as_uri()}")
