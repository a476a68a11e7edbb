"""Training batches of captions and image tokens, a pure function of (seed, step), so that no state is saved.

The order of an epoch, the same for any number of readers:

    1. row groups in random order, cut into windows of about `window_rows` rows
    2. the rows of a window in random order
    3. batch `step` is the next `batch_size` rows of that endless sequence of epochs; reader r of W takes its r-th part

So a training that continues at step 1,234, on another number of machines, sees the batches it would have seen, and no
pair twice in an epoch. Only one or two windows are in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dalle_datasets.loading.row_order import RowGroup, batch_tables, row_groups
from dalle_datasets.store.parquet import SchemaError, list_parts
from dalle_datasets.store.schemas import TRAINING_SET

NO_TOKEN = -1
WINDOW_ROWS = 65_536
"""Rows shuffled together: at 1,024 tokens a row, 134 MB."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Rows of a training set."""

    pair_ids: NDArray[np.int64]
    """[B]"""
    captions: list[str]
    """B raw captions, for BPE dropout."""
    text_tokens: NDArray[np.int64]
    """[B, max_text_tokens], `NO_TOKEN` after a caption's end."""
    image_tokens: NDArray[np.int64]
    """[B, num_image_tokens], row-major."""

    def __len__(self) -> int:
        return len(self.pair_ids)

    def take(self, rows: NDArray[np.int64]) -> "TokenBatch":
        """Some of the rows."""
        captions = [self.captions[i] for i in rows.tolist()]
        return TokenBatch(self.pair_ids[rows], captions, self.text_tokens[rows], self.image_tokens[rows])


class TokenBatches:
    """One split of a training set's Parquet parts."""

    def __init__(
        self,
        directory: Path,
        split: str,
        *,
        text_vocab_size: int,
        max_text_tokens: int,
        codebook_size: int,
        num_image_tokens: int,
        window_rows: int = WINDOW_ROWS,
    ) -> None:
        """Look at the parts' footers. Raises `ValueError` when the split has no rows, `SchemaError` for a part of another kind."""
        self.directory, self.split = directory, split
        self.text_vocab_size, self.max_text_tokens = text_vocab_size, max_text_tokens
        self.codebook_size, self.num_image_tokens = codebook_size, num_image_tokens
        self.window_rows = window_rows
        self._groups = [group for path in list_parts(directory) for group in row_groups(path, TRAINING_SET, split)]
        self.num_rows = sum(group.num_rows for group in self._groups)
        if not self.num_rows:
            raise ValueError(f"{directory} has no rows of split {split!r}; check what the training set's query selects")

    def batches(self, batch_size: int, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1) -> Iterator[TokenBatch]:
        """This reader's share of every batch from `start_step` on, without end. `world_size` divides `batch_size`."""
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
        for _, rows in tables:
            yield self._batch(rows)

    def in_order(self, batch_size: int) -> Iterator[TokenBatch]:
        """Every row once, as stored; the last batch may be smaller."""
        for start in range(0, len(self._groups)):
            table = self._read([self._groups[start]]).table
            for first in range(0, table.num_rows, batch_size):
                yield self._batch(table.slice(first, batch_size))

    def captions(self) -> Iterator[list[str]]:
        """Every row's caption, as stored, one list for each row group; reads no tokens."""
        for group in self._groups:
            with pq.ParquetFile(group.path) as file:
                table = file.read_row_group(group.index, columns=["split", "caption"])
            yield table.filter(pc.equal(table["split"], self.split))["caption"].to_pylist()

    def _read(self, groups: list[RowGroup]) -> "_Rows":
        tables = []
        for group in groups:
            with pq.ParquetFile(group.path) as file:
                table = file.read_row_group(group.index, columns=["pair_id", "split", "caption", "text_tokens", "image_tokens"])
            table = table.filter(pc.equal(table["split"], self.split)).drop_columns("split")
            self._check(group, table)
            tables.append(table)
        return _Rows(pa.concat_tables(tables).combine_chunks())

    def _check(self, group: RowGroup, table: pa.Table) -> None:
        """Tokens that do not belong to the model's vocabularies would train a model of something else, or crash it."""
        where = f"{group.path} (row group {group.index})"
        lengths = pc.unique(pc.list_value_length(table["image_tokens"])).to_pylist()
        if lengths != [self.num_image_tokens]:
            raise SchemaError(
                f"{where}: image_tokens has {lengths} tokens a row, expected {self.num_image_tokens} (dvae.image_size / dvae.downsample, "
                "squared); export the training set again for this dVAE"
            )
        largest = pc.max(pc.list_flatten(table["image_tokens"])).as_py()
        if largest >= self.codebook_size:
            raise SchemaError(
                f"{where}: image token {largest} is outside the codebook of {self.codebook_size} (dvae.codebook_size); "
                "export the training set again for this dVAE"
            )
        largest = pc.max(pc.list_flatten(table["text_tokens"])).as_py()
        if largest is not None and largest >= self.text_vocab_size:
            raise SchemaError(
                f"{where}: text token {largest} is outside the vocabulary of {self.text_vocab_size}; "
                "export the training set again for this tokenizer"
            )

    def _batch(self, table: pa.Table) -> TokenBatch:
        image_tokens = pc.list_flatten(table["image_tokens"]).to_numpy()
        return TokenBatch(
            pair_ids=table["pair_id"].to_numpy(),
            captions=table["caption"].to_pylist(),
            text_tokens=pad_tokens(table["text_tokens"].to_pylist(), self.max_text_tokens),
            image_tokens=image_tokens.reshape(table.num_rows, self.num_image_tokens).astype(np.int64),
        )


def pad_tokens(token_lists: list[list[int]], length: int) -> NDArray[np.int64]:
    """[len(token_lists), length]; longer lists keep their beginning, shorter ones end in `NO_TOKEN`."""
    padded = np.full((len(token_lists), length), NO_TOKEN, np.int64)
    for row, tokens in zip(padded, token_lists, strict=True):
        row[: len(tokens)] = tokens[:length]
    return padded


@dataclass(frozen=True, slots=True)
class _Rows:
    table: pa.Table

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        return self.table.take(rows)
