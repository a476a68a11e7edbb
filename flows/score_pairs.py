"""Flow: how well every caption fits its picture, according to CLIP, and how safe the picture is, if that is asked for."""

from typing import Any

from prefect import flow

from flows.runtime.deployed import announce, leave_to_training, no_catching_up
from flows.runtime.parameters import Overrides, config_from_parameters
from flows.runtime.tasks import catalogue, run_stage
from flows.runtime.upstream import NoNetworkYet, inputs_of


@flow(name="score-pairs", flow_run_name="score-pairs-{preset}")
@no_catching_up
def score_pairs(preset: str = "demo", overrides: Overrides | None = None) -> dict[str, Any]:
    """Score all pairs. Which score is good enough is decided later, by the training set's query. Returns the results, as
    `tokenize_pairs` does.
    """
    config = config_from_parameters(preset, overrides)
    try:
        inputs = inputs_of("score_pairs", config)
    except NoNetworkYet as missing:
        leave_to_training("scores", missing, preset, overrides)
        return {}
    scores = run_stage("score_pairs", config, inputs)
    catalogue(config, scores)
    results = {"score_pairs": scores}
    if config.safety_classifier != "none":
        results["score_safety"] = run_stage("score_safety", config, inputs_of("score_safety", config))
        catalogue(config, results["score_safety"])
    announce("scores", preset, overrides)
    return results
