"""Flow: judge the pictures for the source's own prompts: do they show what was asked for?

The demo's scenes are known exactly, so a strict checker compares object, colour, background and layout. Of
other sources, and with `evaluate.evaluator` of the demo's, too, a CLIP that did not choose the pictures
measures them.
"""

from typing import Any

from prefect import flow

from dalle_model.running.run_dir import read_result, run_directory
from flows.generate_images import choose_prompts
from flows.runtime.deployed import crash_without_server
from flows.runtime.evaluators import is_measured, measuring_inputs
from flows.runtime.flow_parameters import Overrides, Preset
from flows.runtime.names import run_name
from flows.runtime.parameters import config_from_parameters
from flows.runtime.tasks import catalogue, run_stage
from flows.runtime.upstream import inputs_of


@flow(name="evaluate-model", flow_run_name=run_name)
@crash_without_server
def evaluate_model(preset: Preset = "demo", overrides: Overrides | None = None) -> dict[str, Any]:
    """Judge the pictures that `generate_images` made for the source's own prompts. Returns the result.

    Raises `ValueError` when there are none yet.
    """
    config = config_from_parameters(preset, overrides)
    prompts = choose_prompts(config, None)
    run_dir = run_directory("generate_images", config, inputs_of("generate_images", config, **prompts))
    generated = read_result(run_dir)
    if generated is None:
        raise ValueError(
            f"there are no pictures for these settings yet ({run_dir} has no result.json); run `dalle run generate_images` first"
        )
    inputs = {"generations": generated["generations"], "generations_run": generated["run_id"], **prompts}
    made: list[dict[str, Any]] = []
    if is_measured(config):
        more, made = measuring_inputs(config, generated, run_stage)
        inputs |= more
    judged = run_stage("evaluate", config, inputs)
    catalogue(config, *made, judged)
    return {"evaluate": judged}
