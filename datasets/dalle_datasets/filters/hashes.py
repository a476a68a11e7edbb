"""Perceptual hashes: numbers that stay nearly the same when a picture is scaled or recompressed.

Two hashes must agree, because each alone confuses flat clip art: pHash (signs of the lowest frequencies) and dHash (is a pixel
brighter than its left neighbour). A tiny colour thumbnail tells apart what differs in colour only, which both hashes ignore.
None of them survives a crop.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_HASH_BITS = 4
"""Two pictures are near duplicates if at most this many of the 64 bits of each hash differ …"""
MAX_THUMBNAIL_LEVELS = 10
"""… and no channel of any thumbnail pixel differs by more than this, of 255."""
FLAT_LEVELS = 3
"""Smaller differences between neighbours are noise of compression, which flat areas are full of."""
THUMBNAIL_SIDE = 4
THUMBNAIL_BYTES = THUMBNAIL_SIDE**2 * 3
SMALL_SIDE = 128
"""Larger pictures are first brought down …"""
REDUCED_SIDE = 80
"""… to this side: half the cost, and as many copies are found (`benchmarks/RESULTS.md`). 64 would find fewer copies of flat drawings."""


class Fingerprint(NamedTuple):
    """What a picture looks like."""

    phash: int
    """64 bits, as a signed number for Parquet and DuckDB."""
    dhash: int
    """64 bits, as a signed number."""
    thumbnail: bytes
    """RGB, 4 x 4."""
    contrast: float
    """Standard deviation of the brightness over the picture, in levels of 255."""


def fingerprint_of(image: Image.Image) -> Fingerprint:
    """Hashes, thumbnail and contrast of an RGB picture."""
    samples = np.asarray(image.resize((64, 64), Image.Resampling.NEAREST).convert("L"), np.float32)
    if min(image.size) > SMALL_SIDE:
        image = image.resize((REDUCED_SIDE, REDUCED_SIDE), Image.Resampling.BICUBIC, reducing_gap=1.5)
    gray = image.convert("L")
    small = np.asarray(gray.resize((32, 32), Image.Resampling.LANCZOS), np.float32)
    waves = (_cosines() @ small @ _cosines().T)[:8, :8].ravel()
    row = np.asarray(gray.resize((9, 8), Image.Resampling.LANCZOS), np.int16)
    thumbnail = image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    return Fingerprint(
        phash=_number(waves > np.partition(waves[1:], 31)[31]),  # the median of 63; `np.median` takes four times as long
        dhash=_number((row[:, 1:] - row[:, :-1] > FLAT_LEVELS).ravel()),
        thumbnail=thumbnail.tobytes(),
        contrast=float(samples.std()),
    )


class Fingerprints(NamedTuple):
    """What N pictures look like, 64 bytes each."""

    phashes: NDArray[np.uint64]
    dhashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]
    """[N, 48]"""

    @classmethod
    def of(cls, fingerprints: list[Fingerprint]) -> Self:
        """In their order."""
        return cls(
            np.array([look.phash for look in fingerprints], np.int64).view(np.uint64),
            np.array([look.dhash for look in fingerprints], np.int64).view(np.uint64),
            np.frombuffer(b"".join(look.thumbnail for look in fingerprints), np.uint8).reshape(-1, THUMBNAIL_BYTES),
        )

    def take(self, places: NDArray[np.int64]) -> Self:
        """Some of them."""
        return type(self)(self.phashes[places], self.dhashes[places], self.thumbnails[places])


MAX_COMPARED = 2**21
"""Pairs that are compared at once: 100 MB of temporary arrays."""
# Hashes that differ in at most 4 bits agree in at least one of 5 groups of bits.
_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))


def find_near_duplicates(left: Fingerprints, right: Fingerprints) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Places (in `left`, in `right`) of all pictures that look alike, each pair once, in no particular order.

    Both hashes must share a group of bits, so for each of the 25 choices of two groups only pictures that have the same 26 bits
    there are compared: the work grows with N log N as long as no look is very frequent.
    """
    for p_band in range(len(_BANDS)):
        for d_band in range(len(_BANDS)):
            right_keys = _keys(right, p_band, d_band)
            order = np.argsort(right_keys, kind="stable")
            right_keys = right_keys[order]
            left_keys = _keys(left, p_band, d_band)
            low = np.searchsorted(right_keys, left_keys, "left")
            num_compared = np.searchsorted(right_keys, left_keys, "right") - low
            for first, end in _cut(num_compared):
                i, j = _expand(low[first:end], num_compared[first:end])
                i, j = i + first, order[j]
                near = np.bitwise_count(left.phashes[i] ^ right.phashes[j]) <= MAX_HASH_BITS
                i, j = i[near], j[near]
                near = np.bitwise_count(left.dhashes[i] ^ right.dhashes[j]) <= MAX_HASH_BITS
                i, j = i[near], j[near]
                differences = np.abs(left.thumbnails[i].astype(np.int16) - right.thumbnails[j])
                near = differences.max(axis=1, initial=0) <= MAX_THUMBNAIL_LEVELS
                # Pictures that share several groups meet several times; only the first time counts.
                near &= (_first_shared(left.phashes[i] ^ right.phashes[j]) == p_band) & (
                    _first_shared(left.dhashes[i] ^ right.dhashes[j]) == d_band
                )
                yield i[near], j[near]


def _keys(fingerprints: Fingerprints, p_band: int, d_band: int) -> NDArray[np.uint32]:
    """One group of bits of either hash."""
    bits = (_band(fingerprints.phashes, p_band) << np.uint64(13)) | _band(fingerprints.dhashes, d_band)
    return bits.astype(np.uint32)


def _band(hashes: NDArray[np.uint64], band: int) -> NDArray[np.uint64]:
    shift, width = _BANDS[band]
    return (hashes >> np.uint64(shift)) & np.uint64((1 << width) - 1)


def _first_shared(differences: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The first group in which no bit differs."""
    shared: NDArray[np.int64] = np.stack([_band(differences, band) == 0 for band in range(len(_BANDS))]).argmax(0)
    return shared


def _cut(counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of rows whose counts add up to about `MAX_COMPARED`; never less than one row."""
    ends = np.cumsum(counts)
    first = 0
    while first < len(counts):
        before = int(ends[first - 1]) if first else 0
        end = max(first + 1, int(np.searchsorted(ends, before + MAX_COMPARED, "right")))
        yield first, end
        first = end


def _expand(low: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row i of these ranges, and every place low[i] … low[i] + counts[i] - 1 of it."""
    i = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    return i, np.arange(len(i)) - np.repeat(starts - low, counts)


@cache
def _cosines() -> NDArray[np.float32]:
    """The first 8 rows of the discrete cosine transform of 32 values."""
    frequency, place = np.arange(8)[:, None], np.arange(32)[None]
    return np.cos(np.pi * frequency * (2 * place + 1) / 64).astype(np.float32)


def _number(bits: NDArray[np.bool_]) -> int:
    return int(np.packbits(bits).view(">i8")[0])
