"""Shuffled row order over Parquet parts: a pure function of (seed, epoch) in bounded memory.

Row groups in random order are cut into windows of about `window_rows` rows, and the rows of a window are shuffled
together. So an epoch of any size needs only its row groups' names and one window's rows in memory.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dalle_datasets.store.parquet import check_parquet


@dataclass(frozen=True, slots=True)
class RowGroup:
    """The rows of one split in one Parquet row group."""

    path: Path
    index: int
    num_rows: int
    """Rows of the split in question."""


def row_groups(path: Path, schema: pa.Schema, split: str) -> Iterator[RowGroup]:
    """The row groups of a part that hold rows of a split; from the statistics in the footer where they are enough."""
    footer = check_parquet(path, schema)
    column = schema.names.index("split")
    for index in range(footer.num_row_groups):
        group = footer.row_group(index)
        statistics = group.column(column).statistics
        if statistics is not None and statistics.has_min_max and statistics.min == statistics.max:
            num_rows = group.num_rows if statistics.min == split else 0
        else:
            with pq.ParquetFile(path) as file:
                num_rows = pc.sum(pc.equal(file.read_row_group(index, columns=["split"])["split"], split)).as_py()
        if num_rows:
            yield RowGroup(path, index, num_rows)


class EpochOrder:
    """Where each row of one epoch is."""

    def __init__(self, groups: list[RowGroup], window_rows: int, seed: int, epoch: int) -> None:
        self.seed, self.epoch = seed, epoch
        self._shuffled = [groups[i] for i in seeded_random(seed, epoch, "row groups").permutation(len(groups))]
        ends = np.cumsum([group.num_rows for group in self._shuffled])
        window_of_group = (ends - 1) // window_rows
        self._last_groups = np.flatnonzero(np.diff(window_of_group, append=window_of_group[-1] + 1))
        self._ends = ends[self._last_groups]

    def groups_of(self, window: int) -> list[RowGroup]:
        """The row groups whose rows, one after the other, make a window."""
        first = 0 if window == 0 else int(self._last_groups[window - 1]) + 1
        return self._shuffled[first : int(self._last_groups[window]) + 1]

    def locate(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(window, rows within the window's groups) of the epoch's rows `start` … `stop` - 1."""
        while start < stop:
            window = int(np.searchsorted(self._ends, start, "right"))
            window_start = 0 if window == 0 else int(self._ends[window - 1])
            end = min(stop, int(self._ends[window]))
            order = seeded_random(self.seed, self.epoch, window).permutation(int(self._ends[window]) - window_start)
            yield window, order[start - window_start : end - window_start]
            start = end


class Rows(Protocol):
    """The rows of a window in memory: a `pa.Table`, or what a reader wraps round one."""

    def take(self, rows: NDArray[np.int64], /) -> pa.Table:
        """Some of them."""


def batch_tables(
    groups: list[RowGroup],
    read: Callable[[list[RowGroup]], Rows],
    *,
    window_rows: int,
    batch_size: int,
    seed: int,
    start_step: int,
    rank: int,
    world_size: int,
) -> Iterator[tuple[int, pa.Table]]:
    """(place of its first row in the endless sequence, rows) of this reader's share of every batch from `start_step` on.

    `read` gives the rows of a window's groups; it is called once per window and epoch. Raises `ValueError` when the batch
    does not split evenly over the processes.
    """
    if batch_size % world_size:
        raise ValueError(f"batch_size={batch_size} does not split evenly over {world_size} processes; choose a multiple")
    share, num_rows = batch_size // world_size, sum(group.num_rows for group in groups)
    held: dict[tuple[int, int], Rows] = {}
    order = EpochOrder(groups, window_rows, seed, -1)
    step = start_step
    while True:
        first = step * batch_size + rank * share
        pieces = []
        for epoch, start, stop in epoch_spans(first, first + share, num_rows):
            if order.epoch != epoch:
                order = EpochOrder(groups, window_rows, seed, epoch)
            for window, rows in order.locate(start, stop):
                if (epoch, window) not in held:
                    held = dict(list(held.items())[-1:])  # a batch may end one window and begin the next
                    held[epoch, window] = read(order.groups_of(window))
                pieces.append(held[epoch, window].take(rows))
        yield first, pa.concat_tables(pieces)
        step += 1


def epoch_spans(first: int, last: int, num_rows: int) -> Iterator[tuple[int, int, int]]:
    """(epoch, start, stop) of the endless sequence's rows `first` … `last` - 1."""
    while first < last:
        epoch, start = divmod(first, num_rows)
        stop = min(num_rows, start + last - first)
        yield epoch, start, stop
        first += stop - start


def seeded_random(*key: object) -> np.random.Generator:
    """A generator that depends on the key only, on every machine."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, np.uint64)))
