"""The chunked cross entropy is the ordinary one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dalle_model.transformer.loss import NO_TARGET, sum_cross_entropy


@pytest.mark.parametrize("chunk_positions", [1, 5, 16, 64])
def test_loss_and_gradients_equal_cross_entropy_with_all_logits(chunk_positions: int) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(37, 16, dtype=torch.float64, requires_grad=True)
    head = nn.Linear(16, 50).double()
    targets = torch.randint(0, 50, (37,))
    targets[[3, 4, 36]] = NO_TARGET
    expected = F.cross_entropy(head(hidden), targets, ignore_index=NO_TARGET, reduction="sum")
    found = sum_cross_entropy(hidden, head, targets, chunk_positions)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    inputs = (hidden, head.weight, head.bias)
    for a, b in zip(torch.autograd.grad(found * 0.3, inputs), torch.autograd.grad(expected * 0.3, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_no_targets_cost_nothing_and_pull_nowhere() -> None:
    hidden = torch.randn(4, 8, requires_grad=True)
    loss = sum_cross_entropy(hidden, nn.Linear(8, 5), torch.full((4,), NO_TARGET))
    assert loss == 0
    assert torch.autograd.grad(loss, hidden)[0].count_nonzero() == 0


def test_logits_are_float32_under_bfloat16() -> None:
    torch.manual_seed(0)
    hidden, head, targets = torch.randn(64, 32), nn.Linear(32, 1_000), torch.randint(0, 1_000, (64,))
    nn.init.normal_(head.weight, std=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = sum_cross_entropy(hidden, head, targets, 10)
    assert loss.dtype == torch.float32
    exact = F.linear(hidden.bfloat16().double(), head.weight.bfloat16().double(), head.bias.double())
    # Logits of about 6 that are rounded to bfloat16 are wrong by a hundredth each.
    torch.testing.assert_close(loss.double(), F.cross_entropy(exact, targets, reduction="sum"), rtol=1e-6, atol=0)


def test_gradients_under_bfloat16_are_those_of_short_products() -> None:
    torch.manual_seed(0)
    hidden, head, targets = torch.randn(64, 32, requires_grad=True), nn.Linear(32, 50), torch.randint(0, 50, (64,))
    inputs = (hidden, head.weight, head.bias)
    expected = torch.autograd.grad(F.cross_entropy(head(hidden), targets, reduction="sum"), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        loss = sum_cross_entropy(hidden, head, targets, 10)
    for ours, theirs in zip(torch.autograd.grad(loss, inputs), expected, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() / theirs.norm() < 0.01
