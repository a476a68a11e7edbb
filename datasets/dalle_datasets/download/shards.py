"""The URLs of a download in shards: one file, a row group for each shard, one shard in memory at a time."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dalle_datasets.store.parquet import atomic_path

NUM_URLS = b"num_urls"


class Shards:
    """Reads a file of `write_shards`. Its rows have an `image_url`, and those of one URL follow each other."""

    def __init__(self, path: Path, urls_per_shard: int) -> None:
        self._file = pq.ParquetFile(path)  # kept open, because its footer describes every shard
        self.urls_per_shard = urls_per_shard
        self.num_urls = int(self._file.metadata.metadata[NUM_URLS])

    def __len__(self) -> int:
        return int(self._file.num_row_groups)

    def rows(self, number: int) -> pa.Table:
        """The rows of one shard."""
        return self._file.read_row_group(number)

    def urls(self, number: int) -> list[str]:
        """The URLs of one shard, each once."""
        return list(dict.fromkeys(self.rows(number)["image_url"].to_pylist()))

    def size(self, number: int) -> int:
        """How many URLs a shard has."""
        return min(self.urls_per_shard, self.num_urls - number * self.urls_per_shard)


def write_shards(path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema, urls_per_shard: int) -> None:
    """Cut `rows`, sorted by URL, into shards of `urls_per_shard` different URLs."""
    with atomic_path(path) as partial, pq.ParquetWriter(partial, schema) as file:
        num_urls = 0
        for shard in _cut(rows, urls_per_shard):
            table = pa.Table.from_pylist(shard, schema)
            file.write_table(table, row_group_size=table.num_rows)
            num_urls += len({row["image_url"] for row in shard})
        file.add_key_value_metadata({NUM_URLS: str(num_urls)})


def _cut(rows: Iterable[dict[str, Any]], urls_per_shard: int) -> Iterator[list[dict[str, Any]]]:
    shard: list[dict[str, Any]] = []
    num_urls = 0
    for row in rows:
        if not shard or row["image_url"] != shard[-1]["image_url"]:
            if num_urls == urls_per_shard:
                yield shard
                shard, num_urls = [], 0
            num_urls += 1
        shard.append(row)
    if shard:
        yield shard
