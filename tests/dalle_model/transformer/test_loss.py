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
    hidden, head, targets = torch.randn(64, 32).bfloat16(), nn.Linear(32, 1_000).bfloat16(), torch.randint(0, 1_000, (64,))
    loss = sum_cross_entropy(hidden, head, targets)
    assert loss.dtype == torch.float32
    # A sum of 64 terms of about 7 would be rounded to a multiple of 2 in bfloat16.
    torch.testing.assert_close(loss, F.cross_entropy(head(hidden).float(), targets, reduction="sum"), rtol=1e-6, atol=0)
