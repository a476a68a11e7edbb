"""Weights on disk: published checkpoints (`save_weights`) and the state from which a training continues.

Tensors are safetensors or `torch.load(weights_only=True)`: reading a checkpoint never runs code from it.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dalle_model.training.fitting import fit_weights

WEIGHTS, CONFIG, OPTIMIZER, AVERAGE, STATE = "model.safetensors", "config.json", "optimizer.pt", "ema.safetensors", "state.json"


def save_weights(directory: Path, kind: str, module: nn.Module, config: Mapping[str, Any]) -> str:
    """Write `model.safetensors` and `config.json`; returns the id, 12 hex digits of config and weights.

    The folder appears whole or not at all.
    """
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({name: value.detach().contiguous().cpu() for name, value in module.state_dict().items()}, partial / WEIGHTS)
    weights_sha256 = _sha256(partial / WEIGHTS)
    identity = hashlib.sha256(json.dumps([kind, config, weights_sha256], sort_keys=True).encode()).hexdigest()[:12]
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
    if _sha256(weights) != saved["weights_sha256"]:
        raise ValueError(
            f"{weights} does not match the SHA-256 in {CONFIG}: it is damaged or was replaced; train or import the {kind} again"
        )
    return saved["config"], load_file(weights), saved["id"]


def save_training_state(
    run_dir: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor] | None,
    state: Mapping[str, Any],
    keep: int,
) -> None:
    """Write `checkpoints/step-NNNNNN` after `step` updates and delete all but the newest `keep`."""
    root = run_dir / "checkpoints"
    final, partial = root / f"step-{step:06d}", root / f"step-{step:06d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}, partial / WEIGHTS)
    torch.save(optimizer.state_dict(), partial / OPTIMIZER)
    if average is not None:
        save_file({name: value.contiguous().cpu() for name, value in average.items()}, partial / AVERAGE)
    hashes = {path.name: _sha256(path) for path in sorted(partial.iterdir())}
    (partial / STATE).write_text(json.dumps({"step": step, "sha256": hashes, **state}, indent=1))
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for old in list_training_states(run_dir)[:-keep]:
        shutil.rmtree(old)


def save_batch(path: Path, batch: Mapping[str, Tensor]) -> None:
    """Keep one batch for inspection; `safetensors.torch.load_file` reads it."""
    save_file({name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in batch.items()}, path)


def list_training_states(run_dir: Path) -> list[Path]:
    """Whole training checkpoints, oldest first."""
    return sorted(path for path in (run_dir / "checkpoints").glob("step-*") if path.suffix != ".partial")


def load_training_state(
    run_dir: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, Tensor] | None] | None:
    """Continue from the newest checkpoint: fills model and optimizer, returns its state and the moving average.

    None when there is no checkpoint. Raises `ValueError` when its files are damaged.
    """
    states = list_training_states(run_dir)
    if not states:
        return None
    newest = states[-1]
    state = json.loads((newest / STATE).read_text())
    for name, expected in state["sha256"].items():
        if not (newest / name).exists() or _sha256(newest / name) != expected:
            raise ValueError(
                f"{newest / name} does not match the SHA-256 in {STATE}; delete {newest} to continue from the checkpoint before it"
            )
    remedy = "a run directory belongs to one configuration: delete its checkpoints, or prepare another run"
    fit_weights(model, load_file(newest / WEIGHTS), newest, remedy)
    optimizer.load_state_dict(torch.load(newest / OPTIMIZER, weights_only=True, map_location="cpu"))
    return state, load_file(newest / AVERAGE) if (newest / AVERAGE).exists() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
