"""The objective, term by term, and that it learns."""

import math

import pytest
import torch

from dalle_model.config.model import DVAEConfig
from dalle_model.dvae.loss import codebook_perplexity, dvae_loss, hard_token_loss
from dalle_model.dvae.model import DVAE

SMALL = DVAEConfig(image_size=16, downsample=4, codebook_size=32, hidden_width=16, num_groups=3, blocks_per_group=1, codebook_width=16)


def test_kl_weight_counts_positions_per_pixel_value():
    # 1,024 positions over 256 * 256 * 3 values make the paper's beta / 192; here 16 positions over 16 * 16 * 3 make 1 / 48.
    model, images = DVAE(SMALL), torch.rand(2, 3, 16, 16)
    torch.manual_seed(1)
    with_kl = dvae_loss(model, images, temperature=1.0, kl_weight=6.6, min_log_scale=None)
    torch.testing.assert_close(with_kl["loss"], with_kl["reconstruction_loss"] + 6.6 / 48 * with_kl["kl_nats"])


def test_terms_are_reported_without_gradients():
    terms = dvae_loss(DVAE(SMALL), torch.rand(2, 3, 16, 16), temperature=1.0, kl_weight=1.0, min_log_scale=None)
    assert {name for name, value in terms.items() if value.requires_grad} == {"loss"}


def test_untrained_logits_are_nearly_uniform():
    terms = dvae_loss(
        DVAE(DVAEConfig(image_size=16, codebook_size=64, hidden_width=8)),
        torch.zeros(1, 3, 16, 16),
        temperature=1.0,
        kl_weight=0.0,
        min_log_scale=None,
    )
    assert float(terms["kl_nats"]) == pytest.approx(0, abs=0.05)


def test_four_pictures_are_learned():
    torch.manual_seed(0)
    model = DVAE(SMALL)
    images = (torch.rand(4, 3, 4, 4) > 0.5).float().repeat_interleave(4, 2).repeat_interleave(4, 3)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = dvae_loss(model, images, temperature=0.5, kl_weight=0.0, min_log_scale=-3.0)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 1


def test_perplexity_counts_equally_used_tokens():
    assert codebook_perplexity(torch.tensor([5, 5, 5, 5, 0])) == pytest.approx(4)
    assert codebook_perplexity(torch.tensor([9, 0, 0])) == pytest.approx(1)
    assert codebook_perplexity(torch.tensor([3, 1])) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_the_decoder_alone_learns_from_hard_tokens_and_sees_errors_in_pixels():
    model, images = DVAE(SMALL), torch.rand(2, 3, 16, 16)
    terms = hard_token_loss(model, images)
    terms["loss"].backward()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert float(model.decoder.output.weight.grad.abs().sum()) > 0
    with torch.no_grad():
        mu, _ = model.decoder.from_tokens(model.encode_logits(images).argmax(1))
    errors = (torch.sigmoid(mu) - 0.1) / 0.8 - images
    torch.testing.assert_close(terms["reconstruction_loss"], errors.abs().mean() + 3 * errors.square().mean())
