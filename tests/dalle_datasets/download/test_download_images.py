"""The download stage: one row for every candidate, retries, resuming, increments.

The runner is `threads`; img2dataset has its own tests.
"""

import io
import shutil

import pyarrow as pa
import pytest
from PIL import Image

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.download import download_images as downloading
from dalle_datasets.download import passes
from dalle_datasets.download.download_images import download_images
from dalle_datasets.sources.discover import candidates_path
from dalle_datasets.store.ids import candidate_id
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import atomic_path, list_parts, write_parquet
from dalle_datasets.store.schemas import CANDIDATES, DROPPED_PAIRS, IMAGES
from tests.parts import read_parts

SOURCE = SourceConfig()
LOCAL = DownloadConfig(
    runner="threads",
    allow_addresses=("127.0.0.1",),
    timeout_s=0.5,
    deadline_s=2,
    retries=2,
    retry_wait_s=0.01,
    max_bytes=100_000,
    urls_per_shard=4,
)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def png(color):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, "PNG")
    return buffer.getvalue()


def put_candidates(layout, *pairs):
    rows = [
        {
            "candidate_id": candidate_id(url, caption),
            "image_url": url,
            "caption": caption,
            "page_url": "http://p/",
            "source": "web",
            "position": 0,
            "found_in": "img alt",
        }
        for url, caption in pairs
    ]
    rows.sort(key=lambda row: row["candidate_id"])
    write_parquet(candidates_path(layout, "web"), pa.Table.from_pylist(rows, schema=CANDIDATES), CANDIDATES)


def rows_of(layout):
    return {(row["image_url"], row["caption"]): row for row in read_parts(layout.images("web"), IMAGES).to_pylist()}


def test_every_candidate_has_a_row_and_every_failure_a_code(web, layout):
    web.put("/ok.png", png("red"))
    web.put("/reserved.png", png("red"), X_Robots_Tag="noai")
    web.put("/busy.png", b"", status=503)
    web.put("/torn.png", b"x", Content_Length="99")
    web.put("/robots.txt", b"User-agent: *\nDisallow: /private", "text/plain")
    web.hang("/silent.png", 2)
    web.endless("/endless.png")
    expected = {
        web.url("/ok.png"): "ok",
        web.url("/gone.png"): "http_4xx",
        web.url("/reserved.png"): "x_robots_tag",
        web.url("/busy.png"): "http_5xx",
        web.url("/torn.png"): "incomplete_body",
        web.url("/private/a.png"): "robots_txt",
        web.url("/silent.png"): "timeout",
        web.url("/endless.png"): "too_many_bytes",
        "file:///etc/passwd": "bad_scheme",
        "http://10.0.0.1/a.png": "private_address",
        "hello": "bad_scheme",
        "http://no-such-host.invalid/a.png": "dns",
    }
    put_candidates(layout, *((url, "a caption") for url in expected))
    result = download_images(SOURCE, LOCAL, layout)
    assert {url: row["status"] for (url, _), row in rows_of(layout).items()} == expected
    assert (result.num_candidates, result.num_images, result.num_fetched) == (12, 1, 12)
    assert sum(result.dropped.values()) == 11
    assert web.count("/busy.png") == 3  # retryable: first pass and two more
    assert web.count("/gone.png") == 1  # final
    assert web.count("/private/a.png") == 0
    drops = read_parts(layout.dropped("web"), DROPPED_PAIRS).to_pylist()
    assert {drop["image_url"]: drop["reason"] for drop in drops} == {url: code for url, code in expected.items() if code != "ok"}
    assert {drop["stage"] for drop in drops} == {"download"}


def test_bytes_are_stored_as_they_came(web, layout):
    body = png("blue")
    web.put("/a.png", body)
    put_candidates(layout, (web.url("/a.png"), "one"))
    download_images(SOURCE, LOCAL, layout)
    (row,) = rows_of(layout).values()
    assert row["image"] == body
    assert row["sha256"] == __import__("hashlib").sha256(body).hexdigest()


def test_an_address_with_two_captions_is_fetched_once(web, layout):
    web.put("/a.png", png("red"))
    put_candidates(layout, (web.url("/a.png"), "one"), (web.url("/a.png"), "two"))
    result = download_images(SOURCE, LOCAL, layout)
    assert (result.num_images, result.num_fetched, web.count("/a.png")) == (2, 1, 1)


def test_what_may_pass_is_asked_again(web, layout):
    web.flaky("/a.png", png("red"), failures=2)
    put_candidates(layout, (web.url("/a.png"), "one"))
    assert download_images(SOURCE, LOCAL, layout).num_images == 1
    assert web.count("/a.png") == 3


def test_a_second_run_fetches_nothing_and_a_later_one_only_what_is_new(web, layout):
    urls = [web.url(f"/{i}.png") for i in range(10)]
    for i in range(10):
        web.put(f"/{i}.png", png((i, 0, 0)))
    put_candidates(layout, *((url, "one") for url in urls[:6]))
    first = download_images(SOURCE, LOCAL, layout)
    assert first.num_fetched == 6
    before = len(web.requests)
    again = download_images(SOURCE, LOCAL, layout)
    assert (again.skipped, again.num_fetched, again.images_id) == (True, 0, first.images_id)
    assert len(web.requests) == before
    put_candidates(layout, *((url, "one") for url in urls))
    more = download_images(SOURCE, LOCAL, layout)
    assert (more.num_fetched, more.num_images, more.skipped) == (4, 10, False)
    assert all(web.count(f"/{i}.png") == 1 for i in range(10))
    shutil.rmtree(layout.images("web"))
    assert download_images(SOURCE, LOCAL, layout).images_id == more.images_id  # in one run or in two, the same


