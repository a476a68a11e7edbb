"""Readers fuzzed by structure: whatever an archive, tar, folder, table, page or prompt file holds, every piece of it has a fate.

A few examples in the fast tests; `make fuzz` goes on for an hour. Expected fates are told from the structure, not by the readers.
"""

import codecs
import csv
import gzip
import io
import json
import re
import resource
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dalle_datasets.images import IMAGE_SUFFIXES
from dalle_datasets.prompts.read import read_prompts
from dalle_datasets.sources.archives import read_archive
from dalle_datasets.sources.base import Drop, FoundImage
from dalle_datasets.sources.html import read_page
from dalle_datasets.sources.local_files import UNREAD_SUFFIXES, LocalReader, read_folder, read_tar
from dalle_datasets.sources.tables import read_table
from dalle_datasets.web.failures import FetchError

MAX_GROWTH_KB = 400_000
structured = settings(
    deadline=None,
    max_examples=max(1, settings.default.max_examples // 5),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

SIGNS = ["a red cat", "", " ", '"', "[", "{", "é", "猫", "\ufeff", "\u200d", "&amp;", "NaN", "['a', 'b']", "\0", "\r\n", "\ud800"]
TEXT = st.text(max_size=12) | st.sampled_from(SIGNS[:-1])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["en", "raw", "text", "", "é"]), inner, max_size=3),
    max_leaves=4,
)
NAMES = st.sampled_from(["url", "URL", "caption", "Caption", "TEXT", "page_url", "license", "file_name", "prompt", "image", "x"])
URLS = st.sampled_from(["http://a.example/1.png", "//a", "data:x", "table:t/0", "http://[", "\\x"]) | TEXT
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "gb18030", "cp932"])


class Collected:
    """Stands where `DiscoveryWriter` would write files."""

    def __init__(self) -> None:
        self.found: list[FoundImage] = []
        self.drops: list[Drop] = []
        self.error = None

    def add(self, found=(), drops=(), reader=0):
        self.found += found
        self.drops += drops

    def take(self, *items, reader=0):
        for item in items:
            (self.drops if isinstance(item, Drop) else self.found).append(item)

    def fates(self) -> Counter[str]:
        """Image URL -> how many pairs and drops there are of it."""
        return Counter(item.image_url for item in [*self.found, *self.drops])


@pytest.fixture(scope="module", autouse=True)
def _memory_is_bounded() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KB


