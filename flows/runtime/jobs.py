"""Start a job as a child process and wait for its result.

The process that runs a flow never loads torch: jobs are programs of their own, whose exit status and last line are
the whole error interface. A job whose run directory holds a result is not started at all.
"""

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from dalle_datasets.store.layout import Layout
from dalle_model.running.registry import SPREAD_JOBS, find_job
from dalle_model.running.run_dir import JobFailed, JobKilled, read_result, write_json
from flows.runtime.processes import ChildFailed, Command, stream_together
from flows.runtime.progress import Progress, Stage, note, parse_pictures, parse_progress, watched

_PATH = re.compile(r"[A-Za-z0-9_.=-]+(/[A-Za-z0-9_.=-]+)+")
"""A result's text is a path if it looks like one: segments of plain characters with '/' between them."""

_TORCHRUN = re.compile(r"[A-Z]\d{4} .*torch/distributed/")
"""How torchrun's own report of a process that failed begins; the process has said why before."""

PROGRESS_FILE = "progress.json"

STALL_S = 1_800.0
"""No job is silent for half an hour: one that is hangs, e.g. on a file system that went away."""

SPIN_COUNT = "10000"
"""How long a thread of OpenMP waits for the others before it sleeps (`GOMP_SPINCOUNT`). By default it spins for milliseconds, and takes
the processor from the very thread it waits for when anything else runs on the machine: half the speed (benchmarks/RESULTS.md)."""


def is_finished(run_dir: Path) -> bool:
    """Whether a run has a result and all files that the result names are still there."""
    result = read_result(run_dir)
    return result is not None and not lost_files(Layout(run_dir.parent.parent), result)


def lost_files(layout: Layout, result: Mapping[str, Any]) -> list[str]:
    """Paths under the data root that a result names and that do not exist (any more)."""
    named = [value for entry in result.values() for value in (entry if isinstance(entry, list) else [entry])]
    return [value for value in named if isinstance(value, str) and _PATH.fullmatch(value) and not (layout.root / value).exists()]


def start_job(job: str, run_dir: Path, num_processes: int = 1) -> dict[str, Any]:
    """Run a prepared job in child processes, show its progress, and keep all they print in `RUN_DIR/log.txt`.

    Several processes of a training run under torchrun; those of a job made of units know nothing of each
    other, so that one may die and the others take over its unit.
    """
    commands = commands_of(job, run_dir, num_processes)
    spoken = [LastLine() for _ in commands]
    with watched(title_of(job)) as stage, Log(run_dir / "log.txt") as log:
        shown = ProgressMerger(stage, run_dir)

        def take(number: int, line: str) -> None:
            if progress := parse_progress(line):
                shown.advance(progress)
                return
            if folder := parse_pictures(line):
                stage.show(folder)
                return
            log.write(line)
            stage.log(line)
            spoken[number].hear(line)

        failures = stream_together(commands, take, stall_s=STALL_S)
    told = [_last_words(failure, words.last_line) for failure, words in zip(failures, spoken, strict=True) if failure is not None]
    result = read_result(run_dir)
    if result is None and len(told) == len(commands):
        failed = JobKilled if all(failure is not None and failure.was_killed for failure in failures) else JobFailed
        raise failed(
            f"{job} failed: {'; '.join(dict.fromkeys(told))}; run the same command again to resume, "
            f"the whole log is in {run_dir / 'log.txt'}"
        )
    for words in told:
        note(f"{title_of(job)}: one of {len(commands)} processes failed ({words}), but the work is done")
    if result is None:
        raise JobFailed(f"{job} ended well but left no result in {run_dir}; that is a bug of the job")
    return result


def title_of(job: str) -> str:
    """`train dvae` for `train_dvae`."""
    return job.replace("_", " ")


def commands_of(job: str, run_dir: Path, num_processes: int) -> list[Command]:
    """What to start for a job on this machine. Raises `ValueError` for several processes of a job that is for one."""
    entry = find_job(job)
    spread, imports = entry.spread, ("dalle_model.running.preparing", f"dalle_model.jobs.{job}", *entry.late_imports)
    if num_processes > 1 and spread == "one":
        several = ", ".join(SPREAD_JOBS)
        raise ValueError(f"{job} runs in one process, not in {num_processes}; only {several} run in several")
    program = ["-m", "dalle_model.jobs", job, str(run_dir)]
    openmp = {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", SPIN_COUNT)}
    if num_processes == 1:
        return [Command([sys.executable, *program], openmp, imports)]
    if spread == "units":
        threads = str(max(1, (os.cpu_count() or 1) // num_processes))
        openmp["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", threads)
        return [Command([sys.executable, *program], {**openmp, "LOCAL_RANK": str(i)}, imports) for i in range(num_processes)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    return [Command([sys.executable, *torchrun, *program], openmp)]


@dataclass(slots=True)
class LastLine:
    """What a job itself said last, before torchrun's report of its end."""

    last_line: str = ""
    is_over: bool = False

    def hear(self, line: str) -> None:
        """Take note of a line that is not about progress."""
        self.is_over |= bool(_TORCHRUN.match(line) and self.last_line)
        if line.strip() and not self.is_over:
            self.last_line = line


class Log:
    """A file of what a job prints. On a full disk it ends early: the job's own error is what a person needs, not the log's."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            self._file.close()

    def write(self, line: str) -> None:
        """Append a line."""
        with suppress(OSError):
            self._file.write(line + "\n")


class ProgressMerger:
    """Shows the progress of several processes that work on the same units: each counts what is finished, and its own current unit.

    Also keeps it in `RUN_DIR/progress.json`, for a flow on another machine that waits for the job.
    """

    WRITE_EVERY_S = 1.0

    def __init__(self, stage: Stage, run_dir: Path) -> None:
        self._stage, self._path = stage, run_dir / PROGRESS_FILE
        self._last: Progress | None = None
        self._written_at = -float("inf")

    def advance(self, progress: Progress) -> None:
        """Show it, unless another process said before that more is done."""
        last = self._last
        if last is not None and (last.unit, last.total) == (progress.unit, progress.total) and progress.done < last.done:
            return
        self._last = progress
        self._stage.advance(progress)
        if progress.done >= progress.total or time.monotonic() - self._written_at > self.WRITE_EVERY_S:
            self._written_at = time.monotonic()
            with suppress(OSError):  # as with the log
                write_json(self._path, asdict(progress))


def read_progress(run_dir: Path) -> Progress | None:
    """How far a job is that somebody else is running; None before its first word."""
    try:
        return Progress(**json.loads((run_dir / PROGRESS_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _last_words(failure: ChildFailed, last_line: str) -> str:
    """The job's own last sentence, and how it ended unless the sentence is enough."""
    if failure.reason.endswith("exit status 1") and last_line:
        return last_line
    return f"{failure.reason}; its last line: {last_line!r}" if last_line else failure.reason
