"""robots.txt, as RFC 9309 wants it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalle_datasets.web.failures import FetchError
from dalle_datasets.web.guard import RequestLimits
from dalle_datasets.web.robots import Robots, parse_robots

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


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "latin-1"]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_rules_of_any_editor(web, encoding, end):
    rules = ["# für alle", "User-agent: *", "Disallow: /private/", ""]
    web.put("/robots.txt", end.join(rules).encode(encoding), "text/plain")
    robots = Robots(LIMITS)
    assert [code(robots, web.url(path)) for path in ("/a.png", "/private/a.png")] == ["ok", "robots_txt"]


@pytest.mark.parametrize(
    "rules",
    [
        "User-agent: open-dalle/1.0\nDisallow: /",
        "User-agent: somebot, open-dalle\nDisallow: /",
        "User-agent: somebot\nAllow: /\n\ufeffUser-agent: *\nDisallow: /",  # two files in one
        "Disallow: /",
        "User-agent: open\nAllow: /\n\nUser-agent: *\nDisallow: /",  # the name of somebody else
        "user agent : OPEN-DALLE\nDisalow: /",
        "User-agent: a\nUser-agent: *\n\nDisallow: / # all of it",
        "User-agent: *\nAllow: /open/\nCrawl-delay: 5\nSitemap: /s.xml\nDisallow: /",
        "User-agent: *\nCrawl-delay: 5\nUser-agent: somebot\nSitemap: /s.xml\nDisallow: /",  # one group of two agents
    ],
)
def test_rules_that_others_overlook(web, rules):
    web.put("/robots.txt", rules.encode(), "text/plain")
    assert code(Robots(LIMITS), web.url("/a.png")) == "robots_txt"


PATHS = st.text("abc/*$.%", min_size=0, max_size=8).map(lambda text: f"/{text}")
RULE = st.one_of(
    st.tuples(
        st.sampled_from(["Allow: ", "disallow:", "Crawl-delay: 1", "Sitemap: http://a.example", "Content-Signal: search=yes"]), PATHS
    ),
    st.tuples(st.sampled_from(["# ", "", "Host: ", "\t", "<html>"]), PATHS),
).map("".join)


@given(st.lists(RULE), st.lists(RULE), st.sampled_from(["User-agent: x\n\n", "user-agent:googlebot\n"]), st.sampled_from(ENCODINGS[:-1]),
       st.sampled_from(["\n", "\r", "\r\n"]), st.sampled_from(["*", "Open-DALLE", "open-dalle/2"]))  # fmt: skip
def test_a_closed_folder_is_closed_among_any_other_rules(before, after, other, encoding, end, agent):
    """The longest rule decides, so none of the others can open it."""
    rules = [f"{other}Disallow: /x", *before, f"User-agent: {agent}", "Disallow: /the/longest/of/all/rules/", *after]
    parsed = parse_robots(end.join(rules).replace("\n", end).encode(encoding), "open-dalle")
    assert not parsed.can_fetch("http://a.example/the/longest/of/all/rules/1.png", "open-dalle")


def test_a_robots_txt_that_opts_out_itself_is_obeyed_all_the_same(web):
    web.put("/robots.txt", b"User-agent: *\nDisallow: /private/\n", "text/plain", X_Robots_Tag="noindex")
    assert code(Robots(LIMITS), web.url("/private/a.png")) == "robots_txt"


def test_of_a_very_long_file_the_first_half_megabyte_counts(web):
    web.put("/robots.txt", b"User-agent: *\nDisallow: /private/\n" + b"Allow: /private/open/\n" * 30_000, "text/plain")
    robots = Robots(LIMITS)
    assert [code(robots, web.url(path)) for path in ("/private/a.png", "/private/open/a.png")] == ["robots_txt", "ok"]


def test_rules_that_cannot_be_read_mean_not_now(web):
    web.hang("/robots.txt", 3)
    assert code(Robots(replace(LIMITS, timeout_s=0.2)), web.url("/a.png")) == "timeout"


@pytest.mark.parametrize(
    ("rules", "reserved"),
    [
        ('[{"location": "/", "tdm-reservation": 1}]', ["/a.png", "/open/b.png", "/c.gif"]),
        ('[{"location": "/open/", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}]', ["/a.png", "/c.gif"]),
        ('[{"location": "/*.gif$", "tdm-reservation": "1"}, {"location": "/", "tdm-reservation": 0}]', ["/c.gif"]),
        ('[{"location": "/", "tdm-reservation": 0}, {"location": "/open", "tdm-reservation": true}]', ["/open/b.png"]),
        ('{"tdm-reservation": 1, "tdm-policy": "http://a.example/policy"}', ["/a.png", "/open/b.png", "/c.gif"]),
        ('[{"location": "/", "tdm-reservation": 0}]', []),
        ('[1, {"location": "/"}, "x"]', []),
        ("<html>not here</html>", []),
        ("[" * 100_000, []),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_reservations_of_text_and_data_mining(web, rules, reserved, encoding):
    web.put("/.well-known/tdmrep.json", rules.encode(encoding), "application/json")
    robots = Robots(LIMITS)
    assert [path for path in ("/a.png", "/open/b.png", "/c.gif") if code(robots, web.url(path)) == "tdm_reserved"] == reserved


def test_rubbish_rules_allow(web):
    web.put("/robots.txt", bytes(range(256)) * 10)
    assert code(Robots(LIMITS), web.url("/a.png")) == "ok"