@contextmanager
def file_of(data: bytes, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


def refusal(read) -> str:
    """What a reader says against a file as a whole: empty, or the part of its sentence that tells which it is."""
    try:
        read()
    except (ValueError, OSError) as error:
        known = (
            "no column of",
            "no header",
            "prompts ",
            "cut off",
            "damaged",
            "no WARC record",
            "broken zip",
            "no uncompressed tar",
            "zip file",
        )
        return next((part for part in known if part in str(error)), repr(error))
    return ""


# Archives -------------------------------------------------------------------------------------------------------------------------


class Entry:
    """A record of an archive with one picture in it, and what has to become of it: 'found', 'drop' or 'skipped'."""

    def __init__(self, number, kind, uri, status, content_type, coding, against, sep):
        address = uri.format(number)
        caption = f"picture number {number}"
        body = f'<img src="http://pix.example/{number}.png" alt="{caption}">'.encode()
        readable = True
        if coding == "utf-16":
            body, content_type = body.decode().encode("utf-16"), f"{content_type}; charset=utf-16"
        coded = {"gzip": gzip.compress, "deflate": zlib.compress, "chunked": lambda b: b"%x\r\n%b\r\n0\r\n\r\n" % (len(b), b)}
        head = [f"HTTP/1.1 {status} X", f"Content-Type{sep}{content_type}", *([f"X-Robots-Tag{sep}otherbot: all, noai"] if against else [])]
        if coding == "chunked":
            head.append(f"Transfer-Encoding{sep}chunked")
        elif coding in ("gzip", "deflate", "gzip, unpacked already", "gzip, broken"):
            head.append(f"Content-Encoding{sep}{coding.partition(',')[0]}")
        body = coded.get(coding, bytes)(body)
        if coding == "gzip, broken":
            body, readable = b"\x1f\x8b\x08" + b"\xff" * 40, False
        is_html = content_type.lower().startswith(("text/html", "application/xhtml+xml"))
        is_web = address.strip(" <>").lower().startswith(("http://", "https://"))
        is_wat = kind == "metadata" and content_type == "application/json"
        if kind == "response":
            payload = "\r\n".join(head).encode() + b"\r\n\r\n" + body
            record_type, is_page = "application/http; msgtype=response", is_web and status == 200 and is_html
        else:
            payload, record_type, is_page = body, content_type, is_web and kind == "resource" and is_html
            readable, against = coding in ("none", "utf-16", "gzip, unpacked already"), False
        self.fate = ("drop" if against or not readable else "found") if is_page else "skipped"
        self.is_certain = not (is_page and kind == "resource" and not readable) and not is_wat
        self.caption = caption
        fields = [f"WARC-Type{sep}{kind}", *([f"WARC-Target-URI{sep}{address}"] if uri else [])]
        fields += ["WARC-Date: 2021-02-24T12:00:00Z", f"Content-Type{sep}{record_type}", f"Content-Length{sep}{len(payload)}"]
        self.data = ("WARC/1.1\r\n" + "\r\n".join(fields) + "\r\n\r\n").encode() + payload + b"\r\n\r\n"


ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["response", "response", "resource", "request", "metadata", "warcinfo", "revisit", "conversion", "odd"]),
        st.sampled_from(["http://a.example/{}", "<HTTPS://a.example/{}>", " http://猫.example/{} ", "urn:x:{}", "dns:a", "http:", ""]),
        st.sampled_from([200, 200, 200, 304, 404]),
        st.sampled_from(
            ["text/html", "TEXT/HTML;charset=utf-8", "application/xhtml+xml", "text/html;;", "image/png", "application/json", ""]
        ),
        st.sampled_from(["none", "gzip", "deflate", "chunked", "utf-16", "gzip, unpacked already", "gzip, broken"]),
        st.booleans(),
        st.sampled_from([": ", ":", ":  "]),
    ),
    min_size=1,
    max_size=6,
).map(lambda rows: [Entry(number, *row) for number, row in enumerate(rows)])
PACKINGS = st.sampled_from(["plain", "members", "gzip", "zstd", "wacz", "wacz of gzip"])


