"""Several hosts at a time: faster, at every host's own pace, and with the same outcome whoever answers first."""

import random
import threading
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.sources.crawl import crawl
from dalle_datasets.sources.discover import candidates_path, discover
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import CANDIDATES, DROPPED_PAIRS, PAGES
from dalle_datasets.web.client import PoliteClient
from dalle_datasets.web.guard import RequestLimits

LOCAL = DownloadConfig(allow_addresses=("127.0.0.1",), requests_per_s_per_host=0)
LIMITS = RequestLimits(user_agent="open-dalle/0.1", timeout_s=5, deadline_s=5, max_bytes=10**6, allow_addresses=("127.0.0.1",))


def put_page(web, path, body, wait_s=lambda: 0.0):
    def answer(handler):
        time.sleep(wait_s())
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        handler.wfile.write(body.encode())

    web.answers[path] = answer


def publish(webs, num_pages, wait_s=lambda: 0.0):
    """On every host pages that link to the next two, and now and then to a page of another host; some pictures are on several hosts."""
    for n, web in enumerate(webs):
        other = webs[(n + 1) % len(webs)]
        for i in range(num_pages):
            links = [f"/{i + 1}.html", f"/{i + 2}.html"] + ([other.url(f"/{i * 3}.html")] if i % 4 == 0 else [])
            pictures = [(f"/{i}.png", f"picture {i} of host {n}"), ("http://shared.example/x.png", f"shared {i % 5}")]
            body = "".join(f'<a href="{link}">x</a>' for link in links) + "".join(f'<img src="{s}" alt="{a}">' for s, a in pictures)
            put_page(web, f"/{i}.html", body, wait_s)


def outcome(webs, tmp_path, name, download=LOCAL, **settings):
    """Every row that discovery wrote, with ports replaced by the number of the host."""
    source = SourceConfig(start_urls=tuple(web.url("/0.html") for web in webs), **settings)
    layout = Layout(tmp_path / name)
    result = discover(source, download, layout)
    tables = (
        read_parquet(candidates_path(layout, "web"), CANDIDATES, ["image_url", "caption", "page_url", "position"]),
        read_parquet(layout.dropped("web") / "discover.parquet", DROPPED_PAIRS),
        read_parquet(layout.source("web") / "pages.parquet", PAGES, ["page_url", "links"]),
    )
    return result, [table.to_pylist() for table in tables]


@pytest.mark.parametrize("max_pages", [1_000, 25, 2])
def test_the_outcome_does_not_depend_on_who_answers_first(webs, tmp_path, max_pages):
    outcomes = []
    for attempt in range(3):
        rng = random.Random(attempt)
        slow = rng.sample(range(3), 3)
        publish(webs, 12)
        for n, web in enumerate(webs):
            for path, answer in web.answers.items():
                web.answers[path] = late(answer, 0.004 * slow[n] * rng.random())
        outcomes.append(outcome(webs, tmp_path, f"{attempt}", max_pages=max_pages))
    result, tables = outcomes[0]
    assert (result.num_pages, result.num_pages_left > 0) == (min(36, max_pages - result.dropped.get("http_4xx", 0)), max_pages < 36)
    assert all(other == tables for _, other in outcomes[1:])


def late(answer, seconds):
    def wait_and_answer(handler):
        time.sleep(seconds)
        answer(handler)

    return wait_and_answer


def test_hosts_are_read_side_by_side_and_each_of_them_page_by_page(webs, tmp_path):
    publish(webs, 10, lambda: 0.05)
    times = [note_times(web) for web in webs]
    outcome(webs, tmp_path, "data", max_pages=30)
    assert [len(of_host) for of_host in times] == [10, 10, 10]
    assert max(of_host[0] for of_host in times) < min(of_host[-1] for of_host in times)
    assert all(later - earlier >= 0.05 for of_host in times for earlier, later in pairwise(of_host))


def test_a_slow_host_does_not_hold_up_the_others(webs, tmp_path):
    fast, slow, _ = webs
    publish(webs[:2], 8)
    put_page(slow, "/0.html", '<a href="/1.html">x</a>', lambda: 1.0)
    threading.Thread(target=outcome, args=(webs[:2], tmp_path, "data"), kwargs={"max_pages": 100}, daemon=True).start()
    end = time.monotonic() + 5
    while len({path for path, _ in fast.requests}) < 10 and time.monotonic() < end:
        time.sleep(0.01)
    assert slow.num_open == 1  # still at its first page
    while slow.num_open and time.monotonic() < end:
        time.sleep(0.01)


def test_the_pace_of_a_host_is_kept(webs, tmp_path):
    """A Crawl-delay of one host slows down that host only."""
    publish(webs, 4)
    webs[0].put("/robots.txt", b"User-agent: *\nCrawl-delay: 0.2\n", "text/plain")
    times = note_times(webs[0])
    outcome(webs, tmp_path, "data", max_pages=12)
    assert len(times) == 4
    assert all(later - earlier > 0.15 for earlier, later in pairwise(times))


def note_times(web):
    """When the pages of a host will have been asked for."""
    times = []

    def noting(answer):
        def note_and_answer(handler):
            times.append(time.monotonic())
            answer(handler)

        return note_and_answer

    for path, answer in web.answers.items():
        if path.endswith(".html"):
            web.answers[path] = noting(answer)
    return times


def test_every_host_gets_its_share_of_the_pages(webs, tmp_path):
    """One that is huge does not use up what may be asked for; what a small one leaves goes to the others."""
    publish(webs[:1], 60)
    publish(webs[1:2], 5)
    source = SourceConfig(start_urls=tuple(web.url("/0.html") for web in webs[:2]), max_pages=30)
    result = discover(source, LOCAL, Layout(tmp_path))
    asked = [len({path for path, _ in web.requests} - {"/robots.txt", "/.well-known/tdmrep.json"}) for web in webs[:2]]
    assert asked == [30 - asked[1], asked[1]]
    assert asked[1] >= 5
    assert result.num_pages_left > 0


def test_who_ends_a_crawl_does_not_wait_for_all_of_it(webs, found_by):
    publish(webs, 200, lambda: 0.02)

    class Stop(BaseException):
        pass

    def report(done, total, unit, **numbers):
        if done == 5:
            raise Stop

    source = SourceConfig(start_urls=tuple(web.url("/0.html") for web in webs), max_pages=600)
    with pytest.raises(Stop):
        found_by(lambda result: crawl(source, source.start_urls, PoliteClient(LIMITS, 0), "open-dalle", None, 16, result, report))
    assert sum(len(web.requests) for web in webs) < 100  # of 600


def test_one_thread_is_enough(webs, tmp_path):
    publish(webs, 6)
    one, many = (outcome(webs, tmp_path, f"{n}", replace(LOCAL, num_threads=n)) for n in (1, 16))
    assert one[0].num_pages == 18
    assert one[1] == many[1]


def test_the_rules_of_a_host_hold_for_redirects_too(web, tmp_path):
    web.put("/robots.txt", b"User-agent: *\nDisallow: /closed/\n", "text/plain")
    web.redirect("/open.html", "/closed/page.html")
    put_page(web, "/closed/page.html", '<img src=1.png alt="not for us">')
    put_page(web, "/", '<a href="/open.html">x</a><img src=2.png alt="for us">')
    layout = Layout(tmp_path)
    assert discover(SourceConfig(start_urls=(web.url("/"),)), LOCAL, layout).dropped == {"robots_txt": 1}
    assert web.count("/closed/page.html") == 0
