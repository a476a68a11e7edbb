"""Published weights: safetensors and a config, so that reading them never runs code from them.

The states from which a training continues are `dalle_model.training.checkpoints`.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dalle_datasets.store.ids import file_sha256

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_weights(directory: Path, kind: str, weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    """Write `model.safetensors` and `config.json`; returns the id, 12 hex digits of config and weights.

    The folder appears whole or not at all.
    """
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({name: value.detach().contiguous().cpu() for name, value in weights.items()}, partial / WEIGHTS)
    weights_sha256 = file_sha256(partial / WEIGHTS)
    identity = _identity(kind, config, weights_sha256)
    saved = {"kind": kind, "id": identity, "config": config, "weights_sha256": weights_sha256}
    (partial / CONFIG).write_text(json.dumps(saved, indent=1, sort_keys=True))
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)
    return identity


def load_weights(directory: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Config, weights and id of a checkpoint folder. Raises `ValueError` when it is missing, of another kind, or damaged."""
    try:
        saved = json.loads((directory / CONFIG).read_text())
    except FileNotFoundError:
        raise ValueError(f"{directory} holds no {kind} checkpoint ({CONFIG} is missing); train one first or correct the path") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{directory / CONFIG}: not valid JSON ({error}); train or import the {kind} again") from error
    if saved.get("kind") != kind:
        raise ValueError(f"{directory} holds a {saved.get('kind')} checkpoint, expected a {kind} checkpoint; correct the path")
    weights = directory / WEIGHTS
    if not weights.exists():
        raise ValueError(f"{weights} is missing; train or import the {kind} again")
    if file_sha256(weights) != saved["weights_sha256"]:
        raise ValueError(
            f"{weights} does not match the SHA-256 in {CONFIG}: it is damaged or was replaced; train or import the {kind} again"
        )
    return saved["config"], load_file(weights), saved["id"]


def copy_weights(source: Path, directory: Path) -> None:
    """Copy a checkpoint folder, which appears whole or not at all."""
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)


def load_start(directory: Path, kind: str, expected_id: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights of the checkpoint that a training begins from.

    Raises `ValueError`, besides what `load_weights` does, when it is not the one that `expected_id` names, whatever its config.json
    claims, and when a weight is no number.
    """
    config, weights, _ = load_weights(directory, kind)
    found = _identity(kind, config, file_sha256(directory / WEIGHTS))
    if found != expected_id:
        raise ValueError(
            f"{directory} holds {kind} {found}, not {expected_id} that the training was to begin from: it was changed or "
            f"exchanged; import or train the {kind} again"
        )
    check_finite(weights, directory)
    return config, weights


def check_finite(weights: Mapping[str, Tensor], where: Path) -> None:
    """Raises `ValueError` naming the first tensor with a value that is not a number or infinite."""
    for name, value in weights.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(
                f"{where}: {name} holds values that are no numbers (NaN or infinity); the network is damaged: take another copy"
            )


def _identity(kind: str, config: Mapping[str, Any], weights_sha256: str) -> str:
    return hashlib.sha256(json.dumps([kind, config, weights_sha256], sort_keys=True).encode()).hexdigest()[:12]


def save_batch(path: Path, batch: Mapping[str, Tensor]) -> None:
    """Keep one batch for inspection; `safetensors.torch.load_file` reads it."""
    save_file({name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in batch.items()}, path)
