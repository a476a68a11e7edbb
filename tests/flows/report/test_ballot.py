"""The page of a ballot: whole, blind, and safe from what a prompt says."""

import json
import re

import pytest
from PIL import Image, PngImagePlugin

from flows.report.ballot import ballot_page


def row(number, prompt, is_first_left):
    return {
        "ballot_id": "0123456789ab", "pair_number": number, "prompt": prompt, "first": "run-secret-new", "second": "run-secret-old",
        "first_picture": "new.png", "second_picture": "old.png", "is_first_left": is_first_left,
    }  # fmt: skip


def test_the_page_shows_both_pictures_and_says_nothing_of_whose_they_are(tmp_path):
    about = PngImagePlugin.PngInfo()
    about.add_text("model", "run-secret-new")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "new.png", pnginfo=about)
    Image.new("RGB", (32, 32), "blue").save(tmp_path / "old.png")
    page = ballot_page([row(0, "</script><script>alert(1)</script>", True), row(1, "BALLOT", False)], tmp_path)
    assert "secret" not in page
    assert page.count("</script>") == 2
    assert "http" not in page.replace("http-equiv", "")
    ballot = json.loads(re.search(r'id="ballot">(.*?)</script>', page, re.DOTALL)[1])
    assert [pair["prompt"] for pair in ballot["pairs"]] == ["</script><script>alert(1)</script>", "BALLOT"]
    assert ballot["pairs"][0]["left"] == ballot["pairs"][1]["right"] != ballot["pairs"][0]["right"]
    assert set(ballot["questions"]) == {"realism", "match"}
    (tmp_path / "old.png").unlink()
    with pytest.raises(ValueError, match=r"old.png is missing or cannot be read; draw the pictures again"):
        ballot_page([row(0, "a", True)], tmp_path)
