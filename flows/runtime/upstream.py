"""Inputs of a stage: the results of the stages before it, found by the settings.

A run directory is named by everything that decides its result, so the configuration leads from stage to stage:
pairs -> vocabulary -> ... -> transformer. A network is the one that is current for the settings, whatever pairs
it was made from, unless `networks.chosen_by=settings`. A flow that is started by itself finds its inputs here, or
is told which flow makes them.
"""

import json
import re
from pathlib import Path

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.manifest import result_of
from dalle_model.config.networks import ROLES
from dalle_model.config.tree import Config
from dalle_model.running.networks import current, inputs_of_run
from dalle_model.running.registry import JOBS, MADE_BY, find_job
from dalle_model.running.run_dir import read_result, run_directory
from dalle_model.running.starts import start_inputs
from flows.runtime.collected import check_collected
from flows.runtime.jobs import lost_files


class NoNetworkYet(ValueError):
    """No network has been trained for these settings; the message names the flow that does."""


FLOW_OF = {
    "pairs": "collect_pairs",
    "training_set": "train_transformer",
    **{kind: JOBS[job].flow for kind, (job, _) in MADE_BY.items()},
}
"""Kind of artefact -> the flow that makes it."""


def inputs_of(job: str, config: Config, **given: str) -> dict[str, str]:
    """Inputs of a job for `prepare`, plus `given`, and the network that a training begins from.

    Raises `ValueError` naming the flow to run when one is not there yet.
    """
    inputs = dict(given)
    for kind in find_job(job).reads:
        if kind not in inputs:
            inputs |= find(kind, config)
        if kind == "transformer":  # draws the tokens of the dVAE that it was trained with, whichever is current
            inputs = {**_trained_with(config, inputs), **inputs}
    return {**start_inputs(Layout(Path(config.paths.data_root).expanduser()), job, config), **inputs}


def find(kind: str, config: Config) -> dict[str, str]:
    """`{kind: path, kind_id: id}` of the artefact that these settings lead to. Raises `ValueError` when there is none."""
    layout = Layout(Path(config.paths.data_root).expanduser())
    if kind == "pairs":
        return _find_pairs(layout, config)
    if kind == "training_set":
        return _find_training_set(layout, config)
    if kind in ROLES and config.networks.chosen_by == "registry" and (serving := current(layout, kind, config)):
        if not (layout.root / serving.path).exists():
            raise ValueError(
                f"the current {kind} {serving.network_id} is gone: {serving.path} does not exist under {layout.root}; choose another "
                f"with `dalle networks use {kind} ID`, or train it again: {_remedy(kind)}"
            )
        return {kind: serving.path, f"{kind}_id": serving.network_id}
    job, path_key = MADE_BY[kind]
    run_dir = run_directory(job, config, inputs_of(job, config))
    result = read_result(run_dir)
    if result is None:
        error = NoNetworkYet if kind in ROLES else ValueError
        raise error(f"there is no {kind} for these settings yet ({run_dir} has no result.json); {_remedy(kind)}")
    if lost := lost_files(layout, result):
        raise ValueError(f"the {kind} of {run_dir} is gone: {lost[0]} does not exist; {_remedy(kind)}")
    return {name: result[key] for name, key in ((kind, path_key), (f"{kind}_id", f"{kind}_id")) if key in result}


def _find_pairs(layout: Layout, config: Config) -> dict[str, str]:
    folder = layout.pairs(config.source.name)
    pairs_id = result_of(folder).get("pairs_id")
    if not pairs_id:
        raise ValueError(f"{folder} holds no finished collection of pairs; {_remedy('pairs')}")
    if config.flow.check_pairs:
        check_collected(layout, config)
    return {"pairs": layout.relative(folder), "pairs_id": pairs_id}


def _trained_with(config: Config, inputs: dict[str, str]) -> dict[str, str]:
    """The dVAE and the tokenizer that the transformer of some inputs was trained with.

    Raises `ValueError` when `networks.use` names another one: their tokens mean nothing to it.
    """
    trained = inputs_of_run((Path(config.paths.data_root).expanduser() / inputs["transformer"]).parent)
    for role, network_id in config.networks.named():
        if role in ("dvae", "tokenizer") and trained.get(f"{role}_id", network_id) != network_id:
            raise ValueError(
                f"transformer {inputs['transformer_id']} was trained with {role} {trained[f'{role}_id']}, not {network_id}; "
                f"leave {role}={network_id} out, or name a transformer that was trained with it"
            )
    names = [name for kind in ("dvae", "tokenizer") for name in (kind, f"{kind}_id")]
    return {name: trained[name] for name in names if name in trained}


def _find_training_set(layout: Layout, config: Config) -> dict[str, str]:
    """The export whose manifest names our pairs, networks and settings."""
    wanted = {kind: find(kind, config)[f"{kind}_id"] for kind in ("tokenizer", "dvae", "clip", "pairs")}
    limits = {"max_nsfw_score": config.catalog.max_nsfw_score, "max_watermark_score": config.catalog.max_watermark_score}
    manifests = sorted((layout.root / "training_sets").glob("*/manifest.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in manifests:
        manifest = json.loads(path.read_text())
        settings = manifest["parameters"]
        asks_for_safety = "safety" in manifest["inputs"]  # else a classifier's scores were there and nobody asked for them
        if asks_for_safety and (config.safety_classifier == "none" or any(settings[name] != limit for name, limit in limits.items())):
            continue
        safety = {"safety": find("safety", config)["safety_id"]} if asks_for_safety else {}
        if (
            manifest["inputs"] == {**wanted, **safety}
            and manifest["query"] == config.catalog.training_set
            and settings["min_clip_score_quantile"] == config.catalog.min_clip_score_quantile
            and settings["seed"] == config.seed
        ):
            return {"training_set": manifest["path"], "training_set_id": manifest["training_set_id"]}
    raise ValueError(f"{layout.root / 'training_sets'} holds no training set for these settings; {_remedy('training_set')}")


def find_named_training_set(training_set_id: str, config: Config) -> dict[str, str]:
    """`{training_set: path, training_set_id: id}` of a training set that is there, by whatever recipe it was made.

    Raises `ValueError` for an unknown one, and for one whose tokens are not those of the networks in use.
    """
    layout = Layout(Path(config.paths.data_root).expanduser())
    path = layout.training_set(training_set_id) / "manifest.json"
    if not re.fullmatch(r"[0-9a-f]+", training_set_id) or not path.exists():
        raise ValueError(f"training set {training_set_id} does not exist under {layout.root}; `dalle query training_sets` lists them")
    manifest = json.loads(path.read_text())
    for role in ("tokenizer", "dvae"):
        if (used := find(role, config)[f"{role}_id"]) != (made_with := manifest[f"{role}_id"]):
            raise ValueError(
                f"training set {training_set_id} has tokens of {role} {made_with}, but {used} is in use; add --with {role}={made_with}"
            )
    return {"training_set": manifest["path"], "training_set_id": training_set_id}


def _remedy(kind: str) -> str:
    return f"run `dalle run {FLOW_OF[kind]}` with the same settings, or `dalle demo` for everything"
