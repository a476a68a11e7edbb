"""Stage 1: find candidates, that is URLs of images with a caption, and say why others were left out."""

import itertools
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.sources.archives import read_archive
from dalle_datasets.sources.base import Drop
from dalle_datasets.sources.crawl import crawl
from dalle_datasets.sources.discovered import (
    DROPS_FILE,
    FOUND,
    FOUND_FILE,
    PAGES_FILE,
    PAGES_IN_GROUP,
    READ_ANEW_FILE,
    DiscoveryWriter,
    KnownPages,
    drop_row,
)
from dalle_datasets.sources.documents import Reader, read_documents
from dalle_datasets.sources.local_files import read_folder, read_tar
from dalle_datasets.sources.opening import check_source, open_source, page_guard
from dalle_datasets.sources.tables import read_table
from dalle_datasets.store.buckets import by_key, read_tables
from dalle_datasets.store.identity import fingerprint
from dalle_datasets.store.ids import content_id, content_id_of
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.manifest import Report, commit, invalidate, load_if_current, no_progress
from dalle_datasets.store.parquet import RowsWriter, SchemaError, check_parquet, iter_file
from dalle_datasets.store.schemas import CANDIDATES, DROPPED_PAIRS, PAGES
from dalle_datasets.web.client import PoliteClient

VERSION = 3
CANDIDATES_FILE = "candidates.parquet"
AGAIN_FILE = "again.parquet"
DROP_ORDER = ("candidate_id", "page_url", "reason", "image_url", "caption", "detail")


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
    source: SourceConfig, download: DownloadConfig, layout: Layout, report: Report = no_progress, refresh: bool = False
) -> DiscoverResult:
    """Read a source and write its candidates and the drops of this stage.

    Nothing happens if that was done before with the same settings, unless `refresh`: then only what changed since is read
    (conditional requests, new documents), and new candidates are added to the old ones.
    Raises `ValueError` when not one captioned image was found.
    """
    folder = layout.source(source.name)
    inputs = fingerprint("discover", VERSION, source, list(download.allow_addresses))
    if not refresh and (earlier := load_if_current(folder, inputs)) is not None:
        return DiscoverResult(**{**earlier, "num_new": 0, "skipped": True})
    check_source(source)
    known = _known(folder, source) if refresh else None
    invalidate(folder)
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    with DiscoveryWriter(work, source.name) as read:
        _read(source, download, known, read, report)
    path, drops_path = candidates_path(layout, source.name), layout.dropped(source.name) / "discover.parquet"
    num_candidates, num_new = _write_candidates(path, known is not None, read, source)
    dropped = _write_drops(drops_path, known is not None, work)
    # Last: a page that is known will not be read again, so everything that was found on it is there before.
    _write_pages(folder / PAGES_FILE, work, source)
    result = DiscoverResult(
        candidates_id=candidates_id(path),
        num_candidates=num_candidates,
        num_new=num_new,
        num_pages=read.num_pages,
        num_unchanged=read.num_unchanged,
        num_pages_left=read.num_left,
        dropped=dropped,
        candidates=layout.relative(path),
    )
    commit(folder, inputs, asdict(result))
    shutil.rmtree(work)
    return result


def _read(source: SourceConfig, download: DownloadConfig, known: KnownPages | None, result: DiscoveryWriter, report: Report) -> None:
    """Everything that the source has to offer and `known` does not cover."""
    with open_source(source) as (start_urls, connect_to):
        limits = page_guard(source, download, connect_to)
        if source.kind in ("emoji_scenes", "web_pages"):
            client = PoliteClient(limits, download.requests_per_s_per_host)
            crawl(source, start_urls, client, limits.user_agent_token, known, download.num_threads, result, report)
            return
        readers: dict[str, Reader] = {
            "web_archives": partial(read_archive, user_agent_token=limits.user_agent_token),
            "url_tables": read_table,
            "image_folders": partial(read_folder, caption_lines=source.caption_lines),
            "webdatasets": partial(read_tar, caption_lines=source.caption_lines),
        }
        read_documents(source, limits, known, readers[source.kind], result, report)


def _known(folder: Path, source: SourceConfig) -> KnownPages | None:
    """Pages of an earlier run of the same reader, if its candidates are there too."""
    path = folder / PAGES_FILE
    if not _is_of(path, PAGES) or not _is_of(folder / CANDIDATES_FILE, CANDIDATES):
        return None
    return KnownPages(path) if pq.read_metadata(path).metadata.get(b"reader") == _reader_id(source).encode() else None


def _is_of(path: Path, schema: pa.Schema) -> bool:
    """Whether a file is there, whole, and of this schema and version."""
    try:
        check_parquet(path, schema)
    except SchemaError:
        return False
    return True


def _reader_id(source: SourceConfig) -> str:
    """What decides what is found on a page; bounds do not."""
    return fingerprint(VERSION, source.kind, source.user_agent, source.scene_size, source.caption_lines)


