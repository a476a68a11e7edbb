"""The same prompts come out of every kind of file; rows without text stay visible; broken files are errors."""

import io
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dalle_datasets.prompts.read import read_prompts, table_prompts
from dalle_datasets.store.ids import prompt_id
from dalle_datasets.store.schemas import PROMPTS

TEXTS = ["a red apple, on white", 'an owl saying "hoo"', "日本の城"]


def write(path, texts):
    if path.suffix == ".txt":
        path.write_text("\n".join(texts), encoding="utf-8")
    elif path.suffix == ".csv":
        rows = ["prompt,note", *('"' + text.replace('"', '""') + '",x' for text in texts)]
        path.write_text("\ufeff" + "\r\n".join(rows), encoding="utf-8")  # as spreadsheets save it
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"caption": text} if i else text) for i, text in enumerate(texts)) + "\n")
    else:
        pq.write_table(pa.table({"text": texts}), path)
    return str(path)


@pytest.mark.parametrize("ending", ["txt", "csv", "jsonl", "parquet"])
def test_every_kind_of_file_gives_the_same_prompts(tmp_path, ending):
    found = read_prompts(write(tmp_path / f"prompts.{ending}", TEXTS), "mine")
    table = found.prompts
    assert found.dropped.num_rows == 0
    assert table.schema.equals(PROMPTS.with_metadata(None))
    assert table["prompt"].to_pylist() == TEXTS
    assert table["prompt_id"].to_pylist() == [prompt_id(text) for text in TEXTS]
    assert set(table["prompt_set"].to_pylist()) == {"mine"}


