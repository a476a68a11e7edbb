"""robots.txt, as RFC 9309 wants it."""

from dataclasses import replace

import pytest

from dalle_datasets.web.failures import FetchError
from dalle_datasets.web.guard import RequestLimits
from dalle_datasets.web.robots import Robots

LIMITS = RequestLimits(user_agent="open-dalle/0.1", timeout_s=2, deadline_s=4, max_bytes=10, allow_addresses=("127.0.0.1",))


def code(robots, url):
    try:
        robots.check(url)
    except FetchError as error:
        return error.code
    return "ok"


def test_rules_are_read_once_per_host_and_obeyed(web):
    web.put("/robots.txt", b"User-agent: *\nDisallow: /private/\nCrawl-delay: 2\nSitemap: /map.xml\n", "text/plain")
    robots = Robots(LIMITS)
    assert [code(robots, web.url(path)) for path in ("/a.png", "/private/a.png", "/private", "/b.png")] == ["ok", "robots_txt", "ok", "ok"]
    assert robots.crawl_delay_s(web.url("/a.png")) == 2
    assert robots.sitemaps(web.url("/")) == ["/map.xml"]
    assert web.count("/robots.txt") == 1


def test_rules_for_us_by_name_win(web):
    web.put("/robots.txt", b"User-agent: *\nDisallow:\n\nUser-agent: Open-DALLE\nDisallow: /\n", "text/plain")
    assert code(Robots(LIMITS), web.url("/a.png")) == "robots_txt"
    assert code(Robots(replace(LIMITS, user_agent="other/1")), web.url("/a.png")) == "ok"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(404, "ok"), (403, "ok"), (500, "robots_unavailable"), (503, "robots_unavailable"), (429, "robots_unavailable")],
)
def test_missing_rules_allow_and_failing_ones_forbid(web, status, expected):
    web.put("/robots.txt", b"", status=status)
    assert code(Robots(LIMITS), web.url("/a.png")) == expected


def test_rubbish_rules_allow(web):
    web.put("/robots.txt", bytes(range(256)) * 10)
    assert code(Robots(LIMITS), web.url("/a.png")) == "ok"
