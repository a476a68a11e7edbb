"""The download over a real Ray, started here: the limits in every worker, workers that die, and runs that are killed."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.download import runner
from dalle_datasets.download.download_images import download_images
from dalle_datasets.download.runner import finished_shards, run_img2dataset
from dalle_datasets.sources.discover import candidates_path
from dalle_datasets.store.ids import candidate_id
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import write_parquet
from dalle_datasets.store.schemas import CANDIDATES, IMAGES
from dalle_datasets.web.guard import RequestLimits
from tests.parts import read_parts

pytest.importorskip("ray")

LIMITS = RequestLimits(user_agent="open-dalle/0.1", timeout_s=60, deadline_s=60, max_bytes=10**6, allow_addresses=("127.0.0.1",))
RAY = DownloadConfig(distributor="ray", num_processes=2, num_threads=4, urls_per_shard=4, allow_addresses=("127.0.0.1",), retries=0)


def put_candidates(layout, urls):
    rows = [
        {"candidate_id": candidate_id(url, "c"), "image_url": url, "caption": "c", "page_url": "http://p/", "source": "web",
         "position": 0, "found_in": "img alt"}
        for url in urls
    ]  # fmt: skip
    rows.sort(key=lambda row: row["candidate_id"])
    write_parquet(candidates_path(layout, "web"), pa.Table.from_pylist(rows, schema=CANDIDATES), CANDIDATES)


def test_ray_brings_what_threads_bring_behind_the_same_guard(web, tmp_path):
    """Every kind of answer, each shard in a Ray worker; whatever is forbidden is forbidden there too."""
    for i in range(20):
        web.put(f"/{i}.png", b"%d" % i)
    web.put("/large.png", bytes(100_001))
    web.put("/reserved.png", b"x", X_Robots_Tag="noai")
    web.put("/robots.txt", b"User-agent: *\nDisallow: /private", "text/plain")
    web.redirect("/inside.png", "http://127.0.0.2:1/secret")
    web.drip("/slow.png", 0.2, b"x")
    paths = [*(f"/{i}.png" for i in range(20)), "/large.png", "/reserved.png", "/private/1.png", "/inside.png", "/slow.png", "/gone.png"]
    urls = [web.url(path) for path in paths] + ["file:///etc/passwd", "http://10.0.0.1/a.png"]
    rows = {}
    limits = {"max_bytes": 100_000, "deadline_s": 2.0}
    for name, download in (("ray", RAY), ("threads", DownloadConfig(runner="threads", allow_addresses=("127.0.0.1",), retries=0))):
        layout = Layout(tmp_path / name)
        put_candidates(layout, urls)
        result = download_images(SourceConfig(), DownloadConfig(**{**asdict(download), **limits}), layout)
        rows[name] = sorted(read_parts(layout.images("web"), IMAGES).to_pylist(), key=lambda row: row["candidate_id"])
        assert (result.num_candidates, result.num_images) == (28, 20)
    assert rows["ray"] == rows["threads"]
    assert {row["status"] for row in rows["ray"]} == {
        "ok", "too_many_bytes", "x_robots_tag", "robots_txt", "private_address", "deadline", "http_4xx", "bad_scheme"
    }  # fmt: skip


def hang_once(web, path, seconds=60.0):
    """Silent at the first request, then an answer."""

    def answer(handler):
        if web.count(path) == 1:
            time.sleep(seconds)
            return
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"late")

    web.answers[path] = answer


def wait_for(condition, seconds=240.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.long
def test_a_worker_that_is_killed_is_replaced(web, tmp_path):
    """Ray runs its shard again on another worker; the limit of memory is in force in both, and torch was never loaded."""
    for i in range(7):
        web.put(f"/{i}.png", b"%d" % i)
    hang_once(web, "/hang.png")
    urls = [web.url(f"/{i}.png") for i in range(7)] + [web.url("/hang.png")]
    path = tmp_path / "urls.parquet"
    pq.write_table(pa.table({"image_url": urls}), path)
    seen = []

    def kill_worker():
        wait_for(lambda: web.count("/hang.png"))
        for sign in (tmp_path / "out-progress").iterdir():
            process = Path("/proc") / sign.name.partition("-")[0]
            seen.append(((process / "limits").read_text(), (process / "maps").read_text()))
            os.kill(int(process.name), signal.SIGKILL)

    killer = threading.Thread(target=kill_worker)
    killer.start()
    download = DownloadConfig(**{**asdict(RAY), "num_processes": 1, "max_memory_mb": 4_096})
    run_img2dataset(path, tmp_path / "out", 2, LIMITS, download, lambda done: None)
    killer.join()
    assert finished_shards(tmp_path / "out") == [0, 1]
    assert web.count("/hang.png") == 2
    bodies = pq.read_table(tmp_path / "out" / "00001.parquet", partitioning=None)["jpg"].to_pylist()
    assert sorted(bodies) == [b"4", b"5", b"6", b"late"]
    ((limits, maps),) = seen
    assert f"Max address space         {4_096 << 20}" in limits
    assert "libtorch" not in maps


@pytest.mark.long
def test_a_killed_run_leaves_no_ray_behind_and_is_continued(web, tmp_path):
    for i in range(11):
        web.put(f"/{i}.png", b"%d" % i)
    hang_once(web, "/hang.png")
    layout = Layout(tmp_path / "data")
    put_candidates(layout, [web.url(f"/{i}.png") for i in range(11)] + [web.url("/hang.png")])
    download = DownloadConfig(**{**asdict(RAY), "num_processes": 1, "timeout_s": 60.0, "deadline_s": 60.0, "urls_per_shard": 2})
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(f"""\
        from pathlib import Path
        from dalle_datasets.config import *
        from dalle_datasets.download.download_images import download_images
        from dalle_datasets.store.layout import Layout
        print(download_images({SourceConfig()!r}, {download!r}, Layout(Path({str(layout.root)!r}))).num_images)
        """)
    )
    mark = f"OPEN_DALLE_TEST={tmp_path}"
    run = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "OPEN_DALLE_TEST": str(tmp_path)})
    wait_for(lambda: web.count("/hang.png"))
    assert any("raylet" in name for name in processes_with(mark))
    run.kill()
    run.wait()
    wait_for(lambda: not processes_with(mark), 20)
    (work,) = layout.images("web").glob("work-*")
    shards = pq.read_table(work / "urls", partitioning=None)["image_url"].to_pylist()
    done = {url for number in finished_shards(work / "img2dataset") for url in shards[2 * number : 2 * number + 2]}
    again = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert again.stdout == "12\n"
    assert {url for url in shards if web.count(url.removeprefix(web.url(""))) == 1} >= done


def processes_with(mark):
    """Names of the processes that have `mark` in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may end meanwhile
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "comm").read_text().strip())
    return found