def test_standard_input_is_text(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a  red apple\nan owl\n")))
    assert read_prompts("-").prompts["prompt"].to_pylist() == ["a red apple", "an owl"]


def test_rows_of_a_query_are_prompts():
    found = table_prompts(pa.table({"caption": ["an owl", None], "prompt_set": ["birds", None], "score": [0.1, 0.2]}), "the query")
    assert [(row["prompt"], row["prompt_set"]) for row in found.prompts.to_pylist()] == [("an owl", "birds")]
    assert [(row["reason"], row["detail"]) for row in found.dropped.to_pylist()] == [("empty", "row 2: it has no text")]
    with pytest.raises(
        ValueError, match="prompts the query: no column of prompt, caption, text; it has n; rename the one with the prompts"
    ):
        table_prompts(pa.table({"n": [1]}), "the query")


def reasons_of(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    found = read_prompts(str(tmp_path / name))
    return found.prompts["prompt"].to_pylist(), [(row["prompt"], row["reason"], row["detail"]) for row in found.dropped.to_pylist()]


def test_a_line_that_is_no_prompt_gets_its_own_reason_and_the_rest_goes_on(tmp_path):
    content = (
        b'{"prompt": "an owl"}\n\n{"prompt": 5}\n{"prompt": null}\n"  "\n{"prompt": "a c\n{"words": "x"}\n\xff\n"\\ud800"\n' + b"[" * 9_999
    )
    texts, dropped = reasons_of(tmp_path, "p.jsonl", content + b'\n"a cat"')
    assert texts == ["an owl", "a cat"]
    assert dropped[:3] == [
        ("5", "not_text", "line 3: the prompt is of type int, not text"),
        ("", "empty", "line 4: it has no text"),
        ("'  '", "empty", "line 5: it has no text"),
    ]
    assert [(prompt[:12], reason) for prompt, reason, _ in dropped[3:]] == [
        ('{"prompt": "', "malformed"),
        ('{"words": "x', "malformed"),
        ("ÿ", "malformed"),
        ("'\\ud800'", "not_text"),
        ("[" * 12, "malformed"),
    ]
    assert "line 6 cannot be read: no JSON (Unterminated string" in dropped[3][2]
    assert dropped[4][2] == "line 7 has none of prompt, caption, text"
    texts, dropped = reasons_of(tmp_path, "p.txt", b"an owl\n\xff\xfe\n\na cat")
    assert texts == ["an owl", "a cat"]
    assert [dropped_row[1:] for dropped_row in dropped] == [
        ("malformed", "line 2 is not UTF-8; windows-1252 is a guess: save the file as UTF-8"),
        ("empty", "line 3: it has no text"),
    ]


def test_a_malformed_csv_record_costs_one_line(tmp_path):
    """A forgotten quotation mark would swallow the rest of the file; a quoted field may hold line ends and commas all the same."""
    content = b"""prompt,note
"an owl, on
two lines",x
"never closed,y
a cat,y
too,many,fields
\xff\xfe,z
"a ""quoted"" dog",z
"""
    texts, dropped = reasons_of(tmp_path, "p.csv", content)
    assert texts == ["an owl, on two lines", "a cat", 'a "quoted" dog']
    assert [(prompt, reason) for prompt, reason, _ in dropped] == [
        ('"never closed,y', "malformed"),
        ("too,many,fields", "malformed"),
        ("ÿþ,z", "malformed"),
    ]
    assert dropped[1][2] == "line 6 cannot be read: it has 3 fields for 2 columns; put quotation marks round commas"
    many = b"".join(b'"open %d\n' % i for i in range(300))
    texts, dropped = reasons_of(tmp_path, "q.csv", b"prompt\n" + many + b"a cat\n")
    assert len(dropped) + len(texts) <= 301
    assert texts[-1] == "a cat"


def test_parquet_columns_of_another_type_are_no_prompts(tmp_path):
    pq.write_table(pa.table({"prompt": [1, 2]}), tmp_path / "p.parquet")
    with pytest.raises(ValueError, match="none of its 2 rows can be used; the first: row 1: the prompt is of type int, not text; give at"):
        read_prompts(str(tmp_path / "p.parquet"))


def test_a_prompt_set_column_is_kept(tmp_path):
    (tmp_path / "p.csv").write_text("prompt,prompt_set\nan owl,birds\na cat,\n")
    assert read_prompts(str(tmp_path / "p.csv")).prompts["prompt_set"].to_pylist() == ["birds", "own"]


def test_a_picture_to_complete_is_read_and_part_of_the_id(tmp_path):
    (tmp_path / "half.png").write_bytes(b"pixels")
    (tmp_path / "p.csv").write_text("prompt,image\nan owl,half.png\nan owl,\na cat,gone.png\n")
    found = read_prompts(str(tmp_path / "p.csv"))
    first, second = found.prompts.to_pylist()
    assert (first["image"], second["image"]) == (b"pixels", None)
    assert first["prompt_id"] != second["prompt_id"] == prompt_id("an owl")
    (missing,) = found.dropped.to_pylist()
    assert (missing["prompt"], missing["reason"]) == ("a cat", "bad_image")
    assert missing["detail"] == "line 4: its picture gone.png cannot be read (No such file or directory)"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.docx", b"x", r"an ending \.docx is not known; use \.txt, \.csv, \.tsv, \.json, \.jsonl, \.ndjson, \.parquet, or - for input"),
        ("gone.txt", None, "there is no such file; correct the path"),
        ("p.txt", b"", "holds no prompts; give at least one"),
        ("p.csv", b"words,n\nowl,1\n", "no column of prompt, caption, text; it has words, n; rename the one with the prompts"),
        ("p.csv", b'"p\n', "not a readable CSV file .*; save it as UTF-8 with a header line"),
        (
            "p.csv",
            b"prompt\n\xff\xfe\n",
            "none of its 1 rows can be used; the first: line 2 is not UTF-8; windows-1252 is a guess: save .*; give at least one",
        ),
        ("p.jsonl", b'{"prompt": "a c', r"none of its 1 rows can be used; the first: line 1 cannot be read: no JSON \(Unterminated"),
        ("p.parquet", b"PAR1", "not a readable Parquet file"),
    ],
)
def test_what_cannot_be_read_is_an_error(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_prompts(str(tmp_path / name))
