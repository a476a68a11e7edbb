"""Flow: judge the demo's pictures with the strict checker: do object, colour, background and layout agree with the prompt?"""

from typing import Any

from prefect import flow

from dalle_model.running.run_dir import read_result, run_directory
from flows.generate_images import choose_prompts
from flows.runtime.parameters import Overrides, config_from_parameters
from flows.runtime.tasks import catalogue, run_stage
from flows.runtime.upstream import inputs_of


@flow(name="evaluate-model", flow_run_name="evaluate-model-{preset}")
def evaluate_model(preset: str = "demo", overrides: Overrides | None = None) -> dict[str, Any]:
    """Judge the pictures that `generate_images` made for the source's own prompts. Returns the result.

    Raises `ValueError` when there are none yet, or when the prompts have no known content to compare with.
    """
    config = config_from_parameters(preset, overrides)
    if config.source.kind != "emoji_scenes":
        raise ValueError(f"source.kind={config.source.kind} has no checker: only the scenes of source.kind=emoji_scenes are known exactly")
    prompts = choose_prompts(config, None)
    run_dir = run_directory("generate_images", config, inputs_of("generate_images", config, **prompts))
    generated = read_result(run_dir)
    if generated is None:
        raise ValueError(
            f"there are no pictures for these settings yet ({run_dir} has no result.json); run `dalle run generate_images` first"
        )
    judged = run_stage("evaluate", config, {"generations": generated["generations"], "generations_run": generated["run_id"], **prompts})
    catalogue(config, judged)
    return {"evaluate": judged}
