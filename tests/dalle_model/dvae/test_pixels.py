"""Bytes become floats and bytes again without a loss, and the squeeze is undone exactly."""

import numpy as np
import pytest
import torch

from dalle_model.dvae.pixels import as_bytes, as_floats, as_tensor, map_pixels, round_to_bytes, unmap_pixels


def test_bytes_survive_the_way_to_floats_and_back():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    assert (as_bytes(as_floats(as_tensor(images))) == images).all()


def test_rounded_floats_are_those_of_the_file():
    """CLIP scores what a reader of the file will see, bit for bit."""
    images = torch.rand(2, 3, 8, 8)
    rounded = round_to_bytes(images)
    assert torch.equal(rounded, as_floats(as_tensor(as_bytes(images))))
    assert (rounded - images).abs().max() <= 0.5 / 255 + 1e-6


def test_squeeze_is_undone_and_clamped():
    images = torch.rand(100)
    torch.testing.assert_close(unmap_pixels(map_pixels(images)), images)
    torch.testing.assert_close(unmap_pixels(torch.tensor([0.0, 1.0])), torch.tensor([0.0, 1.0]))


def test_the_squeeze_refuses_bytes():
    with pytest.raises(ValueError, match=r"images are torch.uint8, .* divide bytes by 255"):
        map_pixels(torch.zeros(1, dtype=torch.uint8))
