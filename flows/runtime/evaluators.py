"""The CLIP that measures pictures, and what it takes to measure them: never the CLIP that ranked them, unless
that is asked for."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dalle_datasets.store.identity import identity
from dalle_datasets.store.layout import RUN_CONFIG, open_data_root
from dalle_model.config.generation import RERANKER, TRAIN
from dalle_model.config.parsing import from_dict
from dalle_model.config.tree import Config
from dalle_model.running.networks import inputs_of_run
from dalle_model.running.registry import find_job
from dalle_model.running.run_dir import read_result, run_directory
from flows.runtime.scorers import RunJob
from flows.runtime.upstream import find

ROLE = {"role": "evaluator"}
"""The input that makes `train_clip` train or import an evaluator."""


def is_measured(config: Config) -> bool:
    """Whether figures are made: always, but for the demo's scenes without an evaluator, which have a
    checker."""
    return config.source.kind != "emoji_scenes" or config.evaluate.evaluator != RERANKER


def measuring_inputs(config: Config, generated: Mapping[str, Any], run_job: RunJob) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The inputs of `evaluate` for figures of a batch, and the results of the jobs that were run for them.

    The evaluator is trained or imported, unless it is there, and looks at the pictures. Raises `ValueError`
    when it is the CLIP that ranked them and that was not asked for.
    """
    layout = open_data_root(config.paths.data_root)
    drawn_with = inputs_of_run(layout.run(generated["run_id"]))
    networks = {name: drawn_with[name] for name in ("dvae", "dvae_id", "clip_id")}
    inputs = {**networks, **find("pairs", config), "image_embeddings": generated["image_embeddings"]}
    trained_with = inputs_of_run((layout.root / drawn_with["transformer"]).parent)
    inputs |= {name: trained_with[name] for name in ("training_set", "training_set_id") if name in trained_with}
    if (scores := layout.clip_scores(drawn_with["clip_id"])).is_dir():
        inputs["clip_scores"] = layout.relative(scores)
    if config.evaluate.evaluator == RERANKER:
        own = {"evaluator": drawn_with["clip"], "evaluator_id": drawn_with["clip_id"]}
        return {**inputs, **own, "evaluator_embeddings": generated["image_embeddings"]}, []
    made = find_evaluator(config, drawn_with, run_job)
    if made["evaluator_id"] == drawn_with["clip_id"]:
        raise ValueError(
            f"evaluate.evaluator={config.evaluate.evaluator} is CLIP {drawn_with['clip_id']}, which ranked the pictures of "
            f"{generated['run_id']}: judged by it they look better than they are; name another CLIP, or evaluate.evaluator={RERANKER} to "
            "see its figures all the same"
        )
    pictures = {"generations": generated["generations"], "generations_run": generated["run_id"]}
    scored = run_job("score_generations", config, {**pictures, "clip": made["checkpoint"], "clip_id": made["evaluator_id"]})
    own = {"evaluator": made["checkpoint"], "evaluator_id": made["evaluator_id"]}
    return {**inputs, **own, "evaluator_embeddings": scored["image_embeddings"]}, [made, scored]


def find_evaluator(config: Config, drawn_with: Mapping[str, str], run_job: RunJob) -> dict[str, Any]:
    """The result of the run that made the evaluator.

    A trained one measures as long as its settings, dVAE and tokenizer stay, whatever pairs have come since:
    it is a yardstick, and a pair's split follows from its picture. Raises `ValueError` when training it would
    give the CLIP that ranks once more.
    """
    if config.evaluate.evaluator != TRAIN:
        published = replace(config, clip=replace(config.clip, pretrained=config.evaluate.evaluator))
        return run_job("train_clip", published, ROLE)
    if config.clip.pretrained:
        raise ValueError(
            f"clip.pretrained={config.clip.pretrained} is not trained, so evaluate.evaluator={TRAIN} would be the CLIP that ranks; name "
            "another published one, e.g. evaluate.evaluator=ViT-L-14/openai"
        )
    networks = {name: drawn_with[name] for name in ("tokenizer", "tokenizer_id", "dvae", "dvae_id")}
    inputs = {**find("pairs", config), **networks, **ROLE}
    return kept_evaluator(config, inputs) or run_job("train_clip", config, inputs)


def kept_evaluator(config: Config, inputs: Mapping[str, str]) -> dict[str, Any] | None:
    """The newest finished evaluator with these settings and inputs, whatever the pairs; None when there is
    none."""
    layout = open_data_root(config.paths.data_root)
    if (result := read_result(run_directory("train_clip", config, inputs))) is not None:
        return result
    wanted = {name: value for name, value in inputs.items() if name != "pairs_id"}
    found = []
    for path in layout.root.glob("runs/train-clip-*/result.json"):
        result, run_dir = read_result(path.parent), path.parent
        own = {name: value for name, value in inputs_of_run(run_dir).items() if name != "pairs_id"}
        if result is None or own != wanted or not (layout.root / result["checkpoint"]).exists():
            continue
        if _made_with(run_dir / RUN_CONFIG, config):
            found.append(result)
    return max(found, key=lambda result: float(result["started_at"]), default=None)


def _made_with(path: Path, config: Config) -> bool:
    try:
        made_with = from_dict(Config, json.loads(path.read_text())["config"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    sections = find_job("train_clip").sections
    same = all(identity(getattr(made_with, name)) == identity(getattr(config, name)) for name in sections)
    return same and made_with.seed == config.seed
