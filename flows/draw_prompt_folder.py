"""Flow: a batch of pictures for every file of prompts that somebody drops into a folder."""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from dalle_datasets.store.layout import Layout, open_data_root
from dalle_model.config.tree import Config
from dalle_model.running.networks import current
from flows.runtime.best_pictures import copy_best_pictures
from flows.runtime.deployed import crash_without_server, no_catching_up
from flows.runtime.flow_parameters import Overrides, Preset
from flows.runtime.names import run_name
from flows.runtime.parameters import config_from_parameters
from flows.runtime.progress import note
from flows.runtime.prompts import ask_for
from flows.runtime.tasks import catalogue, publish_catalog, run_stage
from flows.runtime.upstream import inputs_of

KINDS = (".txt", ".csv", ".jsonl", ".parquet")
"""Endings of files of prompts; others are left alone."""

SETTLED_S = 10.0
"""A file that changed less than so long ago may still be growing; it is drawn next time."""

KEPT = 4
"""Pictures of each prompt that are copied: the best. All of them stay in the data root."""

BATCH = "batch.json"


@flow(name="draw-prompt-folder", flow_run_name=run_name)
@crash_without_server
@no_catching_up
def draw_prompt_folder(preset: Preset = "demo", overrides: Overrides | None = None) -> dict[str, str]:
    """Draw every file of `flow.prompt_folder` that has no pictures of the present networks. Returns file name -> run.

    While there is no network to draw with, as in the first nights of a site, files wait and a note says so.

    `NAME.csv` gets a folder `NAME.csv.pictures` with the best pictures and the contact sheet, or a file `NAME.csv.error.txt` with the
    reason, which goes when the file is mended. Raises `ValueError` with the reasons that are new, when all other files are drawn.
    """
    config = config_from_parameters(preset, overrides)
    folder = prompt_folder(config)
    drawn, wrong = {}, []
    for path in prompt_files(folder):
        error_path = path.with_name(f"{path.name}.error.txt")
        try:
            asked = choose_file(config, path)
        except ValueError as error:
            if not error_path.exists() or error_path.read_text() != f"{error}\n":
                error_path.write_text(f"{error}\n")
                wrong.append(str(error))
            continue
        error_path.unlink(missing_ok=True)
        try:
            inputs = inputs_of("generate_images", config, **asked)
        except ValueError as missing:
            if current(open_data_root(config.paths.data_root), "transformer", config):
                raise
            note(f"{path.name} waits: {missing}")
            continue
        made = run_stage("generate_images", config, inputs)
        drawn[path.name] = made["run_id"]
        if not is_copied(path, made):
            catalogue(config, made)
            copy_pictures(open_data_root(config.paths.data_root), made, path)
            publish_catalog(config)
    if wrong:
        raise ValueError("; ".join(wrong))
    return drawn


@task(task_run_name="read {path.name}", cache_policy=NO_CACHE)
def choose_file(config: Config, path: Path) -> dict[str, str]:
    """Write the prompts of a file to the data root; returns the inputs that name them. Raises `ValueError` for a file that is broken."""
    return ask_for(config, prompts_file=str(path))


def prompt_folder(config: Config) -> Path:
    """The folder, made when it is not there."""
    folder = open_data_root(config.paths.data_root).root / config.flow.prompt_folder
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def prompt_files(folder: Path) -> list[Path]:
    """Files of prompts that are not being written any more, by name."""
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in KINDS and path.is_file() and not path.name.startswith(".")]
    growing = [path for path in found if time.time() - path.stat().st_mtime < SETTLED_S]
    for path in growing:
        note(f"{path.name} has just changed; it is drawn next time")
    return [path for path in found if path not in growing]


def is_copied(path: Path, made: Mapping[str, Any]) -> bool:
    """Whether the pictures beside a file of prompts are those of this run."""
    try:
        return bool(json.loads((_pictures_of(path) / BATCH).read_text())["run_id"] == made["run_id"])
    except (OSError, ValueError, KeyError):
        return False


def copy_pictures(layout: Layout, made: Mapping[str, Any], path: Path) -> None:
    """Put the best pictures, the contact sheet and `batch.json` beside a file of prompts, in the place of older ones."""
    output = _pictures_of(path)
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    copy_best_pictures(layout, made, KEPT, partial, alone=False)
    sheet = layout.root / made["contact_sheet"]
    shutil.copyfile(sheet, partial / sheet.name)
    (partial / BATCH).write_text(json.dumps(made, indent=1, sort_keys=True))
    shutil.rmtree(output, ignore_errors=True)
    partial.rename(output)


def _pictures_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.pictures")
