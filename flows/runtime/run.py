"""Run a job: in child processes here, or on the machines of a work pool; again if it crashes."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dalle_datasets.catalog.ingest import ingest_made
from dalle_datasets.catalog.ledger import ingest_in_turns
from dalle_datasets.catalog.snapshot import publish
from dalle_datasets.store.layout import RUN_RESULT, open_data_root
from dalle_datasets.store.locks import holder_of, is_held
from dalle_model.config.tree import Config
from dalle_model.running.networks import register
from dalle_model.running.registry import find_job
from dalle_model.running.run_dir import JobCancelled, JobFailed, JobKilled, has_crashed, prepare, read_result
from flows.runtime.dispatch import send_job
from flows.runtime.jobs import is_finished, read_progress, start_job, title_of
from flows.runtime.own_run import kept_in_touch
from flows.runtime.progress import note, watched

RESTART_PAUSE_S = 30.0
"""Before a job that crashed is started again; twice as long before the second time, and so on."""

POLL_S = 2.0
"""How often a process that waits for another one's job looks at it."""


def execute_job(job: str, config: Config, inputs: Mapping[str, str]) -> dict[str, Any]:
    """The result of a job with these settings and inputs, made unless it exists: here or in `flow.pool`.

    What another process on this machine or another is making is waited for. A job that crashes is started again, at most
    `flow.max_restarts` times. Raises `JobFailed` with the run directory and the job's last words, and `ValueError` for an unknown job.
    """
    run_dir = prepare(job, config, inputs)
    restarts = 0
    while not is_finished(run_dir):
        (run_dir / RUN_RESULT).unlink(missing_ok=True)
        try:
            with kept_in_touch():
                return _make(job, config, run_dir)
        except JobCancelled:
            raise
        except JobFailed as error:
            if restarts == config.flow.max_restarts or not (isinstance(error, JobKilled) or has_crashed(run_dir)):
                raise
            restarts += 1
            pause_s = restarts * RESTART_PAUSE_S
            note(f"{error}. It is started again in {pause_s:g} s ({restarts} of at most {config.flow.max_restarts} times)")
            time.sleep(pause_s)
    note(f"{title_of(job)}: already done ({run_dir.name})")
    result = read_result(run_dir) or {}
    register(open_data_root(config.paths.data_root), job, config, inputs, run_dir.name, result)  # perhaps asked for by other settings
    return result


def _make(job: str, config: Config, run_dir: Path) -> dict[str, Any]:
    entry = find_job(job)
    num_processes = 1 if entry.spread == "one" else config.flow.num_processes
    if config.flow.pool and entry.needs_gpu:
        num_workers = config.flow.num_workers if entry.spread == "units" else 1
        return send_job(job, run_dir, config.flow.pool, num_processes, num_workers)
    if entry.spread != "units" and is_held(run_dir / "lock"):
        _wait_for_holder(job, run_dir)
        if is_finished(run_dir):
            return read_result(run_dir) or {}
    return start_job(job, run_dir, num_processes)


def _wait_for_holder(job: str, run_dir: Path) -> None:
    """Return when the process that runs the job has ended; shows its progress meanwhile."""
    lock = run_dir / "lock"
    note(f"{title_of(job)}: {holder_of(lock)} is at it in {run_dir}; waiting for it")
    with watched(title_of(job)) as stage:
        while is_held(lock):
            if (progress := read_progress(run_dir)) is not None:
                stage.advance(progress)
            time.sleep(POLL_S)


def catalogue(config: Config, *results: Mapping[str, Any]) -> None:
    """Ingest the runs of finished jobs, with all files their results name, and publish the catalog."""
    ingest_runs(config, *results)
    publish(open_data_root(config.paths.data_root), config.catalog.lock_timeout_s, note)


def ingest_runs(config: Config, *results: Mapping[str, Any]) -> None:
    """Bring the runs of finished jobs, with all files their results name, into the catalog in short turns."""
    layout = open_data_root(config.paths.data_root)
    runs = [layout.run(result["run_id"]) for result in results]
    task_name = f"catalogue {', '.join(run.name for run in runs)}"
    ingest_in_turns(layout.catalog, lambda con: ingest_made(con, layout, runs), config.catalog.lock_timeout_s, note, task_name)
