"""Flow: one job in its run directory. The only flow that GPU workers run: they need neither the database nor the other flows."""

import platform
from pathlib import Path
from typing import Any

from prefect import flow

from dalle_model.running.run_dir import open_run, read_result
from flows.runtime.flow_parameters import Job, NumProcesses
from flows.runtime.jobs import is_finished, start_job
from flows.runtime.names import current_job_name
from flows.runtime.own_run import kept_in_touch


@flow(name="run-job", flow_run_name=current_job_name)
def run_job(job: Job, run_dir: str, num_processes: NumProcesses = 1) -> dict[str, Any]:
    """Run a prepared job in `num_processes` processes. Returns its result.

    Raises `ValueError` when this machine does not see the run directory.
    """
    if not Path(run_dir).is_dir():
        raise ValueError(
            f"{run_dir} does not exist on {platform.node()}: it must see the data root under the same path as the flow's machine"
        )
    open_run(job, Path(run_dir))
    if is_finished(Path(run_dir)):
        return read_result(Path(run_dir)) or {}
    with kept_in_touch():
        return start_job(job, Path(run_dir), num_processes)
