"""Collect, let the owner of the source change their mind, collect again: pairs, reasons and the record of the collections follow."""

import hashlib
import io
import os
import shutil
import threading
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from dalle_datasets.catalog.connection import connect
from dalle_datasets.catalog.forget import Request, forget, plan_forgetting
from dalle_datasets.catalog.ingest import ingest_collections, ingest_dropped_pairs, ingest_pairs
from dalle_datasets.catalog.queries import ask
from dalle_datasets.config import DownloadConfig, FilterConfig, ShardsConfig, SourceConfig
from dalle_datasets.download.download_images import download_images
from dalle_datasets.filters.filter_pairs import NoPairsLeft, filter_pairs
from dalle_datasets.history import record_collection
from dalle_datasets.sources.discover import discover
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts
from dalle_datasets.store.schemas import DROPPED_PAIRS, IMAGES, PAIRS
from tests.parts import read_parts

DOWNLOAD = DownloadConfig(runner="threads", allow_addresses=("127.0.0.1",), requests_per_s_per_host=0, retries=0)
LIMITS = FilterConfig(min_caption_words=1, min_side=8, languages=())


def png(seed):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)).resize((40, 40)).save(buffer, "PNG")
    return buffer.getvalue()


class World:
    """A source under collection."""

    def __init__(self, tmp_path, source):
        self.layout, self.source = Layout(tmp_path / "data"), source

    def collect(self, refresh=True):
        """Captions of the pairs; caption -> reason of the drops; and what `collection_changes` says, as (change, outcome) -> n."""
        found = discover(self.source, DOWNLOAD, self.layout, refresh=refresh)
        images = download_images(self.source, DOWNLOAD, self.layout, refresh=refresh)
        try:
            filtered = filter_pairs(self.source, DOWNLOAD, LIMITS, ShardsConfig(), self.layout)
            skipped = found.skipped and images.skipped and filtered.skipped
        except NoPairsLeft:
            skipped = False
        record_collection(self.layout, "web", {"num_pages": found.num_pages}, datetime(2026, 1, 5, tzinfo=UTC), skipped)
        with connect(self.layout.catalog) as con:
            for ingest in (ingest_pairs, ingest_dropped_pairs, ingest_collections):
                ingest(con, self.layout, "web")
            in_catalog = {caption for (caption,) in con.execute("select caption from pairs").fetchall()}
            changes = ask(con, "collection_changes", root=str(self.layout.root))
        pairs = set(read_parts(self.layout.pairs("web"), PAIRS)["caption"].to_pylist())
        assert in_catalog == pairs
        drops = read_parts(self.layout.dropped("web"), DROPPED_PAIRS).to_pylist()
        reasons = {row["caption"]: row["reason"] for row in drops if row["caption"]}
        return pairs, reasons, {(row["change"], row["outcome"]): row["num_candidates"] for row in changes}


