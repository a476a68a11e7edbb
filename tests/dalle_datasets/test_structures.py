"""Readers fuzzed by structure: whatever a table, page, folder or prompt file holds, nothing crashes and every row has a fate.

A few examples in the fast tests; `make fuzz` goes on for an hour.
"""

import csv
import io
import json
from email.message import Message

from hypothesis import given, settings
from hypothesis import strategies as st

from dalle_datasets.prompts.read import read_prompts
from dalle_datasets.sources.html import read_page
from dalle_datasets.sources.local_files import read_folder
from dalle_datasets.sources.tables import read_table

FEW = 25
structured = settings(deadline=None, max_examples=max(FEW, settings.default.max_examples - 100))

TEXT = st.text(max_size=12) | st.sampled_from(
    ["a red cat", "", " ", '"', "[", "{", "é", "猫", "\ufeff", "\u200d", "&amp;", "NaN", "['a', 'b']"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.sampled_from(["en", "raw", "text"]), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["url", "URL", "caption", "Caption", "TEXT", "page_url", "license", "file_name", "prompt", "image", "x"])
URLS = st.sampled_from(["http://a.example/1.png", "//a", "data:x", "table:t/0", "http://[", "\\x"]) | TEXT
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "gb18030", "cp932"])


class Collected:
    """Stands where `DiscoveryWriter` would write files."""

    def __init__(self):
        self.items = []

    def add(self, found=(), drops=(), reader=0):
        self.items += [*found, *drops]

    def take(self, *items, reader=0):
        self.items += items


@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=4) | VALUES, max_size=6), ENCODINGS, st.sampled_from([None, 1]), st.booleans())
@structured
def test_tables_of_json(tmp_path_factory, rows, encoding, indent, is_array):
    path = tmp_path_factory.mktemp("t") / "t.json"
    rows = [{"url": "http://a.example/", "caption": "a red cat"}, *rows]
    text = json.dumps(rows, indent=indent) if is_array else "\n".join(map(json.dumps, rows))
    path.write_bytes(text.encode(encoding, "replace"))
    result = Collected()
    read_table(path, path.name, result)
    assert len(result.items) >= len([row for row in rows if row != ""])


@given(st.lists(NAMES, min_size=1, max_size=5), st.lists(st.lists(TEXT | URLS, max_size=6), max_size=6), ENCODINGS, st.sampled_from(",;\t"))
@structured
def test_tables_of_fields(tmp_path_factory, names, rows, encoding, delimiter):
    folder = tmp_path_factory.mktemp("t")
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([["url", "caption", *names], *rows])
    for name in ("t.csv", "metadata.csv", "p.csv", "p.tsv", "p.txt"):
        (folder / name).write_bytes(text.getvalue().encode(encoding, "replace"))
    assert refusal(lambda: read_table(folder / "t.csv", "t.csv", Collected())) in ("", "no column of", "no header")
    assert refusal(lambda: read_folder(folder, "f", Collected())) in ("", "no header")
    for name in ("p.csv", "p.tsv", "p.txt"):
        assert refusal(lambda name=name: read_prompts(str(folder / name))) in ("", "prompts ", "no column of")


def refusal(read):
    """What a reader says against a file as a whole: empty, or the part of its sentence that tells which it is."""
    try:
        read()
    except ValueError as error:
        return next((part for part in ("no column of", "no header", "prompts ") if part in str(error)), str(error))
    return ""


ATTRIBUTES = st.dictionaries(
    st.sampled_from(["src", "srcset", "data-src", "data-srcset", "alt", "title", "href"]),
    URLS | st.lists(st.tuples(URLS, st.sampled_from(["", "1x", "9w", "(", "x"])).map(" ".join), max_size=3).map(",".join),
    max_size=4,
)
NODES = st.recursive(
    TEXT | st.builds(lambda values: "<img " + " ".join(f'{name}="{value}"' for name, value in values.items()) + ">", ATTRIBUTES),
    lambda inner: st.builds(
        lambda tag, parts: f"<{tag}>{''.join(parts)}</{tag}>",
        st.sampled_from(["figure", "figcaption", "picture", "noscript", "a", "base", "meta charset=utf-16", "template", "svg"]),
        st.lists(inner, max_size=4),
    ),
    max_leaves=12,
)


@given(NODES, ENCODINGS, st.sampled_from(["text/html", "text/html; charset=gb2312", "text/html; charset=utf-16", "text/html; charset=x"]))
@structured
def test_pages(page, encoding, content_type):
    headers = Message()
    headers["Content-Type"] = content_type
    body = ('<img src="/a.png" alt="a red cat">' + page).encode(encoding, "replace")
    result = read_page(body, "http://site.example/", headers, "open-dalle")
    assert all(found.caption and found.image_url.startswith(("http://", "https://")) for found in result.found)
    assert all(drop.reason for drop in result.drops)
