"""Training batches of square uint8 pictures from pairs in Parquet, a pure function of (seed, step).

So a training that was killed and started again sees what it would have seen (`row_order` says in which order).
Three ways to make a picture square: `centre` (always the same pixels), the paper's augmentation for the dVAE (Listing 1)
and its near-centre crop for the transformer (Listing 2).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from dalle_datasets.images import ImageError, decode_image
from dalle_datasets.loading.row_order import RowGroup, batch_tables, row_groups, seeded_random
from dalle_datasets.store.parquet import list_parts
from dalle_datasets.store.schemas import PAIRS

Pixels = NDArray[np.uint8]
Square = Callable[[Pixels, int, np.random.Generator], Pixels]
"""(picture [H, W, 3], side, randomness) -> picture [side, side, 3]."""

WINDOW_ROWS = 16_384
"""Rows shuffled together: about 2 GB of encoded pictures of 100 KB."""
KEEP_BYTES = 2**28
"""Pictures that never change are decoded once and kept, if all of them take no more than this."""
MAX_PIXELS = 2**27
"""Larger than any picture that the download lets through."""


def centre(image: Pixels, side: int, rng: np.random.Generator) -> Pixels:
    """The centred square, area-resized. No randomness."""
    height, width = image.shape[:2]
    short = min(height, width)
    return _resize(_crop(image, (height - short) // 2, (width - short) // 2, short), side)


def dvae_augmentation(image: Pixels, side: int, rng: np.random.Generator) -> Pixels:
    """Listing 1 without its flip: a random square of the short side, area-resized to 9/8 to 12/8 of `side`, then a random crop."""
    height, width = image.shape[:2]
    short = min(height, width)
    image = _crop(image, _randint(rng, 0, height - short), _randint(rng, 0, width - short), short)
    return _resize_and_crop(image, min(short, round(9 / 8 * side)), min(short, round(12 / 8 * side)), side, rng)


def dvae_augmentation_with_flip(image: Pixels, side: int, rng: np.random.Generator) -> Pixels:
    """Listing 1: as `dvae_augmentation`, mirrored half of the time."""
    image = dvae_augmentation(image, side, rng)
    return np.ascontiguousarray(image[:, ::-1]) if rng.random() < 0.5 else image


def transformer_augmentation(image: Pixels, side: int, rng: np.random.Generator) -> Pixels:
    """Listing 2: a square near the centre, area-resized to at most 9/8 of `side`, then a random crop; no flip: pictures hold text."""
    height, width = image.shape[:2]
    short = min(height, width)
    top = _randint(rng, 3 * (height - short) // 8, max(3 * (height - short) // 8, 5 * (height - short) // 8 - 1))
    left = _randint(rng, 3 * (width - short) // 8, max(3 * (width - short) // 8, 5 * (width - short) // 8 - 1))
    return _resize_and_crop(_crop(image, top, left, short), side, min(short, round(9 / 8 * side)), side, rng)


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Some pairs with their pictures."""

    pair_ids: NDArray[np.int64]
    """[B]"""
    captions: list[str]
    images: Pixels
    """[B, side, side, 3]"""

    def __len__(self) -> int:
        return len(self.pair_ids)


