"""Tables of addresses and captions as they are published."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dalle_datasets.sources.tables import read_table

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
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"t\.csv: no column of addresses among a, b; name it 'image_url'"):
        read(path)


def test_a_file_that_is_no_table(tmp_path, read):
    with pytest.raises(ValueError, match=r"t\.xls: tables end in \.csv, \.tsv, \.jsonl or \.parquet, perhaps with \.gz"):
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
    assert [found.caption for found in result.found] == ["7", CAPTION]
    assert [drop.reason for drop in result.drops] == ["broken_line"] * 3 + ["no_caption"]
    assert result.drops[0].detail.startswith("line 3 is no JSON object of at most 1048576 bytes (Expecting ':' delimiter")


def test_a_field_may_appear_late(tmp_path, read):
    path = tmp_path / "t.jsonl"
    late = f'{{"url": "{URL}", "caption": "b", "licence": "CC0"}}\n'
    path.write_text(f'{{"url": "{URL}", "caption": "a"}}\n' * 10_001 + late)
    result = read(path)
    assert len(result.found) == 10_002
    assert (result.found[0].licence, result.found[-1].licence) == (None, "CC0")
