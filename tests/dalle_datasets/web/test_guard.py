"""Request limits against a server that does everything wrong."""

import socket
import threading
import time
from dataclasses import replace

import pytest

from dalle_datasets.web.failures import FAILURES, FetchError, parse_failure
from dalle_datasets.web.guard import RequestLimits, Wish, fetch
from dalle_datasets.web.urls import is_allowed

LIMITS = RequestLimits(
    user_agent="open-dalle/0.1 (+https://example.org)", timeout_s=0.3, deadline_s=1.0, max_bytes=100_000, allow_addresses=("127.0.0.1",)
)


def failure(url, limits=LIMITS):
    with pytest.raises(FetchError) as caught:
        fetch(url, limits)
    return caught.value


def test_a_body_comes_whole_with_an_honest_user_agent(web):
    web.put("/a.png", b"x" * 70_000)
    answer = fetch(web.url("/a.png"), LIMITS)
    assert answer.body == b"x" * 70_000
    assert answer.url == web.url("/a.png")
    ((_, headers),) = web.requests
    assert headers["user-agent"] == "open-dalle/0.1 (+https://example.org)"
    assert headers["host"] == f"127.0.0.1:{web.port}"
    assert headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:image/png;base64,AAAA", "gopher://x/", "hello", "", "javascript:alert(1)"]
)
def test_only_http_and_https_are_spoken(url):
    assert failure(url).code == "bad_scheme"


@pytest.mark.parametrize(
    "url", ["http://", "http:///", "http://user:secret@127.0.0.1/", "http://[::1", "http://host:99999/", "http://" + "a" * 300 + "/"]
)
def test_addresses_that_make_no_sense(url):
    assert failure(url).code == "bad_url"


def test_private_addresses_are_refused_before_a_packet_is_sent(web):
    web.put("/a.png", b"x")
    error = failure(web.url("/a.png"), replace(LIMITS, allow_addresses=()))
    assert (error.code, error.detail) == ("private_address", "127.0.0.1 is 127.0.0.1")
    assert not web.requests


def test_a_name_that_resolves_to_a_private_address_is_refused(web):
    assert failure(f"http://localhost:{web.port}/a.png", replace(LIMITS, allow_addresses=())).code == "private_address"


def test_a_redirect_to_a_private_address_is_refused(web):
    web.redirect("/a.png", "http://127.0.0.2:1/secret")
    error = failure(web.url("/a.png"))
    assert (error.code, error.detail) == ("private_address", "127.0.0.2 is 127.0.0.2")


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:0a00:0001::", False),
        ("64:ff9b::10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::8.8.8.8", True),
    ],
)
def test_which_addresses_are_public(address, allowed):
    assert is_allowed(address, ()) is allowed


def test_an_allowed_private_address():
    assert is_allowed("10.1.2.3", ("10.1.2.3",))
    assert not is_allowed("10.1.2.4", ("10.1.2.3",))


def test_redirects_are_followed_within_limits(web):
    web.put("/b.png", b"b")
    web.redirect("/a.png", "b.png")
    web.redirect("/loop", "/loop")
    answer = fetch(web.url("/a.png"), LIMITS)
    assert (answer.body, answer.url) == (b"b", web.url("/b.png"))
    assert failure(web.url("/loop")).code == "redirect_limit"
    assert web.count("/loop") == 6


def test_a_redirect_to_a_file_is_refused(web):
    web.redirect("/a.png", "file:///etc/passwd")
    assert failure(web.url("/a.png")).code == "bad_scheme"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "http_4xx"),
        (403, "http_4xx"),
        (404, "http_4xx"),
        (410, "http_4xx"),
        (429, "http_429"),
        (500, "http_5xx"),
        (503, "http_5xx"),
        (204, "empty_body"),
    ],
)
def test_status_codes(web, status, code):
    web.put("/a", b"", status=status, Retry_After="7")
    error = failure(web.url("/a"))
    assert error.code == code
    assert "7" in error.detail or status == 204


def test_a_body_that_announces_too_much_is_not_read(web):
    web.put("/a", b"x", Content_Length="100001")
    error = failure(web.url("/a"))
    assert (error.code, error.detail) == ("too_many_bytes", "100001 bytes announced, 100000 allowed")


def test_an_endless_body_is_refused_not_cut(web):
    web.endless("/a")
    error = failure(web.url("/a"))
    assert (error.code, error.detail) == ("too_many_bytes", "more than 100000 bytes")


def test_a_body_shorter_than_announced(web):
    web.put("/a", b"x" * 10, Content_Length="20")
    error = failure(web.url("/a"))
    assert (error.code, error.detail) == ("incomplete_body", "10 of 20 bytes")


def test_an_empty_body(web):
    web.put("/a", b"")
    assert failure(web.url("/a")).code == "empty_body"


def test_silence_is_a_timeout(web):
    web.hang("/a", 2)
    assert failure(web.url("/a")).code == "timeout"


@pytest.mark.parametrize("what", [b"", b"x"], ids=["headers", "body"])
def test_a_drip_ends_at_the_deadline(web, what):
    """img2dataset's own timeout is per read: a server that sends a byte now and then held it for as long as it liked."""
    web.drip("/a", 0.1, what)
    assert failure(web.url("/a")).code == "deadline"
    assert web.num_open == 1  # the server would go on


