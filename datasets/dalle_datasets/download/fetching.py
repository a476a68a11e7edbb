"""Fetching many images with threads: inside img2dataset's workers, for retry passes, and for small sources.

One row per address comes out, whatever happens: bytes and their SHA-256, or a code of the closed set.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from dalle_datasets.download.addresses import split_url
from dalle_datasets.download.failures import OK, FetchError
from dalle_datasets.download.guard import Answer, Guard, fetch
from dalle_datasets.download.pace import Pace
from dalle_datasets.download.robots import Robots
from dalle_datasets.parquet import write_parquet

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
    """What became of one address."""

    image_url: str
    status: str
    error: str | None
    sha256: str | None
    image: bytes | None


class Visitor:
    """Asks for images as a good guest does: by the host's rules and at its pace. Safe to share between threads."""

    def __init__(self, guard: Guard, requests_per_s: float) -> None:
        self._guard = guard
        self._robots = Robots(guard)
        self._pace = Pace(requests_per_s, exempt=guard.connect_to)

    def fetch_image(self, image_url: str) -> bytes:
        """The bytes behind an address that may be used. Raises `FetchError`."""
        return self.fetch(image_url).body

    def fetch(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer of an address that may be used. Raises `FetchError`."""
        self._enter(url)
        try:
            return fetch(url, self._guard, headers, before_redirect=self._enter)
        except FetchError as error:
            self._pace.heed(url, error)
            raise

    def _enter(self, url: str) -> None:
        """Return when it is our turn to ask for `url`; it may be where a redirect led us. Raises `FetchError` if we may not."""
        split_url(url)
        self._robots.check(url)
        self._pace.wait(url, self._robots.crawl_delay_s(url))

    def sitemaps(self, url: str) -> list[str]:
        """Sitemap addresses that the host of `url` names."""
        return self._robots.sitemaps(url)


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
