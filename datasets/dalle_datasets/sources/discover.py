"""Stage 1: find candidates, that is addresses of images with a caption, and say why others were left out."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.download.fetching import Visitor
from dalle_datasets.identity import candidate_id, content_id
from dalle_datasets.layout import Layout
from dalle_datasets.parquet import SchemaError, check_parquet, read_parquet, write_parquet
from dalle_datasets.schemas import CANDIDATES, DROPPED_PAIRS, PAGES
from dalle_datasets.sources.archives import read_archive
from dalle_datasets.sources.base import Discovered, Drop, Found, SeenPage, check_source, open_source, page_guard
from dalle_datasets.sources.crawl import crawl
from dalle_datasets.sources.documents import Reader, read_documents
from dalle_datasets.sources.local_files import read_folder, read_tar
from dalle_datasets.sources.tables import read_table
from dalle_datasets.stage import Report, begin, finish, finished, inputs_id, silent

VERSION = 2
CANDIDATES_FILE = "candidates.parquet"
PAGES_FILE = "pages.parquet"
DROP_ORDER = ("candidate_id", "page_url", "reason")


@dataclass(frozen=True, slots=True)
class DiscoverResult:
    """What discovery found."""

    candidates_id: str
    num_candidates: int
    num_new: int
    """Candidates that this run added."""
    num_pages: int
    """Pages (or documents) read, or unchanged since they were read."""
    num_unchanged: int
    """How many of them did not change since an earlier run, and were not read again."""
    num_pages_left: int
    """Pages known but not asked for, because of `source.max_pages`."""
    dropped: dict[str, int]
    candidates: str
    """Path of the candidates, relative to the data root."""
    skipped: bool = False
    """True if nothing had to be done."""


def discover(
    source: SourceConfig, download: DownloadConfig, layout: Layout, report: Report = silent, refresh: bool = False
) -> DiscoverResult:
    """Read a source and write its candidates and the drops of this stage.

    Nothing happens if that was done before with the same settings, unless `refresh`: then only what changed since is read
    (conditional requests, new documents), and new candidates are added to the old ones.
    Raises `ValueError` when not one captioned image was found.
    """
    folder = layout.source(source.name)
    inputs = inputs_id("discover", VERSION, replace(source, port=0), list(download.allow_addresses))
    if not refresh and (earlier := finished(folder, inputs)) is not None:
        return DiscoverResult(**{**earlier, "num_new": 0, "skipped": True})
    check_source(source)
    known, old = _known(folder, source) if refresh else ({}, None)
    begin(folder)
    read = _read(source, download, known, report)
    found, drops = _unique(read.found, read.drops, old)
    candidates = _candidates_table(found, source.name)
    num_new = candidates.num_rows
    if old is not None:
        new = candidates.filter(pc.invert(pc.is_in(candidates["candidate_id"], old["candidate_id"].combine_chunks())))
        num_new = new.num_rows
        candidates = pa.concat_tables([old, new]).sort_by("candidate_id")
    if not candidates.num_rows:
        raise ValueError(_explain_nothing(source, read, drops))
    path = folder / CANDIDATES_FILE
    write_parquet(path, candidates, CANDIDATES)
    drops_path = layout.dropped(source.name) / "discover.parquet"
    dropped = drops_table(drops, source.name)
    if old is not None:
        dropped = _with_earlier(dropped, drops_path, read.read_anew)
    write_parquet(drops_path, dropped, DROPPED_PAIRS)
    # Last: a page that is known will not be read again, so everything that was found on it is there before.
    write_parquet(folder / PAGES_FILE, _pages_table(read.pages), PAGES, metadata={"reader": _reader_id(source)})
    result = DiscoverResult(
        candidates_id=content_id("candidates", *candidates["candidate_id"].to_pylist()),
        num_candidates=candidates.num_rows,
        num_new=num_new,
        num_pages=len(read.pages),
        num_unchanged=read.num_unchanged,
        num_pages_left=read.num_left,
        dropped=dict(sorted(Counter(dropped["reason"].to_pylist()).items())),
        candidates=layout.relative(path),
    )
    finish(folder, inputs, asdict(result))
    return result


def _read(source: SourceConfig, download: DownloadConfig, known: Mapping[str, SeenPage], report: Report) -> Discovered:
    """Everything that the source has to offer and `known` does not cover."""
    with open_source(source) as (start_urls, connect_to):
        guard = page_guard(source, download, connect_to)
        if source.kind in ("emoji_scenes", "web_pages"):
            visitor = Visitor(guard, download.requests_per_s_per_host)
            return crawl(source, start_urls, visitor, guard.user_agent_token, known, download.num_threads, report)
        readers: dict[str, Reader] = {
            "web_archives": partial(read_archive, user_agent_token=guard.user_agent_token),
            "url_tables": read_table,
            "image_folders": read_folder,
            "webdatasets": read_tar,
        }
        return read_documents(source, guard, known, readers[source.kind], report)


def _known(folder: Path, source: SourceConfig) -> tuple[dict[str, SeenPage], pa.Table | None]:
    """Pages and candidates of an earlier run of the same reader."""
    try:
        footer = check_parquet(folder / PAGES_FILE, PAGES)
        if (footer.metadata or {}).get(b"reader") != _reader_id(source).encode():
            return {}, None
        pages = [SeenPage(**row) for row in read_parquet(folder / PAGES_FILE, PAGES).to_pylist()]
        return {page.page_url: page for page in pages}, read_parquet(folder / CANDIDATES_FILE, CANDIDATES)
    except SchemaError:
        return {}, None


def _reader_id(source: SourceConfig) -> str:
    """What decides what is found on a page; bounds do not."""
    return inputs_id(VERSION, source.kind, source.user_agent, source.scene_size)


def _pages_table(pages: list[SeenPage]) -> pa.Table:
    return pa.Table.from_pylist([page._asdict() for page in sorted(pages)], schema=PAGES)


def _unique(found: list[Found], drops: list[Drop], old: pa.Table | None) -> tuple[list[Found], list[Drop]]:
    """The first of every (address, caption), in this run or an earlier one; the others become drops."""
    fields = ("image_url", "caption", "page_url")
    earlier = zip(*(old[name].to_pylist() for name in fields), strict=True) if old is not None else ()
    first_page = {(image_url, caption): page_url for image_url, caption, page_url in earlier}
    first: dict[tuple[str, str], Found] = {}
    again = []
    for item in found:
        key = (item.image_url, item.caption)
        page_url = first_page.setdefault(key, item.page_url)
        if key not in first and page_url == item.page_url:
            first[key] = item
        else:
            again.append(Drop("duplicate_candidate", f"already found on {page_url}", item.page_url, item.image_url, item.caption))
    return list(first.values()), drops + again


def _with_earlier(dropped: pa.Table, path: Path, read_anew: set[str]) -> pa.Table:
    """`dropped` and the drops of earlier runs that still hold: of pages that were not read again."""
    try:
        earlier = read_parquet(path, DROPPED_PAIRS).to_pylist()
    except SchemaError:
        return dropped
    now = set(zip(dropped["candidate_id"].to_pylist(), dropped["page_url"].to_pylist(), strict=True))
    kept = [row for row in earlier if row["page_url"] not in read_anew and (row["candidate_id"], row["page_url"]) not in now]
    rows = pa.concat_tables([dropped, pa.Table.from_pylist(kept, schema=DROPPED_PAIRS)])
    return rows.sort_by([(name, "ascending") for name in DROP_ORDER])


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
    rows.sort(key=lambda row: [row[name] for name in DROP_ORDER])
    return pa.Table.from_pylist(rows, schema=DROPPED_PAIRS)


def _explain_nothing(source: SourceConfig, read: Discovered, drops: list[Drop]) -> str:
    where = {"web_pages": "source.start_urls", "emoji_scenes": "source.kind=emoji_scenes"}.get(source.kind, "source.inputs")
    reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(drop.reason for drop in drops).most_common(3)) or "no images"
    example = f"; for example {drops[0].page_url}: {drops[0].detail}" if drops else ""
    return (
        f"{where}: no captioned image in {len(read.pages)} documents ({reasons}{example}); "
        "check the addresses, and download.allow_addresses if the site is on a private network"
    )


def candidates_path(layout: Layout, source: str) -> Path:
    """Where discovery leaves its candidates."""
    return layout.source(source) / CANDIDATES_FILE
