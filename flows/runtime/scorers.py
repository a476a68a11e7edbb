"""Let one more CLIP rank pictures that exist: which pictures, which CLIP, and the two jobs that it takes."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dalle_datasets.store.layout import Layout
from dalle_model.config.tree import Config
from dalle_model.running.run_dir import read_result
from flows.runtime.upstream import find

RunJob = Callable[[str, Config, Mapping[str, str]], dict[str, Any]]
LOCAL = "local-dir:"


def score_batch(config: Config, generations_run: str | None, clip: str, run_job: RunJob) -> list[dict[str, Any]]:
    """Score a batch of pictures with one more CLIP; returns the results of the jobs that ran, the scores last.

    `generations_run` is a run directory's name, or None for the newest batch. `clip` is `MODEL/TAG` of open_clip, `local-dir:PATH`, the
    name of a `train-clip-…` run, or "" for the one of these settings. Raises `ValueError` when the pictures or the CLIP are not there:
    nothing is ever ranked by random weights.
    """
    layout = Layout(Path(config.paths.data_root).expanduser())
    batch = find_batch(layout, generations_run)
    pictures = {"generations": batch["generations"], "generations_run": batch["run_id"]}
    made = []
    if not clip:
        scorer = find("clip", config)
    elif clip.startswith("train-clip-"):
        scorer = _checkpoint(_result(layout, clip))
    elif clip.startswith(LOCAL) or "/" in clip:
        made.append(run_job("train_clip", replace(config, clip=replace(config.clip, pretrained=clip)), {}))
        scorer = _checkpoint(made[0])
    else:
        raise ValueError(f"clip {clip!r} is neither MODEL/TAG of open_clip, nor {LOCAL}PATH, nor a train-clip-… run; choose one of these")
    made.append(run_job("score_generations", config, {**pictures, **scorer}))
    return made


def find_batch(layout: Layout, run_id: str | None) -> dict[str, Any]:
    """The result of a finished batch of pictures, the newest if none is named. Raises `ValueError` when there is none."""
    if run_id is not None:
        named = _result(layout, run_id)
        if "generations" not in named:
            raise ValueError(f"{run_id} made no pictures: it is a run of {named['job']}; name a generate-images-… run")
        return named
    results = [read_result(folder) for folder in layout.root.glob("runs/generate-images-*")]
    found = [result for result in results if result is not None]
    if not found:
        raise ValueError(f"{layout.root / 'runs'} holds no finished batch of pictures; make one with `dalle generate`")
    return max(found, key=lambda result: float(result["started_at"]))


def _result(layout: Layout, run_id: str) -> dict[str, Any]:
    result = read_result(layout.run(run_id))
    if result is None:
        raise ValueError(f"{layout.run(run_id)} holds no result.json; correct the name, or let that run finish first")
    return result


def _checkpoint(trained: Mapping[str, Any]) -> dict[str, str]:
    return {"clip": trained["checkpoint"], "clip_id": trained["clip_id"]}