class ImageBatches:
    """The pairs of one split, in a folder of Parquet parts."""

    def __init__(
        self, directory: Path, split: str, side: int, *, square: Square = centre, num_threads: int = 0, window_rows: int = WINDOW_ROWS
    ) -> None:
        """Look at the parts' footers. `num_threads` threads decode (Pillow releases Python's lock); 0 decodes in the caller's.

        Raises `ValueError` when the split has no pairs, `SchemaError` for a part of another kind.
        """
        self.side, self.square, self.num_threads, self.window_rows = side, square, num_threads, window_rows
        self._groups = [group for path in list_parts(directory) for group in row_groups(path, PAIRS, split)]
        self.split = split
        self.num_rows = sum(group.num_rows for group in self._groups)
        if not self.num_rows:
            raise ValueError(f"{directory} has no pairs of split {split!r}; run the filter stage first, or change filter.validation_share")
        self._kept: dict[int, Pixels] | None = {} if square is centre and self.num_rows * side * side * 3 <= KEEP_BYTES else None

    def batches(self, batch_size: int, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1) -> Iterator[ImageBatch]:
        """This reader's share of every batch from `start_step` on, without end.

        Raises `ValueError` when the batch does not split evenly over the processes, or a picture cannot be decoded.
        """
        tables = batch_tables(
            self._groups,
            self._read,
            window_rows=self.window_rows,
            batch_size=batch_size,
            seed=seed,
            start_step=start_step,
            rank=rank,
            world_size=world_size,
        )
        with ThreadPoolExecutor(max(1, self.num_threads)) as threads:
            for first, rows in tables:
                yield self._batch(rows, seed, first, threads)

    def in_order(self, batch_size: int, seed: int = 0) -> Iterator[ImageBatch]:
        """Every pair once, as stored; the last batch may be smaller. Raises `ValueError` when a picture cannot be decoded."""
        first, waiting = 0, self._read(self._groups[:1])
        with ThreadPoolExecutor(max(1, self.num_threads)) as threads:
            for group in [*self._groups[1:], None]:
                while waiting.num_rows >= batch_size or (group is None and waiting.num_rows):
                    batch = self._batch(waiting.slice(0, batch_size), seed, first, threads)
                    first, waiting = first + len(batch), waiting.slice(batch_size)
                    yield batch
                if group is not None:
                    waiting = pa.concat_tables([waiting, self._read([group])]).combine_chunks()

    def _read(self, groups: list[RowGroup]) -> pa.Table:
        tables = []
        for group in groups:
            with pq.ParquetFile(group.path) as file:
                table = file.read_row_group(group.index, columns=["pair_id", "split", "caption", "image"])
            tables.append(table.filter(pc.equal(table["split"], self.split)).drop_columns("split"))
        return pa.concat_tables(tables).combine_chunks()

    def _batch(self, rows: pa.Table, seed: int, first: int, threads: ThreadPoolExecutor) -> ImageBatch:
        pair_ids = rows["pair_id"].to_numpy()
        work = [(int(pair_id), data, (seed, first + i)) for i, (pair_id, data) in enumerate(zip(pair_ids, rows["image"], strict=True))]
        pictures = threads.map(self._picture, work) if self.num_threads else map(self._picture, work)
        return ImageBatch(pair_ids, rows["caption"].to_pylist(), np.stack(list(pictures)))

    def _picture(self, work: tuple[int, pa.BinaryScalar, tuple[int, int]]) -> Pixels:
        pair_id, data, key = work
        if self._kept is not None and pair_id in self._kept:
            return self._kept[pair_id]
        try:
            pixels = np.asarray(decode_image(data.as_py(), MAX_PIXELS))
        except ImageError as error:
            raise ValueError(f"pair {pair_id}: its picture cannot be decoded ({error}); run the filter stage again") from error
        picture = self.square(pixels, self.side, seeded_random(*key))
        if self._kept is not None:
            self._kept[pair_id] = picture
        return picture


def _crop(image: Pixels, top: int, left: int, side: int) -> Pixels:
    return image[top : top + side, left : left + side]


def _randint(rng: np.random.Generator, low: int, high: int) -> int:
    """Uniform in [low, high]."""
    return int(rng.integers(low, high + 1))


def _resize_and_crop(image: Pixels, smallest: int, largest: int, side: int, rng: np.random.Generator) -> Pixels:
    size = max(side, _randint(rng, smallest, largest)) if largest >= smallest else side  # a small picture grows to fit
    image = _resize(image, size)
    return _crop(image, _randint(rng, 0, size - side), _randint(rng, 0, size - side), side)


def _resize(image: Pixels, side: int) -> Pixels:
    """A square picture at another size: area averages when it shrinks, bicubic when it grows."""
    if image.shape[0] == side:
        return np.ascontiguousarray(image)
    how = Image.Resampling.BOX if image.shape[0] > side else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((side, side), how))
