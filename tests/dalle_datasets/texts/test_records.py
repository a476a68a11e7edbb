"""Records of text files: what is broken costs its line."""

import io
import json

import pytest

from dalle_datasets.texts.records import MAX_LINE_CHARS, TextFile, json_records, read_csv


def read(data, reader=json_records, *arguments):
    return [(r.number, r.problem or r.value) for r in reader(TextFile(io.BytesIO(data)), *arguments)]


def csv(data, usual=","):
    return read(data, read_csv, usual)


def test_an_unclosed_quotation_mark_costs_one_line():
    rows = csv(b'url,caption\nu,"a\nb"\nv,"oops\nw,"x, y"\nz,last\n')
    assert rows == [
        (2, {"url": "u", "caption": "a\nb"}), (4, "no CSV: ',' expected after '\"'"), (5, {"url": "w", "caption": "x, y"}),
        (6, {"url": "z", "caption": "last"}),
    ]  # fmt: skip
    assert csv(b'url\n"never closed\nu\nv\n') == [(2, "a quotation mark is never closed"), (3, {"url": "u"}), (4, {"url": "v"})]


def test_columns():
    assert csv("\ufeffImage URL;Alt-Text\r\nu;a, b\r\n".encode()) == [(2, {"image_url": "u", "alt_text": "a, b"})]
    assert csv(b"url,caption,Caption\nu,a,b\nu,,b\n") == [(2, {"url": "u", "caption": ["a", "b"]}), (3, {"url": "u", "caption": ["b"]})]
    assert csv(b"url,caption\nu,a,,\nu,a,b\nu\n") == [
        (2, {"url": "u", "caption": "a"}), (3, "it has 3 fields for 2 columns; put quotation marks round commas"), (4, {"url": "u"}),
    ]  # fmt: skip
    assert csv('url\tcaption\nu\t"hi" he said\nu\t"a ""b"""\n'.encode("utf-16"), "\t") == [
        (2, {"url": "u", "caption": '"hi" he said'}), (3, {"url": "u", "caption": 'a "b"'}),
    ]  # fmt: skip
    assert csv(b"\xef\xbb\xbfsep=;\r\nurl;caption\r\nu;a, b\r\n") == [(3, {"url": "u", "caption": "a, b"})]
    assert csv(b"\n\n") == csv(b"sep=,\n") == []
    with pytest.raises(ValueError, match="its first line is no header: a quotation mark is never closed"):
        csv(b'"url\n')


def test_every_line_has_an_encoding_of_its_own():
    records = list(read_csv(TextFile(io.BytesIO(b"caption\ncaf\xc3\xa9\ncaf\xe9\n")), ","))
    assert [record.value["caption"] for record in records] == ["café", "café"]
    assert [record.decoded.is_guess for record in records] == [False, True]


@pytest.mark.parametrize("indent", [None, 2])
def test_arrays_of_json(indent):
    items = [{"url": "u", "caption": "a, [b] \u2028 {c}"}, {"url": "v", "more": [1, {"x": []}]}, 5, "text"]
    assert [value for _, value in read(json.dumps(items, indent=indent).encode())] == items
    assert [value for _, value in read(json.dumps(items * 5_000, indent=indent).encode())] == items * 5_000


def test_a_broken_item_costs_itself():
    assert read(b'\n[{"a": 1},\n{"b": oops},\n {"c": 3},\n"d"\n]') == [
        (2, {"a": 1}), (3, "no JSON (Expecting value)"), (4, {"c": 3}), (5, "d"),
    ]  # fmt: skip
    assert read(b"[1, 2") == [(1, 1), (1, 2), (1, "the array has no end")]
    assert read(b'{"a": 1}\n[oops\n\n"b"') == [(1, {"a": 1}), (2, "no JSON (Expecting value)"), (4, "b")]
    assert read(b"[]") == read(b"") == read(b" \n ") == []


def test_a_line_without_end_is_not_kept_in_memory():
    rows = csv(b"url\n" + b"x" * (3 * MAX_LINE_CHARS) + b"\nu\n")
    assert rows == [(2, f"it has more than {MAX_LINE_CHARS} characters"), (3, {"url": "u"})]
    first, second = read(b"[" + b"{" * (2 * MAX_LINE_CHARS) + b'\n"b"]')
    assert "no JSON" in first[1]
    assert second[1] == "b"
