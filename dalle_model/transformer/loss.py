"""Cross entropy of a linear head without ever holding all its logits.

The stream's logits are by far its largest tensors (48 MiB per pair in fp32 at the paper's size, several times that with
their gradient). Here they exist for one chunk of positions at a time: the gradients of hidden states and head are
formed in the forward pass while the chunk's logits are at hand, so nothing is computed twice.
"""

# Shapes: M positions with a target, D width of the hidden state, V vocabulary

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NO_TARGET = -1
CHUNK_POSITIONS = 2_048


def sum_cross_entropy(hidden_MD: Tensor, head: nn.Linear, targets_M: Tensor, chunk_positions: int = CHUNK_POSITIONS) -> Tensor:
    """Sum over positions of -ln p(target), in nats, float32 (float64 for float64 inputs); 0 where the target is `NO_TARGET`.

    Logits are float32, as in the paper (Appendix D.2): under bf16 autocast they are sums of products of bf16 numbers that are never
    rounded to bf16. With fp16 the factors are float32 too.
    """
    device_type, dtype = hidden_MD.device.type, hidden_MD.dtype
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
        if dtype == torch.float16:
            hidden_MD, dtype = hidden_MD.float(), torch.float32
    with torch.autocast(device_type, enabled=False):
        loss: Tensor = _SumCrossEntropy.apply(hidden_MD, head.weight, head.bias, targets_M, chunk_positions, dtype)
    return loss


def head_logits(head: nn.Linear, hidden_MD: Tensor) -> Tensor:
    """Logits [M, V] of a head, float32 at least, from a product of numbers in the type of its weights."""
    return _logits(hidden_MD.to(head.weight.dtype), head.weight, head.bias)


def _logits(hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor) -> Tensor:
    wide = torch.promote_types(hidden_MD.dtype, torch.float32)
    if hidden_MD.dtype != wide and hidden_MD.is_cuda:
        return torch.mm(hidden_MD, weight_VD.t(), out_dtype=wide).add_(bias_V)
    # A CPU has no product of short numbers with a long result, so the rounded numbers are multiplied as long ones.
    return F.linear(hidden_MD.to(wide), weight_VD.to(wide), bias_V.to(wide))


class _SumCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor, targets_M: Tensor, chunk_positions: int, dtype: torch.dtype
    ) -> Tensor:
        """`dtype` is the type whose numbers are multiplied."""
        wide = torch.promote_types(hidden_MD.dtype, torch.float32)
        total = hidden_MD.new_zeros((), dtype=wide)
        needs_gradient = any(ctx.needs_input_grad[:3])
        factor_VD = weight_VD.to(dtype)
        if needs_gradient:
            grad_hidden_MD = torch.empty_like(hidden_MD)
            grad_weight_VD = torch.zeros_like(weight_VD, dtype=wide)
            grad_bias_V = torch.zeros_like(bias_V, dtype=wide)
        for start in range(0, len(targets_M), chunk_positions):
            chunk = slice(start, start + chunk_positions)
            hidden, targets = hidden_MD[chunk].to(dtype), targets_M[chunk]
            has_target = targets != NO_TARGET
            index = targets.clamp(min=0)[:, None]
            logits = _logits(hidden, factor_VD, bias_V)
            normalizer = logits.logsumexp(-1, keepdim=True)
            total += ((normalizer - logits.gather(1, index))[:, 0] * has_target).sum()
            if needs_gradient:
                grad_logits = logits.sub_(normalizer).exp_()
                grad_logits.scatter_add_(1, index, grad_logits.new_full((1, 1), -1.0).expand_as(index))
                grad_logits *= has_target[:, None]
                grad_bias_V += grad_logits.sum(0)
                grad = grad_logits.to(dtype)
                if dtype == wide == hidden_MD.dtype:
                    torch.mm(grad, factor_VD, out=grad_hidden_MD[chunk])
                    grad_weight_VD.addmm_(grad.T, hidden)
                else:
                    grad_hidden_MD[chunk] = grad @ factor_VD
                    grad_weight_VD += grad.T @ hidden
        if needs_gradient:
            ctx.save_for_backward(grad_hidden_MD, grad_weight_VD.to(weight_VD.dtype), grad_bias_V.to(bias_V.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden_MD, grad_weight_VD, grad_bias_V = ctx.saved_tensors
        return grad_hidden_MD * grad.to(grad_hidden_MD.dtype), grad_weight_VD * grad, grad_bias_V * grad, None, None, None
