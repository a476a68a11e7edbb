"""Forgotten pictures in the files of a collection: every row about them, wherever they were found, and taking those rows out.

What is asked for by an address, a page, a host, a digest or a look stands for pictures. A row is about one of them if it names the
address, or if its bytes or its pixels are the same; so a copy on another page or in another source goes, too.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dalle_datasets.download.recheck import SEEN, SEEN_FILE
from dalle_datasets.filters.hashes import Fingerprint, Fingerprints, find_near_duplicates
from dalle_datasets.filters.pair_parts import count_pairs
from dalle_datasets.sources.blocked import Block, BlockList, block
from dalle_datasets.sources.discover import CANDIDATES_FILE, candidates_id
from dalle_datasets.sources.discovered import FINDS, PAGES_FILE, PAGES_IN_GROUP
from dalle_datasets.sources.settle import FINDS_FILE
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.manifest import amend, invalidate
from dalle_datasets.store.parquet import RowsWriter, SchemaError, check_parquet, filter_rows, iter_file, list_parts, open_parquet
from dalle_datasets.store.schemas import CANDIDATES, COLLECTED, DROPPED_PAIRS, IMAGES, MEASURES, PAGES, PAIRS
from dalle_datasets.web.failures import FORGOTTEN

_ABOUT = ("candidate_id", "image_url", "url", "page_url", "unit", "sha256", "pixel_sha256", "status", "pair_id", "split")
"""Columns that say which picture a row is about."""


@dataclass(slots=True)
class Forgotten:
    """Everything that a data root has of some pictures."""

    candidate_ids: set[str] = field(default_factory=set)
    """Of pictures, and of pages that were dropped."""
    pair_ids: set[int] = field(default_factory=set)
    urls: set[str] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)
    """SHA-256 of bytes and of pixels."""
    sources: set[str] = field(default_factory=set)
    """Sources that have some of their pairs."""
    shown: set[str] = field(default_factory=set)
    """Sources in whose validation split they are: pictures of that are drawn beside what a dVAE made of them."""

    @property
    def blocks(self) -> list[Block]:
        """The entries that keep these pictures out, whatever was asked for."""
        return [*(block("url", url) for url in sorted(self.urls)), *(block("picture", digest) for digest in sorted(self.digests))]


def pack_look(look: Fingerprint) -> str:
    """The value of a look in a block list."""
    return (look.phash.to_bytes(8, "big", signed=True) + look.dhash.to_bytes(8, "big", signed=True) + look.thumbnail).hex()


def sources_of(layout: Layout) -> list[str]:
    """Every source that has files under the data root."""
    folders = (
        layout.source("x"),
        layout.images("x"),
        layout.measures("x"),
        layout.pairs("x"),
        layout.dropped("x"),
        layout.collections("x"),
    )
    return sorted({path.name for folder in folders for path in folder.parent.glob("*/")})


def find_forgotten(layout: Layout, blocks: BlockList, sources: Iterable[str]) -> Forgotten:
    """Everything about pictures on a block list, and about copies of them. Raises `SchemaError` for a broken file."""
    found, sources = Forgotten(), list(sources)
    for source in sources:
        found.candidate_ids |= _alike(layout, source, blocks)
    is_first, before = True, -1
    while before != (before := len(found.candidate_ids) + len(found.urls) + len(found.digests)):
        for source in sources:
            for row in _rows(layout, source):
                if (
                    row["candidate_id"] in found.candidate_ids
                    or row["image_url"] in found.urls
                    or not found.digests.isdisjoint(row["digests"])
                    or (is_first and _is_blocked(row, blocks))
                ):
                    _take(found, source, row)
        is_first = False
    return found


def _is_blocked(row: dict[str, Any], blocks: BlockList) -> bool:
    return (
        row.get("status") == FORGOTTEN
        or blocks.has_address(row["image_url"], row.get("page_url"), row.get("unit"))
        or blocks.has_picture(*row["digests"])
    )


def _take(found: Forgotten, source: str, row: dict[str, Any]) -> None:
    found.candidate_ids.add(row["candidate_id"])
    found.digests.update(row["digests"])
    if row["image_url"]:
        found.urls.add(row["image_url"])
    if "pair_id" in row:
        found.pair_ids.add(row["pair_id"])
        found.sources.add(source)
        if row["split"] == "validation":
            found.shown.add(source)


def _files(layout: Layout, source: str) -> Iterator[tuple[Path, pa.Schema]]:
    """The files of a source with a row for each candidate."""
    folder = layout.source(source)
    for path, schema in ((folder / FINDS_FILE, FINDS), (folder / CANDIDATES_FILE, CANDIDATES)):
        if path.exists():
            yield path, schema
    for folder, schema in (
        (layout.images(source), IMAGES),
        (layout.measures(source), MEASURES),
        (layout.pairs(source), PAIRS),
        (layout.dropped(source), DROPPED_PAIRS),
        (layout.collections(source), COLLECTED),
    ):
        yield from ((path, schema) for path in list_parts(folder) if schema is not MEASURES or _is_current(path))


def _is_current(path: Path) -> bool:
    """Whether measures are of this version; those of another are made again by the next collection."""
    try:
        check_parquet(path, MEASURES)
    except SchemaError:
        return False
    return True


def _rows(layout: Layout, source: str) -> Iterator[dict[str, Any]]:
    """Which picture every row of a source is about."""
    for path, schema in _files(layout, source):
        for batch in iter_file(path, schema, [name for name in _ABOUT if name in schema.names]):
            for row in batch.to_pylist():
                row["image_url"] = row.get("image_url") or row.get("url") or ""
                row["digests"] = [row[name] for name in ("sha256", "pixel_sha256") if row.get(name)]
                yield row


def _alike(layout: Layout, source: str, blocks: BlockList) -> set[str]:
    """Candidates that look like a forgotten picture."""
    if not (looks := blocks.looks):
        return set()
    numbers = np.array([[int.from_bytes(look[:8], "big"), int.from_bytes(look[8:16], "big")] for look in looks], np.uint64)
    thumbnails = np.frombuffer(b"".join(look[16:] for look in looks), np.uint8).reshape(len(looks), -1)
    wanted, alike = Fingerprints(numbers[:, 0].copy(), numbers[:, 1].copy(), thumbnails), set()
    columns = ["candidate_id", "phash", "dhash", "thumbnail", "contrast"]
    for part in filter(_is_current, list_parts(layout.measures(source))):
        for batch in iter_file(part, MEASURES, columns):
            rows = batch.filter(pc.and_(batch["phash"].is_valid(), batch["thumbnail"].is_valid())).to_pylist()
            seen = Fingerprints.of([Fingerprint(row["phash"], row["dhash"], row["thumbnail"], row["contrast"]) for row in rows])
            for _, places in find_near_duplicates(wanted, seen):
                alike |= {rows[place]["candidate_id"] for place in places.tolist()}
    return alike


def forget_in_source(layout: Layout, source: str, found: Forgotten, blocks: BlockList) -> dict[str, int]:
    """Take all rows about some pictures out of the files of a source: file -> rows that went.

    `blocks` also say which pages and links go.
    """
    removed: dict[str, int] = {}

    def keep(path: Path, num_rows: int) -> None:
        if num_rows:
            removed[layout.relative(path)] = num_rows

    gone = pa.array(sorted(found.candidate_ids), pa.string())
    for path, schema in list(_files(layout, source)):
        if schema is DROPPED_PAIRS:
            keep(path, _change_rows(path, schema, lambda row: _without_mention(row, found.candidate_ids)))
        else:
            keep(path, remove_rows(path, "candidate_id", gone))
    for path in list_parts(layout.measures(source)):
        if not _is_current(path):
            path.unlink()
    folder = layout.source(source)
    if (pages := folder / PAGES_FILE).exists():
        keep(pages, _change_rows(pages, PAGES, lambda row: _without_links(row, blocks), PAGES_IN_GROUP))
    if (seen := folder / SEEN_FILE).exists():
        check_parquet(seen, SEEN)
        keep(seen, filter_rows(seen, ["image_url"], lambda batch: _mask(not _is_named(url, found, blocks) for url in batch[0].to_pylist())))
    _vouch_again(layout, source)
    return removed


def remove_rows(path: Path, column: str, values: pa.Array) -> int:
    """Take the rows out of a file whose `column` is one of `values`; returns how many."""
    return filter_rows(path, [column], lambda batch: pc.invert(pc.is_in(batch[column], values)))


def _is_named(url: str, found: Forgotten, blocks: BlockList) -> bool:
    return url in found.urls or blocks.has_address(url)


def _mask(values: Iterable[bool]) -> pa.BooleanArray:
    return pa.array(list(values), pa.bool_())


def _without_mention(row: dict[str, Any], candidate_ids: set[str]) -> dict[str, Any] | None:
    """A drop that does not name a forgotten picture; None if it is about one."""
    if row["candidate_id"] in candidate_ids:
        return None
    said, _, last = row["detail"].rpartition(" ")  # 'looks like 0123456789abcdef'
    return {**row, "detail": f"{said} one that was forgotten"} if last in candidate_ids else row


def _without_links(row: dict[str, Any], blocks: BlockList) -> dict[str, Any] | None:
    if blocks.has_page(row["page_url"]):
        return None
    return {**row, "links": [link for link in row["links"] if not blocks.has_address(link, link)]}


def _change_rows(path: Path, schema: pa.Schema, change: Callable[[dict[str, Any]], dict[str, Any] | None], group_size: int = 4_096) -> int:
    """Write a file again with every row as `change` has it, or without it; returns how many are not as they were."""
    num_changed: int = sum(change(row) != row for batch in iter_file(path, schema) for row in batch.to_pylist())
    if num_changed:
        with open_parquet(path) as file, RowsWriter(path, file.schema_arrow, group_size) as writer:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    if (changed := change(row)) is not None:
                        writer.append(changed)
    return num_changed


def _vouch_again(layout: Layout, source: str) -> None:
    """Let the manifests of a source say what its files hold now, so that nothing is asked or judged again because of what went."""
    candidates = layout.source(source) / CANDIDATES_FILE
    if candidates.exists():
        num_candidates = check_parquet(candidates, CANDIDATES).num_rows
        amend(layout.source(source), candidates_id=candidates_id(candidates), num_candidates=num_candidates)
    folder = layout.pairs(source)
    for part in list_parts(folder):
        if not check_parquet(part, PAIRS).num_rows:
            part.unlink()
    if list_parts(folder):
        pairs_id, num_train, num_validation = count_pairs(folder)
        amend(folder, pairs_id=pairs_id, num_pairs=num_train + num_validation, num_train=num_train, num_validation=num_validation)
    elif folder.exists():
        invalidate(folder)
