"""The dVAE's shapes, sizes and checks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dalle_model.config.model import DVAEConfig
from dalle_model.dvae.model import DVAE

SMALL = DVAEConfig(image_size=16, downsample=4, codebook_size=32, hidden_width=8, num_groups=3, blocks_per_group=1, codebook_width=8)
PATCHED = DVAEConfig(
    image_size=16, downsample=4, codebook_size=32, hidden_width=8, num_groups=2, blocks_per_group=1, codebook_width=8,
    stem_patch_size=2, codebook_init="patch_kmeans",
)  # fmt: skip


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_defaults_have_the_released_networks_parameters():
    with torch.device("meta"):
        model = DVAE(DVAEConfig())
    assert count(model.encoder) == 53_786_240
    assert count(model.decoder) == 43_829_766


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        PATCHED,
        DVAEConfig(image_size=32, downsample=8, codebook_size=16, hidden_width=4, num_groups=4, blocks_per_group=2, codebook_width=8),
        DVAEConfig(image_size=32, downsample=16, codebook_size=16, hidden_width=4, num_groups=5, blocks_per_group=1, codebook_width=8),
        DVAEConfig(image_size=32, downsample=8, codebook_size=16, hidden_width=8, num_groups=4, blocks_per_group=1, stem_patch_size=4),
        DVAEConfig(image_size=24, downsample=4, codebook_size=16, hidden_width=8, num_groups=4, blocks_per_group=1, codebook_width=8),
    ],
)
def test_every_size_encodes_to_its_grid_and_decodes_to_its_picture(config):
    model, grid, side = DVAE(config), config.image_grid_size, config.image_size
    images = torch.rand(2, 3, side, side)
    logits = model.encode_logits(images)
    assert logits.shape == (2, config.codebook_size, grid, grid)
    mu, log_scale = model.decode_soft(logits.softmax(1))
    assert mu.shape == log_scale.shape == images.shape
    tokens = model.tokenize(images)
    assert tokens.shape == (2, config.num_image_tokens)
    assert tokens.dtype == torch.int64
    pictures = model.decode_tokens(tokens)
    assert pictures.shape == images.shape
    assert pictures.dtype == torch.float32
    assert 0 <= pictures.min() <= pictures.max() <= 1


def test_tokens_are_row_major_argmax():
    model = DVAE(SMALL)
    images = torch.rand(1, 3, 16, 16)
    logits = model.encode_logits(images)
    assert model.tokenize(images)[0, 1 * 4 + 2] == logits[0, :, 1, 2].argmax()


@pytest.mark.parametrize("config", [SMALL, PATCHED])
def test_decoding_tokens_looks_up_exactly_what_one_hot_vectors_give(config):
    model = DVAE(config)
    nn.init.normal_(model.decoder.input.bias)
    tokens = torch.randint(config.codebook_size, (3, config.num_image_tokens))
    one_hot = F.one_hot(tokens.view(3, 4, 4), config.codebook_size).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(model.decoder.from_tokens(tokens.view(3, 4, 4))[0], model.decode_soft(one_hot)[0], rtol=1e-6, atol=1e-6)


def test_logits_and_likelihood_stay_float32_under_autocast():
    model = DVAE(SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.encode_logits(torch.rand(1, 3, 16, 16))
        mu, log_scale = model.decode_soft(logits.softmax(1))
    assert logits.dtype == mu.dtype == log_scale.dtype == torch.float32


def test_untrained_residual_branches_are_damped_by_the_square_of_the_number_of_layers():
    with torch.device("meta"):
        model = DVAE(DVAEConfig())
    gains = {m.residual_gain for m in model.modules() if hasattr(m, "residual_gain")}
    assert gains == {1 / 64}


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 3, 16, 32), (1, 16, 16, 3)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"images have shape \[.*\], but this dVAE reads \[B, 3, 16, 16\] \(dvae.image_size=16\); resize or transpose"
    ):
        DVAE(SMALL).encode_logits(torch.rand(shape))


def test_bytes_are_refused_as_images():
    with pytest.raises(
        ValueError, match=r"images are torch.uint8, but this dVAE reads floating-point pixels in \[0, 1\]; divide bytes by 255"
    ):
        DVAE(SMALL).encode_logits(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_weights_for_another_codebook_are_refused():
    with pytest.raises(ValueError, match=r"z has shape \[1, 64, 4, 4\], but this decoder reads \[B, 32, 4, 4\] \(dvae.codebook_size=32"):
        DVAE(SMALL).decode_soft(torch.rand(1, 64, 4, 4))


def test_whole_number_weights_are_refused():
    with pytest.raises(ValueError, match=r"z is torch.int64, .*; for tokens use decode_tokens"):
        DVAE(SMALL).decode_soft(torch.zeros(1, 32, 4, 4, dtype=torch.int64))


@pytest.mark.parametrize("token", [-1, 32])
def test_tokens_outside_the_codebook_are_refused(token):
    with pytest.raises(
        ValueError, match=r"tokens reach from -?\d+ to \d+, but this dVAE's codebook has tokens 0 to 31 .*made by another dVAE"
    ):
        DVAE(SMALL).decode_tokens(torch.tensor([[0] * 15 + [token]]))


def test_another_number_of_tokens_is_refused():
    with pytest.raises(ValueError, match=r"tokens have shape \[1, 15\], but this dVAE has 16 tokens per picture: \[B, 16\]"):
        DVAE(SMALL).decode_tokens(torch.zeros(1, 15, dtype=torch.int64))


def test_fractional_tokens_are_refused():
    with pytest.raises(ValueError, match=r"tokens are torch.float32, but a token is a whole number in \[0, 32\)"):
        DVAE(SMALL).decode_tokens(torch.zeros(1, 16))
