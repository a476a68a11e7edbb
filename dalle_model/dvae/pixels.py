"""Conversion of pixels between bytes, floats in [0, 1], and the dVAE's squeezed range.

Everything that turns one into the other is here: a picture read back from its file is the one that was scored.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# As in OpenAI's published code: squeeze pixels into [0.1, 0.9] so that black and white
# keep a finite logit under the logit-Laplace likelihood.
LOGIT_LAPLACE_EPS = 0.1


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Pictures [B, H, W, 3] as [B, 3, H, W] without moving them: torch calls that layout channels_last."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def as_floats(images: Tensor) -> Tensor:
    """Bytes as floats in [0, 1]."""
    return images.float().div(255)


def as_bytes(images: Tensor) -> NDArray[np.uint8]:
    """Pictures [B, 3, H, W] in [0, 1] as bytes [B, H, W, 3]."""
    pixels: NDArray[np.uint8] = images.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def round_to_bytes(images: Tensor) -> Tensor:
    """Floats in [0, 1], rounded to the 256 levels that a file keeps."""
    return images.mul(255).round().div(255)


def map_pixels(images: Tensor) -> Tensor:
    """Pixels in [0, 1] squeezed into [eps, 1 - eps]. Raises `ValueError` for whole-number pixels."""
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}, but the likelihood reads floating-point pixels in [0, 1]; divide bytes by 255")
    return (1 - 2 * LOGIT_LAPLACE_EPS) * images + LOGIT_LAPLACE_EPS


def unmap_pixels(images: Tensor) -> Tensor:
    """The inverse of `map_pixels`, clamped to [0, 1]."""
    return ((images - LOGIT_LAPLACE_EPS) / (1 - 2 * LOGIT_LAPLACE_EPS)).clamp(0, 1)
