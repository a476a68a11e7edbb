"""The three collection stages on the demo's site: every drop to the row, whoever downloads and on whatever port."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle_datasets.catalog.connection import connect
from dalle_datasets.catalog.ingest import ingest_dropped_pairs, ingest_pairs
from dalle_datasets.config import DownloadConfig, FilterConfig, ShardsConfig, SourceConfig
from dalle_datasets.demo import emoji_scenes
from dalle_datasets.demo.demo_site import build_site
from dalle_datasets.download.download_images import download_images
from dalle_datasets.filters.filter_pairs import filter_pairs
from dalle_datasets.sources.discover import discover
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts
from dalle_datasets.store.schemas import DROPPED_PAIRS, IMAGES, PAIRS
from tests.parts import read_parts

SOURCE = SourceConfig(name="emoji", kind="emoji_scenes", num_scenes=96, scene_size=32)
SHARDS = ShardsConfig(rows_per_part=40, row_group_size=20)
LIMITS = FilterConfig(min_side=32)
RULES = ("/robots.txt", "/.well-known/tdmrep.json")


def settings(**changes):
    return DownloadConfig(**{"retry_wait_s": 0.01, "urls_per_shard": 50, "deadline_s": 20.0, **changes})


def collect(layout, source=SOURCE, download=None):
    download = download or settings(runner="threads")
    found = discover(source, download, layout)
    images = download_images(source, download, layout)
    return found, images, filter_pairs(source, download, LIMITS, SHARDS, layout)


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    layout = Layout(tmp_path_factory.mktemp("collected"))
    return layout, *collect(layout)


def test_every_drop_is_expected_and_every_pair_is_there(collected):
    layout, found, images, result = collected
    site = build_site(SOURCE)
    rows = read_parts(layout.dropped("emoji"), DROPPED_PAIRS).to_pylist()
    counts = {}
    for row in rows:
        counts[row["stage"], row["reason"]] = counts.get((row["stage"], row["reason"]), 0) + 1
    assert counts == site.fates
    assert (found.num_candidates, found.num_pages) == (site.num_candidates, site.num_pages)
    assert images.num_candidates == found.num_candidates
    assert result.num_pairs == site.num_pairs == 96
    assert images.num_images == result.num_pairs + sum(result.dropped.values())
    assert {stage: sum(reasons.values()) for stage, reasons in result.dropped_by_stage.items()} == {
        stage: sum(n for (s, _), n in site.fates.items() if s == stage) for stage in ("discover", "download", "filter")
    }


def test_captions_and_pictures_belong_together(collected):
    """The pictures of the site are drawn again and compared."""
    import random

    from dalle_datasets.demo.emoji_scenes import caption_scene, draw_scene, split_scenes
    from dalle_datasets.images import decode_image, pixel_sha256

    layout, _, _, result = collected
    scenes = split_scenes(96)["training"]
    caption_of = {
        pixel_sha256(Image.fromarray(draw_scene(scene, 32))): caption_scene(scene, random.Random(i)) for i, scene in enumerate(scenes)
    }
    rows = read_parts(layout.root / result.pairs, PAIRS).to_pylist()
    assert {row["pixel_sha256"] for row in rows} == set(caption_of)
    reposted = [row for row in rows if row["caption"] != caption_of[row["pixel_sha256"]]]
    assert 0 < len(reposted) <= 12  # of pictures posted twice, the caption with the smaller id stays
    assert all(pixel_sha256(decode_image(row["image"], 10**6)) == row["pixel_sha256"] for row in rows)


def test_the_port_does_not_matter(collected, tmp_path):
    _, found, images, result = collected
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    source = SourceConfig(name="emoji", kind="emoji_scenes", num_scenes=96, scene_size=32, port=port)
    again = collect(Layout(tmp_path), source)
    assert [again[0].candidates_id, again[1].images_id, again[2].pairs_id] == [found.candidates_id, images.images_id, result.pairs_id]


def test_a_second_run_touches_nothing(collected):
    layout, *first = collected
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in layout.root.rglob("*") if path.is_file()}
    again = collect(layout)
    assert all(result.skipped for result in again)
    assert [again[0].candidates_id, again[1].images_id, again[2].pairs_id] == [
        first[0].candidates_id,
        first[1].images_id,
        first[2].pairs_id,
    ]
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in layout.root.rglob("*") if path.is_file()} == before


def test_img2dataset_brings_the_same(collected, tmp_path):
    """The true path: img2dataset 1.47 in its child process, workers spawned, limits in force."""
    _, _, images, result = collected
    layout = Layout(tmp_path)
    reports = []
    discover(SOURCE, settings(), layout)
    theirs = download_images(SOURCE, settings(), layout, lambda done, total, unit, **_: reports.append((done, total, unit)))
    assert theirs.images_id == images.images_id
    assert filter_pairs(SOURCE, settings(), LIMITS, SHARDS, layout).pairs_id == result.pairs_id
    assert (theirs.num_candidates, theirs.num_candidates, "images") in reports
    ours = {row["candidate_id"]: row for row in read_parts(collected[0].images("emoji"), IMAGES).to_pylist()}
    assert {row["candidate_id"]: row for row in read_parts(layout.images("emoji"), IMAGES).to_pylist()} == ours


@pytest.mark.parametrize("after_s", [2.5, *(pytest.param(s, marks=pytest.mark.long) for s in (0.3, 4.0))])
def test_a_killed_collection_ends_with_the_same_pairs(collected, tmp_path, after_s):
    """kill -9 somewhere on the way, then again in peace; no process is left behind."""
    script = tmp_path / "collect.py"
    script.write_text(
        textwrap.dedent(f"""\
        from pathlib import Path
        from dalle_datasets.config import *
        from dalle_datasets.download.download_images import download_images
        from dalle_datasets.filters.filter_pairs import filter_pairs
        from dalle_datasets.store.layout import Layout
        from dalle_datasets.sources.discover import discover

        layout = Layout(Path({str(tmp_path / "data")!r}))
        source, download = {SOURCE!r}, {settings()!r}
        print("start", flush=True)
        discover(source, download, layout)
        download_images(source, download, layout)
        print(filter_pairs(source, download, {LIMITS!r}, {SHARDS!r}, layout).pairs_id)
        """)
    )
    run = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "start\n"
    time.sleep(after_s)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split()[-1] == collected[3].pairs_id
    layout = Layout(tmp_path / "data")
    assert not list(layout.images("emoji").glob("work-*"))
    assert len(list_parts(layout.pairs("emoji"))) == 3
    deadline = time.monotonic() + 5
    while orphans(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not orphans(str(tmp_path))


def test_a_scheduled_run_takes_only_what_is_new(web, tmp_path):
    """A site that lives, collected every night: what did not change is not read again, and the catalog follows."""

    def png(i):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(i).integers(0, 256, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(buffer, "PNG")
        return buffer.getvalue()

    pages = {}

    def publish(path, pictures, *links):
        pages[path] = (
            "".join(f'<img src="/{i}.png" alt="a picture of thing number {i}">' for i in pictures)
            + "".join(f'<a href="{link}">x</a>' for link in links)
        ).encode()
        for i in pictures:
            web.put(f"/{i}.png", png(i), ETag=f'"{i}"')

        def answer(handler):
            body = pages[handler.path]
            same = handler.headers.get("If-None-Match") == f'"{hash(body)}"'
            handler.send_response(304 if same else 200)
            handler.send_header("ETag", f'"{hash(body)}"')
            handler.send_header("Content-Type", "text/html")
            handler.end_headers()
            handler.wfile.write(b"" if same else body)

        web.answers[path] = answer

    source = SourceConfig(start_urls=(web.url("/"),))
    layout = Layout(tmp_path)
    download = settings(runner="threads", allow_addresses=("127.0.0.1",), requests_per_s_per_host=0)

    def night():
        """(what discovery, download and filter say, paths asked for, rows that the catalog gained)."""
        asked = len(web.requests)
        found = discover(source, download, layout, refresh=True)
        images = download_images(source, download, layout, refresh=True)
        result = filter_pairs(source, download, LIMITS, SHARDS, layout)
        with connect(layout.catalog) as con:
            before = set(con.execute("select pair_id from pairs").fetchall())
            ingest_pairs(con, layout, "web")
            ingest_dropped_pairs(con, layout, "web")
            after = set(con.execute("select pair_id from pairs").fetchall())
        paths = sorted(path for path, _ in web.requests[asked:] if path not in RULES)
        return found, images, result, paths, (len(after - before), len(before - after))

    publish("/", [1, 2], "/a.html")
    publish("/a.html", [3])
    found, images, result, asked, gained = night()
    assert (found.num_new, images.num_fetched, result.num_pairs, gained) == (3, 3, 3, (3, 0))
    found, images, result, asked, gained = night()  # nothing happened
    assert (found.num_new, found.num_unchanged, images.skipped, result.skipped, gained) == (0, 2, True, True, (0, 0))
    assert asked == ["/", "/1.png", "/2.png", "/3.png", "/a.html"]
    publish("/a.html", [3, 4], "/b.html")  # a page that grew, a new page, and a picture that is on two pages now
    publish("/b.html", [5, 1])
    found, images, result, asked, gained = night()
    assert (found.num_new, found.num_unchanged, images.num_fetched, result.num_pairs, gained) == (2, 1, 2, 5, (2, 0))
    assert asked == ["/", "/1.png", "/2.png", "/3.png", "/4.png", "/5.png", "/a.html", "/b.html"]
    publish("/a.html", [4], "/b.html")  # a picture is taken down, and its pair with it
    del web.answers["/3.png"]
    found, images, result, asked, gained = night()
    assert (found.num_new, found.dropped, result.num_pairs, gained) == (0, {"duplicate_candidate": 1, "no_longer_shown": 1}, 4, (0, 1))
    assert asked == ["/", "/1.png", "/2.png", "/4.png", "/5.png", "/a.html", "/b.html"]


def orphans(mark):
    """Processes whose command line names `mark`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it may end meanwhile
            if mark.encode() in entry.read_bytes():
                found.append(entry)
    return found


def test_the_example_collects_a_folder(run_example, tmp_path, capsys):
    glyphs = sorted((Path(emoji_scenes.__file__).parent / "openmoji").glob("*.png"))
    (tmp_path / "mine").mkdir()
    for number, path in enumerate(glyphs[:3]):
        (tmp_path / "mine" / f"{number}.png").write_bytes(path.read_bytes())
        (tmp_path / "mine" / f"{number}.txt").write_text(f"glyph {'abc'[number]}")
    run_example("own_folder.py", tmp_path / "mine", tmp_path / "root")
    printed = capsys.readouterr().out
    assert "3 captioned pictures, 3 read, 3 pairs kept" in printed
    assert "glyph b" in printed
