"""Flow: every pair's caption and picture as tokens. Text tokens go to the catalog, image tokens stay in Parquet."""

from typing import Any

from prefect import flow

from flows.runtime.deployed import announce, no_catching_up
from flows.runtime.parameters import Overrides, config_from_parameters
from flows.runtime.tasks import catalogue, run_stage
from flows.runtime.upstream import inputs_of


@flow(name="tokenize-pairs", flow_run_name="tokenize-pairs-{preset}")
@no_catching_up
def tokenize_pairs(preset: str = "demo", overrides: Overrides | None = None) -> dict[str, Any]:
    """Tokenise all pairs that lack tokens. Returns both results."""
    config = config_from_parameters(preset, overrides)
    images = run_stage("tokenize_images", config, inputs_of("tokenize_images", config))
    captions = run_stage("tokenize_captions", config, inputs_of("tokenize_captions", config))
    catalogue(config, images, captions)
    announce("tokens", preset, overrides)
    return {"tokenize_images": images, "tokenize_captions": captions}
