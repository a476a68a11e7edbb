"""Stage 1: find candidates, that is URLs of images with a caption, and say why others were left out."""

import itertools
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.demo.demo_site import START_URL
from dalle_datasets.sources.archives import read_archive
from dalle_datasets.sources.base import clean_url
from dalle_datasets.sources.blocked import read_blocks
from dalle_datasets.sources.crawl import crawl, host_of
from dalle_datasets.sources.discovered import (
    DROPS_FILE,
    FATES_FILE,
    FINDS,
    PAGES_FILE,
    PAGES_IN_GROUP,
    READ,
    UNCHANGED,
    DiscoveryWriter,
    KnownPages,
)
from dalle_datasets.sources.documents import Reader, documents_id, kind_of_document, list_documents, read_documents
from dalle_datasets.sources.local_files import read_folder, read_tar
from dalle_datasets.sources.opening import check_source, open_source, page_guard
from dalle_datasets.sources.settle import CHOSEN_FILE, FINDS_FILE, SETTLED_DROPS_FILE, Fate, Fates, Settled, settle, units_of
from dalle_datasets.sources.sitemaps import UNIT
from dalle_datasets.sources.tables import read_table
from dalle_datasets.store.buckets import by_key, read_tables
from dalle_datasets.store.identity import fingerprint
from dalle_datasets.store.ids import content_id, content_id_of
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.manifest import Report, commit, invalidate, load_if_current, no_progress, result_of
from dalle_datasets.store.parquet import RowsWriter, SchemaError, atomic_path, check_parquet, iter_file
from dalle_datasets.store.schemas import CANDIDATES, DROPPED_PAIRS, PAGES
from dalle_datasets.web.client import PoliteClient
from dalle_datasets.web.failures import FAILURES

logger = logging.getLogger(__name__)

VERSION = 3
CRAWLED = frozenset({"emoji_scenes", "web_pages", "mixed"})
"""Kinds of sources whose pages are followed."""
CANDIDATES_FILE = "candidates.parquet"
DECIDED_FILE = "decided"
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
    documents_id: str = ""
    """Of the files on this machine that were read."""
    skipped: bool = False
    """True if nothing had to be done."""


def discover(
    source: SourceConfig, download: DownloadConfig, layout: Layout, report: Report = no_progress, refresh: bool = False
) -> DiscoverResult:
    """Read a source and write its candidates and the drops of this stage.

    Nothing happens if that was done before with the same settings, unless `refresh`, or files on this machine have changed: then only
    what changed since is read, and what the source does not show any more, or has opted out of, is withdrawn with a reason.
    What is on the block list is not asked for, and not kept.
    Raises `ValueError` when not one captioned image was found; then everything is as it was.
    """
    folder, blocks = layout.source(source.name), read_blocks(layout)
    inputs = fingerprint("discover", VERSION, source, list(download.allow_addresses))
    work = folder / "work"
    _move_decided(layout, source.name, work)
    earlier = load_if_current(folder, inputs)
    check_source(source)
    documents = _documents_id(source, is_needed=refresh or earlier is None)
    if not refresh and earlier is not None and documents in (None, earlier.get("documents_id")):
        return DiscoverResult(**{**earlier, "num_new": 0, "skipped": True})
    known = _known(folder, source) if refresh or earlier is not None else None
    shutil.rmtree(work, ignore_errors=True)
    with DiscoveryWriter(work, source.name, blocks) as read:
        _read(source, download, known, read, report)
    if read.num_blocked:
        logger.info("%d things of source %r are on the block list (%s) and stay out", read.num_blocked, source.name, layout.blocked)
    state = folder / FINDS_FILE if _is_of(folder / FINDS_FILE, FINDS) else folder / CANDIDATES_FILE
    settled = _settle(layout, source, (state, known.units) if known else (None, frozenset()), read)
    decided = work / "decided"
    decided.mkdir()
    (work / FINDS_FILE).replace(decided / FINDS_FILE)
    _write_candidates(decided / CANDIDATES_FILE, work)
    dropped = _write_drops(decided / DROPS_FILE, layout.dropped(source.name) / "discover.parquet" if known else None, decided, work)
    _write_pages(decided / PAGES_FILE, work, source)
    result = DiscoverResult(
        candidates_id=candidates_id(decided / CANDIDATES_FILE),
        num_candidates=settled.num_candidates,
        num_new=settled.num_new,
        num_pages=read.num_pages,
        num_unchanged=read.num_unchanged,
        num_pages_left=read.num_left,
        dropped=dropped,
        candidates=layout.relative(candidates_path(layout, source.name)),
        documents_id=documents or "",
    )
    with atomic_path(decided / DECIDED_FILE) as partial:
        partial.write_text("what lies here takes its place, whoever comes next\n")
    invalidate(folder)
    _move_decided(layout, source.name, work)
    commit(folder, inputs, asdict(result))
    return result


