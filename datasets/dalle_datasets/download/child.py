"""img2dataset as a guarded child process: `python -m dalle_datasets.download.child JOB.json`.

A process of its own because img2dataset replaces the SIGINT handler, works in the main thread only, and may hang for good when a
worker dies; here it can be watched and ended. Nothing is re-encoded: the bytes are stored as they came.
"""

import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

RAY_STORE_BYTES = 80 * 2**20
"""Memory that a Ray of our own sets aside for passing objects between processes: the least it takes, since images go to files."""


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


def main(job_path: str) -> None:
    """Download the URLs of a job."""
    job = json.loads(Path(job_path).read_text())
    _end_with_parent(job["parent_pid"])
    if job["distributor"] == "ray":
        import ray  # noqa: F401 - before `worker`, which keeps it from img2dataset where it is not used
    # Here, because they take seconds, and because of Ray.
    from dalle_datasets.download.worker import GuardedDownloader

    img2dataset_main: Any = importlib.import_module("img2dataset.main")  # `img2dataset.main` the attribute is a function
    if job["distributor"] == "ray":
        _start_ray(job["ray_address"], job["num_processes"], job["ray_start_s"])

    def guarded(**settings: Any) -> GuardedDownloader:
        downloader = GuardedDownloader(**settings)
        downloader.job = job
        return downloader

    img2dataset_main.Downloader = guarded
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
        timeout=job["limits"]["timeout_s"],
        retries=0,
        # Opt-outs are obeyed by our own client.
        disallowed_header_directives=[],
    )


def _start_ray(address: str, num_processes: int, start_s: float) -> None:
    """Connect to the cluster at `address`, or start one on this machine, and reserve a processor for each of `num_processes` workers.

    img2dataset hands Ray all shards at once; the reservation is what bounds how many run side by side, over all machines, and
    so how often a host is asked. Ends this process if that takes longer than `start_s`: Ray itself asks a wrong address for ever.
    """

    def give_up() -> None:
        print(f"Ray gave no {num_processes} processors in {start_s:g} s", file=sys.stderr, flush=True)
        os._exit(1)

    watchdog = threading.Timer(start_s, give_up)
    watchdog.start()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from img2dataset import distributor
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from dalle_datasets.download.worker import prepare

    of_our_own: dict[str, Any] = {
        "num_cpus": num_processes, "object_store_memory": RAY_STORE_BYTES, "include_dashboard": False, "_node_ip_address": "127.0.0.1",
    }  # fmt: skip
    hook = {"worker_process_setup_hook": f"{prepare.__module__}.{prepare.__name__}"}
    ray.init(address=address or "local", runtime_env=hook, **({} if address else of_our_own))
    workers = placement_group([{"CPU": 1}] * num_processes, strategy="SPREAD")
    ray.get(workers.ready())
    watchdog.cancel()
    distributor.ray_download = distributor.ray_download.options(scheduling_strategy=PlacementGroupSchedulingStrategy(workers))


def _end_with_parent(parent_pid: int) -> None:
    """End this process and its workers (they share our process group) when whoever started us is gone."""

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(0.5)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
