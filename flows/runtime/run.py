"""Run a job: in child processes here, or on the machines of a work pool."""

from collections.abc import Mapping
from typing import Any

from dalle_model.config.tree import Config
from dalle_model.running.registry import find_job
from dalle_model.running.run_dir import prepare, read_result
from flows.runtime.dispatch import send_job
from flows.runtime.jobs import is_finished, start_job, title_of
from flows.runtime.progress import note


def run_job(job: str, config: Config, inputs: Mapping[str, str]) -> dict[str, Any]:
    """The result of a job with these settings and inputs, made unless it exists: here or in `flow.pool`.

    Raises `JobFailed` with the run directory and the job's last words, and `ValueError` for an unknown job.
    """
    run_dir = prepare(job, config, inputs)
    if is_finished(run_dir):
        note(f"{title_of(job)}: already done ({run_dir.name})")
        return read_result(run_dir) or {}
    (run_dir / "result.json").unlink(missing_ok=True)
    entry = find_job(job)
    num_processes = 1 if entry.spread == "one" else config.flow.num_processes
    if config.flow.pool and entry.needs_gpu:
        num_workers = config.flow.num_workers if entry.spread == "units" else 1
        return send_job(job, run_dir, config.flow.pool, num_processes, num_workers)
    return start_job(job, run_dir, num_processes)