def _documents_id(source: SourceConfig, is_needed: bool) -> str | None:
    """Id of the files that the source reads, None if they are not on this machine. Raises `ValueError` if that matters."""
    if source.kind in ("emoji_scenes", "web_pages") or not source.inputs:
        return None
    try:
        return documents_id(source.inputs)
    except ValueError as error:
        if is_needed:
            raise
        logger.warning("%s; the pairs of source %r stay as they were", error, source.name)
        return None


def _move_decided(layout: Layout, source: str, work: Path) -> None:
    """Put the files of a run that has decided everything in their places: also those of a run that was killed while it did."""
    decided = work / "decided"
    if (decided / DECIDED_FILE).exists():
        places = {name: layout.source(source) / name for name in (FINDS_FILE, CANDIDATES_FILE, PAGES_FILE)}
        places[DROPS_FILE] = layout.dropped(source) / "discover.parquet"
        for name, place in places.items():
            if (decided / name).exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                (decided / name).replace(place)
        shutil.rmtree(work)


def _settle(layout: Layout, source: SourceConfig, before: tuple[Path | None, frozenset[str]], read: DiscoveryWriter) -> Settled:
    """Compare what was found with the earlier finds. Raises `ValueError` if nothing is left that only an opt-out could have withdrawn.

    A source that shows nothing today, or a file of which nothing is left, may be a disk that is not there or a site that is being
    repaired: its finds stay.
    """
    earlier, units = before
    fates = Fates(read.folder, _covers(source))
    is_read = [unit for unit in units if fates.of.get(unit, Fate("")).code == READ]
    emptied = frozenset(unit for unit in is_read if not unit.startswith(("http://", "https://", UNIT)) and not read.num_finds_of[unit])
    settled = settle(read.folder, earlier, fates, source.name, True, emptied)
    shows_nothing = not read.num_found and not read.num_unchanged
    if settled.num_absent and (shows_nothing or not settled.num_candidates):
        absent = settled.absent
        settled = settle(read.folder, earlier, fates, source.name, False, emptied)
        if not settled.num_opted_out:
            raise ValueError(_explain_empty(layout, source, settled.num_candidates, absent))
    elif emptied and shows_nothing and not settled.num_opted_out:
        raise ValueError(_explain_empty(layout, source, settled.num_candidates, Counter()))
    for unit in sorted(emptied):
        logger.warning(
            "%s shows no captioned image today; those of earlier stay. If it is empty for good, take it out of source.inputs", unit
        )
    if not settled.num_candidates and (earlier is None or not settled.num_opted_out):
        raise ValueError(_explain_nothing(source, read))
    return settled


def _covers(source: SourceConfig) -> Callable[[str], bool]:
    """Whether a page or document is one of the source with these settings."""
    documents, hosts = frozenset(list_documents(source.inputs)), set[str]()
    if source.kind in CRAWLED:
        starts = (START_URL,) if source.kind == "emoji_scenes" else source.start_urls
        hosts = {host_of(clean_url(url)) for url in starts}

    def covers(unit: str) -> bool:
        is_page = host_of(unit.removeprefix(UNIT)) in hosts and (source.use_sitemaps or not unit.startswith(UNIT))
        return unit in documents or is_page

    return covers


def _read(source: SourceConfig, download: DownloadConfig, known: KnownPages | None, result: DiscoveryWriter, report: Report) -> None:
    """Everything that the source has to offer and `known` does not cover."""
    with open_source(source) as (start_urls, connect_to):
        limits = page_guard(source, download, connect_to)
        if source.kind in CRAWLED and start_urls:
            client = PoliteClient(limits, download.requests_per_s_per_host)
            crawl(source, start_urls, client, limits.user_agent_token, known, download.num_threads, result, report)
        readers: dict[str, Reader] = {
            "web_archives": partial(read_archive, user_agent_token=limits.user_agent_token),
            "url_tables": read_table,
            "image_folders": partial(read_folder, caption_lines=source.caption_lines),
            "webdatasets": partial(read_tar, caption_lines=source.caption_lines),
        }

        def read_any(path: Path, document: str, result: DiscoveryWriter) -> None:
            readers[kind_of_document(path)](path, document, result)

        if source.inputs:
            read_documents(source, limits, known, readers.get(source.kind, read_any), result, report)


