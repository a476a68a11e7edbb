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

    Logits are float32 whatever the precision of the product, as in the paper (Appendix D.2); with fp16 so is the product.
    """
    device_type = hidden_MD.device.type
    if torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type) == torch.float16:
        with torch.autocast(device_type, enabled=False):
            return sum_cross_entropy(hidden_MD.float(), head, targets_M, chunk_positions)
    loss: Tensor = _SumCrossEntropy.apply(hidden_MD, head.weight, head.bias, targets_M, chunk_positions)
    return loss


class _SumCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor, targets_M: Tensor, chunk_positions: int) -> Tensor:
        wide = torch.promote_types(hidden_MD.dtype, torch.float32)
        total = hidden_MD.new_zeros((), dtype=wide)
        needs_gradient = any(ctx.needs_input_grad[:3])
        if needs_gradient:
            grad_hidden_MD = torch.empty_like(hidden_MD)
            grad_weight_VD = torch.zeros_like(weight_VD, dtype=wide)
            grad_bias_V = torch.zeros_like(bias_V, dtype=wide)
        for start in range(0, len(targets_M), chunk_positions):
            chunk = slice(start, start + chunk_positions)
            hidden, targets = hidden_MD[chunk], targets_M[chunk]
            has_target = targets != NO_TARGET
            index = targets.clamp(min=0)[:, None]
            logits = F.linear(hidden, weight_VD, bias_V).to(wide)
            normalizer = logits.logsumexp(-1, keepdim=True)
            total += ((normalizer - logits.gather(1, index))[:, 0] * has_target).sum()
            if needs_gradient:
                grad_logits = logits.sub_(normalizer).exp_()
                grad_logits.scatter_add_(1, index, grad_logits.new_full((1, 1), -1.0).expand_as(index))
                grad_logits *= has_target[:, None]
                grad_bias_V += grad_logits.sum(0)
                grad = grad_logits.to(hidden.dtype)
                torch.mm(grad, weight_VD.to(grad.dtype), out=grad_hidden_MD[chunk])
                if grad.dtype == wide:
                    grad_weight_VD.addmm_(grad.T, hidden)
                else:
                    grad_weight_VD += grad.T @ hidden
        if needs_gradient:
            ctx.save_for_backward(grad_hidden_MD, grad_weight_VD.to(weight_VD.dtype), grad_bias_V.to(bias_V.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden_MD, grad_weight_VD, grad_bias_V = ctx.saved_tensors
        return grad_hidden_MD * grad.to(grad_hidden_MD.dtype), grad_weight_VD * grad, grad_bias_V * grad, None, None