@pytest.mark.long
def test_a_cluster_that_is_not_there(web, tmp_path, monkeypatch):
    """Ray would ask for ever."""
    monkeypatch.setattr(runner, "RAY_START_S", 10.0)
    path = tmp_path / "urls.parquet"
    pq.write_table(pa.table({"image_url": [web.url("/a.png")]}), path)
    with pytest.raises(
        ValueError,
        match=r"img2dataset could not start \(status 1: Ray gave no 2 processors in 10 s\); check download\.ray_address and "
        r"download\.num_processes, or set download\.distributor=multiprocessing",
    ):
        run_img2dataset(
            path, tmp_path / "out", 1, LIMITS, DownloadConfig(**{**asdict(RAY), "ray_address": "127.0.0.1:1"}), lambda done: None
        )


def test_without_ray_the_error_says_what_to_install(tmp_path, monkeypatch):
    """img2dataset itself would return at once, with nothing."""
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"download\.distributor=ray: Ray is not installed; install open-dalle\[ray\], or use "):
        run_img2dataset(tmp_path / "urls.parquet", tmp_path / "out", 1, LIMITS, RAY, lambda done: None)


def test_an_address_of_a_cluster_needs_ray():
    with pytest.raises(ValueError, match=r"download\.ray_address='auto' says where a Ray cluster is, .*; set download\.distributor=ray"):
        DownloadConfig(ray_address="auto")
