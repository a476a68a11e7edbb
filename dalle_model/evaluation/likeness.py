"""Likeness of a picture and what became of it: PSNR and SSIM; and the blur under which the paper compares
sets of pictures."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
"""[B, H, W, 3]"""

SSIM_WINDOW, SSIM_SIGMA, SSIM_K1, SSIM_K2 = 11, 1.5, 0.01, 0.03
"""As in Wang et al. 2004."""
SAME_DB = 100.0
"""PSNR of equal pictures."""


def psnr(originals: Pixels, rebuilt: Pixels) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each picture, dB, [B]; `SAME_DB` for equal ones."""
    error = np.square((originals.astype(np.float64) - rebuilt) / 255).mean((1, 2, 3))
    ratios: NDArray[np.float64] = -10 * np.log10(np.maximum(error, 10 ** (-SAME_DB / 10)))
    return ratios


def ssim(originals: Pixels, rebuilt: Pixels) -> NDArray[np.float64]:
    """Structural similarity of each picture, [B] in [-1, 1]: the mean over channels and all places where the
    window fits.

    Raises `ValueError` for pictures smaller than the window.
    """
    if min(originals.shape[1:3]) < SSIM_WINDOW:
        raise ValueError(f"pictures of {originals.shape[1]} x {originals.shape[2]} are smaller than SSIM's window of {SSIM_WINDOW} pixels")
    x, y = originals.astype(np.float64) / 255, rebuilt.astype(np.float64) / 255
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x, variance_y = _window_mean(x * x) - mean_x**2, _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    structure = (2 * mean_x * mean_y + SSIM_K1**2) * (2 * covariance + SSIM_K2**2)
    scale = (mean_x**2 + mean_y**2 + SSIM_K1**2) * (variance_x + variance_y + SSIM_K2**2)
    means: NDArray[np.float64] = (structure / scale).mean((1, 2, 3))
    return means


def _window_mean(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Gaussian-weighted mean around every place where the window fits."""
    places = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-(places**2) / (2 * SSIM_SIGMA**2))
    weights /= weights.sum()
    for axis in (1, 2):
        length = images.shape[axis] - SSIM_WINDOW + 1
        images = sum(weight * images.take(range(i, i + length), axis) for i, weight in enumerate(weights))
    return images


def blur(pictures: Pixels, radius: float) -> Pixels:
    """Pictures after a Gaussian blur whose standard deviation is `radius` pixels; 0 changes nothing."""
    if not radius:
        return pictures
    kernel = ImageFilter.GaussianBlur(radius)
    return np.stack([np.asarray(Image.fromarray(picture).filter(kernel)) for picture in pictures])
