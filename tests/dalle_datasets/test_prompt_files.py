"""The same prompts come out of every kind of file; rows without text stay visible; broken files are errors."""

import io
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dalle_datasets.identity import prompt_id
from dalle_datasets.prompt_files import read_prompts
from dalle_datasets.schemas import PROMPTS

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
    table = read_prompts(write(tmp_path / f"prompts.{ending}", TEXTS), "mine")
    assert table.schema.equals(PROMPTS.with_metadata(None))
    assert table["prompt"].to_pylist() == TEXTS
    assert table["prompt_id"].to_pylist() == [prompt_id(text) for text in TEXTS]
    assert set(table["prompt_set"].to_pylist()) == {"mine"}


def test_standard_input_is_text(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a  red apple\nan owl\n")))
    assert read_prompts("-")["prompt"].to_pylist() == ["a red apple", "an owl"]


def test_rows_without_text_stay_so_that_they_get_a_reason(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "an owl"}\n\n{"prompt": 5}\n{"prompt": null}\n"  "\n')
    assert read_prompts(str(tmp_path / "p.jsonl"))["prompt"].to_pylist() == ["an owl", "", "", ""]
    (tmp_path / "p.txt").write_bytes(b"an owl\n\xff\xfe\n")
    assert read_prompts(str(tmp_path / "p.txt"))["prompt"].to_pylist() == ["an owl", ""]


def test_a_prompt_set_column_is_kept(tmp_path):
    (tmp_path / "p.csv").write_text("prompt,prompt_set\nan owl,birds\na cat,\n")
    assert read_prompts(str(tmp_path / "p.csv"))["prompt_set"].to_pylist() == ["birds", "own"]


def test_a_picture_to_complete_is_read_and_part_of_the_id(tmp_path):
    (tmp_path / "half.png").write_bytes(b"pixels")
    (tmp_path / "p.csv").write_text("prompt,image\nan owl,half.png\nan owl,\n")
    first, second = read_prompts(str(tmp_path / "p.csv")).to_pylist()
    assert (first["image"], second["image"]) == (b"pixels", None)
    assert first["prompt_id"] != second["prompt_id"] == prompt_id("an owl")
    (tmp_path / "half.png").unlink()
    with pytest.raises(ValueError, match=r"its picture .*half\.png cannot be read \(No such file or directory\); correct the path"):
        read_prompts(str(tmp_path / "p.csv"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.docx", b"x", r"an ending \.docx is not known; use \.txt, \.csv, \.jsonl, \.parquet, or - for input"),
        ("gone.txt", None, "there is no such file; correct the path"),
        ("p.txt", b"", "holds no prompts; give at least one"),
        ("p.csv", b"words,n\nowl,1\n", "no column of prompt, caption, text; it has words, n; rename the one with the prompts"),
        ("p.csv", b"prompt\n\xff\xfe\n", "not a readable CSV file .*; save it as UTF-8 with a header line"),
        ("p.jsonl", b'{"prompt": "an owl"}\n{"prompt": "a c', r"line 2 is not JSON .*; is the file cut short\?"),
        ("p.parquet", b"PAR1", "not a readable Parquet file"),
    ],
)
def test_what_cannot_be_read_is_an_error(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_prompts(str(tmp_path / name))
