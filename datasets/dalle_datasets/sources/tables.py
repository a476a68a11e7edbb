"""Tables of image URLs with captions, as data sets are published: CSV, TSV, JSON (lines or an array) and Parquet.

Columns are recognised by the names that LAION, COYO, DataComp and others use; Conceptual Captions' TSV files have no header, and COCO's
`captions_*.json` are one object.
Parquet may hold the pictures themselves, as Hugging Face and img2dataset store them. A row that cannot be used costs itself only.
"""

import itertools
import json
import logging
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dalle_datasets.sources.annotations import coco_rows
from dalle_datasets.sources.base import Drop, FoundImage, clean_url, judge
from dalle_datasets.sources.discovered import DiscoveryWriter
from dalle_datasets.store.parquet import open_parquet
from dalle_datasets.texts.captions import CAPTION_NAMES, captions_in, clean_caption, fold_name
from dalle_datasets.texts.decoding import TEXT, decode_text, encodable
from dalle_datasets.texts.records import Record, TextFile, json_records, read_csv

logger = logging.getLogger(__name__)

URL_COLUMNS = ("image_url", "url", "img_url", "photo_image_url", "coco_url", "image", "src", "link")
CAPTION_COLUMNS = (*CAPTION_NAMES, "captions", "texts", "photo_description", "sentences", "raw", "prompt")
_NUMBERED = re.compile(r"(?:caption|text|sentence|description)_?(\d{1,3})")
"""Columns of a picture with several captions, e.g. caption_0 to caption_4; they count where none of `CAPTION_COLUMNS` does."""
PAGE_COLUMNS = ("page_url", "context_page_url", "photo_url", "referrer", "document_url")
LICENCE_COLUMNS = ("licence", "license", "license_url", "licence_url", "rights")
PICTURE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "img", "picture", "photo", "image_bytes", "image_data", "bytes")
"""Binary columns with these names, and structs with a field `bytes`, hold pictures."""
IN_TABLE = "table:"
"""What the URL of a picture inside a table begins with."""
BATCH_ROWS = 10_000
LISTED_NAMES = 20


def read_table(path: Path, document: str, result: DiscoveryWriter) -> None:
    """Add the rows of a table to `result`. Raises `ValueError` for a table without the columns, `OSError` for a broken file."""
    num_rows = 0
    records = table_records(path, document)
    while some := list(itertools.islice(records, BATCH_ROWS)):
        if not num_rows:
            _check_columns(dict.fromkeys(name for row in some if isinstance(row.value, dict) for name in row.value), document)
        for record in some:
            _read_row(record, num_rows, document, result)
            num_rows += 1


def _read_row(record: Record, position: int, document: str, result: DiscoveryWriter) -> None:
    """Take the pairs of a row: one for every caption."""
    where = f"line {record.number}" if record.text else f"row {position}"
    if record.problem or not isinstance(record.value, dict):
        what = record.problem or f"no JSON object but {type(record.value).__name__}"
        result.add(drops=[Drop("broken_line", f"{where} cannot be read: {what}"[:200], document)])
        return
    row = record.value
    image_url = row.get(PICTURE) or clean_url(_text(_first(row, URL_COLUMNS)))
    page_url, licence = origin_of(row)
    value = caption_of(row)
    nothing = f"{where} has no caption" + ("" if value is None else f", but {type(value).__name__}")
    for caption in captions_in(value) or [""]:
        found = FoundImage(image_url, caption, page_url or document, position, "table", document, licence=licence)
        item = judge(found, record.decoded, nothing, is_local=PICTURE in row)
        if isinstance(item, Drop) and item.reason == "bad_scheme":
            item = item._replace(detail=f"{where} has {image_url[:40]!r}")
        elif isinstance(item, Drop) and not item.detail.startswith(where):
            item = item._replace(detail=f"{where}: {item.detail}")
        result.take(item)


PICTURE = "\0picture"
"""Key of the URL of a picture that is in the row itself; no column can be called so."""


def _first(row: dict[str, Any], names: Iterable[str]) -> Any:
    """The value of the first of some columns that has one."""
    return next((row[name] for name in names if row.get(name) not in (None, "", [])), None)


def caption_of(row: dict[str, Any]) -> Any:
    """What a row has for a caption, or a list of what it has in numbered columns; None if nothing."""
    if (value := _first(row, CAPTION_COLUMNS)) is not None:
        return value
    numbered = {int(found[1]): value for name, value in row.items() if (found := _NUMBERED.fullmatch(name))}
    return [numbered[number] for number in sorted(numbered)] or None


def origin_of(row: dict[str, Any]) -> tuple[str, str | None]:
    """The page and the licence of a picture, as fields with folded names tell them: empty and None where they do not."""
    return clean_url(_text(_first(row, PAGE_COLUMNS))), clean_caption(_text(_first(row, LICENCE_COLUMNS))) or None


def _text(value: Any) -> str:
    """a URL or a name: text, or the first text of a list."""
    while isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, bytes):
        return decode_text(value).text
    return encodable(value) if isinstance(value, str) else ""


