"""The precision of a training, settled before it begins and then kept: a run that is continued elsewhere rounds as it began."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from dalle_model.config.training import TrainConfig
from dalle_model.precision import Precision, autocast, available_precision, faster_precision
from dalle_model.training.distribute import Batch, ComputeLoss
from dalle_model.training.parallel import World, sum_numbers

PRECISION_FILE = "precision.json"

Settings = TypeVar("Settings", bound=TrainConfig)


def settle_precision(
    config: Settings, model: nn.Module, batches: Callable[[int], Iterable[Batch]], compute_loss: ComputeLoss, run_dir: Path, world: World
) -> Settings:
    """The settings with a precision that the device has. `auto` is decided by updates of the first batch, once in a run.

    Random numbers and weights are left as they are. All processes take what the first one finds.
    """
    precision: Precision = config.precision
    if precision == "auto":
        path = run_dir / PRECISION_FILE
        is_settled = sum_numbers({"is_settled": float(world.is_main and path.exists())}, world)["is_settled"] > 0
        if not is_settled:
            precision = faster_precision(_update(config, model, batches, compute_loss, world), world.device)
        elif world.is_main:
            precision = json.loads(path.read_text())["precision"]
        kinds: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
        votes = sum_numbers({kind: float(world.is_main and kind == precision) for kind in kinds}, world)
        precision = max(kinds, key=lambda kind: votes[kind])
        if world.is_main:
            partial = path.with_name(path.name + ".partial")
            partial.write_text(json.dumps({"precision": precision}))
            partial.replace(path)
    return replace(config, precision=available_precision(precision, world.device))


def _update(
    config: TrainConfig, model: nn.Module, batches: Callable[[int], Iterable[Batch]], compute_loss: ComputeLoss, world: World
) -> Callable[[Precision], None]:
    """Forward and backward pass of as many pairs as are computed at a time."""
    if world.device.type == "cuda":
        return lambda precision: None  # nobody measures there
    batch = next(iter(batches(0)))
    micro = max(1, config.microbatch_size // world.size) if config.microbatch_size else len(next(iter(batch.values())))
    part = {name: value[:micro] for name, value in batch.items()}

    def run(precision: Precision) -> None:
        with torch.random.fork_rng(devices=[]):
            with autocast(precision, world.device):
                loss = compute_loss(model, part, 0)["loss"]
            loss.backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)

    return run
