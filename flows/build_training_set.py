"""Flow: choose pairs by a named recipe with parameters, and write them as a training set, without training on it."""

from prefect import flow

from flows.runtime.deployed import crash_without_server
from flows.runtime.flow_parameters import Overrides, Preset
from flows.runtime.names import run_name
from flows.runtime.parameters import config_from_parameters
from flows.train_transformer import choose_training_set


@flow(name="build-training-set", flow_run_name=run_name)
@crash_without_server
def build_training_set(
    preset: Preset = "demo", overrides: Overrides | None = None, recipe: str = "", params: dict[str, str] | None = None
) -> dict[str, str]:
    """Run a recipe of `sql/training_sets/` with its parameters. Returns the id of the training set and its folder."""
    return choose_training_set(config_from_parameters(preset, overrides), recipe, params)
