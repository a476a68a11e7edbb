"""Prompts from wherever people keep them: text, CSV, JSON lines, Parquet, or standard input.

A row without text stays in as an empty prompt, so that `generate_images` gives a reason for it and goes on; a
file that is broken as a whole is an error.
"""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dalle_datasets.identity import prompt_id
from dalle_datasets.schemas import PROMPTS

STANDARD_INPUT = "-"
COLUMNS = ("prompt", "caption", "text")
"""Names under which CSV, JSON lines and Parquet may hold the prompt; the first that is there counts."""


def read_prompts(source: str, prompt_set: str = "own") -> pa.Table:
    """`schemas.PROMPTS` of a file, by its ending: `.txt` (one a line), `.csv`, `.jsonl`, `.parquet`; `-` is text on standard input.

    A column `prompt_set`, where there is one, says which set a prompt belongs to; a column `image`, in CSV and JSON lines, names a
    picture to complete, relative to the file. Prompts keep their order, and repeated ones stay.
    Raises `ValueError` when the file is missing, of another kind, broken, or without prompts, or a picture is missing.
    """
    if source == STANDARD_INPUT:
        rows: list[dict[str, Any]] = [{"prompt": line} for line in _lines(sys.stdin.buffer.read())]
    else:
        path = Path(source).expanduser()
        readers = {".txt": _read_text, ".csv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}
        if path.suffix not in readers:
            raise ValueError(
                f"prompts {source}: an ending {path.suffix or '(none)'} is not known; use {', '.join(readers)}, or - for input"
            )
        if not path.is_file():
            raise ValueError(f"prompts {source}: there is no such file; correct the path")
        rows = list(readers[path.suffix](path))
    if not rows:
        raise ValueError(f"prompts {source}: holds no prompts; give at least one")
    kept = []
    for row in rows:
        text = " ".join(row["prompt"].split()) if isinstance(row["prompt"], str) else ""
        image = _read_image(source, row["image"]) if row.get("image") else None
        name = str(row.get("prompt_set") or prompt_set)
        kept.append({"prompt_id": prompt_id(text, image), "prompt": text, "prompt_set": name, "expected": None, "image": image})
    return pa.Table.from_pylist(kept, PROMPTS.with_metadata(None))


def _read_text(path: Path) -> Iterator[dict[str, Any]]:
    return ({"prompt": line} for line in _lines(path.read_bytes()))


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"prompts {path}: not a readable CSV file ({error}); save it as UTF-8 with a header line") from error
    column = _column(path, list(rows[0]) if rows else list(COLUMNS))
    return ({**row, "prompt": row[column]} for row in rows)


def _read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ValueError(f"prompts {path}: line {number} is not JSON ({error}); is the file cut short?") from error
        if isinstance(value, dict):
            yield {**value, "prompt": value[_column(path, list(value))]}
        else:
            yield {"prompt": value}


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"prompts {path}: not a readable Parquet file ({error}); write it again") from error
    column = _column(path, table.column_names)
    sets = table["prompt_set"].to_pylist() if "prompt_set" in table.column_names else [None] * table.num_rows
    return ({"prompt": prompt, "prompt_set": name} for prompt, name in zip(table[column].to_pylist(), sets, strict=True))


def _read_image(source: str, name: str) -> bytes:
    path = Path(source).expanduser().parent / Path(name).expanduser()
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"prompts {source}: its picture {path} cannot be read ({error.strerror}); correct the path") from error


def _lines(data: bytes) -> list[str]:
    """Lines as text; what is not UTF-8 becomes an empty line. The last line need not be ended."""
    lines = []
    for line in data.removeprefix(b"\xef\xbb\xbf").splitlines():
        try:
            lines.append(line.decode())
        except UnicodeDecodeError:
            lines.append("")
    return lines


def _column(path: Path, names: list[str]) -> str:
    for column in COLUMNS:
        if column in names:
            return column
    raise ValueError(
        f"prompts {path}: no column of {', '.join(COLUMNS)}; it has {', '.join(map(str, names))}; rename the one with the prompts"
    )
