"""Flow: let one more CLIP score and rank pictures that exist, so that scorers stand side by side."""

from typing import Any

from prefect import flow

from flows.runtime.deployed import crash_without_server
from flows.runtime.flow_parameters import Overrides, Preset
from flows.runtime.names import run_name
from flows.runtime.parameters import config_from_parameters
from flows.runtime.scorers import score_batch
from flows.runtime.tasks import catalogue, run_stage


@flow(name="score-generations", flow_run_name=run_name)
@crash_without_server
def score_generations(
    preset: Preset = "demo", overrides: Overrides | None = None, generations_run: str | None = None, clip: str = ""
) -> dict[str, Any]:
    """Score the pictures of the run `generations_run` (the newest if not given) with `clip`.

    That is `MODEL/TAG` of open_clip, `local-dir:PATH`, a `train-clip-…` run, or the CLIP of these settings. Returns the result.
    """
    config = config_from_parameters(preset, overrides)
    made = score_batch(config, generations_run, clip, run_stage)
    catalogue(config, *made)
    return {"score_generations": made[-1]}
