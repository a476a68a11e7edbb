"""Parts of pairs, which outlive collections: new pairs become new parts, and a part is written again only if its own pairs change.

Tokens and scores are made part by part, so what is not touched here is not made again either.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dalle_datasets.config import FilterConfig, ShardsConfig
from dalle_datasets.filters import images
from dalle_datasets.filters.candidate_table import CandidateTable, ids_of
from dalle_datasets.filters.candidates import CurrentCandidates
from dalle_datasets.filters.measure import BATCH_ROWS
from dalle_datasets.filters.splits import split_of
from dalle_datasets.images import canonical_bytes, padded_bytes
from dalle_datasets.store.ids import content_id_of, pair_id
from dalle_datasets.store.manifest import Report
from dalle_datasets.store.parquet import (
    PartsWriter,
    RowsWriter,
    SchemaError,
    check_parquet,
    iter_batches,
    list_parts,
    open_parquet,
    read_parquet,
    remove_stale,
)
from dalle_datasets.store.schemas import IMAGES, MEASURES, PAIRS

Row = dict[str, Any]
_TEXT = [name for name in IMAGES.names if name != "image"]
_ABOUT = [name for name in PAIRS.names if name != "image"]


@dataclass(frozen=True)
class Kept:
    """The candidates without a drop code: rows of `schemas.PAIRS`, read where they lie. Places count all measured rows."""

    parts: Sequence[Path]
    """Parts of `schemas.IMAGES`."""
    measures: Sequence[Path]
    """Parts of `schemas.MEASURES`, one for each."""
    table: CandidateTable
    candidates: CurrentCandidates
    settings: FilterConfig
    max_pixels: int

    @cached_property
    def is_kept(self) -> NDArray[np.bool_]:
        """For every place, whether it is a pair."""
        return np.equal(self.table.drops.codes, 0)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The first place of each part, and one past the last."""
        return np.cumsum([0, *(check_parquet(path, MEASURES).num_rows for path in self.measures)])

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        places = np.flatnonzero(self.is_kept)
        order = np.argsort(self.table.candidates[places], kind="stable")
        return self.table.candidates[places[order]], places[order]

    def places_of(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Places of candidates; -1 for those that are no pairs."""
        known, places = self._sorted
        at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return np.where(known[at] == ids, places[at], -1)

    def rows(self, part: int, is_wanted: NDArray[np.bool_], with_images: bool = True) -> Iterator[Row]:
        """The pairs of one part of images whose places are wanted, few at a time in memory."""
        here = is_wanted[self.starts[part] : self.starts[part + 1]]
        if not here.any():
            return
        measured = {row["candidate_id"]: row for row in read_parquet(self.measures[part], MEASURES).filter(pa.array(here)).to_pylist()}
        with open_parquet(self.parts[part]) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=IMAGES.names if with_images else _TEXT):
                chosen = pa.array([candidate_id in measured for candidate_id in batch["candidate_id"].to_pylist()])
                for row in batch.filter(chosen).to_pylist():
                    yield self._pair(row, measured[row["candidate_id"]])

    def _pair(self, row: Row, measured: Row) -> Row:
        width, height = measured["width"], measured["height"]
        is_padded = self.settings.fit == "pad" and width != height
        if is_padded:
            width = height = max(width, height)
        pair = {
            "pair_id": pair_id(f"padded {row['sha256']}" if is_padded else row["sha256"], row["caption"]),
            "split": split_of(measured["pixel_sha256"], self.settings.validation_share),
            "width": width,
            "height": height,
            "aspect_ratio": images.aspect_ratio(width, height),
            **{name: measured[name] for name in ("pixel_sha256", "num_caption_words", "language")},
            **{name: row[name] for name in ("caption", "sha256", "source", "page_url", "image_url", "candidate_id")},
            **self.candidates.origin_of(row["candidate_id"]),
        }
        if "image" in row:
            if is_padded:
                pair["image"] = padded_bytes(row["image"], self.max_pixels)
            else:
                pair["image"] = row["image"] if measured["is_plain"] else canonical_bytes(row["image"], self.max_pixels)
        return pair


def write_pairs(kept: Kept, folder: Path, shards: ShardsConfig, report: Report) -> tuple[str, int, int]:
    """Bring the parts of a folder up to date; returns the id of the set of pairs and the sizes of its splits.

    An empty folder gets parts of `rows_per_part`, in the order of the candidates. The id does not depend on the parts.
    """
    num_kept = int(kept.is_kept.sum())
    is_placed = np.zeros(len(kept.is_kept), np.bool_)
    earlier = list_parts(folder)
    if not all(_fits(path, shards) for path in earlier):
        remove_stale(folder, keep=())
        earlier = []
    for path in earlier:
        _update_part(path, kept, is_placed, shards.row_group_size)
        report(int(is_placed.sum()), num_kept, "pairs")
    done = int(is_placed.sum())
    is_new = kept.is_kept & ~is_placed
    first = 1 + max((_number(path) for path in earlier), default=-1)
    with PartsWriter(folder, PAIRS, shards.rows_per_part, shards.row_group_size, first, list_parts(folder)) as writer:
        for part in range(len(kept.parts)):
            for row in kept.rows(part, is_new):
                writer.append(row)
                done += 1
            report(done, num_kept, "pairs")
    return count_pairs(folder)


def _update_part(path: Path, kept: Kept, is_placed: NDArray[np.bool_], row_group_size: int) -> None:
    """Leave a part alone if all its pairs stay as they are; else write those that stay, with what is said of them now.

    A pair whose picture changed is a withdrawn one and a new one.
    """
    old = read_parquet(path, PAIRS, _ABOUT)
    places = kept.places_of(ids_of(old["candidate_id"]))
    is_wanted = np.zeros(len(is_placed), np.bool_)
    is_wanted[places[places >= 0]] = True
    is_wanted &= ~is_placed  # else an earlier part has it
    parts = np.unique(np.searchsorted(kept.starts, np.flatnonzero(is_wanted), side="right") - 1)
    now = {row["candidate_id"]: row for part in parts for row in kept.rows(part, is_wanted, with_images=False)}
    stays = [
        now.get(row["candidate_id"], {}).get("pair_id") == row["pair_id"] for row in old.select(["candidate_id", "pair_id"]).to_pylist()
    ]
    is_placed[places[np.array(stays, np.bool_)]] = True
    rows = [now[candidate_id] for candidate_id in old.filter(pa.array(stays))["candidate_id"].to_pylist()]
    schema = pa.schema([PAIRS.field(name) for name in _ABOUT])
    if all(stays) and pa.Table.from_pylist(rows, schema).equals(old.replace_schema_metadata()):
        return
    if not rows:
        path.unlink()
        return
    with RowsWriter(path, PAIRS, row_group_size) as writer, open_parquet(path) as file:
        pictures = (picture for batch in file.iter_batches(BATCH_ROWS, columns=["image"]) for picture in batch["image"].to_pylist())
        for row, picture in zip(rows, itertools.compress(pictures, stays), strict=True):
            writer.append({**row, "image": picture})


def _fits(path: Path, shards: ShardsConfig) -> bool:
    """Whether a part is whole, and no larger than parts and their row groups are to be."""
    try:
        footer = check_parquet(path, PAIRS)
    except SchemaError:
        return False
    largest = max((footer.row_group(group).num_rows for group in range(footer.num_row_groups)), default=0)
    return bool(footer.num_rows <= shards.rows_per_part and largest <= shards.row_group_size)


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def count_pairs(folder: Path) -> tuple[str, int, int]:
    """Id of the pairs of a folder and the sizes of their splits."""
    batches = list(iter_batches(folder, PAIRS, ["pair_id", "split"], 65_536))
    pair_ids = np.concatenate([batch["pair_id"].to_numpy() for batch in batches])
    is_train = np.concatenate([np.array([split == "train" for split in batch["split"].to_pylist()], np.bool_) for batch in batches])
    order = np.lexsort((is_train, pair_ids))
    written = (f"{pair} {'train' if train else 'validation'}" for pair, train in zip(pair_ids[order], is_train[order], strict=True))
    return content_id_of(itertools.chain(["pairs"], written)), int(is_train.sum()), int((~is_train).sum())
