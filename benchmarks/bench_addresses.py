"""How much memory and time discovery and download take as the number of addresses grows, against holding the addresses as Python objects.

    python benchmarks/bench_addresses.py [NUM_ADDRESSES ...]

A URL table, one row in ten a repeat; nobody listens at the addresses, so the download is all book-keeping: one pass and one retry of
everything. Each measurement runs in a process of its own.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from timing import in_child, peak_mb

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.download.download_images import download_images
from dalle_datasets.sources.base import Drop, FoundImage
from dalle_datasets.sources.discover import discover
from dalle_datasets.sources.tables import read_table
from dalle_datasets.store.layout import Layout

TABLE = "addresses.parquet"
ROWS_AT_ONCE = 10_000
IMPORTED_S = time.process_time()
DOWNLOAD = DownloadConfig(
    runner="threads", retries=1, retry_wait_s=0.1, num_threads=8, allow_addresses=("127.0.0.1",), requests_per_s_per_host=0
)


def write_table(root: Path, num_addresses: int) -> None:
    """A table of addresses with captions."""
    schema = pa.schema([("url", pa.string()), ("text", pa.string())])
    with pq.ParquetWriter(root / TABLE, schema) as file:
        for first in range(0, num_addresses, ROWS_AT_ONCE):
            numbers = [i if i % 10 else i // 2 for i in range(first, min(num_addresses, first + ROWS_AT_ONCE))]
            digests = [hashlib.sha256(b"%d" % number).hexdigest() for number in numbers]
            urls = [f"http://127.0.0.1:9/{digest[:24]}/picture-{number}.jpg" for digest, number in zip(digests, numbers, strict=True)]
            texts = [f"a photo of the thing {digest[24:40]}, number {number}" for digest, number in zip(digests, numbers, strict=True)]
            file.write_table(pa.table([urls, texts], schema=schema))


def in_python(root: Path) -> dict[str, Any]:
    """The naive form: every address an object, in a list."""

    class Listed:
        def __init__(self) -> None:
            self.found: list[FoundImage] = []

        def add(self, found: Iterable[FoundImage] = (), drops: Iterable[Drop] = ()) -> None:
            self.found += found

    result = Listed()
    read_table(root / TABLE, TABLE, result)  # type: ignore[arg-type]
    return taken(len({(found.image_url, found.caption): found for found in result.found}))


def discovered(root: Path) -> dict[str, Any]:
    """The stage."""
    return taken(discover(_source(root), DOWNLOAD, Layout(root)).num_candidates)


def downloaded(root: Path) -> dict[str, Any]:
    """The stage."""
    return taken(download_images(_source(root), DOWNLOAD, Layout(root)).num_candidates)


def taken(num_candidates: int) -> dict[str, Any]:
    """What this process took since its imports."""
    return {"candidates": num_candidates, "seconds": time.process_time() - IMPORTED_S, "mb": peak_mb()}


def _source(root: Path) -> SourceConfig:
    return SourceConfig(kind="url_tables", inputs=(str(root / TABLE),))


def main() -> None:
    """Measure and print one line for each number of addresses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("num_addresses", type=int, nargs="*", default=[2_000, 100_000])
    for num_addresses in parser.parse_args().num_addresses:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_table(root, num_addresses)
            found = {what.__name__: in_child("bench_addresses", what.__name__, root) for what in (in_python, discovered, downloaded)}
            assert len({row["candidates"] for row in found.values()}) == 1
            figures = "; ".join(
                f"{name} {row['mb']:.0f} MB, {1e6 * row['seconds'] / num_addresses:.0f} CPU µs an address" for name, row in found.items()
            )
            print(f"{num_addresses} addresses: {figures}", flush=True)


if __name__ == "__main__":
    main()
