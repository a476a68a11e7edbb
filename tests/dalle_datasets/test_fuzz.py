"""Random damage to valid images and pages: never a crash, never a hang, always a picture or a reason.

Seeded, so a failure names the case that fails again.
"""

import io
import random
import resource
import time
from email.message import Message

import numpy as np
import pytest
from PIL import Image

from dalle_datasets.filters.captions import boilerplate_share, count_letters, count_words, has_markup, has_personal, is_file_name
from dalle_datasets.images import ImageError, canonical_bytes, decode_image
from dalle_datasets.sources.html import read_page

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
@pytest.mark.parametrize("cases", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
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


PAGE = """<!doctype html><html><head><meta charset="utf-8"><base href="/x/"><meta name="robots" content="index"></head><body>
<img src="a.png" alt="a cat &amp; a dog"><picture><source srcset="b.webp 640w, c.webp 2x" type="image/webp">
<img src="d.png" title="t"></picture>
<figure><img data-src="//e.example/f.jpg#x"><figcaption>some <b>text</b> é ü 猫</figcaption></figure>
<a href="next.html" rel="nofollow">n</a>
<script>var a = "<img src=q>";</script><a href="http://[::1]:99999/">x</a>
<img src="data:image/png;base64,AAAA" alt="y"></body></html>""".encode()


@pytest.mark.parametrize("cases", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
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
