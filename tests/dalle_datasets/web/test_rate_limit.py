"""Politeness: so many requests per host and second."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from dalle_datasets.web import rate_limit
from dalle_datasets.web.client import PoliteClient
from dalle_datasets.web.failures import FetchError
from dalle_datasets.web.guard import RequestLimits
from dalle_datasets.web.rate_limit import RateLimiter

LIMITS = RequestLimits(user_agent="open-dalle/0.1", timeout_s=2, deadline_s=4, max_bytes=1_000, allow_addresses=("127.0.0.1",))


class StoppedClock:
    """A clock that stands still and notes what it is asked to sleep."""

    def __init__(self) -> None:
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return 100.0

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)


@pytest.fixture
def sleeps(monkeypatch):
    clock = StoppedClock()
    monkeypatch.setattr(rate_limit, "time", clock)
    return clock.sleeps


def test_requests_to_one_host_are_spread_over_time(sleeps):
    pace = RateLimiter(50)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(pace.wait, ["http://a.example/x"] * 11))
    assert sorted(sleeps) == pytest.approx([0.02 * n for n in range(1, 11)])  # ten intervals


def test_hosts_do_not_wait_for_one_another(sleeps):
    pace = RateLimiter(1)
    for i in range(50):
        pace.wait(f"http://{i}.example/")
    assert sleeps == []


def test_no_limit_and_exempt_hosts(sleeps):
    no_limit, exempt = RateLimiter(0), RateLimiter(1, exempt={"a.example"})
    for _ in range(50):
        no_limit.wait("http://a.example/")
        exempt.wait("http://a.example/", 5)
    assert sleeps == []


def test_a_host_may_ask_for_more_time(sleeps):
    pace = RateLimiter(1_000)
    pace.wait("http://a.example/", crawl_delay_s=0.2)
    pace.wait("http://a.example/", crawl_delay_s=0.2)
    pace.back_off("http://b.example/", FetchError("http_429", "status 429", retry_after_s=0.3))
    pace.wait("http://b.example/")
    assert sleeps == pytest.approx([0.2, 0.3])


def test_a_broken_address_is_no_error():
    RateLimiter(1).wait("http://[::1")


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [("7", 7, 7), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0), ("Fri, 31 Dec 2100 23:59:59 GMT", 1e6, 1e10), ("soon", 0, 0)],
)
def test_retry_after_is_read(web, value, least, most):
    web.put("/a.png", b"", status=503, Retry_After=value)
    with pytest.raises(FetchError, match="http_5xx: status 503, Retry-After: ") as caught:
        PoliteClient(LIMITS, 0).fetch_image(web.url("/a.png"))
    assert least <= caught.value.retry_after_s <= most


def test_a_visitor_waits_as_it_was_told(web, sleeps):
    web.put("/busy.png", b"", status=429, Retry_After="1")
    web.put("/a.png", b"x")
    client = PoliteClient(LIMITS, 0)
    with pytest.raises(FetchError):
        client.fetch_image(web.url("/busy.png"))
    client.fetch_image(web.url("/a.png"))
    assert sleeps == pytest.approx([1.0])


def test_a_crawl_delay_is_kept(web, sleeps):
    web.put("/robots.txt", b"User-agent: *\nCrawl-delay: 0.3\n", "text/plain")
    web.put("/a.png", b"x")
    client = PoliteClient(LIMITS, 100)
    for _ in range(3):
        client.fetch_image(web.url("/a.png"))
    assert sleeps == pytest.approx([0.3, 0.6])
