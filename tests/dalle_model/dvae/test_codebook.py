"""k-means gives a dVAE a codebook that works before any training."""

from dataclasses import replace

import pytest
import torch

from dalle_model.config.model import DVAEConfig
from dalle_model.dvae.codebook import initialize_codebook, kmeans
from dalle_model.dvae.model import DVAE
from dalle_model.dvae.pixels import map_pixels

CONFIG = DVAEConfig(
    image_size=16, downsample=4, codebook_size=8, hidden_width=8, num_groups=2, blocks_per_group=1, codebook_width=8,
    stem_patch_size=2, codebook_init="patch_kmeans",
)  # fmt: skip


def test_kmeans_finds_separated_clusters():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (centres[:, None] + 0.1 * torch.randn(3, 50, 2, generator=generator)).flatten(0, 1)
    found = kmeans(points, 3, 10, generator)
    assert torch.cdist(centres, found).amin(1).max() < 0.1


@pytest.mark.parametrize("codebook_init", ["patch_kmeans", "fixed_patches"])
def test_pictures_made_of_as_many_patches_as_codewords_are_rebuilt_at_once(codebook_init):
    torch.manual_seed(0)
    patches = torch.rand(8, 3, 4, 4)
    choice = torch.randint(8, (20, 4, 4))
    choice[0, :2] = torch.arange(8).view(2, 4)
    images = patches[choice].permute(0, 3, 1, 4, 2, 5).reshape(20, 3, 16, 16)
    model = DVAE(replace(CONFIG, codebook_init=codebook_init))
    initialize_codebook(model, images, seed=1)
    torch.testing.assert_close(model.decode_tokens(model.tokenize(images)), images, atol=1e-3, rtol=0)


def test_fixed_patches_have_an_encoder_without_convolutions_and_a_decoder_that_sees_their_pixels():
    images = torch.rand(10, 3, 16, 16)
    model = DVAE(replace(CONFIG, codebook_init="fixed_patches", codebook_width=60))
    initialize_codebook(model, images, seed=3)
    assert {name.split(".")[0] for name, _ in model.encoder.named_parameters()} == {"patch_logits"}
    centroids = torch.sigmoid(model.decoder.patch_pixels.weight[:, :, 0, 0])
    seen = model.decoder.input.weight[:48, :, 0, 0]
    torch.testing.assert_close(seen, (centroids - centroids.mean(1, keepdim=True)) / centroids.std(), atol=1e-3, rtol=0)
    assert (map_pixels(images).mean() - centroids.mean()).abs() < 0.05


def test_the_same_seed_gives_the_same_codebook():
    images, models = torch.rand(10, 3, 16, 16), (DVAE(CONFIG), DVAE(CONFIG))
    for model in models:
        initialize_codebook(model, images, seed=3)
    assert torch.equal(models[0].decoder.patch_pixels.weight, models[1].decoder.patch_pixels.weight)


def test_too_few_patches_are_refused():
    with pytest.raises(ValueError, match=r"1 distinct patches of 4 x 4 pixels, fewer than dvae.codebook_size=8; choose a smaller codebook"):
        initialize_codebook(DVAE(CONFIG), torch.zeros(2, 3, 16, 16), seed=0)
