"""The fault server: everything that a hostile or broken web does, against the real download and the real filters.

Whatever is answered, every address ends as a pair or as a drop with its reason, in time, and no file of this machine is read.
"""

import gzip
import io
import socket
import sys
import zlib

import pytest
from PIL import Image

from dalle_datasets.config import DownloadConfig, FilterConfig, ShardsConfig, SourceConfig
from dalle_datasets.download.download_images import download_images
from dalle_datasets.filters.filter_pairs import filter_pairs
from dalle_datasets.sources.base import clean_url
from dalle_datasets.sources.discover import discover
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts
from dalle_datasets.store.schemas import DROPPED_PAIRS, IMAGES, PAIRS
from tests.parts import read_parts

LIMITS = FilterConfig(min_side=16, min_caption_words=1)
DEADLINE_S = 2.0
DOWNLOAD = DownloadConfig(
    allow_addresses=("127.0.0.1",), requests_per_s_per_host=0, timeout_s=0.8, deadline_s=DEADLINE_S, max_bytes=500_000, retries=0,
    num_threads=32,
)  # fmt: skip
SECRET = "never read from disk"


def packed(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(seed, kind="PNG", **options):
    pixels = Image.effect_noise((40, 30), 60 + seed).convert("RGB").rotate(seed)
    return packed(pixels, kind, **options)


def claim(png, side):
    """A PNG whose header says that it is larger, with a true checksum."""
    header = b"IHDR" + side.to_bytes(4, "big") * 2 + png[24:29]
    return png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]


