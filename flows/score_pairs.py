"""Flow: how well every caption fits its picture, according to CLIP, and how safe the picture is, if that is asked for."""

from typing import Any

from prefect import flow

from dalle_datasets.store.layout import open_data_root
from flows.runtime.deployed import announce, crash_without_server, leave_to_training, no_catching_up
from flows.runtime.flow_parameters import Overrides, Preset
from flows.runtime.names import run_name
from flows.runtime.parameters import config_from_parameters
from flows.runtime.stage_artifacts import show_safety, show_scores
from flows.runtime.tasks import catalogue, run_stage
from flows.runtime.upstream import NoNetworkYet, inputs_of


@flow(name="score-pairs", flow_run_name=run_name)
@crash_without_server
@no_catching_up
def score_pairs(preset: Preset = "demo", overrides: Overrides | None = None) -> dict[str, Any]:
    """Score all pairs. Which score is good enough is decided later, by the training set's query. Returns the results, as
    `tokenize_pairs` does.
    """
    config = config_from_parameters(preset, overrides)
    layout = open_data_root(config.paths.data_root)
    try:
        inputs = inputs_of("score_pairs", config)
    except NoNetworkYet as missing:
        leave_to_training("scores", missing, preset, overrides)
        return {}
    scores = run_stage("score_pairs", config, inputs)
    catalogue(config, scores)
    show_scores(layout, scores)
    results = {"score_pairs": scores}
    if config.safety_classifier != "none":
        results["score_safety"] = run_stage("score_safety", config, inputs_of("score_safety", config))
        catalogue(config, results["score_safety"])
        show_safety(layout, results["score_safety"])
    announce("scores", preset, overrides)
    return results
