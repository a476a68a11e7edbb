"""Stage 1: find candidates, that is addresses of images with a caption, and say why others were left out."""

import logging
import urllib.parse
from collections import Counter, deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.download.failures import FetchError
from dalle_datasets.download.guard import Guard, fetch
from dalle_datasets.download.robots import Robots
from dalle_datasets.identity import candidate_id, content_id
from dalle_datasets.layout import Layout
from dalle_datasets.parquet import write_parquet
from dalle_datasets.schemas import CANDIDATES, DROPPED_PAIRS
from dalle_datasets.sources.base import Drop, Found, clean_url, open_source, page_guard
from dalle_datasets.sources.html import read_page, same_site
from dalle_datasets.stage import Report, begin, finish, finished, inputs_id, silent

VERSION = 1
CANDIDATES_FILE = "candidates.parquet"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DiscoverResult:
    """What discovery found."""

    candidates_id: str
    num_candidates: int
    num_pages: int
    """Pages read."""
    num_pages_left: int
    """Pages known but not asked for, because of `source.max_pages`."""
    dropped: dict[str, int]
    candidates: str
    """Path of the candidates, relative to the data root."""
    skipped: bool = False
    """True if nothing had to be done."""


def discover(source: SourceConfig, download: DownloadConfig, layout: Layout, report: Report = silent) -> DiscoverResult:
    """Read the pages of a source and write its candidates and the drops of this stage.

    Raises `ValueError` when not one captioned image was found.
    """
    folder = layout.source(source.name)
    inputs = inputs_id("discover", VERSION, replace(source, port=0), list(download.allow_addresses))
    if (earlier := finished(folder, inputs)) is not None:
        return DiscoverResult(**{**earlier, "skipped": True})
    if source.kind == "web_pages" and not source.start_urls:
        raise ValueError("source.start_urls is empty, so there is no page to read; give at least one address")
    begin(folder)
    with open_source(source) as (start_urls, connect_to):
        crawl = _Crawl(source, start_urls, page_guard(source, download, connect_to))
        crawl.run(report)
    found, drops = _unique(crawl.found, crawl.drops)
    if not found:
        raise ValueError(_explain_nothing(source, crawl, drops))
    candidates = _candidates_table(found, source.name)
    path = folder / CANDIDATES_FILE
    write_parquet(path, candidates, CANDIDATES)
    write_parquet(layout.dropped(source.name) / "discover.parquet", drops_table(drops, source.name), DROPPED_PAIRS)
    result = DiscoverResult(
        candidates_id=content_id("candidates", *candidates["candidate_id"].to_pylist()),
        num_candidates=candidates.num_rows,
        num_pages=crawl.num_pages,
        num_pages_left=len(crawl.queue),
        dropped=dict(sorted(Counter(drop.reason for drop in drops).items())),
        candidates=layout.relative(path),
    )
    finish(folder, inputs, asdict(result))
    return result


class _Crawl:
    """Follows links breadth-first on the hosts of the start addresses, one request at a time."""

    def __init__(self, source: SourceConfig, start_urls: tuple[str, ...], guard: Guard) -> None:
        self.max_pages = source.max_pages
        self.guard = guard
        self.robots = Robots(guard)
        self.queue = deque(dict.fromkeys(clean_url(url) for url in start_urls))
        self.seen = set(self.queue)
        self.hosts = frozenset(urllib.parse.urlsplit(url).netloc for url in self.queue)
        self.found: list[Found] = []
        self.drops: list[Drop] = []
        self.num_pages = 0

    def run(self, report: Report) -> None:
        """Read pages until there is none left or `max_pages` were asked for."""
        num_asked = 0
        while self.queue and num_asked < self.max_pages:
            self.visit(self.queue.popleft())
            num_asked += 1
            report(num_asked, min(self.max_pages, num_asked + len(self.queue)), "pages", candidates=len(self.found))

    def visit(self, url: str) -> None:
        try:
            self.robots.check(url)
            answer = fetch(url, self.guard)
        except FetchError as error:
            self.drops.append(Drop(error.code, error.detail, url))
            return
        page = read_page(answer.body, clean_url(answer.url), answer.headers, self.guard.user_agent_token)
        self.num_pages += not page.is_closed
        self.found += page.found
        self.drops += page.drops
        for link in page.links:
            if link not in self.seen and same_site(link, self.hosts):
                self.seen.add(link)
                self.queue.append(link)


def _unique(found: list[Found], drops: list[Drop]) -> tuple[list[Found], list[Drop]]:
    """The first of every (address, caption); the others become drops."""
    first: dict[tuple[str, str], Found] = {}
    again = []
    for item in found:
        known = first.setdefault((item.image_url, item.caption), item)
        if known is not item:
            detail = f"already found on {known.page_url}"
            again.append(Drop("duplicate_candidate", detail, item.page_url, item.image_url, item.caption))
    return list(first.values()), drops + again


def _candidates_table(found: list[Found], source: str) -> pa.Table:
    """In the order of their ids, so that a rerun writes the same file whatever the order of the pages."""
    rows: list[dict[str, Any]] = [
        {"candidate_id": candidate_id(item.image_url, item.caption), "source": source, **item._asdict()} for item in found
    ]
    rows.sort(key=lambda row: row["candidate_id"])
    return pa.Table.from_pylist(rows, schema=CANDIDATES)


def drops_table(drops: list[Drop], source: str) -> pa.Table:
    """Drops of discovery: an image has the id it would have had as a candidate, a page one of its own."""
    rows = [
        {
            "candidate_id": candidate_id(drop.image_url, drop.caption) if drop.image_url else content_id("page", drop.page_url),
            "source": source,
            "stage": "discover",
            **drop._asdict(),
        }
        for drop in drops
    ]
    rows.sort(key=lambda row: (row["candidate_id"], row["page_url"], row["reason"]))
    return pa.Table.from_pylist(rows, schema=DROPPED_PAIRS)


def _explain_nothing(source: SourceConfig, crawl: _Crawl, drops: list[Drop]) -> str:
    where = "source.start_urls" if source.kind == "web_pages" else f"source.kind={source.kind}"
    reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(drop.reason for drop in drops).most_common(3)) or "no images"
    example = f"; for example {drops[0].page_url}: {drops[0].detail}" if drops else ""
    return (
        f"{where}: no captioned image on {crawl.num_pages} pages ({reasons}{example}); "
        "check the addresses, and download.allow_addresses if the site is on a private network"
    )


def candidates_path(layout: Layout, source: str) -> Path:
    """Where discovery leaves its candidates."""
    return layout.source(source) / CANDIDATES_FILE