@pytest.fixture
def site(web, tmp_path):
    """Three pages: a list, and two with two pictures each, that know an ETag each."""
    world = World(tmp_path, SourceConfig(start_urls=(web.url("/"),)))
    world.pages = {}
    world.headers = {}
    for i in range(1, 5):
        web.put(f"/{i}.png", png(i))

    def answer(handler):
        body = world.pages[handler.path]
        etag = f'"{hash(body)}"'
        is_same = handler.headers.get("If-None-Match") == etag
        handler.send_response(304 if is_same else 200)
        handler.send_header("ETag", etag)
        handler.send_header("Content-Type", "text/html")
        for name, value in world.headers.get(handler.path, {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(b"" if is_same else body.encode())

    def publish(path, body):
        world.pages[path] = body
        web.answers[path] = answer

    world.publish = publish
    publish("/", '<a href="/a.html">a</a><a href="/b.html">b</a>')
    publish("/a.html", '<img src="/1.png" alt="a first thing"><img src="/2.png" alt="a second thing">')
    publish("/b.html", '<img src="/3.png" alt="a third thing"><img src="/4.png" alt="a fourth thing">')
    return world


ALL = {"a first thing", "a second thing", "a third thing", "a fourth thing"}
OF_A = {"a first thing", "a second thing"}


def test_what_was_forgotten_stays_out_at_its_address_its_page_and_elsewhere(site, web, tmp_path, traces):
    """Another page shows the same file, and the same picture in another format, under new names, and links to the page."""
    site.collect()
    old = png(2)
    (tmp_path / "letter.png").write_bytes(old)
    asked = [Request("page", web.url("/b.html")), Request("like", str(tmp_path / "letter.png"))]
    forget(site.layout, plan_forgetting(site.layout, asked))
    assert site.collect(refresh=False)[0] == {"a first thing"}
    larger = io.BytesIO()
    Image.open(io.BytesIO(old)).resize((200, 200)).save(larger, "JPEG", quality=90)
    web.put("/copy.png", old)
    web.put("/larger.jpg", larger.getvalue(), "image/jpeg")
    web.put("/5.png", png(5))
    site.publish("/b.html", '<img src="/3.png" alt="a third thing of today">')
    site.publish(
        "/c.html",
        '<a href="/b.html">b</a><img src="/copy.png" alt="it again"><img src="/larger.jpg" alt="it larger">'
        '<img src="/5.png" alt="a new thing">',
    )
    site.publish("/", '<a href="/a.html">a</a><a href="/c.html">c</a>')
    num_asked = web.count("/b.html")
    for _ in range(2):
        pairs, reasons, _ = site.collect()
        assert (pairs, reasons) == ({"a first thing", "a new thing"}, {})
    assert web.count("/b.html") == num_asked
    texts = {"a second thing", "a third thing", "it again", "it larger", "/b.html", "/copy.png", "/larger.jpg"}
    files_only = [where for where in traces(site.layout.root, texts, {old, larger.getvalue()}) if not where.startswith("catalog/")]
    assert files_only == []


def opt_out(site, web, how):
    """Close /a.html in one of the ways that owners have."""
    if how in ("robots.txt", "tdmrep.json"):
        path, rules = {
            "robots.txt": ("/robots.txt", b"\xef\xbb\xbfUser-agent: *\rDisallow: /a.html\r"),
            "tdmrep.json": ("/.well-known/tdmrep.json", b'[{"location": "/a.html", "tdm-reservation": 1}]'),
        }[how]
        web.put(path, rules, "text/plain")
    elif ":" in how:
        name, _, value = how.partition(": ")
        site.headers["/a.html"] = {name: value}
    else:
        site.publish("/a.html", f'<meta name="robots" content="max-snippet: 20, {how}">' + site.pages["/a.html"])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        pytest.param("noai", "meta_robots", marks=pytest.mark.long),
        ("X-Robots-Tag: max-image-preview:large, noai", "x_robots_tag"),  # beside the same ETag: the page itself is as it was
        pytest.param("TDM-Reservation: 1", "tdm_reserved", marks=pytest.mark.long),
        ("robots.txt", "robots_txt"),
        ("tdmrep.json", "tdm_reserved"),
    ],
)
def test_a_page_that_opts_out_takes_its_pairs_with_it(site, web, how, reason):
    assert site.collect()[0] == ALL
    opt_out(site, web, how)
    pairs, drops, changes = site.collect()
    assert pairs == ALL - OF_A
    assert {drops[caption] for caption in OF_A} == {reason}
    assert changes == {("newly left out", reason): 2, ("new, left out", reason): 1}  # the pictures, and the page
    assert bytes_of(site) == ALL - OF_A
    assert site.collect()[2] == {}, "a quiet night"


def bytes_of(world):
    """Captions of the rows whose bytes are in the data root."""
    rows = read_parts(world.layout.images("web"), IMAGES).to_pylist()
    return {row["caption"] for row in rows if row["image"] is not None}


def test_an_opt_out_is_seen_on_a_page_that_no_link_leads_to_any_more(site, web):
    assert site.collect()[0] == ALL
    site.publish("/", '<a href="/b.html">b</a>')
    assert site.collect()[0] == ALL, "it is there, and shows what it showed"
    opt_out(site, web, "noai")
    assert site.collect()[0] == ALL - OF_A


@pytest.mark.parametrize("status", [500, pytest.param(403, marks=pytest.mark.long)])
def test_a_failure_for_a_moment_withdraws_nothing_and_hides_no_opt_out(site, web, status):
    assert site.collect()[0] == ALL
    answers = dict(web.answers)
    for path in ("/", "/a.html"):
        web.put(path, b"<html>come back later</html>", "text/html", status=status)
    opt_out(site, web, "X-Robots-Tag: noai")
    pairs, _, changes = site.collect()
    assert pairs == ALL
    assert [change for change, _ in changes] == ["new, left out"]
    web.answers.update(answers)
    assert site.collect()[0] == ALL - OF_A
    assert "http_5xx" not in site.collect()[1].values()


def test_rules_that_cannot_be_read_today_withdraw_nothing(site, web):
    assert site.collect()[0] == ALL
    web.put("/robots.txt", b"", status=500)
    pairs, _, changes = site.collect()
    assert (pairs, changes) == (ALL, {("new, left out", "robots_unavailable"): 3})