def publish(web, secret):
    """Put every fault on the server; returns {address: (stage, reason) of its drop, or None if it becomes a pair}."""
    fates = {}

    def put(path, body, fate, content_type="image/png", **headers):
        web.put(path, body, content_type, **headers)
        fates[web.url(path)] = fate

    def answer(path, fate, act):
        web.answers[path] = act
        fates[web.url(path)] = fate

    # Good ones, also with wrong or missing types.
    for i, (kind, content_type) in enumerate(
        (("PNG", "image/png"), ("JPEG", "text/html"), ("WEBP", "application/x-nonsense"), ("GIF", ""))
    ):
        put(f"/good/{i}", photo(i, kind), None, content_type)
    web.redirect("/moved", "/good/moved")
    put("/good/moved", photo(9), None)
    del fates[web.url("/good/moved")]
    fates[web.url("/moved")] = None
    # Slow, endless, lying.
    web.drip("/drip/headers", 0.1)
    web.drip("/drip/body", 0.1, b"x")
    web.endless("/endless")
    web.hang("/silent", 3)
    web.reset("/reset")
    fates |= {
        web.url("/drip/headers"): ("download", "deadline"), web.url("/drip/body"): ("download", "deadline"),
        web.url("/endless"): ("download", "too_many_bytes"), web.url("/silent"): ("download", "timeout"),
        web.url("/reset"): ("download", "connect"),
    }  # fmt: skip

    def endless_headers(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            handler.wfile.write(b"X-Padding: " + b"x" * 60_000 + b"\r\n")

    def endless_line(handler):
        while True:
            handler.wfile.write(b"HTTP/1.1 200 " + b"x" * 60_000)

    def endless_chunks(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            handler.wfile.write(b"ffff\r\n" + bytes(0xFFFF) + b"\r\n")

    answer("/endless/headers", ("download", "connect"), endless_headers)
    answer("/endless/line", ("download", "connect"), endless_line)
    answer("/endless/chunks", ("download", "too_many_bytes"), endless_chunks)
    put("/lying/more", photo(1)[:100], ("download", "incomplete_body"), Content_Length="4000")
    put("/lying/less", photo(1), ("filter", "decode_error"), Content_Length=str(len(photo(1)) // 2))
    put("/lying/huge", photo(1), ("download", "too_many_bytes"), Content_Length=str(10**15))
    put("/lying/nonsense", photo(2, "JPEG"), None, Content_Length="about 300")
    put("/empty", b"", ("download", "empty_body"))
    put("/packed", gzip.compress(photo(1)), ("filter", "not_an_image"), Content_Encoding="gzip")  # we never ask for that
    # Redirects that go nowhere, or where they must not.
    for path, to, fate in (
        ("/loop", "/loop", "redirect_limit"),
        ("/to/private", "http://127.0.0.2:1/secret", "private_address"),
        ("/to/metadata", "http://169.254.169.254/latest/meta-data/", "private_address"),
        ("/to/number", "http://2130706434/secret", "private_address"),  # 127.0.0.2
        ("/to/mapped", "http://[::ffff:127.0.0.2]/secret", "private_address"),
        ("/to/file", secret.as_uri(), "bad_scheme"),
        ("/to/data", "data:image/png;base64,AAAA", "bad_scheme"),
        ("/to/nonsense", "http://[::1", "bad_url"),
        ("/to/user", "http://user:password@127.0.0.1/", "bad_url"),
    ):
        web.redirect(path, to)
        fates[web.url(path)] = ("download", fate)
    web.answers["/ping"] = lambda handler: redirect_by(handler, "/pong")
    web.answers["/pong"] = lambda handler: redirect_by(handler, "/ping")
    fates[web.url("/ping")] = ("download", "redirect_limit")
    # Bodies that are no picture, or too much of one.
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><image href="file:///etc/passwd"/></svg>'
    doctype = b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>'
    for path, body, reason in (
        ("/html", b"<!doctype html><html><body>404 but 200</body></html>", "not_an_image"),
        ("/svg", drawing, "not_an_image"), ("/svg/entity", doctype, "not_an_image"), ("/pdf", b"%PDF-1.4\n%x", "not_an_image"),
        ("/text", b"hello", "not_an_image"), ("/zero", bytes(5_000), "not_an_image"),
        ("/postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(/etc/passwd) (r) file\n", "not_an_image"),
        ("/bomb/png", packed(Image.new("L", (7_000, 7_000))), "too_many_pixels"),
        ("/bomb/gif", packed(Image.new("P", (7_000, 7_000)), "GIF"), "too_many_pixels"),
        ("/bomb/webp", packed(Image.new("RGB", (16_000, 2_600)), "WEBP", lossless=True), "too_many_pixels"),
        ("/bomb/claim", claim(photo(1), 10**9), "too_many_pixels"),
        ("/torn/png", photo(3)[:700], "decode_error"), ("/torn/jpeg", photo(3, "JPEG", quality=95)[:-300], "decode_error"),
        ("/torn/webp", photo(3, "WEBP", lossless=True)[:900], "not_an_image"),
    ):  # fmt: skip
        put(path, body, ("filter", reason), "image/svg+xml" if "svg" in path else "image/png")
    # Addresses that are none.
    fates |= {
        secret.as_uri(): ("discover", "bad_scheme"), "ftp://127.0.0.1/a.png": ("discover", "bad_scheme"),
        "http://[::1": ("download", "bad_url"), "http://10.1.2.3/a.png": ("download", "private_address"),
        f"http://127.2:{web.port}/a.png": ("download", "private_address"), "http://0x7f000002/": ("download", "private_address"),
        "http://does-not-exist.invalid/a.png": ("download", "dns"),
    }  # fmt: skip
    return fates


def redirect_by(handler, to):
    handler.send_response(307)
    handler.send_header("Location", to)
    handler.end_headers()


def collect(tmp_path, fates, download):
    """Take `fates`' addresses from a table through all stages; returns what became of each, and the layout."""
    table = tmp_path / "urls.csv"
    table.write_text("url,caption\n" + "".join(f'"{url}",picture behind {i}\n' for i, url in enumerate(fates)))
    source = SourceConfig(kind="url_tables", inputs=(str(table),))
    layout = Layout(tmp_path / "data")
    discover(source, download, layout)
    download_images(source, download, layout)
    filter_pairs(source, download, LIMITS, ShardsConfig(), layout)
    pairs = read_parts(layout.pairs("web"), PAIRS).to_pylist()
    drops = read_parts(layout.dropped("web"), DROPPED_PAIRS).to_pylist()
    assert len(pairs) + len(drops) == len(fates)
    return {row["image_url"]: None for row in pairs} | {row["image_url"]: (row["stage"], row["reason"]) for row in drops}, layout


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(photo(77) + SECRET.encode())
    return path


@pytest.mark.parametrize("runner", ["threads", "img2dataset"])
def test_every_fault_ends_in_its_reason(web, tmp_path, secret, runner):
    fates = publish(web, secret)
    opened = watch_opens(str(secret))
    came_of, layout = collect(tmp_path, fates, DownloadConfig(**{**settings_of(DOWNLOAD), "runner": runner}))
    fates = {clean_url(url) if fate and fate[1] == "private_address" else url: fate for url, fate in fates.items()}
    assert {url: (came_of.get(url), fate) for url, fate in fates.items() if came_of.get(url) != fate} == {}
    assert not opened
    stored = [path.read_bytes() for path in (*list_parts(layout.images("web")), *list_parts(layout.pairs("web")))]
    assert not any(SECRET.encode() in data for data in stored)
    images = read_parts(layout.images("web"), IMAGES).to_pylist()
    assert {row["image_url"] for row in images} == {url for url, fate in fates.items() if fate is None or fate[0] != "discover"}


def settings_of(config):
    return {field: getattr(config, field) for field in config.__slots__}


def watch_opens(path):
    """A list that grows whenever this process opens `path` from now on."""
    opened = []
    sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" and args and str(args[0]) == path else None)
    return opened


def resolve_to(monkeypatch, answers):
    """Let names resolve to the given addresses, one answer after another, the last one for good. Returns the names asked for."""
    asked = []
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **options):
        if host not in answers:
            return real(host, port, *args, **options)
        asked.append(host)
        addresses = answers[host][min(asked.count(host), len(answers[host])) - 1]
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_names_that_resolve_to_private_addresses(web, tmp_path, monkeypatch):
    """127.0.0.1 stands for the public web here, because it is allowed; everything else that is private is refused."""
    resolve_to(
        monkeypatch,
        {
            "inside.example": [["10.0.0.1"]],
            "metadata.example": [["169.254.169.254"]],
            "six.example": [["fd00::1", "::1"]],
            "mapped.example": [["::ffff:192.168.0.1"]],
            "mixed.example": [["192.168.0.1", "127.0.0.1"]],
        },
    )
    web.put("/a.png", photo(1))
    refused = [f"http://{name}.example:{web.port}/a.png" for name in ("inside", "metadata", "six", "mapped")]
    fates = dict.fromkeys(refused, ("download", "private_address")) | {f"http://mixed.example:{web.port}/a.png": None}
    came_of, _ = collect(tmp_path, fates, DownloadConfig(**{**settings_of(DOWNLOAD), "runner": "threads"}))
    assert came_of == fates
    assert {headers["host"].partition(":")[0] for _, headers in web.requests} == {"mixed.example"}


def test_a_name_that_changes_its_mind_gains_nothing(web, tmp_path, monkeypatch):
    """DNS rebinding: the address that was checked is the address that is connected to, whatever the name says a moment later."""
    asked = resolve_to(monkeypatch, {"rebind.example": [["127.0.0.1"], ["127.0.0.1"], ["127.0.0.1"], ["127.0.0.2"]]})
    web.put("/a.png", photo(1))
    web.put("/b.png", photo(2))
    url = f"http://rebind.example:{web.port}"
    first, _ = collect(tmp_path, {f"{url}/a.png": None}, DownloadConfig(**{**settings_of(DOWNLOAD), "runner": "threads"}))
    assert first == {f"{url}/a.png": None}
    assert len(asked) == 3  # robots.txt, tdmrep.json and the picture: one look-up for each connection
    web.put("/c.png", photo(3))
    fates = {web.url("/c.png"): None, f"{url}/b.png": ("download", "private_address")}
    (tmp_path / "later").mkdir()
    later, _ = collect(tmp_path / "later", fates, DownloadConfig(**{**settings_of(DOWNLOAD), "runner": "threads"}))
    assert later == fates
