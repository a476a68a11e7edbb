"""One cleaning for captions and prompts, and several captions told apart."""

import html
import json
import re
from email.message import Message

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dalle_datasets.prompts.read import read_prompts, text_prompts
from dalle_datasets.sources.html import read_page
from dalle_datasets.sources.local_files import read_folder
from dalle_datasets.sources.tables import read_table
from dalle_datasets.texts.captions import captions_in, clean_caption


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        # Joiners stay where they change what one sees …
        ("👨‍👩‍👧‍👦 and 👩🏽‍🚀 and ❤️‍🔥 and 🏳️‍🌈", "👨‍👩‍👧‍👦 and 👩🏽‍🚀 and ❤️‍🔥 and 🏳️‍🌈"),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿 a flag", "🏴󠁧󠁢󠁥󠁮󠁧󠁿 a flag"),
        ("او می‌خواند کتاب‌های", "او می‌خواند کتاب‌های"),
        ("ක්‍රීඩා", "ක්‍රීඩා"),
        ("ന്‍", "ന്‍"),
        # … and nowhere else.
        ("w\u200do\u200dr\u200cd \u200dcat", "word cat"),
        ("a\u200bb \ufeffc\u00ad d\u2060 \u200ee\u202a", "ab c d e"),
        ("\U000e0041cat", "cat"),
        # Signs that spreadsheets and telephones put in.
        ("a “red” cat’s ﬁn", 'a "red" cat\'s fin'),
        ("ｆｕｌｌ ｗｉｄｔｈ", "full width"),
        ("one\ttwo\r\nthree\u2028four\u00a0five", "one two three four five"),
        ("\x1b[31mred\x1b[0m \x00cat \ue000", "red cat"),
        # Escaped once, twice, thrice.
        ("R&amp;D", "R&D"),
        ("R&amp;amp;amp;D", "R&D"),
        ("A cafÃ© in Paris", "A café in Paris"),
        ("cafe\u0301", "café"),
        # Newer than the Unicode of this Python, and never a character.
        ("a \U0001fae9 face \ufdd0\U0001ffff", "a \U0001fae9 face"),
        ("", ""),
    ],
)
def test_cleaning(text, clean):
    assert clean_caption(text) == clean
    assert clean_caption(clean) == clean


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.lists(
    st.sampled_from(["&", "amp;", "&lt;", "’", "\u200d", "\u200c", "👩", "é", "Ã©", "Ã", "<b>", " ", "x", "ක්", "\u00a0", '"']), max_size=8
).map("".join)  # fmt: skip


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_what_is_clean_stays_as_it_is(text):
    assert clean_caption(clean_caption(text)) == clean_caption(text)


WRITTEN = re.compile(r"""\s*(?:[\[{(]|b['"]|array\(|None|nan|null)""", re.IGNORECASE)


def _is_told(text):
    """Not of several lines or empty, no structure in writing, and without zero bytes, which short files in UTF-16 have, too."""
    return len(text.splitlines()) == 1 and clean_caption(text) and not WRITTEN.match(text) and "\x00" not in text


@given(TEXTS.filter(_is_told))
@example("0\x00")
@example("00\x00")
@settings(max_examples=25, deadline=None)
def test_the_same_words_are_the_same_caption_wherever_they_are_from(tmp_path_factory, text):
    """And so the same tokens: of a page, a caption file, tables, and prompts given in every way."""
    folder = tmp_path_factory.mktemp("texts")
    quoted = '"' + text.replace('"', '""') + '"'
    (folder / "a.png").write_bytes(b"x")
    (folder / "a.txt").write_text(text, encoding="utf-8", newline="")
    (folder / "t.csv").write_text(f"url,caption\nhttp://a.example/,{quoted}\n", encoding="utf-8", newline="")
    (folder / "t.jsonl").write_text(json.dumps({"url": "http://a.example/", "caption": text}))
    (folder / "p.txt").write_text(text, encoding="utf-8", newline="")
    (folder / "p.csv").write_text(f"prompt\n{quoted}\n", encoding="utf-8", newline="")
    (folder / "p.json").write_text(json.dumps([text]))
    headers = Message()
    headers["Content-Type"] = "text/html; charset=utf-8"
    written = html.escape(text.replace("\x00", ""))  # browsers show U+FFFD for a zero byte
    page = read_page(f'<img src="a.png" alt="{written}">'.encode(), "http://a.example/", headers, "open-dalle")
    result = Collected()
    read_folder(folder, "f", result)
    read_table(folder / "t.csv", "t.csv", result)
    read_table(folder / "t.jsonl", "t.jsonl", result)
    found = [item.caption for item in [*page.found, *page.drops, *result.items] if item.image_url.startswith(("http", "folder:"))]
    for prompts in (
        text_prompts([text]).prompts,
        *(read_prompts(str(folder / f"p.{kind}")).prompts for kind in ("txt", "csv", "json")),
    ):  # fmt: skip
        found += prompts["prompt"].to_pylist()
    assert set(found) - {""} == {clean_caption(text)}, found


class Collected:
    """Stands where `DiscoveryWriter` would write files."""

    def __init__(self):
        self.items = []

    def add(self, found=(), drops=(), reader=0):
        self.items += [*found, *drops]

    def take(self, *items):
        self.items += items


@pytest.mark.parametrize(
    ("value", "captions"),
    [
        ("a red cat", ["a red cat"]),
        (["a red cat", "a blue dog", "a red cat", "", None, 5], ["a red cat", "a blue dog"]),
        ({"en": "a red cat", "de-AT": "eine rote Katze"}, ["a red cat", "eine rote Katze"]),
        ({"language": ["en", "fr"], "translation": ["a cat", "un chat"]}, ["a cat", "un chat"]),
        ([{"raw": "a red cat", "tokens": ["a", "red", "cat"], "imgid": 3}, {"raw": "a cat"}], ["a red cat", "a cat"]),
        ({"Caption": "a cat", "score": 0.5}, ["a cat"]),
        ({"url": "http://a.example/", "key": "5"}, []),
        ({"score": 1}, []),
        (b"caf\xc3\xa9", ["café"]),
        ('["a red cat", "a blue dog"]', ["a red cat", "a blue dog"]),
        ("""['a red cat', "a dog's bed"]""", ["a red cat", "a dog's bed"]),
        ("['a red cat'\n 'a blue dog']", ["a red cat", "a blue dog"]),
        ("[sic] a cat", ["[sic] a cat"]),
        ("[1, 2]", ["[1, 2]"]),
        ("[" * 50_000, ["[" * 50_000]),
        ("{" * 50_000, ["{" * 50_000]),
        ("b'caf\\xc3\\xa9'", ["café"]),
        ("b'a cat", ["b'a cat"]),
        ('{"en": "a red cat", "de": "eine rote Katze"}', ["a red cat", "eine rote Katze"]),
        ("{'caption': 'a red cat', 'score': 0.5}", ["a red cat"]),
        ("[{'raw': 'a cat'}, {'raw': 'a dog'}]", ["a cat", "a dog"]),
        ("('a red cat', 'a blue dog')", ["a red cat", "a blue dog"]),
        ("array(['a red cat', 'a blue dog'], dtype=object)", ["a red cat", "a blue dog"]),
        ("{a} cat (of 'mine')", ["{a} cat (of 'mine')"]),
        ('("a cat") he said', ['("a cat") he said']),
        ("[]", []),
        ("None", []),
        ("nan", []),
        (5, []),
        (float("nan"), []),
        (None, []),
        ([[[[[["too deep"]]]]]], []),
    ],
)  # fmt: skip
def test_several_captions(value, captions):
    assert captions_in(value) == captions
