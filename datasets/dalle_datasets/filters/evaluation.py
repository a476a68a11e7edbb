"""Decontamination: pictures of an evaluation set must not be trained on, in whatever file they come.

(The paper found 21% of MS-COCO's validation images in its training set by near-duplicate search.)
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dalle_datasets.filters.hashes import Look, LookIndex, look_at
from dalle_datasets.images import ImageError, decode_image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})


class EvaluationSet:
    """Pictures to stay away from."""

    def __init__(self, places: tuple[str, ...], max_pixels: int) -> None:
        """Read folders of images and Parquet files with a column `image`.

        Raises `ValueError` for a place that does not exist or holds no picture.
        """
        self._names: list[str] = []
        looks: list[Look] = []
        for place in places:
            before = len(looks)
            for name, data in _read(Path(place).expanduser()):
                try:
                    looks.append(look_at(decode_image(data, max_pixels)))
                    self._names.append(name)
                except ImageError:
                    continue
            if len(looks) == before:
                raise ValueError(
                    f"filter.evaluation_images has {place!r}, which holds no picture; give a folder of images or a Parquet file"
                )
        self._index = index_looks(looks)

    def overlap(self, look: Look) -> str | None:
        """Name of a picture that looks like this one."""
        alike = self._index.find(look.phash, look.dhash, np.frombuffer(look.thumbnail, np.uint8))
        return self._names[int(alike[0])] if len(alike) else None


def index_looks(looks: list[Look]) -> LookIndex:
    """An index over the looks of pictures, in their order."""
    return LookIndex(
        np.array([look.phash for look in looks], np.int64),
        np.array([look.dhash for look in looks], np.int64),
        np.frombuffer(b"".join(look.thumbnail for look in looks), np.uint8),
    )


def _read(place: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every picture."""
    if place.is_dir():
        for path in sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES):
            yield path.relative_to(place).as_posix(), path.read_bytes()
    elif place.is_file():
        row = 0
        with pq.ParquetFile(place) as file:
            for batch in file.iter_batches(256, columns=["image"]):
                for data in batch.column(0).to_pylist():
                    yield f"{place.name} row {row}", data or b""
                    row += 1
