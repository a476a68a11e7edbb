"""One part out for each part of pairs in: how the tokenising and scoring jobs cover any number of pairs and survive a kill."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dalle_datasets.parquet import SchemaError, check_parquet, list_parts, write_parquet
from dalle_model.jobs.contract import JobRun
from dalle_model.jobs.progress import report_progress


def map_parts(
    run: JobRun,
    directory: Path,
    schema: pa.Schema,
    make: Callable[[Path], pa.Table],
    settings: Mapping[str, str] | None = None,
    rank: int = 0,
    num_processes: int = 1,
) -> list[Path]:
    """Write `make(part)` for every part of the input `pairs` into `directory`; returns the parts there.

    The folder belongs to a tokenizer or network and may hold other sources' parts, so a part's name begins with its
    source. A part that an interrupted run finished is kept: its metadata names the pairs, and the `settings`, it was
    made from. Parts of this source that the pairs no longer have are removed. Of several processes each makes every
    `num_processes`-th part, beginning with its `rank`; parts are independent, so what is written does not depend on who does it.
    """
    pairs, made_from = run.input_path("pairs"), {"pairs_id": run.inputs["pairs_id"], **(settings or {})}
    sources = list_parts(pairs)
    paths = [directory / f"{pairs.name}-{source.name}" for source in sources]
    own = list(zip(sources, paths, strict=True))[rank::num_processes]
    num_rows = 0
    for i, (source, path) in enumerate(own):
        if not _is_made_from(path, schema, made_from):
            write_parquet(path, make(source), schema, run.config.shards.row_group_size, made_from)
        num_rows += pq.read_metadata(path).num_rows
        if rank == 0:
            report_progress(i + 1, len(own), "parts", rows=num_rows)
    for stale in set(directory.glob(f"{pairs.name}-part-*.parquet")) - set(paths):
        stale.unlink(missing_ok=True)  # another process may have been quicker
    return paths


def _is_made_from(path: Path, schema: pa.Schema, made_from: Mapping[str, str]) -> bool:
    if not path.exists():
        return False
    try:
        footer = check_parquet(path, schema)
    except SchemaError:
        return False  # damaged, or of an older version: made again
    found = footer.metadata or {}
    return all(found.get(name.encode()) == value.encode() for name, value in made_from.items())
