"""The code of a download process (multiprocessing or Ray): img2dataset's downloader under our request limits.

Such a process imports this module before anything of img2dataset, and `GuardedDownloader` is the only downloader it is ever given.
So the limits, the host's rules and the limit of memory are in force wherever a download happens.
"""

import contextlib
import io
import json
import multiprocessing.util
import os
import resource
import secrets
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any

# img2dataset imports wandb, albumentations, (through webdataset) torch, and Ray, which storing raw bytes never uses; a process that
# does use Ray has imported it. Without them a worker starts in a tenth of the time and a quarter of the memory.
for _name in ("torch", "ray"):
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]
for _name in ("wandb", "albumentations"):
    sys.modules.setdefault(_name, types.ModuleType(_name))

import img2dataset.downloader  # noqa: E402

from dalle_datasets.download.recheck import SeenLog  # noqa: E402
from dalle_datasets.web.client import PoliteClient  # noqa: E402
from dalle_datasets.web.failures import FetchError  # noqa: E402
from dalle_datasets.web.guard import RequestLimits  # noqa: E402


class GuardedDownloader(img2dataset.downloader.Downloader):  # type: ignore[misc]
    """img2dataset's downloader of one shard, with its one function that touches the network replaced by ours."""

    job: dict[str, Any]
    """What the runner asked for. It travels with the pickled object, to spawned workers and to other machines."""

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
        self.client = PoliteClient(read_limits(job["limits"]), job["requests_per_s"], SeenLog(Path(job["seen_dir"])))
        # Process numbers repeat themselves, on other machines at once.
        self.sign = Path(job["progress_dir"]) / f"{os.getpid()}-{secrets.token_hex(4)}"
        self.progress = os.open(self.sign, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        # A worker that leaves without saying so was killed.
        multiprocessing.util.Finalize(None, self.leave, exitpriority=0)

    def leave(self) -> None:
        """Mark this worker as finished, so that the runner does not report it as killed."""
        with contextlib.suppress(OSError):  # nobody may be waiting any more
            self.sign.rename(self.sign.with_suffix(".done"))

    def download_image(self, row: tuple[int, str], *_: Any, **__: Any) -> tuple[int, io.BytesIO | None, str | None]:
        """Stands in for `img2dataset.downloader.download_image`."""
        key, image_url = row
        try:
            return key, io.BytesIO(self.client.fetch_image(image_url)), None
        except FetchError as error:
            return key, None, str(error)
        except MemoryError:
            return key, None, str(FetchError("too_many_bytes", "more than the memory that a worker may use"))
        finally:
            os.write(self.progress, b".")


def prepare() -> None:
    """For Ray, which calls a function of ours in every new worker: importing this module first is all there is to do."""


def read_limits(values: dict[str, Any]) -> RequestLimits:
    """Request limits from their JSON form."""
    connect_to = {host: (address, int(port)) for host, (address, port) in values["connect_to"].items()}
    return RequestLimits(**{**values, "allow_addresses": tuple(values["allow_addresses"]), "connect_to": connect_to})


def _limit_memory(max_memory_mb: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (max_memory_mb << 20, max_memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
