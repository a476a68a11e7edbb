"""The training loop that dVAE, CLIP and transformer share.

Everything random in an update is a pure function of (seed, step), and batches are a pure function of the
step, so a training that was killed and started again computes the same numbers as one that was not.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from dalle_model.config.training import TrainConfig
from dalle_model.precision import autocast
from dalle_model.training.checkpoints import Checkpointer
from dalle_model.training.distribute import Batch, ComputeLoss, DistributedNetwork, ShardUnits
from dalle_model.training.metrics import MetricsLog
from dalle_model.training.optim import BestLook, MovingAverage, PlateauHalving, build_optimizer, learning_rate_at
from dalle_model.training.parallel import World, average_numbers, blaming_the_absent, join_world
from dalle_model.training.speed import Speed, append_speed
from dalle_model.training.spikes import SpikeWatch
from dalle_model.training.stopping import StopRequest
from dalle_model.transformer.branch_scales import BranchScaler
from dalle_model.weights import load_weights, save_batch, save_weights

Scaler = torch.amp.GradScaler | BranchScaler

KEPT_SPIKES = 8
"""Batches of spikes to keep: the newest."""

logger = logging.getLogger(__name__)


class Report(Protocol):
    """How progress leaves the loop: `dalle_model.running.progress.report_progress`."""

    def __call__(self, done: int, total: int, unit: str, **numbers: float) -> None: ...


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a finished training reached."""

    step: int
    """Updates that were made: fewer than configured when validation had turned."""
    kept_step: int
    """The update whose weights are kept."""
    train: dict[str, float]
    """Means of the last logged window."""
    validation: dict[str, float]
    """The look at the validation split with the weights that are kept."""


