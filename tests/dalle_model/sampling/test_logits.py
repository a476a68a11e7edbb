"""Filters keep what they say; draws follow the distribution and never leave it."""

import math

import torch

from dalle_model.sampling.logits import draw_tokens, filter_logits

LOGITS = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()


def kept(logits: torch.Tensor) -> list[int]:
    return (logits > -math.inf).nonzero()[:, 0].tolist()


def test_temperature_divides() -> None:
    assert torch.equal(filter_logits(LOGITS, temperature=0.5), LOGITS * 2)


def test_top_k_keeps_the_k_most_likely() -> None:
    assert kept(filter_logits(LOGITS.flip(0), top_k=2)) == [2, 3]
    assert kept(filter_logits(LOGITS, top_k=0)) == [0, 1, 2, 3]
    assert kept(filter_logits(LOGITS, top_k=99)) == [0, 1, 2, 3]


def test_top_p_keeps_the_smallest_set_that_holds_p() -> None:
    assert kept(filter_logits(LOGITS, top_p=0.39)) == [0]
    assert kept(filter_logits(LOGITS, top_p=0.41)) == [0, 1]
    assert kept(filter_logits(LOGITS[[2, 0, 3, 1]], top_p=0.75)) == [0, 1, 3]
    assert kept(filter_logits(LOGITS, top_p=1e-6)) == [0]


def test_draws_follow_the_distribution() -> None:
    noise = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    drawn = draw_tokens(LOGITS.expand(10_000, 4), noise)
    assert torch.bincount(drawn).tolist() == [4_000, 3_000, 2_000, 1_000]


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([-math.inf, 0.0, -math.inf, 0.0, -math.inf])
    noise = torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 2**-53], dtype=torch.float64)
    assert draw_tokens(logits.expand(5, 5), noise).tolist() == [1, 1, 3, 3, 3]
