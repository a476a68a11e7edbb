"""Flow: every pair's caption and picture as tokens. Text tokens go to the catalog, image tokens stay in Parquet."""

from typing import Any

from prefect import flow

from dalle_datasets.store.layout import open_data_root
from flows.runtime.deployed import announce, crash_without_server, leave_to_training, no_catching_up
from flows.runtime.flow_parameters import Overrides, Preset
from flows.runtime.names import run_name
from flows.runtime.parameters import config_from_parameters
from flows.runtime.stage_artifacts import show_tokens
from flows.runtime.tasks import catalogue, run_stage
from flows.runtime.upstream import NoNetworkYet, inputs_of


@flow(name="tokenize-pairs", flow_run_name=run_name)
@crash_without_server
@no_catching_up
def tokenize_pairs(preset: Preset = "demo", overrides: Overrides | None = None) -> dict[str, Any]:
    """Tokenise all pairs that lack tokens. Returns both results; none where `retrain_networks` is to make the first networks."""
    config = config_from_parameters(preset, overrides)
    try:
        inputs = {job: inputs_of(job, config) for job in ("tokenize_images", "tokenize_captions")}
    except NoNetworkYet as missing:
        leave_to_training("tokens", missing, preset, overrides)
        return {}
    images, captions = (run_stage(job, config, found) for job, found in inputs.items())
    catalogue(config, images, captions)
    show_tokens(open_data_root(config.paths.data_root), images)
    announce("tokens", preset, overrides)
    return {"tokenize_images": images, "tokenize_captions": captions}