def _write_candidates(path: Path, goes_on: bool, read: DiscoveryWriter, source: SourceConfig) -> tuple[int, int]:
    """Write the earlier candidates, if the run goes on from them, and the new ones, by id: a rerun makes the same file.

    The first find of every (address, caption) stays, in this run or an earlier one; the others become drops in `AGAIN_FILE`.
    Returns the numbers of candidates and of new ones. Raises `ValueError` if there are none.
    """
    num_new = 0
    earlier = read_tables([path] if goes_on else [], CANDIDATES)
    found = read_tables([read.folder / FOUND_FILE], FOUND)
    with RowsWriter(path, CANDIDATES) as candidates, RowsWriter(read.folder / AGAIN_FILE, DROPPED_PAIRS) as again:
        for bucket in by_key(read.folder, "candidate_id", earlier=earlier, found=found):
            first = {row["candidate_id"]: row for row in bucket["earlier"].to_pylist()}
            not_seen_again = set(first)
            num_earlier = len(first)
            for find in bucket["found"].sort_by([("reader", "ascending"), ("place", "ascending")]).to_pylist():
                id = find["candidate_id"]
                if id not in first:
                    first[id] = find
                elif id in not_seen_again and find["page_url"] == first[id]["page_url"]:
                    not_seen_again.remove(id)  # the very find of the earlier run
                else:
                    detail = f"already found on {first[id]['page_url']}"
                    drop = Drop("duplicate_candidate", detail, find["page_url"], find["image_url"], find["caption"])
                    again.append(drop_row(drop, source.name))
            num_new += len(first) - num_earlier
            for id in sorted(first):
                candidates.append(first[id])
        if not candidates.num_rows:
            raise ValueError(_explain_nothing(source, read))
        return candidates.num_rows, num_new


def _write_drops(path: Path, goes_on: bool, work: Path) -> dict[str, int]:
    """Write the drops of this run, and those of earlier ones that still hold: of pages that were not read again. Counts the reasons."""
    read_anew = pq.read_table(work / READ_ANEW_FILE)["page_url"].combine_chunks()
    tables = read_tables([path] if goes_on and _is_of(path, DROPPED_PAIRS) else [], DROPPED_PAIRS)
    earlier = (table.filter(pc.invert(pc.is_in(table["page_url"], read_anew))) for table in tables)
    now = read_tables([work / DROPS_FILE, work / AGAIN_FILE], DROPPED_PAIRS)
    dropped: Counter[str] = Counter()
    with RowsWriter(path, DROPPED_PAIRS) as writer:
        for bucket in by_key(work, "candidate_id", earlier=earlier, now=now):
            rows = bucket["now"].to_pylist()
            seen = {(row["candidate_id"], row["page_url"]) for row in rows}
            rows += [row for row in bucket["earlier"].to_pylist() if (row["candidate_id"], row["page_url"]) not in seen]
            for row in sorted(rows, key=itemgetter(*DROP_ORDER)):
                writer.append(row)
                dropped[row["reason"]] += 1
    return dict(sorted(dropped.items()))


def _write_pages(path: Path, work: Path, source: SourceConfig) -> None:
    """Write the pages in the order of a hash, which does not depend on who answered first."""
    key = pa.field("page_id", pa.string())
    tables = (
        table.append_column(key, pa.array([content_id("page", url) for url in table["page_url"].to_pylist()], key.type))
        for table in read_tables([work / PAGES_FILE], PAGES)
    )
    schema = PAGES.with_metadata({**PAGES.metadata, b"reader": _reader_id(source).encode()})
    with RowsWriter(path, schema, PAGES_IN_GROUP) as writer:
        for bucket in by_key(work, "page_id", pages=tables):
            for row in bucket["pages"].sort_by([("page_id", "ascending")]).to_pylist():
                writer.append(row)


def _explain_nothing(source: SourceConfig, read: DiscoveryWriter) -> str:
    where = {"web_pages": "source.start_urls", "emoji_scenes": "source.kind=emoji_scenes"}.get(source.kind, "source.inputs")
    reasons = ", ".join(f"{reason} {count}" for reason, count in read.reasons.most_common(3)) or "no images"
    example = f"; for example {read.first_drop.page_url}: {read.first_drop.detail}" if read.first_drop else ""
    return (
        f"{where}: no captioned image in {read.num_pages} documents ({reasons}{example}); "
        "check the addresses, and download.allow_addresses if the site is on a private network"
    )


def candidates_path(layout: Layout, source: str) -> Path:
    """Where discovery leaves its candidates."""
    return layout.source(source) / CANDIDATES_FILE


def candidates_id(path: Path) -> str:
    """Id of a file of candidates, whatever else it says of them. Raises `SchemaError`."""
    ids = (id for batch in iter_file(path, CANDIDATES, ["candidate_id"]) for id in batch["candidate_id"].to_pylist())
    return content_id_of(itertools.chain(["candidates"], ids))
