"""Flow: the CLIP that scores pairs and reranks pictures."""

from typing import Any

from prefect import flow

from flows.runtime.artifacts import show_training
from flows.runtime.deployed import crash_without_server
from flows.runtime.flow_parameters import Overrides, Preset
from flows.runtime.names import run_name
from flows.runtime.parameters import config_from_parameters
from flows.runtime.tasks import catalogue, run_stage
from flows.runtime.upstream import inputs_of


@flow(name="train-clip", flow_run_name=run_name)
@crash_without_server
def train_clip(preset: Preset = "demo", overrides: Overrides | None = None) -> dict[str, Any]:
    """Train CLIP on the collected pairs. Returns its result."""
    config = config_from_parameters(preset, overrides)
    clip = run_stage("train_clip", config, inputs_of("train_clip", config))
    catalogue(config, clip)
    show_training(config, clip)
    return {"train_clip": clip}
