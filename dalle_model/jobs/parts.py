"""One part out for each part of pairs in: how the tokenising and scoring jobs cover any number of pairs and survive a kill."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dalle_datasets.parquet import SchemaError, check_parquet, list_parts, write_parquet
from dalle_model.jobs.contract import JobRun
from dalle_model.jobs.progress import report_progress


@dataclass(frozen=True, slots=True)
class PartsOut:
    """Where the parts made from the input `pairs` of a run go.

    The folder belongs to a tokenizer or network and may hold other sources' parts, so a part's name begins with its source.
    """

    run: JobRun
    directory: Path
    schema: pa.Schema
    settings: Mapping[str, str] = field(default_factory=dict)
    """What besides the pairs decides what is in a part; in its metadata."""

    @property
    def sources(self) -> list[Path]:
        """The parts of pairs, in order."""
        return list_parts(self.run.input_path("pairs"))

    def path_of(self, source: Path) -> Path:
        """The part that is made from a part of pairs."""
        return self.directory / f"{self.run.input_path('pairs').name}-{source.name}"

    def make(self, source: Path, make: Callable[[Path], pa.Table]) -> Path:
        """Write `make(source)`, unless the part that is there was made from the same pairs and settings. Returns its path.

        Parts are independent: any process may make any of them at any time, and what is written does not depend on who does it.
        """
        path, made_from = self.path_of(source), {"pairs_id": self.run.inputs["pairs_id"], **self.settings}
        if not _is_made_from(path, self.schema, made_from):
            write_parquet(path, make(source), self.schema, self.run.config.shards.row_group_size, made_from)
        return path

    def remove_stale(self) -> None:
        """Remove parts of this source that the pairs no longer have."""
        kept = {self.path_of(source) for source in self.sources}
        for stale in set(self.directory.glob(f"{self.run.input_path('pairs').name}-part-*.parquet")) - kept:
            stale.unlink(missing_ok=True)  # another process may have been quicker


def map_parts(parts: PartsOut, make: Callable[[Path], pa.Table], rank: int = 0, num_processes: int = 1) -> list[Path]:
    """Make every part, of several processes each every `num_processes`-th, beginning with its `rank`. Returns all their paths."""
    own = parts.sources[rank::num_processes]
    num_rows = 0
    for i, source in enumerate(own):
        num_rows += pq.read_metadata(parts.make(source, make)).num_rows
        if rank == 0:
            report_progress(i + 1, len(own), "parts", rows=num_rows)
    parts.remove_stale()
    return [parts.path_of(source) for source in parts.sources]


def _is_made_from(path: Path, schema: pa.Schema, made_from: Mapping[str, str]) -> bool:
    if not path.exists():
        return False
    try:
        footer = check_parquet(path, schema)
    except SchemaError:
        return False  # damaged, or of an older version: made again
    found = footer.metadata or {}
    return all(found.get(name.encode()) == value.encode() for name, value in made_from.items())
