"""Tables of image URLs with captions, as data sets are published: CSV, TSV, JSON lines (plain or gzip) and Parquet.

Columns are recognised by the names that LAION, COYO, DataComp and others use; Conceptual Captions' TSV files have no header.
"""

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv

from dalle_datasets.sources.base import Drop, FoundImage, clean_caption, clean_url, encodable
from dalle_datasets.sources.discovered import DiscoveryWriter
from dalle_datasets.store.parquet import open_parquet

URL_COLUMNS = ("image_url", "url", "img_url", "photo_image_url", "image", "src", "link")
CAPTION_COLUMNS = ("caption", "text", "alt", "alt_text", "top_caption", "description", "photo_description", "title")
PAGE_COLUMNS = ("page_url", "context_page_url", "photo_url", "referrer", "document_url")
LICENCE_COLUMNS = ("licence", "license", "license_url", "licence_url", "rights")
BATCH_ROWS = 10_000
MAX_LINE_BYTES = 1 << 20
"""Longest line of JSON that is read."""


def read_table(path: Path, document: str, result: DiscoveryWriter) -> None:
    """Add the rows of a table to `result`. Raises `ValueError` for a table without the columns, `OSError` for a broken file."""
    position = 0
    for table in _batches(path, document, result):
        url_column, caption_column = (
            _column(table, URL_COLUMNS, document, "addresses"),
            _column(table, CAPTION_COLUMNS, document, "captions"),
        )
        page_column = next((name for name in table.column_names if name.lower() in PAGE_COLUMNS), None)
        pages = table[page_column].to_pylist() if page_column else [None] * table.num_rows
        licence_column = next((name for name in table.column_names if name.lower() in LICENCE_COLUMNS), None)
        licences = table[licence_column].to_pylist() if licence_column else [None] * table.num_rows
        rows = zip(table[url_column].to_pylist(), table[caption_column].to_pylist(), pages, licences, strict=True)
        for url, text, page, licence in rows:
            image_url, caption = clean_url(str(url or "")), clean_caption(str(text or ""))
            page_url = str(page or document)
            if not caption:
                result.add(drops=[Drop("no_caption", f"row {position} has no caption", page_url, image_url[:200])])
            elif not image_url.startswith(("http://", "https://")):
                result.add(drops=[Drop("bad_scheme", f"row {position} has {image_url[:40]!r}", page_url, image_url[:200], caption)])
            else:
                licence = clean_caption(str(licence or "")) or None
                result.add([FoundImage(image_url, caption, page_url, position, "table", document, licence=licence)])
            position += 1


def _batches(path: Path, document: str, result: DiscoveryWriter) -> Iterator[pa.Table]:
    """The table in pieces. Compression is recognised by the name of the file."""
    kind = next((suffix for suffix in reversed(Path(document.partition("?")[0]).suffixes) if suffix not in (".gz", ".zst", ".bz2")), "")
    if kind == ".parquet":
        with open_parquet(path) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                yield pa.Table.from_batches([batch])
    elif kind in (".jsonl", ".ndjson", ".json"):
        with pa.input_stream(path, compression="detect") as stream:
            yield from _json_tables(io.BufferedReader(stream), document, result)
    elif kind in (".csv", ".tsv", ".txt"):
        delimiter = "," if kind == ".csv" else "\t"
        with pa.input_stream(path, compression="detect") as stream:
            reader = csv.open_csv(
                stream,
                csv.ReadOptions(column_names=_names(path, delimiter)),
                csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, quote_char='"' if kind == ".csv" else False),
                csv.ConvertOptions(strings_can_be_null=True),
            )
            for batch in reader:
                yield pa.Table.from_batches([batch])
    else:
        raise ValueError(f"{document}: tables end in .csv, .tsv, .jsonl or .parquet, perhaps with .gz")


def _json_tables(stream: io.BufferedReader, document: str, result: DiscoveryWriter) -> Iterator[pa.Table]:
    """JSON lines as tables of text; a field need not be in every line. Lines that are no objects become drops."""
    names: dict[str, None] = {}
    numbered = enumerate(iter(lambda: stream.readline(MAX_LINE_BYTES), b""), 1)
    while lines := list(itertools.islice(numbered, BATCH_ROWS)):
        rows = []
        for number, line in lines:
            try:
                rows.append({encodable(name): value for name, value in json.loads(line).items()})
            except (ValueError, AttributeError, RecursionError) as error:
                if not line.isspace():
                    detail = f"line {number} is no JSON object of at most {MAX_LINE_BYTES} bytes ({error})"
                    result.add(drops=[Drop("broken_line", detail[:200], document)])
        names |= dict.fromkeys(name for row in rows for name in row)
        texts = {name: [None if row.get(name) is None else encodable(str(row[name])) for row in rows] for name in names}
        yield pa.table({name: pa.array(column, pa.string()) for name, column in texts.items()})


def _names(path: Path, delimiter: str) -> list[str] | None:
    """Column names for a file whose first row is data already (a URL among its fields); None if it has a header."""
    with pa.input_stream(path, compression="detect") as stream:
        first = stream.read(100_000).split(b"\n")[0].decode("utf-8", "replace").strip("\ufeff\r\n")
    fields = [field.strip().strip('"') for field in first.split(delimiter)]
    where = [i for i, field in enumerate(fields) if field.startswith(("http://", "https://"))]
    if not where:
        return None
    caption = next((i for i in range(len(fields)) if i not in where), None)
    return ["url" if i == where[0] else "caption" if i == caption else f"column {i}" for i in range(len(fields))]


def _column(table: pa.Table, known: tuple[str, ...], document: str, what: str) -> str:
    names: dict[str, str] = {name.lower(): name for name in reversed(table.column_names)}
    found = next((names[name] for name in known if name in names), None)
    if found is None:
        raise ValueError(f"{document}: no column of {what} among {', '.join(table.column_names)}; name it {known[0]!r}")
    return found