def test_redirects_share_one_deadline(web):
    def slow_loop(handler):
        time.sleep(0.25)
        handler.send_response(302)
        handler.send_header("Location", f"/loop{len(web.requests)}")
        handler.end_headers()

    for i in range(9):
        web.answers[f"/loop{i}"] = slow_loop
    assert failure(web.url("/loop0"), replace(LIMITS, deadline_s=0.6)).code == "deadline"


def test_broken_connections(web):
    web.reset("/a")
    assert failure(web.url("/a")).code == "connect"
    web.answers["/b"] = lambda handler: handler.wfile.write(b"this is no HTTP\r\n\r\n")
    assert failure(web.url("/b")).code == "connect"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert failure(f"http://127.0.0.1:{unused.getsockname()[1]}/").code == "connect"


def test_a_name_that_does_not_exist():
    assert failure("http://does-not-exist.invalid/a.png").code == "dns"


def test_tls_to_a_server_without_tls(web):
    web.put("/a", b"x")
    assert failure(f"https://127.0.0.1:{web.port}/a").code == "tls"


def test_too_many_headers_are_a_broken_connection(web):
    def answer(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1_000 + b"\r\n")

    web.answers["/a"] = answer
    assert failure(web.url("/a")).code == "connect"


def test_chunked_bodies(web):
    def answer(handler, chunks=b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)

    web.answers["/a"] = answer
    web.answers["/torn"] = lambda handler: answer(handler, b"fff\r\nabc")
    web.answers["/nonsense"] = lambda handler: answer(handler, b"zz\r\nabc")
    assert fetch(web.url("/a"), LIMITS).body == b"abcde"
    assert failure(web.url("/torn")).code == "incomplete_body"
    assert failure(web.url("/nonsense")).code == "incomplete_body"


@pytest.mark.parametrize("value", ["noai", "noindex, nofollow", "NONE", "open-dalle: noimageai", "all, noml"])
def test_x_robots_tag_opts_out_before_the_body_is_read(web, value):
    web.put("/a", b"x" * 1_000_000, X_Robots_Tag=value)  # would be too_many_bytes
    assert failure(web.url("/a")).code == "x_robots_tag"


def test_an_unchanged_page_may_have_opted_out_meanwhile(web):
    web.put("/a", b"", status=304, ETag='"7"', X_Robots_Tag="noai")
    with pytest.raises(FetchError, match="x_robots_tag"):
        fetch(web.url("/a"), LIMITS, Wish(headers={"If-None-Match": '"7"'}))


def test_headers_alone(web):
    web.put("/a", b"x" * 1_000_000, ETag='"7"')  # would be too_many_bytes
    answer = fetch(web.url("/a"), LIMITS, Wish(wants_body=False))
    assert (answer.status, answer.headers["ETag"], answer.body) == (200, '"7"', b"")


@pytest.mark.parametrize(
    "value", ["all", "otherbot: noai", "nofollow", "unavailable_after: 25 Jun 2030 15:00:00 PST", "max-image-preview:large"]
)
def test_other_x_robots_tags_do_not(web, value):
    web.put("/a", b"x", X_Robots_Tag=value)
    assert fetch(web.url("/a"), LIMITS).body == b"x"


def test_names_may_be_mapped_to_addresses(web):
    web.put("/a.png?q=%C3%BC%20x", b"mapped")
    limits = replace(LIMITS, allow_addresses=(), connect_to={"pictures.example": ("127.0.0.1", web.port)})
    assert fetch("http://pictures.example/a.png?q=ü x", limits).body == b"mapped"
    assert web.requests[0][1]["host"] == "pictures.example"


def test_conditional_requests_may_be_answered_by_304(web):
    web.put("/a", b"", status=304, ETag='"7"')
    assert fetch(web.url("/a"), LIMITS, Wish(headers={"If-None-Match": '"7"'})).status == 304
    assert web.requests[0][1]["if-none-match"] == '"7"'


def test_no_proxy_is_used(web, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    web.put("/a", b"x")
    assert fetch(web.url("/a"), LIMITS).body == b"x"


def test_many_threads_share_a_guard(web):
    for i in range(32):
        web.put(f"/{i}", b"%d" % i)
    bodies = {}
    threads = [
        threading.Thread(target=lambda i=i: bodies.update({i: fetch(web.url(f"/{i}"), replace(LIMITS, timeout_s=5, deadline_s=5)).body}))
        for i in range(32)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == {i: b"%d" % i for i in range(32)}


def test_failures_survive_their_text_form():
    for code in FAILURES:
        assert parse_failure(str(FetchError(code, "a: detail"))) == (code, "a: detail")
    assert parse_failure("HTTP Error 404") == ("connect", "HTTP Error 404")


def test_a_silent_name_server_does_not_hold_us_up(web, monkeypatch):
    released = threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host, *args, **options):
        if host == "silent.example":
            released.wait(30)
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    error = failure("http://silent.example/a.png", replace(LIMITS, timeout_s=0.3))
    assert (error.code, error.detail) == ("dns", "silent.example was not resolved in 0.3 s")
    released.set()
