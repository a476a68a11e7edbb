"""A scale for each branch: true gradients whatever the scales, small ones survive 16 bits, large ones cost one update."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.transformer import DALLETransformer
from dalle_model.transformer.branch_scales import BACKOFF, GROWTH, INITIAL, LARGEST, SMALLEST, BranchScale, BranchScaler

STREAM = StreamShape(text_vocab_size=20, max_text_tokens=6, codebook_size=11, image_grid_size=8)
CONFIG = TransformerConfig(num_layers=4, num_heads=2, d_model=16, conv_kernel_size=5)


def gradients(
    model: DALLETransformer, scaler: BranchScaler | None, weight: float = 1.0, precision: torch.dtype | None = None
) -> list[Tensor]:
    text = torch.randint(20, (3, 6), generator=torch.Generator().manual_seed(1))
    image = torch.randint(11, (3, 64), generator=torch.Generator().manual_seed(2))
    model.zero_grad()
    with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
        text_loss, image_loss = model.loss(text, image)
    (weight * (text_loss / 8 + image_loss * 7 / 8)).backward()
    if scaler is not None:
        scaler.unscale_(torch.optim.SGD(model.parameters(), 0.1))
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_gradients_are_the_true_ones_whatever_the_scales() -> None:
    torch.manual_seed(0)
    model = DALLETransformer(CONFIG, STREAM).double()
    expected = gradients(model, None)
    scaler = model.scale_branches()
    for i, (branch, _) in enumerate(scaler.branches):
        branch.scale = 2.0 ** (7 + i) * 1.1
    assert len(scaler.branches) == 8
    for found, wanted in zip(gradients(model, scaler), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-14)
    model.activation_checkpointing = True
    for found, wanted in zip(gradients(model, scaler), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-14)


def test_small_gradients_survive_16_bits() -> None:
    torch.manual_seed(0)
    model = DALLETransformer(replace(CONFIG, num_layers=2), STREAM)
    small = 1e-4  # as of one pair's mean among thousands: most of a branch's gradients are below what fp16 can hold
    expected = gradients(model, None, small)
    lost = gradients(model, None, small, torch.float16)
    kept = gradients(model, model.scale_branches(), small, torch.float16)

    names = [name for name, _ in model.named_parameters()]

    def error(found: list[Tensor]) -> float:
        matrices = [(f, w) for f, w, name in zip(found, expected, names, strict=True) if "blocks" in name and f.ndim == 2]
        return max(float((f - w).norm() / w.norm()) for f, w in matrices)

    assert error(lost) > 0.1
    assert error(kept) < 0.02


def test_what_overflows_stays_in_its_branch_and_costs_one_update() -> None:
    torch.manual_seed(0)
    model = DALLETransformer(CONFIG, STREAM)
    scaler = model.scale_branches()
    scaler.branches[5][0].scale = LARGEST
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = [p.detach().clone() for p in model.parameters()]
    found = gradients(model, scaler, weight=100.0, precision=torch.float16)
    assert all(g.isfinite().all() for (name, _), g in zip(model.named_parameters(), found, strict=True) if "blocks.2.mlp" not in name)
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)), "nothing may change"
    scales = [branch.scale for branch, _ in scaler.branches]
    assert scales[5] == LARGEST * BACKOFF
    assert scales[:5] + scales[6:] == [INITIAL * GROWTH] * 7
    scaler.branches[5][0].scale = INITIAL
    gradients(model, scaler, precision=torch.float16)
    scaler.step(optimizer)
    moved = [name for (name, p), b in zip(model.named_parameters(), before, strict=True) if not torch.equal(p, b)]
    assert {"blocks.0.qkv.weight", "blocks.2.mlp_in.weight", "image_head.weight"} <= {*moved}


def test_a_scale_does_not_fall_twice_within_125_updates_and_stays_in_bounds() -> None:
    scale = BranchScale(1_024.0)
    scale.update(is_finite=False)
    assert scale.scale == pytest.approx(1_024 / math.sqrt(2))
    for _ in range(124):
        scale.update(is_finite=False)
    assert scale.scale == pytest.approx(1_024 / math.sqrt(2))
    scale.update(is_finite=False)
    assert scale.scale == pytest.approx(512)
    for _ in range(1_000):
        scale.update(is_finite=True)
    assert scale.scale == pytest.approx(1_024)
    for finite, bound in ((False, SMALLEST), (True, LARGEST)):
        for _ in range(30_000):
            scale.update(finite)
        assert scale.scale == bound


def test_scales_are_part_of_a_checkpoint() -> None:
    def scaler() -> BranchScaler:
        return BranchScaler([(BranchScale(), [nn.Linear(1, 1)]) for _ in range(2)])

    first, second = scaler(), scaler()
    first.branches[1][0].update(is_finite=False)
    second.load_state_dict(first.state_dict())
    assert [branch for branch, _ in second.branches][1].scale == INITIAL * BACKOFF
    assert second.state_dict() == first.state_dict()
