"""Perceptual hashes: numbers that stay nearly the same when a picture is scaled or recompressed.

Two hashes must agree, because each alone confuses flat clip art: pHash (signs of the lowest frequencies) and dHash (is a pixel
brighter than its left neighbour). A tiny colour thumbnail tells apart what differs in colour only, which both hashes ignore.
None of them survives a crop.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_HASH_BITS = 4
"""Two pictures are alike if at most so many of the 64 bits of each hash differ …"""
MAX_THUMBNAIL_LEVELS = 10
"""… and no channel of any thumbnail pixel differs by more than this, of 255."""
FLAT_LEVELS = 3
"""Smaller differences between neighbours are noise of compression, which flat areas are full of."""
THUMBNAIL_SIDE = 4


class Look(NamedTuple):
    """What a picture looks like."""

    phash: int
    """64 bits, as a signed number for Parquet and DuckDB."""
    dhash: int
    """64 bits, as a signed number."""
    thumbnail: bytes
    """RGB, 4 x 4."""
    contrast: float
    """Standard deviation of the brightness over the picture, in levels of 255."""


def look_at(image: Image.Image) -> Look:
    """Hashes, thumbnail and contrast of an RGB picture."""
    if min(image.size) >= 1_024:
        image = image.reduce(min(image.size) // 512)  # large pictures cost far less this way; small ones would change their hashes
    grey = image.convert("L")
    small = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), np.float32)
    waves = (_cosines() @ small @ _cosines().T)[:8, :8].ravel()
    row = np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS), np.int16)
    thumbnail = image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    return Look(
        phash=_number(waves > np.median(waves[1:])),
        dhash=_number((row[:, 1:] - row[:, :-1] > FLAT_LEVELS).ravel()),
        thumbnail=thumbnail.tobytes(),
        contrast=float(np.asarray(grey.resize((64, 64), Image.Resampling.NEAREST), np.float32).std()),
    )


class LookIndex:
    """Finds pictures that look alike without comparing all with all.

    Hashes that differ in at most 4 bits agree in at least one of 5 groups of bits, so only pictures that share a group are compared.
    """

    def __init__(self, phashes: NDArray[np.int64], dhashes: NDArray[np.int64], thumbnails: NDArray[np.uint8]) -> None:
        """One entry per picture; thumbnails are uint8 [N, 48]."""
        self._phashes = phashes.astype(np.int64).view(np.uint64)
        self._dhashes = dhashes.astype(np.int64).view(np.uint64)
        self._thumbnails = thumbnails.reshape(-1, THUMBNAIL_SIDE**2 * 3).astype(np.int16)
        self._bands = [self._sort(shift, width) for shift, width in _BANDS]

    def alike(self, i: int) -> NDArray[np.int64]:
        """Places of the pictures that look like the i-th, itself among them, in ascending order."""
        return self.find(int(self._phashes[i].view(np.int64)), int(self._dhashes[i].view(np.int64)), self._thumbnails[i])

    def find(self, phash: int, dhash: int, thumbnail: NDArray[np.generic]) -> NDArray[np.int64]:
        """Places of the pictures that look like this one."""
        wanted_phash, wanted_dhash = np.int64(phash).view(np.uint64), np.int64(dhash).view(np.uint64)
        near = []
        for (shift, width), (keys, order) in zip(_BANDS, self._bands, strict=True):
            key = (wanted_phash >> np.uint64(shift)) & np.uint64((1 << width) - 1)
            low, high = np.searchsorted(keys, key, "left"), np.searchsorted(keys, key, "right")
            places = order[low:high]
            places = places[np.bitwise_count(self._phashes[places] ^ wanted_phash) <= MAX_HASH_BITS]
            near.append(places[np.bitwise_count(self._dhashes[places] ^ wanted_dhash) <= MAX_HASH_BITS])
        places = np.unique(np.concatenate(near))
        differences = np.abs(self._thumbnails[places] - thumbnail.astype(np.int16))
        alike: NDArray[np.int64] = places[differences.max(axis=1, initial=0) <= MAX_THUMBNAIL_LEVELS]
        return alike

    def _sort(self, shift: int, width: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        keys = (self._phashes >> np.uint64(shift)) & np.uint64((1 << width) - 1)
        order = np.argsort(keys, kind="stable")
        return keys[order], order


_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))


@cache
def _cosines() -> NDArray[np.float32]:
    """The first 8 rows of the discrete cosine transform of 32 values."""
    frequency, place = np.arange(8)[:, None], np.arange(32)[None]
    return np.cos(np.pi * frequency * (2 * place + 1) / 64).astype(np.float32)


def _number(bits: NDArray[np.bool_]) -> int:
    return int(np.packbits(bits).view(">i8")[0])
