"""Run one job in its run directory: `python -m dalle_model.jobs NAME RUN_DIR`, or the same under `torchrun -m`.

`python -m dalle_model.jobs prepare NAME …` makes such a directory (`dalle_model.running.preparing`) and prints its path.

Exit status 0: `result.json` is there. 1: the work failed. 2: the request was wrong. The last line on standard error
says what happened; the traceback of an unforeseen error is in the run directory's `error.txt`.
"""

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dalle_datasets.store.locks import held, holder_of
from dalle_model.running.preparing import command_line
from dalle_model.running.registry import JOBS
from dalle_model.running.run_dir import execute, open_run

ORPHAN_GRACE_S = 60.0
"""What a job has to save its state when it is told to end and the process that started it is gone: torchrun gives half of that."""


def main(arguments: list[str]) -> int:
    """Run the job; returns the exit status."""
    if arguments[:1] == ["prepare"]:
        try:
            print(command_line(arguments[1:]))
        except (ValueError, OSError) as error:
            return _say(2, str(error))
        return 0
    if len(arguments) != 2 or arguments[0] not in JOBS:
        return _say(2, f"usage: python -m dalle_model.jobs NAME RUN_DIR, or prepare NAME …, where NAME is one of {', '.join(JOBS)}")
    job, run_dir = arguments[0], Path(arguments[1])
    try:
        open_run(job, run_dir)
    except ValueError as error:
        return _say(2, str(error))
    if JOBS[job].spread == "units":
        return run_and_record(job, run_dir)
    try:
        with alone_in(run_dir):
            return run_and_record(job, run_dir)
    except ValueError as error:
        return _say(1, str(error))


def run_and_record(job: str, run_dir: Path) -> int:
    """Run the job in a directory that this process holds or shares; returns the exit status."""
    (run_dir / "error.txt").unlink(missing_ok=True)
    try:
        execute(job, run_dir)
    except Exception as error:
        try:
            (run_dir / "error.txt").write_text(traceback.format_exc())
        except OSError:
            logging.getLogger(__name__).exception("could not write %s", run_dir / "error.txt")  # a full disk, most likely
        foreseen = isinstance(error, ValueError | OSError)
        return _say(1, str(error) if foreseen else f"{type(error).__name__}: {error}; see {run_dir / 'error.txt'}")
    return 0


@contextmanager
def alone_in(run_dir: Path) -> Iterator[None]:
    """Hold the run directory for this process (under torchrun: for its first process, on behalf of all).

    Raises `ValueError` when another process is running the same job: two writers of one run directory would spoil each other's
    checkpoints.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    with held(run_dir / "lock") as is_mine:
        if not is_mine:
            raise ValueError(f"{run_dir} is being run by {holder_of(run_dir / 'lock')}; wait for it, or stop it first")
        yield


def _say(status: int, message: str) -> int:
    print(" ".join(message.split()), file=sys.stderr, flush=True)
    return status


def set_up_process(grace_s: float = ORPHAN_GRACE_S) -> None:
    """Send the log to standard error, and make SIGTERM an exception, so that a cancelled run's directory says "failed".

    Trainings save their state first (`dalle_model.training.stopping`). The exception cannot reach a job that waits inside a library's
    call, e.g. to open a file of a disk that is away. Whoever started it then kills it; when nobody is left to do so, it ends by itself
    `grace_s` seconds after the signal, and gives back its lock.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signals, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)  # is written to at once, whatever the main thread waits for
    threading.Thread(target=_end_orphan, args=(signals, os.getppid(), grace_s), daemon=True, name="end-orphan").start()


def _end_orphan(signals: int, parent: int, grace_s: float) -> None:
    """Kill this process `grace_s` seconds after SIGTERM if it is still there and its parent is not."""
    while signal.SIGTERM not in os.read(signals, 1):
        pass
    time.sleep(grace_s)
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    set_up_process()
    sys.exit(main(sys.argv[1:]))
