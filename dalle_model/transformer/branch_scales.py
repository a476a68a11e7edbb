"""16-bit training with a gradient scale for each residual branch (paper, section 2.4 and Appendix D).

Gradients grow smaller from the last layer to the first, so one scale for all of them either overflows at the top or underflows
at the bottom. Here every branch multiplies the gradient that enters it by a scale of its own and divides what leaves it
again, before it joins the residual stream, which stays in float32. What is not finite does not leave the branch.

As in the paper a scale grows by 2 ** (1 / 1000) at each update, falls by sqrt(2) when the branch's weights got a gradient that
is not finite, and then not again within 125 updates. The paper divides the loss by the batch of all GPUs and
multiplies its bounds by their number; our processes average over their own pairs, so ours are the bounds for one. The paper
does not say how far a skipped update reaches; here nothing is updated, so that clipping and AdamW see whole gradients only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

INITIAL, SMALLEST, LARGEST = 2.0**13, 2.0**7, 2.0**24
GROWTH, BACKOFF = 2 ** (1 / 1_000), 1 / math.sqrt(2)
UPDATES_BETWEEN_BACKOFFS = 125


@dataclass(slots=True, eq=False)
class BranchScale:
    """The scale of one residual branch, between `enter` and `leave` of which the gradient is `scale` times as large."""

    scale: float = INITIAL
    updates_since_backoff: int = UPDATES_BETWEEN_BACKOFFS

    def enter(self, x: Tensor) -> Tensor:
        """The branch's input. Backward: the end of the scaled part; what is not finite becomes 0."""
        y: Tensor = _ScaleGradient.apply(x, 1 / self.scale, True)
        return y

    def leave(self, x: Tensor) -> Tensor:
        """The branch's output, in float32 at least. Backward: the beginning of the scaled part."""
        y: Tensor = _ScaleGradient.apply(x.to(torch.promote_types(x.dtype, torch.float32)), self.scale, False)
        return y

    def update(self, is_finite: bool) -> None:
        """After one update."""
        self.updates_since_backoff += 1
        if is_finite:
            self.scale *= GROWTH
        elif self.updates_since_backoff >= UPDATES_BETWEEN_BACKOFFS:
            self.scale, self.updates_since_backoff = self.scale * BACKOFF, 0
        self.scale = min(max(self.scale, SMALLEST), LARGEST)


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float, is_filtering: bool) -> Tensor:
        ctx.factor, ctx.is_filtering = factor, is_filtering
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        if ctx.is_filtering:
            grad = grad.nan_to_num(0.0, 0.0, 0.0)
        return grad * ctx.factor, None, None


class BranchScaler:
    """Stands where `torch.amp.GradScaler` would, for a network whose branches have scales."""

    def __init__(self, branches: Sequence[tuple[BranchScale, Sequence[nn.Module]]]) -> None:
        """Each branch's scale and the modules that hold its weights, always in the same order."""
        self.branches = branches
        self._is_finite: list[bool] | None = None

    def scale(self, loss: Tensor) -> Tensor:
        """The loss itself: its gradient is float32."""
        return loss

    @torch.no_grad()
    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Give every weight its true gradient and note which branches have one that is not finite."""
        from torch.distributed.tensor import DTensor  # slow to import, and this module is part of every transformer

        largest = []
        is_sharded = False
        for branch, modules in self.branches:
            gradients = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
            is_sharded |= any(isinstance(gradient, DTensor) for gradient in gradients)
            own = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
            torch._foreach_mul_(own, 1 / branch.scale)
            largest.append(torch.stack(torch._foreach_norm([part for part in own if part.numel()], math.inf)).amax())
        is_finite = torch.stack(largest).isfinite().int()
        if is_sharded:
            dist.all_reduce(is_finite, dist.ReduceOp.MIN)
        self._is_finite = [bool(flag) for flag in is_finite]

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights, unless some branch's gradient is not finite."""
        if self._is_finite is None:
            self.unscale_(optimizer)
        if all(self._is_finite or ()):
            optimizer.step()

    def update(self) -> None:
        """Adapt the scales to what `unscale_` saw."""
        for (branch, _), is_finite in zip(self.branches, self._is_finite or (), strict=True):
            branch.update(is_finite)
        self._is_finite = None

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"branches": [[branch.scale, branch.updates_since_backoff] for branch, _ in self.branches]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the scales of a checkpoint."""
        for (branch, _), (scale, updates) in zip(self.branches, state["branches"], strict=True):
            branch.scale, branch.updates_since_backoff = scale, updates
