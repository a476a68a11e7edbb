"""The training loop that dVAE, CLIP and transformer share.

Everything random in an update is a pure function of (seed, step), and batches are a pure function of the
step, so a training that was killed and started again computes the same numbers as one that was not.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dalle_model.config.training import TrainConfig
from dalle_model.training.checkpoint import load_training_state, save_batch, save_training_state, save_weights
from dalle_model.training.gradient_scales import BranchScaler
from dalle_model.training.metrics import MetricsLog
from dalle_model.training.optim import MovingAverage, PlateauHalving, build_optimizer, learning_rate_at
from dalle_model.training.parallel import World, average_gradients, average_numbers, join_world, share_weights
from dalle_model.training.speed import Speed, append_speed

Batch = Mapping[str, Tensor]
Scaler = torch.amp.GradScaler | BranchScaler


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
    flops_per_pair: float = 0.0,
    scaler: Scaler | None = None,
) -> TrainResult:
    """Train `model` in place, continuing from the newest checkpoint of `run_dir` if there is one.

    `batches(step)` yields this process's batches from update `step` on, each a mapping of tensors whose first axis is the
    batch. `compute_loss(model, batch, step)` returns scalars: "loss", which is minimised, and further figures to log.
    `validate(model)` returns figures of the validation split; "loss" among them drives the `plateau` schedule.
    `show(model, step)` is called after it, in the first process only, for what is not a number, such as pictures.
    `flops_per_pair`, the work of one pair forward and backward, gives speed.jsonl the model FLOPs utilisation.
    `scaler` takes the place of one scale for all gradients in fp16.
    `checkpoints/best` has the weights of the look with the least validation loss, beside the newest states.
    When it returns, `model` holds the weights to keep: the moving average if one is configured.
    Raises `ValueError` when the loss or the gradient is not finite, and leaves the batch in the run directory.
    """
    world = join_world()
    model.to(world.device)
    optimizer = build_optimizer(model, config)
    average = MovingAverage(model, config.ema_decay) if config.ema_decay else None
    if scaler is None:
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
            best_before = plateau.best
            plateau.look(validation["loss"])
            if world.is_main and plateau.best < best_before:
                with _kept_weights(model, average):
                    save_weights(run_dir / "checkpoints" / "best", "best", model, {"step": step, **validation})
        if log:
            log.log(step, "validation", validation)

    if step == 0:
        look()
    model.train()
    speed = Speed(world.device, flops_per_pair, is_low_precision=config.precision != "fp32")
    iterator: Iterator[Batch] = iter(batches(step))
    while step < config.max_steps:
        rate = learning_rate_at(step, config, plateau.factor)
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(mix(seed, step * world.size + world.rank + 1))
        with speed.waiting():
            batch = next(iterator)
        figures = _update(model, optimizer, scaler, config, compute_loss, batch, step, world)
        step += 1
        speed.add(len(next(iter(batch.values()))))
        _check_finite(figures, batch, config, step, run_dir, world)
        if average is not None and step % config.ema_every == 0:
            average.update(model, step // config.ema_every)
        window.add(figures)
        if step % config.log_every == 0 or step == config.max_steps:
            last = average_numbers(window.means(), world)
            window = Window()
            rates = speed.take()
            if log:
                log.log(step, "train", {**last, "learning_rate": rate})
                append_speed(run_dir / "speed.jsonl", step, {**rates, "num_processes": world.size})
                report(step, config.max_steps, "steps", loss=last["loss"], steps_per_s=rates["steps_per_s"])
        if step % config.validate_every == 0 or step == config.max_steps:
            look()
            model.train()
        if step % config.checkpoint_every == 0 and step < config.max_steps:
            # The means over all processes, since any number of them may continue from here.
            window.sums = window.sums and average_numbers(window.sums, world)
            if world.is_main:
                saved: dict[str, Any] = {"plateau": asdict(plateau), "window": asdict(window), "scaler": scaler.state_dict()}
                weights = average.weights if average else None
                save_training_state(run_dir, step, model, optimizer, weights, saved, config.keep_checkpoints)
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
    scaler: Scaler,
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


def _check_finite(figures: Mapping[str, float], batch: Batch, config: TrainConfig, step: int, run_dir: Path, world: World) -> None:
    """Stop before a broken update reaches a checkpoint. With fp16 a gradient out of range is no fault: the scaler skips its update."""
    watched = ("loss",) if config.precision == "fp16" else ("loss", "gradient_norm")
    for name in watched:
        if name in figures and not math.isfinite(figures[name]):
            path = run_dir / f"failed_batch-{world.rank}.safetensors"
            save_batch(path, batch)
            raise ValueError(
                f"the {name.replace('_', ' ')} became {figures[name]} at step {step}; its batch is in {path}; "
                "lower the learning rate, or delete the newest checkpoint to continue from an earlier one"
            )


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
