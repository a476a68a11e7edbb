"""img2dataset in its child process, when things go wrong there."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dalle_datasets.config import DownloadConfig
from dalle_datasets.download import runner
from dalle_datasets.download.runner import finished_shards, run_img2dataset
from dalle_datasets.web.guard import RequestLimits

LIMITS = RequestLimits(user_agent="open-dalle/0.1", timeout_s=60, deadline_s=60, max_bytes=10**6, allow_addresses=("127.0.0.1",))


def run(tmp_path, urls, num_shards, tick=lambda done: None, **settings):
    path = tmp_path / "urls.parquet"
    pq.write_table(pa.table({"image_url": urls}), path)
    download = DownloadConfig(urls_per_shard=-(-len(urls) // num_shards), num_threads=4, **settings)
    run_img2dataset(path, tmp_path / "out", num_shards, LIMITS, download, tick)
    return finished_shards(tmp_path / "out")


def test_a_worker_that_hangs_is_ended(web, tmp_path):
    """img2dataset alone would wait as long as the server likes; the shard that was finished before is kept."""
    urls = [web.url(f"/{i}.png") for i in range(4)] + [web.url("/hang.png")] * 4
    web.hang("/hang.png", 60)
    assert run(tmp_path, urls, num_shards=2, stall_timeout_s=2.0) == [0]
    assert web.num_open  # the server would hold them longer


def test_a_worker_that_is_killed_does_not_stall_the_run(web, tmp_path):
    """multiprocessing.Pool forgets the task of a worker that dies, so img2dataset would never return."""
    for i in range(4):
        web.put(f"/{i}.png", b"x")
    web.hang("/hang.png", 60)
    progress = tmp_path / "out-progress"

    def kill_worker():
        while not web.count("/hang.png"):
            time.sleep(0.05)
        for sign in progress.iterdir():
            os.kill(pid_of(sign), signal.SIGKILL)

    killer = threading.Thread(target=kill_worker)
    killer.start()
    finished = run(tmp_path, [web.url(f"/{i}.png") for i in range(4)] + [web.url("/hang.png")] * 4, num_shards=2, stall_timeout_s=300.0)
    killer.join()
    assert finished == [0]
    assert web.num_open  # the server would hold them longer


@pytest.mark.slow
def test_a_body_that_does_not_fit_the_memory_costs_only_itself(web, tmp_path):
    """The cap on bytes is set far too high here; the limit of a worker's memory holds all the same."""
    web.endless("/endless.png")
    for i in range(3):
        web.put(f"/{i}.png", b"%d" % i)
    path = tmp_path / "urls.parquet"
    pq.write_table(pa.table({"image_url": [web.url(f"/{i}.png") for i in range(3)] + [web.url("/endless.png")]}), path)
    limits = replace(LIMITS, max_bytes=10**11)
    run_img2dataset(path, tmp_path / "out", 1, limits, DownloadConfig(num_threads=2, max_memory_mb=1_536), lambda done: None)
    rows = pq.read_table(tmp_path / "out" / "00000.parquet", partitioning=None).to_pylist()
    assert {row["url"].removeprefix(web.url("")): row["jpg"] or row["error_message"] for row in rows} == {
        "/0.png": b"0", "/1.png": b"1", "/2.png": b"2",
        "/endless.png": "too_many_bytes: more than the memory that a worker may use",
    }  # fmt: skip


def test_finished_shards_are_not_fetched_again(web, tmp_path):
    for i in range(4):
        web.put(f"/{i}.png", b"%d" % i)
    urls = [web.url(f"/{i}.png") for i in range(4)]
    ticks = []
    assert run(tmp_path, urls, num_shards=2, tick=ticks.append) == [0, 1]
    assert ticks[-1] == 4
    asked = len(web.requests)
    (tmp_path / "out" / "00001_stats.json").unlink()  # as if it had been killed during the second
    assert run(tmp_path, urls, num_shards=2) == [0, 1]
    assert {path for path, _ in web.requests[asked:]} == {"/robots.txt", "/.well-known/tdmrep.json", "/2.png", "/3.png"}
    assert sorted(pq.read_table(tmp_path / "out" / "00001.parquet")["jpg"].to_pylist()) == [b"2", b"3"]


def test_a_child_that_cannot_start_says_why(web, tmp_path, monkeypatch):
    broken = tmp_path / "broken" / "img2dataset"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('img2dataset is not here')")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    with pytest.raises(
        ValueError,
        match=r"img2dataset could not start \(status 1: ImportError: img2dataset is not here\); install open-dalle\[scrape\], "
        r"or set download\.runner=threads to do without it",
    ):
        run(tmp_path, [web.url("/a.png")], num_shards=1)


def test_the_child_is_ended_with_whoever_waits_for_it(web, tmp_path, monkeypatch):
    web.hang("/hang.png", 60)

    class Stop(BaseException):
        pass

    children = []
    popen = runner.subprocess.Popen
    monkeypatch.setattr(runner.subprocess, "Popen", lambda *args, **options: children.append(popen(*args, **options)) or children[0])

    def tick(done):
        if done:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path, [web.url("/hang.png"), web.url("/gone.png")], num_shards=1, tick=tick)
    assert children[0].poll() is not None
    (worker,) = (tmp_path / "out-progress").iterdir()
    deadline = time.monotonic() + 5
    while is_running(pid_of(worker)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid_of(worker))


def pid_of(sign):
    """The worker process that a file of the progress folder is from."""
    return int(sign.name.partition("-")[0])


def is_running(pid):
    """Whether the process exists and is more than an entry that nobody has collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
