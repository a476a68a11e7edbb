"""Jobs by parts: one output part for each part of pairs, resumable after a kill."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from dalle_datasets.store.parquet import SchemaError, check_parquet, list_parts, write_parquet
from dalle_datasets.store.schemas import PAIRS
from dalle_model.running.claims import run_units
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun


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
        path = self.path_of(source)
        if not self.is_made(source):
            write_parquet(path, make(source), self.schema, self.run.config.shards.row_group_size, self._made_from)
        return path

    def is_made(self, source: Path) -> bool:
        """Whether the part is there, whole, and made from the same pairs and settings."""
        return _is_made_from(self.path_of(source), self.schema, self._made_from)

    @property
    def _made_from(self) -> dict[str, str]:
        return {"pairs_id": self.run.inputs["pairs_id"], **self.settings}

    def remove_stale(self) -> None:
        """Remove parts of this source that the pairs no longer have."""
        kept = {self.path_of(source) for source in self.sources}
        for stale in set(self.directory.glob(f"{self.run.input_path('pairs').name}-part-*.parquet")) - kept:
            stale.unlink(missing_ok=True)  # another process may have been quicker


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


def _is_made_from(path: Path, schema: pa.Schema, made_from: Mapping[str, str]) -> bool:
    if not path.exists():
        return False
    try:
        footer = check_parquet(path, schema)
    except SchemaError:
        return False  # damaged, or of an older version: made again
    found = footer.metadata or {}
    return all(found.get(name.encode()) == value.encode() for name, value in made_from.items())