def test_a_later_run_asks_again_for_what_may_have_passed(web, layout):
    """A host that was down for an hour does not lose its pictures for good; one that says no is not asked twice."""
    web.put("/down.png", b"", status=503)
    put_candidates(layout, (web.url("/down.png"), "one"), (web.url("/gone.png"), "two"))
    assert download_images(SOURCE, LOCAL, layout).dropped == {"http_4xx": 1, "http_5xx": 1}
    assert download_images(SOURCE, LOCAL, layout).skipped  # nothing is new
    web.put("/down.png", png("red"))
    web.put("/new.png", png("blue"))
    put_candidates(layout, (web.url("/down.png"), "one"), (web.url("/gone.png"), "two"), (web.url("/new.png"), "three"))
    result = download_images(SOURCE, LOCAL, layout)
    assert (result.dropped, result.num_images, result.num_fetched) == ({"http_4xx": 1}, 2, 2)
    assert web.count("/gone.png") == 1


def test_other_settings_try_the_failures_again_but_keep_the_bytes(web, layout):
    web.put("/small.png", png("red"))
    web.put("/large.png", bytes(200_000))
    put_candidates(layout, (web.url("/small.png"), "one"), (web.url("/large.png"), "two"))
    assert download_images(SOURCE, LOCAL, layout).dropped == {"too_many_bytes": 1}
    generous = DownloadConfig(**{**{f: getattr(LOCAL, f) for f in LOCAL.__slots__}, "max_bytes": 10**6})
    result = download_images(SOURCE, generous, layout)
    assert (result.dropped, result.num_images, result.num_fetched) == ({}, 2, 1)
    assert web.count("/small.png") == 1


def test_candidates_that_are_gone_do_not_count(web, layout):
    for name in "ab":
        web.put(f"/{name}.png", png("red"))
    put_candidates(layout, (web.url("/a.png"), "one"), (web.url("/b.png"), "two"))
    download_images(SOURCE, LOCAL, layout)
    put_candidates(layout, (web.url("/b.png"), "two"))
    result = download_images(SOURCE, LOCAL, layout)
    assert (result.num_candidates, result.num_images, result.num_fetched) == (1, 1, 0)


@pytest.mark.parametrize("stop_after", ["first pass", "retry", "parts", "half renamed"])
def test_a_killed_run_continues_where_it_was(web, layout, monkeypatch, stop_after):
    """Interrupted at every stage of the work; the second run ends with the files of an undisturbed one and asks for little again."""
    urls = [web.url(f"/{i}.png") for i in range(12)]
    for i in range(11):
        web.put(f"/{i}.png", png((i, 9, 9)))
    web.put("/11.png", b"", status=503)
    put_candidates(layout, *((url, "one") for url in urls))

    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        if stop_after == "first pass":
            patch.setattr(passes, "_retryable", killed)
        elif stop_after == "retry":
            patch.setattr(downloading, "_write_parts", killed)
        elif stop_after == "parts":
            patch.setattr(downloading, "atomic_path", lambda path: killed() if path.name == "plan.json" else atomic_path(path))
        else:
            patch.setattr(downloading, "_summarize", killed)
        with pytest.raises(Killed):
            download_images(SOURCE, LOCAL, layout)
    asked = len(web.requests)
    result = download_images(SOURCE, LOCAL, layout)
    assert all(web.count(f"/{i}.png") == 1 for i in range(11))
    assert len(web.requests) - asked <= 2 + 2  # robots.txt and tdmrep.json, and retries that were not made before
    assert (result.num_images, result.dropped) == (11, {"http_5xx": 1})
    assert [path.name for path in list_parts(layout.images("web"))] == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert not list(layout.images("web").glob("work-*"))
    other = Layout(layout.root / "undisturbed")
    put_candidates(other, *((url, "one") for url in urls))
    assert download_images(SOURCE, LOCAL, other).images_id == result.images_id


def test_a_run_killed_between_two_retries_asks_for_all_of_them(web, layout, monkeypatch):
    """The ones that were not asked again before the kill do not lose their second chance."""
    for i in range(3):
        web.flaky(f"/{i}.png", png((i, 0, 0)), failures=1)
    put_candidates(layout, *((web.url(f"/{i}.png"), "one") for i in range(3)))
    download = DownloadConfig(**{**{f: getattr(LOCAL, f) for f in LOCAL.__slots__}, "retries": 1, "urls_per_shard": 1})

    class Killed(BaseException):
        pass

    def killed_at_the_second_retry(image_urls, path, *rest):
        if path.parent.name == "retry-0" and path.stem == "00001":
            raise Killed
        fetch_shard(image_urls, path, *rest)

    fetch_shard = passes.fetch_shard
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(passes, "fetch_shard", killed_at_the_second_retry)
        download_images(SOURCE, download, layout)
    assert download_images(SOURCE, download, layout).num_images == 3


def test_no_candidates_yet(layout):
    with pytest.raises(ValueError, match=r"candidates\.parquet does not exist; run discover for source 'web' first"):
        download_images(SOURCE, LOCAL, layout)


def test_progress_is_reported(web, layout):
    for i in range(5):
        web.put(f"/{i}.png", png("red"))
    put_candidates(layout, *((web.url(f"/{i}.png"), "one") for i in range(5)))
    reports = []
    download_images(SOURCE, LOCAL, layout, lambda done, total, unit, **_: reports.append((done, total, unit)))
    assert sorted(reports) == [(i, 5, "images") for i in range(1, 6)]
