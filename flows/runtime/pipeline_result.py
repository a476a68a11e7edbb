"""The result of a finished pipeline, kept in a file that lets the next one end at once."""

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from importlib import metadata
from typing import Any

from dalle_datasets.store.identity import fingerprint, identity
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.manifest import result_of
from dalle_datasets.store.parquet import atomic_path
from dalle_model.config.parsing import to_dict
from dalle_model.config.tree import Config
from dalle_model.running.registry import JOBS
from flows.runtime.collected import collection_versions
from flows.runtime.jobs import lost_files


def pipeline_id(config: Config) -> str:
    """Fingerprint of everything that decides what the pipeline makes, but for where and how it is made."""
    sections = {name: getattr(config, name) for name in to_dict(config) if name not in ("paths", "networks", "flow")}
    settings = {name: identity(section) if is_dataclass(section) else section for name, section in sections.items()}
    settings = {name: values for name, values in settings.items() if values != {}}  # a section that came later and is not used
    versions = {**collection_versions(), **{name: job.version for name, job in JOBS.items()}}
    return fingerprint("run_pipeline", metadata.version("open-dalle"), versions, settings)


def finished_pipeline(layout: Layout, config: Config) -> dict[str, Any] | None:
    """The account of a finished pipeline with these settings, if its files and the pairs it began with are all still there."""
    try:
        account: dict[str, Any] = json.loads(layout.pipeline(pipeline_id(config)).read_text())
        if result_of(layout.pairs(config.source.name))["pairs_id"] != account["results"]["filter"]["pairs_id"]:
            return None  # collected again since, with other settings or from pages that have changed
    except (OSError, ValueError, KeyError):
        return None
    lost = [path for result in (account, *account["results"].values()) if isinstance(result, dict) for path in lost_files(layout, result)]
    return None if lost else account


def save_pipeline(layout: Layout, config: Config, account: Mapping[str, Any]) -> None:
    """Say that the pipeline ended well. Written last."""
    with atomic_path(layout.pipeline(pipeline_id(config))) as partial:
        partial.write_text(json.dumps(account, indent=1, sort_keys=True))
