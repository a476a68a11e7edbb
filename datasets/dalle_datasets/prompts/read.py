"""Readers of prompts: text, CSV, TSV, JSON, Parquet, standard input, or the rows of a query.

They are cleaned as captions are, so that the same words give the same tokens. A row that cannot be used (a malformed line, a
number, nothing at all) is kept with its reason, and the rest goes on; only a file that is broken as a whole is an error.
"""

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dalle_datasets.store.ids import prompt_id
from dalle_datasets.store.parquet import open_parquet
from dalle_datasets.store.schemas import DROPPED_PROMPTS, PROMPTS
from dalle_datasets.texts.captions import captions_in, clean_caption, fold_name
from dalle_datasets.texts.decoding import encodable
from dalle_datasets.texts.records import Record, TextFile, json_records, read_csv

STANDARD_INPUT = "-"
COLUMNS = ("prompt", "caption", "text", "prompts")
"""Names under which CSV, JSON lines, Parquet and queries may hold the prompt; the first that is there counts."""
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

    line: str
    detail: str


def read_prompts(source: str, prompt_set: str = "own") -> PromptRows:
    """Prompts of a file, by its ending: `.txt` (one a line), `.csv`, `.tsv`, `.json`, `.jsonl`, `.parquet`; `-` is text on standard input.

    Letter case counts neither in the ending nor in the names of columns. A column `prompt_set`, where there is one, says which set a
    prompt belongs to; a column `image`, in CSV and JSON, names a picture to complete, relative to the file.
    Raises `ValueError` when the file is missing, of another kind, unreadable as a whole, or without a usable prompt.
    """
    if source == STANDARD_INPUT:
        return _sort_out("standard input", Path(), _read_lines(sys.stdin.buffer.read()), prompt_set)
    path = Path(source).expanduser()
    readers = {
        ".txt": _read_text, ".csv": _read_csv, ".tsv": _read_csv, ".json": _read_json, ".jsonl": _read_json, ".ndjson": _read_json,
        ".parquet": _read_parquet,
    }  # fmt: skip
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise ValueError(f"prompts {source}: an ending {path.suffix or '(none)'} is not known; use {', '.join(readers)}, or - for input")
    if not path.is_file():
        raise ValueError(f"prompts {source}: there is no such file; correct the path")
    return _sort_out(source, path.parent, readers[suffix](path), prompt_set)


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
            text = encodable(row.line).strip()[:MAX_SHOWN]
            dropped.append(_dropped(text, prompt_set, "malformed", row.detail))
            continue
        name = encodable(str(row.get("prompt_set") or prompt_set))
        if problem := _problem(row["prompt"]):
            text = "" if row["prompt"] is None else ascii(row["prompt"])[:MAX_SHOWN]
            dropped.append(_dropped(text, name, problem[0], f"{row['where']}: {problem[1]}"))
            continue
        text = clean_caption(row["prompt"])
        try:
            image = (folder / Path(row["image"]).expanduser()).read_bytes() if row.get("image") else None
        except (OSError, TypeError, ValueError) as error:
            detail = encodable(f"{row['where']}: its picture {row['image']} cannot be read ({getattr(error, 'strerror', None) or error})")
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
    if value is None or (isinstance(value, str) and not clean_caption(value)):
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
    for line in TextFile(io.BytesIO(data)).lines():
        yield _unsure(Record(line.number, None, line.text, line.decoded, line.problem)) or {
            "prompt": line.text, "where": f"line {line.number}",
        }  # fmt: skip


def _unsure(record: Record) -> _Malformed | None:
    """A line that cannot be read, or only by guessing its encoding: a picture of something else would be made in silence."""
    if record.problem:
        return _Malformed(record.text, f"line {record.number} cannot be read: {record.problem}")
    if record.decoded.is_guess and not record.text.isascii():
        detail = f"line {record.number} is not UTF-8; {record.decoded.encoding} is a guess: save the file as UTF-8"
        return _Malformed(record.text, detail)
    return None


def _read_csv(path: Path) -> Iterator[Row | _Malformed]:
    """A record that cannot be read costs one line: reading goes on with the next, so a forgotten quotation mark swallows nothing."""
    column = None
    with path.open("rb") as file:
        try:
            for record in read_csv(TextFile(file), "," if path.suffix.lower() == ".csv" else "\t"):
                if malformed := _unsure(record):
                    yield malformed
                    continue
                column = column or _column(str(path), list(record.value))
                yield from _located(record.value, column, f"line {record.number}")
        except ValueError as error:
            if column is None and not str(error).startswith("prompts"):
                raise ValueError(f"prompts {path}: not a readable CSV file ({error}); save it as UTF-8 with a header line") from error
            raise


def _read_json(path: Path) -> Iterator[Row | _Malformed]:
    with path.open("rb") as file:
        for record in json_records(TextFile(file)):
            value, where = record.value, f"line {record.number}"
            if malformed := _unsure(record):
                yield malformed
            elif not isinstance(value, dict):
                yield {"prompt": value, "where": where}
            else:
                folded = {fold_name(name): item for name, item in value.items()}
                if column := next((name for name in COLUMNS if name in folded), None):
                    yield from _located(folded, column, where)
                else:
                    yield _Malformed(record.text, f"{where} has none of {', '.join(COLUMNS[:3])}")


def _read_parquet(path: Path) -> Iterator[Row | _Malformed]:
    try:
        with open_parquet(path) as file:
            names = file.schema_arrow.names
            column = _column(str(path), names)
            wanted = [name for name in names if fold_name(name) in (column, "prompt_set")]
            yield from _table_rows(file.iter_batches(ROWS_AT_ONCE, columns=wanted), column)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"prompts {path}: not a readable Parquet file ({error}); write it again") from error


def _table_rows(batches: Iterable[pa.RecordBatch], column: str) -> Iterator[Row | _Malformed]:
    number = 0
    for batch in batches:
        places = {
            fold_name(name): i for i, name in reversed(list(enumerate(batch.schema.names))) if fold_name(name) in (column, "prompt_set")
        }
        columns = {name: batch.column(i).to_pylist(maps_as_pydicts="lossy") for name, i in places.items()}
        for values in zip(*columns.values(), strict=True):
            number += 1
            yield from _located(dict(zip(columns, values, strict=True)), column, f"row {number}")


def _located(row: Row, column: str, where: str) -> Iterator[Row]:
    """The prompts of a row: one, or one for every text of a list or mapping."""
    value = row.get(column)
    values = captions_in(value) if isinstance(value, bytes | list | dict) else [value]
    for prompt in values or [value]:
        yield {"prompt": prompt, "prompt_set": row.get("prompt_set"), "image": row.get("image"), "where": where}


def _column(source: str, names: list[str]) -> str:
    """The folded name of the column with the prompts."""
    folded = [fold_name(name) for name in names]
    for column in COLUMNS:
        if column in folded:
            return column
    listed = ", ".join(map(str, names))
    raise ValueError(f"prompts {source}: no column of {', '.join(COLUMNS[:3])}; it has {listed}; rename the one with the prompts")