def packed(entries: list[Entry], packing: str) -> bytes:
    plain = b"".join(entry.data for entry in entries)
    if packing == "members":
        return b"".join(gzip.compress(entry.data, mtime=0) for entry in entries)
    if packing == "zstd":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(plain)
        return sink.getvalue().to_pybytes()
    if packing.startswith("wacz"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("pages/pages.jsonl", "{}")
            file.writestr("indexes/inner.wacz", b"PK\3\4")
            for name, some in (("archive/a.WARC", entries[:1]), ("archive/ü.warc.gz", entries[1:])):
                data = b"".join(entry.data for entry in some)
                if some:
                    file.writestr(name, gzip.compress(data) if packing == "wacz of gzip" else data)
        return buffer.getvalue()
    return gzip.compress(plain) if packing == "gzip" else plain


def read_entries(data: bytes) -> tuple[Collected, int, str]:
    """What an archive gave, how many records it skipped, and why it was refused."""
    result = Collected()
    with file_of(data, "a.warc") as path:
        said = refusal(lambda: read_archive(path, "a.warc", result, "open-dalle"))
    skipped = [drop for drop in result.drops if drop.reason == "skipped_records"]
    result.drops = [drop for drop in result.drops if drop.reason != "skipped_records"]
    return result, sum(int(found) for drop in skipped for found in re.findall(r"(?:^|, )(\d+) ", drop.detail)), said


@given(ENTRIES, PACKINGS)
@structured
def test_archives(entries, packing):
    result, num_skipped, said = read_entries(packed(entries, packing))
    assert said == ""
    certain = [entry for entry in entries if entry.is_certain]
    found = {item.caption for item in result.found}
    assert found >= {entry.caption for entry in certain if entry.fate == "found"}
    assert not found & {entry.caption for entry in certain if entry.fate != "found"}
    assert len(result.found) + len(result.drops) + num_skipped >= len(certain)
    assert num_skipped <= sum(entry.fate == "skipped" for entry in entries)


@given(ENTRIES, PACKINGS, st.data())
@structured
def test_archives_that_are_cut_off_or_damaged(entries, packing, data):
    """What is before the damage is kept, and that there is damage is said, or nothing is missing."""
    whole = packed(entries, packing)
    place = data.draw(st.integers(0, len(whole) - 1))
    junk = data.draw(st.sampled_from([None, b"\xff" * 7, b"WARC/1.0\r\nContent-Length: -5\r\n\r\n", b"Content-Length: x\r\n"]))
    result, _, said = read_entries(whole[:place] if junk is None else whole[:place] + junk + whole[place + len(junk) :])
    if junk is None:
        wholes = [packed(entries[:number], packing) for number in range(1, len(entries))] + [whole]
        # Of a plain record only the blank lines at its end are missing, or of an archive all from some record on: who could tell?
        is_whole = any(whole.startswith(part) and len(part.removesuffix(b"\r\n\r\n")) <= place <= len(part) for part in wholes)
        assert said or is_whole
        assert "Error" not in said or place < 10, said
    assert {item.caption for item in result.found} <= {entry.caption for entry in entries} or junk


@pytest.mark.parametrize(
    "data",
    [
        b"filedesc://a.arc 0.0.0.0 20210224120000 text/plain 9\n1 0 x\n\nhttp://a.example/ 1.2.3.4 2021 text/html 1\nx\n",
        b"\x1f\x8b",
        b"PK\3\4",
    ],
)
def test_archives_that_are_none(data):
    assert read_entries(data)[2] in ("no WARC record", "cut off", "broken zip")


# Tars and folders -----------------------------------------------------------------------------------------------------------------

SUFFIXES = [".png", ".JPG", ".Jpeg", ".tif", ".seg.png", ".txt", ".TXT", ".caption", ".json", ".heic", ".SVG", ".cls", ""]
STEMS = ["x", "y.v2", "0001", "猫", "a b", "[1]", "'q'", "._x", "n" * 90]
CONTENTS = (
    st.sampled_from(
        [b"", b"a red cat", b"one\ntwo", "ein Vögel".encode("cp1252"), "猫".encode("utf-16"), b'{"caption": ["a", "b"]}', b"{", b"[" * 1500]
    )
    | st.binary(max_size=20)
    | TEXT.map(lambda text: text.encode("utf-8", "replace"))
)
INSIDE = st.builds("{}{}{}".format, st.sampled_from(["", "", "a/", "b.c/", "train/"]), st.sampled_from(STEMS), st.sampled_from(SUFFIXES))


def suffix_of(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


@given(
    st.lists(st.tuples(INSIDE, CONTENTS, st.sampled_from("00000125")), max_size=8),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.data(),
)
@structured
def test_tars(members, form, data):
    """Every picture has a fate, and what is found is fetched as it was put in, from a whole tar and from one that is cut off."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind.encode(), "x.png"
            info.size = len(content) if kind == "0" else 0
            tar.addfile(info, io.BytesIO(content) if kind == "0" else None)
    whole = buffer.getvalue()
    with file_of(whole, "t.tar") as path:
        result = Collected()
        read_tar(path, str(path), result)
        named = {name for name, _, kind in members if kind != "5"}
        assert {f"tar:t.tar/{name}" for name in named if suffix_of(name) in IMAGE_SUFFIXES | UNREAD_SUFFIXES} <= result.fates().keys()
        reader = LocalReader((str(path),), 10**6)
        contents = {name: content for name, content, kind in members if kind == "0"}
        for found in result.found:
            name = found.image_url.removeprefix("tar:t.tar/")
            assert fetched(reader, found.image_url) == contents[name]
            assert found.caption
        assert_captions_are_used({name: content for name, content in contents.items() if len(name) < 99}, result)
        cut = data.draw(st.integers(0, len(whole) - 1))
        path.write_bytes(whole[:cut])
        short = Collected()
        said = refusal(lambda: read_tar(path, str(path), short))
        assert said in ("", "cut off", "damaged", "no uncompressed tar")
        assert {found.image_url for found in short.found} <= {f"tar:t.tar/{name}" for name in named}
        if not said:
            assert result.fates() == short.fates()


def fetched(reader: LocalReader, address: str) -> bytes:
    """The bytes behind an address, which may be none."""
    try:
        return reader.fetch_image(address)
    except FetchError as error:
        return b"" if error.code == "empty_body" else str(error).encode()


def assert_captions_are_used(contents: dict[str, bytes], result: Collected) -> None:
    """A caption that lies alone beside a picture is its caption."""
    for name, content in contents.items():
        if suffix_of(name) == ".txt" and content == b"a red cat":
            stem = name[: -len(".txt")]
            others = [
                other
                for other in contents
                if other != name and PurePosixPath(other).name.startswith(PurePosixPath(stem).name.partition(".")[0])
            ]
            if others == [f"{stem}.png"]:
                assert "a red cat" in [found.caption for found in result.found if found.image_url.endswith(f"/{stem}.png")]


METADATA = st.one_of(
    st.none(),
    st.tuples(
        st.sampled_from(
            [
                "metadata.csv",
                "Metadata.TSV",
                "metadata.jsonl",
                "metadata.json",
                "metadata.parquet",
                "train/metadata.csv",
                "a/metadata.jsonl",
            ]
        ),
        st.lists(st.tuples(INSIDE | TEXT, TEXT), max_size=5),
        ENCODINGS,
    ),
)


@given(st.dictionaries(INSIDE, CONTENTS, max_size=8), METADATA, st.sampled_from(["separate", "joined"]))
@structured
def test_folders(files, metadata, caption_lines):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "birds [2021]"
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        root.mkdir(exist_ok=True)
        num_named = write_metadata(root, *metadata) if metadata else 0
        result = Collected()
        said = refusal(lambda: read_folder(root, str(root), result, caption_lines))
        assert said in ("", "no header")
        if said:
            return
        pictures = {f"folder:{root.name}/{name}" for name in files if suffix_of(name) in IMAGE_SUFFIXES | UNREAD_SUFFIXES}
        fates = result.fates()
        assert pictures <= fates.keys()
        assert {found.image_url for found in result.found} <= pictures
        assert len([drop for drop in result.drops if drop.reason in ("missing_file", "broken_line")]) <= num_named
        if not metadata:
            assert_captions_are_used(files, result)
        reader = LocalReader((str(root),), 10**6)
        for found in result.found:
            assert fetched(reader, found.image_url) == files[found.image_url.removeprefix(f"folder:{root.name}/")]


def write_metadata(root: Path, name: str, rows: list[tuple[str, str]], encoding: str) -> int:
    """Write a file of metadata; returns how many rows it may have."""
    path = root / name
    path.parent.mkdir(exist_ok=True)
    named = [{"file_name": file_name, "caption": caption} for file_name, caption in rows]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(named, pa.schema([("file_name", pa.string()), ("caption", pa.string())])), path)
        return len(rows)
    text = io.StringIO()
    if "json" in name:
        text.write(json.dumps(named) if name.endswith(".json") else "\n".join(map(json.dumps, named)))
    else:
        csv.writer(text, delimiter="," if name.endswith("csv") else "\t").writerows([["file_name", "caption"], *rows])
    data = text.getvalue().encode(encoding, "replace")
    path.write_bytes(data)
    return 2 * (1 + len(rows) + len(text.getvalue().splitlines()))


# Tables and prompts ---------------------------------------------------------------------------------------------------------------


def rows_with_a_fate(result: Collected) -> set[int]:
    """The rows of a table that are pairs, or that a drop names."""
    named = (re.match(r"(?:row|line) (\d+)[: ]", drop.detail) for drop in result.drops)
    return {found.position for found in result.found} | {int(match[1]) for match in named if match}


@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=4) | VALUES, max_size=6), ENCODINGS, st.sampled_from([None, 1]), st.booleans())
@structured
def test_tables_of_json(rows, encoding, indent, is_array):
    rows = [{"url": "http://a.example/", "caption": "a red cat"}, *rows]
    text = json.dumps(rows, indent=indent) if is_array else "\n".join(map(json.dumps, rows))
    with file_of(text.encode(encoding, "replace"), "t.json") as path:
        result = Collected()
        read_table(path, path.name, result)
        assert refusal(lambda: read_prompts(str(path))) in ("", "prompts ")
    assert len(result.found) + len(result.drops) >= len(rows)
    assert all(re.match(r"line \d+[: ]", drop.detail) for drop in result.drops), result.drops


@given(st.lists(NAMES, min_size=1, max_size=5), st.lists(st.lists(TEXT | URLS, max_size=6), max_size=6), ENCODINGS, st.sampled_from(",;\t"))
@structured
def test_tables_of_fields(names, rows, encoding, delimiter):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([["url", "caption", *names], *rows])
    with tempfile.TemporaryDirectory() as place:
        folder, result = Path(place), Collected()
        for name in ("t.csv", "metadata.csv", "p.csv", "p.tsv", "p.txt"):
            (folder / name).write_bytes(text.getvalue().encode(encoding, "replace"))
        said = refusal(lambda: read_table(folder / "t.csv", "t.csv", result))
        assert said in ("", "no column of", "no header")
        if not said:
            assert len(result.found) + len(result.drops) >= sum(any(field.strip() for field in row) for row in rows)
        assert all(re.match(r"line \d+[: ]", drop.detail) for drop in result.drops), result.drops
        assert refusal(lambda: read_folder(folder, "f", Collected())) in ("", "no header")
        for name in ("p.csv", "p.tsv", "p.txt"):
            assert refusal(lambda name=name: read_prompts(str(folder / name))) in ("", "prompts ", "no column of")


WORDS = [pa.string(), pa.large_string(), pa.binary()]
NESTED = [kind for word in WORDS for kind in (pa.list_(word), pa.struct([("en", word), ("x", pa.int64())]), pa.map_(pa.string(), word))]
CODED = [pa.string_view(), pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int8(), pa.binary())]
OTHERS = [pa.int64(), pa.float64(), pa.bool_(), pa.null(), pa.timestamp("us"), pa.decimal128(20, 2)]
TYPES = st.sampled_from([*WORDS, *NESTED, *CODED, *OTHERS])


def column_of(kind: pa.DataType, values: list[str | None]) -> pa.Array:
    """Values as a column of some type, whatever they were."""

    def converted(kind: pa.DataType, value: str | None):
        if value is None or pa.types.is_null(kind):
            return None
        if pa.types.is_list(kind):
            return [converted(kind.value_type, value)] * (len(value) % 3)
        if pa.types.is_struct(kind):
            return {field.name: converted(field.type, value) for field in kind}
        if pa.types.is_map(kind):
            return [("en", converted(kind.item_type, value)), ("en", None)]
        if pa.types.is_dictionary(kind):
            return converted(kind.value_type, value)
        if pa.types.is_binary(kind):
            return value.encode("cp1252", "replace")
        if pa.types.is_boolean(kind):
            return len(value) > 3
        return value if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view() else len(value)

    items = [converted(kind, value) for value in values]
    return pa.array(items, kind.value_type).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(items, kind)


@given(
    st.lists(st.tuples(NAMES | st.sampled_from(["jpg", "bytes"]), TYPES), min_size=1, max_size=4),
    st.lists(st.lists(st.none() | URLS, min_size=6, max_size=6), max_size=6),
    st.integers(1, 3),
)
@structured
def test_tables_of_parquet(columns, rows, group_rows):
    columns = [("url", pa.string()), ("caption", pa.string()), *columns]
    arrays = [column_of(kind, [row[i] for row in rows]) for i, (_, kind) in enumerate(columns)]
    with tempfile.TemporaryDirectory() as place:
        path, result = Path(place) / "t.parquet", Collected()
        pq.write_table(pa.table(arrays, names=[name for name, _ in columns]), path, row_group_size=group_rows)
        assert refusal(lambda: read_table(path, path.name, result)) == ""
        assert rows_with_a_fate(result) == set(range(len(rows)))
        for found in result.found:
            assert found.caption
            if found.image_url.startswith("table:"):
                fetched(LocalReader((str(path),), 10**6), found.image_url)
        assert refusal(lambda: read_prompts(str(path))) in ("", "prompts ")
        path.rename(path.with_name("metadata.parquet"))
        assert refusal(lambda: read_folder(Path(place), "f", Collected())) == ""
        whole = path.with_name("metadata.parquet").read_bytes()
        path.write_bytes(whole[: len(whole) * len(rows) // 7])
        assert refusal(lambda: read_table(path, path.name, Collected()))


# Pages ----------------------------------------------------------------------------------------------------------------------------

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
    marks = (codecs.BOM_UTF8, codecs.BOM_UTF16)
    if (encoding == "utf-8" and content_type == "text/html") or body.startswith(marks):
        assert result.found[0].caption == "a red cat"
