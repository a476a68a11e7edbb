"""Jobs by parts: one output part for each part of pairs, resumable after a kill.

A part is made from the pairs in a part of pairs and from a network, whatever else is in the data root. So a part whose pairs are the
same is never made again, and one that lost or gained pairs keeps the rows it has: N new pairs cost the work of N pairs.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dalle_datasets.store.ids import content_id_of
from dalle_datasets.store.parquet import SchemaError, check_parquet, list_parts, open_parquet, read_parquet, write_parquet
from dalle_datasets.store.schemas import PAIRS
from dalle_model.running.claims import run_units
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun

BATCH_ROWS = 64
"""Pairs in memory at a time while some of a part are copied."""


@dataclass(frozen=True, slots=True)
class OutputParts:
    """Where the parts made from the input `pairs` of a run go.

    The folder belongs to a tokenizer or network and may hold other sources' parts, so a part's name begins with its source.
    """

    run: JobRun
    directory: Path
    schema: pa.Schema
    settings: Mapping[str, str] = field(default_factory=dict)
    """What besides the pairs decides what is in a part; in its metadata."""
    keeps_rows: bool = True
    """Whether making some of a part's pairs costs less than making all."""

    @property
    def sources(self) -> list[Path]:
        """The parts of pairs, in order."""
        return list_parts(self.run.input_path("pairs"))

    def path_of(self, source: Path) -> Path:
        """The part that is made from a part of pairs."""
        return self.directory / f"{self.run.input_path('pairs').name}-{source.name}"

    def make(self, source: Path, make: Callable[[Path], pa.Table]) -> Path:
        """Write `make(source)`, unless the part that is there was made from the same pairs and settings. Returns its path.

        Rows of an earlier part are kept (`keeps_rows`): then `make` is given a part with the other pairs only, perhaps none. Parts
        are independent: any process may make any of them at any time, and what is written does not depend on who does it.
        """
        path = self.path_of(source)
        if not self.is_made(source):
            made_from = {"part_id": _part_id(source), **self.settings}
            write_parquet(path, self._rows(source, make), self.schema, self.run.config.shards.row_group_size, made_from)
        return path

    def is_made(self, source: Path) -> bool:
        """Whether the part is there, whole, and made from the same pairs and settings."""
        found = self._metadata(self.path_of(source))
        if found is None:
            return False
        if b"part_id" in found:
            return found[b"part_id"] == _part_id(source).encode()
        # Of an edition that named all pairs, not those of a part.
        return found.get(b"pairs_id") == self.run.inputs["pairs_id"].encode() and not self._missing(source)

    def remove_stale(self) -> None:
        """Remove parts of this source that the pairs no longer have."""
        kept = {self.path_of(source) for source in self.sources}
        for stale in set(self.directory.glob(f"{self.run.input_path('pairs').name}-part-*.parquet")) - kept:
            stale.unlink(missing_ok=True)  # another process may have been quicker

    def _metadata(self, path: Path) -> dict[bytes, bytes] | None:
        """Metadata of a part made with these settings; None if there is none, or it is damaged or of an older version."""
        try:
            found = dict(check_parquet(path, self.schema).metadata or {})
        except SchemaError:
            return None
        return found if all(found.get(name.encode()) == value.encode() for name, value in self.settings.items()) else None

    def _missing(self, source: Path) -> pa.Array:
        """Ids of the pairs of a part that have no row yet."""
        wanted = _pair_ids(source)
        return wanted.filter(pc.invert(pc.is_in(wanted, _pair_ids(self.path_of(source)))))

    def _rows(self, source: Path, make: Callable[[Path], pa.Table]) -> pa.Table:
        """All rows of a part, in the order of its pairs."""
        path, wanted = self.path_of(source), _pair_ids(source)
        if not self.keeps_rows or self._metadata(path) is None or len(missing := self._missing(source)) == len(wanted):
            return make(source)
        earlier = read_parquet(path, self.schema).replace_schema_metadata()
        with tempfile.TemporaryDirectory(dir=self.run.run_dir) as folder:
            others = Path(folder) / source.name
            _copy_pairs(source, missing, others)
            made = make(others)
        table = pa.concat_tables(
            [earlier.filter(pc.is_in(earlier["pair_id"], wanted)), made.select(earlier.column_names).cast(earlier.schema)]
        )
        places = pa.table({"place": pc.index_in(table["pair_id"], wanted), "row": pa.array(range(table.num_rows), pa.int64())})
        return table.take(places.sort_by([("place", "ascending"), ("row", "ascending")])["row"])


def map_parts(parts: OutputParts, make: Callable[[Path], pa.Table], report: Callable[[int], None] | None = None) -> list[Path]:
    """Make every part that nobody else is making, and return all their paths when all are there.

    `report` is told how many rows of pairs are done with; without it that is the job's progress.
    """
    sources = {source.name: source for source in parts.sources}
    num_rows = {name: check_parquet(source, PAIRS).num_rows for name, source in sources.items()}

    def report_rows(done: int) -> None:
        report_progress(done, sum(num_rows.values()), "pairs")

    def make_part(name: str) -> None:
        parts.make(sources[name], make)

    run_units(parts.run.run_dir / "claims", num_rows, lambda name: parts.is_made(sources[name]), make_part, report or report_rows)
    parts.remove_stale()
    return [parts.path_of(source) for source in sources.values()]


def _pair_ids(part: Path) -> pa.Array:
    """Pair ids of a part, in its order."""
    return pq.read_table(part, columns=["pair_id"], partitioning=None)["pair_id"].combine_chunks()


def _part_id(part: Path) -> str:
    """Id of the pairs in a part and their order; a pair's own id follows from its picture and caption."""
    about = part.stat()
    return _part_id_of(part, about.st_mtime_ns, about.st_size)


@lru_cache(100_000)
def _part_id_of(part: Path, mtime_ns: int, size: int) -> str:
    return content_id_of(str(pair_id) for pair_id in ("part", *_pair_ids(part).to_pylist()))


def _copy_pairs(source: Path, pair_ids: pa.Array, target: Path) -> None:
    """Write those pairs of a part to a part of their own, a few at a time."""
    with open_parquet(source) as file, pq.ParquetWriter(target, file.schema_arrow) as writer:
        for batch in file.iter_batches(BATCH_ROWS):
            writer.write_batch(batch.filter(pc.is_in(batch["pair_id"], pair_ids)))
