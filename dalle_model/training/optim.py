"""AdamW as the paper uses it, the step-size schedules, and the moving average of the weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dalle_model.config.training import TrainConfig

FUSED_FROM_PARAMETERS = 10_000_000
"""On a CPU, fused AdamW takes a third of the time (benchmarks/RESULTS.md) but rounds differently; below this the step is small."""


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and convolutions but not gains, biases and other vectors."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = all(p.is_cuda for p in trainable) or sum(p.numel() for p in trainable) >= FUSED_FROM_PARAMETERS
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=fused)


def learning_rate_at(step: int, config: TrainConfig, plateau_factor: float = 1.0) -> float:
    """Step size of update `step` (counted from 0): linear warm-up, then the schedule.

    `plateau_factor` is the product of the halvings so far (`PlateauHalving.factor`); only `plateau` uses it.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "cosine":
        progress = min(1.0, step / (config.decay_steps or max(1, config.max_steps - 1)))
        span = config.learning_rate - config.final_learning_rate
        return warmup * (config.final_learning_rate + span * 0.5 * (1 + math.cos(math.pi * progress)))
    if config.schedule == "plateau":
        return warmup * max(config.learning_rate * plateau_factor, config.final_learning_rate)
    return warmup * config.learning_rate


@dataclass(slots=True)
class PlateauHalving:
    """Halve the step size when the validation loss has stopped falling (Appendix B.2 halves it five times by hand)."""

    patience: int = 3
    """Looks without improvement before a halving."""
    factor: float = 1.0
    best: float = math.inf
    looks_since_best: int = 0

    def look(self, validation_loss: float) -> None:
        """Take note of one validation loss."""
        if validation_loss < self.best:
            self.best, self.looks_since_best = validation_loss, 0
            return
        self.looks_since_best += 1
        if self.looks_since_best >= self.patience:
            self.factor, self.looks_since_best = self.factor / 2, 0


TURNED = 0.02
"""How much worse than the best, as a share, a validation loss is that has turned: less may be noise or a plateau."""


@dataclass(slots=True)
class BestLook:
    """The least validation loss so far, and whether validation has turned; part of a checkpoint."""

    loss: float = math.inf
    step: int = 0
    looks_since: int = 0
    newest: float = math.inf

    def look(self, loss: float, step: int) -> bool:
        """Take note of one validation loss; whether it is the best."""
        self.newest = loss
        if loss < self.loss:
            self.loss, self.step, self.looks_since = loss, step, 0
            return True
        self.looks_since += 1
        return False

    def has_turned(self, patience: int) -> bool:
        """Whether the last `patience` looks found nothing better and the newest is clearly worse; never for 0."""
        return 0 < patience <= self.looks_since and not self.newest <= self.loss + TURNED * abs(self.loss)


class MovingAverage:
    """Exponential moving average of the weights, kept beside the model in float32."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().to(torch.float32, copy=True) for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, num_updates: int) -> None:
        """Move towards the model. Early on the decay is smaller, so that the random start is soon forgotten."""
        decay = min(self.decay, (1 + num_updates) / (10 + num_updates))
        for name, value in model.state_dict().items():
            average = self.weights[name]
            if value.is_floating_point():
                average.lerp_(value.to(torch.float32), 1 - decay)
            else:
                average.copy_(value)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Continue from saved averages."""
        for name, value in weights.items():
            self.weights[name].copy_(value)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> dict[str, Tensor]:
        """Put the averages into the model; returns the weights it had."""
        state = model.state_dict()
        before = {name: value.clone() for name, value in state.items()}
        for name, value in state.items():
            value.copy_(self.weights[name])
        return before
