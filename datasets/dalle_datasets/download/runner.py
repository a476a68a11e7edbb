"""Supervision of img2dataset in its child process: progress, stalls, lost workers, exit.

Its workers are processes of this machine, or tasks on the machines of a Ray cluster. The latter see the data root under the same
path and have this package installed; they report through files there, as workers of this machine do.
"""

import contextlib
import dataclasses
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dalle_datasets.config import DownloadConfig
from dalle_datasets.web.guard import RequestLimits

POLL_S = 0.1
START_S = 180.0
"""How long the first worker may take to start at least, seconds: a busy machine imports slowly."""
RAY_START_S = 120.0
"""How long Ray may take to give us its processors, seconds."""
GRACE_S = 10.0
"""How long the child may take to leave after its last shard, seconds."""

logger = logging.getLogger(__name__)


def run_img2dataset(
    urls_path: Path, output_dir: Path, num_shards: int, limits: RequestLimits, download: DownloadConfig, tick: Callable[[int], None]
) -> None:
    """Download the URLs of a Parquet file into shards of `output_dir`; shards that are there already are kept.

    Returns when the child ended, or was ended because it fell silent or lost a worker; shards without a `_stats.json` are then
    missing, and their URLs are the caller's to deal with. `tick(n)` says how many URLs are done since the start.
    Raises `ValueError` with img2dataset's last words when it cannot even start.
    """
    if download.distributor == "ray" and importlib.util.find_spec("ray") is None:  # img2dataset would return at once, with nothing
        raise ValueError(
            "download.distributor=ray: Ray is not installed; install open-dalle[ray], or use download.distributor=multiprocessing"
        )
    progress_dir = output_dir.with_name(output_dir.name + "-progress")
    progress_dir.mkdir(parents=True, exist_ok=True)
    for sign in progress_dir.iterdir():
        sign.unlink()
    output_dir.mkdir(parents=True, exist_ok=True)
    num_before = len(finished_shards(output_dir))
    job = {
        "urls": str(urls_path.absolute()),
        "output_dir": str(output_dir.absolute()),
        "progress_dir": str(progress_dir.absolute()),
        "seen_dir": str(output_dir.with_name("seen").absolute()),
        "limits": dataclasses.asdict(limits),
        "num_processes": download.num_processes,
        "num_threads": download.num_threads,
        "urls_per_shard": download.urls_per_shard,
        # Every worker has a clock of its own.
        "requests_per_s": download.requests_per_s_per_host / download.num_processes,
        "max_memory_mb": download.max_memory_mb,
        "distributor": download.distributor,
        "ray_address": download.ray_address,
        "ray_start_s": RAY_START_S,
        "parent_pid": os.getpid(),
    }
    job_path = output_dir.with_name(output_dir.name + "-job.json")
    job_path.write_text(json.dumps(job))
    log_path = output_dir.with_name(output_dir.name + "-log.txt")
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "dalle_datasets.download.child", str(job_path)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            reason = _watch(child, progress_dir, output_dir, num_shards, num_before, download, tick)
        finally:
            _end(child)
    if reason:
        logger.warning("img2dataset was ended: %s; what it had not finished is fetched again", reason)
    if not reason and child.returncode and not any(progress_dir.iterdir()):
        last_words = log_path.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
        remedy = "install open-dalle[scrape], or set download.runner=threads to do without it"
        if download.distributor == "ray":
            remedy = "check download.ray_address and download.num_processes, or set download.distributor=multiprocessing"
        raise ValueError(f"img2dataset could not start (status {child.returncode}: {last_words[0]}); {remedy}")


def finished_shards(output_dir: Path) -> list[int]:
    """Numbers of the shards that img2dataset finished: it writes the `_stats.json` last."""
    return sorted(int(path.name.partition("_")[0]) for path in output_dir.glob("*_stats.json"))


def _watch(
    child: "subprocess.Popen[bytes]", progress_dir: Path, output_dir: Path, num_shards: int, num_before: int,
    download: DownloadConfig, tick: Callable[[int], None],
) -> str | None:  # fmt: skip
    """Follow the child until it ends; the reason to end it early, if there is one."""
    seen, last_change, complete_since = (0, 0), time.monotonic(), None
    while child.poll() is None:
        time.sleep(POLL_S)
        signs = list(progress_dir.iterdir())
        now = (sum(_size(sign) for sign in signs), len(signs))
        if now != seen:
            seen, last_change = now, time.monotonic()
            tick(now[0])
        if len(finished_shards(output_dir)) == num_shards:
            # Its workers are being ended now, which looks like a loss.
            complete_since = complete_since or time.monotonic()
            if time.monotonic() - complete_since > GRACE_S:
                return None
            continue
        allowed_s = download.stall_timeout_s if signs else max(download.stall_timeout_s, START_S)
        if time.monotonic() - last_change > allowed_s:
            return f"no address finished for {allowed_s:g} s"
        if download.distributor == "ray":  # which notices a lost worker itself, and runs its shard again on another
            continue
        lost = [sign.name for sign in signs if not sign.suffix and not _is_alive(int(sign.name.partition("-")[0]))]
        if lost and all((progress_dir / name).exists() for name in lost) and len(finished_shards(output_dir)) < num_shards:
            return f"worker process {lost[0]} was lost"
    return None


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End the child and everything it started; they share a process group of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # renamed in between
        return 0
