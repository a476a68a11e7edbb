"""The Prefect tasks that the flows are made of: run a job, catalogue what it made.

Every task may run again at any time: jobs are skipped when their result exists, the catalog ingests exactly once. So
there is no Prefect cache here, and no retry: a failed training is resumed, not repeated.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import duckdb
from httpx import HTTPError
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.runtime import deployment

from dalle_datasets.catalog.ledger import Ingested, ingest_in_turns
from dalle_datasets.catalog.snapshot import publish
from dalle_datasets.store.layout import open_data_root
from dalle_model.config.tree import Config
from dalle_model.running.run_dir import run_directory
from flows.runtime import run
from flows.runtime.jobs import is_finished, title_of
from flows.runtime.progress import note
from flows.runtime.stage_times import timed

WRITER_SLOT = "duckdb-writer"
"""Global concurrency limit of deployed flows (made by `flows.bootstrap`), so that waiting for the catalog shows in Prefect's UI."""


@task(task_run_name="{job}", cache_policy=NO_CACHE)
def run_stage(job: str, config: Config, inputs: Mapping[str, str]) -> dict[str, Any]:
    """The result of a job, made unless it exists: in child processes here, or in the work pool `flow.pool`."""
    with timed(title_of(job)) as time:
        time.was_skipped = is_finished(run_directory(job, config, inputs))
        return run.execute_job(job, config, inputs)


@task(task_run_name="catalogue", cache_policy=NO_CACHE)
def catalogue(config: Config, *results: Mapping[str, Any]) -> None:
    """Ingest what finished jobs left: the runs, every file their results name, and which networks serve."""
    with timed("catalogue"), _writer_slot():
        run.ingest_runs(config, *results)


@task(task_run_name="publish catalog", cache_policy=NO_CACHE)
def publish_catalog(config: Config, is_news: bool = True) -> str:
    """Make the copy that people query, if there is news for it; returns its path. Raises `ValueError` for a fault in the catalog."""
    layout = open_data_root(config.paths.data_root)
    with timed("publish catalog") as time:
        time.was_skipped = not is_news
        if is_news:
            publish(layout, config.catalog.lock_timeout_s, note)
    return str(layout.published_catalog)


def ingest_in_catalog(config: Config, task_name: str, work: Callable[[duckdb.DuckDBPyConnection], Ingested]) -> None:
    """Bring files into the catalog in short turns; `task_name` is what others who wait are told.

    Deployed flows queue at a Prefect slot first, where waiting can be seen.
    """
    layout = open_data_root(config.paths.data_root)
    with _writer_slot():
        ingest_in_turns(layout.catalog, work, config.catalog.lock_timeout_s, note, task_name)


@contextmanager
def _writer_slot() -> Iterator[None]:
    """Wait for the slot, as far as there is a server: it only shows who waits, and the file lock inside `connect` guards."""
    slot = ExitStack()
    if deployment.id is not None:
        try:
            slot.enter_context(concurrency(WRITER_SLOT, strict=True, lease_duration=60, raise_on_lease_renewal_failure=False))
        except (ConcurrencySlotAcquisitionError, HTTPError) as error:
            note(f"the catalog's writers are not shown in Prefect: {error}")
    try:
        yield
    finally:
        with suppress(HTTPError):  # the slot comes free by itself when nobody renews it
            slot.close()
