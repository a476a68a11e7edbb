"""Random damage to valid images and pages: never a crash, never a hang, always a picture or a reason.

Seeded, so a failure names the case that fails again.
"""

import contextlib
import io
import itertools
import random
import resource
import socket
import threading
import time
from collections import Counter
from email.message import Message

import numpy as np
import pytest
from PIL import Image

from dalle_datasets.config import DownloadConfig, FilterConfig, ShardsConfig, SourceConfig
from dalle_datasets.download.download_images import download_images
from dalle_datasets.filters.captions import boilerplate_share, count_letters, count_words, has_markup, has_personal, is_file_name
from dalle_datasets.filters.filter_pairs import filter_pairs
from dalle_datasets.images import ImageError, canonical_bytes, decode_image
from dalle_datasets.sources.discover import discover
from dalle_datasets.sources.html import read_page
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import DROPPED_PAIRS, PAGES, PAIRS
from dalle_datasets.web.failures import FAILURES, FetchError
from dalle_datasets.web.guard import RequestLimits, fetch
from tests.parts import read_parts

MAX_PIXELS = 1_000_000
FEW, MANY = 1_000, 10_000


def valid_images():
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)).resize((48, 36), Image.Resampling.BICUBIC)
    images = []
    for kind, image, options in (
        ("PNG", smooth, {}),
        ("PNG", smooth.convert("P"), {"transparency": 3}),
        ("PNG", smooth.convert("RGBA"), {}),
        ("PNG", Image.fromarray(rng.integers(0, 65_536, (20, 20)).astype(np.uint16)), {}),
        ("JPEG", smooth, {"quality": 80}),
        ("JPEG", smooth.convert("CMYK"), {"progressive": True}),
        ("WEBP", smooth, {"quality": 80}),
        ("WEBP", smooth.convert("RGBA"), {"lossless": True}),
        ("GIF", smooth, {"save_all": True, "append_images": [smooth.rotate(90)]}),
        ("TIFF", smooth, {"compression": "tiff_lzw"}),
        ("TIFF", smooth.convert("L"), {"compression": "tiff_deflate"}),
        ("BMP", smooth, {}),
        ("AVIF", smooth, {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        images.append(buffer.getvalue())
    return images


def damaged(data, rng):
    """A few bytes changed, removed, repeated, swapped or cut off."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        place = rng.randrange(len(data)) if data else 0
        length = rng.choice((1, 1, 2, 4, 16, 64))
        match rng.randrange(6):
            case 0:
                data[place : place + length] = rng.randbytes(length)
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = data[place : place + length]
            case 3:
                data[place : place + length] = rng.choice((b"\x00", b"\xff", b"\x7f", b"\x80")) * length
            case 4:
                data[place : place + 4] = rng.choice((2**31 - 1, 2**32 - 1, 65_536, 0)).to_bytes(4, rng.choice(("big", "little")))
            case 5:
                del data[rng.randrange(len(data) + 1) :]
    return bytes(data)


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
@pytest.mark.parametrize("cases", [FEW, pytest.param(MANY, marks=pytest.mark.fuzz)])
def test_damaged_images(cases):
    images = valid_images()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"ok": 0, "not_an_image": 0, "decode_error": 0, "too_many_pixels": 0}
    slowest = 0.0
    for case in range(cases):
        rng = random.Random(case)
        data = damaged(images[case % len(images)], rng)
        start = time.process_time()
        try:
            image, kept = decode_image(data, MAX_PIXELS), canonical_bytes(data, MAX_PIXELS)
            assert image.mode == "RGB", case
            assert image.width * image.height <= MAX_PIXELS, case
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(kept)).convert("RGB")), np.asarray(image)), case
            outcomes["ok"] += 1
        except ImageError as error:
            outcomes[error.reason] += 1
        slowest = max(slowest, time.process_time() - start)
    assert all(outcomes[what] > cases // 50 for what in ("ok", "not_an_image", "decode_error")), outcomes
    assert slowest < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KB


@pytest.mark.parametrize("cases", [FEW // 2, pytest.param(MANY, marks=pytest.mark.fuzz)])
def test_damaged_images_over_http(web, tmp_path, cases):
    """The same damage, published, named in a table, downloaded and filtered: every address ends as one pair or one drop."""
    images = valid_images()

    def answer(handler):
        case = int(handler.path[1:])
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(damaged(images[case % len(images)], random.Random(case)))

    web.answers.update({f"/{case}": answer for case in range(cases)})
    table = tmp_path / "urls.csv"
    table.write_text("url,caption\n" + "".join(f"{web.url(f'/{case}')},picture number {case}\n" for case in range(cases)))
    source = SourceConfig(kind="url_tables", inputs=(str(table),))
    download = DownloadConfig(
        runner="threads", allow_addresses=("127.0.0.1",), requests_per_s_per_host=0, max_pixels=MAX_PIXELS, retries=0, deadline_s=20.0
    )
    layout = Layout(tmp_path / "data")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert discover(source, download, layout).num_candidates == cases
    assert download_images(source, download, layout).num_candidates == cases
    limits = FilterConfig(min_caption_words=1, languages=(), max_captions_per_image=cases, captions_per_image=cases)
    result = filter_pairs(source, download, limits, ShardsConfig(), layout)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KB
    fates = Counter(row["image_url"] for row in read_parts(layout.dropped("web"), DROPPED_PAIRS, ["image_url"]).to_pylist())
    fates.update(row["image_url"] for row in read_parts(layout.pairs("web"), PAIRS, ["image_url"]).to_pylist())
    assert fates == Counter(web.url(f"/{case}") for case in range(cases))
    assert result.num_pairs > cases // 20
    assert {"not_an_image", "decode_error"} <= set(result.dropped) <= {"not_an_image", "decode_error", "too_many_pixels", *RULES}


RULES = {"aspect_ratio", "too_small", "blank", "duplicate_pair", "duplicate_image", "placeholder", "caption_repeated", "empty_body"}
"""What a picture that can still be decoded may be dropped for."""


PAGE = """<!doctype html><html><head><meta charset="utf-8"><base href="/x/"><meta name="robots" content="index"></head><body>
<img src="a.png" alt="a cat &amp; a dog"><picture><source srcset="b.webp 640w, c.webp 2x" type="image/webp">
<img src="d.png" title="t"></picture>
<figure><img data-src="//e.example/f.jpg#x"><figcaption>some <b>text</b> é ü 猫</figcaption></figure>
<a href="next.html" rel="nofollow">n</a>
<script>var a = "<img src=q>";</script><a href="http://[::1]:99999/">x</a>
<img src="data:image/png;base64,AAAA" alt="y"></body></html>""".encode()


@pytest.mark.parametrize("cases", [FEW, pytest.param(MANY, marks=pytest.mark.fuzz)])
def test_damaged_pages(cases):
    slowest = 0.0
    for case in range(cases):
        rng = random.Random(case)
        headers = Message()
        headers["Content-Type"] = rng.choice(
            ("text/html", "text/html; charset=utf-8", "text/html; charset=nonsense", "text/html; charset=utf-16")
        )
        start = time.process_time()
        page = read_page(damaged(PAGE, rng), "http://site.example/p.html", headers, "open-dalle")
        slowest = max(slowest, time.process_time() - start)
        assert all(found.caption and found.image_url.startswith(("http://", "https://")) for found in page.found), case
    assert slowest < 1


@pytest.mark.parametrize("cases", [FEW // 4, pytest.param(MANY, marks=pytest.mark.fuzz)])
def test_damaged_pages_over_http(web, tmp_path, cases):
    """A site whose pages are damaged: every page is read or dropped with a reason, and its robots.txt and sitemap are damaged too."""

    def answer(handler):
        rng = random.Random(handler.path)
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        handler.wfile.write(damaged(PAGE, rng))

    pages = [f"/{case}.html" for case in range(cases)]
    links = "".join(f'<a href="{page}">x</a>' for page in pages)
    web.put("/", f'<img src="http://e.example/x.png" alt="a good one">{links}'.encode(), "text/html")
    web.put(
        "/robots.txt", damaged(b"User-agent: *\nDisallow: /closed/*$\nCrawl-delay: none\nSitemap: /map.xml\n" * 20, random.Random(1)), ""
    )
    web.put("/map.xml", damaged(b"<urlset><url><loc>/closed/1</loc></url></urlset>" * 20, random.Random(2)), "text/xml")
    web.answers.update(dict.fromkeys(pages, answer))
    source = SourceConfig(start_urls=(web.url("/"),), max_pages=cases + 1, use_sitemaps=True)
    layout = Layout(tmp_path)
    discover(source, DownloadConfig(allow_addresses=("127.0.0.1",), requests_per_s_per_host=0), layout)
    read = {row["page_url"] for row in read_parquet(layout.source("web") / "pages.parquet", PAGES).to_pylist()}
    dropped = {row["page_url"] for row in read_parts(layout.dropped("web"), DROPPED_PAIRS).to_pylist()}
    assert {web.url(page) for page in pages if page in {path for path, _ in web.requests}} <= read | dropped
    assert len(read | dropped) >= cases


ANSWERS = [
    b'HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 5\r\nETag: "x"\r\nX-Robots-Tag: all\r\n\r\nhello',
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/x?y=z\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\nx",
    b"HTTP/1.1 429 Busy\r\nRetry-After: 120\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x; charset*=utf-8''x; boundary=\"a\"\r\n\r\nhello",
]


@pytest.mark.parametrize("cases", [FEW, pytest.param(MANY, marks=pytest.mark.fuzz)])
def test_damaged_answers(cases):
    """Status lines, headers and chunks that are nonsense: a body, or a code of the closed set."""
    limits = RequestLimits(user_agent="open-dalle/0.1", timeout_s=0.5, deadline_s=1, max_bytes=5_000, allow_addresses=("127.0.0.1",))
    answers = (damaged(ANSWERS[case % len(ANSWERS)], random.Random(case)) for case in itertools.count())
    outcomes = Counter()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(65_536)
                        connection.sendall(next(answers))

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        for _ in range(cases):
            try:
                answer = fetch(url, limits)
                read_page(answer.body, url, answer.headers, "open-dalle")
                outcomes["ok"] += 1
            except FetchError as error:
                outcomes[error.code] += 1
    assert outcomes.keys() <= FAILURES.keys() | {"ok"}
    assert all(outcomes[what] for what in ("ok", "connect", "http_5xx", "http_429", "incomplete_body")), outcomes


@pytest.mark.parametrize(
    "caption",
    ["a " * 50_000, "photo " * 20_000, "1" * 100_000, "1-2-" * 30_000, "<" * 100_000, "&" * 100_000, "a@" * 50_000, "x.com" * 20_000],
)
def test_captions_that_would_make_a_careless_pattern_explode(caption):
    start = time.process_time()
    for measure in (boilerplate_share, count_letters, count_words, has_markup, has_personal, is_file_name):
        measure(caption)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("png", lambda: packed(Image.new("L", (7_000, 7_000)), "PNG")),
        ("gif", lambda: packed(Image.new("P", (7_000, 7_000)), "GIF")),
        ("webp", lambda: packed(Image.new("RGB", (16_000, 2_600)), "WEBP", lossless=True)),
        ("tiff", lambda: packed(Image.new("1", (7_000, 7_000)), "TIFF", compression="group4")),
    ],
)
def test_bombs(name, make):
    """Small files that would fill the memory, refused by their headers."""
    data = make()
    assert len(data) < 2_000_000, name
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="too_many_pixels"):
        canonical_bytes(data, 40_000_000)
    assert time.process_time() - start < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def packed(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