@pytest.mark.parametrize("status", [404, pytest.param(451, marks=pytest.mark.long)])
def test_a_page_that_was_taken_down(site, web, status):
    assert site.collect()[0] == ALL
    web.put("/a.html", b"", status=status)
    pairs, drops, changes = site.collect()
    assert pairs == ALL - OF_A
    assert {drops[caption] for caption in OF_A} == {"page_gone"}
    assert changes[("gone", "page_gone")] == 2


def test_a_picture_that_its_page_does_not_show_any_more(site):
    assert site.collect()[0] == ALL
    site.publish("/a.html", '<img src="/2.png" alt="a second thing">')
    pairs, drops, changes = site.collect()
    assert pairs == ALL - {"a first thing"}
    assert drops["a first thing"] == "no_longer_shown"
    assert bytes_of(site) == pairs
    assert changes == {("gone", "no_longer_shown"): 1}
    assert site.collect()[2] == {}
    site.publish("/a.html", '<img src="/1.png" alt="a first thing"><img src="/2.png" alt="a second thing">')
    pairs, drops, changes = site.collect()
    assert pairs == ALL
    assert "a first thing" not in drops


@pytest.mark.parametrize(
    ("headers", "reason"),
    [({"X_Robots_Tag": "googlebot: noai, noimageai"}, "x_robots_tag"), ({"TDM_Reservation": "1"}, "tdm_reserved"), ({}, "robots_txt")],
)
@pytest.mark.parametrize("etag", [pytest.param({}, marks=pytest.mark.long), {"ETag": '"1"'}])
def test_a_picture_that_opts_out(site, web, headers, reason, etag):
    """Its bytes go, too."""
    web.put("/1.png", png(1), **etag)
    assert site.collect()[0] == ALL
    web.put("/1.png", png(1), **etag, **headers)
    if not headers:
        web.put("/robots.txt", b"User-agent: open-dalle\nDisallow: /1.png\n", "text/plain")
    pairs, drops, changes = site.collect()
    assert pairs == ALL - {"a first thing"}
    assert drops["a first thing"] == reason
    assert changes == {("newly left out", reason): 1}
    assert bytes_of(site) == ALL - {"a first thing"}
    web.put("/1.png", png(1), **etag)
    web.answers.pop("/robots.txt", None)
    assert site.collect()[0] == ALL, "and may opt in again"


@pytest.mark.parametrize(("status", "stays"), [(404, False), (403, True), (500, True)])
@pytest.mark.parametrize("etag", [pytest.param({}, marks=pytest.mark.long), {"ETag": '"1"'}])
def test_a_picture_that_is_not_there_today(site, web, status, stays, etag):
    web.put("/1.png", png(1), **etag)
    assert site.collect()[0] == ALL
    web.put("/1.png", b"", status=status)
    pairs, drops, _ = site.collect()
    assert pairs == (ALL if stays else ALL - {"a first thing"})
    assert ("a first thing" in drops) is not stays


@pytest.mark.parametrize("headers", [({}, {}), ({"ETag": '"1"'}, {"ETag": '"2"'}), ({"ETag": '"1"'}, {})])
def test_a_picture_that_was_replaced_under_its_address(site, web, headers):
    web.put("/1.png", png(1), **headers[0])
    assert site.collect()[0] == ALL
    web.put("/1.png", png(7), **headers[1])
    assert site.collect(refresh=False)[0] == ALL
    site.collect()
    shas = {row["caption"]: row["sha256"] for row in read_parts(site.layout.pairs("web"), PAIRS).to_pylist()}
    assert shas["a first thing"] == hashlib.sha256(png(7)).hexdigest()
    assert set(shas) == ALL
    assert len(read_parts(site.layout.images("web"), IMAGES)) == 4


