"""Start a job as a child process and wait for its result.

The process that runs a flow never loads torch: jobs are programs of their own, whose exit status and last line are
the whole error interface. A job whose run directory holds a result is not started at all.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from dalle_datasets.layout import Layout
from dalle_model.config.tree import Config
from dalle_model.jobs.contract import JobFailed, prepare, read_result
from flows.runtime.processes import ChildFailed, stream
from flows.runtime.progress import Stage, note, parse_progress, watched

_PATH = re.compile(r"[A-Za-z0-9_.=-]+(/[A-Za-z0-9_.=-]+)+")
"""A result's text is a path if it looks like one: segments of plain characters with '/' between them."""

_TORCHRUN = re.compile(r"[A-Z]\d{4} .*torch/distributed/")
"""How torchrun's own report of a process that failed begins; the process has said why before."""

STALL_S = 1_800.0
"""No job is silent for half an hour: one that is hangs, e.g. on a file system that went away."""


def run_job(job: str, config: Config, inputs: Mapping[str, str], num_processes: int = 1) -> dict[str, Any]:
    """The result of a job with these settings and inputs, made now unless it exists.

    `num_processes` > 1 runs it under torchrun, one process per GPU. Raises `JobFailed` with the run directory and the
    job's last words, and `ValueError` for an unknown job.
    """
    run_dir = prepare(job, config, inputs)
    if is_finished(run_dir):
        note(f"{title_of(job)}: already done ({run_dir.name})")
        return read_result(run_dir) or {}
    (run_dir / "result.json").unlink(missing_ok=True)
    return start_job(job, run_dir, num_processes)


def is_finished(run_dir: Path) -> bool:
    """Whether a run has a result and all files that the result names are still there."""
    result = read_result(run_dir)
    return result is not None and not lost_files(Layout(run_dir.parent.parent), result)


def lost_files(layout: Layout, result: Mapping[str, Any]) -> list[str]:
    """Paths under the data root that a result names and that do not exist (any more)."""
    named = [value for entry in result.values() for value in (entry if isinstance(entry, list) else [entry])]
    return [value for value in named if isinstance(value, str) and _PATH.fullmatch(value) and not (layout.root / value).exists()]


def start_job(job: str, run_dir: Path, num_processes: int = 1) -> dict[str, Any]:
    """Run a prepared job in a child process, show its progress, and keep all it prints in `RUN_DIR/log.txt`."""
    command = [*_launcher(num_processes), "-m", "dalle_model.jobs", job, str(run_dir)]
    spoken = Spoken()
    with watched(title_of(job)) as stage, (run_dir / "log.txt").open("a", buffering=1) as log:
        try:
            stream(command, lambda line: _take(line, stage, log, spoken), stall_s=STALL_S)
        except ChildFailed as failure:
            raise JobFailed(
                f"{job} failed: {_last_words(failure, spoken.last_line)}; run the same command again to resume, "
                f"the whole log is in {run_dir / 'log.txt'}"
            ) from failure
    result = read_result(run_dir)
    if result is None:
        raise JobFailed(f"{job} ended well but left no result in {run_dir}; that is a bug of the job")
    return result


def title_of(job: str) -> str:
    """`train dvae` for `train_dvae`."""
    return job.replace("_", " ")


def _launcher(num_processes: int) -> list[str]:
    if num_processes == 1:
        return [sys.executable]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]


@dataclass(slots=True)
class Spoken:
    """What a job itself said last, before torchrun's report of its end."""

    last_line: str = ""
    is_over: bool = False

    def hear(self, line: str) -> None:
        """Take note of a line that is not about progress."""
        self.is_over |= bool(_TORCHRUN.match(line) and self.last_line)
        if line.strip() and not self.is_over:
            self.last_line = line


def _take(line: str, stage: Stage, log: TextIO, spoken: Spoken) -> None:
    if progress := parse_progress(line):
        stage.advance(progress)
        return
    log.write(line + "\n")
    stage.log(line)
    spoken.hear(line)


def _last_words(failure: ChildFailed, last_line: str) -> str:
    """The job's own last sentence, and how it ended unless the sentence is enough."""
    if failure.reason.endswith("exit status 1") and last_line:
        return last_line
    return f"{failure.reason}; its last line: {last_line!r}" if last_line else failure.reason
