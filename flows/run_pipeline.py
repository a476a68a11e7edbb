"""Flow: everything, from web pages to reranked pictures. `dalle demo` runs it at the demo preset."""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from dalle_datasets.catalog.runs import log_stage_times
from dalle_datasets.store.layout import open_data_root
from dalle_model.config.generation import RERANKER
from dalle_model.config.tree import Config
from flows.collect_pairs import collect_pairs
from flows.evaluate_model import evaluate_model
from flows.generate_images import generate_images
from flows.report import write_report
from flows.runtime.artifacts import show_in_prefect
from flows.runtime.deployed import crash_without_server
from flows.runtime.flow_parameters import Overrides, Preset, Refresh
from flows.runtime.names import run_name
from flows.runtime.parameters import config_from_parameters
from flows.runtime.pipeline_result import pipeline_id, save_pipeline
from flows.runtime.progress import watched
from flows.runtime.stage_times import StageTime, collected_times, timed, write_stage_times
from flows.runtime.tasks import ingest_in_catalog, publish_catalog
from flows.score_pairs import score_pairs
from flows.tokenize_pairs import tokenize_pairs
from flows.train_clip import train_clip
from flows.train_tokenizers import train_tokenizers
from flows.train_transformer import train_transformer


@flow(name="run-pipeline", flow_run_name=run_name)
@crash_without_server
def run_pipeline(preset: Preset = "demo", overrides: Overrides | None = None, refresh: Refresh = False) -> dict[str, Any]:
    """Run every stage that has not been run with these settings. Returns what was made, the figures and the stage times.

    With `refresh` the source is asked first what changed since. The networks are those that these settings and the
    present pairs make, whichever are current.
    """
    asked = overrides
    overrides = {**(overrides or {}), "networks.chosen_by": "settings"}
    config = config_from_parameters(preset, overrides)
    layout = open_data_root(config.paths.data_root)
    started = datetime.now(UTC)
    results: dict[str, Any] = {}
    with collected_times() as times:
        results |= collect_pairs(preset, overrides, refresh)
        results |= train_tokenizers(preset, overrides)
        results |= tokenize_pairs(preset, overrides)
        results |= train_clip(preset, overrides)
        results |= score_pairs(preset, overrides)
        results |= train_transformer(preset, overrides)
        results |= generate_images(preset, overrides)
        if config.source.kind == "emoji_scenes" or config.evaluate.evaluator != RERANKER:
            results |= evaluate_model(preset, overrides)
        catalogue_stage_times(config, f"{pipeline_id(config)}-{started:%Y%m%dT%H%M%S}", times)
        publish_catalog(config)
        report = write_html_report(config)
    account = {
        "pipeline_id": pipeline_id(config),
        "preset": preset,
        "overrides": dict(asked or {}),
        "results": results,
        "stage_times": [asdict(record) for record in times],
        "duration_s": round(time.time() - started.timestamp(), 1),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "report": report,
        "catalog": layout.relative(layout.published_catalog),
    }
    save_pipeline(layout, config, account)
    show_in_prefect(layout, account)
    return account


@task(task_run_name="catalogue stage times", cache_policy=NO_CACHE)
def catalogue_stage_times(config: Config, execution: str, times: list[StageTime]) -> None:
    """The stages so far, as a file and as rows."""
    layout = open_data_root(config.paths.data_root)
    write_stage_times(layout.stage_times(execution), times)
    ingest_in_catalog(config, "catalogue stage times", lambda con: log_stage_times(con, layout, layout.stage_times(execution)))


@task(task_run_name="write report", cache_policy=NO_CACHE)
def write_html_report(config: Config) -> str:
    """The gallery; returns its path relative to the data root."""
    layout = open_data_root(config.paths.data_root)
    with timed("report"), watched("report"):
        return layout.relative(write_report(layout, config))
