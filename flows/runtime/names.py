"""Names of runs: the stage, the source and the size, so that a list of them can be read."""

import json
from pathlib import Path

from prefect.runtime import flow_run

from dalle_datasets.store.layout import RUN_CONFIG
from dalle_model.config.tree import Config
from flows.runtime.parameters import config_from_parameters

_OF_TRANSFORMER = ("train-transformer", "retrain-networks", "generate-images", "draw-prompt-folder", "evaluate-model", "run-pipeline")


def run_name() -> str:
    """`train-transformer birds small 64px 12x512` for the current flow run: flow, source, preset, picture, layers x width."""
    flow, given = str(flow_run.flow_name), flow_run.parameters
    try:
        config = config_from_parameters(given["preset"], given.get("overrides"))
    except (ValueError, KeyError):  # the flow says what is wrong
        return flow
    return " ".join([flow, *_about(config, flow)])


def job_name(run_dir: Path) -> str:
    """`train-dvae-0aa3b7c0da45 birds small 64px` for a job's run directory."""
    try:
        config = json.loads((run_dir / RUN_CONFIG).read_text())["config"]
        return f"{run_dir.name} {config['source']['name']} {config['preset']} {config['dvae']['image_size']}px"
    except (OSError, ValueError, KeyError, TypeError):  # the flow says what is wrong
        return run_dir.name


def current_job_name() -> str:
    """`job_name` of the current run of `run_job`."""
    return job_name(Path(flow_run.parameters["run_dir"]))


def _about(config: Config, flow: str) -> list[str]:
    size = [f"{config.transformer.num_layers}x{config.transformer.d_model}"] if flow in _OF_TRANSFORMER else []
    return [config.source.name, config.preset, f"{config.dvae.image_size}px", *size]
