"""Flow: choose the training set by a query, and train the transformer on it."""

from collections.abc import Mapping
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from dalle_datasets.catalog.connection import open_published
from dalle_datasets.catalog.ingest import ingest_training_set
from dalle_datasets.catalog.snapshot import publish
from dalle_datasets.catalog.training_sets import export_training_set
from dalle_datasets.store.layout import open_data_root
from dalle_model.config.tree import Config
from flows.runtime.artifacts import show_training
from flows.runtime.deployed import announce, crash_without_server
from flows.runtime.flow_parameters import Overrides, Preset
from flows.runtime.names import run_name
from flows.runtime.parameters import config_from_parameters
from flows.runtime.progress import note
from flows.runtime.stage_times import timed
from flows.runtime.tasks import catalogue, ingest_in_catalog, run_stage
from flows.runtime.upstream import find, find_named_training_set, inputs_of


@flow(name="train-transformer", flow_run_name=run_name)
@crash_without_server
def train_transformer(preset: Preset = "demo", overrides: Overrides | None = None, training_set: str = "") -> dict[str, Any]:
    """Export the training set and train on it, or on `training_set`, the id of one that is there.

    Returns the result and the training set.
    """
    config = config_from_parameters(preset, overrides)
    chosen = find_named_training_set(training_set, config) if training_set else choose_training_set(config)
    transformer = run_stage("train_transformer", config, inputs_of("train_transformer", config, **chosen))
    catalogue(config, transformer)
    show_training(config, transformer)
    announce("transformer", preset, overrides)
    return {"train_transformer": transformer, **chosen}


@task(task_run_name="choose training set", cache_policy=NO_CACHE)
def choose_training_set(config: Config, recipe: str = "", params: Mapping[str, str] | None = None) -> dict[str, str]:
    """Run a query of `sql/training_sets/` on the published copy and write what it selects to Parquet, while others write.

    Without `recipe` the query is `catalog.training_set`.
    Raises `ValueError` naming the flow to run when some pairs have no tokens or scores of the networks in use yet.
    """
    layout = open_data_root(config.paths.data_root)
    kinds = ["pairs", "tokenizer", "dvae", "clip"] + (["safety"] if config.safety_classifier != "none" else [])
    for kind in ("text_tokens", "image_tokens", "clip_scores"):
        find(kind, config)  # else pairs without tokens or scores would be left out, and nobody would know
    ids = {f"{kind}_id": find(kind, config)[f"{kind}_id"] for kind in kinds}
    with timed("choose training set"):
        publish(layout, config.catalog.lock_timeout_s, note)
        with open_published(layout) as con:
            chosen = export_training_set(
                con,
                layout,
                query=recipe or config.catalog.training_set,
                min_clip_score_quantile=config.catalog.min_clip_score_quantile,
                max_nsfw_score=config.catalog.max_nsfw_score,
                max_watermark_score=config.catalog.max_watermark_score,
                seed=config.seed,
                rows_per_part=config.shards.rows_per_part,
                row_group_size=config.shards.row_group_size,
                params=params,
                **ids,
            )
        ingest_in_catalog(config, f"catalogue training set {chosen.id}", lambda con: ingest_training_set(con, layout, chosen.id))
    return {"training_set": chosen.path, "training_set_id": chosen.id}