def test_pictures_that_did_not_change_are_not_fetched_again(tmp_path):
    """By a server that knows HEAD, as most do."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/1.png").write_bytes(png(1))
    (tmp_path / "site/index.html").write_text('<img src="/1.png" alt="a first thing">')
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, code="-", size="-"):
            asked.append((self.command, self.path, int(code)))

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "site"))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        world = World(tmp_path, SourceConfig(start_urls=(f"http://127.0.0.1:{server.server_port}/",)))
        assert world.collect()[0] == {"a first thing"}
        asked.clear()
        assert world.collect()[0] == {"a first thing"}
        assert [request for request in asked if request[2] == 200] == [("HEAD", "/", 200), ("HEAD", "/1.png", 200)]
        (tmp_path / "site/1.png").write_bytes(png(9))
        os.utime(tmp_path / "site/1.png", (1, 1))  # an older picture, put back
        asked.clear()
        world.collect()
        assert ("GET", "/1.png", 200) in asked
        server.shutdown()
    (row,) = read_parts(world.layout.pairs("web"), PAIRS).to_pylist()
    assert row["sha256"] == hashlib.sha256(png(9)).hexdigest()


@pytest.mark.slow
def test_img2dataset_notes_what_it_fetched(web, tmp_path):
    layout, source = Layout(tmp_path), SourceConfig(start_urls=(web.url("/"),))
    web.put("/", b'<img src="/1.png" alt="a first thing"><img src="/2.png" alt="a second thing">', "text/html")
    for i in (1, 2):
        web.put(f"/{i}.png", png(i), ETag='"1"')
    download = replace(DOWNLOAD, runner="img2dataset")
    discover(source, download, layout)
    assert download_images(source, download, layout).num_fetched == 2
    assert download_images(source, download, layout, refresh=True).skipped
    web.put("/1.png", png(3), ETag='"2"')
    assert download_images(source, download, layout, refresh=True).num_fetched == 1


def test_a_picture_of_a_folder_that_was_replaced(folder):
    folder.collect(refresh=False)
    (folder.root / "inside/3.png").write_bytes(png(8))
    assert folder.collect(refresh=False)[0] == ALL
    shas = {row["caption"]: row["sha256"] for row in read_parts(folder.layout.pairs("web"), PAIRS).to_pylist()}
    assert shas[caption_of(folder, "inside/3")] == hashlib.sha256(png(8)).hexdigest()


def test_a_picture_that_another_page_still_shows_stays(site):
    site.publish("/b.html", '<img src="/1.png" alt="a first thing">' + site.pages["/b.html"])
    assert site.collect()[0] == ALL
    site.publish("/a.html", '<img src="/2.png" alt="a second thing">')
    assert site.collect()[0] == ALL
    site.publish("/a.html", '<meta name=robots content=noai><img src="/2.png" alt="a second thing">')
    assert site.collect()[0] == bytes_of(site) == ALL - {"a second thing"}
    site.publish("/b.html", '<img src="/3.png" alt="a third thing">')
    assert site.collect()[0] == {"a third thing"}


@pytest.mark.parametrize("caption", [f"a corrected thing number {i}" for i in (1, 2)])
def test_the_newest_caption_wins(site, caption):
    assert site.collect()[0] == ALL
    site.publish("/a.html", f'<img src="/1.png" alt="{caption}"><img src="/2.png" alt="a second thing">')
    pairs, drops, changes = site.collect()
    assert pairs == ALL - {"a first thing"} | {caption}
    assert drops["a first thing"] == "caption_changed"
    assert changes == {("gone", "caption_changed"): 1, ("new", "kept"): 1}


def test_the_newest_caption_wins_over_that_of_another_page(site):
    site.publish("/b.html", '<img src="/1.png" alt="a first thing">' + site.pages["/b.html"])
    assert site.collect()[0] == ALL
    site.publish("/a.html", '<img src="/1.png" alt="one corrected thing"><img src="/2.png" alt="a second thing">')
    for _ in range(2):
        pairs, drops, _ = site.collect()
        assert pairs == ALL - {"a first thing"} | {"one corrected thing"}
        assert drops["a first thing"] == "caption_changed"
    site.publish("/a.html", '<img src="/1.png" alt="a first thing"><img src="/2.png" alt="a second thing">')
    assert site.collect()[0] == ALL, "and a correction may be taken back"


def test_a_site_that_shows_nothing_today_loses_nothing(site):
    """All its pages answer, with a notice of maintenance."""
    assert site.collect()[0] == ALL
    pages = dict(site.pages)
    for path in pages:
        site.publish(path, "<h1>We will be back soon</h1>")
    with pytest.raises(
        ValueError, match=r"source 'web' shows no captioned image today .*the 4 of earlier stay as they were\. Collect again"
    ):
        site.collect()
    assert site.collect(refresh=False)[0] == ALL, "as if nobody had looked"
    for path, body in pages.items():
        site.publish(path, body)
    assert site.collect()[0] == ALL


def test_a_whole_site_that_opts_out_leaves_nothing(site, web):
    assert site.collect()[0] == ALL
    web.put("/robots.txt", b"User-agent: *\nDisallow: /\n", "text/plain")
    pairs, drops, changes = site.collect()
    assert pairs == bytes_of(site) == set()
    assert {drops[caption] for caption in ALL} == {"robots_txt"}
    assert changes[("newly left out", "robots_txt")] == 4
    assert not list_parts(site.layout.pairs("web"))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    (root / "inside").mkdir(parents=True)
    for i, name in enumerate(("1", "2", "inside/3", "inside/4")):
        (root / f"{name}.png").write_bytes(png(i + 1))
        (root / f"{name}.txt").write_text(sorted(ALL)[i])
    world = World(tmp_path, SourceConfig(kind="image_folders", inputs=(str(root),)))
    world.root = root
    return world


def caption_of(folder, name):
    return (folder.root / f"{name}.txt").read_text()


def test_a_folder_that_changed_is_noticed_without_being_asked(folder):
    """New, changed and deleted files, deep inside too: a listing is enough."""
    assert folder.collect(refresh=False)[0] == ALL
    before = {path: path.stat().st_mtime_ns for path in folder.layout.root.rglob("*.parquet")}
    assert folder.collect(refresh=False)[0] == ALL
    assert {path: path.stat().st_mtime_ns for path in folder.layout.root.rglob("*.parquet")} == before
    deleted, corrected = caption_of(folder, "inside/3"), caption_of(folder, "inside/4")
    (folder.root / "inside/3.png").unlink()
    (folder.root / "inside/4.txt").write_text("a corrected thing")
    (folder.root / "inside/5.png").write_bytes(png(5))
    (folder.root / "inside/5.txt").write_text("a fifth thing")
    pairs, drops, changes = folder.collect(refresh=False)
    assert pairs == ALL - {deleted, corrected} | {"a corrected thing", "a fifth thing"}
    assert (drops[deleted], drops[corrected]) == ("no_longer_shown", "caption_changed")
    assert changes == {("gone", "no_longer_shown"): 1, ("gone", "caption_changed"): 1, ("new", "kept"): 2} | {
        key: n for key, n in changes.items() if key[0] == "new, left out"
    }


def test_a_folder_that_is_empty_today_loses_nothing(folder):
    """A disk that is not mounted leaves an empty folder behind."""
    assert folder.collect(refresh=False)[0] == ALL
    shutil.move(folder.root, folder.root.with_name("elsewhere"))
    folder.root.mkdir()
    for refresh in (False, True):
        with pytest.raises(ValueError, match=r"source 'web' shows no captioned image today; the 4 of earlier stay as they were"):
            folder.collect(refresh)
    folder.root.rmdir()
    assert folder.collect(refresh=False)[0] == ALL, "what was collected can be worked with while the disk is away"
    with pytest.raises(ValueError, match="matches no file"):
        folder.collect()
    shutil.move(folder.root.with_name("elsewhere"), folder.root)
    assert folder.collect()[0] == ALL


def test_one_of_two_folders_is_empty_today_or_taken_out(folder, tmp_path, caplog):
    other = tmp_path / "more"
    other.mkdir()
    (other / "5.png").write_bytes(png(5))
    (other / "5.txt").write_text("a fifth thing")
    both = replace(folder.source, inputs=(str(folder.root), str(other)))
    folder.source = both
    assert folder.collect()[0] == ALL | {"a fifth thing"}
    (other / "5.png").rename(tmp_path / "5.png")
    assert folder.collect()[0] == ALL | {"a fifth thing"}
    assert f"{other} shows no captioned image today" in caplog.text
    folder.source = replace(both, inputs=(str(folder.root),))
    pairs, drops, _ = folder.collect()
    assert pairs == ALL
    assert drops["a fifth thing"] == "not_in_source"
    assert bytes_of(folder) == ALL | {"a fifth thing"}, "the folder may be put in again"


def test_a_document_that_was_deleted(tmp_path, web):
    for i, name in enumerate(("a", "b"), 1):
        web.put(f"/{i}.png", png(i))
        (tmp_path / f"{name}.csv").write_text(f"url,caption\n{web.url(f'/{i}.png')},a thing of {name}\n")
    world = World(tmp_path, SourceConfig(kind="url_tables", inputs=(str(tmp_path / "*.csv"),)))
    assert world.collect(refresh=False)[0] == {"a thing of a", "a thing of b"}
    (tmp_path / "b.csv").unlink()
    pairs, drops, changes = world.collect(refresh=False)
    assert pairs == {"a thing of a"}
    assert drops == {"a thing of b": "not_in_source"}
    assert changes == {("gone", "not_in_source"): 1}
