"""Flow: make pictures for prompts and let CLIP put them in order."""

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from dalle_datasets.layout import open_data_root
from dalle_datasets.prompt_files import read_prompts
from dalle_datasets.prompts import own_prompts, scene_prompts, validation_prompts, write_prompts
from dalle_model.config.tree import Config
from flows.runtime.parameters import Overrides, config_from_parameters
from flows.runtime.tasks import catalogue, run_job
from flows.runtime.upstream import find, inputs_of


@flow(name="generate-images", flow_run_name="generate-images-{preset}")
def generate_images(
    preset: str = "demo", overrides: Overrides | None = None, prompts: list[str] | None = None, prompts_file: str | None = None
) -> dict[str, Any]:
    """Make `sampling.num_images` pictures for each prompt: `prompts`, or those of a `.txt`, `.csv`, `.jsonl` or `.parquet` file.

    Without either, for the prompts the source comes with. Returns the result.
    """
    config = config_from_parameters(preset, overrides)
    made = run_job("generate_images", config, inputs_of("generate_images", config, **choose_prompts(config, prompts, prompts_file)))
    catalogue(config, made)
    return {"generate_images": made}


@task(task_run_name="choose prompts", cache_policy=NO_CACHE)
def choose_prompts(config: Config, prompts: list[str] | None, prompts_file: str | None = None) -> dict[str, str]:
    """Write the prompts to a file; returns its path and id. Raises `ValueError` when both ways of giving them are used."""
    layout = open_data_root(config.paths.data_root)
    if prompts is not None and prompts_file is not None:
        raise ValueError("prompts and prompts_file are both given; choose one")
    if prompts is not None:
        table = own_prompts(prompts)
    elif prompts_file is not None:
        table = read_prompts(prompts_file)
    elif config.source.kind == "emoji_scenes":
        table = scene_prompts(config.source, config.evaluate.num_prompts)
    else:
        table = validation_prompts(layout.root / find("pairs", config)["pairs"], config.evaluate.num_prompts)
    path, prompts_id = write_prompts(layout, table)
    return {"prompts": layout.relative(path), "prompts_id": prompts_id}
