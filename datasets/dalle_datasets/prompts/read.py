"""Readers of prompts: text, CSV, JSON lines, Parquet, standard input, or the rows of a query.

A row that cannot be used (a malformed line, a number, nothing at all) is kept with its reason, and the rest goes on; only a
file that is broken as a whole is an error.
"""

import csv
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dalle_datasets.store.ids import prompt_id
from dalle_datasets.store.parquet import open_parquet
from dalle_datasets.store.schemas import DROPPED_PROMPTS, PROMPTS

STANDARD_INPUT = "-"
COLUMNS = ("prompt", "caption", "text")
"""Names under which CSV, JSON lines, Parquet and queries may hold the prompt; the first that is there counts."""
MAX_RECORD_LINES = 50
"""Lines that one quoted CSV field may reach over; more, and a quotation mark was forgotten."""
MAX_SHOWN = 200
"""Characters of a malformed line that are kept."""
ROWS_AT_ONCE = 10_000

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PromptRows:
    """What a source holds."""

    prompts: pa.Table
    """`schemas.PROMPTS`, in the source's order; repeated ones stay."""
    dropped: pa.Table
    """`schemas.DROPPED_PROMPTS`: reasons 'malformed', 'not_text', 'empty' and 'bad_image'."""


@dataclass(frozen=True, slots=True)
class _Malformed:
    """A line that could not be read."""

    line: bytes
    detail: str


