"""Tables of addresses and captions as they are published."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dalle_datasets.sources.local_files import LocalReader
from dalle_datasets.sources.tables import read_table
from dalle_datasets.web.failures import FetchError

URL, CAPTION = "http://a.example/1.png", "a red cat, asleep"


@pytest.fixture
def read(found_by):
    return lambda path: found_by(lambda result: read_table(path, path.name, result))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own.csv", f'image_url,caption\n{URL},"{CAPTION}"\n'),
        ("laion.csv", f'URL,TEXT,WIDTH\n{URL},"{CAPTION}",64\n'),
        ("coyo.tsv", f"id\turl\ttext\n1\t{URL}\t{CAPTION}\n"),
        ("cc3m.tsv", f"{CAPTION}\t{URL}\n"),
        ("cc12m.tsv", f"{URL}\t{CAPTION}\n"),
        ("some.jsonl", f'{{"url": "{URL}", "caption": "{CAPTION}", "more": [1]}}\n'),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_known_shapes(tmp_path, read, name, text, packed):
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    (found,) = read(path).found
    assert (found.image_url, found.caption, found.page_url, found.found_in, found.document) == (URL, CAPTION, path.name, "table", path.name)


def test_parquet_with_pages(tmp_path, read):
    path = tmp_path / "t.parquet"
    pq.write_table(
        pa.table({"url": [URL, None, "hello", URL], "text": [CAPTION, "x", "y", None], "page_url": ["http://p/", None, None, None]}), path
    )
    result = read(path)
    assert [(f.caption, f.page_url, f.position) for f in result.found] == [(CAPTION, "http://p/", 0)]
    assert [d.reason for d in result.drops] == ["bad_scheme", "bad_scheme", "no_caption"]


def test_a_table_without_the_columns(tmp_path, read):
    path = tmp_path / "t.csv"
    for text in ("a,b\n1,2\n", "a,b\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"t\.csv: no column of addresses among a, b; name it 'image_url'"):
            read(path)


def test_a_file_that_is_no_table(tmp_path, read):
    with pytest.raises(ValueError, match=r"t\.xls: tables end in \.csv, \.tsv, \.json, \.jsonl or \.parquet, perhaps with \.gz"):
        read(tmp_path / "t.xls")


def test_licences_are_kept(tmp_path, read):
    path = tmp_path / "t.csv"
    path.write_text(f"url,text,License\n{URL},a red cat,CC BY 4.0\n{URL},a blue cat,\n")
    assert [found.licence for found in read(path).found] == ["CC BY 4.0", None]


def test_a_broken_line_of_json_costs_only_itself(tmp_path, read):
    lines = [
        f'{{"url": "{URL}", "caption": null}}', "", f'{{"url": "{URL}", "caption"', "[1]", "[" * 100_000,
        f'{{"more": {{"a": [1]}}, "url": "{URL}", "caption": 7}}', f'{{"caption": "{CAPTION}", "url": "{URL}"}}',
    ]  # fmt: skip
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines))
    result = read(path)
    assert [found.caption for found in result.found] == [CAPTION]
    assert [drop.reason for drop in result.drops] == ["no_caption"] + ["broken_line"] * 3 + ["no_caption"]
    assert result.drops[1].detail.startswith("line 3 cannot be read: no JSON (Expecting ':' delimiter")
    assert result.drops[2].detail == "line 4 cannot be read: no JSON object but list"
    assert result.drops[4].detail == "line 6 has no caption, but int"


def test_a_field_may_appear_late(tmp_path, read):
    path = tmp_path / "t.jsonl"
    late = f'{{"url": "{URL}", "caption": "b", "licence": "CC0"}}\n'
    path.write_text(f'{{"url": "{URL}", "caption": "a"}}\n' * 10_001 + late)
    result = read(path)
    assert len(result.found) == 10_002
    assert (result.found[0].licence, result.found[-1].licence) == (None, "CC0")


def test_every_caption_of_a_row_is_a_pair(tmp_path, read):
    path = tmp_path / "t.parquet"
    rows = [["a red cat", "a cat, red"], None, ["a blue dog"]]
    pq.write_table(pa.table({"URL": [URL] * 3, "Captions": pa.array(rows, pa.list_(pa.string()))}), path)
    result = read(path)
    assert [(found.caption, found.position) for found in result.found] == [("a red cat", 0), ("a cat, red", 0), ("a blue dog", 2)]
    assert [drop.detail for drop in result.drops] == ["row 1 has no caption"]


def test_columns_of_every_type(tmp_path, read):
    """Text that was not declared as such, dictionaries, large text, structs and maps, and columns that share a name."""
    path = tmp_path / "t.parquet"
    mapping = pa.array([[("en", "a map of a town")]], pa.map_(pa.string(), pa.string()))
    columns = [
        (pa.array([URL.encode()]), "url"), (pa.array(["a red cat"]).dictionary_encode(), "caption"), (mapping, "Caption"),
        (pa.array([b"CC0"]), "license"), (pa.array(["http://p.example/"], pa.large_string()), "page_url"),
    ]  # fmt: skip
    pq.write_table(pa.Table.from_arrays([column for column, _ in columns], [name for _, name in columns]), path)
    found = read(path).found
    assert [f.caption for f in found] == ["a red cat", "a map of a town"]
    assert {(f.image_url, f.licence, f.page_url) for f in found} == {(URL, "CC0", "http://p.example/")}
    twice = tmp_path / "u.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([URL]), pa.array(["one cat"]), pa.array(["two cats"])], ["url", "text", "text"]), twice)
    assert [f.caption for f in read(twice).found] == ["one cat", "two cats"]


def test_a_type_that_changes_late_is_no_error(tmp_path, read):
    path = tmp_path / "t.csv"
    path.write_text("url,caption,width\n" + f"{URL},12,1\n" * 20_000 + f"{URL},a red cat,wide\n")
    result = read(path)
    assert (len(result.found), result.found[-1].caption, result.drops) == (20_001, "a red cat", [])


def test_a_bad_row_costs_that_row(tmp_path, read):
    path = tmp_path / "t.csv"
    path.write_bytes(f'url,caption\n{URL},a red cat\n{URL},a, b\n{URL},"never closed\n{URL},caf\xe9 table\n{URL},a dog\n'.encode("latin-1"))
    result = read(path)
    assert [(found.caption, found.found_in) for found in result.found] == [
        ("a red cat", "table"), ("café table", "table, read as windows-1252"), ("a dog", "table"),
    ]  # fmt: skip
    assert [(drop.reason, drop.detail) for drop in result.drops] == [
        ("broken_line", "line 3 cannot be read: it has 3 fields for 2 columns; put quotation marks round commas"),
        ("broken_line", "line 4 cannot be read: a quotation mark is never closed"),
    ]


def test_an_array_of_json(tmp_path, read):
    path = tmp_path / "t.json"
    path.write_text(f'[\n  {{"URL": "{URL}", "Caption": ["a cat", "a red cat"]}},\n  {{"URL": "{URL}", "Caption": {{"en": "one"}}}}\n]\n')
    assert [found.caption for found in read(path).found] == ["a cat", "a red cat", "one"]


def test_mojibake_is_no_caption(tmp_path, read):
    path = tmp_path / "t.csv"
    path.write_bytes(f"url,caption\n{URL},猫の写真です\n{URL},a cat\n".encode("cp932"))
    result = read(path)
    assert [found.caption for found in result.found] == ["a cat"]
    assert [(d.reason, d.detail) for d in result.drops] == [
        ("broken_text", "line 2: no encoding is declared, and it makes no sense as windows-1252")
    ]


@pytest.mark.parametrize("shape", ["struct", "binary"])
def test_pictures_inside_a_table(tmp_path, read, shape):
    """As Hugging Face stores them, and as img2dataset does."""
    path = tmp_path / "pictures.parquet"
    data = [b"one", None, b"three"]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if shape == "struct" else pa.binary()
    values = [{"bytes": item, "path": "x.png"} for item in data] if shape == "struct" else data
    columns = {"Image" if shape == "struct" else "jpg": pa.array(values, kind), "text": ["a cat", "a dog", "an owl"], "url": [URL] * 3}
    pq.write_table(pa.table(columns), path, row_group_size=2)
    found = read(path).found
    assert [(f.caption, f.image_url) for f in found][::2] == [
        ("a cat", "table:pictures.parquet/000000000000"), ("an owl", "table:pictures.parquet/000000000002"),
    ]  # fmt: skip
    reader = LocalReader((str(path),), 4)
    assert reader.fetch_image(found[0].image_url) == b"one"
    with pytest.raises(FetchError, match="too_many_bytes: 5 bytes, 4 allowed"):
        reader.fetch_image(found[2].image_url)
    with pytest.raises(FetchError, match="empty_body"):
        reader.fetch_image(found[1].image_url)
    for address in ("table:pictures.parquet/9", "table:pictures.parquet/x", "table:other.parquet/0"):
        with pytest.raises(FetchError, match="missing_file"):
            reader.fetch_image(address)


def test_a_table_as_hugging_face_describes_it(tmp_path, read):
    """Sounds have the form of pictures, and several captions of a picture have columns of their own."""
    path = tmp_path / "t.parquet"
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "bark": pa.array([{"bytes": b"sound", "path": "a.wav"}], kind), "view": pa.array([{"bytes": b"picture", "path": "a.png"}], kind),
        "caption_10": ["a third"], "caption_1": ["a first"], "caption_2": pa.array([None], pa.string()), "license": ["CC0"],
    }  # fmt: skip
    features = {"bark": {"_type": "Audio"}, "view": {"_type": "Image"}}
    described = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(described, path)
    assert [(f.caption, f.licence) for f in read(path).found] == [("a first", "CC0"), ("a third", "CC0")]
    assert LocalReader((str(path),), 100).fetch_image("table:t.parquet/0") == b"picture"
    for lie in ("[1]", '{"info": {"features": [1]}}', "[" * 100_000, "{"):
        pq.write_table(described.select([1, 3]).replace_schema_metadata({"huggingface": lie}), path)
        assert [f.caption for f in read(path).found] == ["a first"]


def test_an_address_that_is_written_in_a_table_is_never_a_local_one(tmp_path, read):
    path = tmp_path / "t.csv"
    path.write_text("url,caption\ntable:t.parquet/0,a cat\nfolder:x/a.png,a dog\nfile:///etc/passwd,a fox\n")
    assert [drop.reason for drop in read(path).drops] == ["bad_scheme"] * 3
