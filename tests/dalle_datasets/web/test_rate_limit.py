"""Politeness: so many requests per host and second."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dalle_datasets.web.client import Visitor
from dalle_datasets.web.failures import FetchError
from dalle_datasets.web.guard import Guard
from dalle_datasets.web.rate_limit import Pace

GUARD = Guard(user_agent="open-dalle/0.1", timeout_s=2, deadline_s=4, max_bytes=1_000, allow_addresses=("127.0.0.1",))


def seconds(call):
    start = time.monotonic()
    call()
    return time.monotonic() - start


def test_requests_to_one_host_are_spread_over_time():
    pace = Pace(50)
    with ThreadPoolExecutor(8) as pool:
        taken = seconds(lambda: list(pool.map(pace.wait, ["http://a.example/x"] * 11)))
    assert 0.2 <= taken < 0.6  # ten intervals of 20 ms


def test_hosts_do_not_wait_for_one_another():
    pace = Pace(1)
    assert seconds(lambda: [pace.wait(f"http://{i}.example/") for i in range(50)]) < 0.2


def test_no_limit_and_exempt_hosts():
    assert seconds(lambda: [Pace(0).wait("http://a.example/") for _ in range(50)]) < 0.2
    pace = Pace(1, exempt={"a.example"})
    assert seconds(lambda: [pace.wait("http://a.example/", 5) for _ in range(50)]) < 0.2


def test_a_host_may_ask_for_more_time():
    pace = Pace(1_000)
    pace.wait("http://a.example/", crawl_delay_s=0.2)
    assert 0.15 < seconds(lambda: pace.wait("http://a.example/", crawl_delay_s=0.2)) < 0.5
    pace.heed("http://b.example/", FetchError("http_429", "status 429", retry_after_s=0.2))
    assert 0.15 < seconds(lambda: pace.wait("http://b.example/")) < 0.5


def test_a_broken_address_is_no_error():
    Pace(1).wait("http://[::1")


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [("7", 7, 7), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0), ("Fri, 31 Dec 2100 23:59:59 GMT", 1e6, 1e10), ("soon", 0, 0)],
)
def test_retry_after_is_read(web, value, least, most):
    web.put("/a.png", b"", status=503, Retry_After=value)
    with pytest.raises(FetchError, match="http_5xx: status 503, Retry-After: ") as caught:
        Visitor(GUARD, 0).fetch_image(web.url("/a.png"))
    assert least <= caught.value.retry_after_s <= most


def test_a_visitor_waits_as_it_was_told(web):
    web.put("/busy.png", b"", status=429, Retry_After="1")
    web.put("/a.png", b"x")
    visitor = Visitor(GUARD, 0)
    with pytest.raises(FetchError):
        visitor.fetch_image(web.url("/busy.png"))
    assert 0.8 < seconds(lambda: visitor.fetch_image(web.url("/a.png"))) < 2


def test_a_crawl_delay_is_kept(web):
    web.put("/robots.txt", b"User-agent: *\nCrawl-delay: 0.3\n", "text/plain")
    web.put("/a.png", b"x")
    visitor = Visitor(GUARD, 100)
    assert 0.5 < seconds(lambda: [visitor.fetch_image(web.url("/a.png")) for _ in range(3)]) < 2
