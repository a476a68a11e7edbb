"""img2dataset as a guarded child process: `python -m dalle_datasets.download.child JOB.json`.

A process of its own because img2dataset replaces the SIGINT handler, works in the main thread only, and may hang for good when a
worker dies; here it can be watched and ended. Its spawned workers (or Ray's) receive our `GuardedDownloader`, so the guard is in
force wherever a download happens. Nothing is re-encoded: the bytes are stored as they came.
"""

import importlib
import io
import json
import multiprocessing.util
import os
import resource
import signal
import sys
import threading
import time
import types
from functools import cache
from pathlib import Path
from typing import Any

# img2dataset imports wandb, albumentations and (through webdataset) torch, which storing raw bytes never uses.
# Without them a worker starts in a fifth of the time and a quarter of the memory.
sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
for _name in ("wandb", "albumentations"):
    sys.modules.setdefault(_name, types.ModuleType(_name))

import img2dataset.downloader  # noqa: E402

from dalle_datasets.download.failures import FetchError  # noqa: E402
from dalle_datasets.download.fetching import Visitor  # noqa: E402
from dalle_datasets.download.guard import Guard  # noqa: E402

img2dataset_main: Any = importlib.import_module("img2dataset.main")  # `img2dataset.main` the attribute is a function


class GuardedDownloader(img2dataset.downloader.Downloader):  # type: ignore[misc]
    """img2dataset's downloader of one shard, with its one function that touches the network replaced by ours."""

    job: dict[str, Any]

    def download_shard(self, row: tuple[int, str]) -> None:
        """Called once per shard, in a worker."""
        worker = _Worker.get(json.dumps(self.job))
        img2dataset.downloader.download_image = worker.download_image
        super().download_shard(row)


class _Worker:
    """What a worker process sets up once: limits, rules of robots.txt, and its sign of life."""

    @staticmethod
    @cache
    def get(job: str) -> "_Worker":
        return _Worker(json.loads(job))

    def __init__(self, job: dict[str, Any]) -> None:
        _limit_memory(job["max_memory_mb"])
        self.visitor = Visitor(read_guard(job["guard"]), job["requests_per_s"])
        self.sign = Path(job["progress_dir"]) / str(os.getpid())
        self.progress = os.open(self.sign, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        # A worker that leaves without saying so was killed.
        multiprocessing.util.Finalize(None, self.sign.rename, args=(self.sign.with_suffix(".done"),), exitpriority=0)

    def download_image(self, row: tuple[int, str], *_: Any, **__: Any) -> tuple[int, io.BytesIO | None, str | None]:
        """Stands in for `img2dataset.downloader.download_image`."""
        key, image_url = row
        try:
            return key, io.BytesIO(self.visitor.fetch_image(image_url)), None
        except FetchError as error:
            return key, None, str(error)
        finally:
            os.write(self.progress, b".")


class _NoLogger:
    """Stands in for img2dataset's logger process, which would cost the memory of another worker to print what we count ourselves."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.done_shards: set[int] = set()

    def start(self) -> None:
        """Nothing to start."""

    def join(self) -> None:
        """Nothing to wait for."""

    def terminate(self) -> None:
        """Nothing to end."""


def read_guard(values: dict[str, Any]) -> Guard:
    """A guard from its JSON form."""
    connect_to = {host: (address, int(port)) for host, (address, port) in values["connect_to"].items()}
    return Guard(**{**values, "allow_addresses": tuple(values["allow_addresses"]), "connect_to": connect_to})


def main(job_path: str) -> None:
    """Download the addresses of a job."""
    job = json.loads(Path(job_path).read_text())
    _end_with_parent(job["parent_pid"])
    GuardedDownloader.job = job
    img2dataset_main.Downloader = lambda **settings: _with_job(GuardedDownloader(**settings), job)
    img2dataset_main.LoggerProcess = _NoLogger
    img2dataset_main.download(
        url_list=job["urls"],
        input_format="parquet",
        url_col="image_url",
        output_folder=job["output_dir"],
        output_format="parquet",
        processes_count=job["num_processes"],
        thread_count=job["num_threads"],
        number_sample_per_shard=job["urls_per_shard"],
        distributor=job["distributor"],
        disable_all_reencoding=True,
        extract_exif=False,
        compute_hash="sha256",
        incremental_mode="incremental",
        max_shard_retry=0,
        timeout=job["guard"]["timeout_s"],
        retries=0,
        # Opting out is the guard's business.
        disallowed_header_directives=[],
    )


def _with_job(downloader: GuardedDownloader, job: dict[str, Any]) -> GuardedDownloader:
    """The job travels with the pickled object, to spawned workers and to other machines."""
    downloader.job = job
    return downloader


def _limit_memory(max_memory_mb: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (max_memory_mb << 20, max_memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with_parent(parent_pid: int) -> None:
    """End this process and its workers (they share our process group) when whoever started us is gone."""

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(0.5)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