def train(
    *,
    model: nn.Module,
    config: TrainConfig,
    batches: Callable[[int], Iterable[Batch]],
    compute_loss: ComputeLoss,
    run_dir: Path,
    seed: int,
    report: Report,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    show: Callable[[nn.Module, int], None] | None = None,
    flops_per_pair: float = 0.0,
    scale: Callable[[nn.Module], Scaler] | None = None,
    parts: ShardUnits | None = None,
    branches: Callable[[nn.Module], Mapping[str, Sequence[nn.Module]]] | None = None,
) -> TrainResult:
    """Train `model` in place, continuing from the newest checkpoint of `run_dir` if there is one.

    `batches(step)` yields this process's batches from update `step` on, each a mapping of tensors whose first axis is the
    batch. `compute_loss(model, batch, step)` returns scalars: "loss", which is minimised, and further metrics to log.
    `validate(model)` returns metrics of the validation split; "loss" among them drives the `plateau` schedule.
    `show(model, step)` is called after it for what is not a number, such as pictures. Every process calls both, as often as all others.
    `flops_per_pair`, the work of one pair forward and backward, gives speed.jsonl the model FLOPs utilisation.
    `scale(model)` makes what takes the place of one scale for all gradients in fp16. `parts(model)` says how to cut the network over
    processes. `branches(model)` names modules whose gradient norms are logged, as split "gradients".
    `checkpoints/best` has the weights of the look with the least validation loss, beside the newest states. Training ends before
    `max_steps` when validation has turned (`patience`).
    When it returns, `model` holds the weights to keep, in the first process at least: the best ones or the last ones, as configured; of
    the moving average if there is one.
    SIGTERM and SIGINT end it after the current update and a checkpoint, in all processes at the same update; then they have their
    usual effect.
    Raises `ValueError` when the loss or the gradient is not finite, and leaves the batch in the run directory; `OSError` when a
    checkpoint could not be written.
    """
    world = join_world()
    network = DistributedNetwork(model, compute_loss, config, world, parts)
    optimizer = build_optimizer(network.model, config)
    average = MovingAverage(network.model, config.ema_decay) if config.ema_decay else None
    scaler = scale(network.model) if scale else torch.amp.GradScaler(world.device.type, enabled=config.precision == "fp16")
    plateau, best, watch, step, window = PlateauHalving(), BestLook(), SpikeWatch(), 0, MetricAverage()
    averages = average.weights if average else None
    saving = Checkpointer(run_dir, network.model, optimizer, averages, world, config.keep_checkpoints)
    stop = StopRequest()
    with blaming_the_absent(world), saving as states, stop.noticed():
        resumed = states.load()
        if resumed:
            state, extra = resumed
            step, plateau, window = state["step"], PlateauHalving(**state["plateau"]), MetricAverage(**state["window"])
            best = BestLook(**state.get("best", {"loss": plateau.best}))  # states of an older version have none
            watch = SpikeWatch(**state["watch"])
            scaler.load_state_dict(state["scaler"])
            if network.compression is not None:
                network.compression.load_state_dict(extra)
        log = MetricsLog(run_dir / "metrics.jsonl", step if resumed else -1) if world.is_main else None
        last: dict[str, float] = state.get("last", {}) if resumed else {}
        validation: dict[str, float] = state.get("validation", {}) if resumed else {}

        def look() -> None:
            if validate is None:
                return
            with _kept_weights(network.model, average), torch.no_grad():
                network.model.eval()
                torch.manual_seed(derive_seed(seed, 0))
                validation.update(average_numbers(dict(validate(network.model)), world))
                if show is not None:
                    show(network.model, step)
                if "loss" in validation:
                    plateau.look(validation["loss"])
                is_best = "loss" in validation and best.look(validation["loss"], step)
                weights = network.weights() if is_best else {}
                if world.is_main and weights:
                    save_weights(run_dir / "checkpoints" / "best", "best", weights, {"step": step, **validation})
            if log:
                log.log(step, "validation", validation)

        if step == 0 or (resumed and state.get("look_is_due")):
            look()
        network.model.train()
        speed = Speed(world.device, flops_per_pair, is_low_precision=config.precision != "fp32")
        iterator: Iterator[Batch] = iter(batches(step))
        has_turned = best.has_turned(config.patience)
        saved_at, is_ending = time.monotonic(), False
        while step < config.max_steps and not has_turned and not is_ending:
            states.check()
            rate = learning_rate_at(step, config, plateau.factor)
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(derive_seed(seed, step * world.size + world.rank + 1))
            if network.compression is not None:
                network.compression.begin(step, derive_seed(seed, step))
            with speed.waiting():
                batch = next(iterator)
            optimizer.zero_grad(set_to_none=True)
            metrics = _add_gradients(network, scaler, config, batch, step)
            step += 1
            is_logged = step % config.log_every == 0 or step == config.max_steps
            norms: dict[str, float] = {}
            if config.clip_norm or is_logged:
                scaler.unscale_(optimizer)
            if is_logged and branches is not None:
                norms = {name: _norm(modules) for name, modules in branches(network.model).items()}
            if config.clip_norm:
                metrics["gradient_norm"] = _number(nn.utils.clip_grad_norm_(network.model.parameters(), config.clip_norm))
            _check_finite(metrics, batch, config, step, run_dir, world)
            # What one process knows and all must act on at the same update.
            is_late = world.is_main and 0 < config.checkpoint_every_s < time.monotonic() - saved_at
            shared = average_numbers({"loss": metrics["loss"], "is_late": is_late, "is_ending": stop.is_made}, world)
            is_ending = shared["is_ending"] > 0
            spike = watch.look({**metrics, "loss": shared["loss"]})
            if spike:
                _report_spike(spike, batch, config, step, run_dir, world)
            if not (spike and config.skip_spikes):
                scaler.step(optimizer)
            if not (spike and config.skip_spikes) or config.clip_norm or is_logged:
                scaler.update()
            speed.add(len(next(iter(batch.values()))))
            if average is not None and step % config.ema_every == 0:
                average.update(network.model, step // config.ema_every)
            window.add(metrics)
            if is_logged:
                last = average_numbers(window.means(), world)
                window = MetricAverage()
                rates = speed.take()
                if log:
                    if norms:
                        log.log(step, "gradients", norms)
                    log.log(step, "train", {**last, "learning_rate": rate})
                    append_speed(run_dir / "speed.jsonl", step, {**rates, "num_processes": world.size})
                    report(step, config.max_steps, "steps", loss=last["loss"], steps_per_s=rates["steps_per_s"])
            look_is_due = step % config.validate_every == 0 or step == config.max_steps
            if look_is_due and not is_ending:
                look()
                network.model.train()
                has_turned = best.has_turned(config.patience)
                look_is_due = False
                is_ending = average_numbers({"is_ending": stop.is_made}, world)["is_ending"] > 0
            is_checkpoint = step % config.checkpoint_every == 0 or shared["is_late"] > 0
            if (is_checkpoint and step < config.max_steps and not has_turned) or is_ending:
                # The means over all processes, since any number of them may continue from here.
                window.sums = window.sums and average_numbers(window.sums, world)
                saved = {
                    "plateau": asdict(plateau),
                    "best": asdict(best),
                    "window": asdict(window),
                    "watch": asdict(watch),
                    "scaler": scaler.state_dict(),
                    "last": last,
                    "validation": validation,
                    "look_is_due": look_is_due,
                }
                states.save(step, saved, network.compression.state_dict() if network.compression is not None else None)
                saved_at = time.monotonic()
        if is_ending:
            states.wait()
            if world.is_main:
                remedy = "run the same command again to continue from it"
                logger.warning("told to end by %s: the state of step %d is saved; %s", stop.name, step, remedy)
    if is_ending:
        if log:
            log.close()
        stop.obey()
    if not last and window.num_steps:  # it ended between two lines of the log
        last = average_numbers(window.means(), world)
    if average is not None:
        average.copy_to(network.model)
    network.give_back()
    kept_step = step
    if config.keep_weights == "best" and best.loss < math.inf and best.step < step:
        kept_step = best.step
        if world.is_main:
            look_of_best, weights, _ = load_weights(run_dir / "checkpoints" / "best", "best")
            model.load_state_dict(weights)
            kept_step = look_of_best["step"]
            validation = {name: value for name, value in look_of_best.items() if name != "step"}
    model.eval()
    if log:
        log.close()
    if world.is_main and has_turned:
        text = "stopped at update %d of %d: the validation loss was %.4g at update %d and is %.4g now; the weights of update %d are kept"
        logger.warning(text, step, config.max_steps, best.loss, best.step, best.newest, kept_step)
    return TrainResult(step=step, kept_step=kept_step, train=last, validation=validation)


def derive_seed(seed: int, step: int) -> int:
    """A seed for one update: well spread, and different for neighbouring seeds and steps."""
    value = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    value ^= value >> 31
    return (value * 0xD6E8FEB86659FD93 & 0xFFFFFFFFFFFFFFFF) >> 1


@dataclass(slots=True)
class MetricAverage:
    """Sums of metrics since the last logged step; part of a checkpoint, so that logged means do not depend on a crash."""

    num_steps: int = 0
    sums: dict[str, float] | None = None
    num_left_out: dict[str, int] = field(default_factory=dict)
    """Updates whose figure was not finite: a gradient that overflowed in fp16, whose update was skipped."""

    def add(self, metrics: Mapping[str, float]) -> None:
        """Take in one update's metrics."""
        sums = self.sums or {}
        for name, value in metrics.items():
            if not math.isfinite(value):
                self.num_left_out[name] = self.num_left_out.get(name, 0) + 1
        self.sums = {name: sums.get(name, 0.0) + (value if math.isfinite(value) else 0.0) for name, value in metrics.items()}
        self.num_steps += 1

    def means(self) -> dict[str, float]:
        """Means over the window's finite figures; NaN where there was none."""
        counts = {name: self.num_steps - self.num_left_out.get(name, 0) for name in self.sums or {}}
        return {name: value / counts[name] if counts[name] else math.nan for name, value in (self.sums or {}).items()}


def _add_gradients(network: DistributedNetwork, scaler: Scaler, config: TrainConfig, batch: Batch, step: int) -> dict[str, float]:
    """The gradients of a batch, microbatch by microbatch; returns this process's mean metrics."""
    size, world = len(next(iter(batch.values()))), network.world
    micro = min(size, max(1, config.microbatch_size // world.size)) if config.microbatch_size else size
    metrics: dict[str, float] = {}
    for start in range(0, size, micro):
        part = {name: value[start : start + micro].to(world.device, non_blocking=True) for name, value in batch.items()}
        share = len(next(iter(part.values()))) / size
        with network.exchanging(is_last=start + micro >= size):
            with autocast(config.precision, world.device):
                losses = network.losses(part, step)
            scaler.scale(losses["loss"] * share).backward()  # type: ignore[no-untyped-call]
        for name, value in losses.items():
            metrics[name] = metrics.get(name, 0.0) + float(value.detach()) * share
    return metrics


def _norm(modules: Sequence[nn.Module]) -> float:
    """Euclidean norm of the gradient of all their weights."""
    return _number(nn.utils.get_total_norm([p.grad for module in modules for p in module.parameters() if p.grad is not None]))


def _number(value: Tensor) -> float:
    """A scalar that may be cut over processes."""
    return float(value.full_tensor() if isinstance(value, DTensor) else value)


def _check_finite(metrics: Mapping[str, float], batch: Batch, config: TrainConfig, step: int, run_dir: Path, world: World) -> None:
    """Stop before a broken update reaches a checkpoint. With fp16 a gradient out of range is no fault: the scaler skips its update."""
    watched = ("loss",) if config.precision == "fp16" else ("loss", "gradient_norm")
    for name in watched:
        if name in metrics and not math.isfinite(metrics[name]):
            path = run_dir / f"failed_batch-{world.rank}.safetensors"
            save_batch(path, batch)
            raise ValueError(
                f"the {name.replace('_', ' ')} became {metrics[name]} at step {step}; its batch is in {path}; "
                "lower the learning rate, or delete the newest checkpoint to continue from an earlier one"
            )


def _report_spike(spike: str, batch: Batch, config: TrainConfig, step: int, run_dir: Path, world: World) -> None:
    """Warn, and keep the batch for inspection, of the last few spikes."""
    directory = run_dir / "spikes"
    directory.mkdir(exist_ok=True)
    path = directory / f"step-{step:06d}-{world.rank}.safetensors"
    save_batch(path, batch)
    for old in sorted(directory.glob(f"*-{world.rank}.safetensors"), key=lambda path: path.stat().st_mtime_ns)[:-KEPT_SPIKES]:
        old.unlink()
    if world.is_main:
        done = "the update was left out" if config.skip_spikes else "skip_spikes=true would leave such updates out"
        logger.warning("spike at step %d: %s; its batch is in %s; %s", step, spike, path, done)


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
