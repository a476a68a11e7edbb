"""How long every stage of one execution of the pipeline took: a file of JSON lines, from which the catalog makes a table."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dalle_datasets.store.parquet import atomic_path


@dataclass(slots=True)
class StageTime:
    """One stage. `was_skipped` says that its result existed already."""

    stage: str
    was_skipped: bool = False
    started_at: float = field(default_factory=time.time)
    duration_s: float = 0.0


_collected: ContextVar[list[StageTime] | None] = ContextVar("stage_times", default=None)


@contextmanager
def collected_times() -> Iterator[list[StageTime]]:
    """The times of the stages in this block, in the order in which they ended."""
    times: list[StageTime] = []
    token = _collected.set(times)
    try:
        yield times
    finally:
        _collected.reset(token)


@contextmanager
def timed(stage: str) -> Iterator[StageTime]:
    """Time one stage that ends well; the block may set `was_skipped`. Outside `collected_times` nobody is told."""
    record = StageTime(stage)
    started = time.perf_counter()
    yield record
    record.duration_s = round(time.perf_counter() - started, 3)
    if (times := _collected.get()) is not None:
        times.append(record)


def write_stage_times(path: Path, times: Sequence[StageTime]) -> None:
    """One JSON object a line. Written once, at the end, so that an interrupted execution leaves no half account."""
    with atomic_path(path) as partial:
        partial.write_text("".join(json.dumps(asdict(record)) + "\n" for record in times))
