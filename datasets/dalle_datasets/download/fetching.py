"""Fetching many images with threads: inside img2dataset's workers, for retry passes, and for small sources.

One row per URL comes out, whatever happens: bytes and their SHA-256, or a code of the closed set.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from dalle_datasets.store.parquet import write_parquet
from dalle_datasets.web.failures import OK, FetchError

FETCHED = pa.schema(
    [
        pa.field("image_url", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("image", pa.binary()),
    ],
    metadata={"schema": "fetched", "version": "1"},
)


class Fetched(NamedTuple):
    """What became of one URL."""

    image_url: str
    status: str
    error: str | None
    sha256: str | None
    image: bytes | None


def fetch_shard(image_urls: list[str], path: Path, fetch_image: Callable[[str], bytes], num_threads: int, tick: Callable[[], None]) -> None:
    """Fetch `image_urls` and write their rows to `path`, in the same order; `tick` is called after each."""
    write_parquet(path, fetched_table(_fetch_all(image_urls, fetch_image, num_threads, tick)), FETCHED)


def fetched_table(rows: Iterable[Fetched]) -> pa.Table:
    """Rows as a table of the schema `FETCHED`."""
    columns = list(zip(*rows, strict=True)) or [()] * len(FETCHED)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, FETCHED.types, strict=True)], schema=FETCHED)


def _fetch_all(image_urls: list[str], fetch_image: Callable[[str], bytes], num_threads: int, tick: Callable[[], None]) -> Iterator[Fetched]:
    def one(image_url: str) -> Fetched:
        try:
            image = fetch_image(image_url)
            return Fetched(image_url, OK, None, hashlib.sha256(image).hexdigest(), image)
        except FetchError as error:
            return Fetched(image_url, error.code, error.detail, None, None)
        finally:
            tick()

    with ThreadPoolExecutor(num_threads) as pool:
        yield from pool.map(one, image_urls)
