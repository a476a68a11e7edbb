"""Turning logits into one token: temperature, top-k, top-p, and a draw that a seed repeats."""

import torch
from torch import Tensor

from dalle_model.config.generation import SamplingConfig

FREE = -1
"""Stands in `known_image_tokens` where a token is to be sampled."""


def choose_tokens(logits: Tensor, noise_PC: Tensor, known_P1: Tensor, settings: SamplingConfig) -> Tensor:
    """The next token of C candidates of P captions, int64 [P, C]: the known one, or one drawn from their logits [P, C, V].

    With guidance the logits are [2P, C, V], those without a caption second.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if settings.guidance != 1:
        given, free = logits.chunk(2)
        logits = free + settings.guidance * (given - free)
    drawn = draw_tokens(filter_logits(logits, settings.temperature, settings.top_k, settings.top_p), noise_PC)
    return torch.where(known_P1 == FREE, drawn, known_P1)


def are_usable(logits: Tensor) -> Tensor:
    """Whether a token can be drawn from all logits, bool []: none is NaN or infinite. -inf forbids a token."""
    return (logits < torch.inf).all()


def broken_logits() -> ValueError:
    """What to say when they are not usable."""
    return ValueError(
        "the transformer gave logits that are not numbers (NaN or infinity), from which no token can be drawn; its weights are damaged, or "
        "a product overflowed: set sampling.precision=fp32, or train the transformer again"
    )


def filter_logits(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Logits [..., V] divided by `temperature`, with -inf where a token is not among the `top_k` most likely (0 keeps all)
    or outside the smallest set that holds `top_p` of the probability. The most likely token always stays,
    and so do tokens as likely as the k-th.
    """
    if temperature != 1:
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