def read_prompts(source: str, prompt_set: str = "own") -> PromptRows:
    """Prompts of a file, by its ending: `.txt` (one a line), `.csv`, `.jsonl`, `.parquet`; `-` is text on standard input.

    A column `prompt_set`, where there is one, says which set a prompt belongs to; a column `image`, in CSV and JSON lines, names a
    picture to complete, relative to the file.
    Raises `ValueError` when the file is missing, of another kind, unreadable as a whole, or without a usable prompt.
    """
    if source == STANDARD_INPUT:
        return _sort_out("standard input", Path(), _read_lines(sys.stdin.buffer.read()), prompt_set)
    path = Path(source).expanduser()
    readers = {".txt": _read_text, ".csv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise ValueError(f"prompts {source}: an ending {path.suffix or '(none)'} is not known; use {', '.join(readers)}, or - for input")
    if not path.is_file():
        raise ValueError(f"prompts {source}: there is no such file; correct the path")
    return _sort_out(source, path.parent, readers[path.suffix](path), prompt_set)


def table_prompts(table: pa.Table, source: str, prompt_set: str = "own") -> PromptRows:
    """Prompts of the rows of a query, with `prompt_set` where they have one. Raises `ValueError` when there is no usable one."""
    return _sort_out(source, Path(), _table_rows(table.to_batches(ROWS_AT_ONCE), _column(source, table.column_names)), prompt_set)


def text_prompts(texts: Sequence[Any], prompt_set: str = "own") -> PromptRows:
    """Prompts given one by one. Raises `ValueError` when there is no usable one."""
    rows = ({"prompt": text, "where": f"prompt {number}"} for number, text in enumerate(texts, 1))
    return _sort_out("given", Path(), rows, prompt_set)


def _sort_out(source: str, folder: Path, rows: Iterable[Row | _Malformed], prompt_set: str) -> PromptRows:
    """Usable rows, and the others with their reasons."""
    usable: list[Row] = []
    dropped: list[Row] = []
    for row in rows:
        if isinstance(row, _Malformed):
            text = row.line.decode(errors="replace").strip()[:MAX_SHOWN]
            dropped.append(_dropped(text, prompt_set, "malformed", row.detail))
            continue
        name = str(row.get("prompt_set") or prompt_set).encode(errors="replace").decode()
        if problem := _problem(row["prompt"]):
            text = "" if row["prompt"] is None else ascii(row["prompt"])[:MAX_SHOWN]
            dropped.append(_dropped(text, name, problem[0], f"{row['where']}: {problem[1]}"))
            continue
        text = " ".join(row["prompt"].split())
        try:
            image = (folder / Path(row["image"]).expanduser()).read_bytes() if row.get("image") else None
        except (OSError, TypeError, ValueError) as error:
            detail = f"{row['where']}: its picture {row['image']} cannot be read ({getattr(error, 'strerror', None) or error})"
            dropped.append(_dropped(text, name, "bad_image", detail))
            continue
        usable.append({"prompt_id": prompt_id(text, image), "prompt": text, "prompt_set": name, "expected": None, "image": image})
    if not usable:
        found = f"none of its {len(dropped)} rows can be used; the first: {dropped[0]['detail']}" if dropped else "holds no prompts"
        raise ValueError(f"prompts {source}: {found}; give at least one")
    return PromptRows(
        pa.Table.from_pylist(usable, PROMPTS.with_metadata(None)), pa.Table.from_pylist(dropped, DROPPED_PROMPTS.with_metadata(None))
    )


def _dropped(text: str, prompt_set: str, reason: str, detail: str) -> Row:
    return {"prompt_id": prompt_id(text), "prompt": text, "prompt_set": prompt_set, "reason": reason, "detail": detail}


def _problem(value: Any) -> tuple[str, str] | None:
    """(reason, detail) of a value that is no prompt."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return "empty", "it has no text"
    if not isinstance(value, str):
        return "not_text", f"the prompt is of type {type(value).__name__}, not text"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "not_text", "the prompt holds half a character, which is not valid Unicode"
    return None


def _read_text(path: Path) -> Iterator[Row | _Malformed]:
    return _read_lines(path.read_bytes())


def _read_lines(data: bytes) -> Iterator[Row | _Malformed]:
    """One prompt a line; the last line need not be ended."""
    for number, line in enumerate(_without_mark(data).splitlines(), 1):
        try:
            yield {"prompt": line.decode(), "where": f"line {number}"}
        except UnicodeDecodeError:
            yield _Malformed(line, f"line {number} is not UTF-8")


def _read_csv(path: Path) -> Iterator[Row | _Malformed]:
    """A record that cannot be read costs one line: reading goes on with the next, so a forgotten quotation mark swallows nothing."""
    lines = _without_mark(path.read_bytes()).splitlines(keepends=True)
    header, number = (_read_record(lines, 0)) if lines else (list(COLUMNS), 0)
    if isinstance(header, str):
        raise ValueError(f"prompts {path}: not a readable CSV file ({header}); save it as UTF-8 with a header line")
    column = _column(str(path), header)
    while number < len(lines):
        record, following = _read_record(lines, number)
        if isinstance(record, str):
            yield _Malformed(lines[number], f"line {number + 1} is not CSV: {record}")
        elif len(record) > len(header):
            yield _Malformed(
                lines[number], f"line {number + 1} has {len(record)} fields for {len(header)} columns; put quotation marks round commas"
            )
        elif record:
            yield _located(dict(zip(header, record, strict=False)), column, f"line {number + 1}")
        number = following


def _read_record(lines: list[bytes], start: int) -> tuple[list[str] | str, int]:
    """(the record that begins in line `start`, the line after it), or (what is wrong, the next line)."""
    reader = csv.reader((line.decode() for line in itertools.islice(lines, start, start + MAX_RECORD_LINES)), strict=True)
    try:
        return next(reader, []), start + max(1, reader.line_num)
    except (csv.Error, UnicodeDecodeError) as error:
        return str(error), start + 1


def _read_json_lines(path: Path) -> Iterator[Row | _Malformed]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield _Malformed(line, f"line {number} is not JSON ({error})")
            continue
        if not isinstance(value, dict):
            yield {"prompt": value, "where": f"line {number}"}
        elif column := next((name for name in COLUMNS if name in value), None):
            yield _located(value, column, f"line {number}")
        else:
            yield _Malformed(line, f"line {number} has none of {', '.join(COLUMNS)}")


def _read_parquet(path: Path) -> Iterator[Row | _Malformed]:
    try:
        with open_parquet(path) as file:
            names = file.schema_arrow.names
            column = _column(str(path), names)
            columns = [column, *({"prompt_set"} & set(names))]
            yield from _table_rows(file.iter_batches(ROWS_AT_ONCE, columns=columns), column)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"prompts {path}: not a readable Parquet file ({error}); write it again") from error


def _table_rows(batches: Iterable[pa.RecordBatch], column: str) -> Iterator[Row | _Malformed]:
    rows = (row for batch in batches for row in batch.select([n for n in batch.schema.names if n in (column, "prompt_set")]).to_pylist())
    return (_located(row, column, f"row {number}") for number, row in enumerate(rows, 1))


def _located(row: Row, column: str, where: str) -> Row:
    return {"prompt": row.get(column), "prompt_set": row.get("prompt_set"), "image": row.get("image"), "where": where}


def _without_mark(data: bytes) -> bytes:
    """Without the byte order mark that spreadsheets write."""
    return data.removeprefix(b"\xef\xbb\xbf")


def _column(source: str, names: list[str]) -> str:
    for column in COLUMNS:
        if column in names:
            return column
    raise ValueError(
        f"prompts {source}: no column of {', '.join(COLUMNS)}; it has {', '.join(map(str, names))}; rename the one with the prompts"
    )