def _known(folder: Path, source: SourceConfig) -> KnownPages | None:
    """Pages of an earlier run, if its candidates are there too; read by other rules, they are to be read again."""
    path, finds, candidates = (folder / name for name in (PAGES_FILE, FINDS_FILE, CANDIDATES_FILE))
    if not _is_of(path, PAGES) or not _is_of(candidates, CANDIDATES):
        return None
    is_current = pq.read_metadata(path).metadata.get(b"reader") == _reader_id(source).encode()
    return KnownPages(path, units_of(finds if _is_of(finds, FINDS) else candidates), is_current)


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


def _write_candidates(path: Path, work: Path) -> None:
    """Write the chosen finds by id: a rerun makes the same file."""
    with RowsWriter(path, CANDIDATES) as candidates:
        for bucket in by_key(work, "candidate_id", chosen=read_tables([work / CHOSEN_FILE], CANDIDATES)):
            for row in sorted(bucket["chosen"].to_pylist(), key=itemgetter("candidate_id")):
                candidates.append(row)


def _write_drops(path: Path, earlier: Path | None, decided: Path, work: Path) -> dict[str, int]:
    """Write the drops of this run, and the earlier ones that still hold. Counts the reasons."""
    fates = {row["page_url"]: row["code"] for row in pq.read_table(work / FATES_FILE, partitioning=None).to_pylist()}

    def holds(row: dict[str, Any]) -> bool:
        """Not what is found again, and of a page that was asked only what it would say again."""
        code = fates.get(row["page_url"])
        if row["reason"] == "duplicate_candidate":
            return False
        if code is None or (code == UNCHANGED and (row["image_url"] or row["reason"] not in FAILURES)):
            return True
        return code == row["reason"] and bool(row["image_url"])

    tables = read_tables([earlier] if earlier and _is_of(earlier, DROPPED_PAIRS) else [], DROPPED_PAIRS)
    now = read_tables([work / DROPS_FILE, work / SETTLED_DROPS_FILE], DROPPED_PAIRS)
    current = read_tables([decided / CANDIDATES_FILE], CANDIDATES, ["candidate_id"])
    dropped: Counter[str] = Counter()
    with RowsWriter(path, DROPPED_PAIRS) as writer:
        for bucket in by_key(work, "candidate_id", earlier=tables, now=now, current=current):
            rows = bucket["now"].to_pylist()
            seen = {(row["candidate_id"], row["page_url"]) for row in rows}
            is_there = set(bucket["current"]["candidate_id"].to_pylist())
            for row in filter(holds, bucket["earlier"].to_pylist()):
                if (row["candidate_id"], row["page_url"]) not in seen and row["candidate_id"] not in is_there:
                    rows.append(row)
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


def _explain_empty(layout: Layout, source: SourceConfig, num_candidates: int, absent: Counter[str]) -> str:
    """What to do about a source that held something yesterday."""
    reasons = f" ({', '.join(f'{reason} {count}' for reason, count in absent.most_common(3))})" if absent else ""
    return (
        f"source {source.name!r} shows no captioned image today{reasons}; the {num_candidates} of earlier stay as they were. Collect "
        f"again when the disk or site is back; if it is empty for good, delete {layout.source(source.name)} and {layout.pairs(source.name)}"
    )


def _explain_nothing(source: SourceConfig, read: DiscoveryWriter) -> str:
    names = {"web_pages": "source.start_urls", "emoji_scenes": "source.kind=emoji_scenes", "mixed": "source.start_urls, source.inputs"}
    where = names.get(source.kind, "source.inputs")
    counts = read.reasons + Counter({"blocked": read.num_blocked})
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common(3)) or "no images"
    example = f"; for example {read.first_drop.page_url}: {read.first_drop.detail}" if read.first_drop else ""
    return (
        f"{where}: no captioned image in {read.num_pages} documents ({reasons}{example}); "
        "check the addresses, and download.allow_addresses if the site is on a private network"
    )


def candidates_path(layout: Layout, source: str) -> Path:
    """Where discovery leaves its candidates."""
    return layout.source(source) / CANDIDATES_FILE


def recorded_documents_id(layout: Layout, source: str) -> str:
    """Id of the files on this machine as the last discovery saw them, empty if it read none."""
    return str(result_of(layout.source(source)).get("documents_id", ""))


def candidates_id(path: Path) -> str:
    """Id of a file of candidates, whatever else it says of them. Raises `SchemaError`."""
    ids = (id for batch in iter_file(path, CANDIDATES, ["candidate_id"]) for id in batch["candidate_id"].to_pylist())
    return content_id_of(itertools.chain(["candidates"], ids))
