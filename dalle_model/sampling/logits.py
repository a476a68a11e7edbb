"""Turning logits into one token: temperature, top-k, top-p, and a draw that a seed repeats."""

import torch
from torch import Tensor


def filter_logits(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Logits [..., V] divided by `temperature`, with -inf where a token is not among the `top_k` most likely (0 keeps all)
    or outside the smallest set that holds `top_p` of the probability. The most likely token always stays.
    """
    logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(descending=True)
        p = ordered.softmax(-1)
        # A token goes when those before it already hold top_p.
        is_dropped = p.cumsum(-1) - p >= top_p
        logits = logits.masked_fill(is_dropped.scatter(-1, order, is_dropped), -torch.inf)
    return logits


def draw_tokens(logits: Tensor, noise: Tensor) -> Tensor:
    """One token per row of logits [..., V] by inverting the distribution function at `noise` [...], uniform in [0, 1), float64.

    One number decides one token, so a candidate's noise can be made beforehand from its own seed, whatever else is in its batch.
    """
    cumulative = logits.softmax(-1, dtype=torch.float32).double().cumsum(-1)
    # Only the first value above counts, so a token of probability 0 is never drawn.
    at = noise.unsqueeze(-1) * cumulative[..., -1:]
    return torch.searchsorted(cumulative, at, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