def _check_columns(names: Iterable[str], document: str) -> None:
    """Raises `ValueError` if none of the columns, or fields of the first rows, is one of URLs, or none one of captions."""
    names = dict.fromkeys(names)
    if not names:
        return
    for known, what in (((PICTURE, *URL_COLUMNS), "addresses"), (CAPTION_COLUMNS, "captions")):
        if not any(name in names for name in known) and not (known is CAPTION_COLUMNS and any(map(_NUMBERED.fullmatch, names))):
            listed = ", ".join(name for name in itertools.islice(names, LISTED_NAMES) if name != PICTURE)
            raise ValueError(f"{document}: no column of {what} among {listed}; name it {known[known[0] == PICTURE]!r}")


def table_records(path: Path, document: str) -> Iterator[Record]:
    """The rows of a table by the ending of its name; compression is recognised by it too. The names of the columns are folded."""
    suffixes = [suffix.lower() for suffix in Path(document.partition("?")[0]).suffixes]
    kind = next((suffix for suffix in reversed(suffixes) if suffix not in (".gz", ".zst", ".bz2")), "")
    if kind in (".parquet", ".pq"):
        yield from _parquet_records(path, document)
    elif kind == ".json" and (rows := coco_rows(path)) is not None:
        yield from (Record(number, row, "") for number, row in enumerate(rows))
    elif kind in (".jsonl", ".ndjson", ".json"):
        with pa.input_stream(path, compression="detect") as stream:
            for record in json_records(TextFile(stream)):
                value = record.value
                yield record._replace(value={fold_name(name): item for name, item in value.items()}) if isinstance(value, dict) else record
    elif kind in (".csv", ".tsv", ".tab", ".txt"):
        with pa.input_stream(path, compression="detect") as stream:
            yield from read_csv(TextFile(stream), "," if kind == ".csv" else "\t", partial(_names_of, document))
    else:
        raise ValueError(f"{document}: tables end in .csv, .tsv, .json, .jsonl or .parquet, perhaps with .gz")


def _names_of(document: str, fields: list[str]) -> list[str] | None:
    """Column names for a file whose first row is data already (a URL among its fields); None if it has a header, which is checked."""
    where = [i for i, field in enumerate(fields) if field.strip().lower().startswith(("http://", "https://"))]
    if not where:
        _check_columns(map(fold_name, fields), document)
        return None
    caption = next((i for i in range(len(fields)) if i not in where), None)
    return ["url" if i == where[0] else "caption" if i == caption else f"column {i}" for i in range(len(fields))]


def _parquet_records(path: Path, document: str) -> Iterator[Record]:
    """Rows of the columns that matter; of pictures in it, the URL."""
    with open_parquet(path) as file:
        picture = picture_column(file)
        if picture is not None and document.startswith(("http://", "https://")):
            logger.warning("%s holds pictures, which are read from files on this machine only; download it and give its path", document)
            picture = None
        wanted = {*URL_COLUMNS, *CAPTION_COLUMNS, *PAGE_COLUMNS, *LICENCE_COLUMNS}
        folded_names = [fold_name(field.name) for field in file.schema_arrow]
        places = [i for i, name in enumerate(folded_names) if (name in wanted or _NUMBERED.fullmatch(name)) and i != picture]
        names = list(dict.fromkeys(file.schema_arrow.field(i).name for i in places))
        if not places:
            named = {fold_name(name): None for name in file.schema_arrow.names}
            yield Record(0, {**named, PICTURE: ""} if picture is not None else named, "")
            return
        number = 0
        for batch in file.iter_batches(BATCH_ROWS, columns=names):
            folded = [fold_name(name) for name in batch.schema.names]
            columns = [column.to_pylist(maps_as_pydicts="lossy") for column in batch.columns]
            for values in zip(*columns, strict=True):
                row: dict[str, Any] = {}
                for name, value in zip(folded, values, strict=True):
                    row[name] = value if name not in row else [*_listed(row[name]), *_listed(value)]
                if picture is not None:
                    row[PICTURE] = f"{IN_TABLE}{Path(document).name}/{number:012d}"
                yield Record(number, row, "", TEXT)
                number += 1


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def picture_column(file: pq.ParquetFile) -> int | None:
    """Which column of a Parquet file holds pictures: a struct with a field `bytes`, or a binary column that is called so.

    Hugging Face's description of the columns, if there is one, tells pictures from sounds and films, which have the same form.
    """
    others = _declared_others(file)
    fields: dict[str, int] = {
        fold_name(field.name): i for i, field in reversed(list(enumerate(file.schema_arrow))) if field.name not in others
    }
    for name in (*PICTURE_COLUMNS, *fields):
        place = fields.get(name)
        if place is None:
            continue
        kind = file.schema_arrow.field(place).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return place
        if name in PICTURE_COLUMNS and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) and not _holds_addresses(file, place):
            return place
    return None


def _declared_others(file: pq.ParquetFile) -> set[str]:
    """Columns of which Hugging Face's metadata says that they hold something else than pictures."""
    try:
        features = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") in ("Audio", "Video", "Pdf")
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()


def _holds_addresses(file: pq.ParquetFile, place: int) -> bool:
    """Whether a binary column is text that was not declared as such, as old programs write it."""
    batch = next(file.iter_batches(16, columns=[file.schema_arrow.names[place]]), None)
    values = [] if batch is None else [value for value in batch.column(0).to_pylist() if value]
    return bool(values) and all(value[:8].lower().startswith((b"http://", b"https://")) for value in values)
