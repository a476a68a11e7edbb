"""The Gumbel-softmax relaxation that makes choosing a token differentiable (section 2.1), and its schedules (Appendix A.2)."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Shapes: B batch, K codebook, h w token grid


def gumbel_softmax(logits_BKhw: Tensor, temperature: float, straight_through: bool = False) -> Tensor:
    """A soft sample per position, float32 [B, K, h, w]: it sums to 1 over K and turns one-hot as the temperature falls to 0.

    Soft forward and backward, as in the paper; with `straight_through` the sample is one-hot and has the soft
    one's gradient. The noise comes from torch's global generator.
    Raises `ValueError` unless the temperature is positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be positive; for hard tokens take the argmax of the logits")
    logits = logits_BKhw.float()
    # -ln of an exponential variable is Gumbel; the floor keeps a draw of exactly 0 from becoming infinite.
    exponential = torch.empty_like(logits).exponential_().clamp_min_(torch.finfo(torch.float32).tiny)
    soft = torch.softmax((logits - exponential.log()) / temperature, dim=1)
    if not straight_through:
        return soft
    hard = torch.zeros_like(soft).scatter_(1, soft.argmax(1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())


def kl_to_uniform(logits_BKhw: Tensor) -> Tensor:
    """KL(q || uniform over K) in nats, mean over pictures and positions, of the plain categorical softmax(logits).

    From the logits without noise and at temperature 1, even while samples are relaxed, as the author answered.
    """
    log_q = F.log_softmax(logits_BKhw.float(), dim=1)
    return (log_q.exp() * log_q).sum(1).mean() + math.log(logits_BKhw.shape[1])


def cosine_schedule(step: int, start: float, end: float, num_steps: int) -> float:
    """From `start` at step 0 to `end` at step `num_steps` along half a cosine, then held."""
    if num_steps <= 0 or step >= num_steps:
        return end
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * step / num_steps))
