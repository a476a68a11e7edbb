"""What was drawn while a transformer trained: in the gallery and in Prefect."""

import base64
import io
import json
import re

import numpy as np
from PIL import Image

from flows.report.strips import read_strips, strips_page
from flows.report.training import learning

PROMPTS = ["a red apple", "<b>two</b> *cats*"]


def put_sheet(folder, step, *grays):
    pixels = np.concatenate([np.full((8, 8, 3), gray, np.uint8) for gray in grays], 1)
    Image.fromarray(pixels).save(folder / f"step-{step:07}.png")


def test_a_strip_is_a_prompt_over_the_updates(tmp_path):
    assert read_strips(tmp_path) == []
    assert (strips_page(tmp_path), learning([])) == ("", "")
    (tmp_path / "prompts.json").write_text(json.dumps(PROMPTS))
    put_sheet(tmp_path, 0, 10, 20)
    put_sheet(tmp_path, 1_200, 30, 40)
    (tmp_path / "step-0002000.png").write_bytes(b"damaged")
    strips = read_strips(tmp_path)
    assert [strip.prompt for strip in strips] == PROMPTS
    found = {strip.prompt: [(step, picture.getpixel((4, 4))[0]) for step, picture in strip.moments] for strip in strips}
    assert found == {PROMPTS[0]: [(0, 10), (1_200, 30)], PROMPTS[1]: [(0, 20), (1_200, 40)]}
    section = learning(strips)
    assert section.count("<img") == 4
    assert "&lt;b&gt;two" in section
    assert "<span>1,200</span>" in section
    page = strips_page(tmp_path)
    assert r"2. &lt;b&gt;two&lt;/b&gt; \*cats\*" in page
    assert "After 0, 1,200 updates" in page
    with Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^)]+)", page)[1]))) as sheet:
        assert sheet.size == (16, 16)
        assert [sheet.getpixel(place)[0] for place in ((0, 0), (8, 0), (0, 8), (8, 8))] == [10, 30, 20, 40]
