"""Lines and records of text files from anywhere: CSV, TSV and JSON. A record that cannot be read costs its line and nothing else.

Files are read as a stream, so memory does not grow with them.
"""

import csv
import io
import itertools
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from dalle_datasets.texts.captions import fold_name
from dalle_datasets.texts.decoding import MARKS, SAMPLE_BYTES, TEXT, Decoded, decode_line, guess_codec

MAX_LINE_CHARS = 1 << 20
"""Of a line, or of one value of a JSON array; longer ones cannot be read."""
MAX_RECORD_LINES = 50
"""Lines that one quoted CSV field may reach over; more, and a quotation mark was forgotten."""
DELIMITERS = ",;\t|"
MAX_SHOWN = 200
"""Characters that are kept of what cannot be read."""
_CHUNK_CHARS = 1 << 16
_SEPARATOR = re.compile(r"\s*\"?sep=(.)\"?\s*", re.IGNORECASE)
_BETWEEN = re.compile(r"[\s,]*")
_NEXT_ITEM = re.compile(r'\n[ \t\r,]*(?=[{"\]])')


class Line(NamedTuple):
    """A line with its end, and how it was decoded."""

    number: int
    """From 1."""
    text: str
    decoded: Decoded
    problem: str = ""
    """Why it cannot be used."""


class Record(NamedTuple):
    """A record, or why there is none."""

    number: int
    """Of its first line, from 1."""
    value: Any
    """The fields (CSV), or what the JSON says."""
    text: str
    """Its line, for messages."""
    decoded: Decoded = TEXT
    problem: str = ""


class TextFile:
    """The text of a stream of bytes. Its encoding is told by its mark, or by its first megabyte; lines that are not UTF-8 by each line."""

    def __init__(self, stream: BinaryIO) -> None:
        head = stream.read(SAMPLE_BYTES)
        mark, codec = next(((mark, codec) for mark, codec in MARKS if head.startswith(mark)), (b"", ""))
        self._is_guess = False
        if not codec:
            codec, self._is_guess = guess_codec(head, is_whole=len(head) < SAMPLE_BYTES)
        # Where one byte is one letter or part of one, every line decides for itself.
        self._by_line = codec in ("utf-8", "sloppy-windows-1252")
        self._codec = "utf-8" if self._by_line else codec
        source = io.BufferedReader(_Joined(head[len(mark) :], stream), _CHUNK_CHARS)
        self.stream = io.TextIOWrapper(source, self._codec, "surrogateescape" if self._by_line else "replace", newline="")

    def decode(self, text: str) -> Decoded:
        """A piece of the text, with what is known of its encoding."""
        if self._by_line:
            try:
                text.encode()
                return Decoded(text, "utf-8")
            except UnicodeEncodeError:
                return decode_line(text.encode("utf-8", "surrogateescape"))
        return Decoded(text, self._codec, self._is_guess)

    def lines(self, start: str = "", number: int = 1) -> Iterator[Line]:
        """The lines, numbered from `number`; `start` has been read of the first one."""
        while text := start + self.stream.readline(MAX_LINE_CHARS):
            start = ""
            is_cut = len(text) >= MAX_LINE_CHARS and not text.endswith(("\n", "\r"))
            while is_cut and (rest := self.stream.readline(MAX_LINE_CHARS)) and not rest.endswith(("\n", "\r")):
                pass
            decoded = self.decode(text)
            yield Line(number, decoded.text, decoded, f"it has more than {MAX_LINE_CHARS} characters" if is_cut else "")
            number += 1


