"""External join and sort: rows are partitioned by key prefix, and one partition is processed at a time.

Keys are hex digits of a hash, so buckets are equally large, and what is sorted within each bucket is sorted altogether. Up to
`ROWS_IN_MEMORY` rows there is one bucket and no file. With more, a bucket is 1/256 of the rows. (DuckDB's sort was tried first: with a
limit of memory it ends with an error once long texts make some five to ten times that.)
"""

import itertools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dalle_datasets.store.parquet import iter_file

ROWS_IN_MEMORY = 50_000
BYTES_IN_MEMORY = 64 * 2**20
ROWS_AT_ONCE = 1_024
"""Read from a file; a page may have thousands of links."""
_PREFIXES = [f"{number:02x}" for number in range(256)]


def by_key(folder: Path, key: str, **streams: Iterable[pa.Table]) -> Iterator[dict[str, pa.Table]]:
    """The rows of one bucket from every stream, buckets in the order of the keys; within a bucket, in the order they came.

    A stream gives one table at least, which may be empty. What does not fit in memory lies in a folder of `folder` meanwhile.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="buckets-") as scratch:
        partitions = {name: _Partition(tables, key, Path(scratch), name) for name, tables in streams.items()}
        if not any(partition.runs for partition in partitions.values()):
            yield {name: partition.rest for name, partition in partitions.items()}
            return
        for partition in partitions.values():
            partition.spill()
        for number in range(len(_PREFIXES)):
            yield {name: partition.bucket(number) for name, partition in partitions.items()}


def read_tables(paths: Iterable[Path], schema: pa.Schema, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The rows of some files a piece at a time, after an empty table for the case that there are none. Raises `SchemaError`."""
    plain = schema.with_metadata(None).empty_table()
    yield plain.select(columns) if columns else plain
    for path in paths:
        for batch in iter_file(path, schema, columns, ROWS_AT_ONCE):
            yield pa.Table.from_batches([batch]).replace_schema_metadata()


class _Partition:
    """The rows of one stream, in runs of one Arrow batch for each bucket."""

    def __init__(self, tables: Iterable[pa.Table], key: str, folder: Path, name: str) -> None:
        self.runs: list[Path] = []
        self._key, self._folder, self._name = key, folder, name
        held: list[pa.Table] = []
        num_rows = num_bytes = 0
        for table in tables:
            held.append(table)
            num_rows, num_bytes = num_rows + table.num_rows, num_bytes + table.nbytes
            if num_rows > ROWS_IN_MEMORY or num_bytes > BYTES_IN_MEMORY:
                self.rest = pa.concat_tables(held)
                self.spill()
                held, num_rows, num_bytes = [self.rest], 0, 0
        self.rest = pa.concat_tables(held)

    def spill(self) -> None:
        """Write what is in memory as another run."""
        if not self.rest.num_rows:
            return
        prefixes = pc.utf8_slice_codeunits(self.rest[self._key], 0, 2).combine_chunks()
        order = pc.array_sort_indices(prefixes)  # stable
        ends = np.searchsorted(prefixes.take(order).to_numpy(zero_copy_only=False).astype("U2"), _PREFIXES, side="right")
        (batch,) = self.rest.take(order).combine_chunks().to_batches()
        self.runs.append(self._folder / f"{self._name}-{len(self.runs)}.arrow")
        with pa.ipc.new_file(self.runs[-1], batch.schema) as file:
            for start, end in itertools.pairwise([0, *ends.tolist()]):
                file.write_batch(batch.slice(start, end - start))
        self.rest = self.rest.slice(0, 0)

    def bucket(self, number: int) -> pa.Table:
        """The rows of a bucket."""
        pieces = [self.rest]
        for run in self.runs:
            with pa.memory_map(str(run)) as file:
                pieces.append(pa.Table.from_batches([pa.ipc.open_file(file).get_batch(number)]))
        return pa.concat_tables(pieces)
