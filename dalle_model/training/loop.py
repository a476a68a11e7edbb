"""The training loop that dVAE, CLIP and transformer share.

Everything random in an update is a pure function of (seed, step), and batches are a pure function of the
step, so a training that was killed and started again computes the same numbers as one that was not.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dalle_model.config.training import TrainConfig
from dalle_model.training.checkpoint import load_training_state, save_training_state
from dalle_model.training.metrics import MetricsLog
from dalle_model.training.optim import MovingAverage, PlateauHalving, build_optimizer, learning_rate_at
from dalle_model.training.parallel import World, average_gradients, average_numbers, join_world, share_weights

Batch = Mapping[str, Tensor]


class Report(Protocol):
    """How progress leaves the loop: `dalle_model.jobs.progress.report_progress`."""

    def __call__(self, done: int, total: int, unit: str, **numbers: float) -> None: ...


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a finished training reached."""

    step: int
    train: dict[str, float]
    """Means of the last logged window."""
    validation: dict[str, float]
    """The last look at the validation split, with the weights that are kept."""


def train(
    *,
    model: nn.Module,
    config: TrainConfig,
    batches: Callable[[int], Iterable[Batch]],
    compute_loss: Callable[[nn.Module, Batch, int], Mapping[str, Tensor]],
    run_dir: Path,
    seed: int,
    report: Report,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    show: Callable[[nn.Module, int], None] | None = None,
) -> TrainResult:
    """Train `model` in place, continuing from the newest checkpoint of `run_dir` if there is one.

    `batches(step)` yields this process's batches from update `step` on, each a mapping of tensors whose first axis is the
    batch. `compute_loss(model, batch, step)` returns scalars: "loss", which is minimised, and further figures to log.
    `validate(model)` returns figures of the validation split; "loss" among them drives the `plateau` schedule.
    `show(model, step)` is called after it, in the first process only, for what is not a number, such as pictures.
    When it returns, `model` holds the weights to keep: the moving average if one is configured.
    Raises `ValueError` when the loss is not finite.
    """
    world = join_world()
    model.to(world.device)
    optimizer = build_optimizer(model, config)
    average = MovingAverage(model, config.ema_decay) if config.ema_decay else None
    scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "fp16")
    plateau, step, window = PlateauHalving(), 0, Window()
    resumed = load_training_state(run_dir, model, optimizer)
    if resumed:
        state, average_weights = resumed
        step, plateau, window = state["step"], PlateauHalving(**state["plateau"]), Window(**state["window"])
        if average is not None and average_weights is not None:
            average.load(average_weights)
        scaler.load_state_dict(state["scaler"])
    share_weights(model, world)
    log = MetricsLog(run_dir / "metrics.jsonl", step if resumed else -1) if world.is_main else None
    last: dict[str, float] = {}
    validation: dict[str, float] = {}

    def look() -> None:
        if validate is None:
            return
        with _kept_weights(model, average), torch.no_grad():
            model.eval()
            torch.manual_seed(mix(seed, 0))
            validation.update(average_numbers(dict(validate(model)), world))
            if show is not None and world.is_main:
                show(model, step)
        if "loss" in validation:
            plateau.look(validation["loss"])
        if log:
            log.log(step, "validation", validation)

    if step == 0:
        look()
    model.train()
    started = time.monotonic()
    iterator: Iterator[Batch] = iter(batches(step))
    while step < config.max_steps:
        rate = learning_rate_at(step, config, plateau.factor)
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(mix(seed, step * world.size + world.rank + 1))
        figures = _update(model, optimizer, scaler, config, compute_loss, next(iterator), step, world)
        step += 1
        if average is not None and step % config.ema_every == 0:
            average.update(model, step // config.ema_every)
        window.add(figures)
        if step % config.log_every == 0 or step == config.max_steps:
            last = average_numbers(window.means(), world)
            window = Window()
            if not math.isfinite(last["loss"]):
                raise ValueError(
                    f"the loss became {last['loss']} at step {step} in {run_dir}; "
                    "lower the learning rate, or delete the newest checkpoint to continue from an earlier one"
                )
            if log:
                log.log(step, "train", {**last, "learning_rate": rate})
                report(step, config.max_steps, "steps", loss=last["loss"], steps_per_s=step / max(1e-9, time.monotonic() - started))
        if step % config.validate_every == 0 or step == config.max_steps:
            look()
            model.train()
        if step % config.checkpoint_every == 0 and step < config.max_steps and world.is_main:
            saved: dict[str, Any] = {"plateau": asdict(plateau), "window": asdict(window), "scaler": scaler.state_dict()}
            save_training_state(run_dir, step, model, optimizer, average.weights if average else None, saved, config.keep_checkpoints)
    if average is not None:
        average.copy_to(model)
    model.eval()
    if log:
        log.close()
    return TrainResult(step=step, train=last, validation=validation)


def mix(seed: int, step: int) -> int:
    """A seed for one update: well spread, and different for neighbouring seeds and steps."""
    value = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    value ^= value >> 31
    return (value * 0xD6E8FEB86659FD93 & 0xFFFFFFFFFFFFFFFF) >> 1


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Matrix products in bf16 or fp16; nothing for fp32."""
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, kinds[precision]) if precision in kinds else nullcontext()


@dataclass(slots=True)
class Window:
    """Sums of figures since the last logged step; part of a checkpoint, so that logged means do not depend on a crash."""

    num_steps: int = 0
    sums: dict[str, float] | None = None

    def add(self, figures: Mapping[str, float]) -> None:
        """Take in one update's figures."""
        sums = self.sums or {}
        self.sums = {name: sums.get(name, 0.0) + value for name, value in figures.items()}
        self.num_steps += 1

    def means(self) -> dict[str, float]:
        """Means over the window."""
        return {name: value / self.num_steps for name, value in (self.sums or {}).items()}


def _update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: TrainConfig,
    compute_loss: Callable[[nn.Module, Batch, int], Mapping[str, Tensor]],
    batch: Batch,
    step: int,
    world: World,
) -> dict[str, float]:
    """One optimiser update over the microbatches of a batch; returns the mean figures."""
    optimizer.zero_grad(set_to_none=True)
    size = len(next(iter(batch.values())))
    micro = min(size, max(1, config.microbatch_size // world.size)) if config.microbatch_size else size
    figures: dict[str, float] = {}
    for start in range(0, size, micro):
        part = {name: value[start : start + micro].to(world.device, non_blocking=True) for name, value in batch.items()}
        share = len(next(iter(part.values()))) / size
        with autocast(config.precision, world.device):
            losses = compute_loss(model, part, step)
        scaler.scale(losses["loss"] * share).backward()  # type: ignore[no-untyped-call]
        for name, value in losses.items():
            figures[name] = figures.get(name, 0.0) + float(value.detach()) * share
    average_gradients(model, world)
    if config.clip_norm:
        scaler.unscale_(optimizer)
        figures["gradient_norm"] = float(nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm))
    scaler.step(optimizer)
    scaler.update()
    return figures


class _kept_weights:  # noqa: N801 - reads as a verb phrase where it is used
    """Within the block the model holds the moving average, afterwards its own weights again."""

    def __init__(self, model: nn.Module, average: MovingAverage | None) -> None:
        self.model, self.average = model, average
        self.before: dict[str, Tensor] | None = None

    def __enter__(self) -> None:
        if self.average is not None:
            self.before = self.average.copy_to(self.model)

    def __exit__(self, *_: object) -> None:
        if self.before is not None:
            self.model.load_state_dict(self.before)