class _Joined(io.RawIOBase):
    """Bytes that were read already, and the stream that they are from."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = memoryview(head)
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] if self._head else self._stream.read(len(buffer))
        self._head = self._head[len(data) :] if self._head else self._head
        buffer[: len(data)] = data
        return len(data)


def csv_records(lines: Iterable[Line], delimiter: str, quoted: bool = True) -> Iterator[Record]:
    """The records of a CSV or TSV file with their fields. Empty lines are none.

    A field in quotation marks may reach over lines. One that is never closed costs its first line: reading goes on with the next.
    Unless `quoted`, quotation marks count only where they enclose a whole field of one line.
    """
    source = iter(lines)
    ahead: deque[Line] = deque()
    while True:
        ahead.extend(itertools.islice(source, MAX_RECORD_LINES - len(ahead)))
        if not ahead:
            return
        line = ahead[0]
        num_lines, fields, problem = 1, [], line.problem
        if not problem and quoted:
            reader = csv.reader((line.text for line in ahead), delimiter=delimiter, strict=True)
            try:
                fields = next(reader, [])
                num_lines = max(1, reader.line_num)
            except csv.Error as error:
                problem = "a quotation mark is never closed" if "end of data" in str(error) else f"no CSV: {error}"
        elif not problem:
            fields = [_unquote(field) for field in line.text.rstrip("\r\n").split(delimiter)]
        decoded = next((line.decoded for line in itertools.islice(ahead, num_lines) if line.decoded.is_guess), line.decoded)
        for _ in range(num_lines):
            ahead.popleft()
        if problem or any(field.strip() for field in fields):
            yield Record(line.number, fields, line.text, decoded, problem)


def _unquote(field: str) -> str:
    inner = field[1:-1].replace('""', "")
    return field[1:-1].replace('""', '"') if len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner else field


def named_records(records: Iterator[Record], names: list[str]) -> Iterator[Record]:
    """Records of fields as mappings from column names (see `fold_name`) to values; of columns with one name, to the list of them.

    A record with more fields than there are columns cannot be read.
    """
    folded = [fold_name(name) for name in names]
    are_repeated = len(set(folded)) < len(folded)
    for record in records:
        fields = record.value
        if not record.problem and len(fields) > len(folded):
            while fields and not fields[-1].strip():
                fields.pop()
            if len(fields) > len(folded):
                problem = f"it has {len(fields)} fields for {len(folded)} columns; put quotation marks round commas"
                record = record._replace(problem=problem)
        if record.problem:
            yield record
            continue
        row: dict[str, Any] = dict(zip(folded, fields, strict=False))
        if are_repeated:
            for name in {name for name in folded if folded.count(name) > 1}:
                row[name] = [field for field, column in zip(fields, folded, strict=False) if column == name and field.strip()]
        yield record._replace(value=row)


def read_csv(
    file: TextFile, usual: str, names_without_header: Callable[[list[str]], list[str] | None] = lambda fields: None
) -> Iterator[Record]:
    """The rows of a CSV or TSV file, by the names of its columns (see `named_records`).

    Fields are separated by the `usual` sign, unless the header has none of it and another one (spreadsheets differ by country).
    `names_without_header` gives the names for a file whose first row is data already. Raises `ValueError` when there is no header.
    """
    lines = file.lines()
    first = next((line for line in lines if line.text.strip()), None)
    if first is None:
        return
    if said := _SEPARATOR.fullmatch(first.text):  # spreadsheets write it, and read it
        usual, first = said[1], next((line for line in lines if line.text.strip()), first)
    delimiter = usual if usual in first.text else max(DELIMITERS, key=first.text.count)
    if delimiter not in first.text:
        delimiter = usual
    records = csv_records(itertools.chain([first], lines), delimiter, quoted=delimiter != "\t")
    header = next(records, None)
    if header is None or header.problem:
        raise ValueError(f"its first line is no header: {header.problem if header else 'it is empty'}")
    names = names_without_header(header.value)
    yield from named_records(records if names is None else itertools.chain([header], records), header.value if names is None else names)


def json_records(file: TextFile) -> Iterator[Record]:
    """The values of a file of JSON lines, or the items of an array however it is laid out. Empty lines are none."""
    blank = ""
    while (sign := file.stream.read(1)) and sign.isspace():
        blank += sign
    if sign == "[":
        yield from _array_records(file, 1 + blank.count("\n"))
        return
    for line in file.lines(sign, 1 + blank.count("\n")):
        if line.text.strip():
            yield _json_record(line.number, line.text, line.decoded, line.problem)


def _json_record(number: int, text: str, decoded: Decoded, problem: str = "") -> Record:
    try:
        return Record(number, None if problem else json.loads(text.rstrip("\r\n")), text, decoded, problem)
    except (ValueError, RecursionError) as error:
        return Record(number, None, text, decoded, f"no JSON ({getattr(error, 'msg', error)})")


def _array_records(file: TextFile, number: int) -> Iterator[Record]:
    """The items of an array that has begun. One that cannot be read costs everything up to the next line that begins with one."""
    decoder = json.JSONDecoder()
    text, place, is_end = "", 0, False

    def more() -> bool:
        nonlocal text, place, is_end
        chunk = "" if is_end else file.stream.read(_CHUNK_CHARS)
        is_end = not chunk
        text, place = text[place:] + chunk, 0
        return not is_end

    while True:
        between = _BETWEEN.match(text, place)
        start = between.end() if between else place
        number += text.count("\n", place, start)
        place = start
        if place == len(text):
            if not more():
                yield Record(number, None, "", TEXT, "the array has no end")
                return
            continue
        if text[place] == "]":
            return
        problem = ""
        while True:
            try:
                end = decoder.raw_decode(text, place)[1]
                if end < len(text) or not more():  # a number may go on
                    break
            except (ValueError, RecursionError) as error:
                if len(text) - place > MAX_LINE_CHARS or not more():
                    what = getattr(error, "msg", str(error))
                    problem, shown, first = f"no JSON ({what})", text[place : place + MAX_SHOWN], number
                    while not (following := _NEXT_ITEM.search(text, place + 1)) and not is_end:
                        skipped = max(place, len(text) - MAX_SHOWN)  # a line end may lie at the end of what has been read
                        number += text.count("\n", place, skipped)
                        place = skipped
                        more()
                    end = following.end() if following else len(text)
                    break
        if problem:
            yield Record(first, None, shown, TEXT, problem)
        else:
            decoded = file.decode(text[place:end])
            yield _json_record(number, decoded.text, decoded)
        number += text.count("\n", place, end)
        place = end
