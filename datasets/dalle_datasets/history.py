"""The record of collections: the outcome of every candidate, to compare the next collection with.

The folders of candidates, images and pairs hold only the newest state. A record is one row for each candidate, without pictures or
captions: some 60 bytes, a thousandth of what it stands for. An old one that nobody asks for can be deleted.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dalle_datasets.store.buckets import by_key, read_tables
from dalle_datasets.store.ids import content_id, file_sha256
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.manifest import MANIFEST
from dalle_datasets.store.parquet import RowsWriter, atomic_path, list_parts
from dalle_datasets.store.schemas import COLLECTED, DROPPED_PAIRS, PAIRS

ORDER = ("candidate_id", "stage", "reason", "page_url")


def record_collection(layout: Layout, source: str, facts: Mapping[str, Any], finished_at: datetime, was_skipped: bool) -> Path | None:
    """Write what became of the candidates of a source, if that is news; returns the Parquet file, which has the facts beside it.

    `was_skipped` says that no stage had anything to do: then a record is written only if the last one says something else, because
    the process was killed before it could be written. `facts` are kept with it: what was read, under which settings.
    """
    earlier = list_parts(layout.collections(source))
    state = _state_id(layout, source)
    is_same = bool(earlier) and read_facts(earlier[-1])["state_id"] == state
    if was_skipped and is_same:
        return None
    number = 1 + (int(earlier[-1].stem.partition("-")[2]) if earlier else 0)
    path = layout.collections(source) / f"run-{number:05d}.parquet"
    # Apart from the rows, because they say when it was: the rows of a collection that was killed and run again are the same bytes.
    said = {"source": source, "number": number, "state_id": state, "finished_at": _as_utc(finished_at), **facts}
    with atomic_path(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(said))
    if is_same:
        with suppress(OSError):  # a file system without hard links: then the same rows are written once more
            path.hardlink_to(earlier[-1])
            return path
    with RowsWriter(path, COLLECTED, row_group_size=100_000) as writer:
        outcomes = _outcomes(layout, source)
        for bucket in by_key(layout.collections(source), "candidate_id", outcomes=outcomes):
            for row in bucket["outcomes"].sort_by([(name, "ascending") for name in ORDER]).to_pylist():
                writer.append(row)
    return path


def _outcomes(layout: Layout, source: str) -> Iterator[pa.Table]:
    """A row for each candidate."""
    for kept in read_tables(list_parts(layout.pairs(source)), PAIRS, ["candidate_id", "image_url", "page_url"]):
        yield _as_collected(kept, kept["image_url"], pa.repeat("kept", kept.num_rows), pa.repeat("", kept.num_rows))
    columns = ["candidate_id", "image_url", "page_url", "stage", "reason"]
    for dropped in read_tables(list_parts(layout.dropped(source)), DROPPED_PAIRS, columns):
        urls = pc.if_else(pc.equal(dropped["image_url"], ""), dropped["page_url"], dropped["image_url"])
        yield _as_collected(dropped, urls, dropped["stage"], dropped["reason"])


def _as_collected(table: pa.Table, urls: pa.Array, stages: pa.Array, reasons: pa.Array) -> pa.Table:
    columns = [table["candidate_id"], urls, table["page_url"], stages, reasons]
    return pa.table(columns, schema=COLLECTED.with_metadata(None))


def read_facts(path: Path) -> dict[str, Any]:
    """What a record says of its collection as a whole. Raises `ValueError` when that has gone."""
    try:
        facts: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path.with_suffix('.json')}: {error}; delete {path.name}, too, and collect again") from error
    return facts


def _state_id(layout: Layout, source: str) -> str:
    """An id of the pairs and drops on disk."""
    drops = map(file_sha256, list_parts(layout.dropped(source)))
    manifest = layout.pairs(source) / MANIFEST  # not there if no pair is left
    return content_id("collection", manifest.read_bytes() if manifest.exists() else b"", *drops)


def _as_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
