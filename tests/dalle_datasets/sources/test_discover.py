"""Discovery over real HTTP."""

import gzip
from contextlib import contextmanager

import pyarrow.compute as pc
import pytest

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.sources import discover as discovery
from dalle_datasets.sources.discover import candidates_path, discover
from dalle_datasets.store import parquet
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import CANDIDATES, DROPPED_PAIRS

LOCAL = DownloadConfig(allow_addresses=("127.0.0.1",))


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def page(*parts):
    return ("<!doctype html>" + "".join(parts)).encode()


def put_page(web, path, *parts):
    web.put(path, page(*parts), "text/html")


def drops_of(layout, source="web"):
    table = read_parquet(layout.dropped(source) / "discover.parquet", DROPPED_PAIRS)
    return sorted(zip(table["reason"].to_pylist(), table["page_url"].to_pylist(), strict=True))


def test_links_are_followed_on_the_same_site(web, layout):
    put_page(
        web,
        "/",
        '<a href="/a.html">a</a><a href="/a.html#again">a</a><a href="http://127.0.0.2/b.html">b</a><img src=1.png alt="first one">',
    )
    put_page(web, "/a.html", '<a href="/">home</a><img src=2.png alt="second one"><img src=1.png alt="first one">')
    result = discover(SourceConfig(start_urls=(web.url("/"),)), LOCAL, layout)
    assert (result.num_candidates, result.num_pages, result.num_pages_left, result.dropped) == (2, 2, 0, {"duplicate_candidate": 1})
    table = read_parquet(layout.root / result.candidates, CANDIDATES)
    assert sorted(table["caption"].to_pylist()) == ["first one", "second one"]
    assert table["candidate_id"].to_pylist() == sorted(table["candidate_id"].to_pylist())
    assert web.count("/a.html") == 1
    assert all(headers["user-agent"].startswith("open-dalle/") for _, headers in web.requests)


def test_robots_txt_is_obeyed_for_pages(web, layout):
    web.put("/robots.txt", b"User-agent: *\nDisallow: /closed/\n", "text/plain")
    put_page(web, "/", '<a href="/closed/a.html">a</a><img src=1.png alt="first one">')
    put_page(web, "/closed/a.html", '<img src=2.png alt="second one">')
    result = discover(SourceConfig(start_urls=(web.url("/"),)), LOCAL, layout)
    assert result.num_candidates == 1
    assert drops_of(layout) == [("robots_txt", web.url("/closed/a.html"))]
    assert web.count("/closed/a.html") == 0


def test_max_pages_is_a_bound(web, layout):
    for i in range(10):
        put_page(web, f"/{i}", f'<a href="/{i + 1}">next</a><a href="/{i + 2}">over</a><img src={i}.png alt="number {i}">')
    result = discover(SourceConfig(start_urls=(web.url("/0"),), max_pages=3), LOCAL, layout)
    assert (result.num_pages, result.num_candidates, result.num_pages_left) == (3, 3, 2)


def test_addresses_are_taken_from_where_a_redirect_led(web, layout):
    web.redirect("/old/", "/new/page.html")
    put_page(web, "/new/page.html", '<img src=1.png alt="first one">')
    discover(SourceConfig(start_urls=(web.url("/old/"),)), LOCAL, layout)
    assert read_parquet(candidates_path(layout, "web"), CANDIDATES)["image_url"].to_pylist() == [web.url("/new/1.png")]


def test_a_second_run_does_nothing(web, layout):
    put_page(web, "/", '<img src=1.png alt="first one">')
    source = SourceConfig(start_urls=(web.url("/"),))
    first = discover(source, LOCAL, layout)
    num_requests = len(web.requests)
    second = discover(source, LOCAL, layout)
    assert second.skipped
    assert not first.skipped
    assert second.candidates_id == first.candidates_id
    assert len(web.requests) == num_requests


def test_nothing_found_is_an_error_that_says_why(web, layout):
    put_page(web, "/", '<img src=1.png><a href="/gone.html">x</a>')
    with pytest.raises(
        ValueError,
        match=r"source\.start_urls: no captioned image in 1 documents \(no_caption 1, http_4xx 1; for example .*\); check the addresses",
    ):
        discover(SourceConfig(start_urls=(web.url("/"),)), LOCAL, layout)


def test_a_private_site_must_be_allowed(web, layout):
    put_page(web, "/", '<img src=1.png alt="first one">')
    with pytest.raises(
        ValueError, match=r"private_address 1; .*127\.0\.0\.1 is 127\.0\.0\.1\); check the addresses, and download\.allow_addresses"
    ):
        discover(SourceConfig(start_urls=(web.url("/"),)), DownloadConfig(), layout)
    assert not web.requests


