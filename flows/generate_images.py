"""Flow: make pictures for prompts and let CLIP put them in order."""

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from dalle_datasets.store.layout import open_data_root
from dalle_model.config.tree import Config
from flows.runtime.deployed import announce, crash_without_server
from flows.runtime.flow_parameters import Overrides, Preset
from flows.runtime.names import run_name
from flows.runtime.parameters import config_from_parameters
from flows.runtime.prompts import ask_for
from flows.runtime.stage_artifacts import show_pictures
from flows.runtime.tasks import catalogue, run_stage
from flows.runtime.upstream import inputs_of


@flow(name="generate-images", flow_run_name=run_name)
@crash_without_server
def generate_images(
    preset: Preset = "demo",
    overrides: Overrides | None = None,
    prompts: list[str] | None = None,
    prompts_file: str | None = None,
    prompts_query: str | None = None,
) -> dict[str, Any]:
    """Make `sampling.num_images` pictures for each prompt: `prompts`, those of a `.txt`, `.csv`, `.jsonl`, `.parquet` or `.sql` file, or
    the rows of a query on the published catalog.

    Without any of these, for the prompts the source comes with. Returns the result.
    """
    config = config_from_parameters(preset, overrides)
    asked = choose_prompts(config, prompts, prompts_file, prompts_query)
    made = run_stage("generate_images", config, inputs_of("generate_images", config, **asked))
    catalogue(config, made)
    show_pictures(open_data_root(config.paths.data_root), made)
    if prompts is None and prompts_file is None and prompts_query is None:
        announce("pictures", preset, overrides)
    return {"generate_images": made}


@task(task_run_name="choose prompts", cache_policy=NO_CACHE)
def choose_prompts(
    config: Config, prompts: list[str] | None = None, prompts_file: str | None = None, prompts_query: str | None = None
) -> dict[str, str]:
    """Write the prompts to files; returns their paths and id. Raises `ValueError` when they are given in more than one way."""
    return ask_for(config, prompts, prompts_file, prompts_query)