def test_no_start_urls(layout):
    with pytest.raises(ValueError, match=r"source\.start_urls is empty, so there is no page to read; give at least one address"):
        discover(SourceConfig(), LOCAL, layout)


def test_drops_keep_what_was_seen(web, layout):
    put_page(web, "/", '<img src="data:x" alt="a cat"><img src=1.png alt="first one">')
    discover(SourceConfig(start_urls=(web.url("/"),)), LOCAL, layout)
    table = read_parquet(layout.dropped("web") / "discover.parquet", DROPPED_PAIRS)
    row = table.filter(pc.equal(table["reason"], "bad_scheme")).to_pylist()[0]
    assert (row["caption"], row["image_url"], row["page_url"], row["stage"], row["source"]) == (
        "a cat",
        "data:x",
        web.url("/"),
        "discover",
        "web",
    )


def test_a_refresh_reads_only_what_changed(web, layout):
    """A scheduled run: unchanged pages answer 304, and changed ones say what is new and what is no more."""
    bodies = {
        "/": '<a href="/a.html">a</a><a href="/b.html">b</a>',
        "/a.html": '<img src=1.png alt="first one">',
        "/b.html": '<img src=2.png alt="second one">',
    }

    def answer(handler):
        body = page(bodies[handler.path])
        etag = f'"{len(body)}"'
        is_same = handler.headers.get("If-None-Match") == etag
        handler.send_response(304 if is_same else 200)
        handler.send_header("ETag", etag)
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        if not is_same:
            handler.wfile.write(body)

    web.answers.update(dict.fromkeys([*bodies, "/c.html"], answer))
    source = SourceConfig(start_urls=(web.url("/"),))
    first = discover(source, LOCAL, layout)
    assert (first.num_candidates, first.num_new, first.num_unchanged) == (2, 2, 0)
    same = discover(source, LOCAL, layout, refresh=True)
    assert (same.num_candidates, same.num_new, same.num_unchanged, same.num_pages) == (2, 0, 3, 3)
    assert same.candidates_id == first.candidates_id
    bodies["/b.html"] = '<img src=3.png alt="the third one"><a href="/c.html">c</a>'
    bodies["/c.html"] = '<img src=4.png alt="the fourth">'
    later = discover(source, LOCAL, layout, refresh=True)
    assert (later.num_candidates, later.num_new, later.num_unchanged, later.num_pages) == (3, 2, 2, 4)
    assert later.dropped == {"no_longer_shown": 1}
    captions = read_parquet(candidates_path(layout, "web"), CANDIDATES)["caption"].to_pylist()
    assert sorted(captions) == ["first one", "the fourth", "the third one"]


def test_pages_of_sitemaps(web, layout):
    site = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1"'
    web.put(
        "/robots.txt",
        f"Sitemap: {web.url('/index.xml')}\nSitemap: {web.url('/gone.xml')}\nSitemap: {web.url('/bomb.xml')}".encode(),
        "text/plain",
    )
    web.put(
        "/index.xml", f"<sitemapindex {site}><sitemap><loc>{web.url('/map.xml.gz')}</loc></sitemap></sitemapindex>".encode(), "text/xml"
    )
    listed = (
        f"<urlset {site}><url><loc>{web.url('/hidden.html')}</loc><image:image><image:loc>{web.url('/9.png')}</image:loc>"
        "<image:caption>a listed picture</image:caption></image:image></url><url><loc>http://other.example/</loc></url></urlset>"
    )
    web.put("/map.xml.gz", gzip.compress(listed.encode()), "application/gzip")
    web.put("/bomb.xml", b'<!DOCTYPE x [<!ENTITY a "b">]><urlset/>', "text/xml")
    put_page(web, "/", '<img src=1.png alt="first one">')
    put_page(web, "/hidden.html", '<img src=2.png alt="second one">')
    result = discover(SourceConfig(start_urls=(web.url("/"),), use_sitemaps=True), LOCAL, layout)
    table = read_parquet(candidates_path(layout, "web"), CANDIDATES)
    assert sorted(zip(table["caption"].to_pylist(), table["found_in"].to_pylist(), strict=True)) == [
        ("a listed picture", "sitemap"),
        ("first one", "img alt"),
        ("second one", "img alt"),
    ]
    assert result.dropped == {"http_4xx": 1, "not_xml": 1}


def test_a_refresh_keeps_the_drops_of_unchanged_pages(web, layout):
    """The account of a site that is read again says the same as that of a site that is read for the first time."""
    bodies = {
        "/": '<img src=0.png alt="first one"><img src=no.png><a href="/a.html">a</a><a href="/b.html">b</a><a href="/gone.html">g</a>',
        "/a.html": '<img src=0.png alt="first one"><img src=no.png><img src=no.png>',
        "/b.html": '<img src=0.png alt="first one"><img src=1.png alt="second one"><img src=no.png>',
    }

    def answer(handler):
        body = page(bodies[handler.path])
        same = handler.headers.get("If-None-Match") == f'"{len(body)}"'
        handler.send_response(304 if same else 200)
        handler.send_header("ETag", f'"{len(body)}"')
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        handler.wfile.write(b"" if same else body)

    web.answers.update(dict.fromkeys(bodies, answer))
    source = SourceConfig(start_urls=(web.url("/"),))

    def read():
        table = read_parquet(layout.dropped("web") / "discover.parquet", DROPPED_PAIRS)
        return table.to_pylist(), read_parquet(candidates_path(layout, "web"), CANDIDATES).to_pylist()

    first = discover(source, LOCAL, layout)
    assert first.dropped == {"duplicate_candidate": 2, "http_4xx": 1, "no_caption": 4}
    before = read()
    same = discover(source, LOCAL, layout, refresh=True)
    assert (same.dropped, read(), same.num_new) == (first.dropped, before, 0)
    bodies["/b.html"] = '<img src=0.png alt="first one"><img src=2.png alt="the third one">'  # one without a caption is gone
    put_page(web, "/gone.html", '<img src=3.png alt="the fourth">')  # and a page is there at last
    later = discover(source, LOCAL, layout, refresh=True)
    assert (later.dropped, later.num_new) == ({"duplicate_candidate": 2, "no_caption": 3, "no_longer_shown": 1}, 2)
    bodies["/a.html"] += " " * 100
    web.put("/b.html", b"", status=503)  # for a night: what is known of the page stays
    tonight = discover(source, LOCAL, layout, refresh=True)
    assert tonight.dropped == {**later.dropped, "http_5xx": 1}


@pytest.mark.parametrize("file", ["found.parquet", "finds.parquet", "candidates.parquet", "drops.parquet", "pages.parquet", "decided"])
def test_a_refresh_that_is_killed_loses_nothing(web, layout, monkeypatch, file):
    """Killed before any of its files is written, and run again: the files of an undisturbed one."""
    bodies = {"/": '<img src=0.png alt="first one"><img src=no.png>'}

    def answer(handler):
        body = page(bodies["/"])
        same = handler.headers.get("If-None-Match") == f'"{len(body)}"'
        handler.send_response(304 if same else 200)
        handler.send_header("ETag", f'"{len(body)}"')
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        handler.wfile.write(b"" if same else body)

    web.answers["/"] = answer
    source = SourceConfig(start_urls=(web.url("/"),))
    discover(source, LOCAL, layout)
    bodies["/"] += '<img src=1.png alt="second one"><img src=also-no.png>'

    class Killed(BaseException):
        pass

    @contextmanager
    def killed_before_renaming(path):
        with atomic_path(path) as partial:
            yield partial
            if path.name == file:
                raise Killed

    atomic_path = parquet.atomic_path
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(parquet, "atomic_path", killed_before_renaming)
        patch.setattr(discovery, "atomic_path", killed_before_renaming)
        discover(source, LOCAL, layout, refresh=True)
    again = discover(source, LOCAL, layout, refresh=True)
    assert (again.num_candidates, again.dropped) == (2, {"no_caption": 2})
    assert discover(source, LOCAL, layout, refresh=True).num_unchanged == 1


@pytest.mark.parametrize(
    "body",
    [b"<a", b'<?xml version="1.0" encoding="nonsense"?><a/>', b'<?xml version="1.0" encoding="shift_jis"?><a/>', b"<a>" * 100_000, b"",
     gzip.compress(b"<a/>" * 100)[:15] + b"\xff" * 9, gzip.compress(b"<a/>")[:-4], gzip.compress(bytes(20 * 2**20))],
    ids=["unclosed", "unknown encoding", "shift_jis", "deep", "empty", "damaged gzip", "short gzip", "bomb"],
)  # fmt: skip
def test_broken_sitemaps(web, layout, body):
    web.put("/robots.txt", f"Sitemap: {web.url('/map.xml')}\nSitemap: http://[::1\n".encode(), "text/plain")
    web.put("/map.xml", body, "text/xml")
    put_page(web, "/", '<img src=1.png alt="first one"><a href="http://[::1">x</a>')
    result = discover(SourceConfig(start_urls=(web.url("/"), "http://[::1"), use_sitemaps=True), LOCAL, layout)
    assert result.num_candidates == 1
    assert result.dropped == {"not_xml" if body else "empty_body": 1, "bad_url": 2}
